"""`UnitedReleases`: several releases as one, each CT series once and each patient on one side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from verse_data import serve
from verse_data.errors import IncompleteTable, UsageError, did_you_mean, warn
from verse_data.files import sha256_of_json
from verse_data.grades import require_listed, workbook_columns_of
from verse_data.progress import Progress
from verse_data.records.catalog import CatalogEntry
from verse_data.records.overlay import AppliedOverlay
from verse_data.release import Release
from verse_data.tables.index import preferred
from verse_data.tables.splits import Place, check_splits, patients, same_series

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.tables.folds import Folds
    from verse_data.tables.summary import Summary
    from verse_data.training.base import ServedDataset


class UnitedReleases:
    """Several releases as one, as returned by :func:`verse_data.open_releases`.

    A series that several of them have, by its name or by the bytes of its CT, counts once: from the
    release that lists most of its CT, mask and centroids, then from one with a grading workbook, then
    from the first.

    Parameters
    ----------
    members : sequence of Release
        In order of preference.

    Raises
    ------
    ValidationFailed
        If a patient is in two splits, in one release or across them.
    """

    def __init__(self, members: Sequence[Release]) -> None:
        self._members = tuple(members)
        check_splits({f"{one.name} {one.version}": one.series for one in members})

    def __repr__(self) -> str:
        scans = len(set(self._numbers.values()))
        copies = len(self._numbers) - scans
        held = ", ".join(f"{one.name} {one.version}: {len(one.series)}" for one in self.members)
        return f"<UnitedReleases {self.name}: {scans} scans ({held}; {copies} in two of them)>"

    @property
    def members(self) -> tuple[Release, ...]:
        """The releases, in order of preference."""
        return self._members

    if not TYPE_CHECKING:  # a checker shall still find names that nothing has

        def __getattr__(self, name: str) -> object:
            """Say what to open for what one release alone has."""
            one = hasattr(Release, name) and not hasattr(UnitedReleases, name)
            first = f", but open_release({self.members[0].name!r}) does" if one else ""
            raise AttributeError(f"'UnitedReleases' does not have {name!r}{first}")

    @property
    def name(self) -> str:
        """The names of the releases, joined with ``+``: ``"verse19+verse20"``."""
        return "+".join(one.name for one in self.members)

    @property
    def version(self) -> str:
        """Their versions, joined with ``+``."""
        return "+".join(one.version for one in self.members)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the names, locks and overlays of the releases, in their order."""
        held = [[one.name, one.lock.digest] for one in self.members]
        over = [one.digest for one in self.overlays]
        return sha256_of_json([*held, *([over] if over else [])])

    @property
    def overlays(self) -> tuple[AppliedOverlay, ...]:
        """The overlays that lie over the releases."""
        return tuple(dict.fromkeys(one for member in self.members for one in member.overlays))

    @property
    def catalog(self) -> CatalogEntry | None:
        """What the catalog says of the first release, with all licences and attributions."""
        known = [one.catalog for one in self.members if one.catalog]
        if not known:
            return None
        joined = {
            name: " + ".join(dict.fromkeys(getattr(entry, name) for entry in known))
            for name in ("name", "title", "licence", "attribution")
        }
        return known[0].model_copy(update=joined)

    # --- tables -----------------------------------------------------------------------------------

    @property
    def scans(self) -> pd.DataFrame:
        """One row per CT series; `release` says where it lies, `edition` to which it belongs."""
        return self._joined([one.scans for one in self.members], "scans")

    @property
    def vertebrae(self) -> pd.DataFrame:
        """One row per vertebra of each series, as in :attr:`verse_data.Release.vertebrae`, with `release`."""
        return self._joined([one.vertebrae for one in self.members], "vertebrae")

    @property
    def subjects(self) -> pd.DataFrame:
        """One row per patient, over the series of all releases."""
        from verse_data.records.tables import PatientRow
        from verse_data.tables.columns import to_frame
        from verse_data.tables.export import plain_rows
        from verse_data.tables.join import subject_records

        sexes: dict[str, PatientRow] = {}
        for row in (row for one in self.members for row in plain_rows(one.subjects) if row["sex"]):
            one = PatientRow(subject_id=row["subject_id"], sex=row["sex"])
            sexes.setdefault(self._subjects[row["subject_id"]], one)
        scans: Any = [SimpleNamespace(**row) for row in plain_rows(self.scans)]
        vertebrae: Any = [SimpleNamespace(**row) for row in plain_rows(self.vertebrae)]
        return to_frame("subjects", subject_records(scans, vertebrae, sexes))

    @property
    def findings(self) -> pd.DataFrame:
        """The findings of each release, with the column `release`."""
        import pandas as pd

        return pd.concat(
            [one.findings.assign(release=one.name) for one in self.members], ignore_index=True
        )

    def tables_of(
        self, split: str | None, *, graded: bool = True
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of :attr:`scans` and :attr:`vertebrae` in a published split.

        Parameters
        ----------
        split, graded : optional
            As in :meth:`Release.tables_of`.

        Returns
        -------
        tuple of pandas.DataFrame
            Scans, and their vertebrae.
        """
        pairs = [one.tables_of(split, graded=graded) for one in self.members]
        scans, vertebrae = zip(*pairs, strict=True)
        return self._joined(scans, "scans"), self._joined(vertebrae, "vertebrae")

    def require_grades(self, where: str | None) -> None:
        """Raise `ContentMissing` if `where` needs grades, and no release has its workbook here.

        Parameters
        ----------
        where : str or None
            A condition, as in :meth:`Release.select`.
        """
        graded = [one for one in self.members if one.workbook.is_listed] or self.members[:1]
        for one in graded:
            one.require_grades(where)

    def summary(self) -> Summary:
        """Count patients, series, and vertebrae by status, grade and level.

        Returns
        -------
        Summary
            As :meth:`Release.summary` gives of one release.
        """
        from verse_data.tables.summary import summarize

        return summarize(self.scans, self.vertebrae, release=self.name, version=self.version)

    # --- folds and datasets -----------------------------------------------------------------------

    def folds(
        self,
        k: int,
        *,
        seed: int = 0,
        stratify: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Folds:
        """Divide the patients of a split (default: of all) into `k` balanced folds.

        Parameters
        ----------
        k, seed : int
            As in :meth:`Release.folds`.
        stratify : sequence of str, optional
            Columns of :attr:`vertebrae`. Default: region and release; grade and foreign material, too,
            if a grading workbook is here.
        split : str, optional
            As in :meth:`Release.folds`.

        Returns
        -------
        Folds
            With the names of the releases, and a digest over their locks.

        Raises
        ------
        ContentMissing
            If `stratify` names a column of grading workbooks, and one that is listed is not here.
        """
        from verse_data.tables.folds import STRATIFY, column_names, make_folds

        if stratify is None:
            unknown = workbook_columns_of(STRATIFY)
            absent = [one for one in self.members if one.workbook.is_listed > one.workbook.is_here]
            here = any(one.workbook.is_here for one in self.members) and not absent
            stratify = [*(name for name in STRATIFY if here or name not in unknown), "release"]
            for one in absent:
                warn(IncompleteTable(f"Folds are not balanced by grade. {one.workbook.absence()}"))
        names = column_names(stratify)
        for one in [one for one in self.members if one.workbook.is_listed] or self.members[:1]:
            one.workbook.require(names, asked=f"stratify={stratify!r}")
        tables = self.tables_of(split, graded=bool(workbook_columns_of(names)))
        lock = f"sha256:{self.digest}"
        return make_folds(*tables, k=k, seed=seed, stratify=names, release=self.name, lock=lock)

    def read_folds(self, path: str | os.PathLike[str], *, split: str | None = None) -> Folds:
        """Read folds of these releases, and check that they divide their scans.

        Parameters
        ----------
        path, split : optional
            As in :meth:`Release.read_folds`; the catalog has ``"verse19+verse20-k5-seed0"``.

        Returns
        -------
        Folds
            As they were written.
        """
        from verse_data.tables.folds import Folds

        scans, _ = self.tables_of(split, graded=False)
        return Folds.read(Path(path), scans, release=self.name, lock=f"sha256:{self.digest}")

    def dataset(
        self, chosen: Iterable[str] | pd.DataFrame, *, unit: str = "scan", **options: Any
    ) -> ServedDataset:
        """Serve scans of any of the releases, or rows of :attr:`vertebrae`, to a training run.

        Parameters
        ----------
        chosen : iterable of str, or DataFrame
            Scan ids, for example one side of a fold; or rows of :attr:`vertebrae` or :attr:`scans`.
        unit : {"scan", "patch", "vertebra", "slice"}
            What one sample is.
        **options
            As in :func:`verse_data.load_split`.

        Returns
        -------
        ScanDataset, PatchDataset, VertebraDataset, VertebraSliceDataset or SpineSliceDataset
            As from :func:`verse_data.load_split` with several releases.

        Raises
        ------
        UsageError
            If no release has such a scan; else as :meth:`Release.dataset` does.
        """
        preparing, own = serve.split_options(unit, options)
        serve.check_options(unit, preparing, own)
        rows = serve.needs(unit, own)
        if rows["graded"]:
            require_listed([one.workbook for one in self.members], unit, own)
        fold = getattr(chosen, "fold", None) if isinstance(chosen, tuple) else None
        parts = [
            one.contribution(own_part, **rows, **preparing)
            for one, own_part in zip(self.members, self._shares(chosen), strict=True)
        ]
        return serve.dataset(parts, unit=unit, selection={"fold": fold}, **own)

    def _shares(self, chosen: Iterable[str] | pd.DataFrame) -> list[Any]:
        """Return what each release contributes to a choice: copies of a scan too, or its rows."""
        places: dict[str, list[int]] = {}
        for number, scan_id in self._numbers:
            places.setdefault(scan_id, []).append(number)
        table: Any = chosen if hasattr(chosen, "columns") else None
        ids = list(dict.fromkeys(chosen if table is None else table["scan_id"]))
        for scan_id in ids:
            if scan_id not in places:
                raise UsageError(
                    f"{self.name} has no scan {scan_id!r}.{did_you_mean(scan_id, places)}"
                )
        if table is not None:
            numbers = range(len(self.members))
            return [serve.rows_of(table, number, self._kept) for number in numbers]
        wanted = {self._numbers[number, scan_id] for scan_id in ids for number in places[scan_id]}
        return [
            [
                scan_id
                for (own, scan_id), series in self._numbers.items()
                if own == number and series in wanted
            ]
            for number in range(len(self.members))
        ]

    # --- which scans are the same series ----------------------------------------------------------

    @cached_property
    def _numbers(self) -> dict[Place, int]:
        return same_series([one.series for one in self.members])

    @cached_property
    def _subjects(self) -> dict[str, str]:
        return patients([one.series for one in self.members], self._numbers)

    @cached_property
    def _kept(self) -> set[Place]:
        """The copy of each series that the tables show."""
        held = [one.series for one in self.members]
        return preferred(held, self._numbers, [one.workbook.is_listed for one in self.members])

    def _joined(
        self, frames: Sequence[pd.DataFrame], table: Literal["scans", "vertebrae"]
    ) -> pd.DataFrame:
        """Return the rows of all releases of the scans that are kept, with the release of each."""
        import pandas as pd

        from verse_data.tables.columns import with_types

        rows = [
            serve.rows_of(frame, number, self._kept).assign(release=self.members[number].name)
            for number, frame in enumerate(frames)
        ]
        whole = pd.concat(rows, ignore_index=True)
        subjects = whole["subject_id"].map(self._subjects)
        return with_types(table, whole.assign(subject_id=subjects).astype({"release": "string"}))


def selected(
    members: Sequence[Release],
    where: str,
    split: str,
    ids: Sequence[Sequence[str]],
    *,
    graded: bool,
    progress: Progress | None,
) -> list[pd.DataFrame]:
    """Return the rows of each release for which `where` is true, fetched first.

    Where one release lists grades and another does not, a warning says so, and none of the other's
    vertebrae is assessed.
    """
    from verse_data.tables.query import columns_used, select

    asked = workbook_columns_of(columns_used(where))
    has_book = [one.workbook.is_listed for one in members]
    found = []
    for one, own, has in zip(members, ids, has_book, strict=True):
        if has or not asked or not any(has_book):
            rows = one.fetch_and_select(where, scan_ids=own, graded=graded, progress=progress)
        else:
            what = " and ".join(asked)
            warn(
                IncompleteTable(
                    f"{one.name} {one.version} lists no grading workbook: no vertebra of it is chosen by "
                    f"its {what}."
                )
            )
            one.fetch_tables(own, graded=False, progress=progress)
            rows = one.tables_of(split, graded=False)[1].assign(release=one.name)
            rows = select(rows, where).drop(columns="release")
        found.append(rows)
    return found
