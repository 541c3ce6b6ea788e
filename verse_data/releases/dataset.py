"""A release on this machine: a DataLad dataset whose tags are the versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from verse_data import config as configuration
from verse_data.config import Config
from verse_data.errors import ContentMissing
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import parse_path
from verse_data.records.source_file import SourceFile
from verse_data.releases import annex
from verse_data.releases.adopt import AdoptReport, adopt_sources
from verse_data.releases.history import bring, replacement
from verse_data.releases.fetch import FetchLog, FetchReport, fetch_files, file_urls
from verse_data.releases.history import History
from verse_data.releases.siblings import Sibling, siblings
from verse_data.releases.annex import ObjectStore


class Repository:
    """One release as a DataLad dataset.

    Parameters
    ----------
    path : Path
        Folder of the dataset; it need not exist yet.
    config : Config, optional
        Endpoints, and whether the network may be used; resolved when needed if missing.

    Attributes
    ----------
    history : History
        The versions, read by git's plumbing alone.
    store : ObjectStore
        The contents that are here.
    """

    def __init__(self, path: Path, *, config: Config | None = None) -> None:
        self.path = path.absolute()
        self.history = History(self.path)
        self.store = ObjectStore(self.path)
        self._config = config

    def __repr__(self) -> str:
        return f"<Repository {self.name} at {self.path}: {', '.join(self.versions()) or 'no version'}>"

    @property
    def name(self) -> str:
        """Name of the release: the folder's."""
        return self.path.name

    @property
    def config(self) -> Config:
        """Endpoints, and whether the network may be used."""
        return self._config or configuration.resolve()

    def exists(self) -> bool:
        """Whether the dataset has been built."""
        return self.history.exists()

    def versions(self) -> tuple[str, ...]:
        """Return the names of all versions, oldest first; empty if there is no dataset."""
        return self.history.versions()

    def resolve(self, version: str | None = None) -> str:
        """Return the version that is meant.

        `version` is a name such as ``"v1"``, or ``"sha256:"`` with at least 12 digits of a lock's
        digest; the newest version if it is missing. `UsageError` if there is none.
        """
        return self.history.resolve(version)

    def lock(self, version: str | None = None) -> ReleaseLock:
        """Return the lock of a version."""
        return self.history.lock(version)

    def commit(self, version: str | None = None) -> str:
        """Return the commit id of a version: the same wherever the same locks were published."""
        return self.history.commit(version)

    def tree_keys(self, version: str | None = None) -> dict[str, str]:
        """Return the annex key of every file of a version by path, out of the git tree itself."""
        return self.history.tree_keys(version)

    def publish(self, lock: ReleaseLock, *, after: str | None = None) -> str:
        """Make `lock` a version, and return its name.

        The dataset is built, or a commit and a tag are added to it. A lock with the files of an
        existing version is that version; addresses that are new to it are added. `after` is the
        version that it was made from: `NotNewest`, a `UsageError`, if another is the newest by then.
        `UsageError` if it is of another release, `ToolMissing` without git or git-annex.
        """
        from verse_data.releases.import_lock import publish

        return publish(self.history, lock, addresses=self.addresses, after=after)

    def addresses(self, file: LockedFile) -> tuple[str, ...]:
        """Return every address that gives the content of `file`, the one on OSF first."""
        return file_urls(file, osf_site=self.config.osf_site)

    def siblings(self) -> tuple[Sibling, ...]:
        """Return the clones and RIA stores in folders of this machine that may have contents."""
        return siblings(self.path)

    def object_path(self, file: LockedFile) -> Path:
        """Return where the content of `file` lies, or would lie."""
        return self.store.object_path(file)

    def has(self, file: LockedFile) -> bool:
        """Whether the content of `file` is on this machine."""
        return self.store.has(file)

    def source(self, file: LockedFile, *, version: str | None = None) -> SourceFile:
        """Return `file` as it lies here: the one way to what is in it, which checks before it reads.

        `version` is for the command in its errors, where that is not the newest.
        `ContentMissing` if it is not here.
        """
        if self.has(file):
            name = parse_path(file.path)
            return SourceFile(
                self.object_path(file),
                file.annex_key,
                name=file.path,
                release=self.name,
                scan_id=name.scan_id if name and name.role != "grading" else "",
                repair=replacement(self, file, version=version),
            )
        raise ContentMissing(
            f"{file.path} ({file.size:,} bytes) of {self.name} is locked, but not on this machine "
            f"(looked in {self.path}). Bring it with: {bring(self, file, version=version)}"
        )

    def read(self, file: LockedFile) -> bytes:
        """Return the content of a small file, hashed.

        `ContentMissing` if it is not here, `ContentCorrupt` if it is not the locked one.
        """
        return self.source(file).read()

    def content(self, file: LockedFile) -> Path:
        """Return the path of the content of `file`, which is hashed first; raise as :meth:`read`."""
        self.source(file).check()
        return self.object_path(file)

    def record_presence(self) -> None:
        """Tell git-annex of everything that was ingested since it was told last."""
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
        """Copy what lies in `sources`, and belongs to a version, into the dataset.

        `sources` are folders, files, zips, and addresses of zips; they are neither moved nor
        changed. `on_difference` says what to do about a file that bears a locked name but holds
        other bytes.

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
        self,
        files: Sequence[LockedFile],
        *,
        jobs: int = 8,
        progress: Progress = silent,
    ) -> FetchReport:
        """Bring contents here, verified; files that are here cost nothing.

        `files` may be of any version. What a sibling in a folder has is copied from there; the rest
        comes over HTTP, at most `jobs` at a time. Failures are in the report, not raised.

        Raises
        ------
        Offline
            If something is missing and the network is forbidden; it is listed.
        UnsafeInput
            If the dataset's git configuration is not as this package writes it; nothing was fetched.
        """
        return fetch_files(self.store, files, jobs=jobs, config=self.config, progress=progress)
