"""The signature of torchvision and torchgeo, and the units, on the phantom, the whole way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch.utils.data import DataLoader

import verse_data as vd
from verse_data.api import VerSeDataset, lock_tree
from verse_data.errors import IntegrityError, UsageError
from verse_data.phantom import write as write_phantom
from verse_data.training import BalancedSampler, PatchDataset, VertebraDataset

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tree = write_phantom(home / "tree", n_subjects=6, shape=(48, 80, 36))
    lock_tree("phantom", tree, root=home)
    return home


def test_the_familiar_signature_serves_the_same(root: Path) -> None:
    """VerSeDataset(root, split, transforms, …) is load_split by another name."""
    seen: list[str] = []

    def note(sample: dict[str, object]) -> dict[str, object]:
        seen.append(str(sample["scan_id"]))
        return sample

    familiar = VerSeDataset(root, "training", note, False, True, release="phantom")  # noqa: FBT003
    plain = vd.load_split("training", release="phantom", root=root)

    assert type(familiar) is type(plain)
    assert len(familiar) == len(plain)
    assert (familiar[1]["image"] == plain[1]["image"]).all()
    assert seen == [plain[1]["scan_id"]]
    assert familiar.fingerprint == plain.fingerprint
    assert "phantom" in familiar._repr_html_()


def test_words_of_other_signatures_are_refused(root: Path) -> None:
    """A split or option of another name is an error that tells the right one."""
    with pytest.raises(UsageError, match="training, validation, test"):
        VerSeDataset(root, "train", release="phantom")
    with pytest.raises(UsageError, match="transforms="):
        VerSeDataset(root, release="phantom", transform=str)


def test_checksum_finds_a_changed_file(root: Path) -> None:
    """With checksum=True, a stored file that was changed is an error that names it and what replaces it."""
    release = vd.open_release("phantom", root=root)
    file = release.locked(roles=["centroids"])[0]
    split = next(s.split for s in release.series.values() if file in s.files.values())
    assert len(VerSeDataset(root, split, release="phantom"))  # finished stores need no files
    path = release.files.object_path(file)
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content.replace(b"0", b"1", 1))
    try:
        with pytest.raises(IntegrityError, match=r"not as locked(.|\n)*ctd\.json(.|\n)*drop"):
            VerSeDataset(root, split, checksum=True, release="phantom")
    finally:
        path.write_bytes(content)


def test_checksum_holds_for_one_version_and_for_several_releases(
    root: Path, tmp_path: Path
) -> None:
    """checksum=True hashes the version that is asked for, and each of several releases."""
    home = tmp_path / "home"
    first = lock_tree("phantom", root / "tree", root=home)
    lock_tree("other", root / "tree", root=home)
    tree = write_phantom(tmp_path / "tree", n_subjects=6, shape=(48, 80, 36), seed=1)
    release = lock_tree("phantom", tree, root=home)
    assert release.version == "v2"
    shared = {file.sha256 for file in first.locked()}
    names = {f.path: s.split for s in release.series.values() for f in s.files.values()}
    file = next(f for f in release.locked() if f.path in names and f.sha256 not in shared)
    split, path = names[file.path], release.files.object_path(file)
    assert len(VerSeDataset(home, split, release="phantom", version="v2"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    assert len(VerSeDataset(home, split, checksum=True, release="phantom", version="v1"))
    assert len(VerSeDataset(home, split, checksum=True, release=["other"]))
    with pytest.raises(IntegrityError, match="phantom v2"):
        VerSeDataset(home, split, checksum=True, release="phantom", version="v2")
    with pytest.raises(IntegrityError, match="phantom v2"):
        VerSeDataset(home, split, checksum=True, release=["other", "phantom"])
    with pytest.raises(UsageError, match="one for each of other, phantom"):
        VerSeDataset(home, split, checksum=True, release=["other", "phantom"], version="v1")


def test_units_of_the_phantom_batch(root: Path) -> None:
    """Patches by grade and balanced vertebrae of the phantom come out of a loader in batches."""
    patches = vd.load_split(
        "training",
        release="phantom",
        root=root,
        unit="patch",
        patch_size=(32, 32, 32),
        sampling="grade",
        patches_per_epoch=8,
    )
    crops = vd.load_split(
        "training", release="phantom", root=root, unit="vertebra", crop_size_mm=40
    )
    assert isinstance(patches, PatchDataset)
    assert isinstance(crops, VertebraDataset)

    loader = crops.loader(sampler=BalancedSampler(crops, max_subject_share=1.0), batch_size=4)

    assert sum(len(b["grade"]) for b in DataLoader(patches, batch_size=4)) == 8
    assert sum(len(b["grade"]) for b in loader) == len(crops)
    assert len(crops) + len(crops.excluded) == len(
        vd.load_table(release="phantom", root=root, where="split == 'training'")
    )


PATCH = {"unit": "patch", "patch_size": 16}
CROP = {"unit": "vertebra", "crop_size_mm": 24}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"where": "grade >= 2"},
        {**PATCH, "where": "grade >= 2"},
        {**PATCH, "where": "grade >= 1", "sampling": "level"},
        {**CROP, "where": "grade >= 1"},
        {**CROP, "where": "grade >= 2"},
    ],
)
def test_a_split_can_be_served_again_from_what_was_kept_of_it(
    root: Path, options: dict[str, Any]
) -> None:
    """Provenance, as JSON, names the split and the condition as it was given."""
    made = vd.load_split("training", release="phantom", root=root, **options)
    kept = json.loads(json.dumps(made.provenance))
    chosen = kept["selection"]

    assert chosen == {"split": "training", "where": options.get("where"), "fold": None}
    again = {**options, "where": chosen["where"], "release": kept["release"], "root": root}
    served = vd.load_split(chosen["split"], version=kept["releases"][0]["lock"], **again)
    assert served.fingerprint == kept["dataset_fingerprint"]


def test_rows_can_be_served_again_from_what_was_kept_of_them(root: Path) -> None:
    """However rows were chosen, provenance has scan and level of each vertebra that is served."""
    release = vd.open_release("phantom", root=root)
    made = release.dataset(release.select("grade >= 0").iloc[::2], **CROP)

    kept = json.loads(json.dumps(made.provenance))

    rows = [(scan, level) for scan, levels in kept["vertebrae"].items() for level in levels]
    again = release.dataset(pd.DataFrame(rows, columns=["scan_id", "level"]), **CROP)
    assert again.fingerprint == kept["dataset_fingerprint"]
    assert kept["selection"] == {"split": None, "where": None, "fold": None}
    assert release.dataset(list(kept["stores"]), **PATCH).provenance["vertebrae"] is None


def test_a_fold_can_be_made_again_from_what_was_kept_of_its_scans(
    root: Path, tmp_path: Path
) -> None:
    """Number, of how many, side and digest, also of folds that were read; a part of a side is no fold."""
    release = vd.open_release("phantom", root=root)
    release.folds(3, seed=5, stratify=["region"]).write(tmp_path / "folds.json")
    folds = release.read_folds(tmp_path / "folds.json")

    for side, ids in folds.split(1).items():
        fold = json.loads(json.dumps(release.dataset(ids, **PATCH).provenance))["selection"]["fold"]
        made = release.folds(fold["of"], seed=fold["seed"], stratify=fold["stratify"])
        assert made.digest == fold["digest"] == folds.digest
        assert (fold["side"], made.split(fold["number"])[fold["side"]]) == (side, ids)
    some = release.dataset(ids[:1], **PATCH, label=False)
    assert some.provenance["selection"]["fold"] is None


@pytest.mark.parametrize("sampling", ["level", "grade", "uniform"])
def test_a_condition_chooses_the_vertebrae_of_patches_drawn_by_them_and_else_the_scans(
    root: Path, sampling: str
) -> None:
    """By level or grade, every patch is of a vertebra for which it is true; others are of its scan."""
    where = "grade >= 2 and level >= 'T12'"
    rows = vd.load_table(release="phantom", root=root, where=f"split == 'training' and {where}")
    options = {**PATCH, "where": where, "sampling": sampling, "root": root}

    served = vd.load_split("training", release="phantom", **options)

    drawn = {(sample["scan_id"], sample.get("level")) for sample in served}
    allowed = set(zip(rows["scan_id"], rows["level"], strict=True))
    scans = {(scan_id, None) for scan_id in rows["scan_id"]}
    assert drawn == scans if sampling == "uniform" else drawn <= allowed
    assert len(allowed) > 1


def test_what_has_no_ct_is_listed_and_counted(tmp_path: Path) -> None:
    """Rows of a scan without CT are left out one by one, by ids, by rows and where nothing is left."""
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    (lost,) = tree.rglob("sub-verse901_ct.nii.gz")
    lost.unlink()
    lock_tree("phantom", tree, root=tmp_path / "home")
    release = vd.open_release("phantom", root=tmp_path / "home")
    asked = ["verse901", "verse902_split-verse951"]
    rows = release.vertebrae[release.vertebrae["scan_id"].isin(asked)]
    graded = ((rows["scan_id"] == "verse901") & (rows["grade_status"] == "graded")).sum()

    for unit in ("scan", "patch", "vertebra"):
        for chosen in (asked, rows):
            excluded = release.dataset(chosen, unit=unit).excluded
            without = excluded[excluded["reason"] == "no_ct"]
            assert set(without["scan_id"]) == {"verse901"}
            assert len(without) == (graded if unit == "vertebra" else 1)
        with pytest.raises(UsageError, match=r"Left out: \d no_ct"):
            release.dataset(["verse901"], unit=unit)
