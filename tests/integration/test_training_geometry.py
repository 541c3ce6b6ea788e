"""Nothing moves: served positions against the source files, for every unit, orientation, spacing.

Oblique and anisotropic made-up scans, and the real mask of verse004.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import ndimage

from tests.support import training as support
from verse_data.phantom import paint_ct
from verse_data.spine.geometry import Box, apply_affine, axcodes
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS
from verse_data.training import PatchDataset, ScanDataset, VertebraDataset
from verse_data.training.base import ServedDataset
from verse_data.training.transforms import CropOrPad, Orient
from verse_data.volumes.nifti import read_mask, write_nifti
from verse_data.volumes.recipe import Recipe

EXACT_MM = 0.01
CROP_MM = 1.0
ORIENTATIONS = ("RAS", "PIR", pytest.param("LSA", marks=pytest.mark.slow))
CODES = ("RAS", "PIR", "LSA")
SPACINGS = (None, (1.0, 1.0, 1.0), pytest.param((1.5, 1.2, 2.0), marks=pytest.mark.slow))


@dataclass(frozen=True)
class Truth:
    """What the source files say, in world mm."""

    centroids: dict[str, npt.NDArray[np.float64]]
    masses: dict[int, npt.NDArray[np.float64]]
    counts: dict[int, int]


def truth(mask: npt.NDArray[Any], affine: Any, centroids: dict[str, Any]) -> Truth:
    labels = [int(n) for n in np.unique(mask) if n]
    voxels = {label: np.argwhere(mask == label) for label in labels}
    masses = {n: apply_affine(affine, at.mean(axis=0)) for n, at in voxels.items()}
    return Truth(centroids, masses, {n: len(at) for n, at in voxels.items()})


@dataclass(frozen=True)
class Case:
    """Scans at one spacing, with what is true of each."""

    made: support.Made
    truths: dict[str, Truth]
    resampled: bool

    @property
    def store_mm(self) -> float:
        """Largest voxel size of the stores."""
        return max(float(sample["spacing"].max()) for sample in ScanDataset(self.made.scans))


@pytest.fixture(scope="module", params=SPACINGS, ids=str)
def made_up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    specs = (
        support.Spec("verse900", affine=support.OBLIQUE_2MM),
        support.Spec(
            "verse901", affine=support.oblique(support.LPS_ANISO, -7), levels=("T12", "T13")
        ),
    )
    recipe = Recipe(spacing=request.param)
    made = support.make(tmp_path_factory.mktemp("scans"), specs, recipe)
    truths = {
        s.scan_id: truth(support.volumes(s)[1], s.affine, support.positions(s)) for s in specs
    }
    return Case(made, truths, resampled=request.param is not None)


@pytest.fixture(scope="module", params=SPACINGS, ids=str)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    shared = Path(__file__).parents[2].parent / "shared" / "data" / "verse19"
    if not shared.is_dir():
        pytest.skip(f"the real VerSe files are not at {shared}: this test needs them")
    folder = shared / "dataset-verse19training" / "derivatives" / "sub-verse004"
    seg = folder / "sub-verse004_seg-vert_msk.nii.gz"
    listed = json.loads((folder / "sub-verse004_seg-subreg_ctd.json").read_text())[1:]
    points = {c["label"]: (c["X"], c["Y"], c["Z"]) for c in listed}
    target = tmp_path_factory.mktemp("real")
    volume = read_mask(seg, name="verse004")
    ct = target / "verse004_ct.nii"
    write_nifti(ct, paint_ct(volume.array, volume.affine, seed=0), volume.affine)
    scan = support.build_files(
        target, "verse004", ct, seg, points, recipe=Recipe(spacing=request.param)
    )
    at = {LEVEL_OF_LABEL[n]: apply_affine(volume.affine, ijk) for n, ijk in points.items()}
    rows = [support.row("verse004", level, 0, point) for level, point in at.items()]
    made = support.Made([scan], support.typed(pd.DataFrame(rows)), ())
    return Case(
        made,
        {"verse004": truth(volume.array, volume.affine, at)},
        resampled=request.param is not None,
    )


def scans(case: Case, orientation: str) -> ServedDataset:
    return ScanDataset(case.made.scans, orientation=orientation)


def patches(case: Case, orientation: str) -> ServedDataset:
    return PatchDataset(
        case.made.scans, orientation=orientation, patch_size=(140, 130, 120), patches_per_scan=4
    )


def around_centroids(case: Case, orientation: str) -> ServedDataset:
    return VertebraDataset(
        case.made.scans,
        case.made.table,
        orientation=orientation,
        crop_size_mm=120,
        voxel_mm=None,
        label_mode="all",
    )


def around_masks(case: Case, orientation: str) -> ServedDataset:
    return VertebraDataset(
        case.made.scans,
        case.made.table,
        orientation=orientation,
        around="mask",
        voxel_mm=None,
        label_mode="all",
    )


def along_the_spine(case: Case, orientation: str) -> ServedDataset:
    return VertebraDataset(
        case.made.scans,
        case.made.table,
        orientation=orientation,
        axes="spine",
        voxel_mm=CROP_MM,
        crop_size_mm=120,
        label_mode="all",
    )


UNITS: dict[str, Callable[[Case, str], ServedDataset]] = {
    "scan": scans,
    "patch": patches,
    "centroid": around_centroids,
    "mask": around_masks,
    "spine": along_the_spine,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("unit", UNITS)
def test_nothing_moves_in_made_up_scans(made_up: Case, unit: str, orientation: str) -> None:
    """Centroids and centres of mass stay where the source files have them."""
    assert_nothing_moves(made_up, unit, orientation)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("unit", UNITS)
def test_nothing_moves_in_the_real_mask(real: Case, unit: str, orientation: str) -> None:
    """Centroids and centres of mass of verse004 stay where the released files have them."""
    assert_nothing_moves(real, unit, orientation)


def assert_nothing_moves(case: Case, unit: str, orientation: str) -> None:
    seen, store_mm = 0, case.store_mm
    for sample in UNITS[unit](case, orientation):
        known = case.truths[sample["scan_id"]]
        check_centroids(sample, known)
        # Half a voxel for each time that something was resampled.
        limit = store_mm / 2 * case.resampled + CROP_MM / 2 * (unit == "spine")
        seen += check_masses(sample, known, limit=limit)
        if unit != "spine":
            assert axcodes(sample["affine"].numpy()) == orientation
    assert seen


def check_centroids(sample: dict[str, Any], known: Truth) -> None:
    """Compare the centroid of every level with the source's."""
    for level, at in known.centroids.items():
        row = sample["centroids"][LEVELS.index(level)].numpy()
        assert np.linalg.norm(row - at) < EXACT_MM


def check_masses(sample: dict[str, Any], known: Truth, *, limit: float) -> int:
    """Compare the centre of mass of each label that lies whole in the sample; return how many."""
    label, affine = sample["label"][0].numpy(), sample["affine"].numpy()
    checked = 0
    boxes = dict(enumerate(ndimage.find_objects(label), start=1))
    for number, mass in known.masses.items():
        if (box := boxes.get(number)) is None:
            continue
        voxels = np.argwhere(label[box] == number) + [part.start for part in box]
        if touches_border(voxels, label.shape):
            continue
        if limit == 0:
            assert len(voxels) == known.counts[number]
        assert np.linalg.norm(apply_affine(affine, voxels.mean(axis=0)) - mass) < max(
            limit, EXACT_MM
        )
        checked += 1
    return checked


def touches_border(voxels: npt.NDArray[Any], shape: tuple[int, ...]) -> bool:
    inside = Box((1, 1, 1), (shape[0] - 1, shape[1] - 1, shape[2] - 1))
    return bool((voxels < inside.start).any() or (voxels >= inside.stop).any())


def test_an_orientation_round_trip_is_exact(made_up: Case) -> None:
    """Turned to other axes and back, image, label and affine are bit for bit the same."""
    for sample in ScanDataset(made_up.made.scans):
        for codes in CODES:
            back = Orient("RAS")(Orient(codes)(sample))
            assert (back["image"] == sample["image"]).all()
            assert (back["label"] == sample["label"]).all()
            assert (back["affine"] - sample["affine"]).abs().max() < 1e-9


def test_turning_a_sample_is_reading_it_turned(made_up: Case) -> None:
    """The transform and the dataset's orientation give the same voxels and affine."""
    turned = ScanDataset(made_up.made.scans, orientation="PIR")
    for number, sample in enumerate(ScanDataset(made_up.made.scans)):
        by_transform = Orient("PIR")(sample)
        assert (by_transform["image"] == turned[number]["image"]).all()
        assert np.allclose(by_transform["affine"], turned[number]["affine"], atol=1e-9)


def test_cropping_and_padding_move_nothing(made_up: Case) -> None:
    """After CropOrPad, labels lie where they did."""
    for about in ("image", "label", "centroids"):
        crop = CropOrPad((130, 100, 140), about=about)  # type: ignore[arg-type]
        for sample in ScanDataset(made_up.made.scans, transform=crop):
            known = made_up.truths[sample["scan_id"]]
            assert sample["image"].shape == (1, 130, 100, 140)
            check_centroids(sample, known)
            assert check_masses(sample, known, limit=made_up.store_mm / 2 * made_up.resampled)


def test_labels_of_the_real_mask_are_the_listed_ones(real: Case) -> None:
    """Every label of verse004's mask is served, and has a centroid."""
    (sample,) = list(ScanDataset(real.made.scans))

    served = {int(n) for n in sample["label"].unique() if n}
    assert served == set(real.truths["verse004"].masses)
    assert served == {LABEL_OF_LEVEL[level] for level in real.truths["verse004"].centroids}
