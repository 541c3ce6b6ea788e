"""The phantom: layout, awkward cases, determinism, and whether it looks like a spine."""

from __future__ import annotations

import json
import re
import time
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy import ndimage

from tests.support.headers import read_header
from verse_data import phantom
from verse_data.errors import DiskFull, UsageError
from verse_data.phantom import shapes, spec
from verse_data.records.centroids import CentroidFile, parse_centroids
from verse_data.records.names import parse_path, split_of
from verse_data.records.tables import COLUMNS
from verse_data.spine.geometry import AxisMap, axcodes, voxel_sizes
from verse_data.spine.levels import GRADED_LEVELS, LABEL_OF_LEVEL, LEVEL_OF_LABEL
from verse_data.volumes.nifti import (
    ImageHeader,
    Volume,
    check_pair,
    read_image,
    read_mask,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Write the default phantom, and measure the processor's seconds that it takes."""
    start = time.process_time()
    root = phantom.write(tmp_path_factory.mktemp("phantom") / "tree")
    return root, time.process_time() - start


@pytest.fixture(scope="module")
def root(written: tuple[Path, float]) -> Path:
    return written[0]


@pytest.fixture(scope="module")
def rows(root: Path) -> dict[str, dict[str, object]]:
    sheet = openpyxl.load_workbook(root / "phantom_grading.xlsx")["VerSe_dataset"]
    head, *body = sheet.iter_rows(values_only=True)
    table = [dict(zip(head, line, strict=True)) for line in body]
    return {f"verse{row['verse_ID']}": row for row in table}


def file_of(root: Path, scan_id: str, ending: str) -> Path:
    (found,) = root.rglob(f"sub-{scan_id}_{ending}")
    return found


def ct_header(root: Path, scan_id: str) -> ImageHeader:
    return read_header(file_of(root, scan_id, "ct.nii.gz"), name=scan_id)


def mask_of(root: Path, scan_id: str) -> Volume:
    return read_mask(file_of(root, scan_id, "seg-vert_msk.nii.gz"), name=scan_id)


def levels_in(mask: Volume) -> set[str]:
    return {LEVEL_OF_LABEL[int(label)] for label in np.unique(mask.array) if label}


def centroids_of(root: Path, scan_id: str) -> CentroidFile:
    path = file_of(root, scan_id, "seg-subreg_ctd.json")
    return parse_centroids(path.read_bytes(), name=path.name)


def graded(row: dict[str, object]) -> dict[str, object]:
    return {x: row[f"{x}_fx-g"] for x in GRADED_LEVELS if row[f"{x}_fx-g"] is not None}


def row_of(rows: dict[str, dict[str, object]], scan_id: str) -> dict[str, object]:
    return rows[scan_id.rsplit("-", maxsplit=1)[-1]]


def test_default_is_quick_and_small(written):
    """The default phantom takes five seconds of one core, on slow machines less than 50, and 200 MB."""
    folder, seconds = written
    assert seconds < 50
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 200e6


def test_names_and_splits_are_the_real_layout(root):
    """Every file has a role by its name and a split by its folder, but for the one workbook."""
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    names = {path: parse_path(path) for path in files}
    assert all(names.values())
    assert [path for path in files if names[path].role == "grading"] == ["phantom_grading.xlsx"]
    splits = {path: split_of(path) for path in files if names[path].role != "grading"}
    assert set(splits.values()) == {"training", "validation", "test"}
    subjects = {(names[path].subject_id, split) for path, split in splits.items()}
    assert len(subjects) == len({subject for subject, _ in subjects}) == 12


def test_same_seed_same_bytes(tmp_path):
    """Two phantoms of one seed are equal byte by byte; another seed gives other volumes."""
    small = {"n_subjects": 4, "shape": (32, 64, 24)}
    first, second, other = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (
            phantom.write(tmp_path / "a", seed=3, **small),
            phantom.write(tmp_path / "b", seed=3, **small),
            phantom.write(tmp_path / "c", seed=4, **small),
        )
    )
    assert first == second
    assert first.keys() == other.keys()
    volumes = [name for name in first if name.suffix == ".gz"]
    assert all(first[name] != other[name] for name in volumes)


def test_workbook_keeps_no_time(root):
    """No member of the workbook tells when it was written."""
    with zipfile.ZipFile(root / "phantom_grading.xlsx") as book:
        assert {member.date_time[0] for member in book.infolist()} == {1980}
        assert b"2020-01-01T00:00:00Z" in book.read("docProps/core.xml")


def test_workbook_has_sheets_columns_formulas_and_order_of_the_real_one(root, shared):
    """Sheet names, 48 columns, count formulas and the order of splits equal the real workbook's."""
    mine = openpyxl.load_workbook(root / "phantom_grading.xlsx")
    with pytest.warns(UserWarning, match="Unknown extension"):
        real = openpyxl.load_workbook(shared / "data/verse19/ryai190138_AppendixE1.xlsx")
    assert mine.sheetnames == real.sheetnames == ["VerSe_dataset", "info"]
    ours, theirs = mine["VerSe_dataset"], real["VerSe_dataset"]
    assert [c.value for c in ours[1]] == [c.value for c in theirs[1]] == list(COLUMNS)
    assert [c.value for c in ours[2]][10:12] == [c.value for c in theirs[2]][10:12]
    orders = [
        list(dict.fromkeys(c.value for c in sheet["C"][1:] if c.value)) for sheet in (ours, theirs)
    ]
    assert orders[0] == orders[1]


def test_sidecar_and_centroid_file_look_real(root, shared):
    """The sidecar has the real keys, and a centroid file starts with the mask's axis codes."""
    real = shared / "data/verse19/dataset-verse19training/rawdata/sub-verse004/sub-verse004_ct.json"
    mine = json.loads(file_of(root, "verse901", "ct.json").read_text())
    assert list(mine) == list(json.loads(real.read_text()))
    assert "not a patient" in mine["dataset"]
    assert centroids_of(root, "verse903").direction == axcodes(mask_of(root, "verse903").affine)


def test_every_pair_lies_on_one_grid(root):
    """CT and mask of every series have the same shape and affine."""
    masks = sorted(root.rglob("*_msk.nii.gz"))
    assert len(masks) == 12
    for path in masks:
        scan_id = parse_path(path.name).scan_id
        check_pair(ct_header(root, scan_id), read_header(path, name=scan_id), name=scan_id)


def test_masks_hold_what_the_plan_says(root):
    """The labels of every mask are the annotated levels; every centroid lies in or by its body."""
    for subject in spec.subjects(12, seed=0):
        for series in subject.series:
            if not series.derivatives:
                continue
            scan_id = subject.scan_id(series)
            mask = mask_of(root, scan_id)
            assert levels_in(mask) == set(series.annotated)
            for point in centroids_of(root, scan_id).points:
                if point.label == 1 or point.level in series.foreign:
                    continue
                i, j, k = np.rint(point.point).astype(int)
                assert mask.array[i, j, k] == point.label


def test_annotated_vertebrae_are_wholly_visible(root):
    """No label touches the upper or lower border: what is cut there is not annotated, as in VerSe."""
    for path in root.rglob("*_msk.nii.gz"):
        mask = read_mask(path, name=path.name)
        upright = AxisMap.between(mask.affine, "PIR").apply(mask.array)
        assert not upright[:, [0, -1], :].any(), path.name
        assert not upright[[0, -1]].any(), path.name


def test_case_pir_and_lps_and_las(root):
    """Three orientations occur: PIR as in VerSe'19, LPS and LAS as in VerSe'20."""
    found = {
        case: axcodes(ct_header(root, phantom.CASES[case]).affine) for case in ("pir", "lps", "las")
    }
    assert found == {"pir": "PIR", "lps": "LPS", "las": "LAS"}


def test_case_two_series(root, rows):
    """One patient has two series with overlapping levels and the same patient-level values."""
    first, second = "verse902_split-verse951", "verse902_split-verse952"
    assert phantom.CASES["two_series"] == first
    assert levels_in(mask_of(root, first)) & levels_in(mask_of(root, second)) == {"T10", "T11"}
    a, b = row_of(rows, first), row_of(rows, second)
    assert (a["CT_image_series"], b["CT_image_series"]) == ("1 of 2", "2 of 2")
    shared_columns = ("subject_ID", "dataset", "age_ct", "CT_device", "BMD", "DXA T-value")
    assert [a[name] for name in shared_columns] == [b[name] for name in shared_columns]


def test_case_oblique_with_2_mm_slices(root):
    """One series is tilted, with sagittal slices that are not exactly 2 mm apart."""
    header = ct_header(root, phantom.CASES["oblique_2mm_sagittal"])
    assert voxel_sizes(header.affine) == pytest.approx((1, 1, 2.000296), abs=1e-5)
    assert axcodes(header.affine) == "PIR"
    assert np.count_nonzero(np.abs(header.affine[:3, :3]) > 0.01) > 3


def test_case_t13_l6_and_missing_t12(root):
    """T13 carries label 28 between T12 and L1; L6 occurs; one spine goes from T11 to L1."""
    assert {"T12", "T13", "L1"} <= levels_in(mask_of(root, phantom.CASES["t13"]))
    assert "L6" in levels_in(mask_of(root, phantom.CASES["l6"]))
    lacking = levels_in(mask_of(root, phantom.CASES["no_t12"]))
    assert {"T11", "L1"} <= lacking
    assert "T12" not in lacking


def test_case_float64_mask(root):
    """One mask is stored as float64."""
    path = file_of(root, phantom.CASES["float64_mask"], "seg-vert_msk.nii.gz")
    assert read_header(path, name="mask").dtype == np.float64


def test_case_uint8_ct_with_slope(root):
    """One CT is stored as uint8 with slope and intercept, and gives HU when it is read."""
    path = file_of(root, phantom.CASES["uint8_ct_with_slope"], "ct.nii.gz")
    header = read_header(path, name="ct")
    assert header.dtype == np.uint8
    assert (header.slope, header.inter) == pytest.approx((16.955, -1125.4), rel=1e-6)
    values = read_image(path, name="ct").array
    assert -1035 <= values.min() <= -1015
    assert values.max() > 600


def test_case_blank_grades_and_x(root, rows):
    """A level with a mask has no grade, and foreign material is an x in place of a grade."""
    scan_id = phantom.CASES["blank_grade"]
    row = row_of(rows, scan_id)
    assert "L5" in levels_in(mask_of(root, scan_id))
    assert row["L5_fx-g"] is None
    assert row["L5_fx-s"] is None
    assert row["L2_fx-g"] == row["L2_fx-s"] == "x"


def test_case_foreign_material_is_metal_cut_out_of_the_mask(root):
    """Metal is brighter than any bone, lies within the vertebra, and carries no label."""
    scan_id = phantom.CASES["foreign_material"]
    ct = read_image(file_of(root, scan_id, "ct.nii.gz"), name=scan_id).array
    mask = mask_of(root, scan_id).array
    metal = ct > 2500
    assert metal.sum() > 500
    assert not mask[metal].any()
    around = ndimage.binary_dilation(metal, iterations=2)
    touched = np.bincount(mask[around])[1:]
    assert touched.argmax() + 1 == LABEL_OF_LEVEL["L2"]
    assert touched.max() > 0.9 * touched.sum()


def test_case_bmd_zero_and_young_patient(rows):
    """A BMD of 0 and a patient under 30 years occur, as in the real workbook."""
    assert row_of(rows, phantom.CASES["bmd_zero"])["BMD"] == 0
    assert row_of(rows, phantom.CASES["under_30_years"])["age_ct"] < 30


def test_case_grade_without_mask_and_mask_without_grade(root, rows):
    """Grades and masks disagree in both directions."""
    scan_id = phantom.CASES["graded_without_mask"]
    assert set(graded(row_of(rows, scan_id))) - levels_in(mask_of(root, scan_id)) == {"T6"}
    scan_id = phantom.CASES["mask_without_grade"]
    assert levels_in(mask_of(root, scan_id)) - set(graded(row_of(rows, scan_id))) == {"L5"}


def test_case_cervical_scan(root, rows):
    """One scan has no graded level, and its C1 centroid lies outside the C1 mask."""
    scan_id = phantom.CASES["c1_centroid_off_mask"]
    assert graded(row_of(rows, scan_id)) == {}
    (atlas,) = (point for point in centroids_of(root, scan_id).points if point.label == 1)
    i, j, k = np.rint(atlas.point).astype(int)
    assert mask_of(root, scan_id).array[i, j, k] != 1


def test_case_missing_derivative(root, rows):
    """One scan has a CT and a row, but neither mask nor centroids nor snapshot."""
    scan_id = phantom.CASES["missing_derivative"]
    names = sorted(path.name for path in root.rglob(f"sub-{scan_id}_*"))
    assert names == [f"sub-{scan_id}_ct.json", f"sub-{scan_id}_ct.nii.gz"]
    assert graded(row_of(rows, scan_id))


def test_case_whole_spine(root):
    """One scan shows 22 vertebrae with 3 mm slices."""
    scan_id = phantom.CASES["whole_spine"]
    assert len(levels_in(mask_of(root, scan_id))) == 22
    assert max(voxel_sizes(ct_header(root, scan_id).affine)) == pytest.approx(3)


def test_case_crumbs_and_missing_centroid(root, rows):
    """One mask has labels in several pieces, and one label without a centroid."""
    scan_id = phantom.CASES["crumbs"]
    mask = mask_of(root, scan_id).array
    pieces = [ndimage.label(mask == label)[1] for label in np.unique(mask) if label]
    assert max(pieces) > 1
    listed = {point.label for point in centroids_of(root, scan_id).points}
    assert {LEVEL_OF_LABEL[int(x)] for x in np.unique(mask) if x and int(x) not in listed} == {"T4"}
    assert row_of(rows, scan_id)["N_vertebrae"] == len(listed)


def test_rows_keep_the_rules_of_the_real_workbook(rows):
    """Grades form one run; grade and shape are blank, x and 0 together; a fracture has a shape."""
    for row in rows.values():
        places = [GRADED_LEVELS.index(level) for level in graded(row)]
        assert all(b - a == 1 for a, b in pairwise(places))
        for level, grade in graded(row).items():
            shape = row[f"{level}_fx-s"]
            assert (grade == "x") == (shape == "x")
            assert (grade == 0) == (shape == 0)
        assert row["foreign_material"].startswith("=COUNTIF(M")


def test_the_table_of_cases_is_complete():
    """Every case names a scan of the default phantom, and a small phantom says which it lacks."""
    subjects = spec.subjects(12, seed=0)
    scans = {subject.scan_id(series) for subject in subjects for series in subject.series}
    assert set(phantom.CASES.values()) <= scans
    assert phantom.cases(12) == dict(phantom.CASES)
    few = phantom.cases(4)
    assert {"two_series", "t13", "l6", "float64_mask", "lps"} <= few.keys() < phantom.CASES.keys()


def test_few_and_many_subjects_fill_all_splits(tmp_path):
    """Four subjects and twenty subjects have patients in all three splits."""
    for n_subjects in (4, 20):
        subjects = spec.subjects(n_subjects, seed=1)
        assert len({subject.subject_id for subject in subjects}) == n_subjects
        assert {subject.split for subject in subjects} == {"training", "validation", "test"}
    small = phantom.write(tmp_path / "p", n_subjects=4, shape=(24, 64, 16))
    assert len(list(small.rglob("*_ct.nii.gz"))) == 5
    for path in small.rglob("*_msk.nii.gz"):
        assert len(levels_in(read_mask(path, name="mask"))) >= 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_subjects": 3},
        {"n_subjects": 51},
        {"shape": (8, 64, 16)},
        {"shape": (30, 80)},
        {"seed": -1},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    """Too few or too many subjects, too small or flat a volume, a negative seed: a usage error, nothing written."""
    with pytest.raises(UsageError):
        phantom.write(tmp_path / "p", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    """A folder that is not empty is refused, and what it holds stays."""
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not an empty folder"):
        phantom.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    """If a series cannot be written, no half-written tree stays behind."""

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("verse_data.phantom.folder._snapshot", fail)
    with pytest.raises(DiskFull, match="Nothing half-written"):
        phantom.write(tmp_path / "p", n_subjects=4, shape=(24, 64, 16))
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_series(tmp_path):
    """The progress of a phantom ends at its number of series."""
    told: list[int] = []

    class Told:
        def __enter__(self):
            return told.append

        def __exit__(self, *_error: object) -> None:
            return None

    phantom.write(tmp_path / "p", n_subjects=4, shape=(24, 64, 16), progress=lambda *_stage: Told())
    assert sum(told) == 5


def heights(finding: dict[str, tuple[int, int]]) -> np.ndarray:
    """Height in mm of an upright L3 at its front, middle and rear, in the midline."""
    (lying,) = shapes.place(["L3"], fractures=finding, rng=np.random.default_rng(0))
    body = replace(lying, tilt=0.0, centre=(0.0, 0.0, 0.0))
    grid = shapes.Grid(shape=(400, 200, 1), origin=(40, 25, 0), in_plane=0.25, slice_mm=1)
    at = shapes.local(body, grid)
    inside = np.zeros(grid.shape, dtype=bool)
    inside[at.where] = shapes.distance(body, at) < 0
    rows = [int((40 - part * body.depth / 2) / 0.25) for part in (0.9, 0.0, -0.9)]
    return np.array([inside[row].sum() * 0.25 for row in rows])


@pytest.mark.parametrize(
    ("shape", "is_low"),
    [(1, (True, True, False)), (2, (False, True, False)), (3, (True, True, True))],
    ids=["wedge", "biconcave", "crush"],
)
def test_a_fracture_takes_its_height_where_its_shape_says(shape, is_low):
    """A wedge is low in front, a biconcave vertebra in the middle, a crushed one everywhere."""
    loss = 1 - heights({"L3": (3, shape)}) / heights({})
    assert tuple(bool(part > 0.2) for part in loss) == is_low
    assert 0.4 < loss.max() < 0.62


@pytest.mark.parametrize(("grade", "low", "high"), [(1, 0.2, 0.25), (2, 0.25, 0.4), (3, 0.4, 0.6)])
def test_the_height_that_is_lost_is_within_genants_grade(grade, low, high):
    """Mild is 20 to 25 %, moderate 25 to 40 %, severe more."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        (vertebra,) = shapes.place(["T12"], fractures={"T12": (grade, 1)}, rng=rng)
        assert low <= vertebra.loss <= high


def test_a_patient_has_the_same_spine_in_each_series():
    """What two series of a patient both show has the same size and the same loss."""
    full = {"T9": (3, 1), "T11": (1, 2)}
    long = shapes.place(["T8", "T9", "T10", "T11"], fractures=full, rng=np.random.default_rng(5))
    short = shapes.place(["T10", "T11"], fractures=full, rng=np.random.default_rng(5))
    for first, second in zip(long[2:], short, strict=True):
        assert replace(first, centre=second.centre) == second


def test_the_documented_cases_are_the_cases():
    """The table in docs/phantom.md lists every case with its scan, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "phantom.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| `([\w-]+)` \| \S", page, flags=re.MULTILINE)
    assert dict(listed) == dict(phantom.CASES)
    assert len(listed) == len(phantom.CASES)
