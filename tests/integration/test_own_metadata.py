"""What a lab says of its own release: a list of grades, a table of patients, and about.toml."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import verse_data as vd
from tests.support.command import verse_data
from verse_data.errors import ContentMissing, UsageError, ValidationFailed
from verse_data.phantom import write
from verse_data.releases.import_lock import read_lock
from verse_data.releases.repository import Repository
from verse_data.tables.grading import read_grading

HEADING = "scan_id,level,grade,fracture_type,foreign_material\n"
ABOUT = """
title = "Spines of a made-up lab"
licence = "CC-BY-4.0"
attribution = "Spines by Nobody et al., CC BY 4.0."
creators = ["Nobody, Ann"]

[[citations]]
authors = ["Nobody, Ann", "Other, Bo"]
title = "Made-up spines"
journal = "Journal of Phantoms"
year = 2026
doi = "10.1234/phantoms.1"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, vd.Release]:
    """Write a phantom without its workbook, and lock it with the workbook, once."""
    folder = tmp_path_factory.mktemp("made")
    tree = write(folder / "tree", n_subjects=5, shape=(48, 96, 36))
    whole = vd.lock_tree("whole", tree, root=folder / "home")
    (workbook,) = tree.glob("*.xlsx")
    workbook.unlink()
    return tree, whole


@pytest.fixture
def tree(made: tuple[Path, vd.Release], tmp_path: Path) -> Path:
    """A folder of links to that phantom, to put files beside."""
    copied = tmp_path / "tree"
    copied.mkdir()
    for path in made[0].iterdir():
        (copied / path.name).symlink_to(path)
    return copied


def grades_of(release: vd.Release) -> pd.DataFrame:
    """Return the columns that a list of grades fills."""
    columns = ["scan_id", "level", "grade", "fracture_type", "foreign_material", "grade_status"]
    return release.vertebrae[columns]


def as_list(release: vd.Release) -> str:
    """Return a release's own grades as a list, as a lab would write them."""
    rows = grades_of(release)
    rows = rows[rows["grade_status"] != "not_assessed"]
    return rows.drop(columns="grade_status").to_csv(index=False)


def test_a_list_of_grades_and_a_table_of_patients_say_what_the_workbook_does(
    made: tuple[Path, vd.Release], tree: Path
) -> None:
    """Grade, shape, foreign material, age, density and T-score come out the same; sex is new."""
    whole = made[1]
    people = whole.subjects[["subject_id", "age_years", "bmd_mg_cm3", "t_score"]]
    people = people.assign(sex=["F", "M"] * (len(people) // 2) + ["F"] * (len(people) % 2))
    (tree / "grades.csv").write_text(as_list(whole))
    (tree / "patients.csv").write_text(people.to_csv(index=False))

    own = vd.lock_tree("mylab", tree)

    pd.testing.assert_frame_equal(grades_of(own), grades_of(whole))
    same = ["subject_id", "age_years", "bmd_mg_cm3", "t_score", "n_graded", "n_fractured"]
    pd.testing.assert_frame_equal(own.subjects[same], whole.subjects[same])
    assert list(own.subjects["sex"]) == list(people["sex"])
    young = "age_years < 70 and grade >= 1"
    assert len(own.select(young)) == len(whole.select(young)) > 0
    assert not {"unknown-file", "no-workbook"} & set(own.findings["rule"])
    ages, same_ages = (
        {one.figure: one.found for one in release.report().results if "patients_" in one.figure}
        for release in (own, whole)
    )
    assert ages == same_ages
    assert None not in ages.values()
    assert len(ages) == 5


def test_a_list_of_grades_alone_is_reported(tree: Path, made: tuple[Path, vd.Release]) -> None:
    """Nobody has an age then, and the page has what there is."""
    (tree / "grades.csv").write_text(as_list(made[1]))

    found = {one.figure: one.found for one in vd.lock_tree("mylab", tree).report().results}

    assert found["patients_n"]
    assert not any("age" in name or "bmd" in name for name in found)


def test_a_list_may_leave_shapes_out_and_grade_any_level(
    made: tuple[Path, vd.Release], tree: Path
) -> None:
    """A fracture without a shape is graded, its shape missing; grade 0 has none; blanks are no grade."""
    masked = made[1].vertebrae.query("has_mask")
    scan, levels = masked["scan_id"].iloc[0], list(masked["level"].iloc[:3])
    lines = [f"{scan},{levels[0]},2", f"{scan},{levels[1]},0", f"{scan},{levels[2]},"]
    (tree / "grades.csv").write_text("scan_id,level,grade\n" + "\n".join(lines))

    rows = (
        vd.lock_tree("mylab", tree, check=False).vertebrae.set_index(["scan_id", "level"]).loc[scan]
    )

    assert list(rows.loc[levels, "grade_status"]) == ["graded", "graded", "not_assessed"]
    assert rows.loc[levels[0], "grade"] == 2
    assert pd.isna(rows.loc[levels[0], "fracture_type"])
    assert rows.loc[levels[1], "fracture_type"] == "none"
    assert pd.isna(rows.loc[levels[2], "grade"])


@pytest.mark.parametrize(
    ("line", "column", "rule"),
    [
        ("a b,T12,1,wedge,", "A (scan_id)", "is not the id of a scan"),
        ("verse901,T14,1,wedge,", "B (level)", "is not a level from C1 to L6"),
        ("verse901,t12,1,wedge,", "B (level)", "is not a level from C1 to L6"),
        ("verse901,T12,4,wedge,", "C (grade)", "only 0, 1, 2, 3, x"),
        ("verse901,T12,1.5,wedge,", "C (grade)", "only 0, 1, 2, 3, x"),
        ("verse901,T12,1,Keil,", "D (fracture_type)", "is not one of none, wedge"),
        ("verse901,T12,0,wedge,", "D (fracture_type)", "grade 0 goes with shape 0"),
        ("verse901,T12,,wedge,", "D (fracture_type)", "shape without grade"),
        ("verse901,T12,1,wedge,true", "E (foreign_material)", "not both"),
        ("verse901,T12,x,,false", "E (foreign_material)", "not both"),
        ("verse901,T12,1,wedge,yes", "E (foreign_material)", "is not true or false"),
        ("verse901,L1,1,wedge,", "B (level)", "row 2 has L1 of verse901 already"),
    ],
)
def test_a_wrong_line_of_a_list_is_named_by_row_and_column(
    tmp_path: Path, line: str, column: str, rule: str
) -> None:
    """The rules are those of the workbook, where it has them."""
    listed = tmp_path / "grades.csv"
    listed.write_text(f"{HEADING}verse901,L1,0,,\n{line}\n")

    with pytest.raises(ValidationFailed) as caught:
        read_grading(listed)

    assert "grades.csv, row 3" in str(caught.value)
    assert f"column {column}" in str(caught.value)
    assert rule in str(caught.value)


def test_a_list_with_other_columns_is_refused_by_name_and_in_a_folder_left_alone(
    tree: Path, tmp_path: Path
) -> None:
    """A column may hold a name, and a release holds its files as they are."""
    listed = Path(tmp_path / "grades.csv")
    listed.write_text("scan_id,level,grade,patient\nverse901,L1,0,CANARY\n")
    vd.lock_tree("mylab", tree)

    done = verse_data("adopt", "mylab", str(listed))

    assert done.returncode == ValidationFailed.exit_code
    assert "this has others: patient. Remove them" in done.stderr
    assert "CANARY" not in done.stderr


def test_an_adopted_list_makes_a_version_and_diff_names_the_grades_that_changed(
    made: tuple[Path, vd.Release], tree: Path, tmp_path: Path
) -> None:
    """Lines of scans without a file are findings; a corrected list is compared vertebra by vertebra."""
    vd.lock_tree("mylab", tree)
    listed, text = tmp_path / "ours.csv", as_list(made[1])
    listed.write_text(f"{text}lab999,T1,0,,\n")

    done = verse_data("adopt", "mylab", str(listed))

    assert done.returncode == 0, done.stderr
    release = vd.open_release("mylab")
    assert release.version == "v2"
    found = release.findings.query("rule == 'grading-without-scan'")
    assert list(found["scan_id"]) == ["lab999"]
    healthy = next(line for line in text.splitlines() if ",0," in line)
    scan, level = healthy.split(",")[:2]
    changed = text.replace(healthy, f"{scan},{level},1,wedge,False") + "lab999,T1,0,,\n"
    (tree / "grading.csv").write_text(changed)  # the name that it has in the release
    cells = vd.lock_tree("mylab", tree, check=False).diff("v2").cells
    found = {(cell.scan_id, cell.level, cell.column, cell.old, cell.new) for cell in cells}
    assert found == {
        (scan, level, "grade", 0, 1),
        (scan, level, "fracture_type", "none", "wedge"),
    }


def test_a_condition_on_what_neither_workbook_nor_patients_say_is_refused(tree: Path) -> None:
    """With a table of patients, age is known and grades are not."""
    (tree / "patients.csv").write_text("subject_id,age\nverse901,71\n")
    own = vd.lock_tree("mylab", tree)

    with pytest.warns(vd.IncompleteTable):
        assert set(own.select("age_years == 71")["subject_id"]) == {"verse901"}
    with pytest.raises(ContentMissing, match="scan_id, level, grade"):
        own.select("grade >= 2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subject_id,age\nverse901,old\n", "row 2, column age: 'old': is not a number"),
        ("subject_id,age\nverse901,130\n", "row 2, column age: '130': must be 120.0 or less"),
        ("subject_id,sex\nverse901,W\n", "row 2, column sex: 'W': is not one of F, M"),
        ("subject_id,sex\nverse901,F\nverse901,M\n", "row 3, column sex: 'M': row 2 has another"),
        ("subject_id,sex\n,F\n", "row 2, column subject_id: is neither a whole number"),
        ("subject_id,sex,name\nverse901,F,x\n", "other columns than subject_id, sex"),
        ("sex,bmd\nF,1\n", "a column subject_id, and one of sex, age, bmd_mg_cm3 and t_score"),
        ("subject_id,age\n", "no row below the heading"),
        ("subject_id;age\nverse901;71,5\n", "no comma between fields, but semicolons"),
    ],
)
def test_a_wrong_table_of_patients_is_refused_with_its_place(
    tree: Path, text: str, said: str
) -> None:
    """Nothing is written."""
    (tree / "patients.csv").write_text(text)

    with pytest.raises(ValidationFailed) as caught:
        vd.lock_tree("mylab", tree)

    assert said in str(caught.value)
    assert "mylab" not in str(vd.list_releases())


def test_a_patient_of_whom_there_is_no_scan_is_told_when_the_folder_is_locked(tree: Path) -> None:
    """A mistyped id would leave its cells missing in silence; it stays a finding of the release."""
    (tree / "patients.csv").write_text("subject_id,age\nverse901,71\nverse9001,64\n")
    (tree / "grades.csv").write_text("scan_id,level,grade\nverse901,L1,0\nverse9001,L1,1\n")

    done = verse_data("lock", "mylab", "--from-tree", str(tree))

    assert done.returncode == 0, done.stderr
    assert "grades.csv has 1 scan that the tree has not: verse9001." in done.stderr
    assert "patients.csv has 1 patient that the tree has not: verse9001." in done.stderr
    found = vd.open_release("mylab").findings.query("rule == 'patient-without-scan'")
    assert list(found["subject_id"]) == ["verse9001"]


def test_about_gives_a_release_title_licence_and_citations(tree: Path, tmp_path: Path) -> None:
    """They are part of the lock, and stand in citation, provenance and Croissant."""
    about = tmp_path / "lab.toml"
    about.write_text(ABOUT)

    done = verse_data("lock", "mylab", "--from-tree", str(tree), "--about", str(about))

    assert done.returncode == 0, done.stderr
    own = vd.open_release("mylab")
    assert "about.toml" in own.lock.by_path
    text = own.citation()
    assert "Spines of a made-up lab (CC-BY-4.0), release mylab v1" in text
    assert "Nobody A, Other B. Made-up spines. Journal of Phantoms 2026." in text
    assert own.provenance().licence == "CC-BY-4.0"
    described = json.loads(verse_data("export", "croissant", "mylab").stdout)
    assert described["license"] == "https://spdx.org/licenses/CC-BY-4.0"
    assert described["citeAs"].startswith("Nobody A, Other B. Made-up spines")
    (tree / "about.toml").write_text(ABOUT)
    assert vd.lock_tree("mylab", tree).version == "v1"  # the same file, now in the folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = 'x'\n", "licence: is missing"),
        (ABOUT.replace("CC-BY-4.0", "CC BY", 1), "licence: must have the form"),
        (ABOUT + "colour = 3\n", "colour: is not a known field"),
        ("title: x", "not TOML"),
    ],
)
def test_a_wrong_about_is_refused_before_anything_is_hashed(
    tree: Path, tmp_path: Path, text: str, said: str
) -> None:
    """The error names the key, and where an example is."""
    about = tmp_path / "about.toml"
    about.write_text(text)

    with pytest.raises(ValidationFailed, match=said):
        vd.lock_tree("mylab", tree, about=about)

    with pytest.raises(UsageError, match="is published"):
        vd.lock_tree("phantom", tree, about=about)


def test_a_release_whose_about_is_not_here_says_so(tree: Path, tmp_path: Path) -> None:
    """A lock that was handed on lists it; citations without it would be wrong in silence."""
    (tree / "about.toml").write_text(ABOUT)
    lock = vd.lock_tree("mylab", tree).lock
    (tmp_path / "lock.json").write_bytes(lock.canonical())
    settings = vd.open_release("mylab").config
    other = Repository(tmp_path / "other" / "releases" / "mylab", config=settings)
    other.publish(read_lock(str(tmp_path / "lock.json"), settings))

    with pytest.warns(UserWarning, match="about.toml of mylab v1"):
        assert vd.open_release("mylab", root=tmp_path / "other").catalog is None
