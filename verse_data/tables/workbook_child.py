"""Runs as a process of its own: reads one workbook with openpyxl and writes its cells as JSON.

Numbers and booleans keep their type; everything else (formulas, dates, error values) becomes text.
The parent starts it with ``python -I -S``, without this package. Limits on memory and time are set
before openpyxl sees the file, so that a malicious workbook ends only this process.
"""

from __future__ import annotations

import functools
import io
import json
import re
import resource
import sys
import warnings
import zipfile
import zlib
from typing import Any

# The real workbook has 9,300 filled cells. The parent needs several times the memory of the output.
MAX_ROWS, MAX_COLUMNS, MAX_CELLS, MAX_TEXT = 20_000, 200, 50_000, 4_096
_MAX_MEMBERS, _MAX_MERGED, _MAX_EMPTY = 200, 1_000, 100_000
# Without rows and cells that hold nothing, a workbook is far smaller than it inflates to.
_INFLATED, _FILLED, _OUTPUT = 256 << 20, 16 << 20, 16 << 20
_LARGE_SHEET = 1 << 20
_MEMORY, _SECONDS = 1 << 30, 3

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ROW, _CELL, _VALUE, _FORMULA = (_MAIN + tag for tag in ("row", "c", "v", "f"))
_PLACE = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")
_ROW_NUMBER = re.compile(r"[1-9][0-9]{0,6}")
_NUMBER = re.compile(r"(?!-0$)-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_CELL_FORMS = {"n": _NUMBER, "s": re.compile(r"0|[1-9][0-9]*"), "b": re.compile(r"[01]")}
"""How spreadsheets write a number, the index of a shared string, and a boolean."""

_NOTHING = rb"(?:<v\s*/>|<v></v>|<is>\s*<t\s*(?:/>|></t>)\s*</is>)?\s*"
_EMPTY_CELL = re.compile(rb"<c(?=[^<>]*\sr=)\s[^<>]*(?:/>|>\s*" + _NOTHING + rb"</c>)")
_EMPTY_ROW = re.compile(rb"<row(?=[^<>]*\sr=)\s[^<>]*(?:/>|>\s*</row>)")
_WITHOUT_PLACE = re.compile(rb"<(?:[^\s<>/:]+:)?(?:c|row)(?![^<>]*\sr=)[\s/>]")
_SHEET = re.compile(rb"<(?:[^\s<>/:]+:)?sheet[\s/>]")
_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/(\w+)")
"""The namespaces of a Strict Open XML workbook; openpyxl knows only the usual ones."""

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, SyntaxError)
"""Errors of zipfile for a damaged zip, and of expat for text that is not XML."""


class _Refused(Exception):
    """The workbook is beyond a limit, or ambiguous."""


def main(folders: list[str]) -> None:
    """Write the sheets of the workbook on stdin to stdout, or the reason why it cannot be read."""
    _limit()
    sys.path[:0] = folders
    # openpyxl imports these two if it can, and needs neither for reading.
    sys.modules["numpy"] = sys.modules["lxml"] = None  # type: ignore[assignment]
    warnings.simplefilter("ignore")
    answer: dict[str, Any]
    try:
        # The parent sends the bytes that it has hashed, and no path.
        stream = _tidied(io.BytesIO(sys.stdin.buffer.read()))
        _forbid_document_types()
        answer = {"sheets": _sheets(stream)}
    except _Refused as reason:
        answer = {"refused": str(reason)}
    except MemoryError:
        answer = {"refused": f"reading it takes more than {_MEMORY >> 30} GiB of memory"}
    except Exception as error:  # noqa: BLE001 - whatever the parser meets, the parent reports it
        cause = error.__cause__ or error
        kind = "unreadable" if isinstance(cause, _UNREADABLE) else "refused"
        answer = {kind: f"{type(cause).__name__}: {str(cause)[:300]}"}
    sys.stdout.write(json.dumps(answer, allow_nan=False))


def _limit() -> None:
    for what, value in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, _SECONDS)):
        try:
            resource.setrlimit(what, (value, value))
        except (ValueError, OSError):
            continue


def _tidied(stream: io.BytesIO) -> io.BytesIO:
    """Return the workbook in the usual namespaces, its large sheets without what holds nothing.

    Raises if the zip is damaged, beyond a limit, or not a workbook that openpyxl reads.
    """
    tidied = io.BytesIO()
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(tidied, "w") as target:
        members = archive.infolist()
        names = {member.filename.casefold(): member for member in members}
        if len(members) > _MAX_MEMBERS or len(names) < len(members):
            raise _Refused(f"more than {_MAX_MEMBERS} members, or two of one name")
        # A member with a wrong listed size cannot exceed it: zipfile stops there, with a CRC error.
        if sum(member.file_size for member in members) > _INFLATED:
            raise _Refused(f"it inflates to more than {_INFLATED >> 20} MiB")
        if "xl/workbook.xml" not in names:
            raise zipfile.BadZipFile("it has no xl/workbook.xml")
        book = archive.read(names["xl/workbook.xml"])
        if len(_SHEET.findall(book)) > _MAX_MEMBERS:
            raise _Refused(f"it lists more than {_MAX_MEMBERS} sheets")
        size, is_strict = 0, _STRICT.search(book)
        for member in members:
            data = archive.read(member)
            if is_strict:
                data = _STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/\2", data)
            # Without their neighbours, rows and cells that do not say their place would lie elsewhere.
            if len(data) > _LARGE_SHEET and not _WITHOUT_PLACE.search(data):
                data = _EMPTY_ROW.sub(b"", _EMPTY_CELL.sub(b"", data))
            size += len(data)
            if size > _FILLED:
                raise _Refused(f"what it holds inflates to more than {_FILLED >> 20} MiB")
            target.writestr(member.filename, data)
    return tidied


def _forbid_document_types() -> None:
    """Make openpyxl refuse XML with a document type; defusedxml alone refuses only entities."""
    import defusedxml.ElementTree

    safe: Any = defusedxml.ElementTree
    # openpyxl imports these two from there.
    safe.fromstring = functools.partial(safe.fromstring, forbid_dtd=True)
    safe.iterparse = functools.partial(safe.iterparse, forbid_dtd=True)


def _sheets(stream: io.BytesIO) -> list[Any]:
    """Return title, merged areas and rows of each sheet."""
    from openpyxl import load_workbook
    from openpyxl.worksheet._reader import WorkSheetParser

    book: Any = load_workbook(stream, read_only=True, keep_links=False)
    formats = (book.epoch, book._date_formats, book._timedelta_formats)  # noqa: SLF001
    pages, cells, letters = [], 0, 0
    for page in book.worksheets:
        parser: Any = WorkSheetParser(page._get_source(), page._shared_strings, False, *formats)  # noqa: FBT003, SLF001
        parser.parse_row = functools.partial(_row, parser)
        rows = []
        for count, (number, filled) in enumerate(parser.parse(), start=1):
            cells += len(filled)
            letters += sum(len(value) for _, value in filled if isinstance(value, str))
            if count > _MAX_EMPTY or cells > MAX_CELLS or letters > _OUTPUT:
                raise _Refused(
                    f"sheet {page.title!r}, row {number:,}: beyond the limits of {MAX_ROWS:,} rows, "
                    f"{MAX_CELLS:,} filled cells and {_OUTPUT >> 20} MiB of text"
                )
            rows += [[number, filled]] if filled else []
        areas = [area.ref for area in parser.merged_cells.mergeCell] if parser.merged_cells else []
        if len(areas) > _MAX_MERGED:
            raise _Refused(f"sheet {page.title!r} has more than {_MAX_MERGED:,} merged areas")
        pages.append([page.title, areas, rows])
    return pages


def _row(parser: Any, row: Any) -> tuple[int, list[Any]]:
    """Return the number and the filled cells of a row, each with column and value.

    openpyxl itself keeps the last of two cells at one place, drops a repeated row, and reads
    ``0_2`` as 2: the first two are refused here, the last stays text.
    """
    from openpyxl.utils import column_index_from_string

    written = row.get("r", str(parser.row_counter + 1))
    number = int(written) if _ROW_NUMBER.fullmatch(written) else 0
    if number <= parser.row_counter:
        raise _Refused(f"row {written[:20]!r} is not a row number, is repeated, or is out of order")
    parser.row_counter, here, last, filled = number, str(number), 0, []
    for cell in row:
        place = cell.get("r")
        match = None if place is None else _PLACE.fullmatch(place)
        if match and match[2] != here:
            match = None
        column = column_index_from_string(match[1]) if match else last + 1
        values = cell.findall(_VALUE)
        if cell.tag != _CELL or (place is not None and not match) or column <= last:
            raise _Refused(
                f"row {number:,}: cell {(place or cell.tag)[:80]!r} is not of this row, comes twice, "
                f"or is out of order"
            )
        if len(values) > 1 or any(map(_is_ambiguous, cell)):
            raise _Refused(f"row {number:,}: a cell with two values, or a row in it")
        parser.col_counter, last = last, column
        text = (values[0].text or "") if values else ""
        form = _CELL_FORMS.get(cell.get("t", "n"))
        if text and form and not form.fullmatch(text) and cell.find(_FORMULA) is None:
            value: Any = text[:64]
        else:
            parsed = parser.parse_cell(cell)
            if parsed["value"] is None:
                continue
            value = _plain(parsed["value"], parsed["data_type"])
        if number > MAX_ROWS or column > MAX_COLUMNS:
            raise _Refused(
                f"a cell at row {number:,}, column {column:,}; the limits are {MAX_ROWS:,} rows and "
                f"{MAX_COLUMNS} columns"
            )
        filled.append([column, value])
    return number, filled


def _is_ambiguous(part: Any) -> bool:
    """Return whether a child of a cell is a row, contains one, or is a value with children."""
    if not len(part):
        return bool(part.tag == _ROW)
    return part.tag in {_ROW, _VALUE} or next(part.iter(_ROW), None) is not None


def _plain(value: Any, kind: str) -> Any:
    """Return a number, a boolean, or text for anything else; only a text cell may be long."""
    if kind == "b":
        return bool(value)
    if kind == "n" and isinstance(value, (int, float)) and abs(value) < 1e300:
        return value
    text = str(getattr(value, "text", None) or value)
    if kind in {"s", "inlineStr"} and len(text) > MAX_TEXT:
        raise _Refused(f"a text cell holds {len(text):,} letters; the limit is {MAX_TEXT:,}")
    return text[:MAX_TEXT]


if __name__ == "__main__":
    main(sys.argv[1:])
