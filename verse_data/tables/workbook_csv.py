"""Reads a CSV export of the grading sheet: texts alone, nothing guessed, nothing shifted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final

from verse_data.errors import SheetRefused, ValidationFailed
from verse_data.records.grading import COLUMNS
from verse_data.tables.findings import Problem, raise_problems
from verse_data.tables.workbook_sheet import Cell, Sheet, SheetRow, check_headings, letters_of
from verse_data.tables.workbook_xml import MAX_COLUMN, MAX_ROW

_CSV_LIMIT: Final = 8 << 20
_BLANK: Final = frozenset({"DXA T-value"})
"""What the workbook says ``n/a`` in: pandas writes such a cell as an empty field."""


def read_csv(data: bytes, name: str) -> Sheet:
    """Return the sheet in the bytes of a CSV file, with the index column of a pandas export left out.

    Raises
    ------
    ValidationFailed
        If it is no such table; the line is named.
    SheetRefused
        If it is beyond a limit.
    """
    if len(data) > _CSV_LIMIT:
        raise SheetRefused(
            f"{name}: {len(data):,} bytes are over the limit of {_CSV_LIMIT:,} for a CSV file."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValidationFailed(
            f"{name}: not UTF-8: byte {error.start} is {data[error.start]:#04x}. Save it as CSV UTF-8."
        ) from None
    lines = list(_csv_lines(text, name))
    if not lines:
        raise ValidationFailed(f"{name}: the file is empty.")
    first, index = lines[0][1], 0
    _check_separator(first, name)
    ignored: tuple[str, ...] = ()
    if first[0] in {"", "Unnamed: 0"} and first[1:2] == [COLUMNS[0]]:
        index, ignored = 1, ("a nameless index column",)
    headings = dict(enumerate(first[index:], start=1 + index))
    check_headings(headings, file=name, sheet="")
    problems, rows = [], []
    for number, fields in lines[1:]:
        if len(fields) != len(first):
            problems.append(
                Problem(
                    file=name,
                    row=number,
                    rule=f"{len(fields)} fields where the heading has {len(first)}",
                )
            )
            continue
        cells = {
            headings[c]: Cell("raw", field)
            for c, field in enumerate(fields, start=1)
            if field != "" and c > index
        }
        if cells:
            rows.append(SheetRow(number, cells))
    raise_problems(problems, what=name, then="Export it again; a text with a comma needs quotes.")
    letters = {heading: letters_of(column) for column, heading in headings.items()}
    return Sheet(name, "", letters, tuple(rows), ignored, _BLANK)


def _check_separator(heading: list[str], name: str) -> None:
    """Raise if the heading is one field because another separator was used."""
    for sign, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(heading) == 1 and heading[0].count(sign) >= len(COLUMNS) - 1:
            raise ValidationFailed(
                f"{name}, row 1: fields are separated by {called} ({sign!r}). Export the sheet again "
                f"with commas between fields and points in numbers."
            )


def _csv_lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and fields of each record that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if reader.line_num > MAX_ROW or len(fields) > MAX_COLUMN:
                raise SheetRefused(
                    f"{name}: beyond the limits of {MAX_ROW:,} rows and {MAX_COLUMN} columns."
                )
            if any(fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValidationFailed(f"{name}: line {reader.line_num}: not CSV: {error}.") from None
