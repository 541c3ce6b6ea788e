"""One array of a store, mapped into memory: chunks are checked, decoded, and assembled to boxes.

The coarser levels for viewers, which are small, are read whole.

Blosc's C functions are called at the address of a chunk: numcodecs' Python function spends 4 µs per
chunk on buffer objects, a fifth of the time of decoding 32³ voxels. The C library in numcodecs
exports them; ``blosc_decompress_ctx`` and ``blosc_getitem`` have no global state, no lock and no
thread, so they are safe after a fork and in threads.
"""

from __future__ import annotations

import base64
import ctypes
import functools
import math
import mmap
import os
import resource
import struct
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from verse_data.errors import ChunkMissing, ToolMissing
from verse_data.records.manifest import StoreManifest
from verse_data.spine.geometry import Affine, Array, Shape
from verse_data.volumes.layout import (
    ABSENT,
    CHECKSUM,
    DTYPE,
    FILL,
    GROUP_KEY,
    ArrayName,
    coarse_path,
    metadata_key,
    shard_key,
)
from verse_data.volumes.store import fault, load_manifest, open_plain, read_listed, read_metadata

_READABLE: Final = {"transpose", "bytes", "blosc", "crc32c"}
_HEADER: Final = struct.Struct("<4x3I")
"""Header of a Blosc chunk, after four bytes: decoded bytes, block size, encoded bytes."""
_CRC32C: Final = struct.Struct("<I")
_FEW_FAULTS: Final = 8
_PREFETCHED_READS: Final = 256
"""Number of reads that prefetch all their pages after some were found to be evicted."""
_MAX_GAP: Final = 64 << 10
"""Largest gap in bytes between two chunks that are prefetched together."""

Decode = Callable[[int, slice], Array]
"""Returns the voxels (x, y, z) of the chunk at an offset; only a slice along x is needed."""


class Shard:
    """Reads boxes out of the one shard of an array; `verify` is off only to measure its cost."""

    def __init__(
        self, store: Path, manifest: StoreManifest, name: ArrayName, *, verify: bool = True
    ) -> None:
        array, document = manifest.arrays[name], f"{name}/{GROUP_KEY}"
        path = store / array.shard
        chain = read_metadata(store, manifest, document)["codecs"][0]["configuration"]["codecs"]
        settings = {codec["name"]: codec.get("configuration", {}) for codec in chain}
        if not settings.keys() <= _READABLE or settings.get("transpose") != {"order": [2, 1, 0]}:
            raise fault(store / document, f"names codecs that this version does not read: {chain}")
        # Whether a part of a chunk can be decoded without the rest.
        self._in_blocks = settings.get("blosc", {}).get("blocksize", 0) > 0
        self._codec, self._fill, self._chunk = array.codec, FILL[name], array.chunk
        self._dtype = DTYPE[name]
        self._chunk_bytes = math.prod(array.chunk) * self._dtype.itemsize
        self._error = functools.partial(fault, path, scan_id=manifest.scan_id)
        self._checksums = _unpack(array.crc32c, "<u4", array.grid)
        self._constants = _unpack(array.constant, self._dtype, array.grid)
        self._checked = np.full(array.grid, not verify)

        self._content = self._map(path, manifest.keys[array.shard].size)
        size = self._content.size
        self._address, self._end = (
            self._content.ctypes.data,
            size - self._checked.size * 16 - CHECKSUM,
        )
        if self._end < 0:
            raise self._error("is too short for its index")
        self._advise(0, size, mmap.MADV_RANDOM)
        self._advise(self._end, size, mmap.MADV_WILLNEED)
        index = self._content[self._end : -CHECKSUM]
        if google_crc32c.value(index) != self._stored_checksum(size - CHECKSUM):
            raise self._error("has a damaged index")
        # Offset and length of each chunk.
        self._index = np.ndarray((*array.grid, 2), "<u8", index)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: an address is not valid in another process."""
        raise TypeError("cannot pickle an open shard; send the path of its store and open it there")

    def gather(
        self, out: Array, start: list[int], stop: list[int], *, prefilled: int | None
    ) -> None:
        """Fill `out` with the voxels from `start` to `stop` (x, y, z), all of which exist.

        If `out` is already filled with the value `prefilled`, chunks of that value are skipped.
        """
        x, y, z = (
            _spans(a, b, c) for a, b, c in zip(start, stop, reversed(self._chunk), strict=True)
        )
        block = tuple(slice(axis[0][0], axis[-1][0] + 1) for axis in (z, y, x))
        self._make_ready(block)
        # Plain lists: a step of the loop takes a few µs, and NumPy scalars would double it.
        values: list[int] = self._constants[block].ravel().tolist()
        offsets: list[int] = self._index[block][..., 0].ravel().tolist()
        decode, fill = self._decoder(), self._fill
        number = 0
        for _, z_out, z_part in z:
            for _, y_out, y_part in y:
                for _, x_out, x_part in x:
                    value = values[number]
                    if value == fill:
                        tile = decode(offsets[number], x_part)
                        out[x_out, y_out, z_out] = tile[x_part, y_part, z_part]
                    elif value != prefilled:
                        out[x_out, y_out, z_out] = value
                    number += 1

    def _make_ready(self, block: tuple[slice, ...]) -> None:
        """Prefetch the chunks of `block` to be decoded, and check those not checked before."""
        wanted = self._constants[block] == self._fill
        unchecked = wanted & ~self._checked[block]
        entries = self._index[block]
        self._prefetch(entries[wanted if _pages_may_be_evicted() else unchecked].tolist())
        if not unchecked.any():
            return
        places = (np.argwhere(unchecked) + [part.start for part in block]).tolist()
        checksums = self._checksums[block][unchecked].tolist()
        for place, (offset, length), checksum in zip(
            places, entries[unchecked].tolist(), checksums, strict=True
        ):
            if why := self._fault_of(offset, length, checksum):
                kind = ChunkMissing if offset == length == ABSENT else None
                raise self._error(f"at chunk {tuple(place)} (z, y, x): {why}", kind=kind)
        self._checked[block] |= unchecked

    def _fault_of(self, offset: int, length: int, expected: int) -> str:
        """Compare a chunk with the manifest before decoding; return what is wrong, or ``""``."""
        end = offset + length - CHECKSUM
        if not offset < end < self._end:
            return f"the index lists it at {offset:,}, with {length:,} bytes, of {self._end:,}"
        found, stored = google_crc32c.value(self._content[offset:end]), self._stored_checksum(end)
        if not found == stored == expected:
            return (
                f"it is something else than was written there: expected CRC-32C {expected:08x}, "
                f"found {found:08x} in {end - offset:,} bytes, stored {stored:08x}"
            )
        # The C decoder trusts the lengths in the header.
        encoded = declared = end - offset
        decoded = encoded
        if self._codec != "none":
            decoded, _, declared = _HEADER.unpack_from(self._content.data, offset)
        if encoded < _HEADER.size or (decoded, declared) != (self._chunk_bytes, encoded):
            return f"its {encoded:,} bytes declare to be {declared:,} that decode to {decoded:,}"
        return ""

    def _decoder(self) -> Decode:
        """Return the decoder for one read; it returns the same buffer at each call."""
        z, y, x = self._chunk
        content, dtype = self._content, self._dtype
        if self._codec == "none":
            return lambda offset, _: np.ndarray((x, y, z), dtype, content, offset)
        tile = np.empty((x, y, z), dtype)
        size, address, target = self._chunk_bytes, self._address, int(tile.ctypes.data)
        decompress, getitem = _decoders()
        slab, slab_bytes, in_blocks = y * z, size // x, self._in_blocks

        def decode(offset: int, along_x: slice) -> Array:
            first, count = along_x.start, along_x.stop - along_x.start
            if in_blocks and count < x:
                at = target + first * slab_bytes
                missing = getitem(address + offset, first * slab, count * slab, at)
                missing -= count * slab_bytes
            else:
                missing = decompress(address + offset, target, size, 1) - size
            if missing:
                raise self._error(f"has a chunk at byte {offset:,} that does not decode")
            return tile

        return decode

    def _prefetch(self, entries: list[list[int]]) -> None:
        """Ask the kernel to read the chunks of these index entries at once, neighbours together."""
        # By default it reads around each page fault, ten times what a patch needs, or one page at a
        # time (docs/benchmarks.md, cold reads).
        ordered = sorted(entries)
        begin = end = ordered[0][0] if ordered else 0
        for offset, length in ordered:
            if offset > end + _MAX_GAP:
                self._advise(begin, end, mmap.MADV_WILLNEED)
                begin = offset
            end = min(offset + length, self._end)
        self._advise(begin, end, mmap.MADV_WILLNEED)

    def _advise(self, begin: int, end: int, advice: int) -> None:
        """Tell the kernel how the bytes from `begin` to `end` will be used."""
        page = begin // mmap.PAGESIZE * mmap.PAGESIZE
        if page < end:
            _libc().madvise(self._address + page, end - page, advice)

    def _stored_checksum(self, offset: int) -> int:
        (checksum,) = _CRC32C.unpack_from(self._content.data, offset)
        return int(checksum)

    def _map(self, path: Path, expected: int) -> Array:
        descriptor = open_plain(path, self._error.keywords["scan_id"])
        try:
            found = os.fstat(descriptor).st_size
            if found != expected or not found:
                raise self._error(f"has {found:,} bytes where the manifest lists {expected:,}")
            return np.asarray(_Region(descriptor, found))
        finally:
            os.close(descriptor)


class _Eviction:
    """Page faults at the last read, and number of reads that still expect evicted pages."""

    faults, reads = 0, 0


def _pages_may_be_evicted() -> bool:
    """Return whether a read should prefetch pages that were in memory before."""
    # Prefetching pages that are in memory makes a read up to half as long again, not prefetching
    # evicted ones six times as long: so it is done while there were major page faults recently.
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    waited = faults - _Eviction.faults
    _Eviction.reads = _PREFETCHED_READS if waited > _FEW_FAULTS else max(0, _Eviction.reads - 1)
    _Eviction.faults = faults
    return _Eviction.reads > 0


class _Region:
    """A file mapped into memory, read-only, for as long as an array over it exists."""

    # ``mmap.mmap`` keeps a descriptor of the file open until Python 3.13 (its ``trackfd``); with
    # two per scan, a training run would use up the usual 1,024 of a process.
    def __init__(self, descriptor: int, size: int) -> None:
        library = _libc()
        address = library.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address in {None, ctypes.c_void_p(-1).value}:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._unmap = weakref.finalize(self, library.munmap, address, size)
        self._unmap.atexit = False
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, True),
        }


@functools.cache
def _libc() -> Any:
    library, size = ctypes.CDLL(None, use_errno=True), ctypes.c_size_t
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, size, *[ctypes.c_int] * 3, ctypes.c_int64]
    library.munmap.argtypes = [ctypes.c_void_p, size]
    library.madvise.argtypes = [ctypes.c_void_p, size, ctypes.c_int]
    return library


@functools.cache
def _decoders() -> tuple[Any, Any]:
    """Return Blosc's functions for a whole chunk and for a part of it."""
    try:
        library = ctypes.CDLL(blosc.__file__)
        decompress, getitem = library.blosc_decompress_ctx, library.blosc_getitem
    except (AttributeError, OSError):
        raise ToolMissing(
            "This build of numcodecs hides the functions of its Blosc, which decode the cache. "
            "Take its wheel: pip install --force-reinstall --only-binary=:all: numcodecs"
        ) from None
    decompress.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    getitem.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    return decompress, getitem


def _spans(start: int, stop: int, chunk: int) -> list[tuple[int, slice, slice]]:
    """Return the chunks along one axis: number, slice of the output, slice of the chunk."""
    spans = []
    for number in range(start // chunk, -(-stop // chunk)):
        base = number * chunk
        low, high = max(start, base), min(stop, base + chunk)
        spans.append((number, slice(low - start, high - start), slice(low - base, high - base)))
    return spans


def _unpack(text: str, dtype: npt.DTypeLike, grid: Shape) -> Array:
    return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(grid)


def read_level(store: Path, name: ArrayName, factor: int) -> tuple[Array, Affine]:
    """Return a level (x, y, z), compared with its digest, and its affine (voxel to world mm, RAS+)."""
    # Not by zarr-python: opening an array starts a thread, after which a process must not fork.
    manifest, path = load_manifest(store), coarse_path(name, factor)
    document = read_metadata(store, manifest, metadata_key(path))
    content = memoryview(read_listed(store, manifest, shard_key(path), most=None))
    shape = document["shape"]
    chunk = document["codecs"][0]["configuration"]["chunk_shape"]
    grid = [-(-size // edge) for size, edge in zip(shape, chunk, strict=True)]
    index = np.frombuffer(content[-math.prod(grid) * 16 - CHECKSUM : -CHECKSUM], "<u8")
    voxels = np.empty([n * edge for n, edge in zip(grid, chunk, strict=True)][::-1], DTYPE[name])
    for place, (offset, length) in zip(np.ndindex(*grid), index.reshape(-1, 2), strict=True):
        encoded = content[offset : offset + length - CHECKSUM]
        plain = encoded if manifest.arrays[name].codec == "none" else blosc.decompress(encoded)
        # A chunk is stored as (x, y, z), its place in the grid is (z, y, x).
        part = tuple(
            slice(at * edge, (at + 1) * edge) for at, edge in zip(place, chunk, strict=True)
        )
        voxels[part[::-1]] = np.frombuffer(plain, DTYPE[name]).reshape(chunk[::-1])
    z, y, x = shape
    return voxels[:x, :y, :z], np.array(document["attributes"]["affine"], dtype=np.float64)
