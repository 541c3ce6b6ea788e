"""A broken tree is refused with one clear error, its exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import openpyxl
import pytest

from verse_data.phantom import write as write_phantom
from verse_data.volumes.nifti import write_nifti


@pytest.fixture(scope="module")
def sound_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom, made once."""
    return write_phantom(
        tmp_path_factory.mktemp("sound") / "tree", n_subjects=4, shape=(32, 64, 24)
    )


def truncate_ct(tree: Path) -> str:
    """Cut the last kilobyte of a CT."""
    path = min(tree.rglob("*_ct.nii.gz"))
    path.write_bytes(path.read_bytes()[:-1024])
    return path.name


def reshape_mask(tree: Path) -> str:
    """Replace a mask by one with a slice less."""
    path = min(tree.rglob("*_msk.nii.gz"))
    mask = nib.load(path)
    write_nifti(path, np.asarray(mask.dataobj).astype(np.uint8)[:, :, :-1], mask.affine)
    return path.name


def grade_five(tree: Path) -> str:
    """Write grade 5 into the first graded cell of the workbook."""
    path = tree / "phantom_grading.xlsx"
    book = openpyxl.load_workbook(path)
    sheet = book["VerSe_dataset"]
    header = [cell.value for cell in sheet[1]]
    column = header.index("L1_fx-g") + 1
    row = next(r for r in range(2, sheet.max_row + 1) if sheet.cell(r, column).value == 0)
    sheet.cell(row, column).value = 5
    book.save(path)
    return "L1_fx-g"


def no_list(tree: Path) -> str:
    """Make a centroid file an object."""
    path = min(tree.rglob("*_ctd.json"))
    path.write_text(json.dumps({"label": 20}))
    return path.name


def no_rawdata(tree: Path) -> str:
    """Leave no rawdata folder."""
    for path in list(tree.rglob("rawdata")):
        shutil.rmtree(path)
    return "rawdata"


@pytest.mark.parametrize(
    ("spoil", "exit_code"),
    [(truncate_ct, 4), (reshape_mask, 3), (grade_five, 3), (no_list, 3), (no_rawdata, 2)],
)
def test_a_spoilt_tree_is_refused_whole(
    sound_tree: Path, tmp_path: Path, home: Path, spoil: Callable[[Path], str], exit_code: int
) -> None:
    """The error names file and place on one screen, exits with its code, and writes nothing."""
    tree = tmp_path / "tree"
    shutil.copytree(sound_tree, tree)
    place = spoil(tree)

    done = lock(tree, home)

    assert done.returncode == exit_code, done.stderr
    assert place in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 25
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_the_sound_tree_is_accepted(sound_tree: Path, home: Path) -> None:
    """Control: the same tree, unspoilt, becomes a release."""
    done = lock(sound_tree, home)

    assert done.returncode == 0, done.stderr
    assert (home / "releases" / "phantom" / ".git").exists()


def lock(tree: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run ``verse-data lock phantom --from-tree``."""
    command = [sys.executable, "-m", "verse_data", "lock", "phantom", "--from-tree", str(tree)]
    environment = {**os.environ, "VERSE_DATA_HOME": str(home)}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_a_part_without_its_cts_is_refused(sound_tree: Path, tmp_path: Path, home: Path) -> None:
    """A split that lost its rawdata/ folder is named, although the other splits have theirs."""
    tree = tmp_path / "tree"
    shutil.copytree(sound_tree, tree)
    shutil.rmtree(tree / "dataset-phantomtraining" / "rawdata")

    done = lock(tree, home)

    assert done.returncode == 2
    assert "dataset-phantomtraining holds derivatives/ and no rawdata/" in done.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []
