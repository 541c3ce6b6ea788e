"""Reads the grading workbook, an .xlsx in a limited child process or a CSV export, as typed cells."""

from __future__ import annotations

import codecs
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from verse_data.errors import SheetRefused, ValidationFailed
from verse_data.records.grading import COLUMNS, SHEET
from verse_data.records.source_file import SourceFile
from verse_data.tables.findings import Problem, raise_problems
from verse_data.tables.workbook_csv import read_csv
from verse_data.tables.workbook_guard import check_size, check_workbook
from verse_data.tables.workbook_sheet import Cell, Sheet, SheetRow, check_headings, letters_of
from verse_data.tables.workbook_xml import Marks

TIMEOUT_SECONDS: Final = 60.0
"""For a child that waits; one that works is ended by its own limit of 20 s of processor time."""
_FIRST: Final = set(COLUMNS[:3])
"""Headings that tell the data sheet from others, when it was renamed."""
_KEPT: Final = ("SYSTEMROOT",)
"""All of the environment that the child sees: Python does not start on Windows without it."""
_AGAIN: Final = "Open it in a spreadsheet program, export the sheet as CSV, and use that."
_AREA: Final = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")
_CHILD: Final = Path(__file__).with_name("workbook_child.py")


Rows = dict[int, dict[int, Cell]]
"""The cells of a sheet, by row and column number."""


@dataclass
class _Page:
    """One sheet as read: where it lies in the file, its cells, and the guard's marks."""

    title: str
    marks: Marks
    rows: Rows = field(default_factory=dict)


def read_sheet(path: Path, *, name: str | None = None) -> Sheet:
    """Read the data sheet of the workbook or CSV export at `path`.

    Parameters
    ----------
    path : Path
        The kind is told by content, whatever the name: an .xlsx is a zip, a CSV export is text.
    name : str, optional
        What errors call the file; its own name by default.

    Raises
    ------
    SheetRefused
        If the workbook is beyond a limit, or its reader died of it.
    ValidationFailed
        If it is no such table: no sheet, wrong or duplicate headings, merged cells.
    """
    called = name or path.name
    check_size(path.stat().st_size, name=called)
    return parse_sheet(path.read_bytes(), name=called)


def read_locked_sheet(file: SourceFile) -> Sheet:
    """Read the data sheet of a locked workbook, once its bytes are known to be the locked ones.

    Raises
    ------
    ContentCorrupt, ContentMissing
        If they are not.
    SheetRefused, ValidationFailed
        As :func:`read_sheet`.
    """
    check_size(file.size, name=file.name)
    return parse_sheet(file.read(), name=file.name)


def parse_sheet(data: bytes, *, name: str) -> Sheet:
    """Return the data sheet in the bytes of a workbook or CSV export; see :func:`read_sheet`."""
    if data[:2] == b"PK":
        marks = check_workbook(data, name=name)
        return _data_sheet(_pages(data, name, marks), name)
    if name.lower().endswith(".csv") or _is_text(data[:4096]):
        return read_csv(data, name)
    raise ValidationFailed(
        f"{name}: neither an .xlsx workbook nor a CSV file. Get it again from its source, or export the sheet as CSV."
    )


def _is_text(head: bytes) -> bool:
    """Tell whether a file that starts with `head` is text; it may end within a letter."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text) and "\0" not in text


def _folders() -> list[str]:
    """Return where the child finds its three packages; it looks nowhere else."""
    origins = [importlib.util.find_spec(name) for name in ("openpyxl", "et_xmlfile", "defusedxml")]
    return sorted({str(Path(spec.origin).parents[1]) for spec in origins if spec and spec.origin})


def _pages(data: bytes, name: str, marks: Mapping[str, Marks]) -> list[_Page]:
    """Run the child on the bytes of a workbook and return the cells of each sheet."""
    command = [sys.executable, "-I", "-S", str(_CHILD), *_folders()]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            input=data,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
        )
    except subprocess.TimeoutExpired:
        raise SheetRefused(
            f"{name}: reading it took more than {TIMEOUT_SECONDS:.0f} s. {_AGAIN}"
        ) from None
    pages: dict[str, _Page] = {}
    ended, refused = False, ""
    for line in done.stdout.splitlines():
        said = json.loads(line) if done.returncode == 0 or line.endswith(b"}") else {}
        refused = said.get("refused", refused)
        for title, member in said.get("sheets", ()):
            if member not in marks:
                raise SheetRefused(f"{name}: sheet {title!r} lies in no XML member. {_AGAIN}")
            pages[title] = _Page(title, marks[member])
        if "row" in said:
            pages[said["sheet"]].rows[said["row"]] = {
                column: Cell(kind, value) for column, kind, value in said["cells"]
            }
        ended = ended or "end" in said
    if refused:
        # What openpyxl stumbled over is said with its place, if the guard has seen it.
        problems = [problem for page in pages.values() for problem in _odd(page, name)]
        raise_problems(problems, what=name, then="Mend these cells and read it again.")
        raise SheetRefused(f"{name}: {refused}. {_AGAIN}")
    if not ended:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise SheetRefused(
            f"{name}: the process that read it ended with {done.returncode}: {last[0][:200]}. {_AGAIN}"
        )
    return list(pages.values())


def _odd(page: _Page, name: str) -> Iterator[Problem]:
    """Yield a problem for each value that is not written as spreadsheets write it."""
    for (row, column), text in page.marks.odd.items():
        letters = letters_of(column)
        rule = "is not written as a number, text or truth value of a spreadsheet"
        yield Problem(file=name, sheet=page.title, row=row, column=letters, value=text, rule=rule)


def _data_sheet(pages: Sequence[_Page], name: str) -> Sheet:
    chosen = [page for page in pages if page.title == SHEET] or [
        page for page in pages if set(_headings(page.rows).values()) >= _FIRST
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
    for (row, column), text in page.marks.odd.items():
        page.rows.setdefault(row, {})[column] = Cell("odd", text)
    headings = _headings(page.rows)
    check_headings(headings, file=name, sheet=page.title)
    below = {number: cells for number, cells in page.rows.items() if number > 1}
    problems = [*_merged(page, name), *_beside(page, headings, name)]
    raise_problems(problems, what=name, then="Mend these cells and read it again.")
    kept = [
        SheetRow(number, {headings[column]: cell for column, cell in cells.items()})
        for number, cells in below.items()
    ]
    letters = {heading: letters_of(column) for column, heading in headings.items()}
    return Sheet(name, page.title, letters, tuple(kept))


def _merged(page: _Page, name: str) -> Iterator[Problem]:
    for area in page.marks.merged:
        match = _AREA.match(area)
        yield Problem(
            file=name,
            sheet=page.title,
            row=int(match[2]) if match else None,
            column=match[1] if match else "",
            rule=f"merged cells at {area[:20]}: only the first of them has a value; take the merge apart",
        )


def _beside(page: _Page, headings: Mapping[int, str], name: str) -> Iterator[Problem]:
    """Yield each filled cell without a heading; what stands there is nobody's business."""
    for number, cells in page.rows.items():
        for column in sorted(cells.keys() - headings.keys()):
            rule = "a cell beside the columns that have a heading"
            yield Problem(
                file=name, sheet=page.title, row=number, column=letters_of(column), rule=rule
            )


def _headings(rows: Rows) -> dict[int, str]:
    return {
        column: cell.value if cell.kind in {"text", "raw"} else repr(cell.value)
        for column, cell in rows.get(1, {}).items()
    }
