"""The box of one vertebra, cut from its scan or resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError, ValidationFailed
from verse_data.spine.geometry import Affine, Box, Shape, apply_affine, voxel_sizes
from verse_data.spine.levels import LEVELS
from verse_data.training.rows import VertebraColumns
from verse_data.training.scans import OrientedScan

Around = Literal["centroid", "mask"]
Axes = Literal["scan", "spine"]
LabelMode = Literal["vertebra", "all", "binary", "none"]
Millimetres = float | Sequence[float]
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class CropSpec:
    """Where a crop lies, in which axes and voxels, and what its label says.

    The attributes are the options of :class:`verse_data.training.VertebraDataset`.

    Raises
    ------
    UsageError
        If an option makes no sense.
    """

    around: Around
    crop_size_mm: Triple
    margin_mm: float
    voxel_mm: Triple | None
    axes: Axes
    label_mode: LabelMode

    def __post_init__(self) -> None:
        one_of("around", self.around, ("centroid", "mask"))
        one_of("axes", self.axes, ("scan", "spine"))
        one_of("label_mode", self.label_mode, ("vertebra", "all", "binary", "none"))
        if not 0 <= self.margin_mm < np.inf:
            raise UsageError(f"margin_mm={self.margin_mm!r} is not a length of 0 mm or more.")

    @property
    def needs_mask(self) -> bool:
        """Whether a scan without a mask cannot be served."""
        return self.label_mode != "none" or self.around == "mask"

    @property
    def needs_centroid(self) -> bool:
        """Whether a vertebra without a centroid cannot be served."""
        return self.around == "centroid" or self.axes == "spine"

    @property
    def options(self) -> dict[str, Any]:
        """What decides a crop, as plain JSON."""
        extent: dict[str, Any] = (
            {"crop_size_mm": list(self.crop_size_mm)}
            if self.around == "centroid"
            else {"margin_mm": self.margin_mm}
        )
        return {
            "around": self.around,
            **extent,
            "voxel_mm": None if self.voxel_mm is None else list(self.voxel_mm),
            "axes": self.axes,
            "label_mode": self.label_mode,
        }

    def cut(
        self, opened: OrientedScan, rows: VertebraColumns, index: int, orientation: str
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, Affine]:
        """Return image, label (or None) and affine of the crop of vertebra `index`."""
        number = int(rows.label[index])
        image, mask, affine = read_region(
            opened,
            self._region(opened, rows, index, orientation),
            None if self.voxel_mm is None else np.asarray(self.voxel_mm),
            orientation=orientation,
            aligned=self.axes == "spine",
            label=self.label_mode != "none",
        )
        return image, None if mask is None else self._label(mask, number), affine

    def _region(
        self, opened: OrientedScan, rows: VertebraColumns, index: int, orientation: str
    ) -> Region:
        directions = (
            spine_directions(opened.centroids, int(rows.level[index]), orientation)
            if self.axes == "spine"
            else scan_directions(opened.affine)
        )
        if self.around == "centroid":
            return Region(rows.centroid[index], np.asarray(self.crop_size_mm), directions)
        return mask_region(opened, int(rows.label[index]), directions, self.margin_mm)

    def _label(self, mask: npt.NDArray[np.uint8], number: int) -> npt.NDArray[Any]:
        if self.label_mode == "vertebra":
            return np.asarray(mask == number)
        return mask > 0 if self.label_mode == "binary" else mask


def one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return `value` if it is `allowed`."""
    if value in allowed:
        return value
    raise UsageError(f"{option}={value!r} is none of {', '.join(allowed)}.")


def lengths(option: str, value: Millimetres) -> Triple:
    """Return one length in mm, or three, as three."""
    try:
        sizes = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        sizes = np.zeros(())
    if sizes.shape not in {(), (3,)} or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise UsageError(f"{option}={value!r} is not a positive length in mm, or three of them.")
    x, y, z = np.broadcast_to(sizes, 3).tolist()
    return (x, y, z)


Vector = npt.NDArray[np.float64]

_SAME_VOXEL = 1e-3
"""Relative difference of voxel sizes below which voxels are handed out as they are: the real
2 mm slices are 2.0003 mm."""


@dataclass(frozen=True)
class Region:
    """A box in space, in mm: its middle, and its size along three directions.

    Attributes
    ----------
    centre : (3,) array
        mm, RAS+.
    size : (3,) array
        mm along each direction.
    directions : (3, 3) array
        Unit vectors in RAS+, a column for each axis of the crop.
    """

    centre: Vector
    size: Vector
    directions: Vector

    def grid(self, voxel_mm: Vector) -> tuple[Shape, Affine]:
        """Return shape and affine of the crop in voxels of `voxel_mm`."""
        x, y, z = (max(int(n), 1) for n in np.rint(self.size / voxel_mm))
        affine = np.eye(4)
        affine[:3, :3] = self.directions * voxel_mm
        affine[:3, 3] = self.centre - affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
        return (x, y, z), affine


def scan_directions(affine: Affine) -> Vector:
    """Return the unit vectors along the axes of a grid, as columns."""
    return np.asarray(affine[:3, :3] / np.asarray(voxel_sizes(affine)), dtype=np.float64)


def neighbours(centroids: Vector, level: int) -> tuple[int, int] | None:
    """Return the levels next above and below `level` that have a centroid, or itself for one."""
    known = np.flatnonzero(np.isfinite(centroids).all(axis=1))
    above, below = known[known < level], known[known > level]
    if not len(above) and not len(below):
        return None
    return int(above[-1]) if len(above) else level, int(below[0]) if len(below) else level


def spine_directions(centroids: Vector, level: int, codes: str) -> Vector:
    """Return the axes of `codes` where S is the spine's direction at `level`, as columns.

    S runs from the centroid below to the one above; R is the patient's right, made perpendicular
    to it; A completes the right-handed frame.
    """
    pair = neighbours(centroids, level)
    if pair is None:
        raise ValidationFailed(
            f"{LEVELS[level]} has no neighbour with a centroid, so the spine has no direction there."
        )
    superior = _unit(centroids[pair[0]] - centroids[pair[1]])
    right = np.array([1.0, 0.0, 0.0])
    right = _unit(right - superior * (right @ superior))
    anterior = np.cross(superior, right)
    axes = {"R": right, "A": anterior, "S": superior, "L": -right, "P": -anterior, "I": -superior}
    return np.stack([axes[code] for code in codes], axis=1)


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    if not length:
        raise ValidationFailed(
            "Two centroids of neighbouring levels lie at the same place; see release.verify()."
        )
    return np.asarray(vector / length, dtype=np.float64)


def mask_region(opened: OrientedScan, label: int, directions: Vector, margin_mm: float) -> Region:
    """Return the box along `directions` that holds the mask of `label`, and a margin on each side."""
    reader = opened.reader
    box = reader.label_boxes.get(label)
    if box is None:
        raise ValidationFailed(f"The mask of {reader.scan_id} has no voxel of label {label}.")
    _, mask = reader.read(box, image=False)
    points = apply_affine(reader.affine, np.argwhere(mask == label) + box.start)
    inverse = np.linalg.inv(directions)
    along = points @ inverse.T
    half_voxel = np.abs(inverse @ reader.affine[:3, :3]).sum(axis=1) / 2
    low, high = along.min(axis=0) - half_voxel, along.max(axis=0) + half_voxel
    return Region(directions @ ((low + high) / 2), high - low + 2 * margin_mm, directions)


def read_region(
    opened: OrientedScan,
    region: Region,
    voxel_mm: Vector | None,
    *,
    orientation: str,
    aligned: bool,
    label: bool,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None, Affine]:
    """Read a region as image, label and affine."""
    own = np.asarray(voxel_sizes(opened.affine))
    wanted = own if voxel_mm is None else voxel_mm
    if not aligned and bool((np.abs(own / wanted - 1) < _SAME_VOXEL).all()):
        shape, _ = region.grid(wanted)
        box = Box.around(opened.from_world(region.centre), shape)
        image, mask = opened.reader.read(box, orientation=orientation, label=label)
        return image, mask, box.affine(opened.affine)
    shape, affine = region.grid(wanted)
    return (*_resampled(opened, shape, affine, orientation, label=label), affine)


def _resampled(
    opened: OrientedScan, shape: Shape, affine: Affine, orientation: str, *, label: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]:
    """Resample: image linearly, label by the nearest voxel; outside is air and background."""
    to_scan = np.linalg.inv(opened.affine) @ affine
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape))).reshape(3, -1).T
    reached = apply_affine(to_scan, corners)
    low = np.floor(reached.min(axis=0)).astype(int) - 1
    high = np.ceil(reached.max(axis=0)).astype(int) + 2
    box = Box((int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2])))
    image, mask = opened.reader.read(box, orientation=orientation, label=label)
    matrix, offset = to_scan[:3, :3], to_scan[:3, 3] - low
    from scipy import ndimage  # a third of a second that only crops with a spacing need

    moved = ndimage.affine_transform(
        np.asarray(image, dtype=np.float32), matrix, offset, shape, order=1, mode="nearest"
    )
    if mask is None:
        return moved, None
    nearest = ndimage.affine_transform(mask, matrix, offset, shape, order=0, mode="nearest")
    return moved, nearest
