"""Blosc's own decoder, called at the address of a chunk in a mapped file.

numcodecs' Python function spends 4 µs a chunk on buffer objects, which is a fifth of decoding 32³
voxels. The C library that it carries exports its functions: ``blosc_decompress_ctx`` and
``blosc_getitem`` have no global state, no lock and no thread, so they are safe after a fork and in
threads. Where the library is hidden, as it may be on a platform that links it differently,
numcodecs' functions do the same work.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from numcodecs import blosc

_HEADER: Final = struct.Struct("<4B3I")
"""Version, format version, flags, typesize; bytes decoded, block size, bytes encoded."""
_NEVER_SPLIT, _SPLIT_BY_DEFAULT = 2, 4


@dataclass(frozen=True)
class Decoder:
    """Two ways into a chunk, by address.

    Attributes
    ----------
    whole : callable
        ``whole(source, target, size, 1)`` decodes a chunk of `size` bytes, in one thread.
    part : callable
        ``part(source, first, count, target)`` decodes `count` items from number `first`; of a
        chunk in small blocks, only those that hold them are looked at.

    Both take addresses of memory and return the number of bytes written, or less than 0.
    """

    whole: Callable[[int, int, int, int], int]
    part: Callable[[int, int, int, int], int]


@functools.cache
def decoder() -> Decoder:
    """Return the fastest decoder on this machine."""
    try:
        library = ctypes.CDLL(blosc.__file__)
        decompress, getitem = library.blosc_decompress_ctx, library.blosc_getitem
    except (AttributeError, OSError):
        return Decoder(whole_with_numcodecs, part_with_numcodecs)
    decompress.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    getitem.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    return Decoder(decompress, getitem)


def whole_with_numcodecs(source: int, target: int, size: int, _threads: int) -> int:
    """Do through numcodecs what ``Decoder.whole`` does."""
    try:
        blosc.decompress(_chunk_at(source), _room_at(target, size))
    except (RuntimeError, ValueError):
        return -1
    return size


def part_with_numcodecs(source: int, first: int, count: int, target: int) -> int:
    """Do through numcodecs what ``Decoder.part`` does, by way of the whole chunk."""
    chunk = _chunk_at(source)
    width = _HEADER.unpack_from(chunk)[3]
    try:
        decoded = blosc.decompress(chunk)
    except (RuntimeError, ValueError):
        return -1
    part = decoded[first * width : (first + count) * width]
    ctypes.memmove(target, part, len(part))
    return len(part)


def header_fault(content: memoryview, offset: int, length: int, size: int) -> str | None:
    """Say what is wrong with the header of a chunk, which should decode to `size` bytes.

    The C decoder trusts the lengths in the header; this is asked before it sees a chunk.

    Parameters
    ----------
    content : buffer
        Bytes that the chunk is a part of.
    offset, length : int
        Where it lies in them.
    size : int
        Bytes that it should decode to.
    """
    if length < _HEADER.size:
        return f"are {length}, too few for a Blosc header"
    decoded, _, encoded = _HEADER.unpack_from(content, offset)[-3:]
    if encoded != length or decoded != size:
        return (
            f"declare {encoded:,} bytes that decode to {decoded:,}, "
            f"and {length:,} that decode to {size:,} are expected"
        )
    return None


class _Splitting:
    """Blosc's process-wide rule of splitting a block by the bytes of an item, counted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


_splitting = _Splitting()


@contextmanager
def small_blocks() -> Iterator[None]:
    """Let ``numcodecs.blosc.compress(..., blocksize=...)`` make blocks as small as it is told.

    Blosc splits a block for LZ4 into one stream per byte of an item, and therefore makes blocks of
    at least 64 KiB, a whole chunk. The switch is not in numcodecs' Python functions, and counts
    for the process; what others encode meanwhile is as valid, and a little different in size.
    Without the library at hand blocks stay large, which every reader reads as well.
    """
    try:
        switch = ctypes.CDLL(blosc.__file__).blosc_set_splitmode
    except (AttributeError, OSError):
        yield
        return
    with _splitting.lock:
        _splitting.users += 1
        switch(_NEVER_SPLIT)
    try:
        yield
    finally:
        with _splitting.lock:
            _splitting.users -= 1
            if not _splitting.users:
                switch(_SPLIT_BY_DEFAULT)


def _chunk_at(address: int) -> Any:
    encoded = _HEADER.unpack(ctypes.string_at(address, _HEADER.size))[-1]
    return (ctypes.c_char * encoded).from_address(address)


def _room_at(address: int, size: int) -> Any:
    return (ctypes.c_char * size).from_address(address)
