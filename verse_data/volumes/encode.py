"""Cutting slabs of a volume into inner chunks, and encoding them as their store keeps them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc
from scipy import ndimage

from verse_data.spine.geometry import Box
from verse_data.volumes.layout import (
    DTYPE,
    FILL,
    ArrayName,
    Codec,
    Extents,
    blosc_settings,
    chunk_grid,
    inner_chunk,
)


@dataclass(frozen=True)
class Slab:
    """All inner chunks at one place of the chunk grid along one axis.

    Attributes
    ----------
    axis : int
        The axis, 0 … 2 for z, y, x.
    place : int
        Place along it in the chunk grid.
    voxels : (Z, Y, X) array
        At most one chunk thick along `axis`, whole along the others; any strides.
    """

    axis: int
    place: int
    voxels: npt.NDArray[Any]


def slabs_of(array: npt.NDArray[Any], codec: Codec) -> Iterator[Slab]:
    """Cut a (Z, Y, X) array that lies in memory into slabs along z."""
    thick = inner_chunk(codec)[0]
    for place, begin in enumerate(range(0, array.shape[0], thick)):
        yield Slab(0, place, array[begin : begin + thick])


_SHUFFLE: Final = {"noshuffle": blosc.NOSHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
Boxes = tuple[tuple[int, Box], ...]
_NO_BOXES: Final[Boxes] = ()


@dataclass(frozen=True)
class Encoded:
    """One inner chunk: its bytes without the checksum, and the one value that fills it, if any."""

    content: bytes
    checksum: int
    constant: int


class Encoder:
    """Cuts chunks out of slabs and encodes them; belongs to one thread."""

    def __init__(self, name: ArrayName, codec: Codec) -> None:
        self._dtype, self._fill = DTYPE[name], FILL[name]
        self.chunk = inner_chunk(codec)
        self._settings = None if codec == "none" else blosc_settings(name, codec)
        self._finds_labels = name == "label"
        self._filled: dict[int, Encoded] = {}
        self._turned = np.empty(self.chunk[::-1], self._dtype)

    def slab(self, slab: Slab) -> Iterator[tuple[Extents, Encoded, Boxes]]:
        """Yield place in the chunk grid, bytes, and labels with boxes of each chunk of a slab.

        Chunks are cut out of bars that run along the axis on which neighbours lie side by side in
        memory: a chunk's own rows are single cache lines, far apart, and slow to fetch.
        """
        voxels = slab.voxels
        along = int(np.argmin(np.abs(voxels.strides)))
        grid = chunk_grid(voxels.shape, self.chunk)
        ends = [n if axis != along else 1 for axis, n in enumerate(grid)]
        for corner in itertools.product(*(range(n) for n in ends)):
            first = [p * c for p, c in zip(corner, self.chunk, strict=True)]
            wide = [c if axis != along else voxels.shape[axis] for axis, c in enumerate(self.chunk)]
            bar = _near(voxels[tuple(slice(f, f + w) for f, w in zip(first, wide, strict=True))])
            empty = _constant(bar) == 0  # most bars of a mask: no need to look at each chunk
            for number in range(grid[along]):
                place, cut = list(corner), [slice(None)] * 3
                place[along] = number
                cut[along] = slice(number * self.chunk[along], (number + 1) * self.chunk[along])
                place[slab.axis] = slab.place
                z, y, x = place
                if empty:
                    yield (z, y, x), self._full_of(0), _NO_BOXES
                else:
                    yield self._chunk(_near(bar[tuple(cut)]), (z, y, x))

    def _chunk(self, block: npt.NDArray[Any], place: Extents) -> tuple[Extents, Encoded, Boxes]:
        encoded, boxes = self._one(block), _NO_BOXES
        if self._finds_labels and encoded.constant != 0:
            boxes = _boxes(block, [p * c for p, c in zip(place, self.chunk, strict=True)])
        return place, encoded, boxes

    def _one(self, block: npt.NDArray[Any]) -> Encoded:
        constant = _constant(block)
        if constant is not None:
            return self._full_of(constant)
        if block.shape == self.chunk:
            self._turned[...] = block.transpose(2, 1, 0)
        else:
            # What lies beyond the border is stored as well; the spec leaves its value open.
            self._turned.fill(block[0, 0, 0])
            self._turned[tuple(slice(n) for n in block.shape[::-1])] = block.transpose(2, 1, 0)
        return self._encode(self._fill)

    def _full_of(self, constant: int) -> Encoded:
        """Return the chunk that holds one value alone; encoded once."""
        if constant not in self._filled:
            self._turned.fill(constant)
            self._filled[constant] = self._encode(constant)
        return self._filled[constant]

    def _encode(self, constant: int) -> Encoded:
        """Encode the chunk that was turned to (x, y, z): the order in which its bytes are stored."""
        if self._settings is None:
            content = self._turned.tobytes()
        else:
            content = blosc.compress(
                self._turned,
                self._settings["cname"].encode(),
                self._settings["clevel"],
                shuffle=_SHUFFLE[self._settings["shuffle"]],
                blocksize=self._settings["blocksize"],
            )
        return Encoded(content, int(google_crc32c.value(content)), constant)


def _boxes(block: npt.NDArray[Any], begin: list[int]) -> Boxes:
    """Return label and box, in (x, y, z) of the whole array, of what lies in a block."""
    z, y, x = begin
    return tuple(
        (
            label,
            Box(
                (x + found[2].start, y + found[1].start, z + found[0].start),
                (x + found[2].stop, y + found[1].stop, z + found[0].stop),
            ),
        )
        for label, found in enumerate(ndimage.find_objects(block), start=1)
        if found is not None
    )


def _constant(block: npt.NDArray[Any]) -> int | None:
    """Return the one value that fills a block, if it is one."""
    first = block[0, 0, 0]
    # A first row settles it nearly always.
    if bool((block[0, 0] == first).all()) and bool((block == first).all()):
        return int(first)
    return None


def _near(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy a block into one piece of memory, read in the order in which it lies.

    Whole rows are copied that way, also where the view is flipped; turning the copy round, which
    fits the processor's cache, is then twice as fast as turning the view.
    """
    signs = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in block.strides)
    return block[signs].copy(order="K")[signs]
