"""Resampling: the grid that the affine says, and values that scipy agrees with."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tests.support.scans import LPS, PIR, TILTED, make_scan
from verse_data.spine.geometry import AxisMap, Box, Grid, apply_affine, voxel_sizes
from verse_data.volumes.convert import Resampling
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 1.3, 2.0), (2.5, 0.5, 0.9)]


def random_volume(shape=(23, 31, 17), dtype=np.int16):
    """Return noise: the hardest case for interpolation."""
    return np.random.default_rng(5).normal(0, 400, shape).astype(dtype)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("affine", [LPS, TILTED])
def test_linear_is_exact(affine, spacing):
    """Linear values are those of scipy.ndimage.affine_transform, to the rounded Hounsfield unit."""
    volume = random_volume()
    plan = Resampling.plan(Grid(volume.shape, affine), spacing)

    expected = ndimage.affine_transform(
        volume.astype(np.float64),
        np.diag(plan.steps),
        offset=plan.start,
        output_shape=plan.shape,
        order=1,
        mode="nearest",
    )

    found = plan.apply(volume, "linear")
    assert found.dtype == np.int16
    # Half-way values round to even here, and may fall on either side there.
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("spacing", SPACINGS)
def test_nearest_is_exact(spacing):
    """Labels are those of the nearest voxel, the same that scipy takes, and no new ones appear."""
    volume = np.random.default_rng(5).integers(0, 29, (23, 31, 17)).astype(np.uint8)
    plan = Resampling.plan(Grid(volume.shape, LPS), spacing)

    expected = ndimage.affine_transform(
        volume,
        np.diag(plan.steps),
        offset=plan.start,
        output_shape=plan.shape,
        order=0,
        mode="nearest",
    )

    places = [
        first + np.arange(n) * step
        for first, n, step in zip(plan.start, plan.shape, plan.steps, strict=True)
    ]
    clear = np.ix_(*(np.abs(p % 1 - 0.5) > 1e-6 for p in places))
    found = plan.apply(volume, "nearest")
    assert found.dtype == np.uint8
    assert np.array_equal(found[clear], expected[clear])


def test_cubic_is_scipys():
    """Cubic values are scipy's spline of order 3, rounded, within int16."""
    volume = random_volume()
    plan = Resampling.plan(Grid(volume.shape, LPS), (1.0, 1.0, 1.0))
    expected = ndimage.affine_transform(
        volume.astype(np.float64),
        np.array(plan.steps),
        offset=plan.start,
        output_shape=plan.shape,
        order=3,
        mode="mirror",
    )
    found = plan.apply(volume, "cubic")
    assert np.abs(found - expected).max() < 0.51


def test_control_zoom_is_another_grid():
    """scipy.ndimage.zoom, the usual shortcut, is off by hundreds of HU on a ramp with an edge."""
    volume = np.zeros((60, 4, 4), np.int16)
    volume[30:] = 1000
    plan = Resampling.plan(Grid(volume.shape, np.eye(4)), (1.7, 1.0, 1.0))
    exact = plan.apply(volume, "linear")
    zoomed = ndimage.zoom(volume, (plan.shape[0] / 60, 1, 1), order=1)
    assert np.abs(exact.astype(int) - zoomed).max() > 200


@pytest.mark.parametrize("affine", [PIR, LPS, TILTED])
def test_a_point_keeps_its_world_position(affine):
    """Mapped through the new grid's affine, a point lies where it lay, to 1e-9 mm."""
    plan = Resampling.plan(Grid((40, 50, 60), affine), (0.8, 1.1, 1.9))
    points = np.random.default_rng(1).uniform(0, 40, (10, 3))
    moved = apply_affine(plan.affine, plan.points(points))
    assert np.abs(moved - apply_affine(affine, points)).max() < 1e-9


@pytest.mark.parametrize("affine", [PIR, LPS, TILTED])
def test_a_resampled_store(tmp_path, affine):
    """A store with spacing has that voxel size in RAS order, and its points keep their place."""
    scan = make_scan(tmp_path, affine=affine)
    recipe = Recipe(spacing=(1.0, 2.0, 1.5))
    reader = ScanReader(ensure_store(scan.source, recipe, tmp_path / "stores"))

    assert np.allclose(voxel_sizes(reader.affine), (1.0, 2.0, 1.5))
    for point in scan.source.centroids.points:
        world = apply_affine(scan.affine, point.point)
        assert (
            np.abs(apply_affine(reader.affine, reader.centroids[point.label]) - world).max() < 1e-6
        )
    image, label = reader.read(Box.whole(reader.shape))
    axes = AxisMap.between(scan.affine, "RAS")
    plan = Resampling.plan(
        Grid(axes.shape(scan.image.shape), axes.affine(scan.affine, scan.image.shape)),
        recipe.spacing,
    )
    assert np.array_equal(image, plan.apply(axes.apply(scan.image), "linear"))
    assert np.array_equal(label, plan.apply(axes.apply(scan.mask), "nearest"))
    for value, box in reader.label_boxes.items():
        inside = np.argwhere(label == value)
        assert (tuple(inside.min(0)), tuple(inside.max(0) + 1)) == (box.start, box.stop)


@pytest.mark.parametrize("turned", [False, True])
def test_a_label_is_not_drawn_to_one_side(turned):
    """Halving the voxels leaves each label's centre of mass where it was, whichever way it is stored."""
    volume = np.zeros((30, 30, 30), np.uint8)
    volume[7:12, 3:21, 14:15] = 20
    if turned:
        volume = volume[::-1, ::-1, ::-1]
    plan = Resampling.plan(Grid(volume.shape, np.diag([2.0, 2.0, 2.0, 1.0])), (1.0, 1.0, 1.0))

    found = apply_affine(plan.affine, np.argwhere(plan.apply(volume, "nearest")).mean(axis=0))

    before = apply_affine(np.diag([2.0, 2.0, 2.0, 1.0]), np.argwhere(volume).mean(axis=0))
    assert np.abs(found - before).max() < 1e-9


def test_the_same_spacing_changes_nothing(tmp_path):
    """Spacing that the scan has already is the scan's own grid, voxel for voxel."""
    scan = make_scan(tmp_path, affine=PIR)
    reader = ScanReader(
        ensure_store(scan.source, Recipe(spacing=(1.0, 1.0, 1.0)), tmp_path / "stores")
    )
    shape, _ = reader.grid("PIR")
    assert np.array_equal(reader.read(Box.whole(shape), orientation="PIR")[0], scan.image)
