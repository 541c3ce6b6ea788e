"""Reads the grading workbook, an .xlsx in a limited child process or a CSV export, as typed cells."""

from __future__ import annotations

import codecs
import csv
import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from verse_data.errors import SheetRefused, ValidationFailed
from verse_data.problems import Problem, raise_problems
from verse_data.records.grading import COLUMNS, SHEET
from verse_data.records.source_file import SourceFile
from verse_data.tables.workbook_child import MAX_COLUMNS, MAX_ROWS

TIMEOUT_SECONDS: Final = 60.0
"""For a child that waits; one that works is ended by its own limit of 20 s of processor time."""
MAX_XLSX_BYTES, MAX_CSV_BYTES = 32 << 20, 8 << 20

_FIRST: Final = set(COLUMNS[:3])
"""Headings that tell the data sheet from others, when it was renamed."""
_KEPT: Final = ("SYSTEMROOT",)
"""All of the environment that the child sees: Python does not start on Windows without it."""
_REMEDY: Final = "Open it in a spreadsheet program, export the sheet as CSV, and use that."
_MEND: Final = "Mend these cells and read it again."
_BLANK: Final = frozenset({"DXA T-value"})
"""What the workbook says ``n/a`` in: pandas writes such a cell as an empty field."""
_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_CHILD: Final = Path(__file__).with_name("workbook_child.py")
_log = logging.getLogger("verse_data.tables.workbook")

Kind = Literal["number", "text", "boolean", "formula", "error", "date", "raw", "odd"]


class Cell(NamedTuple):
    """One filled cell; "raw" is a CSV field, "odd" what no spreadsheet writes, such as ``0_2``."""

    kind: Kind
    value: Any


class SheetRow(NamedTuple):
    """One row with anything in it: its number in the file, and its filled cells by heading."""

    number: int
    cells: dict[str, Cell]


class _Page(NamedTuple):
    """One sheet of a workbook as read: its cells by row and column number."""

    title: str
    merged: list[str]
    rows: dict[int, dict[int, Cell]]


@dataclass(frozen=True)
class Sheet:
    """The data sheet; `sheet` is empty for a CSV file, `blank` are headings whose ``n/a`` it leaves empty."""

    file: str
    sheet: str
    letters: dict[str, str]
    rows: tuple[SheetRow, ...]
    blank: frozenset[str] = frozenset()

    def column(self, heading: str) -> str:
        """Return a heading with its column letter, as error texts show it."""
        return f"{self.letters.get(heading, '?')} ({heading})"


def read_sheet(path: Path, *, name: str | None = None) -> Sheet:
    """Read the data sheet at `path`, an .xlsx or CSV export by content; errors call it `name`."""
    called = name or path.name
    _check_size(path.stat().st_size, MAX_XLSX_BYTES, name=called)
    return parse_sheet(path.read_bytes(), name=called)


def read_locked_sheet(file: SourceFile) -> Sheet:
    """Read the data sheet of a locked workbook, once its bytes are known to be the locked ones."""
    _check_size(file.size, MAX_XLSX_BYTES, name=file.name)
    return parse_sheet(file.read(), name=file.name)


def parse_sheet(data: bytes, *, name: str) -> Sheet:
    """Return the data sheet in the bytes of a workbook or CSV export.

    Raises SheetRefused beyond a limit, and ValidationFailed for what is no such table.
    """
    if data[:2] == b"PK":
        return _data_sheet(_pages(data, name), name)
    if name.lower().endswith(".csv") or _is_text(data[:4096]):
        return _read_csv(data, name)
    raise ValidationFailed(
        f"{name}: neither an .xlsx workbook nor a CSV file. Get it again from its source, or export the sheet as CSV."
    )


def _check_size(size: int, limit: int, *, name: str) -> None:
    if size > limit:
        raise SheetRefused(f"{name}: {size:,} bytes are over the limit of {limit:,}.")


def _is_text(head: bytes) -> bool:
    """Tell whether a file that starts with `head` is text; it may end within a letter."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text) and "\0" not in text


def _pages(data: bytes, name: str) -> list[_Page]:
    """Run the child on the bytes of a workbook and return its sheets."""
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
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
        )
    except subprocess.TimeoutExpired:
        raise SheetRefused(
            f"{name}: reading it took more than {TIMEOUT_SECONDS:.0f} s. {_REMEDY}"
        ) from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise SheetRefused(
            f"{name}: the process that read it ended with {done.returncode}: {last[0][:200]}. {_REMEDY}"
        )
    answer = json.loads(done.stdout)
    if "unreadable" in answer:
        raise ValidationFailed(
            f"{name}: not a readable .xlsx workbook ({answer['unreadable']}). Get it again from its "
            f"source, or export the sheet as CSV."
        )
    if "refused" in answer:
        raise SheetRefused(f"{name}: {answer['refused']}. {_REMEDY}")
    return [
        _Page(title, merged, {n: {c: Cell(k, v) for c, k, v in cells} for n, cells in rows})
        for title, merged, rows in answer["sheets"]
    ]


def _data_sheet(pages: list[_Page], name: str) -> Sheet:
    """Return the sheet with the gradings: the one of that name, or else of its headings."""
    chosen = [page for page in pages if page.title == SHEET] or [
        page for page in pages if set(_headings(page).values()) >= _FIRST
    ]
    listed = ", ".join(repr(page.title) for page in chosen or pages) or "none"
    if not chosen:
        raise ValidationFailed(
            f"{name}: no sheet {SHEET!r} with the gradings; its sheets are {listed}."
        )
    if len(chosen) > 1:
        raise ValidationFailed(
            f"{name}: {len(chosen)} sheets have the headings of the gradings: {listed}. "
            f"Keep the one that holds, or call it {SHEET!r}."
        )
    (page,) = chosen
    headings = _headings(page)
    letters = _checked_letters(headings, file=name, sheet=page.title)
    raise_problems([*_structure(page, headings, name)], what=name, then=_MEND)
    rows = tuple(
        SheetRow(number, {headings[column]: cell for column, cell in cells.items()})
        for number, cells in page.rows.items()
        if number > 1
    )
    return Sheet(name, page.title, letters, rows)


def _headings(page: _Page) -> dict[int, str]:
    return {
        column: cell.value if cell.kind == "text" else repr(cell.value)
        for column, cell in page.rows.get(1, {}).items()
    }


def _structure(page: _Page, headings: dict[int, str], name: str) -> Iterator[Problem]:
    """Yield each merge, and each filled cell without a heading, whose value may be a person's name."""
    for area in page.merged:
        first = area.partition(":")[0]
        letters = first.rstrip("0123456789")
        rule = f"merged cells at {area}: only the first of them has a value; take the merge apart"
        row = int(first.removeprefix(letters))
        yield Problem(file=name, sheet=page.title, row=row, column=letters, rule=rule)
    for row, cells in page.rows.items():
        for column in sorted(cells.keys() - headings.keys()):
            letters, rule = letters_of(column), "a cell beside the columns that have a heading"
            yield Problem(file=name, sheet=page.title, row=row, column=letters, rule=rule)


def _checked_letters(headings: dict[int, str], *, file: str, sheet: str) -> dict[str, str]:
    """Return the letters of each heading; raise unless they are the 48 known ones, in any order."""
    problems, letters = [], dict[str, str]()
    for column, heading in headings.items():
        here = Problem(
            file=file, sheet=sheet, row=1, column=letters_of(column), value=heading, rule=""
        )
        if heading in letters:
            problems.append(replace(here, rule=f"stands in column {letters[heading]} already"))
        elif heading not in COLUMNS:
            problems.append(replace(here, rule="is no column of the grading table; take it out"))
        letters[heading] = here.column
    problems += [
        Problem(file=file, sheet=sheet, row=1, column=heading, rule="this column is missing")
        for heading in COLUMNS
        if heading not in letters
    ]
    then = "The 48 headings are those of supplement E1 of Löffler et al. 2020."
    raise_problems(problems, what=file, then=then)
    return letters


def letters_of(column: int) -> str:
    """Return the letters of a column number: 1 is A, 27 is AA."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _read_csv(data: bytes, name: str) -> Sheet:
    """Return the sheet in a CSV file, without the index column of a pandas export."""
    _check_size(len(data), MAX_CSV_BYTES, name=name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValidationFailed(
            f"{name}: not UTF-8: byte {error.start} is {data[error.start]:#04x}. Save it as CSV UTF-8."
        ) from None
    (_, first), *lines = [*_csv_lines(text, name)] or [(1, [])]
    if not first:
        raise ValidationFailed(f"{name}: the file is empty.")
    for sign, called in _SEPARATORS.items():
        if len(first) == 1 and first[0].count(sign) >= len(COLUMNS) - 1:
            raise ValidationFailed(
                f"{name}, row 1: fields are separated by {called} ({sign!r}). Export the sheet again "
                f"with commas between fields and points in numbers."
            )
    index = int(first[0] in {"", "Unnamed: 0"} and first[1:2] == [COLUMNS[0]])
    letters = _checked_letters(dict(enumerate(first[index:], start=1 + index)), file=name, sheet="")
    problems, rows = [], []
    for number, fields in lines:
        if len(fields) != len(first):
            rule = f"{len(fields)} fields where the heading has {len(first)}"
            problems.append(Problem(file=name, row=number, rule=rule))
            continue
        pairs = list(zip(first, fields, strict=True))[index:]
        if cells := {heading: Cell("raw", field) for heading, field in pairs if field}:
            rows.append(SheetRow(number, cells))
    raise_problems(problems, what=name, then="Export it again; a text with a comma needs quotes.")
    return Sheet(name, "", letters, tuple(rows), _BLANK)


def _csv_lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and fields of each record that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if reader.line_num > MAX_ROWS or len(fields) > MAX_COLUMNS:
                raise SheetRefused(
                    f"{name}: beyond the limits of {MAX_ROWS:,} rows and {MAX_COLUMNS} columns."
                )
            if any(fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValidationFailed(f"{name}: line {reader.line_num}: not CSV: {error}.") from None
