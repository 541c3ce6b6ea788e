"""The coarser levels of a store: a whole scan in few voxels, for viewers."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np
from numcodecs import blosc

from verse_data.errors import ChunkCorrupt
from verse_data.files import storage_errors
from verse_data.records.manifest import StoreManifest
from verse_data.spine.geometry import Affine, Array
from verse_data.volumes.layout import (
    CHECKSUM,
    DTYPE,
    ArrayName,
    coarse_path,
    metadata_key,
    shard_key,
)
from verse_data.volumes.store import fault, load_manifest, open_plain, read_metadata


def read_level(store: Path, name: ArrayName, factor: int) -> tuple[Array, Affine]:
    """Return a level (x, y, z), compared with its digest, and its affine (voxel to world mm, RAS+)."""
    # Not by zarr-python: opening an array starts a thread, after which a process must not fork.
    manifest, path = load_manifest(store), coarse_path(name, factor)
    document = read_metadata(store, manifest, metadata_key(path))
    content = _shard(store, manifest, shard_key(path))
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


def _shard(store: Path, manifest: StoreManifest, key: str) -> memoryview:
    """Read a shard whole; raise ChunkMissing or ChunkCorrupt unless it is the one that was written."""
    path = store / key
    with storage_errors(path), os.fdopen(open_plain(path, manifest.scan_id), "rb") as stream:
        content = stream.read()
    if hashlib.sha256(content).hexdigest() != manifest.keys[key].sha256:
        why = "is not the one that was written: it has not the SHA-256 that the manifest lists"
        raise fault(path, why, scan_id=manifest.scan_id, kind=ChunkCorrupt)
    return memoryview(content)
