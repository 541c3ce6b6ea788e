"""Targets lie where the source files say: heatmaps, the spine's box, slices, within half a voxel.

On the phantom's awkward scans (oblique, 2 mm slices, LPS, LAS, T13, L6, no mask …) and on verse004 and
verse010, whose masks and centroids are real; the CT is a linear function of the position.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy import ndimage
from torch.utils.data import DataLoader

import verse_data as vd
from tests.support import training as support
from tests.support.damage import Shard, replaced
from tests.support.releases import write_scan
from verse_data import serve
from verse_data.errors import ChunkCorrupt, UsageError, ValidationFailed
from verse_data.phantom import write as write_phantom
from verse_data.spine.geometry import apply_affine, axcodes
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS
from verse_data.spine.windows import WINDOWS
from verse_data.training import (
    BalancedSampler,
    PatchDataset,
    ScanDataset,
    ServedScan,
    SpineSliceDataset,
    VertebraDataset,
    VertebraSliceDataset,
    pad_collate,
)
from verse_data.training.transforms import Compose, CropOrPad, Heatmaps, MapLabels, Orient, Window
from verse_data.volumes.nifti import read_mask, write_nifti
from verse_data.volumes.recipe import Recipe

HALF_VOXEL = 0.5 + 1e-6
COARSE = (1.5, 1.2, 2.0)
REAL = ("real", None)
CASES = (
    ("phantom", None),
    ("phantom", COARSE),
    REAL,
    pytest.param(("real", COARSE), marks=pytest.mark.slow),
)


@dataclass(frozen=True)
class Source:
    """A scan as served, and what its files say: centroids, and the voxels of each label, in mm.

    In a store that is resampled, the voxels are those of its mask.
    """

    scan: ServedScan
    centroids: dict[str, npt.NDArray[np.float64]]
    voxels: dict[str, npt.NDArray[np.float64]]


def source(folder: Path, points_file: Path, mask_file: Path, spacing: Any) -> Source:
    """Build the store of a scan out of its centroids and mask, and keep what these say."""
    name = points_file.parent.name
    listed = [one for one in json.loads(points_file.read_text()) if "label" in one]
    points = {c["label"]: (c["X"], c["Y"], c["Z"]) for c in listed}
    mask = read_mask(mask_file, name=name)
    ct = folder / f"{points_file.stem}_ct.nii"
    write_nifti(ct, mask.array.astype(np.int16) * 40, mask.affine)
    recipe = Recipe(spacing=spacing)
    scan = support.build_files(folder, points_file.stem, ct, mask_file, points, recipe=recipe)
    label, affine = mask.array, mask.affine
    if spacing:  # where the resampled mask lies, other tests say
        served = ScanDataset([scan])[0]
        label, affine = served["label"][0].numpy(), served["affine"].numpy()
    boxes = dict(enumerate(ndimage.find_objects(label), start=1))
    voxels = {
        LEVEL_OF_LABEL[n]: np.argwhere(label[box] == n) + [part.start for part in box]
        for n, box in boxes.items()
        if box is not None
    }
    return Source(
        scan,
        {LEVEL_OF_LABEL[n]: apply_affine(mask.affine, ijk) for n, ijk in points.items()},
        {level: apply_affine(affine, index) for level, index in voxels.items()},
    )


def sources(tree: Path, folder: Path, spacing: Any) -> list[Source]:
    """Build every scan below `tree` that has centroids and a mask."""
    found = []
    for points in sorted(tree.rglob("*_ctd.json")):
        masks = list(points.parent.glob(points.name.split("_seg")[0] + "_seg-vert_msk.nii.gz"))
        if masks and "label" in points.read_text():
            found.append(source(folder, points, masks[0], spacing))
    return found


@pytest.fixture(scope="module", params=CASES, ids=str)
def known(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Source]:
    """Return the scans of the phantom, or the real ones, in stores of a spacing."""
    which, spacing = request.param
    if which == "phantom":
        tree = write_phantom(tmp_path_factory.mktemp("phantom") / "tree", shape=(48, 80, 36))
    else:
        tree = Path(__file__).parents[2].parent / "shared" / "data" / "verse19"
        if not tree.is_dir():
            pytest.skip(f"the real VerSe files are not at {tree}: this test needs them")
    found = sources(tree, tmp_path_factory.mktemp("stores"), spacing)
    assert len(found) >= {"phantom": 12, "real": 2}[which]
    return {one.scan.scan_id: one for one in found}


def scans(known: dict[str, Source]) -> list[ServedScan]:
    return [one.scan for one in known.values()]


def to_index(sample: dict[str, Any], points: Any) -> npt.NDArray[np.float64]:
    return apply_affine(np.linalg.inv(sample["affine"].numpy()), points)


# --- heatmaps ------------------------------------------------------------------------------------


def check_maxima(sample: dict[str, Any], centroids: dict[str, npt.NDArray[np.float64]]) -> int:
    """Compare the maximum of each heatmap with the centroid of its level; return how many."""
    seen = 0
    names = sample["heatmap_levels"].split()
    for level, heat, has in zip(names, sample["heatmaps"], sample["heatmap_known"], strict=True):
        assert bool(has) == (level in centroids)
        at = to_index(sample, centroids.get(level, np.full(3, np.nan)))
        if np.all(at >= -0.5) and np.all(at <= np.array(heat.shape) - 0.5):
            peak = np.unravel_index(int(heat.argmax()), heat.shape)
            assert np.abs(at - peak).max() <= HALF_VOXEL
            seen += 1
        elif not has:
            assert not heat.any()
    return seen


@pytest.mark.parametrize("orientation", ["RAS", "PIL"])
def test_heatmaps_are_highest_at_the_source_centroids(known, orientation: str) -> None:
    """In every orientation and spacing, in crops that follow the spine too."""
    served = ScanDataset(scans(known), orientation=orientation, crop="spine", margin_mm=4)
    steps = Compose([Orient("ASR"), Heatmaps(sigma_mm=3)])
    for sample in served:
        levels = list(known[sample["scan_id"]].centroids)
        made = Compose([*steps.steps[:1], Heatmaps(3, levels)])(sample)
        assert check_maxima(made, known[sample["scan_id"]].centroids)


def test_the_check_of_heatmaps_sees_a_voxel(known) -> None:
    """A control: an affine that is wrong by a voxel moves the maxima beyond the limit."""
    for sample in ScanDataset(scans(known)[:2], crop="spine"):
        centroids = known[sample["scan_id"]].centroids
        moved = sample | {"affine": sample["affine"].clone()}
        moved["affine"][:3, 3] += 1.02 * sample["affine"][:3, 0]
        wrong = Heatmaps(3, list(centroids))(moved) | {"affine": sample["affine"]}
        with pytest.raises(AssertionError):
            check_maxima(wrong, centroids)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


@pytest.mark.parametrize("axes", ["scan", "spine"])
def test_a_heatmap_is_the_gaussian_of_the_distance_in_mm(made, axes: str) -> None:
    """At every voxel, on oblique and anisotropic grids; beyond six sigma it is 0, as float32 has it."""
    crops = VertebraDataset(made.scans, made.table, voxel_mm=(1.5, 2, 0.8), axes=axes)
    for sample in (crops[0], crops[len(crops) - 1]):
        heat = Heatmaps(2.5, [sample["level"]])(sample)["heatmaps"][0].numpy()
        index = np.stack(np.meshgrid(*map(np.arange, heat.shape), indexing="ij"), axis=-1)
        away = apply_affine(sample["affine"], index)
        away = away - sample["centroids"][LEVELS.index(sample["level"])].numpy()
        assert np.allclose(heat, np.exp(-(away**2).sum(axis=-1) / (2 * 2.5**2)), atol=2e-7)
        assert heat.max() > 0.8


def test_heatmaps_are_those_of_a_sheared_grid_too() -> None:
    """A grid whose axes are not perpendicular has the same distances in mm."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[0, 1], affine[2, 2] = 0.4, 2.0
    centroids = torch.full((26, 3), np.nan, dtype=torch.float64)
    centroids[0] = torch.tensor([9.0, 6.0, 10.0])
    sample = {"image": torch.zeros(1, 20, 16, 9), "affine": affine, "centroids": centroids}
    heat = Heatmaps(3, ["C1"])(sample)["heatmaps"][0].numpy()
    index = np.stack(np.meshgrid(*map(np.arange, heat.shape), indexing="ij"), axis=-1)
    away = apply_affine(affine, index) - centroids[0].numpy()
    assert np.allclose(heat, np.exp(-(away**2).sum(axis=-1) / 18), atol=2e-7)


@pytest.mark.parametrize(
    "step",
    [Orient("PIL"), CropOrPad((50, 140, 30)), Compose([Orient("SAL"), CropOrPad(70)])],
    ids=["turned", "cropped and padded", "both"],
)
def test_heatmaps_made_first_are_carried_along(made, step) -> None:
    """Turned or cropped afterwards, they are what is made from the turned or cropped sample."""
    sample = ScanDataset(made.scans[2:3])[0]
    heat = Heatmaps(4, ["T12", "T13"])
    first, last = step(heat(sample))["heatmaps"], heat(step(sample))["heatmaps"]
    kept = step({"image": torch.ones_like(sample["image"]), **{k: sample[k] for k in KEPT}})
    inside = (kept["image"][0] == 1).expand_as(last)  # padding has no heat that was carried
    assert torch.allclose(first[inside], last[inside], atol=1e-6)
    assert not first[~inside].any()


KEPT = ("affine", "centroids")


def test_patches_with_heatmaps_are_batched_and_the_same_in_workers(made) -> None:
    """Channels, names and flags survive torch's collate, workers, threads and pickle alike."""
    options = {"patch_size": (24, 40, 32), "sampling": "foreground", "patches_per_scan": 1}
    heat = pickle.loads(pickle.dumps(Heatmaps(3, ["L1", "T13", "T12"])))  # noqa: TID251 - our own
    patches = PatchDataset(made.scans, transform=heat, **options)
    batch = next(iter(patches.loader(batch_size=4)))
    assert batch["heatmaps"].shape == (4, 3, 24, 40, 32)
    assert batch["heatmaps"].dtype == torch.float32
    assert batch["heatmap_known"].shape == (4, 3)
    assert set(batch["heatmap_levels"]) == {"T12 T13 L1"}
    others = next(iter(patches.loader(batch_size=4, num_workers=1, sampler=patches.sampler())))
    plain = next(iter(DataLoader(patches, batch_size=4)))["heatmaps"]
    assert (batch["heatmaps"] == others["heatmaps"]).all()
    assert plain.shape == batch["heatmaps"].shape
    uneven = pad_collate([Heatmaps(3, ["L1"])(s) for s in ScanDataset(made.scans[:2])])
    assert uneven["heatmaps"].shape[2:] == uneven["image"].shape[2:]


def test_channels_follow_consecutive_labels(made) -> None:
    """Channel n and label n + 1 are the same vertebra, in whatever order levels are given."""
    levels = ["L1", "T12", "T13"]
    sample = Compose([MapLabels.consecutive(levels), Heatmaps(2, levels)])(
        ScanDataset(made.scans)[2]
    )
    for channel, heat in enumerate(sample["heatmaps"]):
        peak = np.unravel_index(int(heat.argmax()), heat.shape)
        assert sample["label"][0][peak] == channel + 1


def test_heatmaps_follow_the_affine_that_monai_keeps(made) -> None:
    """After MONAI's flip they are where the flipped image has the centroids; with it they are flipped."""
    monai = pytest.importorskip("monai.transforms", reason="MONAI is an extra: verse-data[monai]")
    from verse_data.training.monai import from_monai, to_monai

    sample, heat = ScanDataset(made.scans)[1], Heatmaps(3, ["T12", "L1"])
    flip = monai.Flipd(["image", "label"], spatial_axis=0)
    both = monai.Flipd(["image", "label", "heatmaps"], spatial_axis=0)
    after = from_monai(heat(flip(to_monai(sample))))
    again = heat(from_monai(flip(to_monai(sample))))
    carried = from_monai(both(to_monai(heat(sample))))
    assert (after["heatmaps"] == again["heatmaps"]).all()
    assert torch.allclose(carried["heatmaps"], again["heatmaps"], atol=1e-5)
    assert type(carried["heatmaps"]) is torch.Tensor


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sigma_mm": 0}, "sigma_mm=0 is not a positive length"),
        ({"sigma_mm": float("nan")}, "sigma_mm=nan"),
        ({"levels": ["T12", "S1"]}, "levels='S1' is none of C1"),
        ({"levels": []}, r"levels=\[\]; give some"),
        ({"levels": None}, "levels=None; give some"),
    ],
)
def test_wrong_options_of_heatmaps_are_refused(options, text: str) -> None:
    """At once, with what was given."""
    with pytest.raises(UsageError, match=text):
        Heatmaps(**options)


def test_a_sample_without_an_affine_is_refused() -> None:
    """The error says which keys there are, and what to do."""
    sample = {"image": torch.zeros(1, 2, 2, 2), "centroids": torch.zeros(26, 3)}
    with pytest.raises(UsageError, match="no affine, only image, centroids"):
        Heatmaps()(sample)


# --- the spine's box -----------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ["RAS", "PIL"])
def test_the_box_of_the_spine_is_that_of_the_mask_and_a_margin(known, orientation: str) -> None:
    """It holds every labelled voxel, ends less than a voxel beyond the margin, or where the scan ends."""
    margin = 7.5
    whole = ScanDataset(scans(known), orientation=orientation)
    served = ScanDataset(scans(known), orientation=orientation, crop="spine", margin_mm=margin)
    for full, sample in zip(whole, served, strict=True):
        low, high = sample["box"].numpy()
        cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        assert (sample["image"] == full["image"][:, *cut]).all()
        labelled = np.argwhere(full["label"][0].numpy())
        room = margin / full["spacing"].numpy()
        wanted = np.array([labelled.min(axis=0) - room, labelled.max(axis=0) + room])
        reached = (np.array([low, high - 1]) - wanted) * [[-1], [1]]
        at_border = np.array([low == 0, high == full["image"].shape[1:]])
        assert ((reached > -1e-6) | at_border).all()
        assert (reached < 1).all()
        assert apply_affine(full["affine"], low) == pytest.approx(sample["affine"][:3, 3].numpy())


@pytest.mark.parametrize("known", [REAL], indirect=True, ids=str)
def test_without_a_mask_the_box_is_made_of_centroids(known, tmp_path) -> None:
    """It holds the whole real mask, which the store does not have, and less than a body."""
    for one in known.values():
        labelled = np.concatenate(list(one.voxels.values()))
        low, high = labelled.min(axis=0) - 100, labelled.max(axis=0) + 100
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        affine[:3, 3] = low
        size = np.ceil((high - low) / 4).astype(int)
        ct = tmp_path / f"{one.scan.scan_id}.nii"
        write_nifti(ct, np.zeros(size, np.int16), affine)
        points = {LABEL_OF_LEVEL[level]: (at - low) / 4 for level, at in one.centroids.items()}
        scan = support.build_files(tmp_path, one.scan.scan_id, ct, None, points)
        sample = ScanDataset([scan], label=False, crop="spine", margin_mm=0)[0]
        index = to_index(sample, labelled)
        assert (index > -0.5 - 1e-6).all()
        assert (index < np.array(sample["image"].shape[1:]) - 0.5 + 1e-6).all()
        assert np.prod(sample["image"].shape) < 0.6 * size.prod()


def test_a_scan_without_a_spine_is_refused_by_name(tmp_path) -> None:
    """Without label and centroid there is no box, and the error says how to go on."""
    levels = ("L1", "L2")
    spec = support.Spec("verse980", levels=levels, mask=False, without_centroid=levels)
    served = ScanDataset([support.build(tmp_path, spec)], label=False, crop="spine")
    with pytest.raises(ValidationFailed, match=r"verse980.*neither a label.*leave out crop="):
        served[0]


def test_the_crop_is_an_option_that_the_fingerprint_knows(made) -> None:
    """Without it nothing changes; with another margin, the samples are others."""
    plain, some, more = (
        ScanDataset(made.scans, **options)
        for options in ({}, {"crop": "spine"}, {"crop": "spine", "margin_mm": 30})
    )
    assert "crop" not in plain.options
    assert len({plain.fingerprint, some.fingerprint, more.fingerprint}) == 3
    for wrong in ({"crop": "body"}, {"crop": "spine", "margin_mm": -1}, {"margin_mm": 5}):
        with pytest.raises(UsageError):
            ScanDataset(made.scans, **wrong)


# --- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["bone", "soft tissue", (-200, 800)])
def test_a_window_by_name_or_numbers_is_the_transform_where_samples_are_read(made, window) -> None:
    """The option and the transform give the same samples, in threads too."""
    low, high = WINDOWS.get(window, window) if isinstance(window, str) else window
    patches = {"patch_size": 24, "patches_per_scan": 2}
    as_option = PatchDataset(made.scans, window=window, **patches)
    plain = PatchDataset(made.scans, **patches)
    named = Window(window) if isinstance(window, str) else Window(*window)
    assert (named.low, named.high) == (low, high)
    for number in (0, 3):
        wanted = named(plain[number])["image"]
        assert torch.equal(as_option[number]["image"], wanted)
        assert 0 <= wanted.min() <= wanted.max() <= 1
    for batch in as_option.loader(batch_size=5, sampler=as_option.sampler(shuffle=False)):
        assert torch.equal(batch["image"][3], as_option[3]["image"])
        break
    assert as_option.fingerprint != plain.fingerprint
    same = PatchDataset(made.scans, window=(low, high), **patches)
    assert as_option.fingerprint == same.fingerprint


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window": "lung"}, "no window 'lung'; windows are bone, soft tissue, full"),
        ({"window": "Bone"}, "Did you mean 'bone'"),
        ({"window": (800, -200)}, "the lower first"),
        ({"window": 5}, "is no window"),
        ({"window": (0, 1, 2)}, "is no window"),
        ({"window": "bone", "image_dtype": "int16"}, "which int16 cannot hold"),
    ],
)
def test_wrong_windows_are_refused(made, options, text: str) -> None:
    """At once, with the windows that there are."""
    with pytest.raises(UsageError, match=text):
        ScanDataset(made.scans, **options)


def test_windows_have_one_table() -> None:
    """The explorer's page has the windows of Python by the same names and ranges."""
    import re

    import verse_data

    page = Path(verse_data.__file__).parent / "explorer" / "page" / "viewer.js"
    rows = re.findall(r'title: "([^"]+)", range: \[(-?\d+), (-?\d+)\]', page.read_text())
    shown = {title.lower().removesuffix(" hu"): (int(a), int(b)) for title, a, b in rows}
    assert shown == WINDOWS
    with pytest.raises(UsageError, match="a name needs no high"):
        Window("bone", 300)


# --- slices and projections ----------------------------------------------------------------------

EXACT_MM = 0.01


def check_points(sample: dict[str, Any], centroids: dict[str, npt.NDArray[np.float64]]) -> None:
    """Compare points and distances, put back to mm, with the centroids."""
    affine = sample["affine"].numpy()
    normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    for level, at, away in zip(LEVELS, sample["points"], sample["off_plane_mm"], strict=True):
        assert bool(at.isfinite().all()) == (level in centroids)
        if level in centroids:
            there = apply_affine(affine, [*at.tolist(), 0]) + normal * away.item()
            assert np.linalg.norm(there - centroids[level]) < EXACT_MM


def check_boxes(sample: dict[str, Any], voxels: dict[str, npt.NDArray[np.float64]]) -> int:
    """Compare the box of each level with its voxels within the slab; return how many there are."""
    seen, shape = 0, np.array(sample["image"].shape[1:])
    for level, box in zip(LEVELS, sample["boxes"].numpy(), strict=True):
        at = to_index(sample, voxels.get(level, np.zeros((0, 3))))
        at = at[np.abs(at[:, 2]) <= 0.5 + 1e-6]
        at = at[((at[:, :2] >= -0.5) & (at[:, :2] <= shape - 0.5)).all(axis=1)]
        if (box < 0).any():
            assert not len(at)
            continue
        first, last = at[:, :2].min(axis=0), at[:, :2].max(axis=0)
        assert np.abs(np.array([first, last + 1]) - box).max() <= HALF_VOXEL
        seen += 1
    return seen


@pytest.mark.parametrize("projection", [None, "mean", "max"])
@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_slices_through_the_spine_lie_where_the_files_say(known, plane: str, projection) -> None:
    """Points and boxes are those of the source's centroids and mask, within half a voxel."""
    crop = {"crop": "spine", "margin_mm": 5}
    served = SpineSliceDataset(scans(known), plane=plane, projection=projection, **crop)
    for sample in served:
        one = known[sample["scan_id"]]
        check_points(sample, one.centroids)
        assert check_boxes(sample, one.voxels)
        check_label(sample)
        if projection is None:
            assert (
                np.nanmin(np.abs(sample["off_plane_mm"].numpy())) <= sample["spacing"][2] / 2 + 1e-6
            )


def check_label(sample: dict[str, Any]) -> None:
    """The label lies within the boxes, and each level that has a box is in it or behind another."""
    label = sample["label"][0].numpy()
    for level, box in zip(LEVELS, sample["boxes"].tolist(), strict=True):
        found = np.argwhere(label == LABEL_OF_LEVEL[level])
        if len(found):
            assert (found >= box[0]).all()
            assert (found < box[1]).all()


@pytest.mark.parametrize("around", ["centroid", "mask"])
@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_slices_through_a_vertebra_lie_at_its_centroid(known, plane: str, around: str) -> None:
    """Within half a voxel of the plane, on each scan; its pixel is of its vertebra."""
    levels = {name: list(one.centroids)[::3] for name, one in known.items()}
    rows = [
        support.row(name, level, 0, known[name].centroids[level])
        for name, some in levels.items()
        for level in some
        if level in known[name].voxels
    ]
    table = support.typed(pd.DataFrame(rows))
    served = VertebraSliceDataset(
        scans(known), table, plane=plane, around=around, voxel_mm=None, label_mode="all"
    )
    inside = 0
    for sample in served:
        one, place = known[sample["scan_id"]], LEVELS.index(sample["level"])
        check_points(sample, one.centroids)
        assert abs(sample["off_plane_mm"][place]) <= sample["spacing"][2] / 2 + 1e-6
        row, column = np.rint(sample["points"][place].numpy()).astype(int)
        inside += int(sample["label"][0, row, column] == sample["vertebra_label"])
        assert "fractured" in sample
    assert inside >= 0.8 * len(served)  # centroids of C1, and of crumbs, lie off their masks


def test_the_checks_of_slices_see_a_voxel(known) -> None:
    """A control: points and boxes of an image that is moved by 0.7 pixels are beyond the limits."""
    sample = SpineSliceDataset(scans(known)[:1], crop="spine", projection="max")[0]
    one = known[sample["scan_id"]]
    moved = sample | {"affine": sample["affine"].clone()}
    moved["affine"][:3, 3] += 0.7 * sample["affine"][:3, 1]
    with pytest.raises(AssertionError):
        check_points(moved, one.centroids)
    with pytest.raises(AssertionError):
        check_boxes(moved, one.voxels)


@pytest.mark.parametrize("axes", ["scan", "spine"])
@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_pixels_are_those_at_their_place_in_the_scan(made, plane: str, axes: str) -> None:
    """The image, linear in space, has at each pixel the HU of the place that the affine gives."""
    served = VertebraSliceDataset(made.scans, made.table, plane=plane, axes=axes, crop_size_mm=30)
    mean = VertebraSliceDataset(
        made.scans,
        made.table,
        plane=plane,
        axes=axes,
        crop_size_mm=30,
        projection="mean",
        thickness_mm=4,
    )
    for number in (0, 6):
        for sample in (served[number], mean[number]):
            shape = sample["image"].shape[1:]
            rows, columns = np.meshgrid(*map(np.arange, shape), indexing="ij")
            index = np.stack([rows, columns, np.zeros(shape)], axis=-1)
            wanted = support.hu(apply_affine(sample["affine"], index))
            assert np.abs(sample["image"][0].numpy() - wanted).max() < 1
            assert sample["image"].shape == (1, 30, 30)
            assert sample["boxes"][LEVELS.index(sample["level"])].min() >= 0
    assert served[0]["image"].dtype == torch.float32


def test_a_maximum_and_a_mean_are_over_the_voxels_of_the_scan(made) -> None:
    """As NumPy has them along the axis; what lies beyond the scan does not count."""
    whole = ScanDataset(made.scans, orientation="IPL")[1]
    for projection in ("max", "mean"):
        served = SpineSliceDataset(made.scans, projection=projection)[1]
        wanted = getattr(np, projection)(whole["image"][0].numpy(), axis=2)
        assert np.allclose(served["image"][0], wanted, atol=1e-3)
    wide = {"crop_size_mm": 30, "thickness_mm": 1e9, "projection": "mean", "voxel_mm": None}
    served = VertebraSliceDataset(made.scans, made.table, **wide)[0]
    full = ScanDataset(made.scans, orientation="IPL")[0]["image"][0].numpy().mean(axis=2)
    assert served["image"].max() <= full.max() + 1e-3
    assert served["image"].min() >= full.min() - 1e-3


def test_a_slice_reads_only_its_chunks(tmp_path) -> None:
    """Where all other chunks are damaged, a sagittal slice is the same as before; the scan is refused."""
    spec = support.Spec("verse990", shape=(80, 110, 100))
    scan = support.build(tmp_path, spec)
    served = SpineSliceDataset([scan])
    before = served[0]
    x = int(np.linalg.solve(ScanDataset([scan])[0]["affine"].numpy(), before["affine"][:, 3])[0])
    shard = Shard(scan.store, "image")
    chunks = list(shard.chunks)
    for number in range(len(chunks)):
        if np.unravel_index(number, shard.array.grid)[2] != x // 32:
            shard.chunks[number] = bytes(255 - one for one in chunks[number])
    with replaced(shard.path, shard.content()):
        assert torch.equal(served[0]["image"], before["image"])
        with pytest.raises(ChunkCorrupt):
            ScanDataset([scan])[0]


def test_slices_are_batched_balanced_and_drawn_as_other_units(made) -> None:
    """Batches, workers, two-dimensional heatmaps and a balanced sampler; patients go with rows."""
    heat = Heatmaps(3, ["T12", "L1"])
    slices = VertebraSliceDataset(made.scans, made.table, transform=heat, window="bone")
    loader = slices.loader(sampler=BalancedSampler(slices), batch_size=4)
    batch = next(iter(loader))
    assert batch["image"].shape == (4, 1, 80, 80)
    assert batch["heatmaps"].shape == (4, 2, 80, 80)
    assert batch["boxes"].shape == (4, 26, 2, 2)
    assert 0 <= batch["image"].min() <= batch["image"].max() <= 1
    sample = slices[0]
    assert set(slices.scans.subject_id) == {spec.subject for spec in made.specs}
    peak = np.unravel_index(int(sample["heatmaps"][0].argmax()), (80, 80))
    assert np.abs(sample["points"][LEVELS.index("T12")].numpy() - peak).max() <= HALF_VOXEL
    whole = SpineSliceDataset(made.scans)
    padded = pad_collate([whole[0], whole[2]])
    assert padded["image"].shape[0] == 2
    assert padded["shape"].tolist() == [list(whole[n]["image"].shape[1:]) for n in (0, 2)]
    with pytest.raises(UsageError, match="pad_collate"):
        list(whole.loader(batch_size=3, sampler=whole.sampler(shuffle=False)))
    for step in (Orient("RAS"), CropOrPad(20)):
        with pytest.raises(UsageError, match=r"takes volumes.*this image is \(1, "):
            step(sample)
    with pytest.raises(UsageError, match="BalancedSampler draws vertebrae"):
        BalancedSampler(whole)


def test_label_modes_and_missing_labels_of_slices(made) -> None:
    """Boxes are of all levels whatever the label is; without labels there are none."""
    of_mode = {
        mode: VertebraSliceDataset(made.scans, made.table, label_mode=mode)[1]
        for mode in ("vertebra", "all", "binary", "none")
    }
    assert torch.equal(of_mode["vertebra"]["boxes"], of_mode["all"]["boxes"])
    assert of_mode["vertebra"]["label"].max() == of_mode["binary"]["label"].max() == 1
    own = of_mode["all"]["label"] == of_mode["all"]["vertebra_label"]
    assert torch.equal(own, of_mode["vertebra"]["label"] == 1)
    assert not {"boxes", "label"} & set(of_mode["none"])
    assert "boxes" not in SpineSliceDataset(made.scans, label=False)[0]


def test_the_sacrum_stays_in_slices_as_in_scans(one_core, tmp_path) -> None:
    """Labels without a level are in the label, flat too, and have no box."""
    write_scan(tmp_path / "tree", "p1", [18, 19, 20, 26, 27])
    vd.lock_tree("lab", tmp_path / "tree", check=False)
    for projection in (None, "max"):
        how = {"unit": "slice", "through": "spine", "projection": projection}
        sample = vd.load_split("training", release="lab", **how)[0]
        assert sample["label"].unique().tolist() == [0, 18, 19, 20, 26, 27]
        assert int((sample["boxes"][:, 0, 0] >= 0).sum()) == 3


def test_orientation_chooses_rows_and_columns(made) -> None:
    """Its axes in the plane, in their order: the default hangs upright, RAS gives (A, S)."""
    upright = SpineSliceDataset(made.scans)[0]
    other = SpineSliceDataset(made.scans, orientation="RAS")[0]
    assert axcodes(upright["affine"].numpy()) == "IPL"
    assert axcodes(other["affine"].numpy()) == "ASR"
    assert torch.equal(other["image"][0], upright["image"][0].T.flip(0, 1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"plane": "oblique"}, "plane='oblique' is none of sagittal, coronal, axial"),
        ({"projection": "median"}, "none of mean, max"),
        ({"thickness_mm": 5}, "give projection="),
        ({"projection": "max", "thickness_mm": 0}, "not a positive length"),
        ({"through": "disc"}, "through='disc' is none of vertebra, spine"),
        ({"through": "spine", "around": "mask"}, "through='spine' has no option 'around'"),
        ({"slab": 5}, "unit='slice' has no option 'slab'"),
    ],
)
def test_wrong_options_of_slices_are_refused(options, text: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match=text):
        serve.check_options("slice", *serve.split_options("slice", options))


def test_slices_are_served_by_release_and_split(one_core, tmp_path) -> None:
    """unit='slice' with each way through, with rows of a condition; provenance says how they were cut."""
    del one_core
    tree = write_phantom(tmp_path / "tree", n_subjects=4, shape=(40, 64, 32))
    vd.lock_tree("phantom", tree, root=tmp_path)
    some = {"release": "phantom", "root": tmp_path, "unit": "slice"}
    grades = vd.load_split("training", where="grade >= 2", crop_size_mm=40, **some)
    assert {sample["grade"] for sample in grades} == {2, 3}
    assert grades.provenance["options"]["plane"] == "sagittal"
    spines = vd.load_split("training", through="spine", plane="coronal", projection="mean", **some)
    assert len(spines) == len(set(spines.scans.scan_id))
    assert spines.provenance["options"]["through"] == "spine"
    assert grades.fingerprint != spines.fingerprint
    severe = vd.load_split("training", through="spine", where="grade == 3", **some)
    assert {"grade", "level"}.isdisjoint(severe[0])
    assert set(severe.scans.scan_id) < set(spines.scans.scan_id)
    assert not len(severe.excluded)
