"""What a release is before anything of it is read: its lock, which file is what, what is here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from verse_data.config import Config
from verse_data.errors import ContentMissing, UsageError
from verse_data.progress import Progress, default
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import Role
from verse_data.release import checks, contents
from verse_data.release.options import notice_engine
from verse_data.releases.commands import command, unless_newest
from verse_data.releases.dataset import ReleaseDataset
from verse_data.releases.fetch import FetchReport
from verse_data.tables.index import Index, ScanFiles, index_scans

if TYPE_CHECKING:
    from verse_data.export.citation import Style
    from verse_data.records.provenance import Provenance
    from verse_data.release.comparison import VersionDiff
    from verse_data.releases.verify import Level, Verification


class LockedRelease:
    """The files of one release at one version; :class:`verse_data.Release` documents the rest."""

    def __init__(
        self,
        dataset: ReleaseDataset,
        *,
        version: str,
        config: Config,
        catalog: CatalogEntry | None,
        progress: Progress | None = None,
    ) -> None:
        self.files = dataset
        self.version = version
        self.config = config
        self.catalog = catalog
        self.progress = progress or default()

    @property
    def name(self) -> str:
        """Name of the release, such as ``"verse19"``."""
        return self.files.name

    @cached_property
    def lock(self) -> ReleaseLock:
        """Every file of this version with size and SHA-256."""
        return self.files.lock(self.version)

    @cached_property
    def commit(self) -> str:
        """Commit id of this version in the DataLad dataset; the same on every machine."""
        return self.files.commit(self.version)

    @cached_property
    def version_for_commands(self) -> str | None:
        """What commands need to be given for this version: nothing for the newest."""
        return unless_newest(self.files, self.version)

    @cached_property
    def index(self) -> Index:
        """Which locked file is what."""
        return index_scans(self.lock, catalog=self.catalog)

    @property
    def gaps(self) -> int:
        """How many files of scans, or whole scans, the lock lacks; :attr:`findings` names them."""
        return sum(f.rule in {"missing-file", "missing-scan"} for f in self.index.findings)

    @cached_property
    def series(self) -> dict[str, ScanFiles]:
        """The files of each CT series by role, by scan id."""
        return {scan.scan_id: scan for scan in self.index.scans}

    def locked(
        self, scan_ids: Iterable[str] | None = None, roles: Sequence[Role] | None = None
    ) -> list[LockedFile]:
        """Return the locked files of `scan_ids` with one of `roles`, or all of them.

        Files that belong to no scan, such as the grading workbook, count for every scan.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        roles : sequence of str, optional
            Such as ``("ct", "mask")``, as in :meth:`path`. Default: all.

        Returns
        -------
        list of LockedFile
            Each with path, size and SHA-256.

        Raises
        ------
        UsageError
            If there is no such scan or role.
        """
        wanted = contents.known_roles(roles)
        chosen = [item for name in self._ids(scan_ids) for item in self.series[name].files.items()]
        chosen += [("grading", file) for file in self.index.grading]
        return [file for role, file in chosen if wanted is None or role in wanted]

    def fetch(
        self,
        scan_ids: Iterable[str] | None = None,
        *,
        roles: Sequence[Role] | None = None,
        engine: str | None = None,
        jobs: int = 8,
        progress: Progress | None = None,
    ) -> FetchReport:
        """Bring contents of `scan_ids` to this machine, verified.

        Files that have no address, and belong to what was asked for only as everything does (such as
        the grading workbook where no role was named), are in the report's ``to_adopt``.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        roles : sequence of str, optional
            Such as ``("ct", "mask")``, as in :meth:`path`. Default: all.
        engine : str, optional
            Has no effect, but for a warning: leave it out.
        jobs : int
            How many files come at once.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        FetchReport
            What was here, what came, and what nobody serves.

        Raises
        ------
        Offline
            If something is missing and the network is forbidden; it is listed.
        NetworkError, IntegrityError
            If files could not be had; the others are in place.
        """
        notice_engine(engine)
        files, show = self.locked(scan_ids, roles), progress or self.progress
        report = self.fetch_files(files, jobs=jobs, progress=show)
        report.raise_for_failures(needed=self.needed(files, scan_ids, roles))
        return report

    def fetch_files(
        self, files: Sequence[LockedFile], *, jobs: int = 8, progress: Progress | None = None
    ) -> FetchReport:
        """Bring the contents of locked files here; failures are in the report, and not raised.

        Parameters
        ----------
        files : sequence of LockedFile
            As :meth:`locked` gives them.
        jobs : int
            How many files come at once.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        FetchReport
            What came, what was here, and what failed.

        Raises
        ------
        Offline
            If something is missing and the network is forbidden; it is listed.
        """
        from verse_data.release.adopting import PHANTOM, restore_phantom

        show = progress or self.progress
        if self.name == PHANTOM and not all(map(self.files.has, files)):
            restore_phantom(self.files, self.lock, show)
        return self.files.fetch(files, jobs=jobs, progress=show)

    def needed(
        self,
        files: Iterable[LockedFile],
        scan_ids: Iterable[str] | None,
        roles: Sequence[Role] | None,
    ) -> frozenset[str]:
        """Return the paths of those of `files` that were asked for by scan or by role.

        Parameters
        ----------
        files : iterable of LockedFile
            What :meth:`locked` gave.
        scan_ids : iterable of str or None
            What was asked for; None means all.
        roles : sequence of str or None
            What was asked for; None means all.

        Returns
        -------
        frozenset of str
            Paths within the release.
        """
        for_all = {file.path for file in self.index.grading}
        return frozenset(
            file.path
            for file in files
            if roles is not None or (scan_ids is not None and file.path not in for_all)
        )

    def _ids(self, scan_ids: Iterable[str] | None) -> list[str]:
        known = self.series
        return (
            list(known) if scan_ids is None else contents.known_scans(scan_ids, known, self.files)
        )

    def verify(
        self,
        *,
        level: Level = "hash",
        scan_ids: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> Verification:
        """Check what is here against the lock, and the lock against the catalog; nothing means clean.

        Parameters
        ----------
        level : {"hash", "presence", "size", "content"}
            What is asked of each file; each level includes those before it: presence, size, SHA-256,
            and whether it can be used.
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        Verification
            A tuple of findings, each with the command that mends it; empty means clean.
        """
        return checks.verify(
            self.files,
            self.version,
            self.index,
            level=level,
            scan_ids=None if scan_ids is None else self._ids(scan_ids),
            derived=self.config.derived,
            progress=progress or self.progress,
        )

    def path(self, scan_id: str, role: Role) -> Path:
        """Return where one content lies on this machine, once it is known to be the locked one.

        The file is hashed at each call. It is read-only, and its name is its git-annex key, with the
        ending of the file that it is.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.
        role : {"ct", "ct_json", "mask", "centroids", "snapshot", "grading"}
            Which file of the scan; the grading workbook is the same for all.

        Returns
        -------
        Path
            In the object store of the release; do not write to it.

        Raises
        ------
        UsageError
            If there is no such scan or role.
        ContentMissing
            If this version lists no such file of the scan, or it is not here.
        ContentCorrupt
            If it is not the locked one.
        """
        if role not in get_args(Role):
            raise UsageError(f"There is no role {role!r}; roles are {', '.join(get_args(Role))}.")
        (name,) = self._ids([scan_id])
        held = dict(self.series[name].files)
        if self.index.grading:
            held["grading"] = self.index.grading[0]
        if role not in held:
            line = command(self.files, "findings", version=self.version_for_commands)
            raise ContentMissing(
                f"{self.name} {self.version} lists no {role} of {name}; it lists {', '.join(held)}. "
                f"See what is missing upstream: {line}"
            )
        source = self.files.source(held[role], version=self.version_for_commands)
        source.check()
        return source.path

    def diff(self, other: str, /) -> VersionDiff:
        """Return what changed from the version `other` to this one, as deep as what is here allows.

        That is files; and of those that are here in both versions, labels of masks, cells of the
        grading workbook, and points of centroid files.

        Parameters
        ----------
        other : str
            An earlier version, such as ``"v1"``.

        Returns
        -------
        VersionDiff
            Files, labels, cells and points that differ, and what could not be compared.
        """
        from verse_data.release.comparison import compare

        old = self.files.resolve(other)
        return compare(self.files, old, self.version, derived=self.config.derived)

    def provenance(self, scan_id: str | None = None) -> Provenance:
        """Return what exactly this release is, or what exactly one scan of it is.

        Parameters
        ----------
        scan_id : str, optional
            Only the files of this scan, and those that belong to all. Default: the whole version.

        Returns
        -------
        Provenance
            Lock, commit, files with their keys and addresses, and versions of packages.

        Raises
        ------
        UsageError
            If there is no such scan.
        """
        from verse_data.releases.provenance import describe

        return describe(self.files, self.version, scan_id=scan_id, catalog=self.catalog)

    def citation(self, style: Style = "text") -> str:
        """Return how this version is cited: its publications, licence, attribution and lock.

        Parameters
        ----------
        style : {"text", "bibtex", "ris", "json"}
            A page to read, or entries for a reference manager, the data's own first.

        Returns
        -------
        str
            Text, or entries in the style that was asked for.

        Raises
        ------
        UsageError
            If there is no such style.
        """
        from verse_data.export.citation import Pinned, cite_release

        pinned = Pinned(version=self.version, lock=f"sha256:{self.lock.digest}", commit=self.commit)
        return cite_release(self.name, self.catalog, pinned, style=style)

    def __repr__(self) -> str:
        return (
            f"<Release {self.name} {self.version}: {len(self.series)} scans, "
            f"lock {self.lock.digest[:12]}, commit {self.commit[:12]}>"
        )
