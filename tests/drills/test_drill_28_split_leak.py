"""Drill 28: nobody sits in two folds, and the same input gives the same folds."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.catalogues import made_up_tables
from torch.utils.data import ConcatDataset

import verse_data as vd
from verse_data.api import lock_tree
from verse_data.errors import ValidationFailed
from verse_data.phantom import write
from verse_data.tables.folds import make_folds
from verse_data.tables.leaks import find_leaks

pytestmark = pytest.mark.usefixtures("one_core")

CATALOGUES = 100
many_catalogues = pytest.mark.parametrize(
    "catalogues", [CATALOGUES, pytest.param(5 * CATALOGUES, marks=pytest.mark.slow)]
)


@many_catalogues
def test_no_patient_in_two_folds_of_made_up_catalogues(catalogues: int) -> None:
    """In made-up catalogues, 2 to 5 folds each, the leak check finds nobody on two sides."""
    for seed in range(catalogues):
        scans, vertebrae = made_up_tables(seed)
        folds = make_folds(scans, vertebrae, k=2 + seed % 4, seed=seed)
        sides = {f"fold {number}": part.scans for number, part in enumerate(folds.parts)}

        report = find_leaks(sides, scans=scans)
        assert report.is_clean, f"catalogue {seed}: {report}"
        assert sum(report.patients.values()) == scans["subject_id"].nunique()
        assert sum(map(len, sides.values())) == len(scans)


def test_same_input_same_folds() -> None:
    """Rows in another order, and a second run, give byte for byte the same folds."""
    for seed in range(40):
        scans, vertebrae = made_up_tables(seed)
        digest = make_folds(scans, vertebrae, k=3, seed=seed).digest
        shuffled = (
            scans.sample(frac=1, random_state=seed),
            vertebrae.sample(frac=1, random_state=seed),
        )

        assert make_folds(scans, vertebrae, k=3, seed=seed).digest == digest
        assert make_folds(*shuffled, k=3, seed=seed).digest == digest


def test_control_dividing_scans_at_random_leaks() -> None:
    """The usual way, dividing the list of scans, puts patients on two sides nearly every time."""
    leaking = 0
    for seed in range(CATALOGUES):
        scans, _ = made_up_tables(seed)
        names = scans["scan_id"].tolist()
        random.Random(seed).shuffle(names)
        half = len(names) // 2
        report = find_leaks({"training": names[:half], "validation": names[half:]}, scans=scans)
        leaking += bool(report.leaks)

    assert leaking > 0.8 * CATALOGUES


@pytest.fixture(scope="module")
def two_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with a phantom as ``theirs``, and its validation series as the training of ``ours``."""
    root = tmp_path_factory.mktemp("two")
    tree = write(root / "tree", n_subjects=6, shape=(32, 64, 24), seed=3)
    shutil.copytree(tree / "dataset-phantomvalidation", root / "ours" / "training")
    lock_tree("theirs", tree, root=root / "home")
    lock_tree("ours", root / "ours", root=root / "home")
    return root / "home"


@pytest.mark.parametrize("releases", [["ours", "theirs"], ["theirs", "ours"]])
@pytest.mark.parametrize("unit", ["scan", "patch", "vertebra"])
@pytest.mark.parametrize("split", ["training", "validation"])
def test_no_patient_in_two_splits_of_two_releases(
    two_releases: Path, releases: list[str], unit: Any, split: Any
) -> None:
    """Two releases that put one patient into two splits are not served together, in any order."""
    with pytest.raises(ValidationFailed, match=r"two (published )?splits"):
        vd.load_split(split, unit=unit, release=releases, root=two_releases)


def test_control_putting_two_releases_together_by_hand_leaks(two_releases: Path) -> None:
    """The usual way, concatenating the training sets, trains on patients of the validation set."""
    parts = [
        vd.load_split("training", release=name, root=two_releases) for name in ("ours", "theirs")
    ]
    together: Any = ConcatDataset(parts)
    held_out = vd.load_split("validation", release="theirs", root=two_releases)

    trained = {sample["subject_id"] for sample in together}
    assert trained & {sample["subject_id"] for sample in held_out}
