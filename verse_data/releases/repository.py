"""A release on this machine: a DataLad dataset whose tags are the versions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from verse_data import config as configuration
from verse_data.config import Config
from verse_data.errors import ContentMissing
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile, ReleaseLock, is_release_name
from verse_data.records.names import role_of, scan_of, split_of
from verse_data.records.source_file import SourceFile
from verse_data.releases import annex
from verse_data.releases.adopt import AdoptReport, adopt_sources
from verse_data.releases.annex import ObjectStore
from verse_data.releases.fetch import FetchLog, FetchReport, fetch_files, file_urls
from verse_data.releases.history import History, command
from verse_data.releases.import_lock import publish
from verse_data.releases.siblings import Sibling, datalad_dataset, siblings


def repositories(settings: Config) -> list[Repository]:
    """Return the releases on this machine, by name."""
    # Version 0.1 kept releases beside the stores, and they are used there.
    places = [place for place in (settings.releases, settings.home / "releases") if place.is_dir()]
    names = sorted({path.name for place in places for path in place.iterdir()})
    names = [name for name in names if is_release_name(name)]  # leaves out temporary folders
    found = (Repository(settings.release(name), config=settings) for name in names)
    return [repository for repository in found if repository.exists()]


class Repository(History):
    """One release as a DataLad dataset.

    Parameters
    ----------
    path : Path
        Folder of the dataset; it need not exist yet.
    config : Config, optional
        Endpoints, and whether the network may be used. Default: resolved when needed.

    Attributes
    ----------
    store : ObjectStore
        The contents that are here.
    """

    def __init__(self, path: Path, *, config: Config | None = None) -> None:
        super().__init__(path)
        self.store = ObjectStore(self.path)
        self._config = config

    def __repr__(self) -> str:
        versions = ", ".join(self.versions()) or "no version"
        return f"<Repository {self.name} at {self.path}: {versions}>"

    @property
    def config(self) -> Config:
        """Endpoints, and whether the network may be used."""
        return self._config or configuration.resolve()

    @property
    def datalad(self) -> Any:
        """The ``datalad.api.Dataset`` of this folder."""
        return datalad_dataset(self.path)

    def publish(self, lock: ReleaseLock, *, after: str | None = None) -> str:
        """Make `lock` a version, and return its name.

        The dataset is built, or a commit and a tag are added to it. A lock with the same files as an
        existing version makes no new one; only new addresses are added. `after` is the version that
        the lock was made from: `NotNewest`, a `UsageError`, if that is no longer the newest.
        `UsageError` if it is of another release, `ToolMissing` without git or git-annex.
        """
        return publish(self, lock, addresses=self.addresses, after=after)

    def addresses(self, file: LockedFile) -> tuple[str, ...]:
        """Return every address of the content of `file`, the one on OSF first."""
        return file_urls(file, osf_site=self.config.osf_site)

    def siblings(self) -> tuple[Sibling, ...]:
        """Return the clones and RIA stores in folders of this machine that may have contents."""
        return siblings(self.path)

    def object_path(self, file: LockedFile) -> Path:
        """Return the path of the content of `file`, which need not exist."""
        return self.store.object_path(file)

    def has(self, file: LockedFile) -> bool:
        """Whether the content of `file` is on this machine."""
        return self.store.has(file)

    def has_source(
        self, file: LockedFile, siblings: Sequence[Sibling], *, offline: bool = False
    ) -> bool:
        """Whether an address, a sibling's folder or, perhaps, a sibling's server has `file`."""
        far = bool(self.addresses(file)) or any(one.git_folder is None for one in siblings)
        return (far and not offline) or any(one.find(file) for one in siblings)

    def source(self, file: LockedFile, *, version: str | None = None) -> SourceFile:
        """Return the local copy of `file`, for reading, which checks its digest first.

        `version` is for the command in its errors, if it is not the newest. `ContentMissing` if the
        file is not here.
        """
        if not self.has(file):
            remedy = self.remedy(file, version, siblings=self.siblings(), narrow=True)
            raise ContentMissing(
                f"{file.path} ({file.size:,} bytes) of {self.name} is locked, but not on this machine "
                f"(looked in {self.path}). Bring it with: {remedy}"
            )
        return SourceFile(
            self.object_path(file),
            file.annex_key,
            name=file.path,
            release=self.name,
            scan_id=scan_of(file.path) or "",
            repair=self.remedy(file, version, damaged=True),
        )

    def local(self, file: LockedFile, *, version: str | None = None) -> SourceFile | None:
        """Return the local copy of `file` as :meth:`source` does; None if it is not here."""
        return self.source(file, version=version) if self.has(file) else None

    def remedy(
        self,
        file: LockedFile,
        version: str | None = None,
        *,
        damaged: bool = False,
        siblings: Sequence[Sibling] = (),
        narrow: bool = False,
    ) -> str:
        """Return the command that gets a missing file, or replaces a `damaged` one.

        `siblings` are those that may have a file without address; `narrow` limits the command to this
        file's scan and role.
        """
        # This is called for every file that is read, so it does not call git.
        role, scan_id, words = role_of(file.path), scan_of(file.path), list[str]()
        if narrow and role:
            words = [*(["--scan", scan_id] if scan_id else []), "--role", role]
        line, note = command(self, "get", *words, version=version), "it has no address"
        if not self.addresses(file):
            places = ", ".join(sibling.name for sibling in siblings)
            note += f"; {places} may have it" if places else ""
            adopt = command(self, "adopt", "PATH", version=version, note=note)
            line = f"{line} || {adopt}" if places else adopt
        return (
            f"{command(self, 'drop', '--corrupt', version=version)} && {line}" if damaged else line
        )

    def record_presence(self) -> None:
        """Record with git-annex everything that was ingested since the last record."""
        with self.store.unrecorded() as keys:
            annex.record_presence(self.path, dict.fromkeys(keys, True))

    def adopt(
        self,
        sources: Sequence[Path | str],
        version: str | None = None,
        *,
        on_difference: Literal["report", "refuse"] = "report",
        progress: Progress = silent,
    ) -> AdoptReport:
        """Copy the files in `sources` that belong to a version into the dataset.

        `sources` are folders, files, zips, and addresses of zips; they are neither moved nor
        changed. `on_difference` says what to do about a file with a locked name but other bytes.

        Raises
        ------
        SourceChanged
            If a file differs and `on_difference` is ``"refuse"``; the other files are adopted.
        """
        lock = self.lock(version)
        annex.require_usable(self.path)
        try:
            report = adopt_sources(sources, lock, self.store, config=self.config, progress=progress)
        finally:
            self.record_presence()
        FetchLog(self.path).note("adopted", [file.annex_key for file in report.new])
        if on_difference == "refuse":
            report.refuse_differences(self.name)
        return report

    def fetch(
        self, files: Sequence[LockedFile], *, jobs: int = 8, progress: Progress = silent
    ) -> FetchReport:
        """Fetch and verify files; those that are here already are skipped.

        `files` may be of any version. Each comes from a sibling in a folder, else over HTTP, at most
        `jobs` at a time, else from a sibling on a server. Failures are in the report; raised
        is `Offline`, which lists them, if the network is forbidden, and `UnsafeInput` if the dataset's
        git configuration is not as this package writes it.
        """
        return fetch_files(self.store, files, jobs=jobs, config=self.config, progress=progress)


# --- what is here -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Share:
    """Counts of the files of one split (or empty) and role (or ``other``): locked, and here."""

    split: str
    role: str
    files: int
    here: int
    bytes: int
    bytes_here: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """What of one version is on this machine."""

    release: str
    version: str
    versions: tuple[str, ...]
    commit: str
    lock: str
    path: str
    files: int
    here: int
    bytes_missing: int
    shares: tuple[Share, ...]
    to_adopt: tuple[str, ...]
    """Files that are not here, and that have neither an address nor a sibling that may have them."""
    interrupted: int
    """Downloads that were started and not finished; the next ``get`` continues them."""


def status(repository: Repository, version: str | None = None) -> Status:
    """Count the files that are here; only their names and sizes are read."""
    name = repository.resolve(version)
    lock, near = repository.lock(name), repository.siblings()
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    to_adopt = []
    for file in lock.files:
        count = counts[split_of(file.path) or "", role_of(file.path) or "other"]
        count.update(files=1, bytes=file.size)
        if repository.has(file):
            count.update(here=1, bytes_here=file.size)
        elif not repository.has_source(file, near):
            to_adopt.append(file.path)
    total = sum(counts.values(), Counter[str]())
    counted = ("files", "here", "bytes", "bytes_here")
    return Status(
        release=repository.name,
        version=name,
        versions=repository.versions(),
        commit=repository.commit(name),
        lock=lock.pin,
        path=str(repository.path),
        files=total["files"],
        here=total["here"],
        bytes_missing=total["bytes"] - total["bytes_here"],
        shares=tuple(
            Share(split=split, role=role, **{what: count[what] for what in counted})
            for (split, role), count in sorted(counts.items())
        ),
        to_adopt=tuple(to_adopt),
        interrupted=len(list(repository.store.incoming.glob("*.part"))),
    )
