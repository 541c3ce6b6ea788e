"""Drill 19: no cell and no JSON value is taken for another one; what is wrong is named with its place."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from openpyxl.utils import get_column_letter

from tests.support import workbooks
from tests.support.workbooks import Row, row
from verse_data.errors import ValidationFailed
from verse_data.records.centroids import parse_centroids
from verse_data.records.tables import COLUMNS, SHEET, parse_ct_sidecar
from verse_data.spine.levels import GRADED_LEVELS
from verse_data.tables.grading import examine, read_grading
from verse_data.tables.workbook import read_sheet

# Column of the wrong cell, and what is written into it. One row each, in one workbook.
WRONG_CELLS: tuple[tuple[str, Any], ...] = (
    ("L1_fx-g", 5),
    ("L1_fx-g", -1),
    ("L1_fx-g", 1.5),
    ("L1_fx-g", "2"),
    ("L1_fx-g", "2 "),
    ("L1_fx-g", "2\u00a0"),
    ("L1_fx-g", "\uff12"),
    ("L1_fx-g", True),
    ("L1_fx-g", "X"),
    ("L1_fx-g", " x"),
    ("L1_fx-g", "None"),
    ("L1_fx-g", "NA"),
    ("L1_fx-g", "n/a"),
    ("L1_fx-g", "1-2"),
    ("L1_fx-g", dt.date(2020, 2, 1)),
    ("L1_fx-g", "=1+1"),
    ("L1_fx-g", "#N/A"),
    ("L1_fx-s", 4),
    ("L1_fx-s", "wedge"),
    ("L1_fx-s", None),
    ("L1_fx-s", 0),
    ("L1_fx-s", "x"),
    ("T11_fx-s", 2),
    ("T8_fx-s", 0),
    ("verse_ID", None),
    ("verse_ID", 12.5),
    ("verse_ID", "0042"),
    ("verse_ID", 100_000),
    ("verse_ID", True),
    ("subject_ID", 999),
    ("dataset", "train"),
    ("dataset", "Training"),
    ("dataset", None),
    ("age_ct", "77,4"),
    ("age_ct", 250),
    ("age_ct", None),
    ("CT_device", 6),
    ("CT_device", "3"),
    ("Res", 0),
    ("BMD", -5),
    ("BMD", None),
    ("BMD", "=G2"),
    ("BMD", dt.date(2020, 1, 1)),
    ("DXA T-value", "N/A"),
    ("DXA T-value", "-1,5"),
    ("DXA T-value", None),
    ("CT_image_series", "3 of 2"),
    ("CT_image_series", "1/2"),
    ("CT_image_series", 1),
    ("N_vertebrae", 0),
    ("N_vertebrae", 27),
    ("foreign_material", 3),
    ("foreign_material", "=SUM(A1:A2)"),
    ("N_Fx", '=COUNTIF(M2:AD2, "x")'),
    ("N_Fx", 0),
    ("N_Fx", '=COUNTIF(M3:AD3, ">0")'),
    ("foreign_material", '=COUNTIF(M2:AC2, "x")'),
)

# Fields of a CSV export that a spreadsheet library would quietly turn into a value.
WRONG_FIELDS: tuple[tuple[str, str], ...] = (
    ("L1_fx-g", "2 "),
    ("L1_fx-g", " 2"),
    ("L1_fx-g", "+2"),
    ("L1_fx-g", "2e0"),
    ("L1_fx-g", "02"),
    ("L1_fx-g", "2."),
    ("L1_fx-g", "True"),
    ("L1_fx-g", "nan"),
    ("L1_fx-g", "NaN"),
    ("L1_fx-g", "None"),
    ("L1_fx-g", "2_0"),
    ("L1_fx-g", "'2"),
    ("verse_ID", "0042"),
    ("verse_ID", "1e2"),
    ("BMD", "inf"),
    ("BMD", "1e400"),
    ("BMD", "1,5"),
    ("age_ct", "0x20"),
    ("age_ct", "1970-01-01"),
    ("DXA T-value", "-"),
    ("L1_fx-g", "-0"),
    ("L1_fx-g", "-0.0"),
    ("L1_fx-g", "\u0662"),
    ("BMD", "1\u0662"),
    ("CT_image_series", "1 of \u0661"),
)


def traps(cells: tuple[tuple[str, Any], ...]) -> list[Row]:
    """Return one otherwise right row for each wrong cell."""
    return [row(100 + n, **{name: value}) for n, (name, value) in enumerate(cells)]


def test_every_wrong_cell_of_a_workbook_is_named(tmp_path: Path) -> None:
    """Each wrong cell stands in a row of its own: the row has a problem there, and none is read as a value."""
    sheet = read_sheet(workbooks.write_xlsx(tmp_path / "grades.xlsx", traps(WRONG_CELLS)))
    _, problems = examine(sheet)
    named = {(problem.row, problem.column) for problem in problems}

    for number, (name, value) in enumerate(WRONG_CELLS, start=2):
        letter = get_column_letter(COLUMNS.index(name) + 1)
        # A pair that does not fit, or a filled cell after a gap, is named at one of its two cells.
        places = {(number, f"{letter} ({name})")}
        if name == "T8_fx-s":
            assert not places - named, "a shape without a grade"
        assert places & named, f"{name} = {value!r} in row {number} was not named"
    assert all(problem.sheet == SHEET and problem.file == "grades.xlsx" for problem in problems)


def test_every_wrong_field_of_a_csv_export_is_named(tmp_path: Path) -> None:
    """Each wrong field stands in a row of its own of a CSV file: each is named with its row and column."""
    path = workbooks.write_csv(tmp_path / "grades.csv", traps(WRONG_FIELDS))
    _, problems = examine(read_sheet(path))

    assert [
        (problem.row, problem.column.split("(")[1][:-1], problem.value) for problem in problems
    ] == [
        (number, name, -0.0 if value in {"-0", "-0.0"} else value)
        for number, (name, value) in enumerate(WRONG_FIELDS, start=2)
    ]


def test_rows_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    """Two ages, densities, devices, splits or T-values of one person, a series twice, a part twice."""
    two = {"subject": 401, "part": "2 of 2"}
    first = row(201, subject=401, part="1 of 2")
    for name, value in (
        ("age_ct", 61.0),
        ("BMD", 0),
        ("CT_device", 2),
        ("dataset", "test secret"),
        ("DXA T-value", -1.5),
        ("CT_image_series", "1 of 2"),
        ("CT_image_series", "2 of 3"),
        ("verse_ID", 201),
    ):
        second = row(253, **two) | {name: value}
        _, problems = examine(read_sheet(workbooks.write_csv(tmp_path / "g.csv", [first, second])))
        assert (3, name) in {(p.row, p.column.split("(")[1][:-1]) for p in problems}, name
        if name != "CT_image_series":
            assert "row 2" in problems[-1].rule


def named(path: Path) -> set[tuple[int | None, str]]:
    """Return row and heading of each problem in a grading table."""
    _, problems = examine(read_sheet(path))
    return {(p.row, p.column.partition("(")[2][:-1]) for p in problems}


def test_a_bad_cell_hides_nothing_else_in_its_row(tmp_path: Path) -> None:
    """Beside a grade of 5, the same row's gap, shape without grade, wrong count and part are named too."""
    wrong: Row = {
        "L4_fx-g": 5,
        "L2_fx-g": None,
        "L2_fx-s": None,
        "T11_fx-g": None,
        "CT_image_series": "3 of 2",
    }
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [row(14) | wrong])
    assert named(path) == {
        (2, "L4_fx-g"), (2, "L2_fx-g"), (2, "T11_fx-s"), (2, "CT_image_series"),
    }  # fmt: skip
    counted = row(14, Res="2 ", foreign_material=3, N_Fx=9)
    path = workbooks.write_xlsx(tmp_path / "counts.xlsx", [counted])
    assert named(path) == {(2, "Res"), (2, "foreign_material"), (2, "N_Fx")}


def test_a_bad_cell_hides_nothing_between_rows(tmp_path: Path) -> None:
    """Rows with a bad cell are compared with the other rows of their person all the same."""
    first = row(201, subject=401, part="1 of 2", BMD=True)
    second = row(253, subject=401, part="2 of 2", age_ct=61.0, **{"L1_fx-g": 5})
    again = row(201, subject=401, part="1 of 2")
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [first, second, again])

    assert named(path) == {(2, "BMD"), (3, "L1_fx-g"), (3, "age_ct"), (4, "verse_ID")}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_bad_cell_makes_no_other_row_wrong(name: str, tmp_path: Path) -> None:
    """Whatever cell is bad, its row counts among the series of its person, and no other row is blamed."""
    rows = [row(201, subject=401, part="1 of 2"), row(253, subject=401, part="2 of 2"), row(4)]
    rows[0][name] = True

    assert named(workbooks.write_xlsx(tmp_path / "grades.xlsx", rows)) == {(2, name)}


@pytest.mark.parametrize("value", [5, 202, None])
def test_a_wrong_person_or_series_is_named_where_it_stands(
    value: int | None, tmp_path: Path
) -> None:
    """A series number that is missing or another's is named alone."""
    rows = [row(201, subject=401, part="1 of 2"), row(253, subject=401, part="2 of 2"), row(5)]
    rows[1]["verse_ID"] = value
    found = named(workbooks.write_xlsx(tmp_path / "grades.xlsx", rows))

    assert found == {5: {(4, "verse_ID")}, 202: set(), None: {(3, "verse_ID")}}[value]


STRUCTURE: dict[str, Callable[[Path], None]] = {}


def structure(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a maker of a workbook with a wrong structure."""

    def keep(make: Callable[[Path], None]) -> Callable[[Path], None]:
        STRUCTURE[name] = make
        return make

    return keep


def change_page(path: Path, change: Callable[[Any], None]) -> None:
    """Write a right workbook and change its data sheet through openpyxl."""
    book = openpyxl.load_workbook(workbooks.write_xlsx(path, [row(4), row(5)]))
    change(book[SHEET])
    book.save(path)


@structure(r"row 1, column N: 'T1_fx-g': is already in column M")
def _duplicate_heading(path: Path) -> None:
    change_page(path, lambda page: page.cell(1, 14, "T1_fx-g"))


@structure(r"row 1, column N: 'T2_fx_g': is not a column")
def _renamed_heading(path: Path) -> None:
    change_page(path, lambda page: page.cell(1, 14, "T2_fx_g"))


@structure(r"row 1, column AW: 'PatientName': is not a column")
def _private_column(path: Path) -> None:
    change_page(path, lambda page: page.cell(1, 49, "PatientName"))


@structure(r"row 3, column AX: a cell in a column without a heading")
def _cell_beside(path: Path) -> None:
    change_page(path, lambda page: page.cell(3, 50, 7))


@structure(r"row 1, column N_vertebrae: is missing")
def _missing_column(path: Path) -> None:
    change_page(path, lambda page: page.delete_cols(10))


@structure(r"sheet VerSe_dataset, column M2:N2: merged cells")
def _merged(path: Path) -> None:
    change_page(path, lambda page: page.merge_cells("M2:N2"))


@pytest.mark.parametrize("text", STRUCTURE)
def test_a_wrong_structure_is_named(text: str, tmp_path: Path) -> None:
    """Headings that are doubled, renamed, private or missing, stray cells and merges have a place."""
    path = tmp_path / "grades.xlsx"
    STRUCTURE[text](path)

    with pytest.raises(ValidationFailed, match=text):
        read_grading(path)


def test_merged_cells_of_another_sheet_do_not_matter(tmp_path: Path) -> None:
    """A merge in the sheet of explanations is nobody's grade."""
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [row(4)])
    book = openpyxl.load_workbook(path)
    book["info"].merge_cells("A1:B1")
    book.save(path)

    assert len(read_grading(path).rows) == 1


def test_what_stands_beside_the_columns_is_not_repeated(tmp_path: Path) -> None:
    """A stray cell may be a name: the error says where it stands, and not what."""
    path = tmp_path / "grades.xlsx"
    change_page(path, lambda page: page.cell(3, 50, "CANARY"))

    with pytest.raises(ValidationFailed, match="row 3, column AX") as caught:
        read_grading(path)
    assert "CANARY" not in str(caught.value)


RAW = ("0_2", " 2 ", "\u0662", "02", "+2", "-0", "abc", "0x2", "2,0")
"""Texts of a cell's XML that no spreadsheet writes; Python reads the first six as numbers."""


@pytest.mark.parametrize("text", RAW)
def test_a_number_that_is_written_oddly_is_named(text: str, tmp_path: Path) -> None:
    """What Python would take for a number, or choke on, is named by sheet, row and column."""
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [row(4)])
    for cell, name in (("Y2", "Y"), ("E2", "E")):
        odd = f'<c r="{cell}" t="n"><v>{text}</v></c>'.encode()

        def change(xml: bytes, cell: str = cell, odd: bytes = odd) -> bytes:
            changed = re.sub(rf'<c r="{cell}" t="n"><v>\d</v></c>'.encode(), odd, xml)
            assert changed != xml
            return changed

        workbooks.edit_member(path, "xl/worksheets/sheet1.xml", change)
        with pytest.raises(ValidationFailed, match=f"sheet VerSe_dataset, row 2, column {name}"):
            read_grading(path)


@pytest.mark.parametrize("extra", [",9", ""])
def test_a_row_that_is_too_long_or_short_shifts_nothing(extra: str, tmp_path: Path) -> None:
    """A CSV row with one field too many or too few is refused, never shifted by one column."""
    path = workbooks.write_csv(tmp_path / "grades.csv", [row(4), row(5)])
    lines = path.read_text().splitlines()
    lines[2] = lines[2] + extra if extra else lines[2].rpartition(",")[0]
    path.write_text("\n".join(lines))

    with pytest.raises(ValidationFailed, match=r"row 3: 4[79] fields where the heading has 48"):
        read_grading(path)


POINT = '{"label": 20, "X": 1.0, "Y": 2.0, "Z": 3.0}'
WRONG_JSON: tuple[tuple[bytes, str], ...] = (
    (b"", "not JSON"),
    (b"{}", "a list of points"),
    (b"null", "a list of points"),
    (b'"text"', "a list of points"),
    (b"[1]", "entry 0"),
    (b"[[]]", "entry 0"),
    (b"[{}]", "entry 0"),
    (b"[" + POINT.encode(), "not JSON"),
    (b"[" + POINT.encode() + b"]x", "not JSON"),
    (b'[{"label": 20, "label": 21, "X": 1, "Y": 2, "Z": 3}]', "'label' occurs twice"),
    (b'[{"label": true, "X": 1, "Y": 2, "Z": 3}]', "label: 'True'"),
    (b'[{"label": 20.0, "X": 1, "Y": 2, "Z": 3}]', "label: '20.0'"),
    (b'[{"label": "20", "X": 1, "Y": 2, "Z": 3}]', "label: '20'"),
    (b'[{"label": 0, "X": 1, "Y": 2, "Z": 3}]', "label: '0'"),
    (b'[{"label": 34, "X": 1, "Y": 2, "Z": 3}]', "label: '34'"),
    (b'[{"label": NaN, "X": 1, "Y": 2, "Z": 3}]', "label: 'nan'"),
    (b'[{"label": 20, "X": "1", "Y": 2, "Z": 3}]', "X: '1'"),
    (b'[{"label": 20, "X": true, "Y": 2, "Z": 3}]', "X: 'True'"),
    (b'[{"label": 20, "X": null, "Y": 2, "Z": 3}]', "X: 'None'"),
    (b'[{"label": 20, "X": Infinity, "Y": 2, "Z": 3}]', "Infinity"),
    (b'[{"label": 20, "X": 1e999, "Y": 2, "Z": 3}]', "too large"),
    (b'[{"label": 20, "X": 1, "Y": 2, "Z": 1e308}]', "entry 0, Z: '1e+308' lies outside any image"),
    (
        b'[{"label": 20, "X": -1' + b"0" * 9 + b', "Y": 2, "Z": 3}]',
        "X: '-1000000000' lies outside any image",
    ),
    (b'[{"label": 20, "X": 1' + b"0" * 400 + b', "Y": 2, "Z": 3}]', "entry 0, X"),
    (b'[{"label": 20, "X": 1, "Y": 2}]', "Z"),
    (b'[{"label": 20, "X": 1, "Y": 2, "Z": 3, "name": "L1"}]', "name"),
    (f"[{POINT}, {POINT}]".encode(), "label 20 is already in entry 0"),
    (b'[{"direction": ["P", "I"]}]', "three axis codes"),
    (b'[{"direction": ["P", "I", "S"]}]', "three axis codes"),
    (b'[{"direction": "PIR"}]', "three axis codes"),
    (b'[{"direction": ["P", "I", "R"], "label": 20}]', "entry 0, direction"),
    (b'[{"direction": ["P", "I", "R"], "zoom": [1, 1]}]', "entry 0, zoom"),
    (b'[{"direction": ["P", "I", "R"], "format": "guber"}]', "format: 'guber' must be"),
    (b'[{"direction": ["P", "I", "R"], "level_one_info": "Lower_Body"}]', "level_one_info"),
    (b'[{"direction": ["P", "I", "R"], "zoom": [1, 1, 1]}, {"hip": {"50": [1, 2, 3]}}]', "1, hip"),
    (b'[{"direction": ["P", "I", "R"], "zoom": [1, 1, 1]}, {"L1": {"50": [1, 2]}}]', "1, L1, Z"),
    (
        b'[{"direction": ["P", "I", "R"], "zoom": [1, 1, 1]}, {"L1": {"50": [1, 2, 3, 4]}}]',
        "1, L1, W",
    ),
    (
        b'[{"direction": ["P", "I", "R"], "zoom": [1, 1, 1]}, {"L1": {"42": [1, 2, 3]}}]',
        "no point is",
    ),
    (
        b'[{"direction": ["P", "I", "R"], "zoom": [1, 1, 1]}, {"' + b"1" * 5000 + b'": {"50": 1}}]',
        "1, 111",
    ),
    (
        b'[{"coordinate_system": "itk", "format": "POI_GLOBAL"}, {"L1": {"50": [1, 2, 3]}}]',
        "in voxels",
    ),
    (b'[{"vert_label": "20", "50": "(1, 2, 3)"}]', "in voxels"),
    (b'[{"direction": ["P", "I", "R"], "zoom": [1, 1, 1]}, {"L1": [1, 2, 3]}]', "1, L1, X"),
    (b'[{"direction": ["P", "I", "R"], "zoom": [1, 1, "1"]}]', "zoom.2: '1' must be a number"),
    (b'{"@schema": "markups-schema-v1.0.3", "markups": []}', "in voxels"),
    (f'[{POINT}, {{"direction": ["P", "I", "R"]}}]'.encode(), "entry 1"),
    (b"[" * 100_000, "not JSON"),
    (b'[{"label": ' + b"9" * 5000 + b', "X": 1, "Y": 2, "Z": 3}]', "not JSON"),
    (f"[{POINT}]".encode("utf-16"), "not UTF-8: byte 0"),
    ("[\u00e9]".encode("latin-1"), "not UTF-8: byte 1"),
    (b"[" + b" " * (8 << 20) + b"]", "over the limit"),
    (("[" + ",".join([POINT] * 300) + "]").encode(), "300 entries are over the limit"),
)


@pytest.mark.parametrize("number", range(len(WRONG_JSON)))
def test_every_wrong_centroid_file_is_named(number: int) -> None:
    """50 wrong JSON files: each is refused with the file's name and what is wrong with it."""
    data, text = WRONG_JSON[number]

    with pytest.raises(ValidationFailed) as caught:
        parse_centroids(data, name="sub-x_ctd.json")

    assert str(caught.value).startswith("sub-x_ctd.json: ")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"dataset": "V", "KVP": 120, "Manufacturer": "a", "ManufacturerModelName": "b"}', "KVP"),
    ],
)  # fmt: skip
def test_every_wrong_sidecar_is_named(data: bytes, text: str) -> None:
    """A _ct.json with VerSe's fields and a number for a text is refused."""
    with pytest.raises(ValidationFailed, match=text):
        parse_ct_sidecar(data, name="sub-x_ct.json")


SIDECAR = {"dataset": "V", "KVP": "120", "Manufacturer": "a", "ManufacturerModelName": "b"}


@pytest.mark.parametrize(
    "change",
    [
        {"KVP": "CANARY"},
        {"Manufacturer": "CANARY" * 20},
        {"Manufacturer": ["CANARY"]},
    ],
)
def test_errors_about_a_sidecar_hold_no_value_of_it(change: dict[str, Any]) -> None:
    """A bad field of a _ct.json is named by its key; its value goes into no error."""
    with pytest.raises(ValidationFailed, match=next(iter(change))) as caught:
        parse_ct_sidecar(json.dumps(SIDECAR | change).encode(), name="sub-x_ct.json")
    assert "CANARY" not in str(caught.value)


def test_errors_about_centroids_hold_no_value_of_a_private_key() -> None:
    """A key that is none of a point's, or stands beside the direction, is told without its value."""
    private = {"PatientName": "CANARY"}
    for entry in ({"label": 20, "X": 1.0, "Y": 2.0, "Z": 3.0}, {"label": 20}, {"direction": "PIR"}):
        with pytest.raises(ValidationFailed, match="entry 0") as caught:
            parse_centroids(json.dumps([entry | private]).encode(), name="x")
        assert "CANARY" not in str(caught.value)


def test_a_byte_order_mark_and_nan_are_tolerated() -> None:
    """What occurs in the wild is read: a BOM, and NaN coordinates, which leave the point out."""
    text = (
        '[{"direction": ["P", "I", "R"]}, {"label": 20, "X": NaN, "Y": 2, "Z": 3}, '
        + POINT.replace("20", "21")
        + "]"
    )
    found = parse_centroids(b"\xef\xbb\xbf" + text.encode(), name="x")

    assert (found.direction, found.unplaced) == ("PIR", (20,))
    assert [point.label for point in found.points] == [21]


MARKS = st.sampled_from(
    [(0, 0), (0, 0), (0, 0), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 3), ("x", "x")]
)


@st.composite
def right_rows(draw: st.DrawFn) -> Row:
    """Draw a right row, but for its number."""
    first = draw(st.integers(0, 17))
    last = draw(st.integers(first, 18))
    values = row(1)
    for level in GRADED_LEVELS:
        values[f"{level}_fx-g"] = values[f"{level}_fx-s"] = None
    for level in GRADED_LEVELS[first:last]:
        values[f"{level}_fx-g"], values[f"{level}_fx-s"] = draw(MARKS)
    values["dataset"] = draw(st.sampled_from(["training", "validation public", "test secret"]))
    values["age_ct"] = draw(st.decimals(18, 91, places=2).map(float))
    values["CT_device"] = draw(st.integers(1, 5))
    values["Res"] = draw(st.sampled_from([1, 2, 2.5, 3]))
    values["BMD"] = draw(
        st.one_of(
            st.integers(0, 238), st.floats(0, 600, allow_subnormal=False).map(lambda x: round(x, 3))
        )
    )
    values["DXA T-value"] = draw(st.one_of(st.just("n/a"), st.decimals(-5, 3, places=1).map(float)))
    values["N_vertebrae"] = draw(st.integers(1, 24))
    return values


def said(values: Row) -> dict[str, Any]:
    """Return what a reader must find in a row, told without the reader's code."""
    return {
        "series_id": f"verse{values['verse_ID']:03d}",
        "subject_id": f"verse{values['subject_ID']:03d}",
        "split": values["dataset"].split()[0],
        "age_years": float(values["age_ct"]),
        "ct_device": values["CT_device"],
        "resolution_mm": float(values["Res"]),
        "bmd_mg_cm3": float(values["BMD"]),
        "t_score": None if values["DXA T-value"] == "n/a" else values["DXA T-value"],
        "series_number": 1,
        "series_count": 1,
        "n_vertebrae": values["N_vertebrae"],
        "foreign_material": None,
        "n_fractures": None,
        "grades": workbooks.graded(values, "g"),
        "shapes": workbooks.graded(values, "s"),
    }


ONCE = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@given(st.lists(right_rows(), min_size=20, max_size=20))
@ONCE
def test_right_rows_round_trip_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    """Generated tables of 20 rows, written as CSV, are read back as exactly what was written."""
    for number, values in enumerate(rows, start=1):
        values["verse_ID"] = values["subject_ID"] = number
    path = workbooks.write_csv(tmp_path_factory.getbasetemp() / "right.csv", rows)

    assert [graded.row.model_dump() for graded in read_grading(path).rows] == [
        said(v) for v in rows
    ]


def test_a_generated_workbook_round_trips_exactly(tmp_path: Path) -> None:
    """160 rows with every pair of grade and shape, through .xlsx and the child, come back the same."""
    pairs = [
        (0, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
        (2, 2),
        (2, 3),
        (3, 1),
        (3, 2),
        (3, 3),
        ("x", "x"),
    ]
    rows = []
    for number in range(1, 161):
        values = row(number, age_ct=round(18 + number / 7, 2), BMD=number * 1.25)
        for place, level in enumerate(("T10", "T11", "T12", "L1", "L2", "L3", "L4")):
            pair = pairs[(number + place) % len(pairs)]
            values[f"{level}_fx-g"], values[f"{level}_fx-s"] = pair
        rows.append(values)
    path = workbooks.write_xlsx(tmp_path / "right.xlsx", rows)

    assert [graded.row.model_dump() for graded in read_grading(path).rows] == [
        said(v) for v in rows
    ]


@given(values=right_rows(), column=st.sampled_from(COLUMNS), text=st.text(min_size=1, max_size=6))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_in_any_cell_is_refused_or_means_what_it_says(
    tmp_path_factory: pytest.TempPathFactory, values: Row, column: str, text: str
) -> None:
    """A random text in a random cell is named with its column, or is the plain value that it spells."""
    assume(text.isprintable())
    values |= {"verse_ID": 7, "subject_ID": 7, column: text}
    path = workbooks.write_csv(tmp_path_factory.getbasetemp() / "any.csv", [values])
    grading, problems = examine(read_sheet(path))
    if problems:
        # A mark that does not fit is named at the other cell of its pair, or at the gap it makes.
        named = {problem.column.split("(")[1][:-1] for problem in problems}
        assert column in named or "_fx-" in column
        assert {problem.row for problem in problems} == {2}
        return
    kept = grading.rows[0].row.model_dump()
    plain = {key: value for key, value in values.items() if key != column}
    for key, value in said(
        {**plain, column: json.loads(text) if text[-1].isdigit() else text}
    ).items():
        if key not in {"foreign_material", "n_fractures"}:
            assert kept[key] == value


def test_control_pandas_takes_many_of_them_for_values(tmp_path: Path) -> None:
    """Control: read as everybody reads it, a dozen and more wrong cells become right-looking numbers."""
    exported = workbooks.write_csv(tmp_path / "grades.csv", traps(WRONG_FIELDS))
    naive = pd.concat([pd.read_csv(line_of(exported, n)) for n in range(len(WRONG_FIELDS))])
    taken = [
        (name, text)
        for (name, text), (_, found) in zip(WRONG_FIELDS, naive.iterrows(), strict=True)
        if isinstance(found[name], bool | int | float) or found[name] != text
    ]

    assert len(taken) >= 12
    assert {("L1_fx-g", "2 "), ("L1_fx-g", "True"), ("verse_ID", "0042")} <= set(taken)
    accepted = 0
    for data, _ in WRONG_JSON:
        try:
            points = json.loads(data)
            accepted += isinstance(points, list)
        except (ValueError, RecursionError):
            continue
    assert accepted >= 20


def line_of(path: Path, number: int) -> Path:
    """Write the heading and one row of a CSV file into a file of its own, and return it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    one = path.with_name(f"row{number}.csv")
    one.write_text(f"{lines[0]}\n{lines[number + 1]}\n", encoding="utf-8")
    return one
