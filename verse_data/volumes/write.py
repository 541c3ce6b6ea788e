"""Writing one array of a store: its inner chunks into one Zarr v3 shard, in one pass.

zarr-python writes the same shard five times slower, for its machinery per chunk. The bytes are
those of the specification (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/),
and a test reads them back through zarr-python and others.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import google_crc32c
import numpy as np
import numpy.typing as npt

from verse_data.digests import canonical_json
from verse_data.records.manifest import StoredArray, StoredKey
from verse_data.spine.geometry import Box
from verse_data.volumes.blosc import small_blocks
from verse_data.volumes.coarse import Gathering, coarse_shape, coarsened
from verse_data.volumes.encode import Boxes, Encoded, Encoder, Slab
from verse_data.volumes.layout import (
    ABSENT,
    CHECKSUM,
    DTYPE,
    ArrayName,
    Codec,
    Extents,
    array_document,
    chunk_grid,
    empty_index,
    inner_chunk,
    metadata_key,
    shard_key,
)


@dataclass(frozen=True)
class WrittenArray:
    """What the manifest and the group's metadata need of an array that was written."""

    stored: StoredArray
    keys: dict[str, StoredKey]
    boxes: dict[int, Box]
    """Box of each label that occurs, in (x, y, z); empty for an image."""


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
    """Write one array below the store `folder`, and its coarser levels, in one pass.

    Parameters
    ----------
    folder : Path
        The store, in its temporary place.
    name : {"image", "label"}
        Which array; its path too.
    shape : (int, int, int)
        Its voxels along z, y, x.
    slabs : iterable of Slab
        Its voxels, int16 HU or uint8 labels; every place along one axis once, in any order. A slab
        is encoded in a thread of its own while the next one is read: at most two must be held.
    codec : {"lz4", "zstd", "none"}
        Of the inner chunks.
    attributes : dict
        Of the array's metadata document.
    coarse : mapping
        Where each coarser level goes, by factor; all of ``coarse.FACTORS``.
    """
    with ExitStack() as files:

        def begin(target: Target, shape: Extents) -> _OpenArray:
            return files.enter_context(_OpenArray.begun(folder, target, name, shape, codec))

        whole = begin(Target(name, attributes), shape)
        levels = {f: begin(coarse[f], coarse_shape(shape, f)) for f in coarse}
        gathered = {f: Gathering(shape, f, inner_chunk(codec)) for f in coarse}

        def add(slab: Slab) -> None:
            whole.add(slab)
            for factor, part in coarsened(slab.voxels, name).items():
                for made in gathered[factor].add(slab, part):
                    levels[factor].add(made)

        _in_turn(add, slabs)
        keys = whole.finish()
        for level in levels.values():
            keys |= level.finish()
    stored = StoredArray(
        shape=shape,
        chunk=inner_chunk(codec),
        dtype="int16" if name == "image" else "uint8",
        codec=codec,
        shard=shard_key(name),
        crc32c=_base64(whole.writer.checksums),
        constant=_base64(whole.writer.constants),
    )
    return WrittenArray(stored, keys, whole.writer.boxes)


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


class _OpenArray:
    """An array of a store while slabs of it are written, one behind the other."""

    def __init__(self, path: str, document: bytes, encoder: Encoder, writer: _ShardWriter) -> None:
        self._path, self._document, self._encoder = path, document, encoder
        self.writer = writer

    @classmethod
    @contextmanager
    def begun(
        cls, folder: Path, target: Target, name: ArrayName, shape: Extents, codec: Codec
    ) -> Iterator[Self]:
        """Write the metadata document of an array, and open its shard."""
        encoder = Encoder(name, codec)
        document = canonical_json(array_document(name, shape, codec, target.attributes))
        shard = folder / shard_key(target.path)
        shard.parent.mkdir(parents=True)
        (folder / metadata_key(target.path)).write_bytes(document)
        with shard.open("xb", buffering=1 << 20) as stream:
            writer = _ShardWriter(stream, chunk_grid(shape, encoder.chunk), DTYPE[name])
            yield cls(target.path, document, encoder, writer)

    def add(self, slab: Slab) -> None:
        """Encode and write the chunks of a slab."""
        self.writer.add(self._encoder.slab(slab))

    def finish(self) -> dict[str, StoredKey]:
        """Write the index; return size and digest of the files."""
        document = stored_key(self._document)
        return {shard_key(self._path): self.writer.finish(), metadata_key(self._path): document}


def stored_key(content: bytes) -> StoredKey:
    """Return size and digest of a file's content."""
    return StoredKey(size=len(content), sha256=hashlib.sha256(content).hexdigest())


class _ShardWriter:
    """Appends encoded chunks to a shard, and notes each in C order of the chunk grid."""

    def __init__(self, stream: IO[bytes], grid: Extents, dtype: np.dtype[Any]) -> None:
        self._stream, self._grid = stream, grid
        self._digest, self._offset = hashlib.sha256(), 0
        self._index = empty_index(grid)
        self.checksums = np.zeros(grid, "<u4")
        self.constants = np.zeros(grid, dtype)
        self.boxes: dict[int, Box] = {}

    def add(self, chunks: Iterator[tuple[Extents, Encoded, Boxes]]) -> None:
        """Write chunks behind one another, in the order they come in."""
        for place, chunk, boxes in chunks:
            self._write(chunk.content)
            self._write(chunk.checksum.to_bytes(CHECKSUM, "little"))
            size = len(chunk.content) + CHECKSUM
            self._index[place] = (self._offset, size)
            self._offset += size
            self.checksums[place] = chunk.checksum
            self.constants[place] = chunk.constant
            for label, box in boxes:
                self._widen(label, box)

    def finish(self) -> StoredKey:
        """Write the index and return size and digest of the shard."""
        if self._index.max() == ABSENT:
            message = "a chunk of the grid was never given"
            raise ValueError(message)
        index = self._index.tobytes()
        self._write(index + int(google_crc32c.value(index)).to_bytes(CHECKSUM, "little"))
        size = self._offset + len(index) + CHECKSUM
        return StoredKey(size=size, sha256=self._digest.hexdigest())

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self._digest.update(content)

    def _widen(self, label: int, box: Box) -> None:
        """Widen the box of a label by what one chunk holds of it."""
        known = self.boxes.get(label, box)
        x0, y0, z0 = (min(pair) for pair in zip(known.start, box.start, strict=True))
        x1, y1, z1 = (max(pair) for pair in zip(known.stop, box.stop, strict=True))
        self.boxes[label] = Box((x0, y0, z0), (x1, y1, z1))


def _base64(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()
