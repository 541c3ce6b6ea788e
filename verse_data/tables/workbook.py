"""Reads the grading workbook (.xlsx in a limited child process, or CSV), or a CSV list of grades."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from verse_data.errors import (
    FILE_FAULTS,
    SheetRefused,
    ToolMissing,
    ValidationFailed,
    VerseDataError,
)
from verse_data.problems import Problem, raise_problems
from verse_data.records.base import read_csv
from verse_data.records.names import is_called_grading
from verse_data.records.source_file import SourceFile
from verse_data.records.tables import COLUMNS, LIST_COLUMNS, SHEET
from verse_data.tables.workbook_child import MAX_COLUMNS, MAX_ROWS

TIMEOUT_SECONDS: Final = 60.0
"""Wall time of the child, in case it hangs; its own limit is 3 s of processor time."""
MAX_XLSX_BYTES, MAX_CSV_BYTES = 32 << 20, 8 << 20

_ENVIRONMENT: Final = re.compile(r"(LD|DYLD|NIX)_.*|LIBPATH|PATH|PYTHONHOME|SYSTEMROOT")
"""What the loader, and Python itself, may need to start the child; it gets nothing else."""
_REMEDY: Final = (
    "Get it again from its source; or open it in a spreadsheet program and export the sheet as CSV."
)
_CORRECT: Final = (
    "Correct these cells and read it again. The 48 headings are those of supplement E1 of "
    "Löffler et al. 2020."
)
_LIST_NEEDS: Final = frozenset(LIST_COLUMNS[:3])
_BLANK: Final = frozenset({"DXA T-value"})
"""Columns in which the workbook has ``n/a``, which pandas writes as an empty field."""
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,17})?")
"""A number of a CSV file; anything else, also with a plus sign, blank or exponent, is text."""
_SAVE_AS: Final = "Open it in a spreadsheet program and save it as .xlsx, or as CSV UTF-8."
_OTHER_FORMS: Final = (
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an old Excel file (.xls), or one with a password"),
    (re.compile(rb"PK[\s\S]{0,99}vnd\.oasis\.opendocument"), "an OpenDocument file (.ods)"),
)
_FITS: Final = len(COLUMNS) // 2
"""So many headings of the grading table make a table one, if perhaps a wrong one."""
_CHILD: Final = Path(__file__).with_name("workbook_child.py")
_log = logging.getLogger(__name__)

Value = int | float | bool | str
"""Value of a cell: whole numbers are int; formulas, dates and error values are text."""
_Cells = dict[int, dict[int, Value]]
"""Filled cells by row and column number."""
_Found = dict[str, "Sheet | VerseDataError"]
"""The sheet, or what is wrong, by the path of the file."""


class SheetRow(NamedTuple):
    """One row that is not empty: its number in the file, and its filled cells by heading."""

    number: int
    cells: dict[str, Value]


@dataclass(frozen=True)
class Sheet:
    """The data sheet. A CSV file has an empty `sheet`, and may leave `blank` columns empty.

    A list of grades has a row for each vertebra, and the workbook one for each series.
    """

    file: str
    sheet: str
    letters: dict[str, str]
    rows: tuple[SheetRow, ...]
    blank: frozenset[str] = frozenset()

    @property
    def is_list(self) -> bool:
        """Whether this is a list of grades."""
        return LIST_COLUMNS[0] in self.letters

    def column(self, heading: str) -> str:
        """Return a heading with its column letter, for messages."""
        return f"{self.letters.get(heading, '?')} ({heading})"


class _Other(Exception):
    """Carries the error of a table that is not the grading workbook."""


def read_sheet(path: Path, *, name: str | None = None) -> Sheet:
    """Read the data sheet at `path`, an .xlsx or CSV export by content; `name` is for messages."""
    return _only(path.stat().st_size, path.read_bytes, name or path.name)


def read_locked_sheet(file: SourceFile) -> Sheet:
    """Read the data sheet of a locked workbook, after checking its bytes against the lock."""
    return _only(file.size, file.read, file.name)


def _only(size: int, read: Callable[[], bytes], name: str) -> Sheet:
    """Return the sheet of a table that was named, so that any other table is an error."""
    try:
        return _read(size, read, name)
    except _Other as other:
        raise other.args[0] from None


def sort_tables(files: Iterable[SourceFile]) -> tuple[_Found, _Found]:
    """Return the sheet of each grading workbook, or what is wrong with it, and why others are none.

    Of workbooks with one content, the first counts.
    """
    files = [*files]
    firsts = {file.sha256: file.name for file in reversed(files)}.values()
    fitting, others = _Found(), _Found()
    for file in files:
        try:
            fitting[file.name] = _read(file.size, file.read, file.name)
        except _Other as other:
            others[file.name] = other.args[0]
        except FILE_FAULTS as error:
            fitting[file.name] = error
    return {name: found for name, found in fitting.items() if name in firsts}, others


def choose_sheet(fitting: _Found) -> Sheet | None:
    """Return the one sheet of a release, or None; raise if there are several, or it is wrong."""
    if len(fitting) > 1:
        raise ValidationFailed(
            f"The release has {len(fitting)} different grading workbooks: {', '.join(sorted(fitting))}. "
            f"Keep the valid one, and lock again."
        )
    found = next(iter(fitting.values()), None)
    if isinstance(found, VerseDataError):
        raise found
    return found


def _unread(error: VerseDataError, name: str) -> Exception:
    """Return what a table that cannot be read raises: its name decides whether it is the workbook."""
    is_one = is_called_grading(name) and name.lower().endswith((".xlsx", ".xlsm", ".xls"))
    return error if is_one else _Other(error)


def _read(size: int, read: Callable[[], bytes], name: str) -> Sheet:
    """Return the sheet of gradings; raise _Other if there is none, and our errors if it is wrong."""
    _check_size(size, MAX_XLSX_BYTES, name)
    data = read()
    is_lost = is_called_grading(name) and name.lower().endswith(".xlsx")
    if is_lost and not data:
        raise ValidationFailed(f"{name}: the file is empty. Get it again from its source.")
    if form := next((form for start, form in _OTHER_FORMS if start.match(data)), None):
        error = ValidationFailed(f"{name}: {form}, which is not read. {_SAVE_AS}")
        raise error if is_lost else _Other(error)
    if data[:2] == b"PK":
        return _sheet(*_page(data, name), name)
    end = data.find(b"\n", len(data.rstrip(b"\r\n,")))
    data = data if end < 0 else data[: end + 1]  # lines without content do not count
    _check_size(len(data), MAX_CSV_BYTES, name)
    # Without zeros, the headings are found in UTF-16 too, which is then told.
    text = data[:8192].replace(b"\0", b"")
    if sum(heading.encode() in text for heading in COLUMNS) >= _FITS:
        return _sheet("", [], _csv_cells(data, name), name)
    why = "neither an .xlsx workbook nor a CSV file with the headings of the gradings"
    first = re.split(rb"[\r\n]", text, maxsplit=1)[0].decode(errors="replace")
    if {*re.findall(r"\w+", first)} >= _LIST_NEEDS:
        cells = _csv_cells(data, name)
        others = [head for head in _headings(cells).values() if head not in LIST_COLUMNS]
        if not others:
            return _sheet("", [], cells, name, LIST_COLUMNS)
        why = (
            f"a list of grades has the columns {', '.join(LIST_COLUMNS)}, and this has others: "
            f"{', '.join(others[:5])}. Remove them, as a release holds its files as they are"
        )
        raise _Other(ValidationFailed(f"{name}: {why}."))
    raise _Other(ValidationFailed(f"{name}: {why}. {_SAVE_AS}"))


def _page(data: bytes, name: str) -> tuple[str, list[str], _Cells]:
    """Return title, merged areas and cells of the data sheet of a workbook; raise as `_read` does."""
    try:
        answer = _answer(data)
    except subprocess.TimeoutExpired:
        answer = {"refused": f"reading it took more than {TIMEOUT_SECONDS:.0f} s"}
    if "refused" in answer:
        raise _unread(SheetRefused(f"{name}: {answer['refused']}. {_REMEDY}"), name)
    if "unreadable" in answer:
        why = f"not a readable workbook ({answer['unreadable']})"
        raise _unread(ValidationFailed(f"{name}: {why}. {_REMEDY}"), name)
    pages = [
        (title, merged, {row: {at: _whole(value) for at, value in filled} for row, filled in rows})
        for title, merged, rows in answer["sheets"]
    ]
    chosen = [page for page in pages if page[0] == SHEET] or [
        page for page in pages if len({*_headings(page[2]).values()}.intersection(COLUMNS)) >= _FITS
    ]
    if len(chosen) == 1:
        return chosen[0]
    listed = ", ".join(repr(title) for title, *_ in chosen or pages) or "none"
    then = "Keep the valid one, and call it" if chosen else "Gradings go into one that is called"
    error = ValidationFailed(
        f"{name}: {len(chosen) or 'no'} sheets have the headings of the gradings; its sheets are "
        f"{listed}. {then} {SHEET!r}."
    )
    raise error if chosen else _Other(error)


def _check_size(size: int, limit: int, name: str) -> None:
    if size > limit:
        why = f"{size:,} bytes are over the limit of {limit:,}"
        raise _unread(SheetRefused(f"{name}: {why}."), name)


@lru_cache(maxsize=4)  # whether a version has grades is asked again and again
def _answer(data: bytes) -> dict[str, Any]:
    """Run the child on the bytes of a workbook, and return what it answers."""
    specs = [importlib.util.find_spec(name) for name in ("openpyxl", "et_xmlfile", "defusedxml")]
    # The child finds its three packages in these folders, and looks nowhere else.
    folders = sorted({str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin})
    _log.debug("starting the process that reads a workbook of %d bytes", len(data))
    try:
        done = subprocess.run(
            # Not -I, which would ignore PYTHONHOME; no other variable of Python's gets there.
            [sys.executable, "-P", "-s", "-S", str(_CHILD), *folders],
            check=False,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            input=data,
            env={key: value for key, value in os.environ.items() if _ENVIRONMENT.fullmatch(key)},
        )
        code, said = done.returncode, done.stderr.decode(errors="replace").strip()[-300:]
    except OSError as error:
        code, said = 127, str(error)
    if code > 0:  # the child itself reports whatever is wrong with the workbook
        raise ToolMissing(
            f"The process that reads workbooks does not start; {sys.executable} ended with {code}: "
            f"{said or 'no message'}. See that this Python runs without the variables of your shell "
            f"other than PATH, LD_LIBRARY_PATH and PYTHONHOME; or give the workbook as CSV."
        )
    if code:
        return {"refused": f"reading it took too much time or memory (signal {-code})"}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _whole(value: Value) -> Value:
    is_whole = isinstance(value, float) and value.is_integer() and str(value) != "-0.0"
    return int(value) if is_whole else value


def _headings(cells: _Cells) -> dict[int, str]:
    return {column: str(value) for column, value in cells.get(1, {}).items()}


def _sheet(
    title: str, merged: list[str], cells: _Cells, name: str, columns: tuple[str, ...] = COLUMNS
) -> Sheet:
    """Return the sheet of these cells, or raise unless it has the headings `columns`, in any order.

    Of a list of grades, the caller has checked the headings, of which two may be missing.
    """
    cells = {
        row: filled for row, filled in cells.items() if "".join(map(str, filled.values())).strip()
    }
    headings, letters = _headings(cells), dict[str, str]()
    problem, problems = partial(Problem, file=name, sheet=title), list[Problem]()
    for column, heading in headings.items():
        here = letters_of(column)
        if heading in letters:
            rule = f"is already in column {letters[heading]}"
            problems.append(problem(row=1, column=here, value=heading, rule=rule))
        elif heading not in columns:
            rule = "is not a column of the grading table; remove it"
            problems.append(problem(row=1, column=here, value=heading, rule=rule))
        letters[heading] = here
    needed = COLUMNS if columns is COLUMNS else ()
    absent = [heading for heading in needed if heading not in letters]
    problems += [problem(row=1, column=heading, rule="is missing") for heading in absent]
    only_first = "merged cells: only the first of them has a value; unmerge them"
    problems += [problem(column=area, rule=only_first) for area in merged]
    # The value of a cell without a heading may be a person's name, and is not repeated.
    problems += [
        problem(row=row, column=letters_of(column), rule="a cell in a column without a heading")
        for row, filled in cells.items()
        for column in sorted(filled.keys() - headings.keys())
    ]
    then = _CORRECT if columns is COLUMNS else "Correct the file and read it again."
    raise_problems(problems, what=name, then=then)
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
    if data.count(b"\n") + data.count(b"\r") > 2 * MAX_ROWS:
        raise SheetRefused(f"{name}: beyond the limit of {MAX_ROWS:,} rows.")
    lines = read_csv(data, name=name)
    first = lines[0][1]
    if any(first[MAX_COLUMNS:]):
        raise SheetRefused(f"{name}: beyond the limit of {MAX_COLUMNS} columns.")
    index = int(first[0] in {"", "Unnamed: 0"} and first[1] in {COLUMNS[0], LIST_COLUMNS[0]})
    return {
        row if place else 1: {
            column: _whole(float(field)) if _NUMBER.fullmatch(field) else field
            for column, field in enumerate(fields[index:], start=1 + index)
            if field
        }
        for place, (row, fields) in enumerate(lines)
    }
