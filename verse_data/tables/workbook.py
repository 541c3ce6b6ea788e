"""Reads the grading workbook, an .xlsx in a limited child process or a CSV export, as plain values."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from verse_data.errors import SheetRefused, ValidationFailed
from verse_data.problems import Problem, raise_problems
from verse_data.records.source_file import SourceFile
from verse_data.records.tables import COLUMNS, SHEET
from verse_data.tables.workbook_child import MAX_COLUMNS, MAX_ROWS

TIMEOUT_SECONDS: Final = 60.0
"""Wall time of the child, in case it hangs; its own limit is 20 s of processor time."""
MAX_XLSX_BYTES, MAX_CSV_BYTES = 32 << 20, 8 << 20

_ENVIRONMENT: Final = ("SYSTEMROOT",)
"""The environment of the child: Python does not start on Windows without this variable."""
_REMEDY: Final = (
    "Get it again from its source; or open it in a spreadsheet program and export the sheet as CSV."
)
_CORRECT: Final = (
    "Correct these cells and read it again. The 48 headings are those of supplement E1 of "
    "Löffler et al. 2020."
)
_BLANK: Final = frozenset({"DXA T-value"})
"""Columns in which the workbook has ``n/a``, which pandas writes as an empty field."""
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,17})?")
"""A number of a CSV file; anything else, also with a plus sign, blank or exponent, is text."""
_CHILD: Final = Path(__file__).with_name("workbook_child.py")
_log = logging.getLogger(__name__)

Value = int | float | bool | str
"""Value of a cell: whole numbers are int; formulas, dates and error values are text."""
_Cells = dict[int, dict[int, Value]]
"""Filled cells by row and column number."""


class SheetRow(NamedTuple):
    """One row that is not empty: its number in the file, and its filled cells by heading."""

    number: int
    cells: dict[str, Value]


@dataclass(frozen=True)
class Sheet:
    """The data sheet. A CSV file has an empty `sheet`, and may leave `blank` columns empty."""

    file: str
    sheet: str
    letters: dict[str, str]
    rows: tuple[SheetRow, ...]
    blank: frozenset[str] = frozenset()

    def column(self, heading: str) -> str:
        """Return a heading with its column letter, for messages."""
        return f"{self.letters.get(heading, '?')} ({heading})"


def read_sheet(path: Path, *, name: str | None = None) -> Sheet:
    """Read the data sheet at `path`, an .xlsx or CSV export by content; `name` is for messages."""
    name = name or path.name
    _check_size(path.stat().st_size, MAX_XLSX_BYTES, name=name)
    return parse_sheet(path.read_bytes(), name=name)


def read_locked_sheet(file: SourceFile) -> Sheet:
    """Read the data sheet of a locked workbook, after checking its bytes against the lock."""
    _check_size(file.size, MAX_XLSX_BYTES, name=file.name)
    return parse_sheet(file.read(), name=file.name)


def parse_sheet(data: bytes, *, name: str) -> Sheet:
    """Return the data sheet in the bytes of a workbook or CSV export.

    Raises SheetRefused beyond a limit, and ValidationFailed if it is not such a table.
    """
    if data[:2] != b"PK":
        return _sheet("", [], _csv_cells(data, name), name)
    pages = [*_pages(data, name)]
    chosen = [page for page in pages if page[0] == SHEET] or [
        page for page in pages if {*COLUMNS[:3]} <= {*_headings(page[2]).values()}
    ]
    if len(chosen) != 1:
        listed = ", ".join(repr(title) for title, *_ in chosen or pages) or "none"
        raise ValidationFailed(
            f"{name}: {len(chosen) or 'no'} sheets have the headings of the gradings; its sheets are "
            f"{listed}. Keep the valid one, and call it {SHEET!r}."
        )
    return _sheet(*chosen[0], name)


def _check_size(size: int, limit: int, *, name: str) -> None:
    if size > limit:
        raise SheetRefused(f"{name}: {size:,} bytes are over the limit of {limit:,}.")


def _pages(data: bytes, name: str) -> Iterator[tuple[str, list[str], _Cells]]:
    """Run the child on the bytes of a workbook and yield title, merged areas and cells of its sheets."""
    specs = [importlib.util.find_spec(name) for name in ("openpyxl", "et_xmlfile", "defusedxml")]
    # The child finds its three packages in these folders, and looks nowhere else.
    folders = sorted({str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin})
    _log.debug("%s: starting the process that reads it (%d bytes)", name, len(data))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_CHILD), *folders],
            check=False,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            input=data,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
    except subprocess.TimeoutExpired:
        raise SheetRefused(
            f"{name}: reading it took more than {TIMEOUT_SECONDS:.0f} s. {_REMEDY}"
        ) from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        answer: dict[str, Any] = {
            "refused": f"its reader ended with {done.returncode}: {last[0][:200]}"
        }
    else:
        answer = json.loads(done.stdout)
    if "unreadable" in answer:
        raise ValidationFailed(
            f"{name}: not a readable workbook ({answer['unreadable']}). {_REMEDY}"
        )
    if "refused" in answer:
        raise SheetRefused(f"{name}: {answer['refused']}. {_REMEDY}")
    for title, merged, rows in answer["sheets"]:
        cells = {row: {column: _whole(value) for column, value in filled} for row, filled in rows}
        yield title, merged, cells


def _whole(value: Value) -> Value:
    is_whole = isinstance(value, float) and value.is_integer() and str(value) != "-0.0"
    return int(value) if is_whole else value


def _headings(cells: _Cells) -> dict[int, str]:
    return {column: str(value) for column, value in cells.get(1, {}).items()}


def _sheet(title: str, merged: list[str], cells: _Cells, name: str) -> Sheet:
    """Return the sheet of these cells, or raise unless it has the 48 headings, in any order."""
    headings, letters = _headings(cells), dict[str, str]()
    problem, problems = partial(Problem, file=name, sheet=title), list[Problem]()
    for column, heading in headings.items():
        here = letters_of(column)
        if heading in letters:
            rule = f"is already in column {letters[heading]}"
            problems.append(problem(row=1, column=here, value=heading, rule=rule))
        elif heading not in COLUMNS:
            rule = "is not a column of the grading table; remove it"
            problems.append(problem(row=1, column=here, value=heading, rule=rule))
        letters[heading] = here
    absent = [heading for heading in COLUMNS if heading not in letters]
    problems += [problem(row=1, column=heading, rule="is missing") for heading in absent]
    only_first = "merged cells: only the first of them has a value; unmerge them"
    problems += [problem(column=area, rule=only_first) for area in merged]
    # The value of a cell without a heading may be a person's name, and is not repeated.
    problems += [
        problem(row=row, column=letters_of(column), rule="a cell in a column without a heading")
        for row, filled in cells.items()
        for column in sorted(filled.keys() - headings.keys())
    ]
    raise_problems(problems, what=name, then=_CORRECT)
    rows = (
        SheetRow(row, {headings[column]: value for column, value in filled.items()})
        for row, filled in cells.items()
        if row > 1
    )
    return Sheet(name, title, letters, tuple(rows), frozenset() if title else _BLANK)


def letters_of(column: int) -> str:
    """Return the letters of a column number: 1 is A, 27 is AA."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _csv_cells(data: bytes, name: str) -> _Cells:
    """Return the cells of a CSV file, without the index column of a pandas export; row 1 is the heading."""
    _check_size(len(data), MAX_CSV_BYTES, name=name)
    if data.count(b"\n") + data.count(b"\r") > 2 * MAX_ROWS:
        raise SheetRefused(f"{name}: beyond the limit of {MAX_ROWS:,} rows.")
    try:
        text = data.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, fields) for fields in reader if any(fields)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValidationFailed(
            f"{name}: neither an .xlsx workbook nor a CSV file in UTF-8: {error}. Get it again from its "
            f"source, or export the sheet as CSV UTF-8."
        ) from None
    if any(len(fields) > MAX_COLUMNS for _, fields in lines):
        raise SheetRefused(f"{name}: beyond the limit of {MAX_COLUMNS} columns.")
    first = lines[0][1] if lines else []
    if len(first) < 2:
        raise ValidationFailed(
            f"{name}, row 1: there is no comma between fields, or the file is empty. Export the "
            f"sheet again with commas between fields and decimal points in numbers."
        )
    uneven = [
        Problem(file=name, row=row, rule=f"{len(fields)} fields where the heading has {len(first)}")
        for row, fields in lines
        if len(fields) != len(first)
    ]
    raise_problems(uneven, what=name, then="Export it again; a text with a comma needs quotes.")
    index = int(first[0] in {"", "Unnamed: 0"} and first[1] == COLUMNS[0])
    return {
        row if place else 1: {
            column: _whole(float(field)) if _NUMBER.fullmatch(field) else field
            for column, field in enumerate(fields[index:], start=1 + index)
            if field
        }
        for place, (row, fields) in enumerate(lines)
    }
