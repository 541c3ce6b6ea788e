"""From the cells of the grading workbook to checked rows: every problem is found, then one error."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from verse_data.errors import ValidationFailed
from verse_data.records.base import rules_of
from verse_data.records.grading import GradingRow, row_problems
from verse_data.tables.findings import Problem, raise_problems
from verse_data.tables.grading_rows import across, read_cells
from verse_data.tables.workbook import read_sheet
from verse_data.tables.workbook_sheet import Sheet

_THEN: Final = "Mend these cells in the file, or get it again from its source, and read it again."


@dataclass(frozen=True)
class GradedRow:
    """A checked row, and where it stands."""

    row: GradingRow
    number: int


@dataclass(frozen=True)
class Grading:
    """The grading workbook, read and checked.

    Attributes
    ----------
    sheet : Sheet
        Where it came from.
    rows : tuple of GradedRow
        In the order of the file.
    """

    sheet: Sheet
    rows: tuple[GradedRow, ...]


def read_grading(
    path: Path, *, name: str | None = None, without_t12: Collection[str] = ()
) -> Grading:
    """Read and check the grading workbook at `path`: an .xlsx, or a CSV export of its sheet.

    Parameters
    ----------
    path : Path
        The file, whatever it is called.
    name : str, optional
        What errors call it.
    without_t12 : collection of str
        Series ids whose mask or centroids show a spine without T12, where a blank T12 between
        graded levels is right.

    Raises
    ------
    ValidationFailed
        For all broken rules at once: file, sheet, row, column, value, rule.
    SheetRefused
        If the file is hostile or beyond a limit.
    """
    return check_sheet(read_sheet(path, name=name), without_t12=without_t12)


def check_sheet(sheet: Sheet, *, without_t12: Collection[str] = ()) -> Grading:
    """Return the rows of a sheet that has been read; see :func:`read_grading`.

    Raises
    ------
    ValidationFailed
        For all broken rules at once.
    """
    grading, problems = examine(sheet, without_t12=without_t12)
    raise_problems(problems, what=sheet.file, then=_THEN)
    return _validated(grading)


def examine(sheet: Sheet, *, without_t12: Collection[str] = ()) -> tuple[Grading, list[Problem]]:
    """Return the rows of `sheet` whose cells are all good, and every broken rule, in row order.

    Rules between cells and between rows look at all good cells, those of rows with a bad one too.
    """
    problems: list[Problem] = []
    rows = [read_cells(sheet, row, problems) for row in sheet.rows]
    for taken in rows:
        excused = taken.row.series_id in without_t12
        for heading, rule in row_problems(taken.row, may_lack_t12=excused, bad=taken.bad):
            problems.append(taken.problem(sheet, heading, rule))
    problems += across(sheet, rows)
    if not sheet.rows:
        problems.append(
            Problem(file=sheet.file, sheet=sheet.sheet, rule="no row below the heading")
        )
    problems.sort(key=lambda problem: problem.row or 0)
    good = tuple(GradedRow(taken.row, taken.number) for taken in rows if not taken.bad)
    return Grading(sheet, good), problems


def _validated(grading: Grading) -> Grading:
    """Return the rows as strict records: the last gate, which nothing should fail to pass."""
    rows = []
    for graded in grading.rows:
        try:
            record = GradingRow.model_validate(dict(graded.row))
        except ValidationError as error:
            sheet = grading.sheet
            raise ValidationFailed(
                f"{sheet.file}, row {graded.number}: {rules_of(error)}."
            ) from error
        rows.append(GradedRow(record, graded.number))
    return Grading(grading.sheet, tuple(rows))
