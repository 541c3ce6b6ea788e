"""Runs as a process of its own: reads one workbook with openpyxl and writes its cells as JSON lines.

The parent starts it with ``python -I -S`` and nothing of this package, so that it starts fast and
holds nothing worth attacking; limits on memory, time and output are set before openpyxl sees the
file. Cells keep their type: a number, a text, a truth value, a formula, an error or a date.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from typing import Any

# The real workbook has 9,300 filled cells. What is written here, the parent holds several times over.
MAX_ROWS, MAX_COLUMNS, MAX_CELLS, MAX_TEXT = 20_000, 200, 50_000, 4_096
_MEMORY, _SECONDS, _OUTPUT = 1 << 30, 20, 16 << 20


def main(folders: list[str]) -> int:
    """Write the sheets of the workbook on stdin to stdout; return the exit status."""
    _limit()
    sys.path[:0] = folders
    # openpyxl imports these two if it can, and needs neither for reading.
    sys.modules["numpy"] = sys.modules["lxml"] = None  # type: ignore[assignment]
    warnings.simplefilter("ignore")
    import openpyxl

    if not openpyxl.DEFUSEDXML:
        _say({"refused": "defusedxml is not installed: pip install --force-reinstall verse-data"})
        return 1
    try:
        # The parent sends the bytes that it has hashed and looked through, and no path.
        stream = io.BytesIO(sys.stdin.buffer.read())
        book = openpyxl.load_workbook(stream, read_only=True, keep_links=False)
        # The member of each sheet is what the guard's marks go by.
        pages: list[Any] = book.worksheets
        _say({"sheets": [[page.title, page._worksheet_path] for page in pages]})  # noqa: SLF001
        total = 0
        for sheet in book.worksheets:
            total = _write_sheet(sheet, total)
        _say({"end": True})
    except _Refused as reason:
        _say({"refused": str(reason)})
    except MemoryError:
        _say({"refused": "reading it takes more than 1 GiB of memory"})
    except Exception as error:  # noqa: BLE001 - whatever the parser meets, the parent hears of it
        _say({"refused": f"{type(error).__name__}: {str(error)[:300]}"})
    sys.stdout.flush()
    return 0


class _Refused(Exception):
    """A sheet is beyond the limits."""


def _write_sheet(sheet: Any, total: int) -> int:
    """Write the rows of a sheet; return how many cells, with the `total` before, were written."""
    # Without this, openpyxl trusts the dimension that the file claims and pads or cuts rows.
    sheet.reset_dimensions()
    for number, cells in enumerate(sheet.iter_rows(max_row=MAX_ROWS + 1), start=1):
        if number > MAX_ROWS:
            raise _Refused(f"sheet {sheet.title!r} has more than {MAX_ROWS:,} rows")
        if len(cells) > MAX_COLUMNS:
            raise _Refused(
                f"sheet {sheet.title!r}, row {number} has more than {MAX_COLUMNS} columns"
            )
        filled = [[cell.column, *_typed(cell)] for cell in cells if cell.value is not None]
        total += len(filled)
        if total > MAX_CELLS:
            raise _Refused(f"its sheets have more than {MAX_CELLS:,} filled cells")
        if filled:
            _say({"sheet": sheet.title, "row": number, "cells": filled})
    return total


def _typed(cell: Any) -> tuple[str, Any]:
    """Return the type letter and the value of a cell as JSON can say it."""
    value, kind = cell.value, cell.data_type
    if kind == "f":
        text = getattr(value, "text", None) or str(value)
        return "formula", text[:MAX_TEXT]
    if kind == "b":
        return "boolean", bool(value)
    if kind == "e":
        return "error", str(value)[:MAX_TEXT]
    if kind == "n" and isinstance(value, (int, float)):
        return ("number", value) if abs(value) < 1e300 else ("error", str(value))
    if kind in {"s", "inlineStr"} and isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise _Refused(f"a text cell holds {len(value):,} letters; the limit is {MAX_TEXT:,}")
        return "text", value
    return "date", str(value)[:MAX_TEXT]


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the parent's timer still holds
        return
    for what, value in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CPU, _SECONDS),
        (resource.RLIMIT_FSIZE, _OUTPUT),
    ):
        try:
            resource.setrlimit(what, (value, value))
        except (ValueError, OSError):
            continue


_written = 0


def _say(value: Any) -> None:
    global _written  # noqa: PLW0603 - one process, one counter
    line = json.dumps(value, allow_nan=False) + "\n"
    _written += len(line)
    if _written > _OUTPUT and "refused" not in value:
        raise _Refused(f"its cells come to more than {_OUTPUT >> 20} MiB")
    sys.stdout.write(line)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
