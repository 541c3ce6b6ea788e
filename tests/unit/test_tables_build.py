"""The three tables and the findings, from a tiny release and from the real files."""

from __future__ import annotations

import gzip
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest

from tests.support import workbooks
from tests.support.opened import opened_below
from tests.support.releases import PIR, centre, locked, source_of, tables, write_scan
from tests.support.workbooks import row
from verse_data.errors import ValidationFailed, VolumeCorrupt
from verse_data.files import digest_file
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.records.tables import ScanRecord, VertebraRecord
from verse_data.releases.catalog import load_catalog
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.tables.assemble import Tables, build_tables
from verse_data.tables.check import check_tree
from verse_data.tables.columns import MODELS, columns
from verse_data.tables.index import index_scans
from verse_data.volumes.nifti import write_nifti

TEN_TO_FOUR = [17, 18, 19, 20, 21, 22, 23]
"""T10 to L4: what a right row of the small workbook grades."""


def found(findings: pd.DataFrame, rule: str) -> list[tuple[str, str]]:
    """Return scan and level of each finding of one rule."""
    some = findings[findings["rule"] == rule]
    return list(zip(some["scan_id"], some["level"], strict=True))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Three scans: 004 in order; 401 with two series, a level without grade and one without mask."""
    root = tmp_path / "tree"
    write_scan(root, "verse004", TEN_TO_FOUR)
    write_scan(root, "verse401_split-verse201", [*TEN_TO_FOUR[1:], 24])
    write_scan(root, "verse401_split-verse253", [7, 8, 9])
    rows = [
        row(4, **{"T12_fx-g": "x", "T12_fx-s": "x"}),
        row(201, subject=401, part="1 of 2"),
        row(253, subject=401, part="2 of 2")
        | {f"{level}_fx-{s}": None for level in LEVELS[7:] if level != "T13" for s in "gs"},
    ]
    workbooks.write_csv(root / "grading.csv", rows)
    return root


def test_each_level_has_a_status_and_no_blank_is_healthy(release: Path) -> None:
    """graded, foreign_material, not_assessed and no_mask follow from workbook, mask and centroids."""
    rows = tables(release).vertebrae.set_index(["scan_id", "level"])

    def of(scan: str, level: str) -> dict[str, Any]:
        return rows.loc[(scan, level)].to_dict()

    plain = of("verse004", "L1")
    assert (plain["grade"], plain["fracture_type"], plain["grade_status"]) == (2, "wedge", "graded")
    assert plain["foreign_material"] is False
    foreign = of("verse004", "T12")
    assert pd.isna(foreign["grade"])
    assert foreign["foreign_material"] is True
    assert foreign["grade_status"] == "foreign_material"
    blank = of("verse401_split-verse201", "L5")
    assert pd.isna(blank["grade"])
    assert pd.isna(blank["foreign_material"])
    assert (blank["grade_status"], blank["has_mask"]) == ("not_assessed", True)
    unseen = of("verse401_split-verse201", "T10")
    assert (unseen["grade"], unseen["grade_status"]) == (0, "no_mask")
    assert (unseen["has_mask"], unseen["has_centroid"]) == (False, False)
    cervical = of("verse401_split-verse253", "C7")
    assert (cervical["grade_status"], cervical["region"], cervical["label"]) == (
        "not_assessed",
        "cervical",
        7,
    )
    assert len(rows) == 7 + 8 + 3


def test_positions_and_volumes_are_exact(release: Path) -> None:
    """Centroids are voxels of the source grid and mm of the world; volumes count voxels."""
    first = tables(release).vertebrae.iloc[0]

    assert first["level"] == "T10"
    assert [first[f"centroid_{axis}"] for axis in "ijk"] == centre(0)
    expected = PIR[:3, :3] @ centre(0) + PIR[:3, 3]
    assert np.allclose([first[f"centroid_{axis}"] for axis in "xyz"], expected, atol=1e-9)
    assert (first["voxels"], first["volume_mm3"]) == (64, 128.0)


def test_scans_and_subjects_are_counted(release: Path) -> None:
    """Counts per scan; a level that two series of one person show counts once."""
    made = tables(release)
    scan = made.scans.set_index("scan_id").loc["verse004"]
    subject = made.subjects.set_index("subject_id").loc["verse401"]

    assert (scan["series"], scan["split"], scan["ct_device"]) == (
        "1 of 1",
        "training",
        "Brilliance 64",
    )
    assert (scan["n_graded"], scan["n_fractured"], scan["n_foreign_material"]) == (6, 1, 1)
    assert (scan["axcodes"], scan["shape_j"], scan["spacing_k"]) == ("PIR", 60, 2.0)
    assert (scan["n_mask_labels"], scan["n_centroids"], scan["n_vertebrae"]) == (7, 7, 8)
    assert list(made.scans["series_label"].fillna("")) == ["", "verse201", "verse253"]
    assert (subject["n_scans"], subject["n_levels"], subject["n_graded"]) == (2, 11, 7)
    assert (subject["max_grade"], subject["has_foreign_material"]) == (2, False)


def test_rows_stand_in_the_order_of_scan_and_spine(tmp_path: Path) -> None:
    """T13, label 28, stands between T12 and L1, in the table and as an ordered category."""
    root = tmp_path / "tree"
    write_scan(root, "verse005", [28, 20, 19])
    write_scan(root, "verse004", [20])
    made = tables(root).vertebrae

    assert list(made["scan_id"]) == ["verse004", "verse005", "verse005", "verse005"]
    assert list(made["level"]) == ["L1", "T12", "T13", "L1"]
    assert made["level"].cat.ordered
    assert list(made["level"].cat.categories) == list(LEVELS)
    assert list(made[made["level"] < "L1"]["label"]) == [19, 28]


def test_columns_have_the_documented_types(release: Path) -> None:
    """Each table has exactly the documented columns, in order, with the documented types."""
    made = tables(release)
    for name in MODELS:
        frame = getattr(made, name)
        documented = columns(name)
        assert [column.name for column in documented] == list(frame.columns)
        for column in documented:
            assert str(frame[column.name].dtype) == column.dtype, column.name
            assert column.description
            assert column.source
    split = made.scans["split"].cat.categories
    assert list(split) == ["training", "validation", "test"]


def test_quantities_have_units() -> None:
    """Every column in mm, years, kV or mg/cm3 says so."""
    units = {c.name: c.unit for name in MODELS for c in columns(name)}

    assert units["age_years"] == "year"
    assert units["bmd_mg_cm3"] == "mg/cm3"
    assert {units[f"centroid_{axis}"] for axis in "xyz"} == {"mm"}
    assert {units[f"centroid_{axis}"] for axis in "ijk"} == {"voxel"}
    assert units["volume_mm3"] == "mm3"


def test_disagreements_are_findings_with_scan_and_level(release: Path) -> None:
    """Grade without mask, mask without grade, and counts that differ are listed, not asserted."""
    made = tables(release).findings

    assert found(made, "grade-without-mask") == [("verse401_split-verse201", "T10")]
    assert found(made, "mask-without-grade") == [
        ("verse401_split-verse201", "L5"),
        ("verse401_split-verse253", "T1"),
        ("verse401_split-verse253", "T2"),
    ]
    assert ("verse401_split-verse253", "") in found(made, "n-vertebrae-differs")
    assert found(made, "no-graded-level") == [("verse401_split-verse253", "")]
    assert not found(made, "centroid-outside-mask")


def test_what_is_not_here_is_missing_and_not_false(release: Path) -> None:
    """Without the masks on this machine, has_mask is missing, and grades are graded all the same."""
    made = tables(release, without="msk").vertebrae

    assert made["has_mask"].isna().all()
    assert made["voxels"].isna().all()
    graded = made[made["grade"].notna()]
    assert set(graded["grade_status"]) == {"graded"}
    assert made["centroid_x"].notna().any(), "the header of the CT gives the affine"
    bare = tables(release, without=".").vertebrae
    assert len(bare) == 0


@pytest.mark.parametrize(
    ("change", "rule", "level"),
    [
        ({"points": [{"label": 20, "X": 0.0, "Y": 2.5, "Z": 2.5}]}, "centroid-outside-mask", "L1"),
        (
            {"points": [{"label": 20, "X": 90.0, "Y": 2.5, "Z": 2.5}]},
            "centroid-outside-image",
            "L1",
        ),
        ({"points": [{"label": 20, "X": float("nan"), "Y": 2.5, "Z": 2.5}]}, "centroid-nan", "L1"),
        ({"points": [{"label": 21, "X": 5.5, "Y": 2.5, "Z": 2.5}]}, "centroid-without-mask", "L2"),
        ({"points": []}, "mask-without-centroid", "L1"),
        ({"direction": ("L", "P", "S")}, "centroid-direction", ""),
        ({"direction": None}, "centroid-frame", ""),
        ({"mask_shape": (12, 60, 7)}, "mask-shape", ""),
    ],
)
def test_centroids_and_masks_that_disagree_are_findings(
    change: dict[str, Any], rule: str, level: str, tmp_path: Path
) -> None:
    """A point outside its mask or image, NaN, a wrong direction or frame, another shape: a warning each."""
    write_scan(tmp_path / "tree", "verse004", [20], **change)
    made = tables(tmp_path / "tree")

    assert found(made.findings, rule) == [("verse004", level)]
    if rule in {"centroid-direction", "centroid-frame", "centroid-nan"}:
        assert made.vertebrae["centroid_i"].isna().all(), (
            "a position that cannot be trusted is left out"
        )


def test_the_centre_of_c1_may_lie_in_its_hole(tmp_path: Path) -> None:
    """C1 is a ring: its centroid outside its mask is no finding."""
    outside = [{"label": 1, "X": 0.0, "Y": 2.5, "Z": 2.5}]
    write_scan(tmp_path / "tree", "verse004", [1], points=outside)

    assert not found(tables(tmp_path / "tree").findings, "centroid-outside-mask")


def test_crumbs_are_warnings(tmp_path: Path) -> None:
    """A voxel apart from its vertebra is listed and changes nothing else."""
    root = tmp_path / "tree"
    write_scan(root, "verse004", [20])
    mask = np.zeros((12, 60, 6), dtype=np.uint8)
    mask[4:8, 1:5, 1:5] = mask[0, 50, 0] = 20
    write_nifti(next(root.rglob("*msk.nii.gz")), mask, PIR)
    made = tables(root)

    assert found(made.findings, "crumbs") == [("verse004", "L1")]
    assert made.vertebrae["voxels"].tolist() == [65]


def test_free_text_in_a_header_is_a_finding_without_the_text(tmp_path: Path) -> None:
    """A CT whose header carries text is listed by field; the text itself goes nowhere."""
    root = tmp_path / "tree"
    write_scan(root, "verse004", [20])
    path = next(root.rglob("*_ct.nii.gz"))
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[148:154] = b"CANARY"
    path.write_bytes(gzip.compress(bytes(header)))
    made = tables(root)

    assert found(made.findings, "ct-header") == [("verse004", "")]
    assert "CANARY" not in made.findings.to_csv()


def test_unchanged_volumes_are_read_once(release: Path) -> None:
    """The second time no mask and no CT is opened, and the small files are read whole once each."""
    lock = locked(release)

    def build() -> Tables:
        derived = release.parent / "derived"
        return build_tables(lock, partial(source_of, release), catalog=None, derived=derived)

    first = build()
    with opened_below(release) as opened:
        second = build()

    small = [path for path in lock.by_path if not path.endswith(".nii.gz")]
    assert sorted(opened) == sorted(small)
    pd.testing.assert_frame_equal(first.vertebrae, second.vertebrae)
    pd.testing.assert_frame_equal(first.scans, second.scans)


def test_control_a_changed_volume_is_opened(release: Path) -> None:
    """A mask that was written again, with the same bytes, is read again; the others are not."""
    lock, derived = locked(release), release.parent / "derived"
    build_tables(lock, partial(source_of, release), catalog=None, derived=derived)
    (mask,) = release.rglob("sub-verse004*msk.nii.gz")
    mask.write_bytes(mask.read_bytes())

    with opened_below(release) as opened:
        build_tables(lock, partial(source_of, release), catalog=None, derived=derived)

    assert [Path(path).name for path in opened if path.endswith(".nii.gz")] == [mask.name]


def test_kept_facts_that_were_changed_are_made_again(release: Path) -> None:
    """A flipped digit in the kept facts of a mask is not believed."""
    first = tables(release)
    for kept in (release.parent / "derived").rglob("*.json"):
        kept.write_bytes(kept.read_bytes().replace(b'"voxels":64', b'"voxels":65'))

    pd.testing.assert_frame_equal(tables(release).vertebrae, first.vertebrae)


def test_facts_that_cannot_be_kept_are_no_error(release: Path, tmp_path: Path) -> None:
    """A cache root that cannot be written makes the tables slower, not impossible."""
    (tmp_path / "file").write_text("not a folder")

    assert len(tables(release, derived=tmp_path / "file").vertebrae) == 18


BAD_SIDECAR = (
    '{"dataset": "V", "KVP": 120, "Manufacturer": "a", "ManufacturerModelName": "b"}'  # no text
)


def test_bad_json_files_are_named_at_once(release: Path) -> None:
    """Two bad centroid files and a bad sidecar: one error that names all three."""
    bad = sorted(release.rglob("*ctd.json"))[:2] + sorted(release.rglob("*_ct.json"))[:1]
    for path in bad:
        path.write_text(BAD_SIDECAR if path.name.endswith("_ct.json") else "{}")

    made = tables(release)
    with pytest.raises(ValidationFailed) as caught:
        made.sound()

    assert all(path.name in str(caught.value) for path in bad)
    broken = made.findings[made.findings["rule"] == "broken-file"]
    assert {Path(file).name for file in broken["file"]} == {path.name for path in bad}
    assert set(broken["severity"]) == {"error"}


def test_a_broken_file_concerns_its_own_scan_alone(release: Path) -> None:
    """What is made of the other scans is sound, and the broken scan claims nothing of the file."""
    (bad,) = release.rglob("sub-verse004*ctd.json")
    bad.write_text("{}")

    made = tables(release)

    assert made.sound(set(made.scans["scan_id"]) - {"verse004"}) is made
    with pytest.raises(ValidationFailed, match="sub-verse004_seg-subreg_ctd"):
        made.sound({"verse004"})
    rows = made.vertebrae[made.vertebrae["scan_id"] == "verse004"]
    assert rows["has_centroid"].isna().all()
    assert rows["has_mask"].all()


def test_the_error_for_broken_files_is_of_the_gravest_kind(release: Path) -> None:
    """A cut mask weighs more than a bad sidecar, and both are named."""
    (sidecar,) = release.rglob("sub-verse004_ct.json")
    sidecar.write_text(BAD_SIDECAR)
    (mask,) = release.rglob("sub-verse004*msk.nii.gz")
    mask.write_bytes(mask.read_bytes()[:-20])

    with pytest.raises(VolumeCorrupt) as caught:
        tables(release).sound()

    assert sidecar.name in str(caught.value)
    assert mask.name in str(caught.value)


def test_a_row_may_skip_t12_while_nothing_tells_whether_the_spine_has_it(release: Path) -> None:
    """A gap at T12 is an error once mask or centroids show T12, and none while both are away."""
    gap = {"T12_fx-g": None, "T12_fx-s": None}
    workbooks.write_csv(release / "grading.csv", [row(4, **gap)])

    assert tables(release, without="derivatives").grading is not None
    with pytest.raises(ValidationFailed, match="blank between graded levels"):
        tables(release).sound()


def test_a_broken_workbook_matters_where_grades_do(release: Path) -> None:
    """What needs no grades is sound without the workbook; what needs them names its bad cell."""
    workbooks.write_csv(release / "grading.csv", [row(4, **{"L1_fx-g": 7})])
    made = tables(release)

    assert made.sound(graded=False) is made
    with pytest.raises(ValidationFailed, match="L1_fx-g"):
        made.sound()


def test_a_row_without_a_scan_is_a_finding_unless_the_catalog_tells_that_it_is_missing(
    release: Path,
) -> None:
    """Each gap is listed once: as a scan that is expected, or else as a row that has none."""
    workbooks.write_csv(release / "grading.csv", [row(4), row(5)])

    assert found(tables(release).findings, "grading-without-scan") == [("verse005", "")]
    expected = tables(release, catalog=load_catalog("verse19")).findings
    assert not found(expected, "grading-without-scan")
    assert ("verse005", "") in found(expected, "missing-scan")


def test_limits_of_the_paper_include_their_ends(tmp_path: Path) -> None:
    """An age of 30 is named by no finding, and a point without a place counts as a vertebra."""
    points = [{"label": 20, "X": float("nan"), "Y": 2.5, "Z": 2.5}]
    write_scan(tmp_path / "tree", "verse004", [20], points=points)
    write_scan(tmp_path / "tree", "verse005", [20])
    rows = [row(4, age_ct=30, N_vertebrae=1), row(5, age_ct=29.5)]
    workbooks.write_csv(tmp_path / "tree" / "grading.csv", rows)
    made = tables(tmp_path / "tree").findings

    assert found(made, "age-below-30") == [("verse005", "")]
    assert found(made, "n-vertebrae-differs") == [("verse005", "")]


def test_two_different_workbooks_are_an_error(release: Path) -> None:
    """A release with two gradings does not choose one in silence; a copy of the same is no harm."""
    (release / "copy_grading.csv").write_bytes((release / "grading.csv").read_bytes())
    assert len(tables(release).vertebrae) == 18

    (release / "copy_grading.csv").write_bytes((release / "grading.csv").read_bytes() + b"\n")
    with pytest.raises(ValidationFailed, match=r"2 different grading workbooks: copy_grading\.csv"):
        tables(release).sound()


def test_a_workbook_of_another_kind_is_left_alone(release: Path) -> None:
    """Beside the grading workbook, another .xlsx is an unknown file, and no second grading."""
    (release / "patients.xlsx").write_bytes(b"PK somebody's notes")
    made = tables(release).findings

    assert made[made["rule"] == "unknown-file"]["file"].tolist() == ["patients.xlsx"]


def write_wide(path: Path) -> None:
    """Write a workbook that is beyond the limits of a grading workbook."""
    book = openpyxl.Workbook()
    book.worksheets[0].cell(1, 300, "note")
    book.save(path)


OTHER_TABLES = {
    "inventory.xlsx": lambda path: openpyxl.Workbook().save(path),
    "wide_inventory.xlsx": write_wide,
    "scores.csv": lambda path: path.write_text("scan,dice\na,0.9\n"),
    "more_scores.csv": lambda path: path.touch(),
    "odd_scores.csv": lambda path: path.write_bytes(b'\xff"\x00'),
    "~$grading.xlsx": lambda path: path.write_bytes(b"\x05me" + b" " * 162),
    "grading.ods": lambda path: path.write_bytes(b"PK\x03\x04 cut"),
    "lab.xls": lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(99)),
    "cut.xlsx": lambda path: path.write_bytes(b"PK\x03\x04 cut"),
}


def whole_lock(root: Path) -> ReleaseLock:
    """Return a lock of all files at `root`, also of those that are left out of locks today."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    files = [LockedFile(path=p.relative_to(root).as_posix(), **vars(digest_file(p))) for p in paths]
    return ReleaseLock(release="mylab", source=LockSource(kind="tree"), files=tuple(files))


@pytest.mark.parametrize("with_grades", [True, False])
def test_other_tables_are_kept_and_ignored(release: Path, *, with_grades: bool) -> None:
    """Beside the grading workbook, or without one, they are notes: no reason to refuse, no grades."""
    for name, write in OTHER_TABLES.items():
        write(release / name)
    if not with_grades:
        (release / "grading.csv").unlink()
    lock = whole_lock(release)

    check_tree(lock, release)
    made = build_tables(lock, partial(source_of, release), catalog=None, derived=None)

    notes = made.findings[made.findings["rule"] == "unknown-file"]
    assert OTHER_TABLES.keys() <= {*notes["file"]}
    assert notes["message"].str.contains(r"save it as .xlsx, or as CSV", regex=False).any()
    assert not made.broken
    assert (made.grading is not None) is with_grades
    assert len(made.findings[made.findings["rule"] == "no-workbook"]) == (not with_grades)


def test_a_damaged_workbook_of_that_name_is_no_other_table(release: Path) -> None:
    """A release does not lose its grades in silence, since its workbook was cut or is locked."""
    (release / "grading.csv").unlink()
    book = workbooks.write_xlsx(release / "lab_grading.xlsx", [row(4)])
    for content, why in (
        (b"", "the file is empty"),
        (b"\xd0\xcf\x11\xe0" + bytes(512), "or one with a password"),
        (book.read_bytes()[:-900], "not a readable workbook"),
    ):
        book.write_bytes(content)
        with pytest.raises(ValidationFailed, match=rf"^lab_grading\.xlsx: .*{why}"):
            check_tree(locked(release), release)
    assert tables(release).findings.set_index("rule").loc["broken-file", "file"] == book.name


def test_two_workbooks_that_fit_are_refused_with_both_names(release: Path) -> None:
    """Whatever they are called, and also if one of them is wrong."""
    workbooks.write_xlsx(release / "corrected.xlsx", [row(4, **{"L1_fx-g": 7})])

    with pytest.raises(ValidationFailed, match=r"2 different .*: corrected\.xlsx, grading\.csv"):
        check_tree(locked(release), release)


@pytest.mark.parametrize(
    ("stem", "series", "person"),
    [
        ("patient07", "patient07", "sub-patient07"),
        ("a", "a", "a"),
        ("GL003", "GL003", "GL003"),
        ("0042", 42, "0042"),
        ("12345", 12345, 12345),
        ("x0205", "x0205", "x0205"),
        ("verse1000", 1000, "verse1000"),
        ("p1_split-left", "left", "p1"),
        ("verse004", "verse004", 4),
    ],
)
def test_own_grades_join_by_the_label_of_file_names(
    stem: str, series: str | int, person: str | int, tmp_path: Path
) -> None:
    """A cell holds the label, with or without sub-, or the number of the one label that has it."""
    write_scan(tmp_path / "tree", stem, TEN_TO_FOUR)
    rows = [row(0, verse_ID=series, subject_ID=person), row(4 if stem != "verse004" else 5)]
    workbooks.write_xlsx(tmp_path / "tree" / "grading.xlsx", rows)
    made = tables(tmp_path / "tree").sound()

    assert made.scans["has_grading"].tolist() == [True]
    assert made.vertebrae.set_index("level")["grade"]["L1"] == 2
    assert len(found(made.findings, "grading-without-scan")) == 1
    assert not found(made.findings, "subject-differs")


@pytest.mark.parametrize(
    ("stem", "cell", "joined"),
    [
        ("gl003_dir-ax", "gl003", True),
        ("gl003", "gl003_dir-ax", True),
        ("gl003_dir-ax", "gl003_dir-sag", False),
        ("verse401_split-verse253", "verse253", True),
        ("p1_ses-1", "p1_ses-2", False),
    ],
)
def test_a_list_of_grades_joins_by_series_and_without_the_direction(
    stem: str, cell: str, *, joined: bool, tmp_path: Path
) -> None:
    """MICCAI names omit the direction; another direction or session is another scan."""
    write_scan(tmp_path / "tree", stem, TEN_TO_FOUR)
    (tmp_path / "tree" / "grades.csv").write_text(f"scan_id,level,grade\nsub-{cell},L1,2\n")
    made = tables(tmp_path / "tree").sound()

    assert made.scans["has_grading"].tolist() == [joined]
    assert len(found(made.findings, "grading-without-scan")) == (not joined)


@pytest.mark.parametrize("cell", ["patient-07", "patient 07", "sub-", "0043", 0, 1000, True, 7])
def test_a_cell_that_can_be_no_label_is_refused_with_its_row(
    cell: str | int, tmp_path: Path
) -> None:
    """The error says what labels look like; a number of two labels is told with both."""
    for stem in ("7", "007"):
        write_scan(tmp_path / "tree", stem, [20])
    workbooks.write_xlsx(tmp_path / "tree" / "grading.xlsx", [row(4), row(5, subject_ID=cell)])
    rule = "may be 007 or 7: write which" if cell == 7 else "such as patient07"

    with pytest.raises(ValidationFailed, match=rf"row 3, column B \(subject_ID\): .*{rule}"):
        tables(tmp_path / "tree").sound()


def test_what_the_catalog_expects_and_the_release_lacks_is_listed(release: Path) -> None:
    """160 expected series, three here: 157 findings, and the known gaps say that they are known."""
    next(release.rglob("*verse004_seg-vert_msk.nii.gz")).rename(release / "readme.txt")
    write_scan(release, "verse008", [20])
    for name in ("msk.nii.gz", "ctd.json"):
        next(release.rglob(f"sub-verse008*{name}")).unlink()
    made = tables(release, catalog=load_catalog("verse19")).findings

    assert len(found(made, "missing-scan")) == 156
    missing = made[made["rule"] == "missing-file"].set_index("scan_id")["message"]
    assert "known:" not in missing["verse004"]
    assert all("known: the node has the CT" in text for text in missing.loc[["verse008"]])
    assert not found(made, "unknown-file")


def test_names_and_folders_that_disagree_are_findings(tmp_path: Path) -> None:
    """A wrong split, a wrong folder, a second file, a person in two splits, an unknown file."""
    root = tmp_path / "tree"
    write_scan(root, "verse004", [20], split="test")
    write_scan(root, "verse401_split-verse201", [20])
    write_scan(root, "verse401_split-verse253", [20], split="validation")
    derived = root / "dataset-verse19test" / "derivatives"
    older = derived / "sub-verse004" / "sub-verse004_seg-vb_ctd.json"
    older.write_text(json.dumps([{"direction": ["P", "I", "R"]}]))
    (derived / "sub-verse004" / "notes.docx").write_text("")
    folder = derived / "sub-verse005"
    folder.mkdir()
    next(derived.rglob("*verse004*msk.nii.gz")).rename(folder / "sub-verse004_seg-vert_msk.nii.gz")
    made = tables(root, catalog=load_catalog("verse19")).findings

    assert ("verse004", "") in found(made, "split-differs")
    assert found(made, "wrong-folder") == [("verse004", "")]
    assert found(made, "second-file") == [("verse004", "")]
    in_two = made[made["rule"] == "subject-in-two-splits"]
    assert in_two["subject_id"].tolist() == ["verse401"]
    unknown = made[made["rule"] == "unknown-file"]
    assert unknown["file"].tolist() == ["dataset-verse19test/derivatives/sub-verse004/notes.docx"]


@pytest.mark.parametrize(
    "stems",
    [
        ("verse004", "verse004_ses-2"),
        ("verse004_ce-no", "verse004_ce-pv"),
        ("verse004_dir-ax", "verse004_dir-iso"),
    ],
)
def test_two_scans_of_one_series_share_no_row(stems: tuple[str, str], tmp_path: Path) -> None:
    """Where two scans are one series by name, its row is joined to neither; each is listed."""
    root = tmp_path / "tree"
    for stem in stems:
        write_scan(root, stem, TEN_TO_FOUR)
    next(root.rglob(f"sub-{stems[0]}_seg-vert_msk.nii.gz")).unlink()
    workbooks.write_csv(root / "grading.csv", [row(4)])
    made = tables(root, catalog=load_catalog("verse19"))

    assert found(made.findings, "series-shared") == [(stem, "") for stem in stems]
    assert found(made.findings, "missing-file") == [(stems[0], "")]
    assert not found(made.findings, "scan-without-grading")
    assert made.vertebrae["grade"].isna().all()
    assert set(made.vertebrae["grade_status"]) == {"not_assessed"}
    assert not made.scans["has_grading"].any()
    assert ("verse004", "") not in found(made.findings, "missing-scan")


@pytest.mark.parametrize("has_workbook", [True, False])
def test_series_labels_that_no_row_is_of_are_shared_without_a_finding(
    tmp_path: Path, *, has_workbook: bool
) -> None:
    """The 0 of split-0 numbers the series of each of two people, and is the name of none."""
    root = tmp_path / "tree"
    for stem in ("verse004_split-0", "verse005_split-0", "verse006", "verse006_ses-2"):
        write_scan(root, stem, TEN_TO_FOUR)
    if has_workbook:
        workbooks.write_csv(root / "grading.csv", [row(7)])

    assert not found(tables(root).findings, "series-shared")


def test_both_layouts_of_one_series_are_one_scan(tmp_path: Path) -> None:
    """A MICCAI file beside the same series in the subject-based layout is a second file, and no second scan."""
    root = tmp_path / "tree"
    write_scan(root, "verse401_split-verse201", [20])
    source = next(root.rglob("*_ct.nii.gz"))
    (root / "dataset-verse19training" / "verse201.nii.gz").write_bytes(source.read_bytes())
    made = tables(root)

    assert made.scans["scan_id"].tolist() == ["verse401_split-verse201"]
    assert found(made.findings, "second-file") == [("verse401_split-verse201", "")]


def test_miccai_names_join_by_series(tmp_path: Path) -> None:
    """Flat MICCAI files are scans of the right persons, with splits from the catalog."""
    root = tmp_path / "tree"
    write_scan(root, "verse201", [20])
    for source, target in (
        ("*ct.nii.gz", "verse201.nii.gz"),
        ("*msk.nii.gz", "verse201_seg.nii.gz"),
    ):
        next(root.rglob(source)).rename(root / target)
    workbooks.write_csv(
        root / "scores.csv",
        [row(201, subject=401, part="1 of 2"), row(253, subject=401, part="2 of 2")],
    )
    for path in root.rglob("sub-*.json"):
        path.unlink()
    made = tables(root, catalog=load_catalog("verse19"))
    scan = made.scans.iloc[0]

    assert (scan["scan_id"], scan["subject_id"]) == ("verse401_split-verse201", "verse401")
    assert (scan["split"], scan["has_grading"]) == ("training", True)
    assert made.vertebrae.set_index("level").loc["L1", "grade"] == 2


def test_root_names_of_the_catalog_say_the_split(tmp_path: Path) -> None:
    """A folder that the catalog knows as a root gives the split, whatever it is called."""
    entry = load_catalog("phantom").model_copy(update={"roots": {"test": ("part-three",)}})
    write_scan(tmp_path, "verse004", [20])
    (tmp_path / "dataset-verse19training").rename(tmp_path / "part-three")
    lock = locked(tmp_path)

    assert index_scans(lock, catalog=entry).scans[0].split == "test"
    assert index_scans(lock).scans[0].split is None


def test_a_series_that_was_named_like_a_person_is_grouped_as_published(tmp_path: Path) -> None:
    """sub-verse201 and sub-verse253 are one person, whatever their folders say."""
    root = tmp_path / "tree"
    write_scan(root, "verse201", [20])
    write_scan(root, "verse253", [20])
    made = tables(root, catalog=load_catalog("verse19"))

    assert made.subjects["subject_id"].tolist() == ["verse401"]
    assert found(made.findings, "subject-differs") == [("verse201", ""), ("verse253", "")]


def test_records_hold_the_rules_of_the_tables(release: Path) -> None:
    """Every row of the tables is a strict record: dumped and validated again, it is the same."""
    made = tables(release)
    for model, frame in ((VertebraRecord, made.vertebrae), (ScanRecord, made.scans)):
        for values in frame.astype(object).where(frame.notna(), None).to_dict(orient="records"):
            record = model.model_validate(values)
            assert model.model_validate_json(record.model_dump_json()) == record


def test_the_real_files_join(shared: Path) -> None:
    """verse004: T9 to L5 have masks and centroids, L4 and L5 no grade; verse010: five of each."""
    made = tables(shared / "data" / "verse19", derived=Path("/nonexistent"), without="msk")
    real = made.vertebrae.set_index(["scan_id", "level"])

    assert real.loc["verse004", "grade"].astype(object).where(
        real.loc["verse004", "grade"].notna(), None
    ).tolist() == [2, 2, 0, 0, 3, 0, 0, None, None]
    assert real.loc["verse004", "grade_status"].tolist()[-2:] == ["not_assessed"] * 2
    assert real.loc["verse010"].index.tolist() == ["L1", "L2", "L3", "L4", "L5"]
    assert made.scans.set_index("scan_id").loc["verse004", "ct_device"] == "SOMATOM Definition AS+"


def test_the_real_masks_agree_with_the_real_centroids(shared: Path, tmp_path: Path) -> None:
    """Both real scans: label for label a centroid inside its mask, in the direction of the affine."""
    made = tables(shared / "data" / "verse19", derived=tmp_path)
    rules = set(made.findings["rule"])

    assert not rules & {
        "centroid-outside-mask",
        "centroid-direction",
        "mask-without-centroid",
        "centroid-without-mask",
    }
    assert set(made.scans["axcodes"]) == {"PIR"}
    assert made.vertebrae["has_mask"].all()
    assert made.vertebrae["has_centroid"].all()
    spacing = made.scans.set_index("scan_id").loc["verse004", "spacing_k"]
    assert spacing == pytest.approx(2.000296, abs=1e-6)


def test_the_real_metadata_are_read_in_time(shared: Path, tmp_path: Path) -> None:
    """Workbook with its child process, join and validation of the real files are little work.

    Half a second of one core here. The limit leaves room for slower machines;
    ``benchmarks/tables.py`` holds the promise of 1.5 s.
    """
    root, times = shared / "data" / "verse19", []
    for _ in range(3):
        start = sum(os.times()[:4])  # of this process and its children, whatever else runs
        tables(root, derived=tmp_path)
        times.append(sum(os.times()[:4]) - start)

    assert min(times) < 5


def test_labels_follow_the_map() -> None:
    """Every level of the records has its label."""
    levels = VertebraRecord.model_fields["level"].annotation
    assert set(levels.__args__) == set(LABEL_OF_LEVEL)  # type: ignore[union-attr]
