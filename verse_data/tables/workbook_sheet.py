"""A data sheet as typed cells, and the headings that it must have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from verse_data.records.grading import COLUMNS
from verse_data.tables.findings import Problem, raise_problems

Kind = Literal["number", "text", "boolean", "formula", "error", "date", "raw", "odd"]


@dataclass(frozen=True)
class Cell:
    """One filled cell.

    ``raw`` is the text of a CSV field, which has no type of its own, and ``odd`` what stands in a
    workbook and is not written as spreadsheets write it.
    """

    kind: Kind
    value: Any


@dataclass(frozen=True)
class SheetRow:
    """One row with anything in it: its number in the file, and its filled cells by heading."""

    number: int
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Sheet:
    """The data sheet of a workbook.

    Attributes
    ----------
    file, sheet : str
        Names for error texts; `sheet` is empty for a CSV file.
    letters : dict
        Column letter of each heading.
    rows : tuple of SheetRow
        Rows below the heading that hold anything.
    ignored : tuple of str
        What was skipped, such as the index column of a CSV export.
    blank : frozenset of str
        Headings whose text ``n/a`` the file shows as nothing: a CSV export by pandas.
    """

    file: str
    sheet: str
    letters: dict[str, str]
    rows: tuple[SheetRow, ...]
    ignored: tuple[str, ...] = ()
    blank: frozenset[str] = frozenset()

    def column(self, heading: str) -> str:
        """Return a heading with its column letter, as error texts show it."""
        return f"{self.letters.get(heading, '?')} ({heading})"


def check_headings(headings: dict[int, str], *, file: str, sheet: str) -> None:
    """Raise if the headings are not the 48 known ones, each once; their order is free."""
    problems, seen = [], dict[str, int]()
    for column, heading in headings.items():
        here = Problem(
            file=file, sheet=sheet, row=1, column=letters_of(column), value=heading, rule=""
        )
        if heading in seen:
            rule = f"stands in column {letters_of(seen[heading])} already"
            problems.append(replace(here, rule=rule))
        elif heading not in COLUMNS:
            problems.append(replace(here, rule="is no column of the grading table; take it out"))
        seen[heading] = column
    problems += [
        Problem(file=file, sheet=sheet, row=1, column=heading, rule="this column is missing")
        for heading in COLUMNS
        if heading not in seen
    ]
    raise_problems(
        problems,
        what=file,
        then="The 48 headings are those of supplement E1 of Löffler et al. 2020.",
    )


def letters_of(column: int) -> str:
    """Return the letters of a column number: 1 is A, 27 is AA."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters
