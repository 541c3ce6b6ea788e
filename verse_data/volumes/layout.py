"""The on-disk format of a store: names, chunking, codecs and metadata documents.

::

    <stores>/<fingerprint[:2]>/<fingerprint>/
        zarr.json              group: affine, levels, centroids, licence, sources; OME-Zarr 0.5
        image/zarr.json        int16 HU (z, y, x)       image/c/0/0/0    its one shard
        label/zarr.json        uint8 labels (z, y, x)   label/c/0/0/0    its one shard
        coarse/2, coarse/4     the image again, in voxels of 2³ and 4³ of its own; for viewers
        labels/vertebrae/      the label array once more (hard links), where OME-Zarr looks for it,
                               and its coarser levels 2 and 4
        image/manifest.json    size and digest of each file, checksum of each inner chunk

The grid is RAS-canonical: x grows to the right, y anteriorly, z superiorly. Every inner chunk is
written, empty or not, so a chunk that is absent is a fault and never a value.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

ArrayName = Literal["image", "label"]
Codec = Literal["lz4", "zstd", "none"]
Extents = tuple[int, int, int]

GROUP_KEY: Final = "zarr.json"
MANIFEST_KEY: Final = "image/manifest.json"
"""Inside an array's folder, since zarr-python warns of foreign files in a group's."""
DIMENSIONS: Final = ("z", "y", "x")
ATTRIBUTES: Final = "verse_data"
"""Name of this package's block in the attributes of the group."""

DTYPE: Final[dict[str, np.dtype[Any]]] = {"image": np.dtype("<i2"), "label": np.dtype("u1")}
FILL: Final[dict[str, int]] = {"image": -32768, "label": 255}
"""Sentinels: they occur in no voxel, so reading one means that bytes are missing."""

LABELS: Final = "labels"
"""Group in which OME-Zarr looks for labels of an image."""
VERTEBRAE: Final = f"{LABELS}/vertebrae"
COARSE: Final = "coarse"
"""Group of the coarser levels of the image."""

INDEX_ENTRY: Final = 16
"""Bytes of an inner chunk's entry in the shard's index: offset and length, each ``<u8``."""
ABSENT: Final = 2**64 - 1
"""Offset and length that Zarr gives a chunk that was not written; no store holds one."""
BLOSC_BLOCK: Final = 8192
"""Bytes of the image that Blosc compresses on their own within a chunk: four slices along x, so
that a reader may decode no more of a chunk than its box touches."""
CHECKSUM: Final = 4
"""Bytes of the CRC-32C (``<u4``) that ends each inner chunk, and the index."""


def shard_key(path: str) -> str:
    """Return the key of the one shard of the array at `path`."""
    return f"{path}/c/0/0/0"


def metadata_key(name: str) -> str:
    """Return the key of an array's or a group's metadata document."""
    return f"{name}/{GROUP_KEY}"


def inner_chunk(codec: Codec) -> Extents:
    """Return the inner chunk along z, y, x: 32³, or 64³ where nothing is to be decoded."""
    return (64, 64, 64) if codec == "none" else (32, 32, 32)


def chunk_grid(shape: tuple[int, ...], chunk: Extents) -> Extents:
    """Return the number of inner chunks along z, y, x; those at the border are whole."""
    z, y, x = (-(-n // c) for n, c in zip(shape, chunk, strict=True))
    return (z, y, x)


def coarse_path(name: ArrayName, factor: int) -> str:
    """Return the path of a coarser level.

    Those of the image have a group of their own: xarray opens all arrays of the store's group as
    one dataset, and their extents are others. Those of the label lie beside it in its OME-Zarr
    group, where ome-zarr-models looks for them.
    """
    return f"{COARSE if name == 'image' else VERTEBRAE}/{factor}"


def array_document(
    name: ArrayName, shape: Extents, codec: Codec, attributes: dict[str, Any]
) -> dict[str, Any]:
    """Return the ``zarr.json`` of an array of `shape` (z, y, x)."""
    chunk = inner_chunk(codec)
    grid = chunk_grid(shape, chunk)
    sharding = {
        "chunk_shape": list(chunk),
        "codecs": inner_codecs(name, codec),
        "index_codecs": [_bytes_codec(8), {"name": "crc32c"}],
        "index_location": "end",
    }
    shard = [n * c for n, c in zip(grid, chunk, strict=True)]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": DTYPE[name].name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "fill_value": FILL[name],
        "dimension_names": list(DIMENSIONS),
        "attributes": attributes,
        "storage_transformers": [],
    }


def group_document(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def inner_codecs(name: ArrayName, codec: Codec) -> list[dict[str, Any]]:
    """Return the codec chain of an inner chunk.

    It begins with a transposition: samples are handed out as (x, y, z), and turning a chunk round
    once, when it is written, saves turning a patch round at every reading. It ends with CRC-32C,
    so that bytes are checked before they are decoded.
    """
    transpose = {"name": "transpose", "configuration": {"order": [2, 1, 0]}}
    chain = [transpose, _bytes_codec(DTYPE[name].itemsize)]
    if codec != "none":
        chain.append({"name": "blosc", "configuration": blosc_settings(name, codec)})
    return [*chain, {"name": "crc32c"}]


def blosc_settings(name: ArrayName, codec: Codec) -> dict[str, Any]:
    """Return the Blosc settings of an array in Zarr v3's words.

    Sorting bits is what packs noisy voxels, and three quarters of the time to unpack them; a mask
    packs as well without. Zstandard gets one block a chunk, since small ones cost it a tenth.
    """
    return {
        "cname": codec,
        "clevel": 5,
        "shuffle": "bitshuffle" if name == "image" else "noshuffle",
        "typesize": DTYPE[name].itemsize,
        "blocksize": BLOSC_BLOCK if name == "image" and codec == "lz4" else 0,
    }


def _bytes_codec(itemsize: int) -> dict[str, Any]:
    if itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}


def empty_index(grid: Extents) -> npt.NDArray[np.uint64]:
    """Return a shard's index: (offset, length) for each chunk of the grid, none of them set."""
    return np.full((*grid, 2), ABSENT, dtype="<u8")
