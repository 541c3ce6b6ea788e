"""Recomputes a release's published figures from the data at hand, cell by cell."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from verse_data.records.catalog import CatalogEntry, PublishedFigure
from verse_data.records.grading import GradingRow
from verse_data.records.tables import PatientRow
from verse_data.tables.figures_notes import contradictions, strangers
from verse_data.tables.grading import Grading

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["agrees", "differs", "needs"]
_REGIONS: Final = ("cervical", "thoracic", "lumbar")


@dataclass(frozen=True)
class FigureCell:
    """One published number, and what the data at hand say.

    Attributes
    ----------
    figure, group, title : str
        Row, column (``all`` or a split) and the row's heading.
    expected : str
        As printed.
    found : str or None
        Rounded to as many digits as `expected` has; None where it cannot be computed.
    verdict : str
        ``agrees``, ``differs``, or ``needs`` where data are missing.
    needs : str
        What is missing, for the verdict ``needs``.
    """

    figure: str
    group: str
    title: str
    expected: str
    found: str | None
    verdict: Verdict
    needs: str = ""


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
        counts = {verdict: self.count(verdict) for verdict in ("agrees", "differs", "needs")}
        return {
            "release": self.release,
            "counts": counts,
            "cells": [asdict(cell) for cell in self.cells],
            "notes": list(self.notes),
        }


class _Missing(Exception):
    """A figure cannot be computed; the text says what it needs."""


@dataclass(frozen=True)
class _Data:
    """What is at hand for one group: a split, or all."""

    rows: tuple[GradingRow, ...] | None
    vertebrae: pd.DataFrame | None
    patients: dict[str, PatientRow]
    without_points: Sequence[str]

    def series(self) -> tuple[GradingRow, ...]:
        if self.rows is None:
            raise _Missing("the grading workbook: --workbook FILE")
        return self.rows

    def persons(self) -> list[GradingRow]:
        """Return the first row of each subject: the paper's means are over patients."""
        return list({row.subject_id: row for row in reversed(self.series())}.values())

    def told(self, what: str) -> list[str]:
        """Return `what` (sex or contrast) of each person."""
        persons = [row.subject_id for row in self.persons()]
        values = [getattr(self.patients.get(person), what, None) for person in persons]
        unknown = values.count(None)
        if unknown:
            raise _Missing(f"{what} of {unknown} patients: --patients FILE")
        return [str(value) for value in values]


def report(
    entry: CatalogEntry,
    *,
    grading: Grading | None = None,
    vertebrae: pd.DataFrame | None = None,
    patients: Iterable[PatientRow] = (),
) -> FigureReport:
    """Compare every published figure of a release with the data at hand.

    Parameters
    ----------
    entry : CatalogEntry
        Holds the published figures, and the series that the release should have.
    grading : Grading, optional
        The grading workbook; with it alone, the imaging and patient rows can be recomputed.
    vertebrae : DataFrame, optional
        The release's table; needed for counts by region, since the workbook has no cervical levels.
        A vertebra counts if it has a centroid.
    patients : iterable of PatientRow, optional
        Sex and contrast.

    Returns
    -------
    FigureReport
        One cell for each published number, in the catalog's order.
    """
    known = {row.subject_id: row for row in patients}
    notes = [*strangers(known.values(), entry), *contradictions(entry, grading)]
    data = {
        group: _group(entry, group, grading, vertebrae, known)
        for group in dict.fromkeys(figure.group for figure in entry.figures)
    }
    cells = [_cell(figure, data[figure.group]) for figure in entry.figures]
    return FigureReport(entry.name, tuple(cells), tuple(notes))


def _group(
    entry: CatalogEntry,
    group: str,
    grading: Grading | None,
    vertebrae: pd.DataFrame | None,
    patients: dict[str, PatientRow],
) -> _Data:
    expected = [series for series in entry.expected if group in {"all", series.split}]
    rows = None
    if grading is not None:
        own = (graded.row for graded in grading.rows)
        rows = tuple(row for row in own if group in {"all", row.split})
    part, missing = None, [series.scan_id for series in expected]
    if vertebrae is not None:
        part = vertebrae[vertebrae["has_centroid"].fillna(value=False).astype(bool)]
        part = part if group == "all" else part[part["split"] == group]
        here = set(part["scan_id"])
        missing = [scan_id for scan_id in missing if scan_id not in here]
    return _Data(rows, part, patients, missing)


def _cell(figure: PublishedFigure, data: _Data) -> FigureCell:
    try:
        value = _COMPUTE[figure.figure](data)
    except _Missing as missing:
        found, verdict, needs = None, "needs", str(missing)
    except KeyError:
        found, verdict, needs = None, "needs", f"a rule for {figure.figure} in this version"
    else:
        found, needs = _as_printed(value, figure.expected), ""
        verdict = "agrees" if found == figure.expected else "differs"
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


def _marks(data: _Data, *wanted: object) -> float:
    return sum(mark in wanted for row in data.series() for mark in row.grades.values())


def _mean(field: str) -> Callable[[_Data], float]:
    return lambda data: statistics.fmean(_values(data, field))


def _sd(field: str) -> Callable[[_Data], float]:
    """Return the sample standard deviation (n - 1), which is what the paper prints."""
    return lambda data: statistics.stdev(_values(data, field))


def _values(data: _Data, field: str) -> list[float]:
    values = [float(getattr(row, field)) for row in data.persons()]
    if len(values) < 2:
        raise _Missing("at least two patients in this column")
    return values


def _region(name: str) -> Callable[[_Data], float]:
    def count(data: _Data) -> float:
        if data.vertebrae is None or data.without_points:
            raise _Missing(
                f"the centroid files of {len(data.without_points)} scans: "
                f"verse-data get RELEASE --role centroids"
            )
        return int((data.vertebrae["region"] == name).sum())

    return count


def _device(code: int) -> Callable[[_Data], float]:
    return lambda data: sum(row.ct_device == code for row in data.persons())


def _contrast(phase: str) -> Callable[[_Data], float]:
    return lambda data: data.told("contrast").count(phase)


_COMPUTE: Final[dict[str, Callable[[_Data], float]]] = {
    "scans": lambda data: len(data.series()),
    "patients": lambda data: len(data.persons()),
    "women": lambda data: data.told("sex").count("F"),
    "vertebrae": lambda data: sum(row.n_vertebrae for row in data.series()),
    **{name: _region(name) for name in _REGIONS},
    "fractures": lambda data: _marks(data, 1, 2, 3),
    "grade_1": lambda data: _marks(data, 1),
    "grade_2": lambda data: _marks(data, 2),
    "grade_3": lambda data: _marks(data, 3),
    "foreign_material": lambda data: _marks(data, "x"),
    "age_mean": _mean("age_years"),
    "age_sd": _sd("age_years"),
    "bmd_mean": _mean("bmd_mg_cm3"),
    "bmd_sd": _sd("bmd_mg_cm3"),
    **{f"contrast_{phase}": _contrast(phase) for phase in ("none", "arterial", "portal_venous")},
    **{f"device_{code}": _device(code) for code in range(1, 6)},
}
"""How each figure of the catalog is recomputed."""
