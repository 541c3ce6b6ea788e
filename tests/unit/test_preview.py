"""The preview of a scan: what is drawn where, at which size, in which words."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verse_data import phantom
from verse_data.errors import UsageError
from verse_data.spine.geometry import AxisMap
from verse_data.spine.levels import LEVELS
from verse_data.views.preview import level_colour, panels, preview_png
from verse_data.volumes.nifti import read_mask

PIR = np.array([[0, 0, 2.0, -50], [-1, 0, 0, 60], [0, -1, 0, -300], [0, 0, 0, 1]])
SHAPE = (60, 90, 30)  # 60 x 90 x 60 mm


def scan() -> tuple[np.ndarray, np.ndarray, dict[int, tuple[float, float, float]]]:
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[10:40, 10:35, 8:22] = 20
    label[10:40, 50:75, 8:22] = 21
    image = np.where(label > 0, 400, 0).astype(np.int16)
    return image, label, {20: (25, 22, 14.5), 21: (25, 62, 14.5)}


def colours(path: Path) -> set[tuple[int, int, int]]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_slices_stand_upright_with_faces_to_the_right():
    """Sagittal rows run head to foot and columns back to front; coronal columns right to left."""
    image, label, points = scan()
    image[:5] = 3000  # index 0 of a P axis lies in front
    image[:, :, :3] = 2000  # index 0 of an R axis lies on the patient's left
    sagittal, coronal = panels(image, label, PIR, points)
    assert sagittal.grey.shape == (90, 60)
    assert coronal.grey.shape == (90, 30)
    assert (sagittal.grey[:, -5:] == 3000).all()
    assert (coronal.grey[:, -3:] == 2000).all()
    assert sagittal.points[20] == pytest.approx((34, 22))
    assert (sagittal.size_mm, coronal.size_mm) == ((60, 90), (60, 90))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR"])
def test_orientation_of_the_volume_does_not_change_the_picture(tmp_path, codes):
    """A reoriented scan gives the same PNG."""
    image, label, points = scan()
    axes = AxisMap.between(PIR, codes)
    turned = {key: axes.points(point, SHAPE) for key, point in points.items()}
    one = preview_png(image, label, PIR, points, tmp_path / "1.png", scan_id="a", release="r")
    two = preview_png(
        axes.apply(image), axes.apply(label), axes.affine(PIR, SHAPE), turned,
        tmp_path / "2.png", scan_id="a", release="r",
    )  # fmt: skip
    assert one.read_bytes() == two.read_bytes()


def test_slices_follow_the_spine():
    """Where bodies lie apart from left to right, the sagittal slice passes through each of them."""
    label = np.zeros((60, 90, 60), dtype=np.uint8)
    label[10:40, 5:35, 5:20] = 20
    label[10:40, 50:85, 40:55] = 21
    points = {20: (25, 20, 12), 21: (25, 67, 47)}
    sagittal, _ = panels(label, label, np.diag([-1.0, -1.0, -1.0, 1.0]) @ np.eye(4), {})
    assert sagittal.grey.ndim == 2
    sagittal, coronal = panels(label, label, PIR, points)
    assert {20, 21} <= set(np.unique(sagittal.label))
    assert {20, 21} <= set(np.unique(coronal.label))


def test_aspect_ratio_comes_from_the_voxel_size(tmp_path):
    """A volume of 2 mm slices is drawn as wide as it is: 60 mm beside 60 mm, 90 mm high."""
    image = np.full(SHAPE, 1000, dtype=np.int16)
    path = preview_png(image, None, PIR, {}, tmp_path / "p.png", scan_id="a", release="r")
    with Image.open(path) as picture:
        white = np.asarray(picture.convert("L")) == 255
    widths, height = np.diff(np.flatnonzero(np.diff(white[200]))), white[:, 400].sum()
    assert list(widths[::2]) == [573, 573]  # between them the space for the names
    assert height == 860


def test_each_level_is_drawn_in_its_colour(tmp_path):
    """Mask contours and centroids have the level's colour, and a scan without mask has none."""
    image, label, points = scan()
    with_mask = preview_png(image, label, PIR, points, tmp_path / "1.png", scan_id="a", release="r")
    without = preview_png(image, None, PIR, {}, tmp_path / "2.png", scan_id="a", release="r")
    wanted = {level_colour("L1"), level_colour("L2")}
    assert wanted <= colours(with_mask)
    assert not wanted & colours(without)


def test_colours_of_levels_are_distinct():
    """No two levels share a colour, and neighbours differ much."""
    palette = {level: np.array(level_colour(level), dtype=float) for level in LEVELS}
    assert min(np.linalg.norm(a - b) for a, b in combinations(palette.values(), 2)) > 12
    assert min(np.linalg.norm(palette[a] - palette[b]) for a, b in pairwise(LEVELS)) > 120
    assert min(colour.max() for colour in palette.values()) == 255  # legible on black


def test_made_up_data_say_so(tmp_path):
    """A preview of the phantom carries a warning that one of a release does not have."""
    image, label, points = scan()
    amber = (255, 184, 77)
    made_up = preview_png(
        image, label, PIR, points, tmp_path / "1.png", scan_id="a", release="phantom"
    )
    real = preview_png(
        image, label, PIR, points, tmp_path / "2.png", scan_id="a", release="verse19"
    )
    noted = preview_png(
        image,
        label,
        PIR,
        points,
        tmp_path / "3.png",
        scan_id="a",
        release="verse19",
        note="painted",
    )
    found = [amber in colours(path) for path in (made_up, real, noted)]
    assert found == [True, False, True]


@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("has_points", [True, False])
def test_the_caption_says_what_a_scan_lacks(tmp_path, *, has_mask, has_points):
    """A picture without mask, centroids or both carries a note, and a whole one does not."""
    image, label, points = scan()
    given = (label if has_mask else None, PIR, points if has_points else {})

    path = preview_png(image, *given, tmp_path / "p.png", scan_id="a", release="verse19")

    assert ((255, 184, 77) in colours(path)) is not (has_mask and has_points)


def test_missing_centroids_and_nan_are_no_reason_to_fail(tmp_path):
    """Without centroids the slices follow the mask; a centroid of NaN is left out."""
    image, label, _ = scan()
    for points in ({}, {20: (np.nan, 1.0, 2.0)}):
        path = preview_png(image, label, PIR, points, tmp_path / "p.png", scan_id="a", release="r")
        assert size_of(path)[0] > 500


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    """A mask of another shape is a usage error, and no file is written."""
    image, label, points = scan()
    with pytest.raises(UsageError, match="one shape"):
        preview_png(image, label[1:], PIR, points, tmp_path / "p.png", scan_id="a", release="r")
    assert list(tmp_path.iterdir()) == []


def test_the_picture_is_limited_in_size(tmp_path):
    """A wide and a long field of view both end up under 1400 x 1000 pixels."""
    for shape in ((400, 60, 30), (40, 800, 20)):
        image = np.zeros(shape, dtype=np.int16)
        path = preview_png(image, None, PIR, {}, tmp_path / "p.png", scan_id="a", release="r")
        width, height = size_of(path)
        assert width <= 1400
        assert height <= 1000


def test_real_masks_are_drawn(shared, tmp_path):
    """A released mask with a painted CT gives a picture with all of its levels' colours."""
    found = shared / "data/verse19/dataset-verse19training/derivatives/sub-verse004"
    mask = read_mask(found / "sub-verse004_seg-vert_msk.nii.gz", name="verse004")
    ct = phantom.paint_ct(mask.array, mask.affine, seed=0)
    path = preview_png(
        ct, mask.array, mask.affine, {}, tmp_path / "p.png", scan_id="verse004", release="verse19"
    )
    seen = colours(path)
    names = ("T9", "T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")
    assert {level_colour(name) for name in names} <= seen
