"""`ScanCollection`: what one release and several as one have in common, for folds, datasets and scores."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verse_data import serve
from verse_data.errors import IncompleteTable, UsageError, warn
from verse_data.grades import require_listed, workbook_columns_of
from verse_data.progress import Progress
from verse_data.records.catalog import CatalogEntry
from verse_data.records.overlay import AppliedOverlay
from verse_data.tables.index import ScanFiles, Withheld
from verse_data.tables.overlays import relabelling_of

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.spine.geometry import Grid
    from verse_data.tables.folds import Folds
    from verse_data.tables.summary import Summary
    from verse_data.training.base import ServedDataset
    from verse_data.views.preview import Subject
    from verse_data.volumes.recipe import ScanSource


class ScanCollection(ABC):
    """CT series with their masks, centroids and grades: of one release, or of several as one."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    # --- what it is -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def members(self) -> tuple[Any, ...]:
        """The releases, in order of preference; a release has itself."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the release, or the names joined with ``+``."""

    version: str
    catalog: CatalogEntry | None

    @property
    @abstractmethod
    def pin(self) -> str:
        """What pins the files: ``sha256:`` and the digest of the lock, or of all locks."""

    @property
    @abstractmethod
    def overlays(self) -> tuple[AppliedOverlay, ...]:
        """Name, version and digest of each overlay that lies over the files."""

    @property
    @abstractmethod
    def series(self) -> Mapping[str, ScanFiles]:
        """The files of each CT series by role, by scan id."""

    @property
    def withheld(self) -> tuple[Withheld, ...]:
        """The CT series that overlays or licences leave out, and why."""
        left_out = (one for member in self.members for one in member.index.withheld)
        return tuple(one for one in left_out if one.scan.scan_id not in self.series)

    @property
    def progress(self) -> Progress:
        """Display of long steps."""
        shown: Progress = self.members[0].progress
        return shown

    @property
    def _overlay_facts(self) -> dict[str, str]:
        """What results say of overlays; nothing if there are none."""
        named = ", ".join(f"{one.name} {one.version} {one.digest}" for one in self.overlays)
        return {"overlays": named} if named else {}

    @property
    def _named_version(self) -> str:
        """The version as pictures name it, with overlays."""
        return " + ".join([self.version, *(one.name for one in self.overlays)])

    def _warn_once(self, sentence: str, *, covers: str = "") -> None:
        """Warn that tables are incomplete, unless it was said; what it `covers` is said with it."""
        if sentence not in self._warned:
            for one in (self, *self.members):
                one._warned.update({sentence, covers})  # noqa: SLF001 - they warn of the same files
            warn(IncompleteTable(sentence))

    # --- scans ------------------------------------------------------------------------------------

    @abstractmethod
    def home(self, scan_id: str) -> Any:
        """Return the release that a scan is served from; UsageError if there is no such scan."""

    def known_scans(self, scan_ids: Iterable[str] | None) -> list[str]:
        """Return scan ids as a list, each once, if there are all of them.

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
            If there is no such scan, it is left out, or its files were lost before they were listed.
        """
        if scan_ids is None:
            return list(self.series)
        try:
            ids = None if isinstance(scan_ids, str) else list(dict.fromkeys(scan_ids))
        except TypeError:  # not iterable, or its items are not strings
            ids = None
        if ids is None:
            raise UsageError(f"{scan_ids!r} is no list of scan ids such as ['verse004'].")
        unknown = [name for name in ids if name not in self.series]
        for one in self.withheld:
            if one.scan.scan_id in unknown:
                raise UsageError(f"{one.scan.scan_id} is left out of {self.name}: {one.why}")
        if unknown:
            raise UsageError(self._absence(unknown))
        return ids

    @abstractmethod
    def _absence(self, unknown: Sequence[str]) -> str:
        """Return why there is no scan of these ids, of which none is left out."""

    @abstractmethod
    def to_draw(self, scan_ids: Iterable[str], *, fill: bool) -> dict[str, Subject]:
        """Return what is drawn of each scan: its store, fetched and converted if needed, and marks."""

    @abstractmethod
    def _shares(self, chosen: Iterable[str] | pd.DataFrame) -> list[Any]:
        """Return what each of the releases contributes to a choice of scans or rows."""

    def _given_rows(self, rows: Any) -> pd.DataFrame:
        """Return rows that are to be served with the column `scan_id`, if there are all of their scans."""
        from verse_data.tables.given_rows import with_scan_ids

        if "scan_id" in rows.index.names and "scan_id" not in rows.columns:
            rows = rows.reset_index()
        if "scan_id" not in rows.columns:
            raise UsageError("The rows that are to be served have no column scan_id.")
        named = with_scan_ids(rows, self.series)
        self.known_scans(named["scan_id"])
        return named

    def grid(self, scan_id: str) -> Grid:
        """Return shape and affine of a scan in its file's own axes, without its voxels.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.

        Returns
        -------
        Grid
            Of its CT; of its store or its mask, if the CT is not on this machine.

        Raises
        ------
        ContentMissing
            If none of the three is on this machine.
        """
        home = self.home(scan_id)
        grid: Grid = home.stores.grid(home.series[scan_id])
        return grid

    def source(self, scan_id: str) -> ScanSource:
        """Return the source files that the store of a scan is made from.

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
        home = self.home(scan_id)
        source: ScanSource = home.stores.source(home.series[scan_id])
        return source

    def licence_of(self, scan_id: str) -> str:
        """Return the licence of one scan: its own terms, or those of the release.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.

        Returns
        -------
        str
            An SPDX identifier, ``"unconfirmed"``, or ``"unknown"`` if the release states none.
        """
        home = self.home(scan_id)
        licence: str = home.index.licence_of(home.series[scan_id])
        return licence

    def relabelling(self, scan_id: str) -> dict[int, int]:
        """Return the new label of each label of a scan's mask and centroid file that overlays change.

        For those who read the files at :meth:`Release.path` themselves, which stay as they are published.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.

        Returns
        -------
        dict of int to int
            Label in the files, and the label that it is; empty without such an overlay.

        Raises
        ------
        ContentMissing
            If its mask or centroid file is not on this machine.
        ValidationFailed
            If an overlay names labels that the scan does not have.
        """
        home = self.home(scan_id)
        return relabelling_of(
            home.series[scan_id], home.stores.source_file, derived=home.config.derived
        )

    # --- tables and folds -------------------------------------------------------------------------

    @property
    @abstractmethod
    def scans(self) -> pd.DataFrame:
        """One row per CT series."""

    @property
    @abstractmethod
    def vertebrae(self) -> pd.DataFrame:
        """One row per vertebra that was graded, segmented or marked by a centroid."""

    @abstractmethod
    def tables_of(
        self, split: str | None, *, graded: bool = True
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of :attr:`scans` and :attr:`vertebrae` in a published split."""

    @abstractmethod
    def vertebrae_of(self, scan_ids: Iterable[str]) -> pd.DataFrame:
        """Return the rows of :attr:`vertebrae` of scans; broken files of others do not matter."""

    def summary(self) -> Summary:
        """Count patients, series, and vertebrae by status, grade and level.

        Returns
        -------
        Summary
            By published split; shown as text, and as a table in notebooks.
        """
        from verse_data.tables.summary import summarize

        return summarize(self.scans, self.vertebrae, release=self.name, version=self.version)

    def require_grades(self, where: str | None) -> None:
        """Raise `ContentMissing` if `where` needs the grading workbook, and that is not here.

        That is every condition on a column that only the workbook fills: ``grade``,
        ``fracture_type``, ``foreign_material``, ``bmd_mg_cm3``, ``age_years`` and the like. Of several
        releases, those that list a workbook must have it here.

        Parameters
        ----------
        where : str or None
            A condition, as in :meth:`Release.select`; None needs nothing.
        """
        from verse_data.tables.query import columns_used

        if where is not None:
            self._require(columns_used(where), asked=f"The condition {where!r}")

    def _require(self, columns: Iterable[str], *, asked: str) -> None:
        """Raise `ContentMissing` if one of `columns` needs a grading workbook that is not here."""
        needed = list(columns)
        graded = [one for one in self.members if one.workbook.is_listed]
        for one in graded or self.members[:1]:
            one.workbook.require(needed, asked=asked)

    def folds(
        self,
        k: int,
        *,
        seed: int = 0,
        stratify: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Folds:
        """Divide the patients of a split (default: of all) into `k` balanced folds.

        See :func:`verse_data.tables.folds.make_folds`. If a grading workbook is not here, a warning
        says so.

        Parameters
        ----------
        k : int
            Number of folds, from 2 to the number of subjects.
        seed : int
            Another seed gives other folds, about equally balanced.
        stratify : sequence of str, optional
            Columns of :attr:`vertebrae` whose values are spread evenly. Default: grade, region,
            foreign material, and of several releases the release; without grade and foreign material
            if a grading workbook is not here.
        split : {"training", "validation", "test"}, optional
            Published split that is divided. Default: all.

        Returns
        -------
        Folds
            Which scans are in which part, with what pins the files.

        Raises
        ------
        ContentMissing
            If `stratify` names a column of the grading workbook, and that is not here.
        """
        from verse_data.tables.folds import column_names, make_folds

        if stratify is None:
            stratify = self._default_strata()
        names = column_names(stratify)
        self._require(names, asked=f"stratify={stratify!r}")
        tables = self.tables_of(split, graded=bool(workbook_columns_of(names)))
        return make_folds(
            *tables, k=k, seed=seed, stratify=stratify, release=self.name, lock=self.pin
        )

    def _default_strata(self) -> list[str]:
        """Return the columns over which folds are balanced; warn if grades are not among them."""
        from verse_data.tables.folds import STRATIFY

        unknown = workbook_columns_of(STRATIFY)
        members = list(self.members)
        absent = [one for one in members if one.workbook.is_listed > one.workbook.is_here]
        if not any(one.workbook.is_here for one in members):
            absent = absent or members[:1]
        names = [name for name in STRATIFY if not (absent and name in unknown)]
        names += ["release"] if len(self.members) > 1 else []
        for one in absent:
            absence = one.workbook.absence()
            self._warn_once(
                f"Folds are balanced over {' and '.join(names)} alone, not over "
                f"{' and '.join(unknown)}. {absence}",
                covers=absence,
            )
        return names

    def read_folds(self, path: str | os.PathLike[str], *, split: str | None = None) -> Folds:
        """Read folds that were written before, and check that they are of these scans.

        See :meth:`verse_data.tables.folds.Folds.read`, which checks only the scans.

        Parameters
        ----------
        path : path
            A file that :meth:`verse_data.tables.folds.Folds.write` wrote, or the name of folds in the
            catalog, such as ``"verse19-k5-seed0"`` or ``"verse19+verse20-k5-seed0"``.
        split : {"training", "validation", "test"}, optional
            Published split that was divided. Default: all.

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
        return Folds.read(Path(path), scans, release=self.name, lock=self.pin)

    def dataset(
        self, chosen: Iterable[str] | pd.DataFrame, *, unit: str = "scan", **options: Any
    ) -> ServedDataset:
        """Serve scans, or rows of a table, to a training run.

        Parameters
        ----------
        chosen : iterable of str, or DataFrame
            Scan ids; or rows of :attr:`vertebrae` or :attr:`scans`, for example from
            :meth:`Release.select`, a fold, or a CSV file of them. Rows choose vertebrae by ``scan_id`` and
            ``level``, each once; their values are served from this version. Other columns of the
            table must agree with it; columns that the table does not have are ignored.
        unit : {"scan", "patch", "vertebra", "slice"}
            What one sample is.
        **options
            As in :func:`verse_data.load_split`.

        Returns
        -------
        ScanDataset, PatchDataset, VertebraDataset, VertebraSliceDataset or SpineSliceDataset
            As from :func:`verse_data.load_split` with this `unit`.

        Raises
        ------
        UsageError
            As in :func:`verse_data.load_split`; or if a row names a vertebra that this version
            lacks, a vertebra is given twice, or a value is not that of this version.
        """
        preparing, own = serve.split_options(unit, options)
        serve.check_options(unit, preparing, own)
        rows = serve.needs(unit, own)
        if rows["graded"]:
            require_listed([one.workbook for one in self.members], unit, own)
        # One side of a fold says so. A column of a table may be called fold, too.
        fold = getattr(chosen, "fold", None) if isinstance(chosen, tuple) else None
        parts = [
            one.contribution(share, **rows, **preparing)
            for one, share in zip(self.members, self._shares(chosen), strict=True)
        ]
        return serve.dataset(parts, unit=unit, selection={"fold": fold}, **own)
