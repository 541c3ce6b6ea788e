"""Exports of the phantom for nnU-Net and MONAI, read back with nibabel and MONAI's own code."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import verse_data as vd
from tests.support.command import verse_data
from tests.support.releases import PIR, SHAPE, write_scan
from tests.support.trees import snapshot
from verse_data.errors import IntegrityError, UsageError, ValidationFailed, VerseDataError
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.tables.leaks import find_leaks
from verse_data.tables.split_files import read_splits
from verse_data.volumes.nifti import write_nifti

T13 = vd.phantom.CASES["t13"]
REPOSITORY = Path(__file__).parents[2]
PLACE = (slice(0, 4), slice(40, 70), slice(76, 108), slice(123, 124), slice(252, 328))
"""Bytes of a NIfTI header that say where voxels lie: sizes, and from qform_code to srow_z."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> vd.Release:
    home = tmp_path_factory.mktemp("exports")
    vd.lock_tree("phantom", vd.phantom.write(home / "tree", shape=(32, 64, 24)), root=home)
    return vd.open_release("phantom", root=home)


@pytest.fixture(scope="module")
def dataset(release: vd.Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vd.export.nnunet(release, tmp_path_factory.mktemp("raw")).path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lab(root: Path, name: str = "mylab") -> vd.Release:
    vd.lock_tree(name, root / "tree", root=root / "home")
    return vd.open_release(name, root=root / "home")


# --- nnU-Net --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", ["t13", "l6", "oblique_2mm_sagittal", "las", "pir", "uint8_ct_with_slope"]
)
def test_a_mask_is_its_ct_s_grid_and_the_source_s_labels(release, dataset, case):
    """Header bytes of place are the CT's; labels are the published ones, with T13 as 26."""
    scan = vd.phantom.CASES[case]
    path = next(dataset.glob(f"labels*/{scan}.nii.gz"))
    ours = gzip.decompress(path.read_bytes())
    theirs = gzip.decompress(release.path(scan, "ct").read_bytes())
    published = np.asanyarray(nib.load(release.path(scan, "mask")).dataobj)

    assert all(ours[part] == theirs[part] for part in PLACE)
    written = nib.load(path)
    assert written.get_data_dtype() == np.uint8
    assert written.affine.tobytes() == nib.load(release.path(scan, "ct")).affine.tobytes()
    np.testing.assert_array_equal(written.dataobj, np.where(published == 28, 26, published))
    assert (case == "t13") == (26 in np.asanyarray(written.dataobj))


def test_only_masks_and_texts_are_written(release, dataset):
    """CTs to train on are named by the path of the locked file; for testing they are links to it."""
    files = {p.relative_to(dataset).as_posix() for p in dataset.rglob("*") if not p.is_dir()}
    links = {p.relative_to(dataset).as_posix() for p in dataset.rglob("*") if p.is_symlink()}
    told = read(dataset / "dataset.json")

    masks = {f"labelsTr/{scan}.nii.gz" for scan in told["dataset"]}
    tests = {"verse904", "verse908", "verse912"}
    masks |= {
        f"labelsTs/{scan}.nii.gz" for scan in tests - {vd.phantom.CASES["missing_derivative"]}
    }
    assert links == {f"imagesTs/{scan}_0000.nii.gz" for scan in tests}
    assert files - links == masks | {"dataset.json", "splits_final.json", "README.md"}
    for scan, case in told["dataset"].items():
        assert case["images"] == [str(release.path(scan, "ct"))]
        assert (dataset / case["label"]).is_file()


def test_dataset_json_says_what_was_exported_and_how_to_come_back(release, dataset):
    """Release, version, lock, labels and their inverse are there; labels count 0 to 26."""
    told = read(dataset / "dataset.json")

    assert told["verse_data"] == {
        "release": "phantom",
        "version": "v1",
        "lock": f"sha256:{release.lock.digest}",
        "labels": "consecutive",
        "inverse": {"26": 28},
    }
    assert list(told["labels"].values()) == list(range(27))
    assert {told["labels"][level] for level in LABEL_OF_LEVEL} == set(range(1, 27))
    assert told["numTraining"] == len(told["dataset"]) == 10
    assert (told["licence"], told["file_ending"]) == ("CC0-1.0", ".nii.gz")
    readme = (dataset / "README.md").read_text()
    assert all(word in readme for word in ("CC0-1.0", release.lock.digest, "predictions import"))


def test_the_published_split_is_one_fold(release, dataset):
    """Training and validation are its two sides, and no patient is on both."""
    (fold,) = read(dataset / "splits_final.json")
    of = {scan: files.split for scan, files in release.series.items()}

    assert {of[scan] for scan in fold["train"]} == {"training"}
    assert {of[scan] for scan in fold["val"]} == {"validation"}


def test_folds_are_those_of_the_release(release, tmp_path):
    """With k and seed, each fold is that of `Release.folds`, without scans that have no mask."""
    done = vd.export.nnunet(release, tmp_path, k=3, seed=2, name="cv")
    folds, written = release.folds(3, seed=2), read(done.path / "splits_final.json")

    assert done.left_out == {"verse908": "no mask"}
    for number, fold in enumerate(written):
        sides = folds.split(number)
        assert fold["train"] == [s for s in sides["training"] if s != "verse908"]
        assert fold["val"] == [s for s in sides["validation"] if s != "verse908"]
        assert find_leaks(fold, scans=release.scans).is_clean
    assert read(done.path / "dataset.json")["folds"]["digest"] == folds.digest
    commands = (done.path / "README.md").read_text().splitlines()
    (trained,) = [line.partition("#")[0] for line in commands if "nnUNetv2_train " in line]
    assert trained.strip().endswith("$fold -tr nnUNetTrainerNoMirroring")


@pytest.mark.parametrize("labels", ["binary", "regions"])
def test_other_labels_fit_what_dataset_json_declares(release, tmp_path, labels):
    """Masks hold only numbers that are declared; regions are lists, in the order of their numbers."""
    done = vd.export.nnunet(release, tmp_path, labels=labels)
    told = read(done.path / "dataset.json")
    declared = set(np.hstack(list(told["labels"].values())).tolist())
    found = {
        int(n)
        for path in done.path.glob("labelsTr/*")
        for n in np.unique(np.asanyarray(nib.load(path).dataobj))
    }

    assert declared == set(range(2 if labels == "binary" else 27))
    assert found <= declared
    assert told["verse_data"]["inverse"] == {}
    if labels == "regions":
        assert told["regions_class_order"] == [4, 1, 2, 3]
        assert list(told["labels"]) == ["background", "vertebra", "cervical", "thoracic", "lumbar"]
        assert told["labels"]["thoracic"] == [*range(8, 20), 26]


@pytest.mark.parametrize("ct", ["copy", "link"])
def test_cts_may_lie_in_the_dataset(release, tmp_path, ct):
    """As copies or links, with the names that nnU-Net looks for, and no list of cases."""
    done = vd.export.nnunet(release, tmp_path, ct=ct)
    path = done.path / "imagesTr" / "verse903_0000.nii.gz"

    assert path.is_symlink() == (ct == "link")
    assert path.read_bytes() == release.path("verse903", "ct").read_bytes()
    assert "dataset" not in read(done.path / "dataset.json")


def test_paths_may_begin_with_a_variable(release, tmp_path, monkeypatch):
    """Set to the release's folder, the variable leads to the CT, as nnU-Net expands it."""
    done = vd.export.nnunet(release, tmp_path, variable="VERSE_ROOT")
    image = read(done.path / "dataset.json")["dataset"]["verse903"]["images"][0]
    monkeypatch.setenv("VERSE_ROOT", str(release.files.path))

    assert image.startswith("$VERSE_ROOT/")
    assert Path(os.path.expandvars(image)).samefile(release.path("verse903", "ct"))


def test_a_dry_run_says_how_many_bytes_and_writes_nothing(release, tmp_path):
    """The command prints the folder, bytes and scans; nothing is there afterwards."""
    root = ("--root", str(release.files.path.parents[1]))
    said = verse_data("export", "nnunet", "phantom", str(tmp_path / "raw"), "--dry-run", *root)
    copies = vd.export.nnunet(release, tmp_path / "raw", ct="copy", dry_run=True)

    assert said.returncode == 0, said.stderr
    assert "Would write about" in said.stderr
    assert "10 scans to train on, 3 to test on" in said.stderr
    masks = sum(file.size for file in release.locked(roles=["mask"]))
    cts = sum(file.size for file in release.locked(roles=["ct"]))
    assert (copies.nbytes, copies.to_fetch) == (masks + cts, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_same_release_makes_the_same_bytes(release, dataset, tmp_path):
    """All that differs between two exports is the folder that the README names."""
    again = vd.export.nnunet(release, tmp_path).path
    first, second = (
        {n: c for n, c in snapshot(f).items() if n != "README.md"} for f in (dataset, again)
    )
    assert first == second


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"labels": "regoins"}, "Did you mean 'regions'"),
        ({"ct": "move"}, "none of reference, copy, link"),
        ({"ct": "copy", "variable": "ROOT"}, "by reference"),
        ({"variable": "a b"}, "no name of an environment variable"),
        ({"dataset_id": 1000}, "1 to 999"),
        ({"name": "a/b"}, "no name of a dataset"),
        ({"seed": 3}, "Give k=5"),
        ({"k": 3, "split": "valid"}, "Did you mean 'validation'"),
        *[({"k": k, "dry_run": dry}, f"k={k} must") for k in (0, 1, 20) for dry in (True, False)],
        ({"out": "Dataset007_x"}, "not a dataset in it"),
        ({"release": "phantom"}, "vd.open_release"),
    ],
)
def test_a_refusal_says_why_and_leaves_nothing(release, tmp_path, options, part):
    """What cannot be done is refused before anything is written."""
    release, out = options.pop("release", release), tmp_path / options.pop("out", "raw")
    with pytest.raises(UsageError, match=part.replace("(", r"\(")):
        vd.export.nnunet(release, out, **options)
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_options_are_refused_before_anything_is_fetched(tmp_path, monkeypatch):
    """Folds are made of the tables, before volumes; a release without validation fails at once."""
    called = []
    for name in ("fetch", "fetch_tables"):
        monkeypatch.setattr(vd.Release, name, lambda *_, name=name, **__: called.append(name))
    write_scan(tmp_path / "tree", "verse900", [20, 21])
    write_scan(tmp_path / "tree", "verse901", [20])
    for scan in ("verse902", "verse903"):
        write_scan(tmp_path / "tree", scan, [22], split="test")
        next((tmp_path / "tree").rglob(f"sub-{scan}*_msk.nii.gz")).unlink()
    release = lab(tmp_path)

    for export in (vd.export.nnunet, vd.export.monai):
        for options in ({"k": 50}, {}, {"dry_run": True}):
            advice = r"patients, 4|validation\. .*: k=2, split='training' \(--k 2 --split training"
            with pytest.raises(UsageError, match=advice):
                export(release, tmp_path / "out", **options)
        assert called == []
        with pytest.raises(UsageError, match=r"mask in test\..* without split"):
            export(release, tmp_path / "out", k=2, split="test")
        with pytest.raises(UsageError, match="Give a smaller k"):
            export(release, tmp_path / "out", k=4)
        assert called.pop() == "fetch_tables"
        export(release, tmp_path / export.__name__, k=2)
        assert [called.pop(0), called.pop(0)] == ["fetch_tables", "fetch"]


def test_a_release_without_masks_is_not_told_to_divide_its_scans(tmp_path):
    """No division of them would help."""
    write_scan(tmp_path / "tree", "verse900", [20, 21])
    next((tmp_path / "tree").rglob("*_msk.nii.gz")).unlink()
    release = lab(tmp_path)

    for k in (None, 5):
        with pytest.raises(UsageError, match=r"has no scan with both CT and mask\.$"):
            vd.export.nnunet(release, tmp_path / "raw", k=k)


def test_a_number_or_folder_that_is_taken_is_refused(release, dataset):
    """An export replaces nothing, and gives no second dataset the same number."""
    with pytest.raises(UsageError, match="exists, and nothing in it was changed"):
        vd.export.nnunet(release, dataset.parent)
    with pytest.raises(UsageError, match="two datasets of one number"):
        vd.export.nnunet(release, dataset.parent, name="other")


def test_every_bad_scan_is_named_and_nothing_is_left(tmp_path):
    """Labels of no vertebra are told for all scans together."""
    write_scan(tmp_path / "tree", "verse900", [20, 21])
    write_scan(tmp_path / "tree", "verse901", [24, 26])
    write_scan(tmp_path / "tree", "verse902", [20, 27], split="validation")

    with pytest.raises(ValidationFailed, match="2 scans cannot be exported") as caught:
        vd.export.nnunet(lab(tmp_path), tmp_path / "raw")
    for scan, label in (("verse901", 26), ("verse902", 27)):
        assert f"sub-{scan}_seg-vert_msk.nii.gz: its mask holds {label}" in str(caught.value)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("role", ["ct", "mask"])
@pytest.mark.parametrize("labels", ["consecutive", "verse"])
def test_a_changed_file_is_not_handed_on(tmp_path, role, labels):
    """The bytes that are referenced are the locked ones: each CT and mask is hashed."""
    write_scan(tmp_path / "tree", "verse900", [20, 21])
    write_scan(tmp_path / "tree", "verse901", [20], split="validation")
    release = lab(tmp_path)
    path = release.path("verse900", role)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(IntegrityError, match="verse900"):
        vd.export.monai(release, tmp_path / "raw" / "out", labels=labels)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("shape", [SHAPE, (12, 61, 6)])
def test_referenced_masks_are_checked_as_written_ones(tmp_path, shape):
    """With VerSe's own labels too, a sacrum and a mask on another grid are refused."""
    write_scan(tmp_path / "tree", "verse900", [20, 26], mask_shape=shape)
    write_scan(tmp_path / "tree", "verse901", [20], split="validation")

    with pytest.raises(VerseDataError, match="its mask holds 26" if shape == SHAPE else "verse900"):
        vd.export.monai(lab(tmp_path), tmp_path / "out", labels="verse")


@pytest.mark.parametrize("mixed", [False, True])
def test_cases_have_one_ending(tmp_path, mixed):
    """CTs without gzip get masks without; two endings are refused with a scan of each."""
    for scan, split in (("verse900", "training"), ("verse901", "validation")):
        write_scan(tmp_path / "tree", scan, [20, 21], split=split)
        if mixed and scan == "verse901":
            continue
        packed = next((tmp_path / "tree").rglob(f"sub-{scan}_ct.nii.gz"))
        packed.unlink()
        write_nifti(packed.with_suffix(""), np.full(SHAPE, int(scan[-1]), np.int16), PIR)
    release = lab(tmp_path)

    if mixed:
        with pytest.raises(UsageError, match="and that of verse901 in"):
            vd.export.nnunet(release, tmp_path / "raw")
    else:
        done = vd.export.nnunet(release, tmp_path / "raw")
        assert read(done.path / "dataset.json")["file_ending"] == ".nii"
        assert nib.load(done.path / "labelsTr" / "verse900.nii").shape == SHAPE


def test_scans_in_no_split_need_folds(tmp_path):
    """A lab's release without published splits is told to give k, and then is divided."""
    for number in range(3):
        write_scan(tmp_path / "tree", f"lab00{number}", [20, 21 + number], split="")
    (tmp_path / "tree" / "dataset-verse19").rename(tmp_path / "tree" / "data")
    release = lab(tmp_path)

    with pytest.raises(UsageError, match="--k 3"):
        vd.export.nnunet(release, tmp_path / "raw")
    with pytest.warns(vd.IncompleteTable):
        done = vd.export.nnunet(release, tmp_path / "raw", k=3)
    assert len(read(done.path / "splits_final.json")) == 3


@pytest.mark.parametrize("form", ["nnunet", "folder"])
def test_exported_masks_come_back_and_score_as_perfect(release, dataset, tmp_path, form):
    """As predictions by nnU-Net or MONAI, they are VerSe's masks again, T13 as 28, with Dice 1."""
    (tmp_path / "made").mkdir()
    if form == "nnunet":
        masks, how = dataset / "labelsTr", {"dataset_json": dataset / "dataset.json"}
    else:
        masks, how = vd.export.monai(release, tmp_path / "monai").path, {"inverse": {26: 28}}
    for mask in masks.rglob("*.nii.gz"):
        (tmp_path / "made" / mask.name).write_bytes(mask.read_bytes())

    imported = vd.predictions.import_predictions(
        form, release, tmp_path / "made", tmp_path / "native", **how
    )
    scored = release.evaluate(tmp_path / "native", draws=10)

    t13 = nib.load(tmp_path / "native" / f"{vd.phantom.CASES['t13']}.nii.gz")
    assert 28 in np.asarray(t13.dataobj)
    assert len(scored.scans) == len(imported.scans)
    assert scored.vertebrae["dice"].eq(1).all()


@pytest.mark.slow
def test_nnunet_itself_plans_trains_and_predicts_and_its_predictions_are_scored(tmp_path):
    """Its own commands run on our export and ours on what they wrote; T13 is served as 26, and 28 again."""
    pytest.importorskip("nnunetv2", reason="nnU-Net is not installed: pip install nnunetv2")
    vd.lock_tree("phantom", vd.phantom.write(tmp_path / "tree", shape=(48, 96, 36)), root=tmp_path)
    release = vd.open_release("phantom", root=tmp_path)
    places = {f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")}
    settings = os.environ | places | {"nnUNet_n_proc_DA": "1"}

    def theirs(*words: str) -> str:
        words = (str(Path(sys.executable).with_name(words[0])), *words[1:])
        done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, env=settings)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def ours(*words: str) -> str:
        done = verse_data(*words, "--root", str(tmp_path))
        assert done.returncode == 0, done.stderr
        return done.stdout

    ours("export", "nnunet", "phantom", places["nnUNet_raw"], "--id", "400")
    (raw,) = (tmp_path / "raw").iterdir()
    checked = theirs(
        "nnUNetv2_plan_and_preprocess", "-d", "400", "--verify_dataset_integrity", "-c",
        "3d_fullres", "-gpu_memory_target", "0.5", "-np", "1", "-npfp", "1",
    )  # fmt: skip
    assert "verify_dataset_integrity Done" in checked
    assert "mismatch" not in checked
    said = json.loads(theirs("python", "-m", "tests.support.nnunet_run", str(raw)).splitlines()[-1])
    (fold,) = read(raw / "splits_final.json")
    assert [said["train"], said["val"]] == [fold["train"], fold["val"]]
    assert 26 in said["served"][T13]
    assert set(said["served"]) == set(read(raw / "dataset.json")["dataset"])

    predicted, native = tmp_path / "predictions", tmp_path / "native"
    theirs(
        "nnUNetv2_predict", "-i", str(raw / "imagesTs"), "-o", str(predicted), "-d", "400", "-c",
        "3d_fullres", "-f", "0", "-tr", "nnUNetTrainerNoMirroring", "-device", "cpu",
        "--disable_tta", "-npp", "1", "-nps", "1",
    )  # fmt: skip
    tested = {path.name.removesuffix(".nii.gz") for path in predicted.glob("*.nii.gz")}
    assert tested == {scan for scan, one in release.series.items() if one.split == "test"}
    # Two steps of training teach nothing: a perfect model would have written these.
    perfect = [T13, *(vd.phantom.CASES[case] for case in ("oblique_2mm_sagittal", "pir"))]
    for scan in perfect:
        shutil.copy(raw / "labelsTr" / f"{scan}.nii.gz", predicted)

    told = json.loads(
        ours("predictions", "import", "nnunet", "phantom", str(predicted), str(native), "--json")
    )
    assert {scan["scan_id"]: scan["exact"] for scan in told["scans"]} == dict.fromkeys(
        [*perfect, *tested], True
    )
    assert 28 in np.asarray(nib.load(native / f"{T13}.nii.gz").dataobj)
    scored = json.loads(ours("evaluate", "phantom", str(native), "--json"))
    dice = {row["scan_id"]: row["dice"] for row in scored["scans"]}
    assert {scan for scan, value in dice.items() if value == 1} == {*perfect}
    assert all(0 <= dice[scan] < 1 for scan in tested & dice.keys())
    assert (T13, "T13", 1) in {
        (row["scan_id"], row["level"], row["dice"]) for row in scored["vertebrae"]
    }


# --- MONAI ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")  # theirs are not ours to mend
def test_monai_reads_the_folds_that_the_release_has(release, tmp_path):
    """Decathlon's reader and Auto3DSeg's give the same pairs, and each fold's own side."""
    pytest.importorskip("monai", reason="MONAI is not installed: pip install 'verse-data[monai]'")
    from monai.apps.auto3dseg.auto_runner import AutoRunner
    from monai.auto3dseg.utils import datafold_read
    from monai.data import CacheDataset, load_decathlon_datalist
    from monai.transforms import LoadImaged

    folder = vd.export.monai(release, tmp_path / "monai", k=3).path
    path, folds = str(folder / "datalist.json"), release.folds(3)
    (folder / "verse903").mkdir()  # a name that an id must not be taken for
    items = load_decathlon_datalist(path)

    assert AutoRunner.inspect_datalist_folds(SimpleNamespace(data_src_cfg={}), path) == 3
    for number in range(3):
        _, held = datafold_read(path, str(folder), fold=number)
        ours = [item for item in items if item["fold"] == number]
        pairs = [[(item["image"], item["label"]) for item in side] for side in (held, ours)]
        assert pairs[0] == pairs[1]
        scans = set(folds.split(number)["validation"]) - {"verse908"}
        assert {item["scan_id"] for item in ours} == {f"scan/{scan}" for scan in scans}
    loaded = CacheDataset(
        [item for item in items if item["scan_id"] == "scan/verse903"],
        LoadImaged(["image", "label"]),
        progress=False,
    )[0]
    assert loaded["image"].affine.equal(loaded["label"].affine)
    assert loaded["label"].max() == 26


@pytest.mark.filterwarnings("default")
def test_the_published_split_of_a_datalist_has_a_list_for_each_side(release, tmp_path, caplog):
    """Auto3DSeg takes the list `validation` for its one fold; a test scan may have no label."""
    pytest.importorskip("monai", reason="MONAI is not installed: pip install 'verse-data[monai]'")
    from monai.apps.auto3dseg.auto_runner import AutoRunner

    done = vd.export.monai(release, tmp_path / "monai")
    told = read(done.path / "datalist.json")

    assert [len(told[side]) for side in ("training", "validation", "testing")] == [7, 3, 3]
    assert [item["scan_id"] for item in told["testing"] if "label" not in item] == ["scan/verse908"]
    # MONAI 1.6 logs what comes next with one argument too many.
    caplog.set_level("WARNING", AutoRunner.__module__)
    path = str(done.path / "datalist.json")
    assert AutoRunner.inspect_datalist_folds(SimpleNamespace(data_src_cfg={}), path) == 1


def test_masks_of_a_datalist_may_be_referenced_too(release, tmp_path):
    """With VerSe's own labels nothing but the list is written, by the command as well."""
    root = ("--root", str(release.files.path.parents[1]))
    out = tmp_path / "monai"
    said = verse_data(
        "export", "monai", "phantom", str(out), "--labels", "verse", "--k", "3", *root
    )
    told = read(out / "datalist.json")

    assert said.returncode == 0, said.stderr
    assert [path.name for path in out.iterdir()] == ["datalist.json"]
    assert told["labels"]["28"] == "T13"
    item = next(item for item in told["training"] if item["scan_id"] == "scan/verse903")
    assert item["label"] == str(release.path("verse903", "mask"))


def test_leaks_finds_the_patients_of_a_datalist(release, tmp_path):
    """The ids of items name patients to our own check too, and no patient is in two folds."""
    path = vd.export.monai(release, tmp_path / "monai", k=3, labels="verse").path / "datalist.json"
    (sides,) = read_splits([str(path)]).values()
    report = find_leaks(sides, scans=release.scans)

    assert report.is_clean
    assert set(sides) == {"training fold 0", "training fold 1", "training fold 2", "testing"}
