"""Resampling to another voxel size, exactly on the grid of the new affine.

Along an axis that gets coarser, the first voxel keeps its position, and every new voxel centre lies
within the old ones. Along one that gets finer, the new voxels fill the extent of the old ones
evenly: if the first kept its position there, half of the new voxels of a 2:1 step would lie
half-way between two old ones, and labels would be shifted to one side. ``scipy.ndimage.zoom`` and
``torch.interpolate`` are off by a fraction of a voxel that grows along the axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from verse_data.spine.geometry import Array, Grid

Interpolation = Literal["linear", "cubic", "nearest"]
Triple = tuple[float, float, float]

_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Resampling(Grid):
    """A new grid, and its position on the old one, along the same axes."""

    steps: Triple
    """Old voxels per new voxel along each axis."""
    start: Triple
    """Position of the first new voxel, as an index of the old grid."""

    @classmethod
    def plan(cls, old: Grid, spacing: Triple) -> Resampling:
        """Return the resampling of a grid to voxels of `spacing` mm along its axes."""
        steps = np.array(spacing) / np.array(old.spacing)
        steps[np.abs(steps - 1) < _SAME] = 1.0
        voxels, finer = np.array(old.shape), steps < 1
        coarse = np.floor((voxels - 1) / steps + _SAME) + 1
        size = np.where(finer, np.maximum(np.rint(voxels / steps), 1), coarse).astype(int)
        start = np.where(finer, (voxels - 1 - (size - 1) * steps) / 2, 0.0)
        scaled = np.diag([*steps, 1.0])
        scaled[:3, 3] = start
        shape, *along = (tuple(part.tolist()) for part in (size, steps, start))
        return cls(shape, old.affine @ scaled, *along)

    @property
    def trivial(self) -> bool:
        """Whether the new grid is the old one."""
        return self.steps == (1.0, 1.0, 1.0)

    def points(self, points: npt.ArrayLike) -> Array:
        """Map voxel indices, shape (..., 3), from the old grid to the new one."""
        moved: Array = (np.asarray(points, np.float64) - self.start) / self.steps
        return moved

    def apply(self, volume: Array, interpolation: Interpolation) -> Array:
        """Return a volume on the new grid, in its own dtype.

        ``nearest`` is for labels, and takes the upper voxel of two at equal distance; the others
        are for HU, and round to the nearest integer.
        """
        methods = {"nearest": self._nearest, "linear": self._linear, "cubic": self._cubic}
        return methods[interpolation](volume)

    def _neighbours(self, axis: int, old: int) -> tuple[Array, ...]:
        """Return, for new voxels along an axis, the old ones below and above, and the fraction."""
        places = self.start[axis] + np.arange(self.shape[axis]) * self.steps[axis]
        places = np.clip(places, 0, old - 1)
        lower = np.floor(places).astype(np.intp)
        return lower, np.minimum(lower + 1, old - 1), places - lower

    def _nearest(self, volume: Array) -> Array:
        for axis, old in enumerate(volume.shape):
            lower, upper, weight = self._neighbours(axis, old)
            volume = volume.take(np.where(weight < 0.5, lower, upper), axis=axis)
        return volume

    def _linear(self, volume: Array) -> Array:
        """Interpolate one new slice at a time, so that only slices are held as float64."""
        (i, i1, wi), (j, j1, wj), planes = (
            self._neighbours(axis, old) for axis, old in enumerate(volume.shape)
        )
        wi = wi[:, None]
        # Fortran order: slices of constant k are contiguous, as in the file.
        out = np.empty(self.shape, np.int16, order="F")
        for k, (low, high, weight) in enumerate(zip(*planes, strict=True)):
            plane = volume[:, :, low].astype(np.float64)
            if weight:
                plane += weight * (volume[:, :, high] - plane)
            plane = plane[:, j] * (1 - wj) + plane[:, j1] * wj
            plane = plane[i] * (1 - wi) + plane[i1] * wi
            out[:, :, k] = np.rint(plane)
        return out

    def _cubic(self, volume: Array) -> Array:
        from scipy import ndimage

        # float32 halves the memory; it holds every int16 exactly.
        values = ndimage.affine_transform(
            volume.astype(np.float32),
            np.array(self.steps),
            offset=self.start,
            output_shape=self.shape,
            output=np.float32,
            order=3,
            mode="mirror",
        )
        # A spline overshoots at edges; only metal beside air could leave int16.
        return np.clip(np.rint(values), -32767, 32767).astype(np.int16)
