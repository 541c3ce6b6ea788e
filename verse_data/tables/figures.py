"""Recomputes a release's published figures from the data on this machine, cell by cell.

Sex and contrast, which the published workbook does not hold, come from a table of patients.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

import pandas as pd

from verse_data.problems import shown
from verse_data.records.catalog import CatalogEntry, PublishedFigure
from verse_data.records.tables import FRACTURE_TYPES, PatientRow
from verse_data.tables.grading import Grading

Verdict = Literal["agrees", "differs", "needs"]


@dataclass(frozen=True)
class FigureCell:
    """One published number, and the number that was computed."""

    figure: str  # row
    group: str  # column: `all` or a split
    title: str  # the row's heading
    expected: str  # as printed
    found: str | None  # with as many digits as `expected`; None where it cannot be computed
    verdict: Verdict
    needs: str = ""  # what is missing, for the verdict `needs`


@dataclass(frozen=True)
class FigureReport:
    """All published figures of a release compared with its data, and further disagreements."""

    release: str
    cells: tuple[FigureCell, ...]
    notes: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """Return how many cells have `verdict`."""
        return sum(cell.verdict == verdict for cell in self.cells)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        counts = {verdict: self.count(verdict) for verdict in ("agrees", "differs", "needs")}
        return {"release": self.release, "counts": counts, **asdict(self)}


_Found = tuple[Any, dict[str, str]]
"""A Counter of the figures of one column of the published table, and what some of them still need."""


def _figures(
    group: str,
    entry: CatalogEntry,
    grading: Grading | None,
    vertebrae: pd.DataFrame | None,
    patients: dict[str, PatientRow],
) -> _Found:
    """Compute every figure of a split, or of all."""
    found, needs = _regions(group, entry, vertebrae)
    if grading is None or grading.sheet.is_list:
        needed = dict.fromkeys(
            ("workbook", "sex", "contrast"), "the grading workbook: --workbook FILE"
        )
        return found, needs | needed
    rows = [graded.row for graded in grading.rows if group in {"all", graded.row.split}]
    grades = Counter(str(grade) for row in rows for grade in row.grades.values())
    found.update({f"grade_{grade}": number for grade, number in grades.items()})
    found["fractures"] = grades["1"] + grades["2"] + grades["3"]
    found["foreign_material"] = grades["x"]
    found.update(scans=len(rows), vertebrae=sum(row.n_vertebrae or 0 for row in rows))
    # The paper's means are over patients: of each, the first row counts.
    persons = list({row.subject_id: row for row in reversed(rows)}.values())
    found["patients"] = len(persons)
    found.update(f"device_{row.ct_device}" for row in persons)
    for name, field in (("age", "age_years"), ("bmd", "bmd_mg_cm3")):
        values = [getattr(row, field) for row in persons]
        # The deviation is that of a sample, as printed.
        for what, compute in (("mean", statistics.fmean), ("sd", statistics.stdev)):
            found[f"{name}_{what}"] = compute(values) if len(values) > 1 else None
    for column in ("sex", "contrast"):
        known = [getattr(patients.get(row.subject_id), column, None) for row in persons]
        found.update(f"{column}_{value}" for value in known)
        if None in known:
            needs[column] = f"{column} of {known.count(None)} patients: --patients FILE"
    found["women"] = found["sex_F"]
    return found, needs


def _regions(group: str, entry: CatalogEntry, vertebrae: pd.DataFrame | None) -> _Found:
    """Count vertebrae by region: the table has them all, the workbook no cervical levels."""
    found, needs = Counter[Any](), dict[str, str]()
    lacking = {one.scan_id for one in entry.expected if group in {"all", one.split}}
    if vertebrae is not None:
        points = vertebrae[vertebrae["has_centroid"].fillna(value=False).astype(bool)]
        points = points if group == "all" else points[points["split"] == group]
        found.update(points["region"])
        lacking -= set(points["scan_id"])
    if vertebrae is None or lacking:
        files = f"the centroid files of {len(lacking)} scans"
        needs["vertebrae"] = f"{files}: verse-data get {entry.name} --role centroids"
    return found, needs


def report(
    entry: CatalogEntry,
    *,
    grading: Grading | None = None,
    vertebrae: pd.DataFrame | None = None,
    patients: Iterable[PatientRow] = (),
) -> FigureReport:
    """Compare every published figure of a release with its data.

    Figures on imaging and patients need only the grading workbook. Counts by region need the table
    of vertebrae, of which those with a centroid are counted; sex and contrast need the patients.
    """
    known = {row.subject_id: row for row in patients}
    names = dict.fromkeys(figure.group for figure in entry.figures)
    groups = {name: _figures(name, entry, grading, vertebrae, known) for name in names}
    cells = tuple(_cell(figure, groups[figure.group]) for figure in entry.figures)
    notes = (*_unknown_patients(known, entry), *_contradictions(entry, grading))
    return FigureReport(entry.name, cells, notes)


def _cell(figure: PublishedFigure, of_group: _Found) -> FigureCell:
    found, needs = of_group
    parts = (figure.figure, figure.group, figure.title, figure.expected)
    needed = needs.get(figure.needs)
    if needed or found[figure.figure] is None:
        needed = needed or "at least two patients in this column"
        return FigureCell(*parts, found=None, verdict="needs", needs=needed)
    value = as_printed(found[figure.figure], figure.expected)
    return FigureCell(*parts, value, "agrees" if value == figure.expected else "differs")


def as_printed(value: float, like: str) -> str:
    """Return `value` with as many digits as the number `like` has, halves up, as papers do."""
    digit = Decimal(1).scaleb(-len(like.partition(".")[2]))
    return str(Decimal(repr(value)).quantize(digit, rounding=ROUND_HALF_UP))


def _unknown_patients(patients: Iterable[str], entry: CatalogEntry) -> Iterator[str]:
    """Yield a line for the patients that the release lacks, if the catalog lists its series."""
    persons = entry.subject_of_series
    unknown = [
        f"{name} (a series of {persons[name]})" if name in persons else name
        for name in patients
        if persons and name not in set(persons.values())
    ]
    if unknown:
        yield (
            f"{len(unknown)} subjects of the patient table are not in {entry.name}, and are ignored"
            f": {', '.join(shown(unknown))}"
        )


def _contradictions(entry: CatalogEntry, grading: Grading | None) -> Iterator[str]:
    """Yield each claim of the publication's text that the complete workbook contradicts."""
    if grading is None or len(grading.rows) < len(entry.expected):
        return
    shapes = Counter(shape for graded in grading.rows for shape in graded.row.shapes.values())
    counts = {name: shapes[code] for code, name in enumerate(FRACTURE_TYPES) if code}  # type: ignore[index]
    ranked = sorted(counts, key=lambda name: -counts[name])
    for claim in entry.prose:
        if claim.figure == "commonest_shape" and claim.says != ranked[0]:
            found = ", ".join(f"{counts[name]} {name}" for name in ranked)
            yield f"{claim.text}, and the workbook has {found}"
