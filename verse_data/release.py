"""`Release`: the files, tables, stores and datasets of one release at one version."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from verse_data import markup, serve
from verse_data.config import Config
from verse_data.errors import (
    FILE_FAULTS,
    ContentMissing,
    UsageError,
    VerseDataError,
    counted,
    did_you_mean,
    warn,
)
from verse_data.evaluated import EvaluatedScans
from verse_data.grades import Workbook, workbook_columns_of
from verse_data.problems import raise_faults
from verse_data.progress import Progress, default
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import SPLITS, Role, scan_of
from verse_data.records.overlay import AppliedOverlay, Layer
from verse_data.records.source_file import SourceFile
from verse_data.releases.catalog import PHANTOM
from verse_data.releases.fetch import FetchReport
from verse_data.releases.history import command, unless_newest
from verse_data.releases.repository import Repository
from verse_data.stores import VOLUME_ROLES, Stores, make_recipe, no_shared_store
from verse_data.tables.index import Index, ScanFiles, index_scans
from verse_data.tables.overlays import applied, overlay_findings

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from PIL.Image import Image

    from verse_data.explorer.saved import SavedPage
    from verse_data.export.citation import Style
    from verse_data.records.provenance import Provenance
    from verse_data.releases.verify import Level, Verification
    from verse_data.tables.assemble import Tables
    from verse_data.tables.changes import VersionDiff
    from verse_data.views.preview import Subject
    from verse_data.views.report import Report
    from verse_data.volumes.reader import ScanReader
    from verse_data.volumes.recipe import Recipe

_TABLE_ROLES: Final[tuple[Role, ...]] = ("grading", "centroids", "ct_json", "mask")
"""Files that the tables are made from; of a CT they need only the grid, which its mask has too."""


class Release(EvaluatedScans):
    """One release at one version, as returned by :func:`verse_data.open_release`.

    Opening it reads only the lock; tables, stores and downloads follow on demand. A scan, role, split
    or style that there is not is a `UsageError` everywhere.

    Parameters
    ----------
    dataset : Repository
        The DataLad repository with its files.
    version : str
        A version that `dataset` has.
    config : Config
        Where stores go, and whether the network may be used.
    catalog : CatalogEntry or None
        Published facts about the release.
    layers : sequence of Layer
        Overlays that lie over its files, as `read_overlays` of `verse_data.tables.overlays` returns.
    licences : sequence of str
        The only licences under which scans are served. Default: all.
    progress : Progress, optional
        Display of long steps. Default: bars on a terminal or in a notebook, else lines on stderr.
    """

    def __init__(
        self,
        dataset: Repository,
        *,
        version: str,
        config: Config,
        catalog: CatalogEntry | None,
        layers: Sequence[Layer] = (),
        licences: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self.files = dataset
        self.version = version
        self.config = config
        self.catalog = catalog
        self._layers, self._licences = tuple(layers), tuple(licences)
        self._given_progress = progress
        self._tables_of: tuple[dict[str, tuple[int, ...]], Tables] | None = None

    def __repr__(self) -> str:
        return (
            f"<Release {self.name} {self.version}: {len(self.series)} scans, "
            f"lock {self.lock.digest[:12]}, commit {self.commit[:12]}"
            f"{''.join(f', overlay {one}' for one in self.overlays)}>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows of it; nothing but the lock is read."""
        splits: Counter[str] = Counter(scan.split or "no split" for scan in self.series.values())
        patients = {scan.subject_id for scan in self.series.values()}
        made_up = " (made up; no patient is in it)" if self.name == PHANTOM else ""
        return markup.facts(
            f"Release {self.name} {self.version}{made_up}",
            {
                "title": self.catalog and self.catalog.title,
                "patients": f"{len(patients):,}",
                "CT series": f"{len(self.series):,} ("
                + ", ".join(
                    f"{splits[name]:,} {name}" for name in (*SPLITS, "no split") if splits[name]
                )
                + ")",
                "files": f"{len(self.lock.files):,}",
                "lacks": f"{self.gaps:,} files or scans: see .findings" if self.gaps else "",
                "lock": self.lock.pin,
                "commit": self.commit,
                "overlays": ", ".join(map(str, self.overlays)),
                "licence": self.catalog and self.catalog.licence,
            },
        )

    # --- what it is -------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[Release, ...]:
        """Only the release itself."""
        return (self,)

    @property
    def name(self) -> str:
        """Name of the release, such as ``"verse19"``."""
        return self.files.name

    @cached_property
    def lock(self) -> ReleaseLock:
        """Every file of this version with size and SHA-256."""
        return self.files.lock(self.version)

    @property
    def pin(self) -> str:
        """``sha256:`` and the digest of the lock."""
        return self.lock.pin

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
        """Display of long steps."""
        return self._given_progress or default()

    @cached_property
    def index(self) -> Index:
        """Scan and role of each locked file."""
        published = index_scans(self.lock, catalog=self.catalog)
        index = applied(published, self._layers, release=self.name)
        return index.licensed(self._licences, release=self.name) if self._licences else index

    @property
    def overlays(self) -> tuple[AppliedOverlay, ...]:
        """Name, version and digest of each overlay that lies over its files."""
        return tuple(layer.applied for layer in self._layers)

    @cached_property
    def series(self) -> dict[str, ScanFiles]:
        """The files of each CT series by role, by scan id."""
        return {scan.scan_id: scan for scan in self.index.scans}

    @property
    def gaps(self) -> int:
        """Number of files of scans, or whole scans, that the lock lacks; :attr:`findings` names them."""
        from verse_data.tables.findings import index_findings

        rules = (finding.rule for finding in index_findings(self.index))
        return sum(rule in {"missing-file", "missing-scan"} for rule in rules)

    @cached_property
    def workbook(self) -> Workbook:
        """The grading workbook of this version, here or not."""
        return Workbook(self.files, self.version, self.index, self.catalog)

    def provenance(self, scan_id: str | None = None) -> Provenance:
        """Return exactly which files this release, or one scan of it, consists of.

        Parameters
        ----------
        scan_id : str, optional
            Only the files of this scan, and those shared by all. Default: the whole version.

        Returns
        -------
        Provenance
            Lock, commit, files with their keys and addresses, and versions of packages.
        """
        from verse_data.releases.provenance import describe

        found = describe(
            self.files,
            self.version,
            scan_id=scan_id,
            catalog=self.catalog,
            scan_ids=self.index.scan_ids,
        )
        own = {"licence": self.licence_of(scan_id)} if scan_id and found.licence else {}
        return found.model_copy(update={"overlays": self.overlays, **own})

    def citation(self, style: Style = "text") -> str:
        """Return the citation of this version: its publications, licence, attribution and lock.

        Parameters
        ----------
        style : {"text", "bibtex", "ris", "json"}
            A page to read, or entries for a reference manager, the data set's own first.

        Returns
        -------
        str
            Text, or entries in this style.
        """
        from verse_data.export.citation import Pinned, cite_release

        pinned = Pinned(version=self.version, lock=self.lock.pin, commit=self.commit)
        return cite_release(self.name, self.catalog, pinned, style=style)

    def diff(self, other: str, /) -> VersionDiff:
        """Return what changed from the version `other` to this one.

        Files are always compared; labels of masks, cells of the grading workbook and points of
        centroid files are compared if both versions of the file are on this machine. The other
        version has no overlays: what those of this one correct is listed.

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
        found = compare(self.files, old, self.version, derived=self.config.derived)
        corrections = tuple(f"{one.scan_id}: {one.message}" for one in overlay_findings(self.index))
        return replace(found, overlays=corrections)

    def _command(self, verb: str, *words: str) -> str:
        """Return a command line for this version."""
        version = unless_newest(self.files, self.version)
        return command(self.files, verb, *words, version=version)

    def _content(self, file: LockedFile) -> SourceFile | None:
        """Return the local copy of a file of this version, if there is one."""
        return self.stores.source_file(file) if self.files.has(file) else None

    # --- files ------------------------------------------------------------------------------------

    def locked(
        self, scan_ids: Iterable[str] | None = None, roles: Sequence[Role] | None = None
    ) -> list[LockedFile]:
        """Return the locked files of `scan_ids` with one of `roles`, or all of them.

        Files that belong to no scan, such as the grading workbook, count for every scan.

        Parameters
        ----------
        scan_ids, roles : optional
            As in :meth:`fetch`.

        Returns
        -------
        list of LockedFile
            Each with path, size and SHA-256.
        """
        known = get_args(Role)
        if isinstance(roles, str) or not all(role in known for role in roles or ()):
            raise UsageError(f"roles={roles!r}: give a list; roles are {', '.join(known)}.")
        chosen = [
            item for name in self.known_scans(scan_ids) for item in self.series[name].files.items()
        ]
        others = self.index.of_all if roles is None else self.index.grading
        chosen += [("grading", file) for file in others]
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
        """Fetch the files of `scan_ids`, and verify them.

        Files without an address that were not asked for by scan or role (such as the grading
        workbook, which belongs to all scans) are not an error; they are in the report's ``to_adopt``.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        roles : sequence of str, optional
            Such as ``("ct", "mask")``, as in :meth:`path`. Default: all.
        engine : str, optional
            Has no effect except a warning: leave it out.
        jobs : int
            How many files are fetched at once.
        progress : Progress, optional
            Display of the work. Default: the release's own.

        Returns
        -------
        FetchReport
            Files that were here, that were fetched, and that have no address.

        Raises
        ------
        Offline
            If files are missing, which are listed, and the network is forbidden.
        NetworkError, IntegrityError
            If files could not be fetched; the others are in place.
        """
        serve.notice_engine(engine)
        files, show = self.locked(scan_ids, roles), progress or self.progress
        report = self.fetch_files(files, jobs=jobs, progress=show)
        report.raise_for_failures(needed=self.needed(files, scan_ids, roles))
        return report

    def fetch_files(
        self, files: Sequence[LockedFile], *, jobs: int = 8, progress: Progress | None = None
    ) -> FetchReport:
        """Fetch locked files; failures are in the report, and not raised.

        Parameters
        ----------
        files : sequence of LockedFile
            As returned by :meth:`locked`.
        jobs, progress : optional
            As in :meth:`fetch`.

        Returns
        -------
        FetchReport
            Files that were fetched, that were here, and that failed.

        Raises
        ------
        Offline
            If files are missing, which are listed, and the network is forbidden.
        """
        show = progress or self.progress
        if self.name == PHANTOM and not all(map(self.files.has, files)):
            from verse_data.phantom.folder import restore

            restore(self.files, self.lock, show)
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
        files, scan_ids, roles : optional
            What :meth:`locked` returned, and what it was called with.

        Returns
        -------
        frozenset of str
            Paths within the release.
        """
        for_all = {file.path for file in self.index.of_all}
        return frozenset(
            file.path
            for file in files
            if roles is not None or (scan_ids is not None and file.path not in for_all)
        )

    def path(self, scan_id: str, role: Role) -> Path:
        """Return the path of one file on this machine, after checking its digest.

        The file is hashed at each call. It is read-only, and its name is its git-annex key with the
        extension of the original name.

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
        source = self.stores.source_file(files[0])
        source.check()
        return source.path

    def verify(
        self,
        *,
        level: Level = "hash",
        scan_ids: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> Verification:
        """Check the files here against the lock, and the lock against the catalog.

        Parameters
        ----------
        level : {"hash", "presence", "size", "content"}
            How much of each file is checked. Each level includes the ones before it: presence, size,
            SHA-256, and whether the file can be read and used.
        scan_ids, progress : optional
            As in :meth:`fetch`.

        Returns
        -------
        Verification
            A tuple of findings, each with the command that fixes it; empty means clean.
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

    def _absence(self, unknown: Sequence[str]) -> str:
        """Return that scans were published and lost, or that there are none of these names."""
        published = {series.scan_id for series in self.catalog.expected} if self.catalog else set()
        if lost := [name for name in unknown if name in published]:
            return (
                f"{lost[0]} was published in {self.name}, and the lock here lists no file of it: OSF had "
                f"lost it when the list was made. See all that is missing: "
                f"{command(self.files, 'findings')}"
            )
        return (
            f"Release {self.name} has no scan {unknown[0]!r} "
            f"({counted(len(unknown), 'unknown id')}).{did_you_mean(unknown[0], self.series)} Ids look "
            f"like {[*self.series, 'verse004'][0]!r}; list them: {command(self.files, 'table', 'scans')}"
        )

    def home(self, scan_id: str) -> Release:
        """Return this release, if it has the scan.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.

        Returns
        -------
        Release
            Itself.

        Raises
        ------
        UsageError
            If this version has no such scan.
        """
        self.known_scans([scan_id])
        return self

    # --- tables -----------------------------------------------------------------------------------

    @property
    def tables(self) -> Tables:
        """All tables at once; see :mod:`verse_data.tables.columns` for every column.

        Raises
        ------
        ValidationFailed, IntegrityError, UnsafeInput
            If a file that they are made from is broken; each is named, with the place in it.
        """
        self._warn_of_absent_files()
        return self._tables_for(None)

    @property
    def readable_tables(self) -> Tables:
        """The tables as far as files can be read: a broken file is a finding, its cells are missing."""
        self._warn_of_absent_files()
        return self._read_tables()

    @property
    def scans(self) -> pd.DataFrame:
        """One row per CT series."""
        return self.tables.scans.copy()

    @property
    def vertebrae(self) -> pd.DataFrame:
        """One row per vertebra that was graded, segmented or marked by a centroid."""
        return self.tables.vertebrae.copy()

    @property
    def subjects(self) -> pd.DataFrame:
        """One row per patient."""
        return self.tables.subjects.copy()

    @property
    def findings(self) -> pd.DataFrame:
        """One row per broken file, and per disagreement between files or with published facts."""
        self._warn_of_absent_files(headers=True)
        return self._read_tables().findings.copy()

    def graded_vertebrae(self) -> pd.DataFrame | None:
        """Return the rows of :attr:`vertebrae` that the grading workbook makes.

        Masks are read only of scans that an overlay relabels: where their grades stand follows from
        their labels.

        Returns
        -------
        DataFrame or None
            One row per vertebra that was assessed; None if the workbook is not here, or is broken.

        Warns
        -----
        IncompleteTable
            If it is broken.
        """
        from verse_data.tables.assemble import build_tables

        relabelled = {name for name, scan in self.series.items() if scan.relabelled}

        def content(file: LockedFile) -> SourceFile | None:
            wanted = file in self.index.grading or scan_of(file.path) in relabelled
            return self._content(file) if wanted else None

        tables = build_tables(
            self.lock,
            content,
            catalog=self.catalog,
            derived=self.config.derived,
            index=self.index,
        )
        for file in tables.broken:
            of = f" of {file.scan_id}" if file.scan_id else ""
            self._warn_once(f"Without grades{of}: {file.error}")
        return tables.vertebrae if tables.grading else None

    def report(self, *, patients: str | os.PathLike[str] | None = None) -> Report:
        """Compare what was published about the release with the data here; describe it otherwise.

        Nothing is fetched. A number that cannot be computed says what it needs.

        Parameters
        ----------
        patients : path, optional
            CSV file with sex and contrast, which the grading workbook does not hold; see
            :mod:`verse_data.tables.patients`.

        Returns
        -------
        Report
            The published table, the numbers of the text and the supplement's figures; shown in
            notebooks, and written as a page by :meth:`verse_data.views.report.Report.write`.

        Raises
        ------
        UsageError
            If there is no such file of patients.
        ValidationFailed, IntegrityError, UnsafeInput
            If a file that the tables are made from, or the table of patients, is broken.
        """
        from verse_data.tables.patients import read_patients
        from verse_data.views import report

        about = {"release": self.name, "version": self.version}
        about |= {"lock": self.lock.pin, "commit": self.commit}
        about |= self._overlay_facts
        if self.name == PHANTOM:
            about["made_up"] = "Made-up data: no patient is in this release."
        known = read_patients(Path(patients)) if patients is not None else ()
        tables = self.tables
        return report.make(
            self.name,
            self.catalog,
            grading=tables.grading,
            scans=self.series,
            vertebrae=tables.vertebrae,
            subjects=tables.subjects,
            patients=known,
            summary=self.summary(),
            about=about,
        )

    def select(self, where: str, *, scan_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the rows of :attr:`vertebrae`, of all or only these scans, for which `where` is true.

        A broken file is an error if it belongs to one of these scans, and else only a finding.

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
            If it needs grades, or another column that only the grading workbook fills, and that is
            not here.
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
        rows = rows if chosen is None else rows[rows["scan_id"].isin(chosen)]
        # Tables of several releases have this column, and a condition on them comes here.
        return select(rows.assign(release=self.name), where).drop(columns="release")

    def fetch_and_select(
        self,
        where: str,
        *,
        scan_ids: Iterable[str] | None = None,
        graded: bool = False,
        jobs: int = 8,
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Fetch the files behind the tables of these scans, then :meth:`select`.

        Parameters
        ----------
        where, scan_ids : optional
            As in :meth:`select`.
        graded, jobs, progress : optional
            As in :meth:`fetch_tables`.

        Returns
        -------
        pandas.DataFrame
            As from :meth:`select`.

        Raises
        ------
        QueryRefused
            If `where` is not part of the query grammar; nothing was fetched.
        Offline, NetworkError, ContentMissing, IntegrityError
            If a mask or centroid file, the CT of a scan without a mask, or a grading workbook that is
            needed, is not here and cannot be fetched: rows would silently be missing.
        """
        from verse_data.tables.query import check_condition

        check_condition(where, several=True)
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
        """Fetch the files that the tables of `scan_ids` are made from.

        The grading workbook is fetched, if it has an address, when `where` uses a column that only
        it fills, or when the tables are to be `graded`.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        where : str, optional
            A condition that the tables will be queried with.
        graded : bool
            Whether the grading workbook is wanted in any case, if it can be fetched.
        jobs, progress : optional
            As in :meth:`fetch`.

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
        if self.index.patients:
            self.fetch_files([self.index.patients], progress=progress).raise_for_failures()
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
        ValidationFailed, IntegrityError, UnsafeInput
            If a file of these scans is broken; broken files of other scans do not matter.
        """
        from verse_data.tables.splits import of_split

        self._warn_of_absent_files()
        scans = of_split(self._read_tables().scans, split)
        vertebrae = self._tables_for(set(scans["scan_id"]), graded=graded).vertebrae
        return scans.copy(), vertebrae[vertebrae["scan_id"].isin(scans["scan_id"])].copy()

    def _warn_of_absent_files(self, *, headers: bool = False) -> None:
        """Warn once about files that are not here and would fill rows or cells of the tables.

        With `headers`, every CT counts, for its header, and not only those of scans without a mask.
        """
        roles: tuple[Role, ...] = (*_TABLE_ROLES, "ct") if headers else _TABLE_ROLES
        if not (self.workbook.is_here or self.workbook.can_be_fetched):
            roles = tuple(role for role in roles if role != "grading")
            if self.workbook.was_published:
                self._warn_once(self.workbook.absence())
        bare = [] if headers else [name for name in self.series if _needs_ct(self.series[name])]
        groups: list[tuple[list[str] | None, tuple[Role, ...]]] = [(None, roles), (bare, ("ct",))]
        for scan_ids, wanted in groups:
            files = self.locked(scan_ids, wanted)
            if self.index.patients and scan_ids is None:
                files.append(self.index.patients)
            absent = sum(not self.files.has(file) for file in files)
            if absent:
                words = [word for name in scan_ids or () for word in ("--scan", name)]
                get = self._command("get", *words, "--role", ",".join(wanted))
                self._warn_once(
                    f"{absent:,} of {len(files):,} files that the tables are made of are not here, and "
                    f"what they say is missing: {get}"
                )

    def _tables_for(self, scan_ids: Collection[str] | None, *, graded: bool = True) -> Tables:
        """Return the tables; an error if a file of `scan_ids`, or the workbook if `graded`, is broken."""
        return self._read_tables().sound(scan_ids, graded=graded, listing=self._command("findings"))

    def vertebrae_of(self, scan_ids: Iterable[str]) -> pd.DataFrame:
        """Return :attr:`vertebrae`; broken files of other scans than these do not matter.

        Parameters
        ----------
        scan_ids : iterable of str
            Such as ``["verse004"]``.

        Returns
        -------
        DataFrame
            The rows of all scans.
        """
        return self._tables_for(set(scan_ids)).vertebrae

    def _read_tables(self) -> Tables:
        """Return the tables of the files that are here; read again only if these have changed."""
        from verse_data.tables.assemble import build_tables

        state = {file.path: _identity(self.files.object_path(file)) for file in self.lock.files}
        if self._tables_of is None or self._tables_of[0] != state:
            tables = build_tables(
                self.lock,
                self._content,
                catalog=self.catalog,
                derived=self.config.derived,
                index=self.index,
                progress=self.progress,
            )
            self._tables_of = state, tables
        return self._tables_of[1]

    # --- stores and datasets ----------------------------------------------------------------------

    @property
    def stores(self) -> Stores:
        """The stores of this version's scans."""
        licence = self.catalog.licence if self.catalog else "unknown"
        return Stores(self.files, self.version, self.config, licence)

    def build_cache(
        self,
        scan_ids: Iterable[str] | None = None,
        *,
        recipe: Recipe | None = None,
        workers: int | None = None,
        client: Any = None,
        progress: Progress | None = None,
    ) -> dict[str, Path]:
        """Convert scans (default: all that have a CT) into Zarr stores; existing stores are kept.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``.
        recipe : Recipe, optional
            Default: the scan's own grid.
        workers : int, optional
            Processes, 1 or more. Default: one per core.
        client : distributed.Client, optional
            Convert on a Dask cluster that sees the same folders, instead of in processes here.
        progress : Progress, optional
            Display of the work. Default: the release's own.

        Returns
        -------
        dict
            Folder of the store of each scan.

        Raises
        ------
        UsageError
            If `workers` is not a number of processes.
        ContentMissing
            If there is no store yet and files are not on this machine; fetch them first.
        ValidationFailed, VolumeCorrupt, NiftiRefused
            If a volume cannot be used; finished stores of other scans are kept.
        """
        from verse_data.volumes.recipe import Recipe

        processes = serve.check_processes(workers)
        if recipe is not None and not isinstance(recipe, Recipe):
            raise UsageError(f"recipe={recipe!r} is no verse_data.volumes.recipe.Recipe.")
        with_image = [name for name, scan in self.series.items() if "ct" in scan.files]
        chosen = with_image if scan_ids is None else self.known_scans(scan_ids)
        return self.stores.build(
            [self.series[name] for name in chosen],
            recipe or Recipe(),
            workers=processes,
            client=client,
            progress=progress or self.progress,
        )

    def fetch_and_build(
        self,
        scan_ids: Iterable[str],
        *,
        recipe: Recipe | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Path]:
        """Return the stores of scans; what is missing is fetched and converted, a finished one needs no files.

        Parameters
        ----------
        scan_ids, recipe, workers, progress : optional
            As in :meth:`build_cache`; scans are named.

        Returns
        -------
        dict
            Folder of the store of each scan.

        Raises
        ------
        ContentMissing
            If a CT is not in the lock, or cannot be fetched.
        DiskFull
            If files and stores would not fit on the disk.
        """
        recipe = recipe or make_recipe(None, "linear", "lz4")
        ids = self.known_scans(scan_ids)
        scans = [self.series[name] for name in ids]
        for scan in scans:
            if "ct" not in scan.files:
                self.stores.source(scan)  # says why there is none
        stores, why_not = self.stores.find(scans, recipe)
        unbuilt = [name for name in ids if name not in stores]
        self.stores.require_room([self.series[name] for name in unbuilt], recipe.codec)
        return stores | self._convert(unbuilt, why_not, recipe, workers=workers, progress=progress)

    def open_scan(
        self, scan_id: str, *, orientation: str = "RAS", recipe: Recipe | None = None
    ) -> xr.Dataset:
        """Open one scan as an ``xarray.Dataset`` with world coordinates, lazily.

        The store is built first if it does not exist. The attributes name subject and split, and the
        licence and attribution of the release; `affine` and `centroids` are JSON text, for netCDF.

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
        relabel = self.reader(scan_id, store).relabel
        return open_xarray(store, orientation=orientation, relabel=relabel).assign_attrs(
            subject_id=self.series[scan_id].subject_id,
            split=self.series[scan_id].split or "unknown",
            release=self.name,
            licence=self.licence_of(scan_id),
            attribution=entry.attribution
            if entry
            else f"Release {self.name!r}, locked by its user.",
            **self._overlay_facts,
        )

    def reader(self, scan_id: str, store: Path) -> ScanReader:
        """Return the reader of a scan's store, with the labels that overlays give.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.
        store : Path
            As from :meth:`build_cache`.

        Returns
        -------
        ScanReader
            It reads boxes of image and label.
        """
        return self.stores.reader(self.series[scan_id], store)

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
        """Fetch and convert the `chosen` scans, and return them ready to be served.

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
            Whether rows of vertebrae are needed; tables are read only for them.
        graded : bool
            Whether their grades are needed.
        progress : Progress, optional
            Display of the work. Default: the release's own.

        Returns
        -------
        Contribution
            Scans with their stores, those left out, rows of vertebrae, and provenance.
        """
        from verse_data.training import LeftOut, ServedScan

        recipe = make_recipe(spacing, interpolation, codec)
        given, wanted = self._rows(chosen)
        graded = graded or _has_grades(given)
        if graded:
            self.workbook.require_obtainable()
        ids = [name for name in self.series if name in wanted]
        with_image = [name for name in ids if "ct" in self.series[name].files]
        stores, why_not = self.stores.find([self.series[name] for name in with_image], recipe)
        unbuilt = [name for name in with_image if name not in stores]
        with_rows = with_rows or given is not None
        if unbuilt or with_rows:
            self.stores.require_room([self.series[name] for name in unbuilt], codec)
        rows = None
        if with_rows:  # first, so that no volume is fetched for rows that are then refused
            self.fetch_tables(ids, graded=graded, progress=progress)
            rows = self._tables_for(wanted, graded=graded).vertebrae
            rows = self._chosen_rows(given, rows[rows["scan_id"].isin(wanted)])
        stores |= self._convert(unbuilt, why_not, recipe, workers=workers, progress=progress)
        scans = [self.series[name] for name in ids]
        return serve.Contribution(
            scans=tuple(
                ServedScan(
                    scan.scan_id,
                    scan.subject_id,
                    scan.split or "",
                    stores[scan.scan_id],
                    relabel=self._relabel_text(scan, stores[scan.scan_id]),
                )
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
            graded=self.workbook.is_listed,
        )

    def _relabel_text(self, scan: ScanFiles, store: Path) -> str:
        """Return what overlays change of the labels of a store, as `ServedScan` says it."""
        changed = self.stores.reader(scan, store).relabel.items() if scan.relabelled else ()
        return " ".join(f"{old}:{new}" for old, new in sorted(changed))

    def _convert(
        self,
        scan_ids: Collection[str],
        why_not: str,
        recipe: Recipe,
        *,
        workers: int | None,
        progress: Progress | None,
    ) -> dict[str, Path]:
        """Fetch and convert scans that have no store; `why_not` tells why a shared one is none."""
        if not scan_ids:
            return {}
        with no_shared_store(why_not):
            self.fetch(scan_ids, roles=VOLUME_ROLES, progress=progress)
        return self.build_cache(scan_ids, recipe=recipe, workers=workers, progress=progress)

    def _chosen_rows(self, given: pd.DataFrame | None, own: pd.DataFrame) -> pd.DataFrame:
        """Return this version's rows of the `given` vertebrae, or all rows."""
        from verse_data.tables.given_rows import own_rows

        return own if given is None else own_rows(given, own, version=f"{self.name} {self.version}")

    def _facts(
        self, scan_ids: Collection[str], recipe: Recipe, *, with_rows: bool
    ) -> dict[str, Any]:
        """Return the provenance of served scans: that of the release, with only their files."""
        from verse_data.releases import provenance

        whole = self.provenance()
        files = tuple(file for file in whole.files if file.scan_id in scan_ids)
        facts = provenance.of_content(whole.model_copy(update={"files": files}))
        if self.catalog:
            own = dict.fromkeys(self.licence_of(name) for name in self.series if name in scan_ids)
            facts["licence"] = " + ".join(own) or self.catalog.licence
        facts["recipe"] = recipe.model_dump(mode="json")
        packages = provenance.of_stores([file.path for file in files], facts["recipe"])
        if with_rows:  # they decided what is served
            packages |= provenance.of_tables([file.path for file in self.lock.files])
        return {**facts, "packages": provenance.versions(packages)}

    # --- the explorer -----------------------------------------------------------------------------

    def explore(self, *, browser: bool = True, announce: Callable[[str], None] = print) -> None:
        """Serve a page with tables, filters and scans on this machine, until Ctrl-C.

        Only the browser that opens its address, once, can read it. Scans are fetched and converted
        when they are looked at.

        Parameters
        ----------
        browser : bool
            Whether the browser is opened.
        announce : callable
            Called with the address, on 127.0.0.1 and a free port.

        Raises
        ------
        NetworkError, IntegrityError
            If files that the tables are made from are not here and cannot be fetched.
        """
        from verse_data.explorer.server import Server

        self._fetch_tables_online()
        Server(self).run(announce, browser=browser)

    def save_explorer(
        self,
        out: str | os.PathLike[str],
        *,
        where: str | None = None,
        split: str | Sequence[str] | None = None,
        scan_ids: Iterable[str] | None = None,
        spacing: float | None = None,
        single_file: bool = False,
        dry_run: bool = False,
        tell: Callable[[str], None] = print,
    ) -> SavedPage:
        """Write the page of :meth:`explore` so that it opens from disk, without a server and a network.

        Parameters
        ----------
        out : path
            A new folder; with `single_file`, an ``.html`` file.
        where : str, optional
            Only scans that have a vertebra for which this is true; these vertebrae are shown first.
        split : str or sequence of str, optional
            Only scans of these splits.
        scan_ids : iterable of str, optional
            Only these scans.
        spacing : float, optional
            Voxel size of the volumes in mm. Default: 2.
        single_file : bool
            One file. Where its volumes would take more than 60 MB, it holds previews instead.
        dry_run : bool
            Only estimate the size.
        tell : callable
            Called with a sentence about the size before anything is written.

        Returns
        -------
        SavedPage
            Path, scans, and size as estimated and written.

        Raises
        ------
        UsageError
            If no scan is selected, or `out` is not free.
        QueryRefused
            If `where` is not part of the query grammar.
        Offline, NetworkError, IntegrityError
            If files are not here and cannot be fetched.
        """
        from verse_data.explorer.saved import SPACING_MM, Selection, save

        self._fetch_tables_online()
        splits = [split] if isinstance(split, str) else split
        wanted = set(self.known_scans(scan_ids))
        rows = None if where is None else self.select(where)
        if rows is not None:
            wanted &= set(rows["scan_id"])
        ids = tuple(
            name
            for name, scan in self.series.items()
            if name in wanted and "ct" in scan.files and (splits is None or scan.split in splits)
        )
        if not ids:
            raise UsageError(
                f"No scan of {self.name} {self.version} with a CT fits this selection, so there is "
                f"nothing to write. See what is there: {command(self.files, 'status')}"
            )
        selection = Selection(
            scan_ids=ids,
            rows=None if rows is None else tuple(map(int, rows.index)),
            where=where,
            spacing=SPACING_MM if spacing is None else spacing,
            single_file=single_file,
        )
        return save(self, Path(out), selection, dry_run=dry_run, tell=tell)

    def view(self, scan_id: str, level: str | None = None, *, height: int = 480) -> Any:
        """Show one scan in a notebook: three planes and a 3-D view, with its vertebrae in colour.

        The scan is fetched and converted if needed. It needs ``ipyniivue``.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.
        level : str, optional
            Show 120 mm around the centroid of this vertebra in full resolution. Default: the whole scan;
            of a large one, a coarser level of its store.
        height : int
            Height in pixels.

        Returns
        -------
        ipyniivue.NiiVue
            The widget; its first volume is the CT in HU, its second the mask, if there is one.

        Raises
        ------
        UsageError
            If it has no centroid of this level.
        ToolMissing
            If ipyniivue is not installed.
        ContentMissing
            If its CT is not in the lock, or cannot be fetched.
        """
        from verse_data.explorer.widget import require_ipyniivue, widget

        require_ipyniivue()
        [store] = self.fetch_and_build([scan_id]).values()
        return widget(self.reader(scan_id, store), level, height=height)

    def _fetch_tables_online(self) -> None:
        """Fetch what the tables are made from, if the network may be used."""
        if not self.config.offline:
            self.fetch_tables()

    # --- pictures ---------------------------------------------------------------------------------

    def preview(self, scan_id: str, *, fill: bool = False) -> Image:
        """Draw one scan along its spine: sagittal plain, then with outlines, and coronal.

        Anterior is on the left of the sagittal slices, and the patient's right on the left of the
        coronal one. Beside each level stands its Genant grade, ``x`` for foreign material, or ``?``
        if it was not assessed; nothing if the grading workbook is not here. The scan is fetched and
        converted if needed.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.
        fill : bool
            Whether vertebrae are filled with their colour, not only outlined.

        Returns
        -------
        PIL.Image.Image
            An RGB picture, which notebooks show; its method ``save`` writes it.

        Raises
        ------
        ContentMissing
            If its CT is not in the lock, or cannot be fetched.
        """
        from verse_data.views.preview import draw_preview

        return draw_preview(self.to_draw([scan_id], fill=fill)[scan_id])

    def previews(
        self,
        paths: Mapping[str, str | Path],
        *,
        fill: bool = False,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Path]:
        """Draw scans as :meth:`preview` does, and write each picture to its file, on all cores.

        Parameters
        ----------
        paths : mapping of str to path
            The file of each scan id. Its extension is the format: .png, .jpg, .webp or .pdf.
        fill : bool
            As in :meth:`preview`.
        workers, progress : optional
            As in :meth:`build_cache`.

        Returns
        -------
        dict of str to Path
            The files, each complete.

        Raises
        ------
        UsageError
            If there is no such scan or format, two scans have one file, or no file can be where it is
            wanted; nothing was done.
        ContentMissing
            If a CT is not in the lock, or cannot be fetched.
        IntegrityError, ValidationFailed, UnsafeInput
            If stores or files of scans are damaged; the pictures of all others are written.
        """
        from verse_data.views.drawing import check_picture
        from verse_data.views.preview import write_previews

        files = {name: check_picture(Path(path)) for name, path in paths.items()}
        if twice := len(files) - len(set(files.values())):
            raise UsageError(
                f"{counted(twice, 'file')} would hold two pictures. Give each scan its own file."
            )
        processes = serve.check_processes(workers)
        subjects = self.to_draw(files, fill=fill, workers=workers, progress=progress)
        tasks = {files[name]: subject for name, subject in subjects.items()}
        write_previews(tasks, workers=processes, progress=progress or self.progress)
        return files

    def sheet(
        self,
        where: str,
        *,
        scan_ids: Iterable[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Draw the vertebrae for which `where` is true, each sagittally through its centroid.

        Below each stand level, grade, shape of a fracture, and scan. The scans are fetched and
        converted if needed. Tiles of damaged scans say so, and a warning how to mend them.

        Parameters
        ----------
        where : str
            As in :meth:`select`, such as ``"grade == 3"``.
        scan_ids : iterable of str, optional
            Only vertebrae of these scans. Default: all.
        path : path, optional
            Write the picture to this file, too: .png, .jpg, .webp or .pdf.
        workers, progress : optional
            As in :meth:`build_cache`.

        Returns
        -------
        PIL.Image.Image
            An RGB picture, which notebooks show; its method ``save`` writes it.

        Raises
        ------
        UsageError
            If `where` is true for no vertebra, or for more than 1,000; or no picture can be at `path`.
        QueryRefused, ContentMissing
            As in :meth:`fetch_and_select`.
        IntegrityError, ValidationFailed, UnsafeInput
            If scans are damaged and there is a `path`; the sheet is written before.
        """
        from verse_data.views.contact_sheet import MOST, draw_sheet, vertebrae_of
        from verse_data.views.drawing import check_picture, write_picture

        file = None if path is None else check_picture(Path(path))
        serve.check_processes(workers)
        rows = self.fetch_and_select(where, scan_ids=scan_ids, graded=True, progress=progress)
        if not 0 < len(rows) <= MOST:
            what = counted(len(rows), "vertebra", "vertebrae") if len(rows) else "no vertebra"
            raise UsageError(
                f"{where!r} is true for {what} of {self.name} {self.version}, and a sheet shows from 1 "
                f"to {MOST:,}. Change the condition, or choose scans."
            )
        ids = [name for name in rows["scan_id"].unique() if "ct" in self.series[name].files]
        picture, faults = draw_sheet(
            vertebrae_of(rows),
            self._drawable(ids, workers=workers, progress=progress),
            title=f"{self.name} {self._named_version}  ·  {where}",
            is_phantom=self.name == PHANTOM,
            progress=progress or self.progress,
        )
        if file is not None:
            write_picture(picture, file)
            raise_faults(faults)
        for error in faults:
            warn(UserWarning(str(error)))
        return picture

    def to_draw(
        self,
        scan_ids: Iterable[str],
        *,
        fill: bool,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Subject]:
        """Return what is drawn of each scan: its store, fetched and converted if needed, and marks.

        Parameters
        ----------
        scan_ids, fill, workers, progress : optional
            As in :meth:`previews`; scans are named.

        Returns
        -------
        dict
            A subject of pictures by scan id.
        """
        from verse_data.views.preview import Subject, marks_by_scan

        ids = self.known_scans(scan_ids)
        sources = self._drawable(ids, workers=workers, progress=progress)
        book = self.workbook
        if not book.is_here and book.can_be_fetched and not self.config.offline:
            self.fetch_files(book.listed)
        rows = self.graded_vertebrae()
        marks = None if rows is None else marks_by_scan(rows)
        return {
            name: Subject(
                source=sources[name],
                release=self.name,
                version=self._named_version,
                is_phantom=self.name == PHANTOM,
                marks=None if marks is None else marks.get(name, {}),
                fill=fill,
            )
            for name in ids
        }

    def _drawable(
        self, scan_ids: Sequence[str], *, workers: int | None, progress: Progress | None
    ) -> Mapping[str, ScanReader | VerseDataError]:
        """Return the stores of scans on their own grid, or why a damaged one has none.

        A finished store needs no files.
        """
        options: Any = {"workers": workers, "progress": progress}
        try:
            stores = self.fetch_and_build(scan_ids, **options)
            return {name: self.reader(name, store) for name, store in stores.items()}
        except ContentMissing:
            raise
        except FILE_FAULTS as error:
            if len(scan_ids) == 1:
                return {scan_ids[0]: error}
        each = (self._drawable([name], **options).items() for name in scan_ids)
        return dict(chain.from_iterable(each))

    def _shares(self, chosen: Iterable[str] | pd.DataFrame) -> list[Any]:
        return [chosen]

    def _rows(self, chosen: Iterable[str] | pd.DataFrame) -> tuple[pd.DataFrame | None, set[str]]:
        """Return `chosen` if it has rows of vertebrae, and the ids of its scans."""
        if not hasattr(chosen, "columns"):
            return None, set(self.known_scans(chosen))
        from verse_data.tables.given_rows import check_scans

        rows = self._given_rows(chosen)
        ids = set(rows["scan_id"])
        if "level" in rows.columns:
            return rows, ids
        check_scans(rows, self.series, version=f"{self.name} {self.version}")
        return None, ids


def _needs_ct(scan: ScanFiles) -> bool:
    """Whether only the CT of a scan has the grid of its centroids."""
    return "ct" in scan.files and "centroids" in scan.files and "mask" not in scan.files


def _has_grades(rows: pd.DataFrame | None) -> bool:
    """Whether given rows have values of the workbook, which must agree with the version's."""
    if rows is None:
        return False
    given = rows[workbook_columns_of(rows.columns)]
    return bool((given.notna() & (given != "not_assessed")).any(axis=None))


def _identity(path: Path) -> tuple[int, ...]:
    """Return inode, size and times of the file at `path`; empty if there is none."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
