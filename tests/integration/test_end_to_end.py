"""The whole path: a tree on disk becomes a release, tables, stores, and training samples."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import verse_data as vd
from tests.support.releases import real_release
from verse_data.api import list_stores, lock_tree, prune_stores
from verse_data.errors import UsageError, VerseDataError
from verse_data.phantom import CASES
from verse_data.phantom import write as write_phantom
from verse_data.release import Release
from verse_data.releases.environment import tool_environment
from verse_data.spine.geometry import apply_affine

pytestmark = pytest.mark.usefixtures("one_core")

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture(scope="module")
def phantom_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with the default phantom locked in it, made once."""
    home = tmp_path_factory.mktemp("phantom-home")
    lock_tree("phantom", write_phantom(home / "tree", shape=(48, 96, 36)), root=home)
    return home


@pytest.fixture
def release(phantom_home: Path) -> Release:
    """The phantom, opened anew."""
    return vd.open_release("phantom", root=phantom_home)


def test_a_split_is_served_as_a_torch_dataset(phantom_home: Path, release: Release) -> None:
    """``load_split`` gives every scan of the split that has CT and mask, and says what it left out."""
    expected = {scan_id for scan_id, scan in release.series.items() if scan.split == "test"}

    served = vd.load_split("test", release="phantom", root=phantom_home)

    assert isinstance(served, torch.utils.data.Dataset)
    assert {sample["scan_id"] for sample in served} | set(served.excluded["scan_id"]) == expected
    assert set(served.excluded["scan_id"]) == {CASES["missing_derivative"]}


def test_no_patient_lies_in_two_splits(phantom_home: Path) -> None:
    """The subjects of the three splits are disjoint, also of the patient with two series."""
    subjects = [
        {
            sample["subject_id"]
            for sample in vd.load_split(split, release="phantom", root=phantom_home)
        }
        for split in ("training", "validation", "test")
    ]

    assert sum(map(len, subjects)) == len(set.union(*subjects))


def test_a_sample_is_what_lies_in_the_files(phantom_home: Path, release: Release) -> None:
    """Image, label and centroids of every sample agree with the NIfTI and JSON files, in the world."""
    for split in ("training", "validation", "test"):
        for sample in vd.load_split(split, release="phantom", root=phantom_home):
            files = release.series[sample["scan_id"]].files
            image = nib.as_closest_canonical(nib.load(release.files.object_path(files["ct"])))
            mask = nib.as_closest_canonical(nib.load(release.files.object_path(files["mask"])))

            np.testing.assert_allclose(sample["affine"].numpy(), image.affine, atol=1e-6)
            np.testing.assert_allclose(sample["image"][0].numpy(), image.get_fdata(), atol=0.51)
            np.testing.assert_array_equal(sample["label"][0].numpy(), np.rint(mask.get_fdata()))


def test_the_datalad_dataset_is_a_real_one(release: Release, tmp_path: Path) -> None:
    """`git annex fsck` and `datalad status` find nothing, `datalad clone` and `get` work on it."""
    run = {"env": tool_environment(), "check": True, "capture_output": True, "text": True}
    here = release.files.path
    clone = tmp_path / "clone"

    subprocess.run(["git", "annex", "fsck", "--quiet"], cwd=here, **run)
    status = subprocess.run(["datalad", "status"], cwd=here, **run).stdout
    subprocess.run(["datalad", "clone", str(here), str(clone)], **run)
    file = release.lock.files[0]
    subprocess.run(["datalad", "get", file.path], cwd=clone, **run)

    assert "nothing to save" in status
    assert (clone / file.path).stat().st_size == file.size


def test_a_scan_opens_with_world_coordinates(release: Release) -> None:
    """``open_scan`` gives an xarray whose coordinates are those of the affine."""
    opened = release.open_scan(CASES["lps"])

    assert opened["image"].dtype == np.int16
    assert opened["label"].dtype == np.uint8
    assert set(opened["image"].dims) == {"x", "y", "z"}
    said = opened.attrs
    assert (said["subject_id"], said["split"]) == (
        release.series[CASES["lps"]].subject_id,
        release.series[CASES["lps"]].split,
    )
    assert (said["release"], said["licence"]) == ("phantom", "CC0-1.0")
    assert said["attribution"] == release.catalog.attribution


def test_stores_belong_to_the_releases_that_list_their_ct(tmp_path: Path) -> None:
    """A release's name renames no store: another of the same files and licence takes the same one."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    one, other = (lock_tree(name, tree, root=tmp_path) for name in ("phantom", "mylab"))
    own = other.build_cache()
    other.catalog = one.catalog  # and with it the licence

    built = one.build_cache()

    assert other.build_cache() == built
    assert not set(own.values()) & set(built.values()), "another licence is another store"
    assert {s.releases for s in list_stores(root=tmp_path)} == {("mylab", "phantom")}
    with pytest.raises(UsageError, match=r"no release 'verse19' .*: mylab, phantom\).*older-than"):
        prune_stores(release="verse19", root=tmp_path)
    gone = prune_stores(release="mylab", root=tmp_path).stores
    assert set(gone) == {*built.values(), *own.values()}


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_a_number_of_processes_is_one_or_more(release: Release, workers: object) -> None:
    """No number of processes but a whole one is taken for the default."""
    with pytest.raises(UsageError, match=f"workers={workers!r}: give a whole number"):
        release.build_cache(workers=workers)  # type: ignore[arg-type]


def test_gaps_are_what_the_lock_lacks_and_not_what_is_odd(tmp_path: Path) -> None:
    """A file in another's folder is a finding, and nothing that is not listed."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    (odd,) = tree.rglob("sub-verse901_ct.json")
    odd.rename(odd.parents[1] / "sub-verse902" / odd.name)
    (lost,) = tree.rglob("sub-verse903_seg-vert_msk.nii.gz")
    lost.unlink()

    release = lock_tree("phantom", tree, check=False)

    assert set(release.findings["rule"]) >= {"wrong-folder", "missing-file"}
    assert release.gaps == 1


def test_releases_are_listed(phantom_home: Path) -> None:
    """``list_releases`` tells what the catalog knows and what is here."""
    versions = {release.name: release.versions for release in vd.list_releases(root=phantom_home)}

    assert versions["phantom"] == ("v1",)
    assert versions["verse19"] == ()


@pytest.fixture(scope="module")
def real_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with the two real scans of VerSe'19 locked in it, and a CT painted around each mask."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the real VerSe files are not at {SHARED}: this test needs them")
    root = tmp_path_factory.mktemp("real")
    lock_tree("verse19", real_release(SHARED, root / "tree"), root=root)
    return root


def test_real_files_of_verse19_are_served(real_root: Path) -> None:
    """The real masks, centroid files and workbook become two served scans with the real grades."""
    served = [vd.load_split(split, root=real_root)[0] for split in ("training", "validation")]
    rows = vd.open_release(root=real_root).vertebrae.set_index(["scan_id", "level"])

    assert [sample["scan_id"] for sample in served] == ["verse004", "verse010"]
    assert served[0]["image"].shape == (1, 61, 161, 338)
    assert rows.loc[("verse004", "L1"), "grade"] == 3
    assert rows.loc[("verse004", "L1"), "fracture_type"] == "crush"
    assert rows.loc[("verse004", "L4"), "grade_status"] == "not_assessed"
    assert rows.loc[("verse004", "T9"), "grade"] == 2


def test_centroids_of_real_files_lie_in_their_vertebrae(real_root: Path) -> None:
    """In the served grid, the centroid of each real vertebra lies within its mask."""
    sample = vd.load_split("training", root=real_root)[0]
    rows = vd.open_release(root=real_root).vertebrae
    rows = rows[(rows["scan_id"] == "verse004") & rows["has_centroid"]]
    world = rows[["centroid_x", "centroid_y", "centroid_z"]].to_numpy(float)
    index = np.rint(apply_affine(np.linalg.inv(sample["affine"].numpy()), world)).astype(int)

    found = [int(sample["label"][0][tuple(point)]) for point in index]

    assert found == rows["label"].tolist()


def test_a_real_ct_in_hounsfield_units_is_served(shared: Path, tmp_path: Path) -> None:
    """The real CT crop comes back with its own HU and its three vertebrae."""
    source, root = shared / "data" / "tptbox", tmp_path / "tree" / "dataset-01training"
    raw, derived = root / "rawdata" / "sub-gl900", root / "derivatives" / "sub-gl900"
    raw.mkdir(parents=True)
    derived.mkdir(parents=True)
    shutil.copy(source / "sub-ct_label-22_ct.nii.gz", raw / "sub-gl900_ct.nii.gz")
    shutil.copy(
        source / "sub-ct_seg-vert_label-22_msk.nii.gz", derived / "sub-gl900_seg-vert_msk.nii.gz"
    )

    lock_tree("crop", tmp_path / "tree")
    sample = vd.load_split("training", release="crop")[0]
    original = nib.as_closest_canonical(nib.load(source / "sub-ct_label-22_ct.nii.gz"))

    np.testing.assert_allclose(sample["image"][0].numpy(), original.get_fdata(), atol=0.51)
    assert set(np.unique(sample["label"].numpy())) == {0, 21, 22, 23}


@pytest.mark.parametrize("by", ["file", pytest.param("stdin", marks=pytest.mark.slow)])
def test_a_plain_script_needs_no_main_guard(
    release: Release, tmp_path: Path, home: Path, by: str
) -> None:
    """A script without ``if __name__ == "__main__"`` converts on several processes and runs once."""
    shutil.copytree(release.config.releases, home / "releases")
    script = tmp_path / "train.py"
    script.write_text(
        "import verse_data as vd\n"
        "print('once', len(vd.load_split('training', release='phantom', workers=2)))\n"
    )
    where = {"args": [sys.executable, str(script)]} if by == "file" else {"args": [sys.executable]}
    given = None if by == "file" else script.read_text()

    done = subprocess.run(**where, input=given, check=True, capture_output=True, text=True)

    assert done.stdout.splitlines() == ["once 7"]


def test_a_scan_without_a_ct_is_counted(tmp_path: Path) -> None:
    """A scan whose CT the release lacks is left out with the reason, and a split of such is refused."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    (lost,) = tree.rglob("sub-verse901_ct.nii.gz")
    lost.unlink()
    (only,) = tree.rglob("sub-verse904_ct.nii.gz")
    only.unlink()
    lock_tree("phantom", tree)

    served = vd.load_split("training", release="phantom")

    assert served.excluded.to_dict("records") == [
        {"scan_id": "verse901", "subject_id": "verse901", "reason": "no_ct"}
    ]
    with pytest.raises(UsageError, match="1 no_ct"):
        vd.load_split("test", release="phantom")
    vertebrae = vd.load_split("training", release="phantom", unit="vertebra")
    rows = vd.load_table(release="phantom", where="scan_id == 'verse901' and grade >= 0")
    assert (vertebrae.excluded["reason"] == "no_ct").sum() == len(rows) > 0


def test_what_one_release_lacks_another_serves(tmp_path: Path) -> None:
    """A scan that one release of several can serve is served, and not left out as well."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    lock_tree("whole", tree)
    (lost,) = tree.rglob("sub-verse901_ct.nii.gz")
    lost.unlink()
    lock_tree("part", tree)

    for unit in ("scan", "patch", "vertebra"):
        alone = vd.load_split("training", release="whole", unit=unit)
        for names in (["whole", "part"], ["part", "whole"]):
            both = vd.load_split("training", release=names, unit=unit)
            assert len(both) == len(alone)
            assert sorted(both.scans.scan_id) == sorted(alone.scans.scan_id)
            assert sorted(both.excluded["reason"]) == sorted(alone.excluded["reason"])


def test_a_file_that_was_mended_is_read_again(tmp_path: Path) -> None:
    """One opened release: its tables while a file is broken on disk, and once it is whole."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    release = lock_tree("phantom", tree)
    (file,) = (f for f in release.lock.files if f.path.endswith("sub-verse901_seg-subreg_ctd.json"))
    stored = release.files.object_path(file)
    stored.parent.chmod(0o755)
    stored.unlink()
    stored.write_bytes(b"?" * file.size)
    with pytest.raises(VerseDataError, match=r"sub-verse901_seg-subreg_ctd\.json"):
        _ = release.vertebrae

    stored.unlink()
    stored.write_bytes((tree / file.path).read_bytes())

    assert "verse901" in set(release.vertebrae["scan_id"])
    assert "broken-file" not in set(release.findings["rule"])


def _spoilt_phantom(folder: Path, path: str, data: bytes) -> Path:
    """Lock a phantom whose file at `path` is broken, as a listing of OSF may be; return the root."""
    tree = write_phantom(folder / "tree", n_subjects=4, shape=(32, 64, 24))
    (spoilt,) = tree.rglob(path)
    spoilt.write_bytes(data)
    lock_tree("phantom", tree, root=folder / "home", check=False)
    return folder / "home"


@pytest.mark.parametrize("kind", ["ct.json", "seg-subreg_ctd.json", "seg-vert_msk.nii.gz"])
def test_a_broken_file_stops_its_own_split_alone(kind: str, tmp_path: Path) -> None:
    """A broken file of the test split is a finding, and no reason not to train."""
    sidecar = b'{"dataset": 1, "KVP": "120", "Manufacturer": "a", "ManufacturerModelName": "b"}'
    bad = sidecar if kind == "ct.json" else b"{}"
    root = _spoilt_phantom(tmp_path, f"sub-verse904_{kind}", bad)
    where = "has_mask or not has_mask"

    for condition in (None, where):
        served = vd.load_split("training", release="phantom", root=root, where=condition)
        assert {sample["subject_id"] for sample in served} == {"verse901", "verse902"}
        if condition is None and kind == "ct.json":
            continue  # nothing of a sidecar is served
        with pytest.raises(VerseDataError, match=f"sub-verse904_{kind}"):
            vd.load_split("test", release="phantom", root=root, where=condition)
    release = vd.open_release("phantom", root=root)
    broken = release.findings[release.findings["rule"] == "broken-file"]
    assert [Path(file).name for file in broken["file"]] == [f"sub-verse904_{kind}"]
    assert list(broken["severity"]) == ["error"]
    assert release.folds(2, split="training").k == 2
    with pytest.raises(VerseDataError, match="verse-data findings phantom"):
        _ = release.vertebrae
