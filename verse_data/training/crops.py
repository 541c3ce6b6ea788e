"""Crops of single vertebrae: their region in space, cut from the scan or resampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import ValidationFailed
from verse_data.spine.geometry import Affine, Box, Shape, apply_affine, corners, voxel_sizes
from verse_data.training.scans import OrientedScan
from verse_data.volumes.reader import Empty

Vector = npt.NDArray[np.float64]

_SAME_VOXEL = 1e-3
"""Relative difference of voxel sizes below which voxels are not resampled: the real 2 mm slices are
2.0003 mm."""


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
        Unit vectors in RAS+, one column per axis of the crop.
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


def neighbours(centroids: Vector, level: int) -> tuple[int, int]:
    """Return the nearest levels above and below with a centroid, or `level` if there is none."""
    known = np.flatnonzero(np.isfinite(centroids).all(axis=1))
    above, below = known[known < level], known[known > level]
    return max(above, default=level), min(below, default=level)


def spine_directions(centroids: Vector, level: int, codes: str) -> Vector:
    """Return the axes of `codes` where S is the spine's direction at `level`, as columns.

    S runs from the centroid below to the one above; R is the patient's right, made perpendicular
    to it; A completes the right-handed frame.
    """
    above, below = neighbours(centroids, level)
    superior = _unit(centroids[above] - centroids[below])
    right = np.array([1.0, 0.0, 0.0])
    right = _unit(right - superior * (right @ superior))
    anterior = np.cross(superior, right)
    axes = {"R": right, "A": anterior, "S": superior, "L": -right, "P": -anterior, "I": -superior}
    return np.stack([axes[code] for code in codes], axis=1)


def _unit(vector: Vector) -> Vector:
    length = np.linalg.norm(vector)
    if not length:
        raise ValidationFailed(
            "Two centroids of neighbouring levels lie at the same place; see release.verify()."
        )
    return np.asarray(vector / length)


def mask_region(scan: OrientedScan, label: int, directions: Vector, margin_mm: float) -> Region:
    """Return the box along `directions` around the mask of `label`, with a margin on each side."""
    reader = scan.reader
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
    scan: OrientedScan,
    region: Region,
    voxel_mm: Vector | None,
    orientation: str,
    *,
    aligned: bool,
    label: bool,
    empty: Empty,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, Affine]:
    """Read a region as image, label and affine; resample unless the scan's own voxels fit.

    `empty` allocates what is not resampled.
    """
    scan_mm = np.asarray(voxel_sizes(scan.affine))
    crop_mm = scan_mm if voxel_mm is None else voxel_mm
    shape, affine = region.grid(crop_mm)
    if not aligned and bool((np.abs(scan_mm / crop_mm - 1) < _SAME_VOXEL).all()):
        box = Box.around(scan.from_world(region.centre), shape)
        image, mask = scan.reader.read(box, orientation=orientation, label=label, empty=empty)
        return image, mask, box.affine(scan.affine)
    to_scan = np.linalg.inv(scan.affine) @ affine
    extent = apply_affine(to_scan, corners(shape))
    low = np.floor(extent.min(axis=0)).astype(int) - 1
    high = np.ceil(extent.max(axis=0)).astype(int) + 2
    box = Box((int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2])))
    image, mask = scan.reader.read(box, orientation=orientation, label=label)
    to_box: Any = {"matrix": to_scan[:3, :3], "offset": to_scan[:3, 3] - low, "output_shape": shape}
    from scipy import ndimage  # takes a third of a second, and only resampled crops need it

    resampled = ndimage.affine_transform(
        image.astype(np.float32), order=1, mode="nearest", **to_box
    )
    if mask is None:
        return resampled, None, affine
    return resampled, ndimage.affine_transform(mask, order=0, mode="nearest", **to_box), affine
