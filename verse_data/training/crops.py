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

_ROOM_MM = (
    np.array(np.meshgrid((-55.0, 55.0), (-70.0, 25.0), (-45.0, 35.0), indexing="ij"))
    .reshape(3, -1)
    .T
)
"""Corners about a centroid, which marks the body: a vertebra's extent to both sides, behind and in
front, below and above (at most 53, 69, 24, 42 and 31 mm in verse004 and verse010)."""


@dataclass(frozen=True)
class Region:
    """A box in space, in mm: its middle, and its size along three directions."""

    centre: Vector  # (3,) mm, RAS+
    size: Vector  # (3,) mm along each direction
    directions: Vector  # (3, 3) unit vectors in RAS+, one column per axis of the crop

    def grid(self, voxel_mm: Vector) -> tuple[Shape, Affine]:
        """Return shape and affine of the crop in voxels of `voxel_mm`."""
        x, y, z = (max(int(n), 1) for n in np.rint(self.size / voxel_mm))
        affine = np.eye(4)
        affine[:3, :3] = self.directions * voxel_mm
        affine[:3, 3] = self.centre - affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
        return (x, y, z), affine


def spine_box(scan: OrientedScan, margin_mm: float) -> Box:
    """Return the part of the scan that holds its spine, and `margin_mm` on each side where it can.

    The spine is what the mask labels; without a mask, all centroids, each with the room that the
    largest vertebra takes around it.
    """
    reader, known = scan.reader, scan.centroids[np.isfinite(scan.centroids).all(axis=1)]
    if boxes := reader.label_boxes.values():
        ends = scan.from_store(np.array([(b.start, np.subtract(b.stop, 1)) for b in boxes]))
    elif len(known):
        ends = scan.from_world(known[:, None] + _ROOM_MM)
    else:
        raise ValidationFailed(
            f"{reader.scan_id} has neither a label in its mask nor a centroid, so its spine has no "
            f"box. Leave the scan out, or leave out crop='spine'."
        )
    # Along the normal of each face, which in a sheared grid is not the axis.
    margin = margin_mm * np.linalg.norm(np.linalg.inv(scan.affine[:3, :3]), axis=1)
    ends = ends.reshape(-1, 3)
    low = np.floor(np.round(ends.min(axis=0) - margin, 6))
    high = np.ceil(np.round(ends.max(axis=0) + margin, 6))
    box = Box.of(low, high + 1).clipped(scan.shape)
    if min(box.shape) < 1:
        raise ValidationFailed(
            f"All centroids of {reader.scan_id} lie outside its image, so its spine has no box. Leave "
            f"the scan out; release.verify() lists such."
        )
    return box


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
    box = Box.of(low, high)
    image, mask = scan.reader.read(box, orientation=orientation, label=label)
    to_box: Any = {"matrix": to_scan[:3, :3], "offset": to_scan[:3, 3] - low, "output_shape": shape}
    from scipy import ndimage  # takes a third of a second, and only resampled crops need it

    resampled = ndimage.affine_transform(
        image.astype(np.float32), order=1, mode="nearest", **to_box
    )
    if mask is None:
        return resampled, None, affine
    return resampled, ndimage.affine_transform(mask, order=0, mode="nearest", **to_box), affine
