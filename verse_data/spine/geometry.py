"""Affines, orientations, boxes and points of voxel grids. Pure NumPy.

Conventions: an `affine` is (4, 4) and maps a voxel index (i, j, k) to world millimetres in RAS+,
as in nibabel. Axis codes name the direction in which each voxel axis points: ``"RAS"`` means that
i grows to the patient's right, j anteriorly, k superiorly. Reorienting here means permuting and
flipping axes and nothing else, so it is exact, for oblique affines too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError

Array = npt.NDArray[Any]
"""A NumPy array of any type."""
Affine = npt.NDArray[np.float64]
Shape = tuple[int, int, int]

SAME_GRID_MM: Final = 0.1
"""Grids of equal shape count as the same if no corner differs by more."""

_CODES: Final = (("L", "R"), ("P", "A"), ("I", "S"))
_AXIS_OF_CODE: Final = {code: axis for axis, pair in enumerate(_CODES) for code in pair}


def world_axes(affine: npt.ArrayLike) -> tuple[tuple[int, int], ...]:
    """Return for each voxel axis the world axis it runs along, and its sign.

    Voxel axes of an oblique affine are matched to world axes by the closest orthogonal matrix,
    the strongest match first: the rule of ``nibabel.io_orientation``.
    """
    directions = np.asarray(affine, dtype=np.float64)[:3, :3]
    directions = directions / np.linalg.norm(directions, axis=0)
    left, _, right = np.linalg.svd(directions)
    rotation = left @ right
    matches: dict[int, tuple[int, int]] = {}
    strength = np.abs(rotation)
    for _ in range(3):
        world, voxel = np.unravel_index(int(np.argmax(strength)), (3, 3))
        matches[int(voxel)] = (int(world), 1 if rotation[world, voxel] > 0 else -1)
        strength[world, :] = -1
        strength[:, voxel] = -1
    return tuple(matches[axis] for axis in range(3))


def axcodes(affine: npt.ArrayLike) -> str:
    """Return the axis codes of an affine, such as ``"PIR"``."""
    return "".join(_CODES[world][(sign + 1) // 2] for world, sign in world_axes(affine))


def check_axcodes(codes: str) -> str:
    """Return `codes` in upper case if they name three different world axes, else raise UsageError."""
    upper = codes.upper()
    if len(upper) != 3 or {_AXIS_OF_CODE.get(code) for code in upper} != {0, 1, 2}:
        raise UsageError(
            f"orientation={codes!r} is not three axis codes. Use one letter of each of "
            f"R/L, A/P and S/I, such as 'RAS' or 'PIR'."
        )
    return upper


def voxel_sizes(affine: npt.ArrayLike) -> tuple[float, float, float]:
    """Return the voxel size in mm along each voxel axis."""
    sizes = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return (float(sizes[0]), float(sizes[1]), float(sizes[2]))


def apply_affine(affine: npt.ArrayLike, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Map `points`, shape (..., 3), through `affine`."""
    matrix = np.asarray(affine, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def corners(shape: Shape, beyond: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the eight corners of a grid as voxel indices, so many voxels `beyond` the centres."""
    ends = ((-beyond, size - 1 + beyond) for size in shape)
    return np.array(list(itertools.product(*ends)), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid of voxels in space: its shape, and the affine from voxel index to world mm."""

    shape: Shape
    affine: Affine = field(compare=False)  # `==` on an array is an array

    @classmethod
    def of(cls, image: Any) -> Grid:
        """Return the grid of anything with a `shape` and an `affine`."""
        i, j, k = image.shape
        return Grid((int(i), int(j), int(k)), np.asarray(image.affine, dtype=np.float64))

    def distance(self, other: Grid) -> float:
        """Return the largest distance in mm between matching corners of grids of equal shape."""
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())

    def corners(self) -> npt.NDArray[np.float64]:
        """Return the centres of the eight voxels at the corners in world mm, shape (8, 3)."""
        return apply_affine(self.affine, corners(self.shape))

    def matches(self, other: Grid) -> bool:
        """Return whether two grids are the same within :data:`SAME_GRID_MM`."""
        return self.shape == other.shape and self.distance(other) <= SAME_GRID_MM

    def holds(self, point: Sequence[float]) -> bool:
        """Return whether a voxel index lies inside the grid."""
        return all(-0.5 <= x <= n - 0.5 for x, n in zip(point, self.shape, strict=True))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edges in mm."""
        return voxel_sizes(self.affine)

    @cached_property
    def axcodes(self) -> str:
        """Directions of the voxel axes."""
        return axcodes(self.affine)

    @cached_property
    def voxel_mm3(self) -> float:
        """Volume of one voxel; correct for oblique and sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True)
class AxisMap:
    """A reorientation: for each target axis its source axis, and whether it is flipped."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def between(cls, affine: npt.ArrayLike, codes: str) -> AxisMap:
        """Return the map from the grid of `affine` to the grid with axis codes `codes`."""
        source = world_axes(affine)
        axes, flips = [], []
        for code in check_axcodes(codes):
            world = _AXIS_OF_CODE[code]
            sign = 1 if code == _CODES[world][1] else -1
            axis = next(i for i, (w, _) in enumerate(source) if w == world)
            axes.append(axis)
            flips.append(source[axis][1] != sign)
        return cls((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    def apply(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of `volume`, shape (I, J, K), in the target's axes."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        return volume.transpose(self.axes)[steps]

    def shape(self, shape: Shape) -> Shape:
        """Return the target's shape for a source of `shape`."""
        i, j, k = (shape[axis] for axis in self.axes)
        return (i, j, k)

    def matrix(self, shape: Shape) -> npt.NDArray[np.float64]:
        """Return the (4, 4) matrix from target index to source index, for a source of `shape`."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1.0
        for target, (source, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            matrix[source, target] = -1.0 if flip else 1.0
            matrix[source, 3] = shape[source] - 1 if flip else 0.0
        return matrix

    def affine(self, affine: npt.ArrayLike, shape: Shape) -> Affine:
        """Return the target's affine for a source of `affine` and `shape`."""
        return np.asarray(affine, dtype=np.float64) @ self.matrix(shape)

    def points(self, points: npt.ArrayLike, shape: Shape) -> npt.NDArray[np.float64]:
        """Map voxel indices, shape (..., 3), from the source grid to the target grid."""
        return apply_affine(np.linalg.inv(self.matrix(shape)), points)


@dataclass(frozen=True)
class Box:
    """A half-open box of voxels, ``start <= index < stop``; it may reach beyond its volume."""

    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Number of voxels along each axis."""
        i, j, k = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return (i, j, k)

    @classmethod
    def whole(cls, shape: Shape) -> Box:
        """Return the box that covers a volume of `shape`."""
        return cls((0, 0, 0), shape)

    @classmethod
    def of(cls, start: Iterable[Any], stop: Iterable[Any]) -> Box:
        """Return the box between two corners, given as any whole numbers."""
        (i, j, k), (i1, j1, k1) = (map(int, corner) for corner in (start, stop))
        return cls((i, j, k), (i1, j1, k1))

    @classmethod
    def around(cls, centre: npt.ArrayLike, shape: Shape) -> Box:
        """Return the box of `shape` whose middle lies nearest to `centre` (voxel index)."""
        size = np.asarray(shape)
        first = np.rint(np.asarray(centre, dtype=np.float64) - (size - 1) / 2)
        return cls.of(first, first + size)

    def clipped(self, shape: Shape) -> Box:
        """Return the part of the box that lies inside a volume of `shape`."""
        start = [min(max(a, 0), n) for a, n in zip(self.start, shape, strict=True)]
        stop = [min(max(b, a), n) for b, a, n in zip(self.stop, start, shape, strict=True)]
        return Box.of(start, stop)

    def affine(self, affine: npt.ArrayLike) -> Affine:
        """Return the affine of the box as a volume of its own, cut from a grid of `affine`."""
        moved = np.array(affine, dtype=np.float64)
        moved[:3, 3] = apply_affine(affine, self.start)
        return moved
