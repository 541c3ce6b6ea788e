"""Writing one array of a store: its inner chunks into one Zarr v3 shard, in one pass.

zarr-python writes the same shard five times slower, for its machinery per chunk. The bytes are
those of the specification (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/),
and a test reads them back through zarr-python and others.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc
from scipy import ndimage

from verse_data.files import canonical_json
from verse_data.records.manifest import StoredArray, StoredKey
from verse_data.spine.geometry import Box
from verse_data.volumes.coarse import Gathering, coarse_shape, coarsened
from verse_data.volumes.layout import (
    ABSENT,
    CHECKSUM,
    DTYPE,
    FILL,
    ArrayName,
    Codec,
    Extents,
    Slab,
    array_document,
    blosc_settings,
    chunk_grid,
    inner_chunk,
    metadata_key,
    shard_key,
)

_NEVER_SPLIT, _SPLIT_BY_DEFAULT = 2, 4
_SHUFFLE: Final = {"noshuffle": blosc.NOSHUFFLE, "bitshuffle": blosc.BITSHUFFLE}


@dataclass(frozen=True)
class WrittenArray:
    """What the manifest and the group's metadata need of an array; `boxes` of labels in (x, y, z)."""

    stored: StoredArray
    keys: dict[str, StoredKey]
    boxes: dict[int, Box]


@dataclass(frozen=True)
class Target:
    """Where an array goes in a store, and the attributes of its metadata document."""

    path: str
    attributes: dict[str, Any]


def write_array(
    folder: Path,
    name: ArrayName,
    shape: Extents,
    slabs: Iterable[Slab],
    *,
    codec: Codec,
    attributes: dict[str, Any],
    coarse: Mapping[int, Target],
) -> WrittenArray:
    """Write an array of `shape` (z, y, x) below the store `folder`, and its coarser levels.

    `slabs` are its voxels, every place along one axis once, in any order. One is encoded in a
    thread of its own while the next one is read: at most two must be held.
    """
    with ExitStack() as files:

        def begin(target: Target, shape: Extents) -> _ArrayWriter:
            writer = _ArrayWriter(folder, target, name, shape, codec)
            files.callback(writer.stream.close)
            return writer

        whole = begin(Target(name, attributes), shape)
        levels = {f: begin(target, coarse_shape(shape, f)) for f, target in coarse.items()}
        gathered = {f: Gathering(shape, f, inner_chunk(codec)) for f in coarse}

        def add(slab: Slab) -> None:
            whole.add(slab)
            for factor, part in coarsened(slab.voxels, name).items():
                for made in gathered[factor].add(slab, part):
                    levels[factor].add(made)

        _in_turn(add, slabs)
        keys = {k: key for writer in (whole, *levels.values()) for k, key in writer.finish()}
    stored = StoredArray(
        shape=shape,
        chunk=inner_chunk(codec),
        dtype="int16" if name == "image" else "uint8",
        codec=codec,
        shard=shard_key(name),
        crc32c=base64.b64encode(whole.checksums.tobytes()).decode(),
        constant=base64.b64encode(whole.constants.tobytes()).decode(),
    )
    return WrittenArray(stored, keys, whole.boxes)


def stored_key(content: bytes) -> StoredKey:
    """Return size and digest of a file's content."""
    return StoredKey(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _in_turn(add: Callable[[Slab], None], slabs: Iterable[Slab]) -> None:
    """Add each slab in a thread of its own while the next one is read."""
    # A thread also keeps Blosc off its global pool of threads, which a fork would break.
    with small_blocks(), ThreadPoolExecutor(1) as pool:
        before = None
        for slab in slabs:
            if before is not None:
                before.result()
            before = pool.submit(add, slab)
        if before is not None:
            before.result()


class _ArrayWriter:
    """Encodes the chunks of slabs, appends them to a shard, and notes each in C order of the grid."""

    def __init__(
        self, folder: Path, target: Target, name: ArrayName, shape: Extents, codec: Codec
    ) -> None:
        self._name, self._path, self._chunk = name, target.path, inner_chunk(codec)
        self._settings = None if codec == "none" else blosc_settings(name, codec)
        self._document = canonical_json(array_document(name, shape, codec, target.attributes))
        shard = folder / shard_key(target.path)
        shard.parent.mkdir(parents=True)
        (folder / metadata_key(target.path)).write_bytes(self._document)
        self.stream = shard.open("xb", buffering=1 << 20)
        self._digest, self._offset = hashlib.sha256(), 0
        grid = chunk_grid(shape, self._chunk)
        self._index = np.full((*grid, 2), ABSENT, "<u8")
        self.checksums = np.zeros(grid, "<u4")
        self.constants = np.zeros(grid, DTYPE[name])
        self.boxes: dict[int, Box] = {}
        self._uniform: dict[int, tuple[bytes, int]] = {}
        self._turned = np.empty(self._chunk[::-1], DTYPE[name])

    def add(self, slab: Slab) -> None:
        """Encode and append the chunks of a slab.

        Chunks are cut out of bars that run along the axis on which neighbours lie side by side in
        memory: a chunk's own rows are single cache lines, far apart, and slow to fetch.
        """
        voxels = slab.voxels
        along = int(np.argmin(np.abs(voxels.strides)))
        grid, thick = chunk_grid(voxels.shape, self._chunk), self._chunk[along]
        for corner in np.ndindex(*grid[:along], 1, *grid[along + 1 :]):
            cut = [slice(p * c, (p + 1) * c) for p, c in zip(corner, self._chunk, strict=True)]
            cut[along] = slice(None)
            bar = _copied(voxels[tuple(cut)])
            empty = _constant(bar) == 0  # most bars of a mask: no need to look at each chunk
            place, part = list(corner), [slice(None)] * 3
            for number in range(grid[along]):
                place[along], part[along] = number, slice(number * thick, (number + 1) * thick)
                place[slab.axis] = slab.place
                if empty:
                    self._append((place[0], place[1], place[2]), 0)
                else:
                    self._add_chunk(_copied(bar[tuple(part)]), (place[0], place[1], place[2]))

    def finish(self) -> Iterator[tuple[str, StoredKey]]:
        """Write the index; yield key, size and digest of the files."""
        if self._index.max() == ABSENT:
            raise ValueError("a chunk of the grid was never given")
        index = self._index.tobytes()
        self._write(index + int(google_crc32c.value(index)).to_bytes(CHECKSUM, "little"))
        shard = StoredKey(size=self._offset, sha256=self._digest.hexdigest())
        yield shard_key(self._path), shard
        yield metadata_key(self._path), stored_key(self._document)

    def _add_chunk(self, block: npt.NDArray[Any], place: Extents) -> None:
        constant = _constant(block)
        if self._name == "label" and constant != 0:
            self._widen_boxes(block, place)
        if constant is None:
            if block.shape != self._chunk:
                # What lies beyond the border is stored as well; the spec leaves its value open.
                self._turned.fill(block[0, 0, 0])
            self._turned[tuple(slice(n) for n in block.shape[::-1])] = block.transpose(2, 1, 0)
        self._append(place, constant)

    def _append(self, place: Extents, constant: int | None) -> None:
        """Write the chunk that was turned to (x, y, z), or the one that is `constant`."""
        if constant is None:
            content, checksum = self._encoded()
        else:
            if constant not in self._uniform:
                self._turned.fill(constant)
                self._uniform[constant] = self._encoded()
            content, checksum = self._uniform[constant]
        self._index[place] = self._offset, len(content) + CHECKSUM
        self.checksums[place] = checksum
        self.constants[place] = FILL[self._name] if constant is None else constant
        self._write(content)
        self._write(checksum.to_bytes(CHECKSUM, "little"))

    def _encoded(self) -> tuple[bytes, int]:
        if (how := self._settings) is None:
            content = self._turned.tobytes()
        else:
            content = blosc.compress(
                self._turned,
                how["cname"].encode(),
                how["clevel"],
                shuffle=_SHUFFLE[how["shuffle"]],
                blocksize=how["blocksize"],
            )
        return content, int(google_crc32c.value(content))

    def _write(self, content: bytes) -> None:
        self.stream.write(content)
        self._digest.update(content)
        self._offset += len(content)

    def _widen_boxes(self, block: npt.NDArray[Any], place: Extents) -> None:
        """Widen the boxes of labels, in (x, y, z), by what one chunk holds of them."""
        begin = [p * c for p, c in zip(place, self._chunk, strict=True)]
        for label, found in enumerate(ndimage.find_objects(block), start=1):
            if not found:
                continue
            inside = [(a + f.start, a + f.stop) for a, f in zip(begin, found, strict=True)]
            if known := self.boxes.get(label):
                pairs = zip(known.start[::-1], known.stop[::-1], inside, strict=True)
                inside = [(min(a, low), max(b, high)) for a, b, (low, high) in pairs]
            (z0, z1), (y0, y1), (x0, x1) = inside
            self.boxes[label] = Box((x0, y0, z0), (x1, y1, z1))


def _constant(block: npt.NDArray[Any]) -> int | None:
    """Return the one value that fills a block, if it is one."""
    first = block[0, 0, 0]
    # A first row settles it nearly always.
    if bool((block[0, 0] == first).all()) and bool((block == first).all()):
        return int(first)
    return None


def _copied(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy a block into one piece of memory, read in the order in which it lies."""
    # Whole rows are copied that way, also where the view is flipped; turning the copy round, which
    # fits the processor's cache, is then twice as fast as turning the view.
    signs = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in block.strides)
    return block[signs].copy(order="K")[signs]


class _Splitting:
    """How many threads want Blosc's process-wide rule of splitting blocks to be off."""

    lock, users = threading.Lock(), 0


@contextmanager
def small_blocks() -> Iterator[None]:
    """Let ``numcodecs.blosc.compress(..., blocksize=...)`` make blocks as small as it is told.

    Blosc splits a block for LZ4 into one stream per byte of an item, and therefore makes blocks of
    at least 64 KiB, a whole chunk. The switch is not in numcodecs' Python functions, and counts
    for the process; what others encode meanwhile is as valid, and a little different in size.
    Where the C library is hidden blocks stay large, which every reader reads as well.
    """
    try:
        switch = ctypes.CDLL(blosc.__file__).blosc_set_splitmode
    except (AttributeError, OSError):
        yield
        return
    with _Splitting.lock:
        _Splitting.users += 1
        switch(_NEVER_SPLIT)
    try:
        yield
    finally:
        with _Splitting.lock:
            _Splitting.users -= 1
            if not _Splitting.users:
                switch(_SPLIT_BY_DEFAULT)
