"""Small grading workbooks for tests: right ones, and ones with a wrong cell."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl

from verse_data.records.tables import COLUMNS, SHEET
from verse_data.spine.levels import GRADED_LEVELS

Row = dict[str, Any]


def row(series: int, *, subject: int | None = None, part: str = "1 of 1", **cells: Any) -> Row:
    """Return a right row: T10 to L4 graded, L1 with a wedge fracture of grade 2."""
    values: Row = dict.fromkeys(COLUMNS)
    values |= {
        "verse_ID": series,
        "subject_ID": series if subject is None else subject,
        "dataset": "training",
        "age_ct": 60.5,
        "CT_device": 1,
        "Res": 2,
        "BMD": 80.25,
        "DXA T-value": "n/a",
        "CT_image_series": part,
        "N_vertebrae": 8,
        "foreign_material": None,
        "N_Fx": None,
    }
    for level in ("T10", "T11", "T12", "L1", "L2", "L3", "L4"):
        values[f"{level}_fx-g"] = values[f"{level}_fx-s"] = 0
    values["L1_fx-g"], values["L1_fx-s"] = 2, 1
    return values | cells


def write_xlsx(path: Path, rows: Sequence[Mapping[str, Any]], *, sheet: str = SHEET) -> Path:
    """Write `rows` as the workbook; row 1 is the heading."""
    book = openpyxl.Workbook()
    page = book.worksheets[0]
    page.title = sheet
    page.append(COLUMNS)
    for values in rows:
        page.append([values[name] for name in COLUMNS])
    book.create_sheet("info").append(["verse_ID", "ID per image series"])
    book.save(path)
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, index: bool = False) -> Path:
    """Write `rows` as a CSV export; None is an empty field."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*([""] if index else []), *COLUMNS])
    for number, values in enumerate(rows):
        writer.writerow([*([number] if index else []), *(values[name] for name in COLUMNS)])
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def edit_member(path: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """Rewrite one member of a workbook in place."""
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    parts[member] = change(parts[member])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in parts.items():
            target.writestr(name, content)
    return path


def graded(values: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """Return the filled grade (``g``) or shape (``s``) cells of a row by level."""
    cells = {level: values[f"{level}_fx-{suffix}"] for level in GRADED_LEVELS}
    return {level: value for level, value in cells.items() if value is not None}
