"""`UnitedReleases`: several releases as one, each CT series once and each patient on one side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from verse_data import serve
from verse_data.errors import IncompleteTable, UsageError, counted, did_you_mean, warn
from verse_data.evaluated import EvaluatedScans
from verse_data.files import sha256_of_json
from verse_data.grades import workbook_columns_of
from verse_data.progress import Progress
from verse_data.records.catalog import CatalogEntry
from verse_data.records.names import Role
from verse_data.records.overlay import AppliedOverlay
from verse_data.release import Release
from verse_data.releases.fetch import FetchReport
from verse_data.tables.index import ScanFiles, preferred
from verse_data.tables.splits import Place, check_splits, patients, same_series

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.views.preview import Subject


class UnitedReleases(EvaluatedScans):
    """Several releases as one, as returned by :func:`verse_data.open_releases`.

    A series that several of them have, by its name or by the bytes of its CT, counts once: from the
    release that lists most of its CT, mask and centroids, then from one with a grading workbook, then
    from the first.

    Parameters
    ----------
    members : sequence of Release
        In order of preference.

    Attributes
    ----------
    version : str
        Their versions, joined with ``+``.
    catalog : CatalogEntry or None
        What the catalog says of the first, with the licences and citations of all.

    Raises
    ------
    UsageError
        If these are no opened releases, or two of one name.
    ValidationFailed
        If a patient is in two splits, in one release or across them.
    """

    def __init__(self, members: Sequence[Release]) -> None:
        super().__init__()
        self._members = tuple(members) if isinstance(members, Sequence) else ()
        names = [one.name for one in self._members if isinstance(one, Release)]
        if not names or len({*names}) < len(self._members):
            raise UsageError(
                f"{members!r}: give releases of different names, as open_release returns them; by name: "
                f"open_releases(['verse19', 'verse20'])."
            )
        self.version = "+".join(one.version for one in members)
        self.catalog = _joined_entries([one.catalog for one in members if one.catalog])
        check_splits({f"{one.name} {one.version}": one.series for one in members})

    def __repr__(self) -> str:
        scans = len(set(self._series_numbers.values()))
        copies = len(self._series_numbers) - scans
        held = ", ".join(f"{one.name} {one.version}: {len(one.series)}" for one in self.members)
        return f"<UnitedReleases {self.name}: {scans} scans ({held}; {counted(copies, 'copy', 'copies')})>"

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
    def digest(self) -> str:
        """SHA-256 (hex) over the names and locks of the releases, in their order."""
        return sha256_of_json([[one.name, one.lock.digest] for one in self.members])

    @property
    def pin(self) -> str:
        """``sha256:`` and :attr:`digest`."""
        return f"sha256:{self.digest}"

    @property
    def overlays(self) -> tuple[AppliedOverlay, ...]:
        """The overlays that lie over the releases."""
        return tuple(dict.fromkeys(one for member in self.members for one in member.overlays))

    # --- scans ------------------------------------------------------------------------------------

    @cached_property
    def series(self) -> dict[str, ScanFiles]:
        """The files of each CT series by role, by scan id: of the copy that counts."""
        kept = {
            scan_id: self.members[number].series[scan_id] for scan_id, number in self._homes.items()
        }
        return {
            scan_id: replace(scan, subject_id=self._subjects_of[scan.subject_id])
            for scan_id, scan in kept.items()
        }

    def home(self, scan_id: str) -> Release:
        """Return the release that a scan is served from.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.

        Returns
        -------
        Release
            The one whose copy of the scan counts.

        Raises
        ------
        UsageError
            If no release has such a scan.
        """
        self.known_scans([scan_id])
        return self.members[self._homes[scan_id]]

    def _absence(self, unknown: Sequence[str]) -> str:
        """Return which copy of a scan counts in its place, or that no release has one."""
        name = unknown[0]
        counting = {self._series_numbers[place]: place for place in self._kept}
        for number, one in enumerate(self.members):
            if name in one.series:
                home, scan_id = counting[self._series_numbers[number, name]]
                return (
                    f"{name} of {one.name} counts as {scan_id} of {self.members[home].name} here."
                )
        return f"{self.name} has no scan {name!r}.{did_you_mean(name, self.series)}"

    def fetch(
        self,
        scan_ids: Iterable[str] | None = None,
        *,
        roles: Sequence[Role] | None = None,
        jobs: int = 8,
        progress: Progress | None = None,
    ) -> list[FetchReport]:
        """Fetch the files of scans, each from the release it is served from.

        Parameters
        ----------
        scan_ids, roles, jobs, progress : optional
            As in :meth:`Release.fetch`.

        Returns
        -------
        list of FetchReport
            One for each release that has some of the scans; raises as :meth:`Release.fetch` does.
        """
        how: Any = {"roles": roles, "jobs": jobs, "progress": progress}
        return [one.fetch(ids, **how) for one, ids in self._by_home(scan_ids)]

    def fetch_tables(self, scan_ids: Iterable[str] | None = None, **how: Any) -> None:
        """Fetch the files that the tables of scans are made from.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            As in :meth:`Release.fetch_tables`. Default: all of each release, copies too.
        **how
            Other options of :meth:`Release.fetch_tables`, which says what is raised.
        """
        whole: list[Any] = [(one, None) for one in self.members]
        for one, ids in whole if scan_ids is None else self._by_home(scan_ids):
            one.fetch_tables(ids, **how)

    def _by_home(self, scan_ids: Iterable[str] | None) -> list[tuple[Release, list[str]]]:
        """Return the releases that serve some of the scans, each with the ids of these."""
        ids = self.known_scans(scan_ids)
        shares = [
            (one, [scan_id for scan_id in ids if self._homes[scan_id] == number])
            for number, one in enumerate(self.members)
        ]
        return [(one, own) for one, own in shares if own]

    def to_draw(self, scan_ids: Iterable[str], *, fill: bool) -> dict[str, Subject]:
        """Return what is drawn of each scan: its store, fetched and converted if needed, and marks.

        Parameters
        ----------
        scan_ids : iterable of str
            Such as ``["verse004"]``.
        fill : bool
            As in :meth:`Release.to_draw`.

        Returns
        -------
        dict
            A subject of pictures by scan id.
        """
        parts = [one.to_draw(ids, fill=fill) for one, ids in self._by_home(scan_ids)]
        return {scan_id: subject for part in parts for scan_id, subject in part.items()}

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
            sexes.setdefault(self._subjects_of[row["subject_id"]], one)
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

    def vertebrae_of(self, scan_ids: Iterable[str]) -> pd.DataFrame:
        """Return :attr:`vertebrae`; broken files of other scans than these do not matter.

        Parameters
        ----------
        scan_ids : iterable of str
            As in :meth:`Release.vertebrae_of`.

        Returns
        -------
        DataFrame
            The rows of all scans.
        """
        own = dict(self._by_home(scan_ids))
        frames = [one.vertebrae_of(own.get(one, ())) for one in self.members]
        return self._joined(frames, "vertebrae")

    # --- which scans are the same series ----------------------------------------------------------

    def _shares(self, chosen: Iterable[str] | pd.DataFrame) -> list[Any]:
        """Return what each release contributes to a choice: copies of a scan too, or its rows."""
        if hasattr(chosen, "columns"):
            rows = self._given_rows(chosen)
            return [self._share_of_rows(rows, number) for number in range(len(self.members))]
        if isinstance(chosen, str) or not isinstance(chosen, Iterable):
            chosen = self.known_scans(chosen)  # all of them, or an error
        ids, named = dict.fromkeys(chosen), {scan_id for _, scan_id in self._series_numbers}
        self.known_scans(scan_id for scan_id in ids if scan_id not in named)
        wanted = {series for (_, scan_id), series in self._series_numbers.items() if scan_id in ids}
        return [
            [
                scan_id
                for (own, scan_id), series in self._series_numbers.items()
                if own == number and series in wanted
            ]
            for number in range(len(self.members))
        ]

    def _share_of_rows(self, rows: pd.DataFrame, number: int) -> pd.DataFrame:
        """Return the rows of scans that a release serves, with the patients by their ids in it."""
        share, held = serve.rows_of(rows, number, self._kept), self.members[number].series
        if "subject_id" not in share:
            return share
        pairs = zip(share["scan_id"], share["subject_id"], strict=True)
        own = [
            held[scan_id].subject_id if given == self.series[scan_id].subject_id else given
            for scan_id, given in pairs
        ]
        return share.assign(subject_id=own)

    @cached_property
    def _series_numbers(self) -> dict[Place, int]:
        """Number of the series of each scan; copies have the same."""
        return same_series([one.series for one in self.members])

    @cached_property
    def _subjects_of(self) -> dict[str, str]:
        """The one id that each subject has here."""
        return patients([one.series for one in self.members], self._series_numbers)

    @cached_property
    def _kept(self) -> set[Place]:
        """The copy of each series that the tables show."""
        held = [one.series for one in self.members]
        return preferred(
            held, self._series_numbers, [one.workbook.is_listed for one in self.members]
        )

    @cached_property
    def _homes(self) -> dict[str, int]:
        """Position of the release that each scan is served from."""
        return {scan_id: number for number, scan_id in sorted(self._kept)}

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
        subjects = whole["subject_id"].map(self._subjects_of)
        return with_types(table, whole.assign(subject_id=subjects).astype({"release": "string"}))


def _joined_entries(known: Sequence[CatalogEntry]) -> CatalogEntry | None:
    """Return the first entry with the names, licences, attributions and citations of all."""
    if not known:
        return None
    joined: dict[str, Any] = {
        name: " + ".join(dict.fromkeys(getattr(entry, name) for entry in known))
        for name in ("name", "title", "licence", "attribution")
    }
    joined["citations"] = tuple(dict.fromkeys(c for entry in known for c in entry.citations))
    return known[0].model_copy(update=joined)


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
            absent = f"{one.name} {one.version} lists no grading workbook"
            chosen_by = " and ".join(asked)
            warn(IncompleteTable(f"{absent}: no vertebra of it is chosen by its {chosen_by}."))
            one.fetch_tables(own, graded=False, progress=progress)
            rows = one.tables_of(split, graded=False)[1].assign(release=one.name)
            rows = select(rows, where).drop(columns="release")
        found.append(rows)
    return found
