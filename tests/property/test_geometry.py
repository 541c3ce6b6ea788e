"""Orientation arithmetic, against nibabel as an independent reference."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from verse_data.errors import UsageError
from verse_data.spine.geometry import (
    SAME_GRID_MM,
    AxisMap,
    Box,
    Grid,
    apply_affine,
    axcodes,
    voxel_sizes,
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no error."""

ALL_CODES = [
    "".join(order[i] for i in permutation)
    for order in itertools.product("LR", "PA", "IS")
    for permutation in itertools.permutations(range(3))
]


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any orientation and spacing, tilted by up to 20 degrees."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    axis = numbers.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.deg2rad(draw(st.floats(0, 20)))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    canonical = np.eye(4)
    canonical[:3, :3] = rotation @ np.diag(numbers.uniform(0.3, 3, size=3))
    canonical[:3, 3] = numbers.uniform(-500, 500, size=3)
    return AxisMap.between(np.eye(4), draw(st.sampled_from(ALL_CODES))).affine(canonical, (7, 8, 9))


@PATIENT
@given(affines())
def test_axis_codes_agree_with_nibabel(affine: np.ndarray) -> None:
    """Axis codes equal nibabel's for every orientation, oblique or not."""
    assert axcodes(affine) == "".join(nib.aff2axcodes(affine))


@PATIENT
@given(affines(), st.sampled_from(ALL_CODES))
def test_reorienting_agrees_with_nibabel(affine: np.ndarray, codes: str) -> None:
    """Volume and affine in any orientation equal nibabel's."""
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    axis_map = AxisMap.between(affine, codes)

    np.testing.assert_array_equal(axis_map.apply(volume), nib.apply_orientation(volume, change))
    np.testing.assert_allclose(
        axis_map.affine(affine, (4, 5, 6)), affine @ inv_ornt_aff(change, (4, 5, 6))
    )
    assert axcodes(axis_map.affine(affine, (4, 5, 6))) == codes


@PATIENT
@given(affines(), st.sampled_from(ALL_CODES), st.sampled_from(ALL_CODES))
def test_a_round_trip_is_exact(affine: np.ndarray, there: str, back: str) -> None:
    """Going to one orientation and on to another equals going straight there."""
    shape = (4, 5, 6)
    volume = np.arange(4 * 5 * 6).reshape(shape)
    first = AxisMap.between(affine, there)
    second = AxisMap.between(first.affine(affine, shape), back)
    straight = AxisMap.between(affine, back)

    np.testing.assert_array_equal(second.apply(first.apply(volume)), straight.apply(volume))


@PATIENT
@given(affines(), st.sampled_from(ALL_CODES))
def test_points_stay_where_they_are(affine: np.ndarray, codes: str) -> None:
    """A point's world position is the same before and after a reorientation."""
    shape = (40, 50, 60)
    points = np.array([[0.0, 0.0, 0.0], [3.25, 7.5, 11.125], [39, 49, 59]])
    axis_map = AxisMap.between(affine, codes)
    moved = axis_map.points(points, shape)

    np.testing.assert_allclose(
        apply_affine(axis_map.affine(affine, shape), moved), apply_affine(affine, points), atol=1e-9
    )


def test_the_real_shape_of_verse004() -> None:
    """The tilted PIR affine with 2 mm slices is read as such."""
    affine = np.array([[0, 0, 2.0003, 1], [-1, 0.0795, 0, 2], [-0.0795, -1, 0, 3], [0, 0, 0, 1.0]])

    assert axcodes(affine) == "PIR"
    assert voxel_sizes(affine)[2] == pytest.approx(2.0003)


@pytest.mark.parametrize("codes", ["RA", "RRS", "XYZ", "RASR", ""])
def test_bad_axis_codes_are_refused(codes: str) -> None:
    """Codes that do not name three different axes are refused with an example."""
    with pytest.raises(UsageError, match="'PIR'"):
        AxisMap.between(np.eye(4), codes)


def test_a_grid_says_what_follows_from_its_affine() -> None:
    """Spacing, axes and the volume of a voxel of a sheared grid; and what lies inside of it."""
    affine = np.array([[0, 0, 2.0, 5], [-3.0, 0.5, 0, 6], [0, -1.0, 0, 7], [0, 0, 0, 1]])
    grid = Grid((4, 5, 6), affine)

    assert grid.axcodes == "".join(nib.aff2axcodes(affine)) == "PIR"
    assert grid.spacing == pytest.approx(nib.affines.voxel_sizes(affine))
    assert grid.voxel_mm3 == pytest.approx(6.0)
    assert grid.holds((-0.5, 4.5, 5.5))
    assert not grid.holds((-0.6, 0, 0))
    assert not grid.holds((0, 4.6, 0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_grids_are_the_same_if_no_corner_is_far(axis: int) -> None:
    """The farthest corner counts, of any axis, and another shape is another grid."""
    grid = Grid((11, 21, 31), np.eye(4))
    turned = np.eye(4)
    turned[(axis + 1) % 3, axis] = SAME_GRID_MM / (grid.shape[axis] - 1)
    other = Grid(grid.shape, turned)

    assert grid.distance(other) == pytest.approx(SAME_GRID_MM)
    turned[(axis + 1) % 3, axis] *= 0.99
    assert grid.matches(other)
    turned[(axis + 1) % 3, axis] *= 1.02
    assert not grid.matches(other)
    assert not grid.matches(Grid((11, 21, 30), np.eye(4)))


def test_a_box_around_a_centre_has_the_asked_shape() -> None:
    """The box's middle lies within half a voxel of the centre, also beyond the volume's edge."""
    box = Box.around((2.2, 10.0, 30.6), (4, 5, 8))

    assert box.shape == (4, 5, 8)
    middle = (np.array(box.start) + np.array(box.stop) - 1) / 2
    assert np.all(np.abs(middle - (2.2, 10.0, 30.6)) <= 0.5)


def test_clipping_a_box_keeps_its_inside() -> None:
    """Clipping to a volume leaves exactly the part inside it, empty if there is none."""
    assert Box((-2, 3, 8), (4, 6, 20)).clipped((10, 5, 10)) == Box((0, 3, 8), (4, 5, 10))
    assert 0 in Box((12, 0, 0), (14, 2, 2)).clipped((10, 5, 10)).shape


def test_a_box_is_a_volume_with_an_affine_of_its_own() -> None:
    """Voxel 0 of a box has the world position that its start has in the volume."""
    affine = np.diag([2.0, 3.0, 4.0, 1.0])

    np.testing.assert_allclose(Box((1, 2, 3), (4, 4, 4)).affine(affine)[:3, 3], [2, 6, 12])
