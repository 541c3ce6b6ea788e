"""Slices of a stored scan, as radiologists hang them: sagittal and coronal, head up.

Anterior is on the left of a sagittal slice, and the patient's right on the left of a coronal one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from verse_data.spine.geometry import AxisMap, Box, Shape, voxel_sizes
from verse_data.volumes.reader import ScanReader

DISPLAY: Final = "LPI"  # columns run to the patient's left, or backwards; rows run down
_BODY_MM: Final = 10.0
"""How far VerSe's centroids, which mark the body, lie in front of the mask's centre on average."""
_AROUND_MM: Final = 80.0
"""What is shown beside the curve through the bodies: to the skin of the back, and the psoas."""
_BEHIND_MM: Final = 8.0
"""How far the middle of a vertebra's crop lies behind its centroid, to show the canal too."""

Point = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """One upright slice.

    `grey` (HU) and `label` have shape (rows, columns); `points` maps a label to (column, row), and
    `marked` has those of them that are centroids, not places guessed from the mask. `sides` are the
    directions of the left and the right edge, such as ("A", "P"), and `pixel_mm` is (width, height).
    """

    grey: npt.NDArray[Any]
    label: npt.NDArray[Any]
    pixel_mm: tuple[float, float]
    sides: tuple[str, str]
    ends: tuple[str, str] = ("S", "I")
    points: Mapping[int, tuple[float, float]] | None = None
    marked: frozenset[int] = frozenset()

    @property
    def size_mm(self) -> tuple[float, float]:
        """Extent from left to right, and from top to bottom."""
        rows, columns = self.grey.shape
        return columns * self.pixel_mm[0], rows * self.pixel_mm[1]


@dataclass(frozen=True)
class Places:
    """Where each level of a scan is, as voxel index (x, y, z) of the display grid (LPI)."""

    points: Mapping[int, Point]
    marked: frozenset[int]


def places(reader: ScanReader) -> Places:
    """Return the centroid of each label; of a label of the mask that has none, a place in its body."""
    axes = AxisMap.between(reader.affine, DISPLAY)
    marked = {label: np.array(point) for label, point in reader.centroids.items()}
    marked = {label: point for label, point in marked.items() if np.isfinite(point).all()}
    guessed = {
        label: _body(reader, label, box)
        for label, box in reader.label_boxes.items()
        if label not in marked
    }
    found = {label: axes.points(point, reader.shape) for label, point in (marked | guessed).items()}
    return Places(found, frozenset(marked))


def _body(reader: ScanReader, label: int, box: Box) -> Point:
    """Guess the centre of a vertebral body: in front of the centre of its mask, in the stored grid."""
    inside = reader.read(box, image=False)[1] == label
    sums = [inside.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    middle = [float(np.average(np.arange(len(one)), weights=one)) for one in sums]
    front = np.array([0.0, _BODY_MM / voxel_sizes(reader.affine)[1], 0.0])
    found: Point = np.array(box.start) + middle + front
    return found


@dataclass(frozen=True)
class Labels:
    """Other labels than those of a store, on its display grid (LPI), and where each level is."""

    array: npt.NDArray[Any]
    places: Places

    @classmethod
    def of(cls, array: npt.NDArray[Any], marked: Mapping[int, Point]) -> Labels:
        """Return labels with the middle of each one's front, its body; `marked` are known points."""
        middles: dict[int, Point] = {}
        for label, box in enumerate(find_objects(array), start=1):
            if box is not None:
                front = array[box][:, : max(1, array[box].shape[1] // 3)] == label
                start = np.array([part.start for part in box])
                middles[label] = start + np.argwhere(front).mean(axis=0)
        return cls(array, Places(middles | dict(marked), frozenset(marked)))


def along_spine(
    reader: ScanReader, found: Places, shown: Labels | None = None
) -> tuple[Slice, Slice]:
    """Cut sagittally and coronally along the curve through the levels, or through the middle.

    A field of view that is wider than the spine and its surroundings is cut down to them. With
    `shown`, the slices are the same, and the labels on them are these.
    """
    shape, affine = reader.grid(DISPLAY)
    sizes = voxel_sizes(affine)
    points = list(found.points.values()) or [(np.array(shape) - 1) / 2]
    path = np.array(sorted(points, key=lambda point: float(point[2])))
    rows = np.arange(shape[2])
    curve = [
        np.rint(np.interp(rows, path[:, 2], path[:, axis])).clip(0, shape[axis] - 1).astype(int)
        for axis in (0, 1)
    ]
    parts = []
    for axis, sides in ((1, ("A", "P")), (0, ("R", "L"))):  # the axis along the columns
        across = 1 - axis
        near = round(_AROUND_MM / sizes[axis]) if found.points else shape[axis]
        start, stop = [0, 0, 0], list(shape)
        start[axis] = max(0, int(curve[axis].min()) - near)
        stop[axis] = min(shape[axis], int(curve[axis].max()) + near + 1)
        # Only the slab that the curve runs through is read, not the volume.
        start[across], stop[across] = int(curve[across].min()), int(curve[across].max()) + 1
        slab = Box.of((start[0], start[1], 0), stop)
        image, label = _read(reader, slab)
        if shown is not None:
            label = shown.array[tuple(map(slice, slab.start, slab.stop))]
        grey, label = (
            np.moveaxis(one, across, 0)[curve[across] - start[across], :, rows]
            for one in (image, label)
        )
        at = found if shown is None else shown.places
        columns = {key: (point[axis] - start[axis], point[2]) for key, point in at.points.items()}
        pixel = (sizes[axis], sizes[2])
        parts.append(Slice(grey, label, pixel, sides, points=columns, marked=at.marked))
    return parts[0], parts[1]


def through_level(reader: ScanReader, point: Point, extent_mm: float) -> Slice:
    """Cut a square of `extent_mm` sagittally through `point` of the display grid (LPI); air outside."""
    _, size_y, size_z = voxel_sizes(reader.grid(DISPLAY)[1])
    wide, high = (max(1, round(extent_mm / size)) for size in (size_y, size_z))
    middle = point + np.array([0.0, _BEHIND_MM / size_y, 0.0])
    image, label = _read(reader, Box.around(middle, (1, wide, high)))
    return Slice(image[0].T, label[0].T, (size_y, size_z), ("A", "P"))


def _read(reader: ScanReader, box: Box) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read a box of the display grid (LPI); without a mask, every label is 0."""
    image, label = reader.read(box, orientation=DISPLAY, label=reader.has_label)
    return image, np.zeros(box.shape, np.uint8) if label is None else label


def middle_planes(
    image: npt.NDArray[Any],
    label: npt.NDArray[Any] | None,
    affine: npt.ArrayLike,
    at: Point | None,
    points: Mapping[int, Point] | None = None,
) -> list[Slice]:
    """Cut an array (X, Y, Z) sagittally, coronally and axially at a voxel index, or in the middle.

    The `points` (label to voxel index) are marked in all three.
    """
    axes, (i, j, k) = AxisMap.between(affine, DISPLAY), image.shape
    shape: Shape = (i, j, k)
    volume = axes.apply(image)
    labels = axes.apply(np.zeros(shape, np.uint8) if label is None else label)
    middle = (np.array(volume.shape) - 1) / 2 if at is None else axes.points(at, shape)
    place = np.rint(middle).astype(int).clip(0, np.array(volume.shape) - 1)
    sizes = voxel_sizes(axes.affine(affine, shape))
    shown = {key: axes.points(point, shape) for key, point in (points or {}).items()}
    parts = []
    for axis, (column, row), sides, ends in (
        (0, (1, 2), ("A", "P"), ("S", "I")),
        (1, (0, 2), ("R", "L"), ("S", "I")),
        (2, (0, 1), ("R", "L"), ("A", "P")),
    ):
        grey, drawn = (np.take(one, place[axis], axis).T for one in (volume, labels))
        dots = {key: (float(point[column]), float(point[row])) for key, point in shown.items()}
        pixel = (sizes[column], sizes[row])
        parts.append(Slice(grey, drawn, pixel, sides, ends, dots, frozenset(dots)))
    return parts
