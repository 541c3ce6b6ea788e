"""From the cells of the grading workbook to checked rows: every problem is found, then one error.

One strict parser a column says what may stand in its cell, and nothing is coerced.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from verse_data.problems import Problem, raise_problems
from verse_data.records.grading import SPLIT_OF_DATASET, GradingRow
from verse_data.records.names import Split
from verse_data.spine.levels import GRADED_LEVELS
from verse_data.tables.workbook import Cell, Sheet, SheetRow, read_sheet

_REMEDY: Final = "Mend these cells in the file, or get it again from its source, and read it again."
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,17})?")
_SERIES: Final = re.compile(r"([1-9]) of ([1-9])")
_COUNT: Final = re.compile(r'=COUNTIF\(\$?M\$?([0-9]+):\$?AD\$?\1,\s*"(x|>0)"\)')
_KINDS: Final = {
    "text": "is text",
    "boolean": "is a truth value",
    "formula": "is a formula",
    "error": "is an error value",
    "date": "is a date",
}
_SHARED: Final = (
    ("dataset", "split"),
    ("age_ct", "age_years"),
    ("BMD", "bmd_mg_cm3"),
    ("CT_device", "ct_device"),
    ("DXA T-value", "t_score"),
)
"""Values of the person, which all series of one subject repeat."""

Parse = Callable[[Cell | None], Any]
"""Returns the value of a cell, or raises `_Bad`."""


class _Bad(Exception):
    """A cell breaks the rule of its column; the text is the rule."""


@dataclass(frozen=True)
class GradedRow:
    """A row, its cells, and the headings of those that are bad in themselves and so say nothing."""

    row: GradingRow
    source: SheetRow
    bad: frozenset[str] = frozenset()

    @property
    def number(self) -> int:
        """Number of the row in the file."""
        return self.source.number


@dataclass(frozen=True)
class Grading:
    """The grading workbook, read and checked; rows in the order of the file."""

    sheet: Sheet
    rows: tuple[GradedRow, ...]


def read_grading(
    path: Path, *, name: str | None = None, without_t12: Collection[str] = ()
) -> Grading:
    """Read and check the grading workbook at `path`: an .xlsx, or a CSV export of its sheet.

    Errors call it `name`. Series in `without_t12` may have a blank T12 between graded levels, as
    their mask or centroids show a spine without one.
    """
    return check_sheet(read_sheet(path, name=name), without_t12=without_t12)


def check_sheet(sheet: Sheet, *, without_t12: Collection[str] = ()) -> Grading:
    """Return the rows of a sheet, or raise ValidationFailed for all broken rules at once."""
    grading, problems = examine(sheet, without_t12=without_t12)
    raise_problems(problems, what=sheet.file, then=_REMEDY)
    rows = (replace(g, row=GradingRow.model_validate(dict(g.row))) for g in grading.rows)
    return Grading(sheet, tuple(rows))


def examine(sheet: Sheet, *, without_t12: Collection[str] = ()) -> tuple[Grading, list[Problem]]:
    """Return the rows of `sheet` whose cells are all good, and every broken rule, in row order.

    Rules between cells and between rows look at all good cells, those of rows with a bad one too.
    """
    problems: list[Problem] = []
    rows = [read_cells(sheet, source, problems) for source in sheet.rows]
    for graded in rows:
        excused = graded.row.series_id in without_t12
        for heading, rule in graded.row.broken_rules(may_lack_t12=excused, bad=graded.bad):
            problems.append(_problem(sheet, graded.source, heading, rule))
    for graded, heading, rule in _between_rows(rows):
        problems.append(_problem(sheet, graded.source, heading, rule))
    if not rows:
        rule = "no row below the heading"
        problems.append(Problem(file=sheet.file, sheet=sheet.sheet, rule=rule))
    problems.sort(key=lambda problem: problem.row or 0)
    return Grading(sheet, tuple(graded for graded in rows if not graded.bad)), problems


def _problem(sheet: Sheet, row: SheetRow, heading: str, rule: str) -> Problem:
    cell = row.cells.get(heading)
    return Problem(
        file=sheet.file,
        sheet=sheet.sheet,
        row=row.number,
        column=sheet.column(heading),
        value=cell.value if cell else None,
        rule=rule,
    )


def read_cells(sheet: Sheet, source: SheetRow, problems: list[Problem]) -> GradedRow:
    """Return what the good cells of a row say, each for itself, and note each bad one."""
    bad: set[str] = set()

    def take(heading: str, parse: Parse) -> Any:
        cell = source.cells.get(heading)
        if cell is None and heading in sheet.blank:
            return None
        value, rule = None, ""
        try:
            value = parse(cell)
        except _Bad as broken:
            rule = str(broken)
        formula = _COUNT.fullmatch(cell.value) if cell and cell.kind == "formula" else None
        if formula and int(formula[1]) != source.number:
            rule = rule or f"counts the grades of row {int(formula[1])}, not of its own"
        if rule:
            bad.add(heading)
            problems.append(_problem(sheet, source, heading, rule))
        return value

    number, count = take("CT_image_series", _k_of_n) or (None, None)
    values = {field: take(heading, parse) for field, heading, parse in FIELDS}
    values |= {"series_number": number, "series_count": count}
    for field, letter in (("grades", "g"), ("shapes", "s")):
        marks = {level: take(f"{level}_fx-{letter}", _mark) for level in GRADED_LEVELS}
        values[field] = {level: mark for level, mark in marks.items() if mark is not None}
    # Not validated yet: the rules between cells are looked at where their places are known.
    return GradedRow(GradingRow.model_construct(**values), source, frozenset(bad))


_Seen = Iterator[tuple[GradedRow, str, str]]
"""Row, heading and broken rule."""


def _between_rows(rows: Sequence[GradedRow]) -> _Seen:
    """Yield what does not fit between rows: doubles, and persons who differ from themselves."""
    first: dict[str, GradedRow] = {}
    persons: dict[str, list[GradedRow]] = defaultdict(list)
    for graded in rows:
        if "verse_ID" not in graded.bad:
            known = first.setdefault(graded.row.series_id, graded)
            if known is not graded:
                yield graded, "verse_ID", f"row {known.number} has this series already"
                # A row that was copied whole is one mistake, not several.
                if _part(known) == _part(graded):
                    continue
        if "subject_ID" not in graded.bad:
            persons[graded.row.subject_id].append(graded)
    strays = sum("subject_ID" in graded.bad for graded in rows)
    for subject, own in persons.items():
        for heading, field in _SHARED:
            good = [graded for graded in own if heading not in graded.bad]
            for graded in good[1:]:
                head = getattr(good[0].row, field)
                if getattr(graded.row, field) != head:
                    rule = f"row {good[0].number} says {head!r} for the same subject {subject}"
                    yield graded, heading, rule
        yield from _counted(subject, own, strays)


def _part(graded: GradedRow) -> tuple[int, int]:
    return graded.row.series_number, graded.row.series_count


def _counted(subject: str, own: list[GradedRow], strays: int) -> _Seen:
    """Yield what is wrong with a subject's 'k of n'; `strays` rows are of unknown persons."""
    seen: dict[int, int] = {}
    for graded in own:
        if "CT_image_series" in graded.bad:
            continue
        number, count = _part(graded)
        if not len(own) <= count <= len(own) + strays:
            rule = f"subject {subject} has {len(own)} {'row' if len(own) == 1 else 'rows'}"
            yield graded, "CT_image_series", rule
        elif number in seen:
            rule = f"row {seen[number]} says so of subject {subject} already"
            yield graded, "CT_image_series", rule
        seen[number] = graded.number


def _number(low: float, high: float, *, whole: bool = False) -> Parse:
    """Parse a number from `low` to `high`; a CSV field must be a plain decimal number."""

    def parse(cell: Cell | None) -> float:
        if cell is None:
            raise _Bad("the cell is empty, and a number is needed")
        if cell.kind != "number" and not (cell.kind == "raw" and _NUMBER.fullmatch(cell.value)):
            raise _Bad(f"{_KINDS.get(cell.kind, 'is not a plain number')} where a number is needed")
        value = float(cell.value)
        if whole and (value != int(value) or str(value) == "-0.0"):
            raise _Bad("is not a whole number")
        if not low <= value <= high:
            raise _Bad(f"is not {'one of' if whole else 'within'} {low:g} to {high:g}")
        return int(value) if whole else value

    return parse


def _identifier(cell: Cell | None) -> str:
    return f"verse{_number(1, 999, whole=True)(cell):03d}"


def _text(cell: Cell | None) -> str:
    if cell is None or cell.kind not in {"text", "raw"}:
        raise _Bad("a text is needed")
    return str(cell.value)


def _split(cell: Cell | None) -> Split:
    word = _text(cell)
    if word not in SPLIT_OF_DATASET:
        raise _Bad(f"is not one of {', '.join(map(repr, SPLIT_OF_DATASET))}")
    return SPLIT_OF_DATASET[word]


def _k_of_n(cell: Cell | None) -> tuple[int, int]:
    match = _SERIES.fullmatch(_text(cell))
    if match is None:
        raise _Bad("is not of the form '1 of 2'")
    return int(match[1]), int(match[2])


def _t_score(cell: Cell | None) -> Any:
    if cell and cell.kind in {"text", "raw"} and cell.value == "n/a":
        return None
    try:
        return _number(-10, 10)(cell)
    except _Bad as bad:
        raise _Bad(f"{bad}; or write n/a") from None


def _count(what: str) -> Parse:
    """Parse a count: the workbook's own formula, which is recomputed, or a number, or nothing."""

    def parse(cell: Cell | None) -> Any:
        if cell is None:
            return None
        if cell.kind in {"formula", "raw"} and (match := _COUNT.fullmatch(cell.value)):
            if match[2] == what:
                return None
            raise _Bad(f"counts {match[2]!r} where {what!r} is to be counted")
        if cell.kind == "formula":
            raise _Bad("is a formula other than the workbook's own COUNTIF")
        return _number(0, 18, whole=True)(cell)

    return parse


def _mark(cell: Cell | None) -> Any:
    """Return the grade or shape code in a cell, ``"x"``, or None for not assessed."""
    if cell is None:
        return None
    if cell.kind in {"text", "raw"} and cell.value == "x":
        return "x"
    rule = "only 0, 1, 2, 3, x or an empty cell may stand here"
    try:
        return _number(0, 3, whole=True)(cell)
    except _Bad as bad:
        plain = cell.kind in {"number", "text", "raw"}
        raise _Bad(rule if plain else f"{bad}; {rule}") from None


FIELDS: Final[tuple[tuple[str, str, Parse], ...]] = (
    ("series_id", "verse_ID", _identifier),
    ("subject_id", "subject_ID", _identifier),
    ("split", "dataset", _split),
    ("age_years", "age_ct", _number(0.5, 120)),
    ("ct_device", "CT_device", _number(1, 5, whole=True)),
    ("resolution_mm", "Res", _number(0.1, 10)),
    ("bmd_mg_cm3", "BMD", _number(0, 600)),
    ("t_score", "DXA T-value", _t_score),
    ("n_vertebrae", "N_vertebrae", _number(1, 26, whole=True)),
    ("foreign_material", "foreign_material", _count("x")),
    ("n_fractures", "N_Fx", _count(">0")),
)
"""Field of the record, heading of the column, and what may stand there."""
