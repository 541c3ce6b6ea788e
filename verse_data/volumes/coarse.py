"""The coarser levels of an array, which viewers show of a whole scan: made slab by slab.

A voxel of level f stands for a block of f³ voxels of the store, fewer where the volume ends: the
CT's is the mean of the block, rounded to the nearest HU, halves to even; a label is the voxel at
place ``(f - 1) // 2`` of the block along each axis, the nearest to its middle, and is placed there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from verse_data.spine.geometry import Affine
from verse_data.volumes.encode import Slab
from verse_data.volumes.layout import DTYPE, ArrayName, Extents

FACTORS: Final = (2, 4)
"""Voxels of the store along each axis of a voxel of each level; they divide an inner chunk."""


def coarse_shape(shape: Extents, factor: int) -> Extents:
    """Return the voxels of a level along each axis; a block that is cut by the border counts."""
    a, b, c = (-(-n // factor) for n in shape)
    return (a, b, c)


def offset(name: ArrayName, factor: int) -> float:
    """Return where the first voxel of a level lies along each axis, in voxels of the store."""
    return (factor - 1) / 2 if name == "image" else float((factor - 1) // 2)


def coarse_affine(affine: Affine, name: ArrayName, factor: int) -> Affine:
    """Return the (4, 4) affine of a level, voxel index (x, y, z) to world mm, RAS+."""
    step = np.diag([*[float(factor)] * 3, 1.0])
    step[:3, 3] = offset(name, factor)
    return affine @ step


def coarsened(
    voxels: npt.NDArray[Any], name: ArrayName
) -> Iterator[tuple[int, npt.NDArray[np.integer[Any]]]]:
    """Yield each factor with the voxels that it makes of these, which begin with a block."""
    if name == "label":
        for factor in FACTORS:
            middle = (factor - 1) // 2
            places = (
                np.minimum(np.arange(middle, n + middle, factor), n - 1) for n in voxels.shape
            )
            yield factor, voxels[np.ix_(*places)]
        return
    sums = voxels
    for factor in FACTORS:
        sums = _pair_sums(sums)
        yield factor, _means(sums, voxels.shape, factor)


def _pair_sums(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Add neighbours in pairs along every axis; the last one of an odd number stays alone."""
    # Whole planes first: the strided additions along rows then have a quarter of the work.
    for axis in np.argsort(np.abs(values.strides))[::-1].tolist():
        ahead = (slice(None),) * axis
        even, odd = values[(*ahead, slice(0, None, 2))], values[(*ahead, slice(1, None, 2))]
        values = even.astype(np.int32, order="K")
        values[(*ahead, slice(odd.shape[axis]))] += odd
    return values


def _means(
    sums: npt.NDArray[np.int32], shape: tuple[int, ...], factor: int
) -> npt.NDArray[np.integer[Any]]:
    """Divide each sum by the number of voxels in its block."""
    counts = np.ones((), np.float64)
    for n, blocks in zip(shape, sums.shape, strict=True):
        counts = np.multiply.outer(counts, np.minimum(factor, n - factor * np.arange(blocks)))
    return np.rint(sums / counts).astype(DTYPE["image"])


class Gathering:
    """Puts the parts that slabs of the store give of one level together to slabs of that level."""

    def __init__(self, shape: Extents, factor: int, chunk: Extents) -> None:
        self._store, self._factor, self._chunk = shape, factor, chunk
        self._shape = coarse_shape(shape, factor)
        self._begun: dict[int, tuple[npt.NDArray[Any], set[int]]] = {}

    def add(self, slab: Slab, part: npt.NDArray[Any]) -> Iterator[Slab]:
        """Take what `slab` gives; yield the slab of the level that it completes, if it does."""
        axis, thick = slab.axis, self._chunk[slab.axis]
        place, inside = divmod(slab.place, self._factor)
        slabs = -(-self._store[axis] // thick)
        if place not in self._begun:
            extents = list(self._shape)
            extents[axis] = min(thick, extents[axis] - place * thick)
            first = place * self._factor
            wanted = set(range(first, min(first + self._factor, slabs)))
            self._begun[place] = np.empty(extents, part.dtype), wanted
        voxels, wanted = self._begun[place]
        start = inside * (thick // self._factor)
        voxels[(slice(None),) * axis + (slice(start, start + part.shape[axis]),)] = part
        wanted.remove(slab.place)
        if not wanted:
            del self._begun[place]
            yield Slab(axis, place, voxels)
