"""The rows of the grading sheet: what their cells say, and whether the rows of one person agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from verse_data.records.grading import GradingRow
from verse_data.spine.levels import GRADED_LEVELS
from verse_data.tables import grading_cells as cells
from verse_data.tables.findings import Problem
from verse_data.tables.workbook_sheet import Sheet, SheetRow

_SHARED: Final = (
    ("dataset", "split"),
    ("age_ct", "age_years"),
    ("BMD", "bmd_mg_cm3"),
    ("CT_device", "ct_device"),
    ("DXA T-value", "t_score"),
)
"""Values of the person, which all series of one subject repeat."""


@dataclass(frozen=True)
class TakenRow:
    """A row whose cells were read, each for itself.

    Attributes
    ----------
    row : GradingRow
        Not yet validated; what a bad cell would have said is missing.
    bad : frozenset of str
        Headings of the cells that are bad in themselves.
    source : SheetRow
        The cells.
    """

    row: GradingRow
    bad: frozenset[str]
    source: SheetRow

    @property
    def number(self) -> int:
        """Number of the row in the file."""
        return self.source.number

    def problem(self, sheet: Sheet, heading: str, rule: str) -> Problem:
        """Return a broken rule at one of the row's cells."""
        return _problem(sheet, self.source, heading, rule)


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


def read_cells(sheet: Sheet, row: SheetRow, problems: list[Problem]) -> TakenRow:
    """Return what the good cells of a row say, and note each bad one."""
    bad: set[str] = set()

    def take(heading: str, parse: cells.Parse) -> Any:
        cell = row.cells.get(heading)
        if cell is None and heading in sheet.blank:
            return None
        value, rule = None, ""
        try:
            value = parse(cell)
        except cells.Bad as broken:
            rule = str(broken)
        counted = cells.counted_row(cell)
        if counted not in {None, row.number}:
            rule = rule or f"counts the grades of row {counted}, not of its own"
        if rule:
            bad.add(heading)
            problems.append(_problem(sheet, row, heading, rule))
        return value

    number, count = take("CT_image_series", cells.k_of_n) or (None, None)
    values = {field: take(heading, parse) for field, heading, parse in cells.FIELDS}
    values |= {"series_number": number, "series_count": count}
    for field, letter in (("grades", "g"), ("shapes", "s")):
        marks = {level: take(f"{level}_fx-{letter}", cells.mark) for level in GRADED_LEVELS}
        values[field] = {level: mark for level, mark in marks.items() if mark is not None}
    # The rules between cells are looked at next, where their places are known.
    return TakenRow(GradingRow.model_construct(**values), frozenset(bad), row)


def across(sheet: Sheet, rows: Sequence[TakenRow]) -> Iterator[Problem]:
    """Yield what does not fit between rows: doubles, and persons who differ from themselves."""
    first: dict[str, TakenRow] = {}
    persons: dict[str, list[TakenRow]] = defaultdict(list)
    for taken in rows:
        if "verse_ID" not in taken.bad:
            known = first.setdefault(taken.row.series_id, taken)
            if known is not taken:
                rule = f"row {known.number} has this series already"
                yield taken.problem(sheet, "verse_ID", rule)
                # A row that was copied whole is one mistake, not several.
                if _part(known) == _part(taken):
                    continue
        if "subject_ID" not in taken.bad:
            persons[taken.row.subject_id].append(taken)
    strays = sum("subject_ID" in taken.bad for taken in rows)
    for subject, own in persons.items():
        for heading, field in _SHARED:
            yield from _agreed(sheet, subject, own, heading, field)
        yield from _counted(sheet, subject, own, strays)


def _part(taken: TakenRow) -> tuple[int, int]:
    return taken.row.series_number, taken.row.series_count


def _agreed(
    sheet: Sheet, subject: str, own: list[TakenRow], heading: str, field: str
) -> Iterator[Problem]:
    """Yield each row whose value is not that of the person's first row with a good one."""
    good = [taken for taken in own if heading not in taken.bad]
    for taken in good[1:]:
        head = getattr(good[0].row, field)
        if getattr(taken.row, field) != head:
            rule = f"row {good[0].number} says {head!r} for the same subject {subject}"
            yield taken.problem(sheet, heading, rule)


def _counted(sheet: Sheet, subject: str, own: list[TakenRow], strays: int) -> Iterator[Problem]:
    """Yield what is wrong with the 'k of n' of one subject's rows; `strays` rows are of unknown persons."""
    seen: dict[int, int] = {}
    for taken in own:
        if "CT_image_series" in taken.bad:
            continue
        number, count = _part(taken)
        rule = ""
        if not len(own) <= count <= len(own) + strays:
            rule = f"subject {subject} has {len(own)} {'row' if len(own) == 1 else 'rows'}"
        elif number in seen:
            rule = f"row {seen[number]} says so of subject {subject} already"
        seen[number] = taken.number
        if rule:
            yield taken.problem(sheet, "CT_image_series", rule)
