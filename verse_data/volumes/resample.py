"""Resampling onto another voxel size, on exactly the grid that the affine says.

Along an axis that gets coarser, the first voxel keeps its place, and every new voxel lies between
the centres of old ones. Along one that gets finer, the new voxels fill the extent of the old ones
evenly: were the first to keep its place there, half of the new voxels of a 2:1 step would lie
half-way between two old ones, and a label would be drawn to one side. ``scipy.ndimage.zoom`` and
``torch.interpolate`` are off by a fraction of a voxel that grows along the axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verse_data.spine.geometry import Grid

Interpolation = Literal["linear", "cubic", "nearest"]
Triple = tuple[float, float, float]

_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Resampling(Grid):
    """A new grid, and how it lies on the old one, along the same axes."""

    steps: Triple
    """Old voxels per new voxel along each axis."""
    start: Triple
    """Place of the first new voxel, as an index of the old grid."""

    @classmethod
    def plan(cls, old: Grid, spacing: Triple) -> Resampling:
        """Return the way from a grid to voxels of `spacing` mm along its axes."""
        steps = np.array(spacing) / np.array(old.spacing)
        steps[np.abs(steps - 1) < _SAME] = 1.0
        voxels, finer = np.array(old.shape), steps < 1
        coarse = np.floor((voxels - 1) / steps + _SAME) + 1
        size = np.where(finer, np.maximum(np.rint(voxels / steps), 1), coarse).astype(int)
        start = np.where(finer, (voxels - 1 - (size - 1) * steps) / 2, 0.0)
        scaled = np.diag([*steps, 1.0])
        scaled[:3, 3] = start
        (i, j, k), (di, dj, dk), (i0, j0, k0) = size.tolist(), steps.tolist(), start.tolist()
        return cls((i, j, k), old.affine @ scaled, (di, dj, dk), (i0, j0, k0))

    @property
    def trivial(self) -> bool:
        """Whether the new grid is the old one."""
        return self.steps == (1.0, 1.0, 1.0)

    def points(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map voxel indices, shape (..., 3), from the old grid to the new one."""
        moved: npt.NDArray[np.float64] = (np.asarray(points, np.float64) - self.start) / self.steps
        return moved

    def apply(self, volume: npt.NDArray[Any], interpolation: Interpolation) -> npt.NDArray[Any]:
        """Return a volume on the new grid, in its own dtype.

        ``nearest`` is for labels, the upper voxel half-way; the others are for HU, rounded to the
        nearest integer.
        """
        ways = {"nearest": self._nearest, "linear": self._linear, "cubic": self._cubic}
        return ways[interpolation](volume)

    def _places(self, axis: int, old: int) -> npt.NDArray[np.float64]:
        """Return where the new voxels lie along an axis, as indices of the old grid, none outside."""
        places = self.start[axis] + np.arange(self.shape[axis]) * self.steps[axis]
        return np.clip(places, 0, old - 1)

    def _nearest(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        for axis, old in enumerate(volume.shape):
            nearest = np.floor(self._places(axis, old) + 0.5).astype(np.intp)
            volume = volume.take(np.minimum(nearest, old - 1), axis=axis)
        return volume

    def _linear(self, volume: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Interpolate one new slice at a time, so that only slices are held as float64."""
        places = [self._places(axis, old) for axis, old in enumerate(volume.shape)]
        lower = [np.floor(place).astype(np.intp) for place in places]
        upper = [np.minimum(low + 1, n - 1) for low, n in zip(lower, volume.shape, strict=True)]
        weight = [place - low for place, low in zip(places, lower, strict=True)]
        # Fortran order: slices of constant k lie in one piece, as in the file.
        out = np.empty(self.shape, np.int16, order="F")
        for k in range(self.shape[2]):
            plane = volume[:, :, lower[2][k]].astype(np.float64)
            if weight[2][k]:
                plane += weight[2][k] * (volume[:, :, upper[2][k]] - plane)
            plane = plane[:, lower[1]] * (1 - weight[1]) + plane[:, upper[1]] * weight[1]
            across = weight[0][:, None]
            plane = plane[lower[0]] * (1 - across) + plane[upper[0]] * across
            out[:, :, k] = np.rint(plane)
        return out

    def _cubic(self, volume: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
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
