"""Data of a lab's own: a tree whose folders name no split."""

from __future__ import annotations

import json
import shutil
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
    assert "mylab v1 lacks 1 file or scan. See which: verse-data verify mylab" in done.stderr
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


def test_folders_that_name_no_split_are_told(plain: Path) -> None:
    """`lock` names scans and folders, and how to call them; a folder that is called so is a split."""
    (plain / "dataset-mylabtest").mkdir()
    for kind in ("rawdata", "derivatives"):
        (plain / "dataset-mylabtest" / kind).mkdir()
        moved = min((plain / kind).iterdir())
        moved.rename(plain / "dataset-mylabtest" / kind / moved.name)

    done = verse_data("lock", "mylab", "--from-tree", str(plain))

    series = vd.open_release("mylab").series.values()
    tested = [scan.scan_id for scan in series if scan.split == "test"]
    rest = [scan.scan_id for scan in series if scan.split is None]
    assert len(tested) == 1
    assert len(rest) > 0
    assert f"{len(rest)} scans in no split" in done.stderr
    assert f"names one: {', '.join(rest)}, in derivatives, rawdata. " in done.stderr
    assert "dataset-mylabtraining" in done.stderr
    assert "folds" in done.stderr


def test_a_tree_whose_folders_name_splits_is_locked_without_a_word_of_them(tmp_path: Path) -> None:
    """Control: nothing is told of splits where each scan has one."""
    made = write(tmp_path / "made", n_subjects=4, shape=(48, 96, 36))

    assert "split" not in verse_data("lock", "mylab", "--from-tree", str(made)).stderr


def test_miccai_folders_are_locked_as_they_lie(tmp_path: Path) -> None:
    """Scans, people, splits, masks and centroids of VerSe's other layout, whatever its folders are."""
    made = write(tmp_path / "made", n_subjects=4, shape=(48, 96, 36))
    cts = sorted(made.rglob("*_ct.nii.gz"))
    names = ("01_training/verse500/verse500", "02_validation/GL003/GL003", "03_test/verse512_CT-iso/verse512_CT-iso",
             "dataset-verse19training-miccai/verse253", "more/verse014")  # fmt: skip
    for ct, name in zip(cts, names, strict=True):
        target = tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = made / str(ct.relative_to(made)).replace("rawdata", "derivatives")
        shutil.copy(ct, f"{target}.nii.gz")
        shutil.copy(str(beside).replace("_ct.nii", "_seg-vert_msk.nii"), f"{target}_seg.nii.gz")
        points = json.loads(
            Path(str(beside).replace("_ct.nii.gz", "_seg-subreg_ctd.json")).read_text()
        )
        Path(f"{target}_ctd.json").write_text(json.dumps(points[1:]))

    done = verse_data("lock", "mylab", "--from-tree", str(tmp_path / "tree"))

    assert (
        "1 scan in no split, as no folder inside the tree names one: verse014, in more."
        in done.stderr
    )
    release = vd.open_release("mylab")
    found = {scan.scan_id: (scan.subject_id, scan.split) for scan in release.series.values()}
    assert found == {
        "verse500": ("verse500", "training"),
        "gl003": ("gl003", "validation"),
        "verse512_dir-iso": ("verse512", "test"),
        "verse401_split-verse253": ("verse401", "training"),
        "verse014": ("verse014", None),
    }
    with pytest.warns(vd.IncompleteTable):
        rows = release.vertebrae
    assert set(rows["scan_id"]) == set(found)
    assert rows["has_mask"].all()
    assert rows["has_centroid"].all()
    served = {sample["scan_id"]: sample for sample in vd.load_split("training", release="mylab")}
    assert sorted(served) == ["verse401_split-verse253", "verse500"]
    assert all(sample["label"].any() for sample in served.values())
