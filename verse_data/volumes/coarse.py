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
from verse_data.volumes.layout import DTYPE, ArrayName, Extents, Slab

FACTORS: Final = (2, 4)
"""Voxels of the store along each axis of a voxel of each level; they divide an inner chunk."""


def coarse_shape(shape: Extents, factor: int) -> Extents:
    """Return the voxels of a level along each axis; a block that is cut by the border counts."""
    return (-(-shape[0] // factor), -(-shape[1] // factor), -(-shape[2] // factor))


def offset(name: ArrayName, factor: int) -> float:
    """Return where the first voxel of a level lies along each axis, in voxels of the store."""
    return (factor - 1) / 2 if name == "image" else float((factor - 1) // 2)


def coarse_affine(affine: Affine, name: ArrayName, factor: int) -> Affine:
    """Return the (4, 4) affine of a level, voxel index (x, y, z) to world mm, RAS+."""
    step = np.diag([*[float(factor)] * 3, 1.0])
    step[:3, 3] = offset(name, factor)
    return affine @ step


def coarsened(voxels: npt.NDArray[Any], name: ArrayName) -> dict[int, npt.NDArray[Any]]:
    """Return what each factor makes of these voxels, of which the first is the first of a block."""
    if name == "label":
        return {factor: _nearest(voxels, factor) for factor in FACTORS}
    # A few planes at a time: what is added up then stays in the processor's cache.
    along, thick = int(np.argmax(np.abs(voxels.strides))), max(FACTORS)
    parts = [
        _block_means(voxels[_at(along, slice(start, start + thick))])
        for start in range(0, voxels.shape[along], thick)
    ]
    return {factor: np.concatenate([p[factor] for p in parts], axis=along) for factor in FACTORS}


def _block_means(voxels: npt.NDArray[np.int16]) -> dict[int, npt.NDArray[np.int16]]:
    """Return the rounded means of blocks by factor; each factor doubles the one before."""
    sums, means = voxels.astype(np.int32, order="K"), {}
    for factor in FACTORS:
        # Whole planes first: the additions along rows, which are slow, then have less to do.
        for axis in np.argsort(np.abs(sums.strides))[::-1].tolist():
            sums = _pair_sums(sums, axis)
        # 64 voxels of int16 add up to less than 2**24, so float32 rounds as exactly as float64.
        counts = np.ones((), np.float32)
        for n, blocks in zip(voxels.shape, sums.shape, strict=True):
            size = np.minimum(factor, n - factor * np.arange(blocks)).astype(np.float32)
            counts = np.multiply.outer(counts, size if n % factor else size[:1])
        means[factor] = np.rint(sums.astype(np.float32) / counts).astype(DTYPE["image"])
    return means


def _pair_sums(values: npt.NDArray[np.int32], axis: int) -> npt.NDArray[np.int32]:
    """Add neighbours along an axis; the last one of an odd number stays alone."""
    even, odd = values[_at(axis, slice(0, None, 2))], values[_at(axis, slice(1, None, 2))]
    if even.shape == odd.shape:
        return even + odd
    sums = even.copy(order="K")
    sums[_at(axis, slice(odd.shape[axis]))] += odd
    return sums


def _nearest(voxels: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """Return the voxel nearest to the middle of each block; the last of a block that is cut short."""
    middle = (factor - 1) // 2
    for axis, n in enumerate(voxels.shape):
        kept = voxels[_at(axis, slice(middle, None, factor))]
        if kept.shape[axis] < -(-n // factor):
            kept = np.concatenate([kept, voxels[_at(axis, slice(-1, None))]], axis=axis)
        voxels = kept
    return voxels


def _at(axis: int, part: slice) -> tuple[slice, ...]:
    """Return the index that takes a part along one axis."""
    return (*(slice(None),) * axis, part)


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
        voxels[_at(axis, slice(start, start + part.shape[axis]))] = part
        wanted.remove(slab.place)
        if not wanted:
            del self._begun[place]
            yield Slab(axis, place, voxels)
