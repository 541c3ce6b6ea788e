"""Stores written by zarr-python, independently of this package's own writer, for the reader."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    ShardingCodec,
    TransposeCodec,
)

from verse_data.records.manifest import StoredArray, StoredKey, StoreManifest
from verse_data.volumes import layout

Codec = Literal["lz4", "zstd", "none"]
FINGERPRINT = "ab" * 32
TILTED = np.array([[0.9, 0.1, 0, -80], [-0.1, 0.9, 0, 40], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])


def write_store(
    parent: Path,
    image: npt.NDArray[np.int16],
    label: npt.NDArray[np.uint8] | None,
    *,
    codec: Codec = "lz4",
    fingerprint: str = FINGERPRINT,
    affine: npt.NDArray[Any] = TILTED,
) -> Path:
    """Write `image` and `label`, given in x-y-z order, and return the store's folder."""
    store = parent / fingerprint
    group = zarr.create_group(store, zarr_format=3)
    group.attrs[layout.ATTRIBUTES] = {
        "affine": affine.tolist(),
        "labels": [] if label is None else [int(n) for n in np.unique(label) if n],
        "label_boxes": {},
        "centroids": {"20": [1.0, 2.0, 3.5]},
    }
    volumes = {"image": image} | ({} if label is None else {"label": label})
    arrays: dict[Any, StoredArray] = {}
    for name, volume in volumes.items():
        chunk = layout.inner_chunk(codec)
        data = volume.transpose(2, 1, 0)
        _write_array(store, name, data, codec)
        arrays[name] = _describe(store, name, data, codec, chunk)
    keys = {
        path.relative_to(store).as_posix(): StoredKey(
            size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }
    manifest = StoreManifest.seal(
        fingerprint=fingerprint, scan_id="verse999", arrays=arrays, keys=keys
    )
    (store / layout.MANIFEST_KEY).write_bytes(manifest.to_bytes())
    return store


def _write_array(store: Path, name: str, data: npt.NDArray[Any], codec: Codec) -> None:
    chunk = layout.inner_chunk(codec)
    shard = tuple(-(-n // c) * c for n, c in zip(data.shape, chunk, strict=True))
    chain: list[Any] = [TransposeCodec(order=(2, 1, 0)), BytesCodec()]
    if codec != "none":
        chain.append(
            BloscCodec(cname=codec, clevel=5, shuffle="bitshuffle", typesize=data.itemsize)
        )
    array = zarr.create_array(
        store / name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=shard,
        serializer=ShardingCodec(
            chunk_shape=chunk, codecs=[*chain, Crc32cCodec()], index_location="end"
        ),
        compressors=None,
        filters=None,
        fill_value=layout.FILL[name],
        dimension_names=layout.DIMENSIONS,
        config={"write_empty_chunks": True},
        zarr_format=3,
    )
    array[...] = data


def _describe(
    store: Path, name: str, data: npt.NDArray[Any], codec: Codec, chunk: tuple[int, int, int]
) -> StoredArray:
    """Work out the manifest's entry of an array from the shard that lies on the disk."""
    content = (store / layout.shard_key(name)).read_bytes()  # type: ignore[arg-type]
    grid = layout.chunk_grid(data.shape, chunk)
    count = int(np.prod(grid))
    index = np.frombuffer(content[-count * 16 - 4 : -4], "<u8").reshape(count, 2)
    checksums = [google_crc32c.value(content[a : a + n - 4]) for a, n in index.tolist()]
    padded = np.full(
        [g * c for g, c in zip(grid, chunk, strict=True)], layout.FILL[name], data.dtype
    )
    padded[tuple(slice(n) for n in data.shape)] = data
    constants = np.full(grid, layout.FILL[name], data.dtype)
    for place in np.ndindex(*grid):
        tile = padded[tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunk, strict=True))]
        if tile.min() == tile.max():
            constants[place] = tile.flat[0]
    return StoredArray(
        shape=data.shape,
        chunk=chunk,
        dtype=str(data.dtype),  # type: ignore[arg-type]
        codec=codec,
        shard=layout.shard_key(name),  # type: ignore[arg-type]
        crc32c=base64.b64encode(np.array(checksums, "<u4").tobytes()).decode(),
        constant=base64.b64encode(constants.tobytes()).decode(),
    )


def reseal(store: Path) -> None:
    """Rewrite the manifest of a store whose zarr.json was changed on purpose."""
    path = store / layout.MANIFEST_KEY
    document = json.loads(path.read_bytes())
    for key in document["keys"]:
        content = (store / key).read_bytes()
        document["keys"][key] = {
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    manifest = StoreManifest.model_validate_json(json.dumps(document))
    sealed = manifest.model_copy(update={"root": manifest.expected_root()})
    path.write_bytes(sealed.to_bytes())
