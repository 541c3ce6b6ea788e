"""The published figures, recomputed; the patient table; the catalog they come from."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support import workbooks
from tests.support.workbooks import row
from verse_data.errors import UsageError, ValidationFailed
from verse_data.records.names import SUBJECT_OF_SERIES
from verse_data.records.tables import PatientRow
from verse_data.releases import catalog
from verse_data.tables.figures import FigureReport, report
from verse_data.tables.grading import read_grading
from verse_data.tables.patients import read_patients

ENTRY = catalog.load_catalog("verse19")


@pytest.fixture(scope="module")
def real_report() -> FigureReport:
    """The report that the real workbook alone gives."""
    path = Path(__file__).parents[3] / "shared/data/verse19/ryai190138_AppendixE1.xlsx"
    if not path.exists():
        pytest.skip(f"the real workbook is not at {path}: this test needs it")
    return report(ENTRY, grading=read_grading(path))


def test_the_workbook_alone_reproduces_every_cell_it_can(real_report: FigureReport) -> None:
    """68 of 96 published numbers come out to the printed digit; the others say what they need."""
    assert (real_report.count("agrees"), real_report.count("differs")) == (68, 0)
    waiting = {cell.figure for cell in real_report.cells if cell.verdict == "needs"}
    assert waiting == {
        "women", "cervical", "thoracic", "lumbar",
        "contrast_none", "contrast_arterial", "contrast_portal_venous",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "printed"),
    [
        ("scans", "40 40 80 160"),
        ("patients", "37 37 67 141"),
        ("vertebrae", "429 434 862 1725"),
        ("fractures", "72 82 135 289"),
        ("grade_1", "38 41 63 142"),
        ("grade_2", "22 24 50 96"),
        ("grade_3", "12 17 22 51"),
        ("foreign_material", "9 5 17 31"),
        ("age_mean", "65.5 67.5 65.7 66.1"),
        ("age_sd", "15.8 13.3 15.5 15"),
        ("bmd_mean", "80.1 74.1 78.7 77.8"),
        ("bmd_sd", "47.2 50.9 58.8 53.6"),
        ("device_1", "13 13 26 52"),
        ("device_2", "5 5 16 26"),
        ("device_3", "8 10 10 28"),
        ("device_4", "10 7 14 31"),
        ("device_5", "1 2 1 4"),
    ],
)
def test_each_published_row_is_found(real_report: FigureReport, figure: str, printed: str) -> None:
    """The numbers of the paper's table, written here once more, independent of the catalog."""
    cells = {cell.group: cell for cell in real_report.cells if cell.figure == figure}

    groups = ("test", "validation", "training", "all")
    assert {g: cell.found for g, cell in cells.items()} == dict(
        zip(groups, printed.split(), strict=True)
    )
    assert all(cell.verdict == "agrees" for cell in cells.values())


def test_a_changed_grade_makes_cells_differ(tmp_path: Path) -> None:
    """A workbook that is not the published one shows what it gives instead."""
    path = workbooks.write_csv(tmp_path / "grades.csv", [row(4), row(5)])
    made = report(ENTRY, grading=read_grading(path))
    cell = next(c for c in made.cells if (c.figure, c.group) == ("fractures", "training"))

    assert (cell.expected, cell.found, cell.verdict) == ("135", "2", "differs")
    waiting = next(c for c in made.cells if (c.figure, c.group) == ("age_mean", "test"))
    assert (waiting.found, waiting.verdict) == (None, "needs")


def test_regions_need_all_centroid_files(tmp_path: Path) -> None:
    """Cervical counts come from the table, and only once every expected scan has its centroids."""
    rows = [
        {"scan_id": s.scan_id, "split": s.split, "region": "cervical", "has_centroid": True}
        for s in ENTRY.expected
    ]
    whole = report(ENTRY, vertebrae=pd.DataFrame(rows))
    part = report(ENTRY, vertebrae=pd.DataFrame(rows[:100]))

    def cervical(made: FigureReport) -> list[tuple[str, str | None, str]]:
        return [(c.group, c.found, c.verdict) for c in made.cells if c.figure == "cervical"]

    assert cervical(whole) == [
        ("test", "40", "differs"), ("validation", "40", "differs"),
        ("training", "80", "differs"), ("all", "160", "differs"),
    ]  # fmt: skip
    assert cervical(part)[-1] == ("all", None, "needs")


def test_sex_and_contrast_come_from_the_patient_table(tmp_path: Path) -> None:
    """With a patient table, women and contrast rows are computed; a person without a word is missed."""
    grading = read_grading(workbooks.write_csv(tmp_path / "grades.csv", [row(4), row(5), row(6)]))
    known = [
        PatientRow(subject_id="verse004", sex="F", contrast="none"),
        PatientRow(subject_id="verse005", sex="M", contrast="arterial"),
        PatientRow(subject_id="verse006", sex="F", contrast=None),
    ]
    cells = {
        c.figure: c
        for c in report(ENTRY, grading=grading, patients=known).cells
        if c.group == "all"
    }

    assert (cells["women"].found, cells["women"].verdict) == ("2", "differs")
    assert cells["contrast_arterial"].needs == "contrast of 1 patients: --patients FILE"


def test_the_report_is_plain_json(real_report: FigureReport) -> None:
    """as_json gives counts and cells that JSON can say."""
    value = json.loads(json.dumps(real_report.as_json()))

    assert value["counts"] == {"agrees": 68, "differs": 0, "needs": 28}
    assert len(value["cells"]) == 96


def write_patients(path: Path, text: str) -> Path:
    """Write a patient table."""
    path.write_text(text, encoding="utf-8")
    return path


def test_patient_tables_of_both_kinds_are_read(tmp_path: Path) -> None:
    """The documented columns, and those of the known derived table, give the same records."""
    plain = write_patients(
        tmp_path / "a.csv", "subject_id,sex,contrast\nverse004,F,none\nverse401,M,portal_venous\n"
    )
    known = write_patients(
        tmp_path / "b.csv",
        "verse_ID,subject_ID,Contrast Enhancement,Sex,Foreign Material\n4.0,4.0,ce-no,F,0\n201.0,401.0,ce-pv,M,1\n253.0,401.0,ce-pv,M,1\n",
    )  # fmt: skip

    assert read_patients(plain) == read_patients(known)
    assert [patient.subject_id for patient in read_patients(known)] == ["verse004", "verse401"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "empty"),
        ("name,age\na,1\n", "a column subject_id"),
        ("subject_id,age\nverse004,1\n", "a column subject_id"),
        ("subject_id,sex\nverse004,f\n", "row 2, column sex: 'f'"),
        ("subject_id,sex\nverse4,F\n", "row 2, column subject_id: 'verse4'"),
        ("subject_id,contrast\n4,ce-late\n", "row 2, column contrast: 'ce-late'"),
        (
            "subject_id,sex\n4,F\n4,M\n",
            "row 3, column sex: 'M': row 2 has another value for verse004",
        ),
        ("subject_id,sex\n4,F,9\n", "row 2: 3 fields where the heading has 2"),
        (
            "subject_id,sex\n4,\n4,F\n004,M\n",
            "row 4, column sex: 'M': row 2 has another value for verse004",
        ),
        ("subject_id,sex\n000,F\n", "row 2, column subject_id: '000'"),
        ("subject_id,sex\n\u0664,F\n", "row 2, column subject_id"),
        ("subject_id,subject_ID,sex\n4,4,F\n", "each once"),
    ],
)
def test_wrong_patient_tables_are_named(text: str, place: str, tmp_path: Path) -> None:
    """Missing columns, unknown words and contradictions are named with row and column."""
    with pytest.raises(ValidationFailed, match=r"patients\.csv") as caught:
        read_patients(write_patients(tmp_path / "patients.csv", text))

    assert place in str(caught.value)


def test_what_one_row_leaves_empty_another_may_say(tmp_path: Path) -> None:
    """Sex and contrast stand on the first row of a person alone, or on any; 004 is a number too."""
    text = "subject_id,sex,contrast\n401,F,\n401,,\n401,,none\n004,,\n4,M,\n4.0,,arterial\n"
    path = write_patients(tmp_path / "p.csv", text)

    assert read_patients(path) == (
        PatientRow(subject_id="verse401", sex="F", contrast="none"),
        PatientRow(subject_id="verse004", sex="M", contrast="arterial"),
    )


def test_subjects_that_match_nothing_are_told(tmp_path: Path) -> None:
    """A series number taken for a person, and a number of nobody, are notes of the report."""
    path = write_patients(tmp_path / "p.csv", "subject_id,sex\n201,F\n999,M\n401,F\n004,F\n")
    (line,) = report(ENTRY, patients=read_patients(path)).notes

    assert line.startswith("2 subjects of the patient table are not in verse19")
    assert line.endswith(": verse201 (a series of verse401), verse999")


def test_the_prose_that_the_table_contradicts_is_a_note(real_report: FigureReport) -> None:
    """The paper calls wedge the commonest type; its workbook has 143 biconcave and 106 wedge."""
    (line,) = real_report.notes

    assert line.endswith("the workbook has 143 biconcave, 106 wedge, 40 crush")


def test_private_columns_of_a_patient_table_are_not_kept(tmp_path: Path) -> None:
    """What is not asked for leaves no trace."""
    path = write_patients(tmp_path / "p.csv", "subject_id,sex,name\nverse004,F,CANARY\n")

    assert "CANARY" not in repr(read_patients(path))


def test_the_catalog_lists_the_real_series(shared: Path) -> None:
    """The 160 expected series are those of the real list, with person, split and k of n."""
    with (shared / "data/lists/scans.csv").open(newline="") as stream:
        real = [r for r in csv.DictReader(stream) if r["release_tree"] == "VerSe19"]
    expected = {s.series_id: (s.subject_id, s.split, s.series) for s in ENTRY.expected}

    assert expected == {
        r["split_entity"] or r["subject"]: (r["subject"], r["split"], r["series"]) for r in real
    }
    assert {s: p for s, p in ENTRY.subject_of_series.items() if s != p} == SUBJECT_OF_SERIES


def test_the_catalog_knows_the_workbook(shared: Path) -> None:
    """Size and digests of the supplement are those of the real file."""
    from verse_data.files import digest_file

    (supplement,) = ENTRY.supplements
    real = digest_file(shared / "data/verse19" / supplement.path)

    assert (supplement.size, supplement.sha256, supplement.md5) == (
        real.size,
        real.sha256,
        real.md5,
    )


def test_the_catalog_says_what_users_must_know() -> None:
    """Nodes, licence, three citations, four known gaps; every name is a release."""
    assert (ENTRY.osf_node, ENTRY.osf_parent) == ("jtfa5", "nqjyw")
    assert ENTRY.licence == "CC-BY-SA-4.0"
    assert len(ENTRY.citations) == 3
    assert {gap.scan_id for gap in ENTRY.known_gaps} == {
        "verse008",
        "verse072",
        "verse076",
        "verse133",
    }
    assert catalog.names() == ("phantom", "verse19", "verse20")
    assert all(catalog.load_catalog(name).name == name for name in catalog.names())


def test_an_unknown_release_is_named() -> None:
    """The error lists what there is."""
    with pytest.raises(UsageError, match="no release 'verse21'; it knows phantom, verse19"):
        catalog.load_catalog("verse21")


def test_a_catalog_entry_that_breaks_a_rule_is_named(tmp_path: Path) -> None:
    """Catalog files are data, and are checked like data."""
    (tmp_path / "release.toml").write_text('name = "x"\ntitle = 3\n')

    with pytest.raises(ValidationFailed, match="title"):
        catalog.read_entry(tmp_path)
