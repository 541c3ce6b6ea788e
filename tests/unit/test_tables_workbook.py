"""The grading workbook: the real one, its copies and exports, and what it may not hold."""

from __future__ import annotations

import io
import os
import shutil
import sys
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import openpyxl
import pytest

from tests.support import workbooks
from tests.support.workbooks import row
from verse_data.errors import SheetRefused, ToolMissing, ValidationFailed
from verse_data.spine.levels import GRADED_LEVELS
from verse_data.tables.grading import Grading, check_sheet, read_grading
from verse_data.tables.workbook import letters_of, read_sheet

REAL = "data/verse19/ryai190138_AppendixE1.xlsx"

PER_LEVEL = """
T1 3/0/0/0 70 T2 3/0/0/0 70 T3 8/0/1/0 61 T4 3/2/0/0 61 T5 6/0/1/0 60 T6 3/4/2/0 60 T7 9/1/4/0 63
T8 8/2/3/0 66 T9 7/4/2/0 81 T10 5/4/0/0 88 T11 9/3/3/3 94 T12 12/12/4/3 105 L1 15/15/17/2 125
L2 18/18/3/3 125 L3 17/9/5/5 124 L4 11/15/3/6 121 L5 5/7/3/9 120 L6 0/0/0/0 6
""".split()  # noqa: SIM905 - a table is easier to compare with its source than a list


@pytest.fixture(scope="module")
def real() -> Grading:
    """The real workbook, read once."""
    path = Path(__file__).parents[3] / "shared" / REAL
    if not path.exists():
        pytest.skip(f"the real workbook is not at {path}: this test needs it")
    return read_grading(path)


def test_the_real_workbook_holds_160_series_of_141_subjects(real: Grading) -> None:
    """All rows pass all rules; 80, 40 and 40 series of 67, 37 and 37 subjects."""
    rows = [graded.row for graded in real.rows]
    subjects = defaultdict(set)
    for found in rows:
        subjects[found.split].add(found.subject_id)

    assert len(rows) == 160
    assert Counter(found.split for found in rows) == {"training": 80, "validation": 40, "test": 40}
    assert {s: len(x) for s, x in subjects.items()} == {
        "training": 67,
        "validation": 37,
        "test": 37,
    }
    assert len(set.union(*subjects.values())) == 141
    assert [graded.number for graded in real.rows] == list(range(2, 162))


def test_the_real_grades_and_shapes_are_counted_exactly(real: Grading) -> None:
    """Every pair of grade and shape occurs as often as published; 31 x, 1,380 blanks."""
    pairs = Counter(
        (graded.row.grades[level], graded.row.shapes[level])
        for graded in real.rows
        for level in graded.row.grades
    )

    assert pairs == {
        (0, 0): 1180, (1, 1): 51, (1, 2): 91, (2, 1): 40, (2, 2): 42, (2, 3): 14,
        (3, 1): 15, (3, 2): 10, (3, 3): 26, ("x", "x"): 31,
    }  # fmt: skip
    assert 160 * 18 - pairs.total() == 1380
    regions = Counter(level[0] for graded in real.rows for level in graded.row.grades)
    assert regions == {"T": 879, "L": 621}


def test_the_real_grades_by_split_are_those_of_the_paper(real: Grading) -> None:
    """Per split: healthy, mild, moderate, severe, foreign."""
    found = {split: Counter[object]() for split in ("training", "validation", "test")}
    for graded in real.rows:
        found[graded.row.split].update(graded.row.grades.values())

    assert found["training"] == {0: 598, 1: 63, 2: 50, 3: 22, "x": 17}
    assert found["validation"] == {0: 288, 1: 41, 2: 24, 3: 17, "x": 5}
    assert found["test"] == {0: 294, 1: 38, 2: 22, 3: 12, "x": 9}


def test_the_real_grades_by_level_are_exact(real: Grading) -> None:
    """For each of 18 levels: grades 1/2/3/x, and how many cells are filled."""
    for level, counts, filled in zip(PER_LEVEL[::3], PER_LEVEL[1::3], PER_LEVEL[2::3], strict=True):
        marks = [g.row.grades[level] for g in real.rows if level in g.row.grades]
        assert "/".join(str(marks.count(mark)) for mark in (1, 2, 3, "x")) == counts, level
        assert len(marks) == int(filled), level


def test_the_real_odd_rows_are_the_known_ones(real: Grading) -> None:
    """Seven scans without a graded level, six with L6, 13 patients with foreign material."""
    rows = [graded.row for graded in real.rows]

    assert {r.series_id for r in rows if not r.grades} == {
        f"verse{n:03d}" for n in (217, 241, 247, 250, 215, 90, 205)
    }
    assert {r.series_id for r in rows if "L6" in r.grades} == {
        f"verse{n:03d}" for n in (83, 131, 113, 255, 261, 23)
    }
    assert {r.subject_id for r in rows if "x" in r.grades.values()} == {
        f"verse{n:03d}" for n in (32, 40, 53, 144, 15, 36, 56, 63, 122, 137, 146, 93, 150)
    }
    fractured = {r.subject_id for r in rows if {1, 2, 3} & set(r.grades.values())}
    assert len(fractured) == 91
    assert {r.series_id for r in rows if r.bmd_mg_cm3 == 0} == {
        f"verse{n:03d}" for n in (9, 20, 149, 226, 266)
    }
    assert sum(r.t_score is None for r in rows) == 52
    assert sum(r.n_vertebrae for r in rows) == 1725


def test_the_series_number_is_not_the_subject(real: Grading) -> None:
    """verse_ID names the series: 201 and 253 belong to subject 401."""
    subject = {graded.row.series_id: graded.row.subject_id for graded in real.rows}

    assert subject["verse201"] == subject["verse253"] == "verse401"
    assert subject["verse004"] == "verse004"


def test_copies_renames_and_float_exports_are_the_same(real: Grading, tmp_path: Path) -> None:
    """A renamed workbook, and a CSV export with 12.0 for 12, give exactly the same rows."""
    source = Path(__file__).parents[3] / "shared" / REAL
    renamed = tmp_path / "scores.xlsx"
    shutil.copy(source, renamed)
    exported = tmp_path / "ryai190138_appendixe1.csv"
    book = openpyxl.load_workbook(source, read_only=True)
    lines = list(book["VerSe_dataset"].iter_rows(max_row=161, values_only=True))
    book.close()
    rows = [
        {
            name: float(v) if isinstance(v, int) else v
            for name, v in zip(lines[0], line, strict=True)
        }
        for line in lines[1:]
    ]
    workbooks.write_csv(exported, rows, index=True)  # type: ignore[arg-type]

    expected = [graded.row for graded in real.rows]
    assert [graded.row for graded in read_grading(renamed).rows] == expected
    assert [graded.row for graded in read_grading(exported).rows] == expected


@pytest.mark.parametrize("name", ["scores", "scores.dat", "scores.csv", "scores.xlsx"])
def test_the_kind_is_told_by_content(name: str, tmp_path: Path) -> None:
    """A workbook or a CSV export is read whatever it is called, or without any ending."""
    book = workbooks.write_xlsx(tmp_path / "a.xlsx", [row(4)]).rename(tmp_path / name)
    assert len(read_grading(book).rows) == 1
    text = workbooks.write_csv(tmp_path / "a.csv", [row(4)]).rename(tmp_path / f"{name}.txt")
    assert len(read_grading(text).rows) == 1


@pytest.mark.parametrize("sign", [";", "\t"])
def test_another_separator_is_one_problem(sign: str, tmp_path: Path) -> None:
    """An export with semicolons or tabs is told so, in place of 49 missing columns."""
    path = workbooks.write_csv(tmp_path / "grades.csv", [row(4)])
    path.write_text(path.read_text().replace(",", sign))

    with pytest.raises(
        ValidationFailed, match=r"grades\.csv, row 1: there is no comma between fields"
    ) as e:
        read_grading(path)
    assert str(e.value).count("row") == 1


def test_two_sheets_that_could_be_the_data_are_named(tmp_path: Path) -> None:
    """Of two renamed copies none is chosen, and the error says which they are."""
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [row(4)], sheet="old")
    book = openpyxl.load_workbook(path)
    book.copy_worksheet(book["old"]).title = "new"
    book.save(path)

    with pytest.raises(ValidationFailed, match=r"2 sheets have the headings .*'old', 'new'"):
        read_grading(path)


def test_all_wrong_cells_are_named_at_once(tmp_path: Path) -> None:
    """Each problem says file, sheet, row, column with its letter, value and rule."""
    path = workbooks.write_xlsx(
        tmp_path / "grades.xlsx",
        [
            row(4, **{"L1_fx-g": 5}),
            row(5, **{"T12_fx-g": None}),
            row(6, BMD=True),
            row(7, Res="2 "),
        ],
    )

    with pytest.raises(ValidationFailed) as caught:
        read_grading(path)

    text = str(caught.value)
    assert caught.value.exit_code == 3
    assert "grades.xlsx: 4 problems:" in text
    for place in (
        "sheet VerSe_dataset, row 2, column Y (L1_fx-g): 5:",
        "sheet VerSe_dataset, row 3, column AP (T12_fx-s): 0: shape without grade",
        "sheet VerSe_dataset, row 4, column G (BMD): True:",
        "sheet VerSe_dataset, row 5, column F (Res): '2 ':",
    ):
        assert place in text


def test_after_twenty_problems_the_rest_is_counted(tmp_path: Path) -> None:
    """A thousand wrong cells do not make a thousand lines."""
    rows = [row(100 + n, **{"L1_fx-g": 5}) for n in range(30)]

    with pytest.raises(ValidationFailed, match="30 problems") as caught:
        read_grading(workbooks.write_csv(tmp_path / "grades.csv", rows))

    assert str(caught.value).count("row ") == 20
    assert "and 10 more" in str(caught.value)


def test_a_blank_t12_is_right_only_where_the_spine_has_none(tmp_path: Path) -> None:
    """T11 followed by L1 is a gap, unless mask or centroids show a spine without T12."""
    gap = row(4, **{"T12_fx-g": None, "T12_fx-s": None})
    path = workbooks.write_csv(tmp_path / "grades.csv", [gap])

    with pytest.raises(ValidationFailed, match=r"row 2, column X \(T12_fx-g\): blank between"):
        read_grading(path)
    assert len(check_sheet(read_sheet(path), without_t12={"verse004"}).rows) == 1


def test_counts_are_recomputed(tmp_path: Path) -> None:
    """The workbook's own COUNTIF is accepted, and a number must be the true count."""
    right = row(4, foreign_material='=COUNTIF(M2:AD2, "x")', N_Fx='=COUNTIF(M2:AD2, ">0")')
    assert len(read_grading(workbooks.write_xlsx(tmp_path / "a.xlsx", [right])).rows) == 1

    wrong = row(4, foreign_material=0, N_Fx=2)
    with pytest.raises(
        ValidationFailed, match=r"column L \(N_Fx\): 2: the row has 1 grades above 0"
    ):
        read_grading(workbooks.write_csv(tmp_path / "b.csv", [wrong]))


def test_empty_rows_are_skipped_and_an_empty_sheet_is_not(tmp_path: Path) -> None:
    """Blank lines between rows do not matter; a sheet without any row is an error."""
    path = workbooks.write_csv(tmp_path / "grades.csv", [row(4), row(5)])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "," * 47, *lines[2:], "," * 47, ""]))
    assert [graded.number for graded in read_grading(path).rows] == [2, 4]

    with pytest.raises(ValidationFailed, match="no row below the heading"):
        read_grading(workbooks.write_csv(tmp_path / "none.csv", []))


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (b"", "grades.xlsx", ValidationFailed),
        (b"\xd0\xcf\x11\xe0 old .xls", "grades.xlsx", ValidationFailed),
        (b"PK\x03\x04 cut", "grades.xlsx", ValidationFailed),
        (b"", "grades.csv", ValidationFailed),
        (b"\xff\xfea,b", "grades.csv", ValidationFailed),
        (b'a,"b', "grades.csv", ValidationFailed),
        (b"a," * 5_000_000, "grades.csv", SheetRefused),
    ],
)
def test_what_is_no_workbook_is_named(
    content: bytes, name: str, kind: type[Exception], tmp_path: Path
) -> None:
    """Empty, foreign, cut, wrongly encoded and oversized files are errors that name the file."""
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(kind, match=name):
        read_grading(path)


def test_another_sheet_name_is_found_by_its_heading(tmp_path: Path) -> None:
    """A sheet that was renamed is recognised; a workbook without one is an error that lists them."""
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [row(4)], sheet="Tabelle1")
    assert read_grading(path).sheet.sheet == "Tabelle1"

    book = openpyxl.Workbook()
    book.save(tmp_path / "other.xlsx")
    with pytest.raises(ValidationFailed, match="its sheets are 'Sheet'"):
        read_grading(tmp_path / "other.xlsx")


LAST_ROW, LAST_COLUMN = 1 << 20, 1 << 14
EMPTY = {
    "a formatted tail": (
        "</sheetData>",
        '<row r="1048575" ht="9"/><row r="1048576"><c r="A1048576" s="0"/></row>',
    ),
    "formatted columns": ("</row>", "".join(f'<c r="H{a}1" s="0"/>' for a in "ABCDEFGH")),
    "every row of the sheet": (
        "</sheetData>",
        "".join(f'<row r="{n}" ht="9"/>' for n in range(3, LAST_ROW + 1)),
    ),
    "every cell of fifty rows": (
        "</sheetData>",
        "".join(
            f'<row r="{n}">'
            + "".join(f'<c r="{letters_of(c)}{n}" s="0"></c>' for c in range(1, LAST_COLUMN + 1))
            + "</row>"
            for n in range(3, 53)
        ),
    ),
    "every row, as another program writes it": (
        "</sheetData>",
        "".join(f"<row spans='1:48' r='{n}'><c s='1' r='A{n}'/></row>" for n in range(3, 400_000)),
    ),
    "empty texts": (
        "</sheetData>",
        "".join(
            f'<row r="{n}"><c r="A{n}" t="inlineStr"><is><t></t></is></c></row>'
            for n in range(3, 300_000)
        ),
    ),
    "a blank in rows below": (
        "</sheetData>",
        "".join(
            f'<row r="{n}"><c r="A{n}" t="inlineStr"><is><t xml:space="preserve"> </t></is></c></row>'
            for n in range(9, 99)
        ),
    ),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_formatted_cells_that_hold_nothing_count_for_nothing(kind: str, tmp_path: Path) -> None:
    """Spreadsheets write empty rows and cells where a whole column or row was formatted."""
    mark, empty = EMPTY[kind]
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [row(4)])
    workbooks.edit_member(
        path,
        "xl/worksheets/sheet1.xml",
        lambda xml: xml.replace(mark.encode(), (empty + mark).encode(), 1),
    )

    assert [graded.number for graded in read_grading(path).rows] == [2]


def test_empty_rows_and_columns_of_a_csv_export_count_for_nothing(tmp_path: Path) -> None:
    """They cost neither the limit of rows, nor that of columns."""
    path = workbooks.write_csv(tmp_path / "grades.csv", [row(4)])
    far = "," * 400
    lines = [line + far for line in path.read_text().splitlines()]
    path.write_text("\r\n".join([*lines, *["," * 447] * 100, *[""] * 50_000]))

    assert [graded.number for graded in read_grading(path).rows] == [2]


def test_a_place_is_told_by_its_own_row_and_cells_in_a_large_sheet_too(tmp_path: Path) -> None:
    """Cells that do not say where they stand are never moved by what is left out before them."""
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [row(4)])
    empty = b"".join(b'<row r="%d" spans="1:48"/>' % n for n in range(3, 90_000))
    workbooks.edit_member(
        path,
        "xl/worksheets/sheet1.xml",
        lambda xml: xml.replace(b"</sheetData>", empty + b"<row><c><v>7</v></c></row></sheetData>"),
    )

    with pytest.raises(SheetRefused, match="at row 90,000, column 1"):
        read_grading(path)


def test_a_strict_workbook_is_read_as_any_other(tmp_path: Path) -> None:
    """Excel's "Strict Open XML" differs in its namespaces; a date there is still no number."""
    usual = b"http://schemas.openxmlformats.org/"
    path = workbooks.write_xlsx(tmp_path / "grades.xlsx", [row(4), row(5)])
    expected = [graded.row for graded in read_grading(path).rows]

    def strict(xml: bytes) -> bytes:
        for part in (b"spreadsheetml", b"officeDocument", b"drawingml"):
            xml = xml.replace(
                usual + part + b"/2006/", b"http://purl.oclc.org/ooxml/" + part + b"/"
            )
        return xml.replace(b"<workbook ", b'<workbook conformance="strict" ')

    with zipfile.ZipFile(path) as source:
        members = source.namelist()
    for member in members:
        workbooks.edit_member(path, member, strict)
    assert [graded.row for graded in read_grading(path).rows] == expected

    age, date = b'<c r="D2" t="n"><v>60.5</v></c>', b'<c r="D2" t="d"><v>2020-01-02</v></c>'
    workbooks.edit_member(path, "xl/worksheets/sheet1.xml", lambda xml: xml.replace(age, date))
    with pytest.raises(ValidationFailed, match=r"row 2, column D \(age_ct\): '2020-01-02"):
        read_grading(path)


def test_a_workbook_with_macros_is_read_as_any_other(tmp_path: Path) -> None:
    """Its type is another one, and its macros are not looked at."""
    path = workbooks.write_xlsx(tmp_path / "grades.xlsm", [row(4)])
    kinds = (
        b"openxmlformats-officedocument.spreadsheetml.sheet.main",
        b"ms-excel.sheet.macroEnabled.main",
    )
    workbooks.edit_member(path, "[Content_Types].xml", lambda xml: xml.replace(*kinds))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("xl/vbaProject.bin", b"\xd0\xcf\x11\xe0 macros")

    assert len(read_grading(path).rows) == 1


def zipped(*members: str) -> bytes:
    """Return a zip with members of these names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in members:
            archive.writestr(name, "application/vnd.oasis.opendocument" * (name == "mimetype"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
            r"old Excel .*\(\.xls\), or one with a password",
        ),
        (zipped("mimetype", "content.xml"), r"OpenDocument file \(\.ods\)"),
        (zipped("[Content_Types].xml", "xl/workbook.bin"), r"no xl/workbook\.xml"),
        (b"<html><table><tr><td>a</td></tr></table>", "neither an .xlsx workbook nor a CSV"),
    ],
)
def test_a_table_of_another_form_is_told_how_to_be_saved(
    content: bytes, form: str, tmp_path: Path
) -> None:
    """It is named by what it is, whatever it is called."""
    path = tmp_path / "grading.xlsx"
    path.write_bytes(content)

    with pytest.raises(
        ValidationFailed,
        match=rf"^grading\.xlsx: .*{form}.* (save it as \.xlsx, or|export the sheet) as CSV",
    ):
        read_grading(path)


WRAPPER = """#!/bin/sh
[ "$LD_LIBRARY_PATH" = /of/a/module ] && [ -z "$SECRET" ] || { echo "no libpython" >&2; exit 127; }
case " $* " in *" -I "*|*" -E "*) echo "PYTHONHOME is ignored" >&2; exit 1;; esac
[ "$PYTHONHOME" = /home/of/python ] || exit 1
unset PYTHONHOME
exec PYTHON "$@"
"""


@pytest.mark.skipif(os.name != "posix", reason="the interpreter is a shell script")
def test_the_reader_starts_where_python_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python of a module, or one that was moved, needs variables; it gets those, and no others."""
    path = workbooks.write_xlsx(tmp_path / "grading.xlsx", [row(4)])
    python = tmp_path / "python"
    python.write_text(WRAPPER.replace("PYTHON ", f"'{sys.executable}' "))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PYTHONHOME", "/home/of/python")
    monkeypatch.setenv("SECRET", "of nobody's business")

    with pytest.raises(ToolMissing, match=r"does not start.* ended with 127: no libpython\. See"):
        read_grading(path)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/a/module")
    assert len(read_grading(path).rows) == 1
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(ToolMissing, match="does not start"):
        read_grading(workbooks.write_xlsx(path, [row(5)]))


def test_graded_levels_are_the_columns(real: Grading) -> None:
    """The sheet has a grade and a shape column for T1 to T12 and L1 to L6, in this order."""
    letters = [real.sheet.column(f"{level}_fx-g") for level in GRADED_LEVELS]

    assert (letters[0], letters[-1]) == ("M (T1_fx-g)", "AD (L6_fx-g)")
    assert len(real.sheet.letters) == 48
