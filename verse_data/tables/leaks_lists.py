"""Read one side of a split from a list: an entry on each line, or a column of a CSV file."""

from __future__ import annotations

import csv
import io
import re
from typing import Final

from verse_data.errors import ValidationFailed

HEADINGS: Final = (
    *("scan_id", "scan", "series_id", "series", "subject_id", "subject", "participant_id"),
    *("patient_id", "patient", "verse_id", "verse", "image", "images", "img", "ct"),
    *("image_path", "path", "file_path", "filepath", "file_name", "filename", "file", "files"),
    *("case_id", "case", "name", "id", "ids"),
)
"""Headings of the column that holds the entries, the first that is there; in small letters."""

_INDEX: Final = re.compile(r"(unnamed: ?[0-9]+)?")


def read_list(data: bytes, *, name: str) -> list[str]:
    """Return the entries of a list.

    Parameters
    ----------
    data : bytes
        UTF-8 text, with or without a byte order mark. Empty lines and those with ``#`` in front
        are left out. Columns are divided by comma, semicolon or tab. Where the first line is a
        heading, the entries are in the column of :data:`HEADINGS`; otherwise in the first column.
    name : str
        What the errors call the file.

    Raises
    ------
    ValidationFailed
        If it is no such text, or it cannot be told which column holds the entries.
    """
    rows = _rows(data, name)
    if not rows:
        return []
    first = [cell.lower() for cell in rows[0]]
    column = next((first.index(heading) for heading in HEADINGS if heading in first), None)
    if column is not None:
        return [row[column] if column < len(row) else "" for row in rows[1:]]
    if len(first) > 1 and (_INDEX.fullmatch(first[0]) or not re.search(r"[0-9]", "".join(first))):
        raise ValidationFailed(_unclear(name, rows[0]))
    entries = [row[0] for row in rows]
    if len(first) > 1 and len(rows) > 1 and entries == [str(place) for place in range(len(rows))]:
        message = (
            f"{name}: its first column counts 0, 1, 2 and so on: row numbers, not patients. "
            f"Write it without them (in pandas, to_csv(index=False)), or with a heading such as scan_id."
        )
        raise ValidationFailed(message)
    return entries


def _rows(data: bytes, name: str) -> list[list[str]]:
    """Return the cells of each line that holds something."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationFailed(f"{name}: not UTF-8 text with an entry on each line.") from None
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    mark = next((mark for mark in "\t;" if lines and mark in lines[0]), ",")
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=mark))
    except csv.Error as error:
        raise ValidationFailed(f"{name}: not a list or CSV file: {error}.") from None
    return [[cell.strip() for cell in row] for row in rows]


def _unclear(name: str, heading: list[str]) -> str:
    shown = ", ".join(repr(cell[:40]) for cell in heading[:20])
    return (
        f"{name}: none of its headings ({shown}) says which column holds the scans or patients. "
        f"Name that column scan_id, subject_id, verse_ID or image; a column of row numbers is best "
        f"left out (in pandas, to_csv(index=False))."
    )
