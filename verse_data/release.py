"""`Release`: the files, tables, stores and datasets of one release at one version."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from verse_data import serve
from verse_data.config import Config
from verse_data.errors import (
    ContentMissing,
    IncompleteTable,
    UsageError,
    counted,
    did_you_mean,
    warn,
)
from verse_data.files import staging
from verse_data.grades import Workbook, require_listed, workbook_columns_of
from verse_data.progress import Progress, default
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import Role
from verse_data.records.source_file import SourceFile
from verse_data.releases.fetch import FetchReport
from verse_data.releases.history import command, unless_newest
from verse_data.releases.repository import Repository
from verse_data.releases.tree import lock_tree
from verse_data.stores import VOLUME_ROLES, Stores, make_recipe, no_shared_store
from verse_data.tables.index import Index, ScanFiles, index_scans

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from verse_data.export.citation import Style
    from verse_data.records.provenance import Provenance
    from verse_data.releases.verify import Level, Verification
    from verse_data.tables.assemble import Tables
    from verse_data.tables.changes import VersionDiff
    from verse_data.tables.folds import Folds
    from verse_data.training import PatchDataset, ScanDataset, VertebraDataset
    from verse_data.volumes.recipe import Recipe, ScanSource

PHANTOM: Final = "phantom"
"""Name of the made-up release."""

_TABLE_ROLES: Final[tuple[Role, ...]] = ("grading", "centroids", "ct_json", "mask")
"""What the tables are made from; of a CT they say no more than its grid, which its mask has too."""


class Release:
    """One release at one version, as :func:`verse_data.open_release` gives it.

    Opening it reads the lock and nothing else; tables, stores and downloads come when asked for.

    Parameters
    ----------
    dataset : Repository
        Where its contents are.
    version : str
        A version that `dataset` has.
    config : Config
        Where stores go, and whether the network may be used.
    catalog : CatalogEntry or None
        What is known of the release from elsewhere.
    progress : Progress, optional
        Told of every long step. Default: bars on a terminal or in a notebook, else lines on stderr.
    """

    def __init__(
        self,
        dataset: Repository,
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
        self._given_progress = progress
        self._tables_of: tuple[dict[str, tuple[int, ...]], Tables] | None = None
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return (
            f"<Release {self.name} {self.version}: {len(self.series)} scans, "
            f"lock {self.lock.digest[:12]}, commit {self.commit[:12]}>"
        )

    # --- what it is -------------------------------------------------------------------------------

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

    @property
    def datalad(self) -> Any:
        """The release as a ``datalad.api.Dataset``, to work on with DataLad itself."""
        return self.files.datalad

    @cached_property
    def progress(self) -> Progress:
        """What shows long steps."""
        return self._given_progress or default()

    @cached_property
    def index(self) -> Index:
        """Which locked file is what."""
        return index_scans(self.lock, catalog=self.catalog)

    @cached_property
    def series(self) -> dict[str, ScanFiles]:
        """The files of each CT series by role, by scan id."""
        return {scan.scan_id: scan for scan in self.index.scans}

    @property
    def gaps(self) -> int:
        """How many files of scans, or whole scans, the lock lacks; :attr:`findings` names them."""
        from verse_data.tables.findings import index_findings

        rules = (finding.rule for finding in index_findings(self.index))
        return sum(rule in {"missing-file", "missing-scan"} for rule in rules)

    @cached_property
    def workbook(self) -> Workbook:
        """The grading workbook of this version, here or not."""
        return Workbook(self.files, self.version, self.index, self.catalog)

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
        from verse_data.tables.changes import compare

        old = self.files.resolve(other)
        return compare(self.files, old, self.version, derived=self.config.derived)

    def _command(self, verb: str, *words: str) -> str:
        """Return a command line for this version."""
        version = unless_newest(self.files, self.version)
        return command(self.files, verb, *words, version=version)

    def _source_of(self, file: LockedFile) -> SourceFile:
        """Return a content of this version as it lies here."""
        return self.files.source(file, version=unless_newest(self.files, self.version))

    # --- files ------------------------------------------------------------------------------------

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
        known = get_args(Role)
        if isinstance(roles, str) or not all(role in known for role in roles or ()):
            raise UsageError(f"roles={roles!r}: give a list; roles are {', '.join(known)}.")
        chosen = [
            item for name in self.known_scans(scan_ids) for item in self.series[name].files.items()
        ]
        chosen += [("grading", file) for file in self.index.grading]
        return [file for role, file in chosen if roles is None or role in roles]

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
        serve.notice_engine(engine)
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
        show = progress or self.progress
        if self.name == PHANTOM and not all(map(self.files.has, files)):
            _restore_phantom(self.files, self.lock, show)
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
        files = self.locked([scan_id], (role,))
        if not files:
            raise ContentMissing(
                f"{self.name} {self.version} lists no {role} of {scan_id}; it lists "
                f"{', '.join(self.series[scan_id].files)}. See what is missing upstream: "
                f"{self._command('findings')}"
            )
        source = self._source_of(files[0])
        source.check()
        return source.path

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
        from verse_data.tables.check import verify

        return verify(
            self.files,
            self.version,
            self.index,
            level=level,
            scan_ids=None if scan_ids is None else self.known_scans(scan_ids),
            derived=self.config.derived,
            progress=progress or self.progress,
        )

    def known_scans(self, scan_ids: Iterable[str] | None) -> list[str]:
        """Return scan ids as a list, each once, if all are of this version.

        Parameters
        ----------
        scan_ids : iterable of str or None
            Such as ``["verse004"]``; None means all.

        Returns
        -------
        list of str
            The ids.

        Raises
        ------
        UsageError
            If one is of no scan of this version, or was published and is not in its lock.
        """
        known = list(self.series)
        if scan_ids is None:
            return known
        try:
            ids = None if isinstance(scan_ids, str) else list(dict.fromkeys(scan_ids))
        except TypeError:  # it is no iterable, or holds what is no name
            ids = None
        if ids is None:
            raise UsageError(f"{scan_ids!r} is no list of scan ids such as ['verse004'].")
        unknown = [name for name in ids if name not in self.series]
        published = {series.scan_id for series in self.catalog.expected} if self.catalog else set()
        if lost := [name for name in unknown if name in published]:
            raise UsageError(
                f"{lost[0]} was published in {self.name}, and the lock here lists no file of it: OSF had "
                f"lost it when the list was made. See all that is missing: "
                f"{command(self.files, 'findings')}"
            )
        if unknown:
            raise UsageError(
                f"Release {self.name} has no scan {unknown[0]!r} "
                f"({counted(len(unknown), 'unknown id')}).{did_you_mean(unknown[0], known)} Ids look "
                f"like {[*known, 'verse004'][0]!r}; list them: {command(self.files, 'table', 'scans')}"
            )
        return ids

    # --- tables -----------------------------------------------------------------------------------

    @property
    def tables(self) -> Tables:
        """All tables at once; see :mod:`verse_data.tables.columns` for every column.

        Raises
        ------
        ValidationFailed, IntegrityError, UnsafeInput
            If a file that they are made of is broken; each is named, with the place in it.
        """
        self._warn_of_absent_files()
        return self._tables_for(None)

    @property
    def scans(self) -> pd.DataFrame:
        """One row a CT series."""
        return self.tables.scans.copy()

    @property
    def vertebrae(self) -> pd.DataFrame:
        """One row a vertebra that was graded, segmented or marked by a centroid."""
        return self.tables.vertebrae.copy()

    @property
    def subjects(self) -> pd.DataFrame:
        """One row a patient."""
        return self.tables.subjects.copy()

    @property
    def findings(self) -> pd.DataFrame:
        """One row a broken file, a disagreement between files, or one with what is published."""
        self._warn_of_absent_files(headers=True)
        return self._read_tables().findings.copy()

    def select(self, where: str, *, scan_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the rows of :attr:`vertebrae`, or of these scans alone, for which `where` is true.

        A broken file is an error if it belongs to a scan that is looked at, and a finding if not.

        Parameters
        ----------
        where : str
            Such as ``"grade >= 2 and level >= 'T11'"``.
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.

        Returns
        -------
        pandas.DataFrame
            A copy; its columns are those of :attr:`vertebrae`.

        Raises
        ------
        QueryRefused
            If `where` is not part of the query grammar; the text points at the position.
        ContentMissing
            If it asks about grades, or anything else that the grading workbook alone says, and that
            is not here.
        """
        from verse_data.tables.query import columns_used, select

        self.require_grades(where)
        chosen = None if scan_ids is None else set(self.known_scans(scan_ids))
        if chosen is None:
            self._warn_of_absent_files()
        tables = self._tables_for(chosen, graded=bool(workbook_columns_of(columns_used(where))))
        for file in tables.broken:
            if not file.scan_id:
                self._warn_once(f"What the grading workbook says is missing here: {file.error}")
        rows = tables.vertebrae
        return select(rows if chosen is None else rows[rows["scan_id"].isin(chosen)], where)

    def require_grades(self, where: str | None) -> None:
        """Raise `ContentMissing` if `where` asks about grades, and the workbook is not here.

        So it does for every column that the grading workbook alone fills: ``grade``,
        ``fracture_type``, ``foreign_material``, ``bmd_mg_cm3``, ``age_years`` and the like.

        Parameters
        ----------
        where : str or None
            A condition, as in :meth:`select`; None asks for nothing.
        """
        from verse_data.tables.query import columns_used

        if where is not None:
            self.workbook.require(columns_used(where), asked=f"The condition {where!r}")

    def fetch_and_select(
        self,
        where: str,
        *,
        scan_ids: Iterable[str] | None = None,
        graded: bool = False,
        jobs: int = 8,
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Fetch everything that the tables say of these scans, then :meth:`select`.

        Parameters
        ----------
        where : str
            As in :meth:`select`.
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        graded : bool
            Whether the rows are to have their grades, where an address has the workbook.
        jobs : int
            How many files come at once.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        pandas.DataFrame
            What :meth:`select` gives.

        Raises
        ------
        QueryRefused
            If `where` is not part of the query grammar; nothing was fetched.
        Offline, NetworkError, ContentMissing, IntegrityError
            If a mask or centroid file, the CT of a scan without a mask, or a grading workbook that is
            needed, is not here and cannot be had: rows would be missing without a word.
        """
        from verse_data.tables.query import check_condition

        check_condition(where)
        chosen = self.known_scans(scan_ids)
        self.fetch_tables(chosen, where=where, graded=graded, jobs=jobs, progress=progress)
        return self.select(where, scan_ids=chosen)

    def fetch_tables(
        self,
        scan_ids: Iterable[str] | None = None,
        *,
        where: str | None = None,
        graded: bool = True,
        jobs: int = 8,
        progress: Progress | None = None,
    ) -> None:
        """Bring what the tables of `scan_ids` are made of to this machine.

        The grading workbook is fetched where an address has it, if `where` asks for what it alone
        says, or if the tables are to be `graded`.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        where : str, optional
            A condition that the tables will be asked.
        graded : bool
            Whether the grading workbook is wanted in any case.
        jobs : int
            How many files come at once.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Raises
        ------
        Offline, NetworkError, ContentMissing, IntegrityError
            As :meth:`fetch_and_select` does.
        """
        from verse_data.tables.query import columns_used

        chosen = self.known_scans(scan_ids)
        asked = workbook_columns_of(columns_used(where)) if where else []
        graded = (graded or bool(asked)) and self.workbook.can_be_fetched
        if not graded:
            self.require_grades(where)  # before anything large is fetched in vain
        roles = _TABLE_ROLES if graded else _TABLE_ROLES[1:]
        self.fetch(chosen, roles=roles, jobs=jobs, progress=progress)
        bare = [name for name in chosen if _needs_ct(self.series[name])]
        if bare:
            self.fetch(bare, roles=("ct",), jobs=jobs, progress=progress)

    def tables_of(
        self, split: str | None, *, graded: bool = True
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of :attr:`scans` and :attr:`vertebrae` in a published split.

        Parameters
        ----------
        split : str or None
            Published split; None means all.
        graded : bool
            Whether a broken grading workbook matters.

        Returns
        -------
        tuple of pandas.DataFrame
            Scans, and their vertebrae.

        Raises
        ------
        UsageError
            If there is no such split.
        ValidationFailed, IntegrityError, UnsafeInput
            If a file of these scans is broken; those of others do not matter.
        """
        from verse_data.tables.splits import of_split

        self._warn_of_absent_files()
        scans = of_split(self._read_tables().scans, split)
        vertebrae = self._tables_for(set(scans["scan_id"]), graded=graded).vertebrae
        return scans.copy(), vertebrae[vertebrae["scan_id"].isin(scans["scan_id"])].copy()

    def folds(
        self,
        k: int,
        *,
        seed: int = 0,
        stratify: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Folds:
        """Deal the patients of a split (default: of all) into `k` folds of like make-up.

        See :func:`verse_data.tables.folds.make_folds`. Where the grading workbook is not here, a
        warning says so.

        Parameters
        ----------
        k : int
            Number of folds, from 2 to the number of subjects.
        seed : int
            Another seed gives other folds, about equally balanced.
        stratify : sequence of str, optional
            Columns of :attr:`vertebrae` whose values are spread evenly. Default: the usual ones, but for
            grades and foreign material where the grading workbook is not here.
        split : {"training", "validation", "test"}, optional
            Published split that is looked at. Default: all.

        Returns
        -------
        Folds
            Which scans are in which part, with the digest of the lock.

        Raises
        ------
        ContentMissing
            If `stratify` names a column of the grading workbook, and that is not here.
        """
        from verse_data.tables.folds import STRATIFY, column_names, make_folds

        if stratify is None:
            stratify = STRATIFY
            if not self.workbook.is_here:
                lost = workbook_columns_of(STRATIFY)
                stratify = [name for name in STRATIFY if name not in lost]
                absence = self.workbook.absence()
                self._warn_once(
                    f"Folds are balanced over {' and '.join(stratify)} alone, not over "
                    f"{' and '.join(lost)}. {absence}"
                )
                self._warned.add(absence)
        self.workbook.require(column_names(stratify), asked=f"stratify={stratify!r}")
        graded = bool(workbook_columns_of(column_names(stratify)))
        scans, vertebrae = self.tables_of(split, graded=graded)
        return make_folds(
            scans,
            vertebrae,
            k=k,
            seed=seed,
            stratify=stratify,
            release=self.name,
            lock=f"sha256:{self.lock.digest}",
        )

    def read_folds(self, path: str | os.PathLike[str], *, split: str | None = None) -> Folds:
        """Read folds that were written before, and check that they are of this version's scans.

        See :meth:`verse_data.tables.folds.Folds.read`, which checks the scans alone.

        Parameters
        ----------
        path : path
            A file that :meth:`verse_data.tables.folds.Folds.write` wrote.
        split : {"training", "validation", "test"}, optional
            Published split that is looked at. Default: all.

        Returns
        -------
        Folds
            As they were written.

        Raises
        ------
        ValidationFailed
            If the file names another release or another lock, or divides other scans.
        IntegrityError
            If it was changed since it was written.
        """
        from verse_data.tables.folds import Folds

        scans, _ = self.tables_of(split, graded=False)
        return Folds.read(Path(path), scans, release=self.name, lock=f"sha256:{self.lock.digest}")

    def _warn_of_absent_files(self, *, headers: bool = False) -> None:
        """Warn, once, of files that are not here and would fill rows or cells of the tables.

        `headers` says that the headers of all CTs count, and not only of those without a mask.
        """
        roles: tuple[Role, ...] = (*_TABLE_ROLES, "ct") if headers else _TABLE_ROLES
        if not (self.workbook.is_here or self.workbook.can_be_fetched):
            roles = tuple(role for role in roles if role != "grading")
            self._warn_once(self.workbook.absence())
        bare = [] if headers else [name for name in self.series if _needs_ct(self.series[name])]
        asked: list[tuple[list[str] | None, tuple[Role, ...]]] = [(None, roles), (bare, ("ct",))]
        for scan_ids, wanted in asked:
            files = self.locked(scan_ids, wanted)
            absent = sum(not self.files.has(file) for file in files)
            if absent:
                words = [word for name in scan_ids or () for word in ("--scan", name)]
                get = self._command("get", *words, "--role", ",".join(wanted))
                self._warn_once(
                    f"{absent:,} of {len(files):,} files that the tables are made of are not here, and "
                    f"what they say is missing: {get}"
                )

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self._warned:
            self._warned.add(sentence)
            warn(IncompleteTable(sentence))

    def _tables_for(self, scan_ids: Collection[str] | None, *, graded: bool = True) -> Tables:
        """Return the tables, if no file of `scan_ids` (None: of all), and no workbook if `graded`, is broken."""
        return self._read_tables().sound(scan_ids, graded=graded, listing=self._command("findings"))

    def _read_tables(self) -> Tables:
        """Read what is here; once, and again when a file has come, gone or been replaced."""
        from verse_data.tables.assemble import build_tables

        state = {file.path: _identity(self.files.object_path(file)) for file in self.lock.files}
        if self._tables_of is None or self._tables_of[0] != state:
            tables = build_tables(
                self.lock,
                lambda file: self._source_of(file) if self.files.has(file) else None,
                catalog=self.catalog,
                derived=self.config.derived,
                progress=self.progress,
            )
            self._tables_of = state, tables
        return self._tables_of[1]

    # --- stores and datasets ----------------------------------------------------------------------

    @property
    def _stores(self) -> Stores:
        """Where the stores of this version's scans are, and what they are made from."""
        licence = self.catalog.licence if self.catalog else "unknown"
        return Stores(self.files, self.version, self.config, licence)

    def source(self, scan_id: str) -> ScanSource:
        """Return what the store of a scan is made from.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.

        Returns
        -------
        ScanSource
            The CT, and the mask and centroid file where it has them, with their digests.

        Raises
        ------
        ContentMissing
            If its CT, mask or centroid file is not on this machine.
        ContentCorrupt
            If its centroid file is not the locked one.
        """
        (name,) = self.known_scans([scan_id])
        return self._stores.source(self.series[name])

    def build_cache(
        self,
        scan_ids: Iterable[str] | None = None,
        *,
        recipe: Recipe | None = None,
        workers: int | None = None,
        client: Any = None,
        progress: Progress | None = None,
    ) -> dict[str, Path]:
        """Convert scans (default: all that have a CT) into Zarr stores; those that exist are kept.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``.
        recipe : Recipe, optional
            Default: the scan's own grid.
        workers : int, optional
            Processes, 1 or more. Default: one per core.
        client : distributed.Client, optional
            Convert on a Dask cluster that sees the same folders, instead of on processes here.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        dict
            Folder of the store of each scan.

        Raises
        ------
        UsageError
            If there is no such scan, or `workers` is no number of processes.
        ContentMissing
            If there is no store yet and files are not on this machine; fetch them first.
        ValidationFailed, VolumeCorrupt, NiftiRefused
            If a volume cannot be used; stores of other scans that are finished stay.
        """
        from verse_data.volumes.recipe import Recipe

        processes = serve.check_processes(workers)
        if recipe is not None and not isinstance(recipe, Recipe):
            raise UsageError(f"recipe={recipe!r} is no verse_data.volumes.recipe.Recipe.")
        with_image = [name for name, scan in self.series.items() if "ct" in scan.files]
        chosen = with_image if scan_ids is None else self.known_scans(scan_ids)
        return self._stores.build(
            [self.series[name] for name in chosen],
            recipe or Recipe(),
            workers=processes,
            client=client,
            progress=progress or self.progress,
        )

    def open_scan(
        self, scan_id: str, *, orientation: str = "RAS", recipe: Recipe | None = None
    ) -> xr.Dataset:
        """Open one scan as an ``xarray.Dataset`` with world coordinates, lazily.

        The store is built first if it does not exist. Its attributes say whose scan it is, and
        licence and attribution of the release.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.
        orientation : str
            Axis codes of the grid, such as ``"PIR"``; flips and permutations only.
        recipe : Recipe, optional
            Default: the scan's own grid.

        Returns
        -------
        xarray.Dataset
            ``image`` (int16 HU) and, where there is a mask, ``label`` (uint8).
        """
        from verse_data.volumes.view import open_xarray

        store, entry = self.build_cache([scan_id], recipe=recipe)[scan_id], self.catalog
        return open_xarray(store, orientation=orientation).assign_attrs(
            subject_id=self.series[scan_id].subject_id,
            split=self.series[scan_id].split,
            release=self.name,
            licence=entry.licence if entry else "unknown",
            attribution=entry.attribution
            if entry
            else f"Release {self.name!r}, locked by its user.",
        )

    def contribution(
        self,
        chosen: Iterable[str] | pd.DataFrame,
        *,
        spacing: float | Sequence[float] | None = None,
        interpolation: str = "linear",
        codec: str = "lz4",
        workers: int | None = None,
        with_rows: bool = True,
        graded: bool = False,
        progress: Progress | None = None,
    ) -> serve.Contribution:
        """Fetch and convert what is `chosen`, and return it ready to be served.

        A finished store needs no volume; rows of vertebrae need mask and centroids.

        Parameters
        ----------
        chosen : iterable of str, or DataFrame
            As in :meth:`dataset`.
        spacing, interpolation, codec : optional
            Of the stores, as in :func:`verse_data.load_split`.
        workers : int, optional
            As in :meth:`build_cache`.
        with_rows : bool
            Whether vertebrae are needed; tables are made for nothing else.
        graded : bool
            Whether their grades are needed.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        Contribution
            Scans with their stores, those left out, rows of vertebrae, and provenance.
        """
        from verse_data.training import LeftOut, ServedScan

        recipe = make_recipe(spacing, interpolation, codec)
        given, wanted = self._rows(chosen)
        graded = graded or _gives_grades(given)
        if graded:
            self.workbook.require_obtainable()
        ids = [name for name in self.series if name in wanted]
        with_image = [name for name in ids if "ct" in self.series[name].files]
        stores, lost = self._stores.find([self.series[name] for name in with_image], recipe)
        unbuilt = [name for name in with_image if name not in stores]
        with_rows = with_rows or given is not None
        if unbuilt or with_rows:
            self._stores.require_room([self.series[name] for name in unbuilt], codec)
        rows = None
        if with_rows:  # before volumes are fetched for rows that are refused
            self.fetch_tables(ids, graded=graded, progress=progress)
            rows = self._tables_for(wanted, graded=graded).vertebrae
            rows = self._chosen_rows(given, rows[rows["scan_id"].isin(wanted)])
        if unbuilt:
            with no_shared_store(lost):
                self.fetch(unbuilt, roles=VOLUME_ROLES, progress=progress)
            stores |= self.build_cache(unbuilt, recipe=recipe, workers=workers, progress=progress)
        scans = [self.series[name] for name in ids]
        return serve.Contribution(
            scans=tuple(
                ServedScan(scan.scan_id, scan.subject_id, scan.split or "", stores[scan.scan_id])
                for scan in scans
                if scan.scan_id in stores
            ),
            left_out=tuple(
                LeftOut(scan.scan_id, scan.subject_id, "no_ct")
                for scan in scans
                if scan.scan_id not in stores
            ),
            vertebrae=rows,
            facts=self._facts(stores, recipe, with_rows=with_rows),
            series=self.series,
        )

    def _chosen_rows(self, given: pd.DataFrame | None, own: pd.DataFrame) -> pd.DataFrame:
        """Return this version's own rows of the vertebrae that are `given`, or all."""
        from verse_data.tables.given_rows import own_rows

        return own if given is None else own_rows(given, own, version=f"{self.name} {self.version}")

    def _facts(
        self, scan_ids: Collection[str], recipe: Recipe, *, with_rows: bool
    ) -> dict[str, Any]:
        """Return the provenance of served scans: that of the release, with their files alone."""
        from verse_data.releases import provenance

        whole = self.provenance()
        files = tuple(file for file in whole.files if file.scan_id in scan_ids)
        without: Any = dict.fromkeys(("stores", "scan_id", "packages"), True)
        facts = whole.model_copy(update={"files": files}).model_dump(
            mode="json", exclude={**without, "files": {"__all__": {"here", "fetched"}}}
        )
        facts["recipe"] = recipe.model_dump(mode="json")
        packages = provenance.of_stores([file.path for file in files], facts["recipe"])
        if with_rows:  # they decided what is served
            packages |= provenance.of_tables([file.path for file in self.lock.files])
        return {**facts, "packages": provenance.versions(packages)}

    def dataset(
        self, chosen: Iterable[str] | pd.DataFrame, *, unit: str = "scan", **options: Any
    ) -> ScanDataset | PatchDataset | VertebraDataset:
        """Serve scans, or rows of a table, to a training run.

        Parameters
        ----------
        chosen : iterable of str, or DataFrame
            Scan ids; or rows of :attr:`vertebrae` or :attr:`scans`, for example out of
            :meth:`select`, a fold, or a CSV file of them. Rows choose vertebrae by ``scan_id`` and
            ``level``, each once; what is served of them is what this version says. Other columns
            are compared with it where the table has them, and ignored where not.
        unit : {"scan", "patch", "vertebra"}
            What one sample is.
        **options
            As in :func:`verse_data.load_split`.

        Returns
        -------
        ScanDataset, PatchDataset or VertebraDataset
            What :func:`verse_data.load_split` gives for this `unit`.

        Raises
        ------
        UsageError
            Beside what :func:`verse_data.load_split` raises: if a row names a vertebra that this
            version lacks, a vertebra is given twice, or a value is not what this version says.
        """
        how, own = serve.split_options(unit, options)
        serve.check_options(unit, how, own)
        rows = serve.needs(unit, own)
        if rows["graded"]:
            require_listed([self.workbook], unit, own)
        part = self.contribution(chosen, **rows, **how)
        return serve.dataset([part], unit=unit, **own)

    def _rows(self, chosen: Iterable[str] | pd.DataFrame) -> tuple[pd.DataFrame | None, set[str]]:
        """Return `chosen` if it holds vertebra rows, and the ids of its scans."""
        if not hasattr(chosen, "columns"):
            return None, set(self.known_scans(chosen))
        from verse_data.tables.given_rows import check_scans, with_scan_ids

        rows: Any = chosen
        if "scan_id" in rows.index.names and "scan_id" not in rows.columns:
            rows = rows.reset_index()
        if "scan_id" not in rows.columns:
            raise UsageError("The rows that are to be served have no column scan_id.")
        rows = with_scan_ids(rows, self.series)
        ids = set(self.known_scans(rows["scan_id"]))
        if "level" in rows.columns:
            return rows, ids
        check_scans(rows, self.series, version=f"{self.name} {self.version}")
        return None, ids


def _needs_ct(scan: ScanFiles) -> bool:
    """Whether nothing but the CT of a scan tells where its centroids lie."""
    return "ct" in scan.files and "centroids" in scan.files and "mask" not in scan.files


def _gives_grades(rows: pd.DataFrame | None) -> bool:
    """Whether rows came with what the workbook says, which is held against that of the version."""
    if rows is None:
        return False
    given = rows[workbook_columns_of(rows.columns)]
    return bool((given.notna() & (given != "not_assessed")).any(axis=None))


def _identity(path: Path) -> tuple[int, ...]:
    """Return what is another for another file at `path`; nothing where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def write_phantom(dataset: Repository, progress: Progress) -> None:
    """Write the phantom's files, lock them if there is no lock, and adopt what is not here."""
    from verse_data import phantom

    with staging(dataset.path.with_name("phantom-tree")) as tree:
        phantom.write(tree, progress=progress)
        if not dataset.exists():
            dataset.publish(lock_tree(tree, release=PHANTOM, progress=progress))
        # Made by another version of NumPy its bytes may differ: what is not locked is not taken.
        dataset.adopt([tree], progress=progress)


def _restore_phantom(dataset: Repository, lock: ReleaseLock, progress: Progress) -> None:
    """Write the phantom's files again where some are not here: no address has them."""
    from verse_data.phantom.spec import DEFAULT_SUBJECTS, subjects

    written = {
        f"sub-{subject.scan_id(series)}_ct.nii.gz"
        for subject in subjects(DEFAULT_SUBJECTS, seed=0)
        for series in subject.series
    }
    locked = {path.rpartition("/")[2] for path in lock.by_path if path.endswith("_ct.nii.gz")}
    if written == locked:  # and no other tree under this name
        write_phantom(dataset, progress)
