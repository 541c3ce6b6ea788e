"""From the grid of a source to that of its store, and the voxels along that way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from verse_data.errors import SourceChanged, UsageError
from verse_data.spine.geometry import Affine, AxisMap, Shape
from verse_data.volumes.layout import Codec, Slab, inner_chunk, slabs_of
from verse_data.volumes.nifti import VolumeStream
from verse_data.volumes.nifti_header import MAX_VOXELS, ImageHeader
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.resample import Interpolation, Resampling

_MAX_EXTENT: Final = 32767
"""Voxels along an axis, of NIfTI and of a manifest."""


@dataclass(frozen=True)
class Grid:
    """From the source's grid to the store's: to RAS by flips, then to the recipe's spacing.

    Attributes
    ----------
    axes : AxisMap
        From the source's axes to RAS.
    source_shape : (int, int, int)
        Voxels along the source's axes.
    resampling : Resampling or None
        In RAS, where the recipe asks for another voxel size than the scan has.
    shape, affine
        Of the store's grid, in x, y, z.
    """

    axes: AxisMap
    source_shape: Shape
    resampling: Resampling | None
    shape: Shape
    affine: Affine

    @classmethod
    def plan(cls, header: ImageHeader, recipe: Recipe) -> Grid:
        """Return the way from a source with this header to the grid of `recipe`."""
        axes = AxisMap.between(header.affine, "RAS")
        shape, affine = axes.shape(header.shape), axes.affine(header.affine, header.shape)
        if recipe.spacing is not None:
            resampling = Resampling.plan(shape, affine, recipe.spacing)
            if not resampling.trivial:
                _check_limits(resampling.shape, shape, recipe.spacing)
                return cls(axes, header.shape, resampling, resampling.shape, resampling.affine)
        return cls(axes, header.shape, None, shape, affine)

    def view(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the (z, y, x) view of an array in the source's axes."""
        return self.axes.apply(array).transpose(2, 1, 0)

    def slabs(
        self,
        stream: VolumeStream,
        planned: ImageHeader,
        codec: Codec,
        interpolation: Interpolation,
    ) -> Iterator[Slab]:
        """Yield the store's slabs of a volume, drained to its checked end before the last one."""
        with stream:
            _check_same(stream, planned)
            if self.resampling is None:
                yield from self._native(stream, inner_chunk(codec)[0])
                return
            array = np.empty(stream.header.voxels, stream.dtype)
            stream.fill(array)
            stream.finish()
        volume = self.axes.apply(array.reshape(self.source_shape, order="F"))
        yield from slabs_of(self.resampling.apply(volume, interpolation).transpose(2, 1, 0), codec)

    def _native(self, stream: VolumeStream, thick: int) -> Iterator[Slab]:
        """Read slices as the file has them, so many at a time as fill one place of the chunk grid.

        Two buffers take turns: one is encoded while the other is filled.
        """
        i, j, k = self.source_shape
        target = self.axes.axes.index(2)
        places = list(range(-(-k // thick)))
        if self.axes.flips[target]:
            places.reverse()
        buffers = [np.empty(i * j * min(k, thick), stream.dtype) for _ in range(2)]
        for number, place in enumerate(places):
            count = min(thick, k - place * thick)
            flat = buffers[number % 2][: i * j * count]
            stream.fill(flat)
            if number == len(places) - 1:
                stream.finish()
            yield Slab(2 - target, place, self.view(flat.reshape((i, j, count), order="F")))

    def points(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map voxel indices from the source's grid to the store's."""
        moved = self.axes.points(points, self.source_shape)
        return self.resampling.points(moved) if self.resampling else moved


def _check_limits(shape: Shape, old: Shape, spacing: tuple[float, float, float]) -> None:
    if max(shape) > _MAX_EXTENT or math.prod(shape) > MAX_VOXELS:
        message = (
            f"spacing={spacing} makes {shape} voxels out of {old}, {math.prod(shape):,} in all; "
            f"the limit is {_MAX_EXTENT:,} along an axis and {MAX_VOXELS:,} in all. Give a coarser "
            f"spacing."
        )
        raise UsageError(message)


def _check_same(stream: VolumeStream, planned: ImageHeader) -> None:
    """Check that the file that is read is the one whose header was planned with."""
    found = stream.header
    same = np.array_equal(found.affine, planned.affine)
    if not same or replace(found, affine=planned.affine) != planned:
        message = (
            f"{stream.name} was replaced while it was converted: its shape was {planned.shape} and "
            f"is {found.shape}, or its affine or another field changed. Nothing of it was kept. Run it again."
        )
        raise SourceChanged(message)
