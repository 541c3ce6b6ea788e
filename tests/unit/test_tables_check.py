"""A local tree is checked whole before anything is made of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.support import workbooks
from tests.support.releases import PIR, locked, write_scan
from tests.support.workbooks import row
from verse_data.errors import NiftiRefused, ValidationFailed, VolumeCorrupt, counted
from verse_data.tables.check import check_tree
from verse_data.volumes.nifti import write_nifti


def check(root: Path) -> None:
    """Lock the tree at `root`, and check it."""
    check_tree(locked(root), root)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A right tree of two scans with a workbook."""
    root = tmp_path / "tree"
    write_scan(root, "verse004", [17, 18, 19, 20, 21, 22, 23])
    write_scan(root, "verse005", [20])
    workbooks.write_csv(root / "grading.csv", [row(4), row(5)])
    return root


def test_a_right_tree_passes(tree: Path) -> None:
    """Nothing is said of it."""
    check(tree)


def test_a_real_tree_passes(shared: Path) -> None:
    """The real files of two scans hold every rule."""
    check(shared / "data" / "verse19")


def test_a_cut_volume_is_corrupt(tree: Path) -> None:
    """A .nii.gz without its end is exit 4, with its name."""
    path = next(tree.rglob("sub-verse004_ct.nii.gz"))
    path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(VolumeCorrupt, match=r"^\S+/sub-verse004_ct\.nii\.gz") as caught:
        check(tree)
    assert caught.value.exit_code == 4


def test_a_flipped_bit_is_corrupt(tree: Path) -> None:
    """A flipped bit inside the stream is exit 4, for masks as for CTs."""
    path = next(tree.rglob("sub-verse005*msk.nii.gz"))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(bytes(data))

    with pytest.raises(VolumeCorrupt, match="sub-verse005_seg-vert_msk"):
        check(tree)


def test_a_mask_of_another_shape_is_invalid(tree: Path) -> None:
    """CT and mask on different grids are exit 3, with both shapes."""
    path = next(tree.rglob("sub-verse004*msk.nii.gz"))
    write_nifti(path, np.zeros((12, 60, 7), dtype=np.uint8), PIR)

    with pytest.raises(ValidationFailed, match=r"\(12, 60, 6\).*\(12, 60, 7\)") as caught:
        check(tree)
    assert caught.value.exit_code == 3


def test_a_hostile_header_is_refused(tree: Path) -> None:
    """A file that is no NIfTI is exit 7."""
    next(tree.rglob("sub-verse004_ct.nii.gz")).write_bytes(gzip.compress(b"x" * 400))

    with pytest.raises(NiftiRefused):
        check(tree)


def test_everything_is_said_at_once_and_the_worst_decides(tree: Path) -> None:
    """A bad cell, a bad JSON file and a cut volume: one text, of the class of the cut volume."""
    workbooks.write_csv(tree / "grading.csv", [row(4, **{"L1_fx-g": 5}), row(5)])
    next(tree.rglob("sub-verse005*ctd.json")).write_text("{}")
    path = next(tree.rglob("sub-verse004_ct.nii.gz"))
    path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(VolumeCorrupt) as caught:
        check(tree)

    text = str(caught.value)
    assert "3 problems in the tree" in text
    assert "grading.csv, row 2, column Y (L1_fx-g): 5:" in text
    assert "sub-verse005_seg-subreg_ctd.json: a centroid file is a list" in text


def test_a_spine_without_t12_may_skip_it(tree: Path) -> None:
    """T11 and L1 graded with T12 blank passes where the mask shows no T12, and nowhere else."""
    gap = row(4, **{"T12_fx-g": None, "T12_fx-s": None})
    workbooks.write_csv(tree / "grading.csv", [gap, row(5)])
    with pytest.raises(ValidationFailed, match="T12_fx-g"):
        check(tree)

    write_scan(tree, "verse004", [17, 18, 20, 21])
    check(tree)


def test_a_person_in_two_splits_is_refused(tree: Path) -> None:
    """Series of one person in training and test are never made into a release."""
    write_scan(tree, "verse401_split-verse201", [20])
    write_scan(tree, "verse401_split-verse253", [20], split="test")

    with pytest.raises(
        ValidationFailed,
        match="verse401_split-verse201 in training, verse401_split-verse253 in test",
    ):
        check(tree)


def test_a_person_spelled_in_two_ways_is_refused(tree: Path) -> None:
    """Names that differ in case alone would be two people, on two sides of a split perhaps."""
    write_scan(tree, "GL003", [20])
    write_scan(tree, "gl003", [20], split="test")

    with pytest.raises(ValidationFailed, match="GL003 and gl003 differ in case alone"):
        check(tree)


def test_a_folder_without_a_scan_is_refused(tmp_path: Path) -> None:
    """Files whose names say nothing are no release."""
    (tmp_path / "rawdata").mkdir()
    (tmp_path / "rawdata" / "notes.txt").write_text("x")

    with pytest.raises(ValidationFailed, match="No file of the tree has a name of VerSe's layouts"):
        check(tmp_path)


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (1, ("finding",), "1 finding"),
        (0, ("finding",), "0 findings"),
        (1200, ("row",), "1,200 rows"),
        (1, ("vertebra", "vertebrae"), "1 vertebra"),
        (2, ("store is damaged", "stores are damaged"), "2 stores are damaged"),
    ],
)
def test_one_thing_is_counted_in_the_singular(
    number: int, words: tuple[str, ...], told: str
) -> None:
    """A count stands with the words that fit it."""
    assert counted(number, *words) == told
