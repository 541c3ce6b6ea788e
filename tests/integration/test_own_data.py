"""Data of a lab's own: a tree whose folders name no split."""

from __future__ import annotations

from pathlib import Path

import pytest

import verse_data as vd
from tests.support.command import verse_data
from verse_data.api import lock_tree
from verse_data.errors import UsageError
from verse_data.phantom import write

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Write a folder that holds rawdata and derivatives, and nothing that says training."""
    made = write(tmp_path / "made", shape=(48, 96, 36))
    return (made / "dataset-phantomvalidation").rename(tmp_path / "plain")


def test_scans_without_a_split_are_served_by_fold_and_the_error_says_how(plain: Path) -> None:
    """No split of that name is an error that tells how to serve such scans; folds serve them."""
    lock_tree("mylab", plain)

    with pytest.raises(UsageError, match=r"dataset-mylabtraining.*open_release\('mylab'\).dataset"):
        vd.load_split("training", release="mylab")

    release = vd.open_release("mylab")
    with pytest.warns(UserWarning, match="verse-data adopt mylab"):
        fold = release.folds(2, seed=0).split(0)
    served = release.dataset(fold["training"])
    assert {sample["scan_id"] for sample in served} == set(fold["training"])
    assert {sample["split"] for sample in served} == {""}


def test_a_lock_says_what_the_scans_lack_and_speaks_of_nothing_that_nobody_expects(
    plain: Path,
) -> None:
    """Nothing was published of such a release, so nothing of it can be expected."""
    next(plain.rglob("*_msk.nii.gz")).unlink()

    done = verse_data("lock", "mylab", "--from-tree", str(plain))

    assert done.returncode == 0
    assert "mylab v1 lacks 1 files or scans. See which: verse-data verify mylab" in done.stderr
    assert "expect" not in done.stdout + done.stderr
    listed = verse_data("verify", "mylab", "--level", "presence").stdout
    assert "mend: verse-data lock mylab --from-tree FOLDER  # once the files are there" in listed


def test_a_split_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    """A release with one split says which."""
    made = write(tmp_path / "made", shape=(48, 96, 36))
    for name in ("dataset-phantomvalidation", "dataset-phantomtest"):
        (made / name).rename(tmp_path / name)
    lock_tree("mylab", made)

    with pytest.raises(UsageError, match="has no scan in split 'test'; it has training"):
        vd.load_split("test", release="mylab")
