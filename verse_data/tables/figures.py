"""Recomputes a release's published figures from the data at hand, cell by cell.

Sex and contrast, which the published workbook does not hold, come from a patient table: a CSV file
with a heading, UTF-8, one row a subject or one a series.

================================ =================================================================
column                           values
================================ =================================================================
``subject_id`` or ``subject_ID`` ``verse004``, ``sub-verse004`` or the bare number (``4``, ``004``, ``4.0``)
``sex`` or ``Sex``               ``F`` or ``M``; empty where unknown
``contrast`` or                  ``none``, ``arterial``, ``portal_venous``, or ``ce-no``, ``ce-art``,
``Contrast Enhancement``         ``ce-pv``; empty where unknown
================================ =================================================================

``sex`` and ``contrast`` may be missing as columns. Rows of one subject must agree; what one row leaves
empty, another may say. Other columns are neither read nor kept.
"""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from verse_data.errors import ValidationFailed
from verse_data.problems import SHOWN, Problem, raise_problems
from verse_data.records.catalog import CatalogEntry, PublishedFigure
from verse_data.records.grading import FRACTURE_TYPES, GradingRow
from verse_data.records.tables import PatientRow
from verse_data.tables.grading import Grading

Verdict = Literal["agrees", "differs", "needs"]

_LIMIT: Final = 8 << 20
_NAMES: Final = {
    "subject_id": "subject_id",
    "subject_ID": "subject_id",
    "sex": "sex",
    "Sex": "sex",
    "contrast": "contrast",
    "Contrast Enhancement": "contrast",
}
_SUBJECT: Final = re.compile(
    r"(?:(?:sub-)?(verse[0-9]{3}|gl[0-9]{3})|(?!0+(?:\.|$))([0-9]{1,3})(?:\.0)?)"
)
_CONTRASTS: Final = ("none", "arterial", "portal_venous")
_WORDS: Final = {
    "sex": {"F": "F", "M": "M"},
    "contrast": {
        **{word: word for word in _CONTRASTS},
        **dict(zip(("ce-no", "ce-art", "ce-pv"), _CONTRASTS, strict=True)),
    },
}
_THEN: Final = "The columns are documented in verse_data.tables.figures."


@dataclass(frozen=True)
class FigureCell:
    """One published number, and what the data at hand say."""

    figure: str  # row
    group: str  # column: `all` or a split
    title: str  # the row's heading
    expected: str  # as printed
    found: str | None  # with as many digits as `expected`; None where it cannot be computed
    verdict: Verdict
    needs: str = ""  # what is missing, for the verdict `needs`


@dataclass(frozen=True)
class FigureReport:
    """All published figures of a release against the data at hand, and what else is worth a word."""

    release: str
    cells: tuple[FigureCell, ...]
    notes: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """Return how many cells have `verdict`."""
        return sum(cell.verdict == verdict for cell in self.cells)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "release": self.release,
            "counts": {verdict: self.count(verdict) for verdict in ("agrees", "differs", "needs")},
            "cells": [asdict(cell) for cell in self.cells],
            "notes": list(self.notes),
        }


class _Missing(Exception):
    """A figure cannot be computed; the text says what it needs."""


class _Group:
    """What is at hand for one column of the published table: a split, or all."""

    def __init__(
        self,
        name: str,
        entry: CatalogEntry,
        grading: Grading | None,
        vertebrae: pd.DataFrame | None,
        patients: dict[str, PatientRow],
    ) -> None:
        self._graded, self._patients = grading is not None, patients
        graded = [row.row for row in grading.rows] if grading else []
        self._series = [row for row in graded if name in {"all", row.split}]
        expected = {one.scan_id for one in entry.expected if name in {"all", one.split}}
        self._points = vertebrae
        if vertebrae is not None:
            points = vertebrae[vertebrae["has_centroid"].fillna(value=False).astype(bool)]
            self._points = points if name == "all" else points[points["split"] == name]
            expected -= set(self._points["scan_id"])
        self._without_points = len(expected)

    def series(self) -> list[GradingRow]:
        if not self._graded:
            raise _Missing("the grading workbook: --workbook FILE")
        return self._series

    def persons(self) -> list[GradingRow]:
        """Return the first row of each subject: the paper's means are over patients."""
        return list({row.subject_id: row for row in reversed(self.series())}.values())

    def values(self, column: str) -> list[float]:
        values = [float(getattr(row, column)) for row in self.persons()]
        if len(values) < 2:
            raise _Missing("at least two patients in this column")
        return values

    def with_value(self, column: str, value: str) -> int:
        """Count the persons whose sex or contrast is `value`."""
        patients = [self._patients.get(row.subject_id) for row in self.persons()]
        values = [getattr(patient, column, None) for patient in patients]
        if None in values:
            raise _Missing(f"{column} of {values.count(None)} patients: --patients FILE")
        return values.count(value)

    def device(self, code: int) -> int:
        return sum(row.ct_device == code for row in self.persons())

    def grades(self, *wanted: object) -> int:
        return sum(grade in wanted for row in self.series() for grade in row.grades.values())

    def region(self, name: str) -> int:
        """Count the vertebrae of a region: the table has them, the workbook no cervical levels."""
        if self._points is None or self._without_points:
            raise _Missing(
                f"the centroid files of {self._without_points} scans: "
                f"verse-data get RELEASE --role centroids"
            )
        return int((self._points["region"] == name).sum())


# How each figure of the catalog is recomputed; standard deviations of a sample (n - 1), as printed.
_COMPUTE: Final[dict[str, Callable[[_Group], float]]] = {
    "scans": lambda group: len(group.series()),
    "patients": lambda group: len(group.persons()),
    "women": lambda group: group.with_value("sex", "F"),
    "vertebrae": lambda group: sum(row.n_vertebrae for row in group.series()),
    **{name: partial(_Group.region, name=name) for name in ("cervical", "thoracic", "lumbar")},
    "fractures": lambda group: group.grades(1, 2, 3),
    "grade_1": lambda group: group.grades(1),
    "grade_2": lambda group: group.grades(2),
    "grade_3": lambda group: group.grades(3),
    "foreign_material": lambda group: group.grades("x"),
    "age_mean": lambda group: statistics.fmean(group.values("age_years")),
    "age_sd": lambda group: statistics.stdev(group.values("age_years")),
    "bmd_mean": lambda group: statistics.fmean(group.values("bmd_mg_cm3")),
    "bmd_sd": lambda group: statistics.stdev(group.values("bmd_mg_cm3")),
    **{
        f"contrast_{phase}": partial(_Group.with_value, column="contrast", value=phase)
        for phase in _CONTRASTS
    },
    **{f"device_{code}": partial(_Group.device, code=code) for code in range(1, 6)},
}


def report(
    entry: CatalogEntry,
    *,
    grading: Grading | None = None,
    vertebrae: pd.DataFrame | None = None,
    patients: Iterable[PatientRow] = (),
) -> FigureReport:
    """Compare every published figure of a release with the data at hand.

    The grading workbook alone gives the rows of imaging and patients. Counts by region take the
    table of vertebrae, of which those with a centroid count; sex and contrast take the patients.
    """
    known = {row.subject_id: row for row in patients}
    names = dict.fromkeys(figure.group for figure in entry.figures)
    groups = {name: _Group(name, entry, grading, vertebrae, known) for name in names}
    cells = tuple(_cell(figure, groups[figure.group]) for figure in entry.figures)
    return FigureReport(
        entry.name, cells, (*_strangers(known, entry), *_contradictions(entry, grading))
    )


def _cell(figure: PublishedFigure, group: _Group) -> FigureCell:
    found, verdict, needs = None, "needs", f"a rule for {figure.figure} in this version"
    if figure.figure in _COMPUTE:
        try:
            found = _as_printed(_COMPUTE[figure.figure](group), figure.expected)
            verdict, needs = "agrees" if found == figure.expected else "differs", ""
        except _Missing as missing:
            needs = str(missing)
    return FigureCell(
        figure=figure.figure,
        group=figure.group,
        title=figure.title,
        expected=figure.expected,
        found=found,
        verdict=verdict,  # type: ignore[arg-type]
        needs=needs,
    )


def _as_printed(value: float, like: str) -> str:
    """Round to as many digits as `like` shows, halves up, as papers do."""
    digits = len(like.partition(".")[2])
    exact = Decimal(repr(value))
    return str(exact.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))


def _strangers(patients: Iterable[str], entry: CatalogEntry) -> Iterator[str]:
    """Yield a line for the patients whom the release does not have, if it is known whole."""
    persons = entry.subject_of_series
    strangers = [name for name in patients if persons and name not in set(persons.values())]
    if strangers:
        shown = [
            f"{name} (a series of {persons[name]})" if name in persons else name
            for name in strangers[:SHOWN]
        ]
        yield (
            f"{len(strangers)} subjects of the patient table are not in {entry.name}, and count for "
            f"nothing: {', '.join(shown)}{', ...' if strangers[SHOWN:] else ''}"
        )


def _contradictions(entry: CatalogEntry, grading: Grading | None) -> Iterator[str]:
    """Yield each claim of the publication's text that its whole workbook contradicts."""
    if grading is None or len(grading.rows) < len(entry.expected):
        return
    shapes: Counter[object] = Counter(
        shape for graded in grading.rows for shape in graded.row.shapes.values()
    )
    counts = {name: shapes[code] for code, name in enumerate(FRACTURE_TYPES) if code}
    ranked = sorted(counts, key=lambda name: -counts[name])
    for claim in entry.prose:
        if claim.figure == "commonest_shape" and claim.says != ranked[0]:
            found = ", ".join(f"{counts[name]} {name}" for name in ranked)
            yield f"{claim.text}, and the workbook has {found}"


def read_patients(path: Path) -> tuple[PatientRow, ...]:
    """Read a patient table: one row a subject, in the order of first appearance."""
    name, ((_, heading), *lines) = path.name, _lines(path)
    places = {_NAMES[word]: place for place, word in enumerate(heading) if word in _NAMES}
    if "subject_id" not in places or len(places) < 2:
        found = ", ".join(map(repr, heading[:20]))
        raise ValidationFailed(
            f"{name}, row 1: a column subject_id, and one of sex and contrast, are needed; "
            f"the columns are {found}. {_THEN}"
        )
    if len(places) < sum(word in _NAMES for word in heading):
        raise ValidationFailed(f"{name}, row 1: a column occurs twice. {_THEN}")
    problems: list[Problem] = []
    rows: dict[str, tuple[int, PatientRow]] = {}
    for number, fields in lines:
        if len(fields) != len(heading):
            rule = f"{len(fields)} fields where the heading has {len(heading)}"
            problems.append(Problem(file=name, row=number, rule=rule))
            continue
        row = {column: fields[place] for column, place in places.items()}
        patient = _patient(name, number, row, problems)
        if patient is None:
            continue
        first, known = rows.setdefault(patient.subject_id, (number, patient))
        merged = _merged(known, patient)
        if merged is None:
            rule = f"row {first} says otherwise of {patient.subject_id}"
            problems.append(Problem(file=name, row=number, rule=rule))
        else:
            rows[patient.subject_id] = (first, merged)
    raise_problems(problems, what=name, then=_THEN)
    return tuple(patient for _, patient in rows.values())


def _merged(one: PatientRow, other: PatientRow) -> PatientRow | None:
    """Return what two rows of one subject say together, or None if they contradict each other."""
    sex, contrast = one.sex or other.sex, one.contrast or other.contrast
    if other.sex not in {sex, None} or other.contrast not in {contrast, None}:
        return None
    return PatientRow(subject_id=one.subject_id, sex=sex, contrast=contrast)


def _patient(
    file: str, number: int, row: dict[str, str], problems: list[Problem]
) -> PatientRow | None:
    """Read one row; add to `problems` what is wrong with it."""
    values: dict[str, Any] = {"sex": None, "contrast": None}
    before = len(problems)
    for column, text in row.items():
        if column == "subject_id":
            match, rule = _SUBJECT.fullmatch(text), "is no subject such as verse004 or 4"
            values[column] = (match[1] or f"verse{int(match[2]):03d}") if match else None
        else:
            values[column] = _WORDS[column].get(text)
            rule = f"is none of {', '.join(_WORDS[column])}"
        if values[column] is None and (text or column == "subject_id"):
            problem = Problem(file=file, row=number, column=column, value=text, rule=rule)
            problems.append(problem)
    return PatientRow(**values) if len(problems) == before else None


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the number and the fields of each line that is not empty, of which there is one."""
    name, data = path.name, path.read_bytes()
    if len(data) > _LIMIT:
        raise ValidationFailed(f"{name}: {len(data):,} bytes are over the limit of {_LIMIT:,}.")
    try:
        text = data.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, fields) for fields in reader if any(fields)]
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is {data[error.start]:#04x}"
        raise ValidationFailed(f"{name}: not UTF-8: {found}. Save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise ValidationFailed(f"{name}: not CSV: {error}. {_THEN}") from None
    if not lines:
        raise ValidationFailed(f"{name}: the file is empty. {_THEN}")
    return lines
