"""A shard mapped into memory: opened with care, and read ahead by exactly what is wanted."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import resource
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import google_crc32c
import numpy as np
import numpy.typing as npt

from verse_data.errors import ChunkCorrupt, ChunkMissing, StoreCorrupt
from verse_data.records.manifest import REPAIR, StoredArray
from verse_data.volumes.layout import CHECKSUM, INDEX_ENTRY

_JOIN: Final = 64 << 10
"""Bytes between two chunks that are read along rather than asked for apart."""
_FEW_FAULTS: Final = 8
_WATCHFUL: Final = 256
"""Reads for which pages are asked for in advance once some were found to be gone."""
_WHOSE: Final = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


class _Eviction:
    """Notes when the kernel has dropped pages that were in memory once.

    Asking for pages that are there costs 3 % of a read, and not asking for pages that are gone
    makes it six times as long, so it is asked only while memory is known to be short.
    """

    def __init__(self) -> None:
        self.watchful = 0


_eviction = _Eviction()


class _Region:
    """A file's bytes in memory, read-only, for as long as an array of them lives.

    ``mmap.mmap`` keeps a descriptor of the file open until Python 3.13 (its ``trackfd``); at two a
    scan, a training run would have used up the usual 1,024 of a process.
    """

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
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        *[ctypes.c_int] * 3,
        ctypes.c_int64,
    ]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


@dataclass(frozen=True)
class ShardFacts:
    """What a manifest and an array's metadata say of one shard.

    Attributes
    ----------
    path : Path
        The file.
    scan_id : str
        Whose it is, for messages.
    size : int
        Bytes of the file.
    array : StoredArray
        Shape, chunking, checksums.
    fill : int
        Value that no voxel has.
    transposed : bool
        Whether a chunk's bytes lie in x-y-z order (x slowest) rather than z-y-x.
    in_blocks : bool
        Whether a part of a chunk can be decoded without the rest of it.
    """

    path: Path
    scan_id: str
    size: int
    array: StoredArray
    fill: int
    transposed: bool
    in_blocks: bool


class MappedShard:
    """The bytes of one shard file, and its index.

    Parameters
    ----------
    facts : ShardFacts
        Which file, and what it must hold.

    Attributes
    ----------
    content : (size,) uint8 array
        The file's bytes, mapped. No file descriptor stays open behind it.
    address : int
        Where they begin in memory; good while `content` lives.
    index : (grid z, y, x, 2) uint64 array
        Offset and length of each chunk, checked by the CRC-32C that follows it.

    Raises
    ------
    ChunkMissing, ChunkCorrupt, StoreCorrupt
        If the file is absent, a link, of another size, or its index is damaged.
    """

    def __init__(self, facts: ShardFacts) -> None:
        self.path, self._scan_id = facts.path, facts.scan_id
        self.content = self._open(facts.size)
        self.address: int = self.content.ctypes.data
        self.advise(0, facts.size, mmap.MADV_RANDOM)
        self.index = self._read_index(facts.array.grid)
        self.end = facts.size - self.index.nbytes - CHECKSUM

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: an address means nothing, or worse, in another process."""
        message = "cannot pickle an open shard; send the path of its store and open it there"
        raise TypeError(message)

    def missing(self, why: str) -> ChunkMissing:
        """Return the error for bytes of this shard that do not exist."""
        return ChunkMissing(f"Scan {self._scan_id}: {self.path} {why}. {REPAIR}")

    def corrupt(self, why: str) -> ChunkCorrupt:
        """Return the error for bytes of this shard that are not those that were written."""
        return ChunkCorrupt(f"Scan {self._scan_id}: {self.path} {why}. {REPAIR}")

    def will_need(self, entries: list[list[int]]) -> None:
        """Ask the kernel for the chunks of these index entries at once, neighbours together.

        Left to itself it reads around each fault, ten times what a patch needs, or one page at a
        time (docs/benchmarks.md, cold reads).
        """
        begin = end = 0
        for offset, length in sorted(entries):
            if not begin <= offset <= end + _JOIN:
                self.advise(begin, end, mmap.MADV_WILLNEED)
                begin = end = offset
            begin, end = begin or offset, min(offset + length, self.end)
        self.advise(begin, end, mmap.MADV_WILLNEED)

    def advise(self, begin: int, end: int, advice: int) -> None:
        """Tell the kernel how the bytes from `begin` to `end` will be used."""
        page = begin // mmap.PAGESIZE * mmap.PAGESIZE
        if page < end:
            _libc().madvise(self.address + page, end - page, advice)

    def _open(self, expected: int) -> npt.NDArray[np.uint8]:
        try:
            # Not blocking: opening a pipe that nobody writes to would wait for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self.path, flags)
        except (FileNotFoundError, NotADirectoryError):
            why = f"does not exist, although the manifest lists it with {expected:,} bytes"
            raise self.missing(why) from None
        except OSError as error:
            if self.path.is_symlink():
                raise self.corrupt("is a link, which stores never hold") from None
            message = f"{self.path} cannot be read: {error.strerror}. {REPAIR}"
            raise StoreCorrupt(message) from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self.corrupt("is a folder or a special file, which stores never hold")
            found = status.st_size
            if found != expected or not found:
                why = f"has {found:,} bytes where the manifest lists {expected:,}"
                raise self.corrupt(why)
            return np.asarray(_Region(descriptor, expected))
        finally:
            os.close(descriptor)

    def _read_index(self, grid: tuple[int, int, int]) -> npt.NDArray[np.uint64]:
        length = grid[0] * grid[1] * grid[2] * INDEX_ENTRY
        begin = self.content.size - length - CHECKSUM
        if begin < 0:
            raise self.corrupt("is too short for its index")
        self.advise(begin, self.content.size, mmap.MADV_WILLNEED)
        found = google_crc32c.value(self.content[begin : begin + length].tobytes())
        if found != int.from_bytes(self.content[begin + length :].tobytes(), "little"):
            raise self.corrupt("has a damaged index")
        return np.ndarray((*grid, 2), "<u8", self.content, begin)


def pages_may_be_gone() -> bool:
    """Return whether pages should be asked for although they were in memory before."""
    return _eviction.watchful > 0


def faults() -> int:
    """Return how often this thread has waited for the disk for a page."""
    return resource.getrusage(_WHOSE).ru_majflt


def note_faults(since: int) -> None:
    """Be watchful for a while if a read had to wait for the disk more than a few times."""
    if faults() - since > _FEW_FAULTS:
        _eviction.watchful = _WATCHFUL
    elif _eviction.watchful:
        _eviction.watchful -= 1
