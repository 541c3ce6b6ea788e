"""One array of a store: its chunks looked up, checked, decoded, and put together to boxes."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

from verse_data.errors import IntegrityError
from verse_data.spine.geometry import Shape
from verse_data.volumes import blosc, mapped
from verse_data.volumes.layout import ABSENT, CHECKSUM

_TAIL: Final = struct.Struct("<I")

Fetch = Callable[[int, slice], npt.NDArray[Any]]
"""From a chunk's offset, and the slice along x that is wanted of it, to its voxels in x, y, z."""


class _Span(NamedTuple):
    """A chunk along one axis: its number, where it goes, and which part of it."""

    number: int
    out: slice
    part: slice


class Shard:
    """Reads boxes out of one shard.

    Parameters
    ----------
    facts : mapped.ShardFacts
        Which shard, and what it must hold.
    verify : bool
        Whether each chunk is checked when it is first touched. Off only to measure its cost.

    Raises
    ------
    ChunkMissing, ChunkCorrupt, StoreCorrupt
        If the file is absent, a link, of another size, or its index is damaged.
    """

    def __init__(self, facts: mapped.ShardFacts, *, verify: bool = True) -> None:
        array, grid = facts.array, facts.array.grid
        self._codec, self._fill = array.codec, facts.fill
        self._transposed, self._in_blocks = facts.transposed, facts.in_blocks
        self._chunk = array.chunk
        self._dtype = np.dtype(array.dtype).newbyteorder("<")
        self._chunk_bytes = int(np.prod(array.chunk)) * self._dtype.itemsize
        self._checksums = _unpack(array.crc32c, "<u4", grid)
        self._constants = _unpack(array.constant, self._dtype, grid)
        self._file = mapped.MappedShard(facts)
        self._known = np.full(grid, not verify)

    def gather(self, out: npt.NDArray[Any], start: Shape, stop: Shape, *, held: int | None) -> None:
        """Fill `out` with the voxels from `start` to `stop`, all of which exist.

        Parameters
        ----------
        out : (X, Y, Z) array
            Of the array's type, any strides.
        start, stop : (int, int, int)
            Half-open box in x, y, z.
        held : int or None
            Value that `out` holds everywhere already, so that chunks of it are skipped.

        Raises
        ------
        ChunkMissing, ChunkCorrupt
            If a chunk is not the one that was written.
        """
        before, fill = mapped.faults(), self._fill
        x, y, z = (
            _spans(a, b, c) for a, b, c in zip(start, stop, reversed(self._chunk), strict=True)
        )
        block = tuple(slice(axis[0].number, axis[-1].number + 1) for axis in (z, y, x))
        self._make_ready(block)
        # From here on plain lists: a step of the loop takes a few µs, and NumPy would double it.
        values: list[int] = self._constants[block].ravel().tolist()
        offsets: list[int] = self._file.index[block][..., 0].ravel().tolist()
        fetch = self._fetcher()
        number = 0
        for _, z_out, z_part in z:
            for _, y_out, y_part in y:
                for _, x_out, x_part in x:
                    value = values[number]
                    if value == fill:
                        tile = fetch(offsets[number], x_part)
                        out[x_out, y_out, z_out] = tile[x_part, y_part, z_part]
                    elif value != held:
                        out[x_out, y_out, z_out] = value
                    number += 1
        mapped.note_faults(before)

    def _make_ready(self, block: tuple[slice, ...]) -> None:
        """Check the chunks of `block` that are to be decoded and were not touched before."""
        wanted = self._constants[block] == self._fill
        todo = wanted & ~self._known[block]
        asked = wanted if mapped.pages_may_be_gone() else todo
        if asked.any():
            self._file.will_need(self._file.index[block][asked].tolist())
        if todo.any():
            entries = self._file.index[block][todo].tolist()
            checksums = self._checksums[block][todo].tolist()
            for number, ((offset, length), checksum) in enumerate(
                zip(entries, checksums, strict=True)
            ):
                if not self._is_sound(offset, length, checksum):
                    inside = np.argwhere(todo)[number].tolist()
                    z, y, x = (part.start + n for part, n in zip(block, inside, strict=True))
                    raise self._fault((z, y, x))
            self._known[block] |= todo

    def _fetcher(self) -> Fetch:
        """Return what fetches chunks for one read; what it returns is good until its next call."""
        if self._codec == "none":
            return self._raw
        z, y, x = self._chunk
        room = np.empty((x, y, z) if self._transposed else (z, y, x), self._dtype)
        tile = room if self._transposed else room.transpose(2, 1, 0)
        size, address, target = self._chunk_bytes, self._file.address, int(room.ctypes.data)
        decompress, getitem = blosc.decoder().whole, blosc.decoder().part
        slab, slab_bytes, in_blocks = y * z, size // x, self._in_blocks

        def decoded(offset: int, along_x: slice) -> npt.NDArray[Any]:
            first, count = along_x.start, along_x.stop - along_x.start
            if in_blocks and count < x:
                at = target + first * slab_bytes
                missing = getitem(address + offset, first * slab, count * slab, at)
                missing -= count * slab_bytes
            else:
                missing = decompress(address + offset, target, size, 1) - size
            if missing:
                raise self._file.corrupt(f"has a chunk at byte {offset:,} that does not decode")
            return tile

        return decoded

    def _raw(self, offset: int, _along_x: slice) -> npt.NDArray[Any]:
        z, y, x = self._chunk
        if self._transposed:
            return np.ndarray((x, y, z), self._dtype, self._file.content, offset)
        return np.ndarray((z, y, x), self._dtype, self._file.content, offset).transpose(2, 1, 0)

    def _is_sound(self, offset: int, length: int, checksum: int) -> bool:
        """Hold one chunk against the manifest, before the decoder sees it."""
        content, end = self._file.content, offset + length - CHECKSUM
        return (
            offset < end < self._file.end
            and google_crc32c.value(content[offset:end]) == checksum
            and _TAIL.unpack_from(content.data, end)[0] == checksum
            and self._length_fault(offset, end - offset) is None
        )

    def _length_fault(self, offset: int, length: int) -> str | None:
        if self._codec != "none":
            return blosc.header_fault(self._file.content.data, offset, length, self._chunk_bytes)
        if length != self._chunk_bytes:
            return f"are {length:,} where {self._chunk_bytes:,} are expected"
        return None

    def _fault(self, place: Shape) -> IntegrityError:
        """Say what is wrong with the chunk at `place`, which is not sound."""
        file, where = self._file, f"chunk {place} (z, y, x)"
        offset, length = file.index[place].tolist()
        if offset == length == ABSENT:
            return file.missing(f"lacks {where}: the shard's index has no entry for it")
        end = offset + length - CHECKSUM
        if not offset < end < file.end:
            why = f"lists {where} at bytes {offset:,} to {offset + length:,} of {file.end:,}"
            return file.corrupt(why)
        found = google_crc32c.value(file.content[offset:end])
        (tail,) = _TAIL.unpack_from(file.content.data, end)
        expected = int(self._checksums[place])
        if found == tail == expected:
            why = f"has bytes as {where} that {self._length_fault(offset, end - offset)}"
            return file.corrupt(why)
        why = (
            f"holds something else than was written as {where}: expected CRC-32C "
            f"{expected:08x}, found {found:08x} in {end - offset:,} bytes, stored {tail:08x}"
        )
        return file.corrupt(why)


def _spans(start: int, stop: int, chunk: int) -> list[_Span]:
    spans = []
    for number in range(start // chunk, -(-stop // chunk)):
        base = number * chunk
        low, high = max(start, base), min(stop, base + chunk)
        out, part = slice(low - start, high - start), slice(low - base, high - base)
        spans.append(_Span(number, out, part))
    return spans


def _unpack(text: str, dtype: npt.DTypeLike, grid: Shape) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(grid)
