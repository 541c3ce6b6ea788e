"""Recomputes a release's published figures from the data on this machine, cell by cell.

Sex and contrast, which the published workbook does not hold, come from a table of patients.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Literal

import pandas as pd

from verse_data.problems import listed
from verse_data.records.catalog import CatalogEntry
from verse_data.records.tables import FRACTURE_TYPES, GradingRow, PatientRow
from verse_data.tables.grading import Grading
from verse_data.tables.index import grouped

Verdict = Literal["agrees", "differs", "needs", "found"]
NEEDS_WORKBOOK: Final = "the grading workbook: --workbook FILE"
MEASURED: Final = {"age": "age_years", "bmd": "bmd_mg_cm3"}
"""Fields of a row of which means are published."""


@dataclass(frozen=True)
class Figure:
    """One number of a published table or text, and the number that was computed."""

    figure: str  # row of the table, or name of the number of the text
    title: str
    expected: str | None  # as printed; None where nothing was published
    found: str | None  # with as many digits as `expected`; None where it cannot be computed
    verdict: Verdict
    needs: str = ""  # what is missing, for the verdict `needs`
    note: str = ""  # why it differs, where that is known
    group: str = "all"  # column of the table: `all` or a split

    def as_text(self, signs: Mapping[str, str]) -> str:
        """Return published number, sign of the verdict, and found number."""
        return f"{self.expected} {signs[self.verdict]} {self.found or ''}".strip()

    def as_json(self, name: str, *fields: str) -> dict[str, Any]:
        """Return the number as plain values, its name under `name`, and also these fields."""
        kept = ("title", "expected", "found", "verdict", "needs", *fields)
        return {name: self.figure} | {field: getattr(self, field) for field in kept}


@dataclass(frozen=True)
class FigureReport:
    """All published figures of a release compared with its data, and further disagreements."""

    release: str
    cells: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """Return how many cells have `verdict`."""
        return sum(cell.verdict == verdict for cell in self.cells)

    def grid(self, signs: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
        """Return the columns, and of each row its title and cells as text."""
        rows: dict[str, list[str]] = {}
        for cell in self.cells:
            rows.setdefault(cell.title, [cell.title]).append(cell.as_text(signs))
        return list(dict.fromkeys(cell.group for cell in self.cells)), list(rows.values())

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        counts = {verdict: self.count(verdict) for verdict in ("agrees", "differs", "needs")}
        cells = [cell.as_json("figure", "group") for cell in self.cells]
        return {"release": self.release, "counts": counts, "cells": cells, "notes": self.notes}


def by_patient(rows: Iterable[GradingRow]) -> list[list[GradingRow]]:
    """Return the rows of each patient, by first appearance."""
    return list(grouped(rows, lambda row: row.subject_id).values())


def values_of(rows: Iterable[GradingRow], field: str) -> list[float]:
    """Return the values of a field, of the rows that have one."""
    return [value for row in rows if (value := getattr(row, field)) is not None]


def measures(rows: Iterable[GradingRow]) -> dict[str, float | None]:
    """Return mean and standard deviation (of a sample, as printed) of age and density."""
    found: dict[str, float | None] = {}
    for name, field in MEASURED.items():
        values = values_of(rows, field)
        found[f"{name}_mean"] = statistics.fmean(values) if values else None
        found[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
    return found


def types_by_number(rows: Iterable[GradingRow]) -> dict[str, int]:
    """Count the fractures of each type, the commonest first."""
    shapes = Counter(shape for row in rows for shape in row.shapes.values())
    counts = {str(name): shapes[code] for code, name in enumerate(FRACTURE_TYPES) if code}  # type: ignore[index]
    return dict(sorted(counts.items(), key=lambda one: -one[1]))


def of_types(counts: Mapping[str, int]) -> str:
    """Return what the workbook has of each type, as text."""
    return f"the workbook has {', '.join(f'{number} {name}' for name, number in counts.items())}"


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
        return found, needs | dict.fromkeys(("workbook", "sex", "contrast"), NEEDS_WORKBOOK)
    rows = [graded.row for graded in grading.rows if group in {"all", graded.row.split}]
    grades = Counter(str(grade) for row in rows for grade in row.grades.values())
    found.update({f"grade_{grade}": number for grade, number in grades.items()})
    found["fractures"] = grades["1"] + grades["2"] + grades["3"]
    found["foreign_material"] = grades["x"]
    found.update(scans=len(rows), vertebrae=sum(row.n_vertebrae or 0 for row in rows))
    # The paper's means are over patients: of each, the first row counts.
    persons = [own[0] for own in by_patient(rows)]
    found["patients"] = len(persons)
    found.update(f"device_{row.ct_device}" for row in persons)
    # A column of one patient has no mean; a Counter's own update would add.
    dict.update(found, measures(persons if len(persons) > 1 else ()))
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
    cells = []
    for one in entry.figures:
        found, needs = groups[one.group]
        value = found[one.figure]
        printed = None if value is None else as_printed(value, one.expected)
        cell = judge(one.figure, one.title, one.expected, printed, needs.get(one.needs, ""))
        cells.append(replace(cell, group=one.group))
    notes = (*_unknown_patients(known, entry), *_contradictions(entry, grading))
    return FigureReport(entry.name, tuple(cells), notes)


def judge(
    key: str, title: str, expected: str | None, found: str | None, needs: str, *, same: bool = False
) -> Figure:
    """Return a number with its verdict; `same` where the words differ and the claim holds."""
    verdict: Verdict = "found"
    if needs or found is None:
        found, verdict, needs = None, "needs", needs or "more patients in this group"
    elif expected is not None:
        verdict = "agrees" if same or found == expected else "differs"
    return Figure(key, title, expected, found, verdict, needs)


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
            f": {listed(unknown)}"
        )


def _contradictions(entry: CatalogEntry, grading: Grading | None) -> Iterator[str]:
    """Yield each claim of the publication's text that the complete workbook contradicts."""
    if grading is None or len(grading.rows) < len(entry.expected):
        return
    counts = types_by_number(graded.row for graded in grading.rows)
    for claim in entry.prose:
        if claim.figure == "commonest_shape" and claim.says != next(iter(counts)):
            yield f"{claim.text}, and {of_types(counts)}"
