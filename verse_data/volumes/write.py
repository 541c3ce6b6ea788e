"""Writes one array of a store: its inner chunks into one Zarr v3 shard, and its coarser levels.

zarr-python takes five times as long for the same shard, because of its overhead per chunk. The
bytes follow the specification
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/), and a test reads them
back through zarr-python and others.

A voxel of coarser level f, for viewers that show a whole scan, stands for a block of f³ voxels of
the store, or fewer at the end of the volume. For the CT it is the mean of the block, rounded to the
nearest HU, halves to even; for a label it is the voxel at index ``(f - 1) // 2`` of the block along
each axis, which is nearest to its middle, and has the position of that voxel.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
from numcodecs import blosc
from scipy import ndimage

from verse_data.files import canonical_json
from verse_data.records.manifest import StoredArray, StoredKey
from verse_data.spine.geometry import Affine, Array, Box
from verse_data.volumes.layout import (
    ABSENT,
    CHECKSUM,
    DTYPE,
    FACTORS,
    FILL,
    ArrayName,
    Codec,
    Extents,
    array_document,
    blosc_settings,
    chunk_grid,
    coarse_path,
    inner_chunk,
    level_offset,
    metadata_key,
    shard_key,
)

_NEVER_SPLIT, _SPLIT_BY_DEFAULT = 2, 4
_SHUFFLE: Final = {"noshuffle": blosc.NOSHUFFLE, "bitshuffle": blosc.BITSHUFFLE}


@dataclass(frozen=True)
class Slab:
    """All inner chunks at index `place` of the chunk grid along `axis` (0 … 2 for z, y, x).

    `voxels` (z, y, x) are at most one chunk thick along `axis`, and complete along the others.
    """

    axis: int
    place: int
    voxels: Array


@dataclass(frozen=True)
class WrittenArray:
    """An array's entries for manifest and group metadata; `boxes` of labels are in (x, y, z)."""

    stored: StoredArray
    keys: dict[str, StoredKey]
    boxes: dict[int, Box]


def slabs_of(array: Array, codec: Codec) -> Iterator[Slab]:
    """Cut a (z, y, x) array in memory into slabs along z."""
    thick = inner_chunk(codec)[0]
    for place, begin in enumerate(range(0, array.shape[0], thick)):
        yield Slab(0, place, array[begin : begin + thick])


def write_array(
    folder: Path,
    name: ArrayName,
    shape: Extents,
    slabs: Iterable[Slab],
    *,
    codec: Codec,
    affine: Affine,
    attributes: dict[str, Any],
) -> WrittenArray:
    """Write an array of `shape` (z, y, x) below the store `folder`, and its coarser levels.

    `slabs` are its voxels, each index along one axis once, in any order. One is encoded in a thread
    while the next one is read, so at most two are in memory.
    """
    levels = _Levels(name)
    keys: dict[str, StoredKey] = {}
    with ExitStack() as files:

        def shard(path: str, extents: Extents, described: dict[str, Any]) -> _ShardWriter:
            writer = _ShardWriter(folder, path, name, extents, codec, described)
            files.callback(writer.stream.close)
            return writer

        def add(slab: Slab) -> None:
            whole.add(slab)
            levels.add(slab)

        def finish() -> None:
            keys.update(whole.finish())
            for factor in FACTORS:
                z, y, x = (-(-n // factor) for n in shape)
                placed = {**attributes, "affine": _coarse_affine(affine, name, factor).tolist()}
                level = shard(coarse_path(name, factor), (z, y, x), placed)
                for slab in levels.slabs(factor):
                    level.add(slab)
                keys.update(level.finish())

        whole = shard(name, shape, attributes)
        _in_turn(chain((partial(add, slab) for slab in slabs), [finish]))
    stored = StoredArray(
        shape=shape,
        chunk=inner_chunk(codec),
        dtype="int16" if name == "image" else "uint8",
        codec=codec,
        shard=shard_key(name),
        crc32c=base64.b64encode(whole.checksums.tobytes()).decode(),
        constant=base64.b64encode(whole.constants.tobytes()).decode(),
    )
    return WrittenArray(stored, keys, whole.label_boxes())


def stored_key(content: bytes) -> StoredKey:
    """Return size and digest of a file's content."""
    return StoredKey(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _in_turn(jobs: Iterable[Callable[[], None]]) -> None:
    """Run each job in a thread while the next one is produced."""
    # In a thread, Blosc does not use its global thread pool, which a fork would break.
    with small_blocks(), ThreadPoolExecutor(1) as pool:
        before: Future[None] | None = None
        for job in jobs:
            if before:
                before.result()
            before = pool.submit(job)
        if before:
            before.result()


@dataclass
class _ShardWriter:
    """Encodes chunks of slabs, appends them to a shard, and records offset and checksum."""

    folder: Path
    path: str
    name: ArrayName
    shape: Extents
    codec: Codec
    attributes: dict[str, Any]

    def __post_init__(self) -> None:
        """Write the metadata document, and open the shard."""
        document = array_document(self.name, self.shape, self.codec, self.attributes)
        self._document, shard = canonical_json(document), self.folder / shard_key(self.path)
        shard.parent.mkdir(parents=True)
        (self.folder / metadata_key(self.path)).write_bytes(self._document)
        self.stream = shard.open("xb", buffering=1 << 20)
        self._digest, self._offset = hashlib.sha256(), 0
        self._chunk = inner_chunk(self.codec)
        grid = chunk_grid(self.shape, self._chunk)
        self._index = np.full((*grid, 2), ABSENT, "<u8")
        self.checksums = np.zeros(grid, "<u4")
        self.constants = np.zeros(grid, DTYPE[self.name])
        self._extents: dict[int, tuple[Any, Any]] = {}
        self._uniform: dict[int, tuple[bytes, int]] = {}
        self._turned = np.empty(self._chunk[::-1], DTYPE[self.name])

    def add(self, slab: Slab) -> None:
        """Encode and append the chunks of a slab."""
        # Chunks are cut from bars along the axis that is contiguous in memory: the rows of a single
        # chunk are single cache lines, far apart, and slow to read.
        voxels = slab.voxels
        along = int(np.argmin(np.abs(voxels.strides)))
        grid, thick = chunk_grid(voxels.shape, self._chunk), self._chunk[along]
        for corner in np.ndindex(*grid[:along], 1, *grid[along + 1 :]):
            cut = [slice(p * c, (p + 1) * c) for p, c in zip(corner, self._chunk, strict=True)]
            cut[along] = slice(None)
            bar = _copied(voxels[tuple(cut)])
            empty = _constant(bar) == 0  # true for most bars of a mask; saves a check of each chunk
            place = list(corner)
            place[slab.axis] = slab.place
            for number in range(grid[along]):
                place[along] = slab.place if along == slab.axis else number
                if empty:
                    self._add_constant(0, tuple(place))
                else:
                    part = _along(along, number * thick, (number + 1) * thick)
                    self._add_chunk(_copied(bar[part]), tuple(place))

    def finish(self) -> dict[str, StoredKey]:
        """Write the index; return size and digest of the files by key."""
        if self._index.max() == ABSENT:
            raise ValueError("a chunk of the grid was not written")
        index = self._index.tobytes()
        self._write(index + int(google_crc32c.value(index)).to_bytes(CHECKSUM, "little"))
        return {
            shard_key(self.path): StoredKey(size=self._offset, sha256=self._digest.hexdigest()),
            metadata_key(self.path): stored_key(self._document),
        }

    def label_boxes(self) -> dict[int, Box]:
        """Return the boxes of labels, in (x, y, z)."""
        return {
            label: Box.of(low[::-1], high[::-1]) for label, (low, high) in self._extents.items()
        }

    def _add_chunk(self, block: Array, place: tuple[int, ...]) -> None:
        constant = _constant(block)
        if self.name == "label" and constant != 0:
            self._note_labels(block, place)
        if constant is not None:
            self._add_constant(constant, place)
            return
        if block.shape != self._chunk:
            # Voxels beyond the border are stored as well; the spec leaves their value open.
            self._turned.fill(block[0, 0, 0])
        self._turned[tuple(slice(n) for n in block.shape[::-1])] = block.transpose(2, 1, 0)
        self._append(place, FILL[self.name], *self._encoded())

    def _add_constant(self, value: int, place: tuple[int, ...]) -> None:
        if value not in self._uniform:
            self._turned.fill(value)
            self._uniform[value] = self._encoded()
        self._append(place, value, *self._uniform[value])

    def _append(self, place: tuple[int, ...], constant: int, content: bytes, checksum: int) -> None:
        self._index[place] = self._offset, len(content) + CHECKSUM
        self.checksums[place], self.constants[place] = checksum, constant
        self._write(content)
        self._write(checksum.to_bytes(CHECKSUM, "little"))

    def _encoded(self) -> tuple[bytes, int]:
        settings = blosc_settings(self.name, self.codec)
        if self.codec == "none":
            content = self._turned.tobytes()
        else:
            content = blosc.compress(
                self._turned,
                self.codec.encode(),
                settings["clevel"],
                _SHUFFLE[settings["shuffle"]],
                settings["blocksize"],
            )
        return content, int(google_crc32c.value(content))

    def _write(self, content: bytes) -> None:
        self.stream.write(content)
        self._digest.update(content)
        self._offset += len(content)

    def _note_labels(self, block: Array, place: tuple[int, ...]) -> None:
        """Extend the boxes of labels by their voxels in one chunk."""
        corner = np.multiply(place, self._chunk)
        for label, found in enumerate(ndimage.find_objects(block), start=1):
            if found:
                low, high = (
                    corner + [getattr(part, end) for part in found] for end in ("start", "stop")
                )
                before = self._extents.get(label, (low, high))
                self._extents[label] = np.minimum(before[0], low), np.maximum(before[1], high)


class _Levels:
    """The coarser levels of an array, collected from its slabs."""

    def __init__(self, name: ArrayName) -> None:
        self._coarsened = _nearest if name == "label" else _means
        self._parts: dict[tuple[int, int, int], dict[int, Array]] = defaultdict(dict)

    def add(self, slab: Slab) -> None:
        """Add the blocks of a slab, whose first voxel starts a block."""
        for factor, part in self._coarsened(slab.voxels).items():
            self._parts[factor, slab.axis, slab.place // factor][slab.place] = part

    def slabs(self, factor: int) -> Iterator[Slab]:
        """Yield the slabs of a level, in the order in which those of the array came."""
        for (of, axis, place), parts in self._parts.items():
            if of == factor:
                voxels = np.concatenate([parts[number] for number in sorted(parts)], axis=axis)
                # The order of chunks in the shard depends on the memory layout of the slab.
                yield Slab(axis, place, voxels.copy(order="C"))


def _coarse_affine(affine: Affine, name: ArrayName, factor: int) -> Affine:
    """Return the (4, 4) affine of a level, voxel index (x, y, z) to world mm, RAS+."""
    step = np.diag([*[float(factor)] * 3, 1.0])
    step[:3, 3] = level_offset(name, factor)
    return affine @ step


def _nearest(voxels: Array) -> dict[int, Array]:
    """Return the voxel nearest to the middle of each block, or the last of a truncated one."""
    nearest = {}
    for factor in FACTORS:
        kept = voxels
        for axis, n in enumerate(voxels.shape):
            middles = kept[_along(axis, (factor - 1) // 2, None, factor)]
            if middles.shape[axis] < -(-n // factor):
                last = kept[_along(axis, -1, None)]
                middles = np.concatenate([middles, last], axis=axis)
            kept = middles
        nearest[factor] = kept.copy(order="K")
    return nearest


def _means(voxels: Array) -> dict[int, Array]:
    """Return the rounded mean of each block; each factor doubles the one before."""
    # A few planes at a time, which then stay in the processor's cache.
    along, thick = int(np.argmax(np.abs(voxels.strides))), max(FACTORS)
    means: dict[int, list[Array]] = {factor: [] for factor in FACTORS}
    for start in range(0, voxels.shape[along], thick):
        planes = voxels[_along(along, start, start + thick)]
        sums = planes.astype(np.int32, order="K")
        for factor, parts in means.items():
            # Planes first, then rows: additions along rows are slow, and then have less to add.
            for axis in np.argsort(np.abs(sums.strides))[::-1].tolist():
                sums = _pair_sums(sums, axis)
            # One count for all blocks of an axis, unless the last one is truncated.
            starts = (np.arange(0, n if n % factor else 1, factor) for n in planes.shape)
            counts = (np.minimum(factor, n - s) for n, s in zip(planes.shape, starts, strict=True))
            z, y, x = np.ix_(*(count.astype(np.float32) for count in counts))
            # 64 voxels of int16 add up to less than 2**24, so float32 rounds as exactly as float64.
            parts.append(np.rint(sums.astype(np.float32) / (z * y * x)).astype(np.int16))
    return {factor: np.concatenate(parts, axis=along) for factor, parts in means.items()}


def _pair_sums(values: Array, axis: int) -> Array:
    """Add pairs of neighbours along an axis; the last one of an odd number is kept as it is."""
    even, odd = values[_along(axis, 0, None, 2)], values[_along(axis, 1, None, 2)]
    if even.shape == odd.shape:
        return even + odd
    sums = even.copy(order="K")
    sums[_along(axis, 0, odd.shape[axis])] += odd
    return sums


def _along(axis: int, *part: int | None) -> tuple[slice, ...]:
    """Return the index that takes ``slice(*part)`` along one axis."""
    return (*(slice(None),) * axis, slice(*part))


def _constant(block: Array) -> int | None:
    """Return the value of a block whose voxels are all equal, else None."""
    first = block[0, 0, 0]
    # The first row decides nearly always.
    if bool((block[0, 0] == first).all()) and bool((block == first).all()):
        return int(first)
    return None


def _copied(block: Array) -> Array:
    """Return a contiguous copy of a block, copied in memory order."""
    # Memory order copies whole rows, also of a flipped view; flipping the copy, which fits the
    # processor's cache, is twice as fast as copying the flipped view.
    signs = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in block.strides)
    return block[signs].copy(order="K")[signs]


class _Splitting:
    """Number of threads that need Blosc's process-wide splitting of blocks to be off."""

    lock, users = threading.Lock(), 0


@contextmanager
def small_blocks() -> Iterator[None]:
    """Make ``numcodecs.blosc.compress(..., blocksize=...)`` respect a small block size."""
    # For LZ4, Blosc splits a block into one stream per byte of an item, and therefore makes blocks
    # of at least 64 KiB, a whole chunk. The switch is not in numcodecs' Python functions, and is
    # set for the process; what other threads encode meanwhile is valid too, and a little different
    # in size. If the C library cannot be loaded, blocks stay large, which every reader supports as
    # well.
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
