"""Datasets of a corrected release: samples, digest, provenance, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import verse_data as vd
from tests.support.releases import real_release, write_scan
from verse_data.api import lock_tree
from verse_data.errors import UsageError, ValidationFailed
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.tables.overlays import read_overlay

pytestmark = [
    pytest.mark.usefixtures("one_core"),
    pytest.mark.filterwarnings("ignore::verse_data.errors.IncompleteTable"),
]
SPLITS = {"p1": "training", "p2": "training", "p3": "validation"}
GRADES = "scan_id,level,grade,fracture_type\n" + "".join(
    f"{name},T11,0,none\n{name},T12,2,wedge\n{name},L1,0,none\n" for name in SPLITS
)
SWAP = {"relabel": {"T12": "L1", "L1": "T12"}}
CROPS: dict[str, Any] = {"unit": "vertebra", "crop_size_mm": 8.0, "voxel_mm": None}

SHARED = Path(__file__).parents[3] / "shared"

Write = Callable[..., Path]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A release of three scans of three patients."""
    for name, split in SPLITS.items():
        write_scan(tmp_path / "tree", name, [18, 19, 20], split=split)
    (tmp_path / "tree" / "grades.csv").write_text(GRADES)
    lock_tree("lab", tmp_path / "tree")
    return tmp_path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with the two real scans of VerSe'19 in it."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the real VerSe files are not at {SHARED}: this test needs them")
    root = tmp_path_factory.mktemp("real")
    lock_tree("verse19", real_release(SHARED, root / "tree"), root=root, check=False)
    return root


@pytest.fixture
def overlay(tmp_path: Path) -> Write:
    """Write an overlay of scans, out of values as JSON has them."""

    def write(scans: dict[str, Any], *lines: str, releases: str = '["lab"]') -> Path:
        text = f'name = "mine"\ntitle = "t"\nversion = "1"\nreleases = {releases}\nsource = "s"\n'
        text += "\n".join(['licence = "CC0-1.0"', *lines, ""])
        for scan, said in scans.items():
            text += f'[scans.{scan}]\nwhy = "w"\n'
            for name, value in said.items():
                inline = json.dumps(value).replace(": ", " = ") if value is not True else "true"
                text += f"{name} = {inline}\n"
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_crops_follow_and_the_digest_names_the_overlay(lab: Path, overlay: Write) -> None:
    """The crop of a level is that of the vertebra which is it now; stores stay, the digest does not."""
    file = overlay({"p1": SWAP})
    plain = vd.load_split("training", release="lab", **CROPS)
    served = vd.load_split("training", release="lab", overlays=[file], **CROPS)
    by = {(s["scan_id"], s["level"]): s for s in plain}
    now = {(s["scan_id"], s["level"]): s for s in served}

    assert by.keys() == now.keys()
    for old, new in (("T12", "L1"), ("L1", "T12"), ("T11", "T11")):
        was, is_ = by["p1", old], now["p1", new]
        assert was["grade"] == is_["grade"]
        assert (was["label"] == is_["label"]).all()
        assert was["label"].sum() == 64
        assert (was["affine"] == is_["affine"]).all()
    assert (
        by["p2", "T12"]["centroids"].nan_to_num() == now["p2", "T12"]["centroids"].nan_to_num()
    ).all()
    assert served.provenance["stores"] == plain.provenance["stores"]
    assert served.fingerprint != plain.fingerprint
    (given,) = served.provenance["releases"][0]["overlays"]
    assert given["digest"] == read_overlay(file).digest
    assert "overlays" not in plain.provenance["releases"][0]
    assert "mine 1" in repr(served)
    again = vd.load_split("training", release="lab", overlays=[file], **CROPS)
    assert again.fingerprint == served.fingerprint


@pytest.mark.parametrize(
    ("split", "scan_id", "levels"),
    [("training", "verse004", ("L1", "L2")), ("validation", "verse010", ("L1", "L2"))],
)
def test_real_masks_follow_and_their_stores_stay(
    real: Path, overlay: Write, split: str, scan_id: str, levels: tuple[str, str]
) -> None:
    """Of a real scan, two swapped levels: mask, points, table, crop and provenance; no store changes."""
    one, other = levels
    file = overlay({scan_id: {"relabel": {one: other, other: one}}}, releases='["verse19"]')
    plain, release = (vd.open_release(root=real, overlays=layers) for layers in ([], [file]))
    crops: Any = {"unit": "vertebra", "crop_size_mm": 40.0, "voxel_mm": None, "root": real}
    crops |= {"include": ("graded", "not_assessed", "foreign_material")}
    before = vd.load_split(split, **crops)
    after = vd.load_split(split, overlays=[file], **crops)

    masks = [np.asarray(opened.open_scan(scan_id)["label"]) for opened in (plain, release)]
    labels = [LABEL_OF_LEVEL[level] for level in levels]
    assert (masks[0] == labels[0]).any()
    assert ((masks[0] == labels[0]) == (masks[1] == labels[1])).all()
    assert ((masks[0] == labels[1]) == (masks[1] == labels[0])).all()
    assert (np.isin(masks[0], labels) | (masks[0] == masks[1])).all()
    rows = [
        table[table["scan_id"] == scan_id].set_index("level").astype(object)
        for table in (plain.vertebrae, release.vertebrae)
    ]
    moved = ["grade", "fracture_type", "voxels", "volume_mm3", "centroid_i", "centroid_x"]
    for old, new in (levels, levels[::-1]):
        assert (
            rows[0].loc[old, moved].fillna("").tolist()
            == rows[1].loc[new, moved].fillna("").tolist()
        )
    assert rows[0].drop([*levels]).equals(rows[1].drop([*levels]))
    samples = [{sample["level"]: sample for sample in served} for served in (before, after)]
    for old, new in (levels, levels[::-1]):
        for key in ("image", "label", "affine", "grade"):
            assert np.array_equal(samples[0][old][key], samples[1][new][key]), (old, key)
    assert after.provenance["stores"] == before.provenance["stores"]
    assert after.fingerprint != before.fingerprint
    assert vd.load_split(split, **crops).fingerprint == before.fingerprint
    assert release.provenance(scan_id).overlays == release.overlays
    assert release.provenance(scan_id).lock == plain.provenance(scan_id).lock


@pytest.mark.parametrize("unit", ["scan", "patch"])
def test_masks_of_scans_and_patches_have_the_new_labels(
    lab: Path, overlay: Write, unit: str
) -> None:
    """In any orientation, and in each batch of a loader with threads; nothing else differs."""
    options: dict[str, Any] = {"unit": unit, "release": "lab", "orientation": "PIR"}
    options |= {"patch_size": 16} if unit == "patch" else {}
    plain = vd.load_split("training", **options)
    served = vd.load_split("training", overlays=[overlay({"p1": SWAP})], **options)

    for before, after in zip(plain, served, strict=True):
        old, new = before["label"], after["label"]
        swap = before["scan_id"] == "p1"
        assert ((old == 19) == (new == (20 if swap else 19))).all()
        assert ((old == 20) == (new == (19 if swap else 20))).all()
        assert ((old == 18) == (new == 18)).all()
        assert (before["image"] == after["image"]).all()
    loaded = served.loader(batch_size=1, sampler=served.sampler(shuffle=False))
    first = next(iter(loaded))
    assert (first["label"][0] == served[0]["label"]).all()


def test_an_excluded_scan_is_counted_and_named(lab: Path, overlay: Write) -> None:
    """It is among what was asked for and is not served, with the overlay as the reason."""
    file = overlay({"p2": {"exclude": True}})
    served = vd.load_split("training", release="lab", overlays=[file])
    crops = vd.load_split("training", release="lab", overlays=[file], **CROPS)

    assert [sample["scan_id"] for sample in served] == ["p1"]
    assert served.excluded.values.tolist() == [["p2", "p2", "overlay"]]
    assert crops.excluded.query("scan_id == 'p2'")["reason"].tolist() == ["overlay"]
    assert "1 (1 overlay)" in repr(served)


def test_an_alias_over_two_splits_leaks_and_an_exclusion_ends_it(lab: Path, overlay: Write) -> None:
    """With one patient in training and validation, no split is served, until one scan is left out."""
    same = '[[aliases]]\nsubjects = ["p1", "p3"]\nwhy = "one person"'
    file = overlay({}, same)

    with pytest.raises(ValidationFailed, match="p1 in training and p1 in validation"):
        vd.load_split("training", release="lab", overlays=[file])
    file = overlay({"p3": {"exclude": True}})
    file.write_text(f"{file.read_text()}\n{same}\n")
    assert len(vd.load_split("training", release="lab", overlays=[file])) == 2


def test_in_a_union_an_overlay_lies_over_the_releases_that_it_is_for(
    lab: Path, overlay: Write
) -> None:
    """One overlay for one of two releases; it must be for one of them."""
    for name in ("q1", "q2"):
        write_scan(lab / "other", name, [18, 19, 20, 21])
    lock_tree("other", lab / "other")
    file = overlay({"p1": SWAP})

    served = vd.load_split("training", release=["lab", "other"], overlays=[file])

    assert len(served) == 4
    laid = [part.get("overlays", []) for part in served.provenance["releases"]]
    assert [len(part) for part in laid] == [1, 0]
    with pytest.raises(UsageError, match="is for lab, not for other"):
        vd.load_split("training", release="other", overlays=[file])


@pytest.mark.parametrize("copy", ["p1", "z9"])
@pytest.mark.parametrize("said", [{"exclude": True}, SWAP])
def test_in_a_union_a_correction_of_one_copy_leaves_out_the_others(
    tmp_path: Path, overlay: Write, said: dict[str, Any], copy: str
) -> None:
    """By name or by bytes: an excluded series is served from no release, a corrected one as corrected."""
    trees = {"lab": {"p1": 0, "p2": 1}, "other": {copy: 0, "q1": 2}}
    for name, scans in trees.items():
        for scan, more in scans.items():
            write_scan(tmp_path / name, scan, [18, 19, 20, 21, 22][: 3 + more])
        lock_tree(name, tmp_path / name)
    file = overlay({"p1": said})
    kept = {"p2": "", "q1": ""} | ({"p1": "19:20 20:19"} if said is SWAP else {})

    for names in (["lab", "other"], ["other", "lab"]):
        served = vd.load_split("training", release=names, overlays=[file])
        assert {scan.scan_id: scan.relabel for scan in served.scans} == kept
        assert set(served.excluded["scan_id"]) == {"p1", copy} - set(kept)
        both = vd.open_releases(names, overlays=[file])
        assert set(both.scans["scan_id"]) == set(kept)
        (copies,) = (one for one in both.members if one.name == "other")
        with pytest.raises(UsageError, match=rf"{copy} is left out of other: overlay mine"):
            copies.fetch([copy])


def test_an_alias_reaches_a_patient_of_another_release(lab: Path, overlay: Write) -> None:
    """An overlay for one release renames p2 there; the other's p2, of another series, is that patient."""
    write_scan(lab / "other", "p2_ses-2", [18, 19, 20, 21])
    (lab / "other" / "patients.csv").write_text("subject_id,sex\np2,F\n")
    lock_tree("other", lab / "other", check=False)
    file = overlay({}, '[[aliases]]\nsubjects = ["p1", "p2"]\nwhy = "one person"')

    for names in (["lab", "other"], ["other", "lab"]):
        served = vd.load_split("training", release=names, overlays=[file])
        assert {scan.subject_id for scan in served.scans} == {"p1"}
        both = vd.open_releases(names, overlays=[file])
        assert [*both.subjects["subject_id"]] == ["p1", "p3"]
        assert [*both.subjects["sex"].astype(object).fillna("")] == ["F", ""]


def test_a_scan_under_other_terms_is_left_out_and_named(lab: Path) -> None:
    """The gate leaves it out, counts it and says why; without the gate its terms are told."""
    (lab / "tree" / "about.toml").write_text(
        'title = "t"\nlicence = "CC-BY-4.0"\nattribution = "a"\nterms = { p2 = "unconfirmed" }\n'
    )
    lock_tree("mixed", lab / "tree")
    whole = vd.load_split("training", release="mixed")
    gated = vd.load_split("training", release="mixed", licence="CC-BY-4.0")

    assert [sample["scan_id"] for sample in whole] == ["p1", "p2"]
    assert whole.provenance["licence"] == "CC-BY-4.0 + unconfirmed"
    assert [sample["scan_id"] for sample in gated] == ["p1"]
    assert gated.excluded.values.tolist() == [["p2", "p2", "licence"]]
    assert gated.counts()["excluded"] == 1
    assert gated.provenance["licence"] == "CC-BY-4.0"
    assert gated.provenance["selection"]["licence"] == "CC-BY-4.0"
    assert gated.fingerprint != whole.fingerprint
