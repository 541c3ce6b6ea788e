"""Writes the grading workbook with sheets, columns, formulas and row order of the real one."""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from verse_data.phantom.spec import SeriesSpec, SubjectSpec
from verse_data.records.tables import COLUMNS, SHEET, SPLIT_OF_DATASET
from verse_data.spine.levels import GRADED_LEVELS

NAME: Final = "phantom_grading.xlsx"
_DATASET_OF_SPLIT: Final = {split: word for word, split in SPLIT_OF_DATASET.items()}
_ORDER: Final = ("test", "training", "validation")
_INFO: Final = (
    ("verse_ID", "ID per image series"),
    ("subject_ID", "ID per subject"),
    ("dataset", "training; validation public; test secret"),
    ("age_ct", "Made-up age at CT"),
    ("CT_device", "1=Philips Brilliance 64; 2=Philips iCT; 3=Philips IQon; 4=Siemens AS+; 5=Siemens AS"),
    ("Res", "Maximum voxel size (i.e. sagittal resolution)"),
    ("BMD", "Made-up bone mineral density at the lumbar spine"),
    ("DXA T-value", "Made-up T-value, or n/a"),
    ("CT_image_series", "Number of image series belonging to the same patient"),
    ("N_vertebrae", "Number of vertebrae completely enclosed"),
    ("foreign_material", "Number of vertebrae with foreign material"),
    ("N_Fx", "Number of fractures present"),
    ("T1-L6", "Vertebral levels"),
    ("fx-g", "0=no fracture; 1=mild (20-25%); 2=moderate (25-40%); 3=severe (>40%); x=foreign material"),
    ("fx-s", "0=no fracture; 1=wedge; 2=biconcave; 3=crush; x=foreign material"),
    ("phantom", "Made up by verse-data. No row describes a patient."),
)  # fmt: skip
_WRITTEN: Final = dt.datetime(2020, 1, 1)  # noqa: DTZ001 - the format has no time zone
_MODIFIED: Final = re.compile(rb"(<dcterms:modified[^>]*>)[^<]*")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the workbook: the specification of a series, and its resolution as rendered."""

    subject: SubjectSpec
    series: SeriesSpec
    resolution_mm: float


def workbook_bytes(rows: Sequence[Row]) -> bytes:
    """Return the workbook: rows in the order test, training, validation, as in the real file."""
    book = Workbook()
    sheet = book.worksheets[0]
    sheet.title = SHEET
    sheet.append(COLUMNS)
    for row in sorted(rows, key=lambda row: _ORDER.index(row.subject.split)):  # stable
        _append(sheet, row)
    sheet.freeze_panes = "B2"
    sheet.auto_filter.ref = f"A1:AV{len(rows) + 1}"
    info = book.create_sheet("info")
    for line in _INFO:
        info.append(line)
    book.properties.creator, book.properties.created = "verse-data phantom", _WRITTEN
    stream = io.BytesIO()
    book.save(stream)
    return _without_clock(stream.getvalue())


def _append(sheet: Worksheet, row: Row) -> None:
    subject, series = row.subject, row.series
    line = sheet.max_row + 1
    place = subject.series.index(series) + 1
    label = series.series_label or subject.subject_id
    resolution = round(row.resolution_mm, 2)
    t_value = "n/a" if subject.t_value is None else subject.t_value
    grades, shapes = series.cells(0), series.cells(1)
    sheet.append(
        (
            int(label.removeprefix("verse")),
            subject.number,
            _DATASET_OF_SPLIT[subject.split],
            subject.age,
            subject.device,
            int(resolution) if resolution.is_integer() else resolution,
            int(subject.bmd) if subject.bmd.is_integer() else subject.bmd,
            t_value,
            f"{place} of {len(subject.series)}",
            len(series.annotated) - (series.without_centroid is not None),
            f'=COUNTIF(M{line}:AD{line}, "x")',
            f'=COUNTIF(M{line}:AD{line}, ">0")',
            *(grades.get(level) for level in GRADED_LEVELS),
            *(shapes.get(level) for level in GRADED_LEVELS),
        )
    )


def _without_clock(content: bytes) -> bytes:
    """Rewrite the zip without the time of saving; uncompressed, so that zlib does not matter."""
    fixed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(fixed, "w") as target:
        for name in source.namelist():
            member = source.read(name)
            if name == "docProps/core.xml":
                moment = _WRITTEN.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
                member = _MODIFIED.sub(rb"\g<1>" + moment, member)
            target.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), member)
    return fixed.getvalue()
