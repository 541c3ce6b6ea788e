"""Scans as other tools write them: sidecars, centroids, uncompressed volumes, and CTs that are none."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from tests.support.releases import PIR, SHAPE, centre, tables, write_scan
from verse_data.api import lock_tree
from verse_data.errors import ValidationFailed
from verse_data.volumes.nifti import write_nifti

pytestmark = [
    pytest.mark.usefixtures("one_core"),
    pytest.mark.filterwarnings("ignore::verse_data.errors.IncompleteTable"),
]
L1, L2, L3 = 20, 21, 22
Voxels = npt.NDArray[Any]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A lab's tree of one scan, L1 to L3."""
    write_scan(tmp_path / "tree", "p1", [L1, L2, L3])
    return tmp_path / "tree"


def one(tree: Path, ending: str) -> Path:
    """Return the one file of that ending."""
    (path,) = tree.rglob(f"*{ending}")
    return path


def findings(tree: Path) -> pd.DataFrame:
    """Return the findings about the scan."""
    found = tables(tree).findings
    return found[found["scan_id"] == "p1"]


# --- sidecars -------------------------------------------------------------------------------------

DCM2NIIX = {"Modality": "CT", "KVP": 120, "ImageType": ["ORIGINAL", "PRIMARY"], "Manufacturer": "A"}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(DCM2NIIX).encode(),
        json.dumps({"KVP": 120.5, "global": {"const": {"Rows": 512}}}).encode(),
        '{"InstitutionName": "Universitätsklinikum"}'.encode("latin-1"),
        b'{"XRayExposure": NaN, "SeriesNumber": 2, "SeriesNumber": 2}',
        b'{"dataset": "of our own", "KVP": "120"}',
        b"{}",
        b"",
        b"[]",
        b"null",
        b'{"a": 1,}',
        b"[" * 20_000,
        b'{"EchoTime": ' + b"9" * 6_000 + b"}",
        '{"Modality": "CT"}'.encode("utf-16"),
    ],
)
def test_the_sidecar_of_another_tool_is_kept_and_says_nothing(tree: Path, content: bytes) -> None:
    """dcm2niix, BIDS or any object: no finding, no column filled."""
    one(tree, "_ct.json").write_bytes(content)

    made = tables(tree)

    assert made.findings["scan_id"].eq("").all()
    assert made.scans["has_ct_json"].all()
    assert made.scans[["kvp", "ct_device"]].isna().all(axis=None)


def test_a_tree_with_a_sidecar_of_dcm2niix_is_locked_and_verified(tree: Path) -> None:
    """The sidecar is a file of the release like any other."""
    one(tree, "_ct.json").write_text(json.dumps(DCM2NIIX))

    release = lock_tree("lab", tree)

    assert any(path.endswith("p1_ct.json") for path in release.lock.by_path)
    assert not release.verify(level="content")


# --- centroids ------------------------------------------------------------------------------------

HEAD = {
    "direction": ["P", "I", "R"], "zoom": [1, 1, 2], "origin": [-5.0, 10.0, 20.0],
    "rotation": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], "shape": list(SHAPE), "Generated_by": "us",
}  # fmt: skip
AT = {L1: centre(0), L2: centre(1), L3: centre(2)}
CORNER = [1.0, 2.0, 3.0]


def listed(labels: dict[int, list[float]]) -> list[dict[str, Any]]:
    """Return points as in a list."""
    return [{"label": n, **dict(zip("XYZ", at, strict=True))} for n, at in labels.items()]


OF_TPTBOX: dict[str, list[Any]] = {
    "list": [HEAD | {"format": "docker", "location": "Vertebra_Corpus"}, *listed(AT)],
    "list of numbered points": [
        HEAD | {"format": "docker", "level_one_info": "Vertebra_Instance"},
        *listed({50 * 256 + label: at for label, at in AT.items()}),
        *listed({42 * 256 + label: CORNER for label in AT}),
    ],
    "by name": [
        HEAD | {"format": "POI", "level_one_info": "Vertebra_Instance", "level_two_info": "Location"},
        {"L1": {"42": CORNER, "50": AT[L1]}, "L2": {"50": AT[L2]}, "L3": {"50": AT[L3]}},
    ],
    "by label": [
        HEAD | {"format": "POI", "level_one_info": "Any", "level_two_info": "Any"},
        {str(label): {"50": at} for label, at in AT.items()} | {"19": {"41": CORNER}},
    ],
    "without a grid": [{"direction": HEAD["direction"], "format": "docker"}, *listed(AT)],
}  # fmt: skip


@pytest.mark.parametrize("entries", OF_TPTBOX.values(), ids=OF_TPTBOX)
def test_the_centres_of_vertebrae_in_tptbox_files_are_read(tree: Path, entries: list[Any]) -> None:
    """Each form gives the same voxels as VerSe's file, and other points do not count."""
    one(tree, "_ctd.json").write_text(json.dumps(entries))

    made = tables(tree)

    assert made.findings["scan_id"].eq("").all()
    rows = made.vertebrae.set_index("label")[[f"centroid_{axis}" for axis in "ijk"]]
    assert {n: list(at) for n, at in rows.iterrows()} == AT


def test_the_centres_of_a_tptbox_file_are_served(tree: Path) -> None:
    """A store has them where the image has them, in mm of the world."""
    one(tree, "_ctd.json").write_text(json.dumps(OF_TPTBOX["by name"]))

    served = lock_tree("lab", tree).dataset(["p1"])[0]["centroids"]

    world = {n: (PIR @ [*at, 1])[:3].tolist() for n, at in AT.items()}
    assert {n: served[n].tolist() for n in AT} == world


@pytest.mark.parametrize("change", [{"shape": [12, 60, 12]}, {"shape": None, "zoom": [1, 1, 1]}])
def test_points_on_another_grid_than_the_image_are_left_out(
    tree: Path, change: dict[str, Any]
) -> None:
    """A file that was computed at another resolution is a finding, and gives no position."""
    one(tree, "_ctd.json").write_text(json.dumps([HEAD | change, *listed(AT)]))

    assert list(findings(tree)["rule"]) == ["centroid-frame"]
    release = lock_tree("lab", tree)
    assert release.vertebrae["has_centroid"].all()
    assert release.vertebrae["centroid_i"].isna().all()
    assert json.loads(release.open_scan("p1").attrs["centroids"]) == {}


def test_sacrum_and_coccyx_among_the_centroids_are_warnings(tree: Path) -> None:
    """Label 26, 27, and TPTBox's names of the sacrum: told, as of a mask, and no reason to refuse."""
    path = one(tree, "_ctd.json")
    for entries in (
        [*json.loads(path.read_text()), *listed({26: CORNER, 27: CORNER})],
        [HEAD, {str(n): {"50": at} for n, at in AT.items()} | {"S1": {"50": CORNER}, "Cocc": {"50": CORNER}}],
    ):  # fmt: skip
        path.write_text(json.dumps(entries))
        found = findings(tree)

        assert list(found["rule"]) == ["label-unknown"] * 2
        assert list(found["message"].str.extract(r"(\d+)")[0]) == ["26", "27"]
        assert set(found["severity"]) == {"warning"}


# --- volumes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["subjects", "MICCAI"])
def test_volumes_without_compression_are_read_as_those_with(
    tree: Path, tmp_path: Path, names: str
) -> None:
    """The tables, findings, voxels and checks of .nii are those of .nii.gz, in both layouts."""
    if names == "MICCAI":
        flat = tmp_path / "flat" / "01_training" / "rawdata"
        flat.mkdir(parents=True)
        one(tree, "_ct.nii.gz").rename(flat / "verse500_CT-iso.nii.gz")
        one(tree, "_msk.nii.gz").rename(flat / "verse500_CT-iso_seg.nii.gz")
        tree = flat.parents[1]
    before = lock_tree("packed", tree)
    for path in list(tree.rglob("*.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    after = lock_tree("plain", tree)

    for table in ("scans", "vertebrae"):
        pd.testing.assert_frame_equal(getattr(after, table), getattr(before, table))
    assert list(after.findings["rule"]) == list(before.findings["rule"])
    assert {found.rule for found in after.verify(level="content")} <= {"missing-file"}
    (scan,) = after.scans["scan_id"]
    assert after.open_scan(scan).equals(before.open_scan(scan))


def test_two_files_of_one_volume_are_told_with_both_names(tree: Path) -> None:
    """x.nii beside x.nii.gz is a finding that says which is used."""
    packed = one(tree, "_msk.nii.gz")
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))

    found = findings(tree)

    (row,) = found[found["rule"] == "second-file"].to_dict("records")
    assert row["file"].endswith("_msk.nii.gz")
    assert row["message"].endswith("_msk.nii is used")


HU = np.random.default_rng(5).normal(40, 150, SHAPE).clip(-900, 1500)
HU[0, 0] = -1024
HU[0, 1, 0] = 1500
TO_ONE = (HU + 1024) / 2524


def write_ct(
    tree: Path, values: Voxels, dtype: str, slope: float = 1.0, inter: float = 0.0
) -> None:
    """Write the CT of the tree anew."""
    path = one(tree, "_ct.nii.gz")
    write_nifti(path, values, PIR, on_disk_dtype=dtype, slope=slope, inter=inter)


SCALED = {
    "0 to 1": (TO_ONE, "f4", 1.0),
    "-1 to 1": (2 * TO_ONE - 1, "f8", 1.0),
    "0 to 100": (100 * TO_ONE, "f4", 1.0),
    "z-scores": ((HU - HU.mean()) / HU.std(), "f4", 1.0),
    "HU by 1000": (HU / 1000, "f4", 1.0),
    "uint8 with a slope": (TO_ONE, "u1", 1 / 255),
    "one fraction": (np.full(SHAPE, 0.5), "f4", 1.0),
}


@pytest.mark.parametrize(("values", "dtype", "slope"), SCALED.values(), ids=SCALED)
def test_a_ct_of_scaled_fractions_is_a_broken_file_with_its_range(
    tree: Path, values: Voxels, dtype: str, slope: float
) -> None:
    """Rounding would lose it."""
    write_ct(tree, values, dtype, slope)

    ((rule, message),) = findings(tree)[["rule", "message"]].to_numpy()
    assert rule == "broken-file"
    assert f"run from {round(values.min())} to {round(values.max())} in fractions" in message


def test_nothing_is_made_of_a_ct_of_scaled_fractions(tree: Path) -> None:
    """No lock where the tree is checked, and no store where it was not."""
    write_ct(tree, TO_ONE, "f4")
    with pytest.raises(ValidationFailed, match=r"_ct.nii.gz: its values run from 0 to 1"):
        lock_tree("lab", tree)

    release = lock_tree("lab", tree, check=False)
    with pytest.raises(ValidationFailed, match=r"_ct.nii.gz\): its values run from 0 to 1"):
        release.open_scan("p1")


DOUBTFUL: dict[str, tuple[Callable[[Voxels], Voxels], str]] = {
    "0 to 255": (lambda hu: (hu + 1024) / 2524 * 255, "u1"),
    "0 to 255 as fractions": (lambda hu: (hu + 1024) / 2524 * 255, "f4"),
    "-128 to 127": (lambda hu: (hu + 1024) / 2524 * 255 - 128, "i1"),
    "shifted by 1024": (lambda hu: hu + 1024, "u2"),
    "clipped to soft tissue": (lambda hu: hu.clip(-160, 240), "i2"),
    "constant": (lambda hu: 0 * hu + 40, "i2"),
    "a mask": (lambda hu: hu > 0, "i2"),
}


@pytest.mark.parametrize(("change", "dtype"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_ct_with_the_range_of_no_ct_is_a_finding(
    tree: Path, change: Callable[[Voxels], Voxels], dtype: str
) -> None:
    """The finding names the range, before anything is converted."""
    write_ct(tree, change(HU), dtype)
    values = np.rint(np.asanyarray(nib.load(one(tree, "_ct.nii.gz")).dataobj))

    ((rule, message),) = findings(tree)[["rule", "message"]].to_numpy()
    assert rule == "ct-range"
    assert f"values run from {values.min():g} to {values.max():g};" in message


def test_converting_a_ct_with_the_range_of_no_ct_is_logged(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads no findings is told as well."""
    write_ct(tree, HU + 1024, "u2")
    release = lock_tree("lab", tree)

    with caplog.at_level(logging.WARNING, "verse_data.volumes.convert"):
        release.open_scan("p1")
    assert "its values run from 0 to 2524" in caplog.text


@pytest.mark.parametrize(
    ("low", "high", "noted"),
    [
        (-3024, 1300, {"ct-padding"}),
        (-1024, 10110, {"ct-metal"}),
        (-1024, 32767, {"ct-metal"}),
        (-8192, 400, {"ct-padding"}),
        (-220, 900, set()),
    ],
)
def test_plausible_ranges_are_no_warning(tree: Path, low: int, high: int, noted: set[str]) -> None:
    """Padding and metal are notes; a crop inside the body is nothing."""
    values = HU.clip(low, high)
    values.flat[:2] = low, high
    write_ct(tree, values, "f4")

    found = findings(tree)
    assert set(found["rule"]) == noted
    assert set(found["severity"]) <= {"note"}


def test_a_real_ct_is_no_finding(tree: Path, shared: Path) -> None:
    """A crop of one vertebra, with its mask, as TPTBox ships it."""
    real = shared / "data" / "tptbox"
    one(tree, "_ctd.json").unlink()
    for name, ending in (("label-22_ct", "_ct.nii.gz"), ("seg-vert_label-22_msk", "_msk.nii.gz")):
        one(tree, ending).write_bytes((real / f"sub-ct_{name}.nii.gz").read_bytes())

    found = findings(tree)

    assert not set(found["rule"]) & {"ct-range", "mask-header", "level-skipped", "broken-file"}


def test_a_mask_whose_forms_disagree_is_a_finding(tree: Path) -> None:
    """As of a CT: viewers differ in which of the two they take. Free text in a mask is not told."""
    path = one(tree, "_msk.nii.gz")
    image = nib.load(path)
    moved = image.affine.copy()
    moved[:3, 3] += (0, 0, 15)
    new = nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    new.set_qform(moved, 1)
    new.set_sform(image.affine, 2)
    new.header["descrip"] = b"seg"
    nib.save(new, path)

    ((rule, message),) = findings(tree)[["rule", "message"]].to_numpy()

    assert rule == "mask-header"
    assert "qform and sform differ by 15.00 mm" in message


# --- what a lab's own conversion may have done ----------------------------------------------------


def test_a_mask_without_a_voxel_is_a_finding(tree: Path) -> None:
    """A conversion that found no vertebra leaves zeros, which would be served as background."""
    mask = one(tree, "_msk.nii.gz")
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), mask)

    assert "mask-empty" in set(findings(tree)["rule"])


def test_one_ct_under_two_labels_is_a_finding(tree: Path) -> None:
    """A folder that an earlier run left makes one person two, whom nothing keeps apart."""
    for path in list(tree.rglob("*p1*")):
        if path.is_file():
            other = Path(str(path).replace("p1", "p2"))
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(path.read_bytes())

    found = tables(tree).findings
    (message,) = found.loc[found["rule"] == "same-ct", "message"]
    assert "p1, p2" in message
