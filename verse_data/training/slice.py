"""Slices and projections in two dimensions, through a vertebra or through the spine of a scan.

Beside the keys of :mod:`verse_data.training.samples`, whose ``image`` and ``label`` are (1, rows,
columns) here, a sample of both classes has

=================  ==================  ============================================================
key                type                meaning
=================  ==================  ============================================================
``affine``         float64 (4, 4)      index (row, column, depth) to mm, RAS+; the slice lies at
                                       depth 0, and a step of depth is its thickness, or the
                                       projection's
``points``         float64 (26, 2)     (row, column) of the centroid of each level; NaN where the
                                       scan has none. It may lie beyond the image, and off the plane:
``off_plane_mm``   float64 (26,)       distance of the centroid from the plane at depth 0, signed
``boxes``          int64 (26, 2, 2)    first (row, column) of each level's label, and the ones after
                                       the last; all -1 where the slice has none of it; absent
                                       without labels
``plane``          str                 ``sagittal``, ``coronal`` or ``axial``
=================  ==================  ============================================================

In a projection, ``boxes`` are those of all that is projected, and ``label`` is the vertebra with the most
voxels along the ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from verse_data.errors import UsageError, one_of
from verse_data.spine.geometry import Affine, Array, Box, apply_affine, voxel_sizes
from verse_data.spine.levels import LEVEL_OF_LABEL, LEVELS
from verse_data.training.arguments import finite
from verse_data.training.base import ScanDataset
from verse_data.training.crops import Region
from verse_data.training.rows import targets
from verse_data.training.samples import PAD_HU, Sample, box_tensor
from verse_data.training.scans import OrientedScan, ServedScan
from verse_data.training.vertebra import VertebraDataset
from verse_data.volumes.reader import Empty, fresh

if TYPE_CHECKING:
    import pandas as pd

_NORMALS = {"sagittal": "RL", "coronal": "AP", "axial": "SI"}
_UPRIGHT = "IPL"
"""Rows run down and columns backwards or to the left, as radiologists hang all three planes."""

Plane = Literal["sagittal", "coronal", "axial"]
Projection = Literal["mean", "max"]


@dataclass(frozen=True)
class Cut:
    """How a slice is cut: its plane, and what is projected onto it."""

    plane: str
    projection: str | None
    thickness_mm: float | None

    def __post_init__(self) -> None:
        one_of("plane", self.plane, tuple(_NORMALS))
        if self.projection is not None:
            one_of("projection", self.projection, ("mean", "max"))
        elif self.thickness_mm is not None:
            raise UsageError(
                f"thickness_mm={self.thickness_mm!r} is that of a projection; give projection='mean' or "
                f"'max', or leave it out for a slice of the scan's own thickness."
            )
        if self.thickness_mm is not None and not finite("thickness_mm", self.thickness_mm) > 0:
            raise UsageError(f"thickness_mm={self.thickness_mm!r} is not a positive length in mm.")

    @property
    def through_point(self) -> bool:
        """Whether the place of the plane matters: a projection of everything has none."""
        return self.projection is None or self.thickness_mm is not None

    def axis(self, orientation: str) -> int:
        """Return which axis of `orientation` the plane is normal to."""
        return next(n for n, code in enumerate(orientation) if code in _NORMALS[self.plane])

    def image(self, volume: Array, inside: Array | None = None) -> Array:
        """Return what (rows, columns, depth) voxels are on the plane; a mean is of those `inside`."""
        if self.projection is None:
            return np.asarray(volume[:, :, 0])
        if self.projection == "max":
            return np.asarray(volume.max(axis=2))
        if inside is None:
            return np.asarray(volume.mean(axis=2, dtype=np.float32))
        count = inside.sum(axis=2)
        total = np.where(inside, volume, 0).sum(axis=2, dtype=np.float32)
        return np.where(count > 0, total / np.maximum(count, 1), np.float32(PAD_HU))


def turned(affine: Affine, axis: int, depth: int) -> Affine:
    """Return the affine of the plane in the middle of `depth` voxels along `axis`."""
    order = [n for n in range(3) if n != axis] + [axis]
    flat = np.array(affine, dtype=np.float64)
    flat[:3, :3] = affine[:3, order]
    flat[:3, 3] += flat[:3, 2] * (depth - 1) / 2
    flat[:3, 2] *= depth
    return flat


def footprints(label: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], torch.Tensor]:
    """Return the label with the most of (rows, columns, depth) voxels, and the box of each level."""
    from scipy import ndimage  # takes a third of a second, and only slices with labels need it

    flat = np.zeros(label.shape[:2], dtype=np.uint8)
    most = np.zeros(label.shape[:2], dtype=np.int64)
    boxes = np.full((len(LEVELS), 2, 2), -1, dtype=np.int64)
    found = dict(enumerate(ndimage.find_objects(label), start=1))
    for value in found:
        if (part := found.get(value)) is None:
            continue
        count = np.count_nonzero(label[part] == value, axis=2)
        wins = count > most[part[:2]]
        flat[part[:2]][wins], most[part[:2]][wins] = value, count[wins]
        if value in LEVEL_OF_LABEL:  # the sacrum has no level
            number = LEVELS.index(LEVEL_OF_LABEL[value])
            boxes[number] = [[one.start for one in part[:2]], [one.stop for one in part[:2]]]
    return flat, torch.from_numpy(boxes)


def in_plane(sample: Sample, plane: str) -> Sample:
    """Return the sample with the points of its centroids."""
    to_index = np.linalg.inv(sample["affine"].numpy())
    at = apply_affine(to_index, sample["centroids"].numpy())
    away = at[:, 2] / np.linalg.norm(to_index[2, :3])
    return sample | {
        "points": torch.from_numpy(at[:, :2].copy()),
        "off_plane_mm": torch.from_numpy(away),
        "plane": plane,
    }


def inside(scan: OrientedScan, shape: Sequence[int], affine: Affine) -> npt.NDArray[np.bool_]:
    """Return which voxels of a grid of `shape` lie within the scan."""
    to_scan, grid = np.linalg.inv(scan.affine) @ affine, np.ix_(*map(np.arange, shape))
    within = np.ones(tuple(shape), dtype=np.bool_)
    for row, size in zip(to_scan, scan.shape, strict=False):
        at = sum((step * index for step, index in zip(row, grid, strict=False)), start=row[3])
        within &= (at >= -0.5 - 1e-6) & (at <= size - 0.5 + 1e-6)
    return within


class VertebraSliceDataset(VertebraDataset):
    """One slice or projection per vertebra, through its centroid, with its grade.

    A sample has the keys of :mod:`verse_data.training.slice` and the targets of
    :class:`verse_data.training.VertebraDataset`, whose options choose vertebrae and the crop. A
    slice lies at the centroid, whatever the crop is around, or in the middle of the mask's box if there is
    no centroid.

    Parameters
    ----------
    scans : sequence of ServedScan
        The scans to cut.
    vertebrae : DataFrame
        Rows of the vertebrae table: the vertebrae to serve.
    plane : {"sagittal", "coronal", "axial"}
        Of the scan's grid or, with ``axes="spine"``, of one that follows the spine.
    projection : {"mean", "max"}, optional
        Project the crop, or the slab of `thickness_mm` about the centroid, onto the plane; voxels
        beyond the scan do not count. By default one slice.
    thickness_mm : float, optional
        Of the slab that is projected, to the nearest voxel; by default the whole crop.
    orientation : str
        Axis codes: rows and columns are those of its axes that lie in the plane, in this order. By
        default rows run down, or backwards in the axial plane, and columns backwards or to the left.
    **options
        Those of :class:`verse_data.training.VertebraDataset`. Along the normal of the plane, voxels
        of the scan are not resampled unless ``axes="spine"``.

    Raises
    ------
    UsageError
        If an option is invalid.
    """

    unit = "slice"

    def __init__(
        self,
        scans: Sequence[ServedScan],
        vertebrae: pd.DataFrame,
        *,
        plane: Plane = "sagittal",
        projection: Projection | None = None,
        thickness_mm: float | None = None,
        orientation: str = _UPRIGHT,
        **options: Any,
    ) -> None:
        self.cut = Cut(plane, projection, thickness_mm)
        super().__init__(scans, vertebrae, orientation=orientation, **options)

    @property
    def options(self) -> dict[str, Any]:
        """All options that the samples depend on."""
        return {"through": "vertebra", **asdict(self.cut), **super().options}

    def _make(self, epoch: int, index: int, empty: Empty = fresh) -> Sample:
        del empty  # what is read has more axes than what is served
        number, row = self.scan_number(epoch, index), self.rows[index]
        axis = self.cut.axis(self.orientation)
        image, label, affine = self._crop(row, fresh)
        image, depth = np.moveaxis(image, axis, 2), image.shape[axis]
        counted, flat_label, boxes = None, None, {}
        if self.cut.projection == "mean":
            counted = inside(self._open(number), image.shape, turned(affine, axis, 1))
        if label is not None:
            label = np.moveaxis(label, axis, 2)
            boxes["boxes"] = footprints(label)[1]
            self._choose(label, row)
            flat_label = footprints(label)[0]
        image, affine = self.cut.image(image, counted), turned(affine, axis, depth)
        made = in_plane(self._sample(number, image, flat_label, affine), self.cut.plane)
        return made | boxes | targets(row, self.fracture_threshold)

    def _region(self, scan: OrientedScan, row: np.void) -> Region:
        region, axis = super()._region(scan, row), self.cut.axis(self.orientation)
        size, centre = np.array(region.size), region.centre
        if self.cut.projection is None:
            size[axis] = self._voxel_of(scan)[axis]
        elif self.cut.thickness_mm is not None:
            size[axis] = self.cut.thickness_mm
        # However much is asked for, no more than the scan from any place in it.
        extent = np.multiply(scan.shape, voxel_sizes(scan.affine))
        size[axis] = min(size[axis], 2 * float(np.linalg.norm(extent)))
        if self.cut.through_point and np.isfinite(row["centroid"]).all():
            along = np.linalg.solve(region.directions, row["centroid"] - centre)
            centre = centre + region.directions[:, axis] * along[axis]
        return Region(centre, size, region.directions)

    def _voxel_of(self, scan: OrientedScan) -> npt.NDArray[np.float64]:
        own = np.asarray(voxel_sizes(scan.affine))
        if self._voxel is None:
            return own
        normal = np.arange(3) == self.cut.axis(self.orientation)
        return np.where(normal & (self.axes == "scan"), own, self._voxel)


class SpineSliceDataset(ScanDataset):
    """One slice or projection per CT series, through its spine, on the voxels of the scan.

    A sample has the keys of :mod:`verse_data.training.slice`, and ``box`` as patches have: the voxels
    that were cut or projected. A slice lies at the centroid that is the median along the normal of the plane;
    without centroids, in the middle. Slices of scans differ in shape, as scans do.

    Parameters
    ----------
    scans : sequence of ServedScan
        The scans to cut.
    plane : {"sagittal", "coronal", "axial"}
        Of the scan's grid.
    projection : {"mean", "max"}, optional
        Project the scan, the spine's box with ``crop="spine"``, or the slab of `thickness_mm`.
    thickness_mm, orientation : optional
        As in :class:`VertebraSliceDataset`.
    **options
        ``label``, ``crop``, ``margin_mm`` and others: see :class:`verse_data.training.ScanDataset`.

    Raises
    ------
    UsageError
        If an option is invalid.
    """

    unit = "slice"

    def __init__(
        self,
        scans: Sequence[ServedScan],
        *,
        plane: Plane = "sagittal",
        projection: Projection | None = None,
        thickness_mm: float | None = None,
        orientation: str = _UPRIGHT,
        **options: Any,
    ) -> None:
        self.cut = Cut(plane, projection, thickness_mm)
        super().__init__(scans, orientation=orientation, **options)

    @property
    def options(self) -> dict[str, Any]:
        """All options that the samples depend on."""
        return {"through": "spine", **asdict(self.cut), **super().options}

    def _make(self, epoch: int, index: int, empty: Empty = fresh) -> Sample:
        del epoch, empty  # what is read has more axes than what is served
        scan, axis = self._open(index), self.cut.axis(self.orientation)
        box = self._slab(scan, axis)
        image, label = scan.reader.read(box, orientation=self.orientation, label=self.label)
        affine = turned(box.affine(scan.affine), axis, box.shape[axis])
        flat_label, boxes = None, {}
        if label is not None:
            flat_label, boxes["boxes"] = footprints(np.moveaxis(label, axis, 2))
        image = self.cut.image(np.moveaxis(image, axis, 2))
        made = in_plane(self._sample(index, image, flat_label, affine), self.cut.plane)
        return made | boxes | {"box": box_tensor(box)}

    def _slab(self, scan: OrientedScan, axis: int) -> Box:
        """Return the voxels that make the slice of a scan."""
        box = self._box(scan)
        if not self.cut.through_point:
            return box
        start, stop = list(box.start), list(box.stop)
        known = scan.centroids[np.isfinite(scan.centroids).all(axis=1)]
        along = scan.from_world(known)[:, axis]
        middle = (start[axis] + stop[axis] - 1) / 2
        at = along[np.argmin(np.abs(along - np.median(along)))] if len(along) else middle
        voxels = round((self.cut.thickness_mm or 0) / voxel_sizes(scan.affine)[axis])
        first = round(float(np.clip(at, start[axis], stop[axis] - 1)) - (max(voxels, 1) - 1) / 2)
        end = min(first + max(voxels, 1), stop[axis])
        start[axis], stop[axis] = max(first, start[axis]), end
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
