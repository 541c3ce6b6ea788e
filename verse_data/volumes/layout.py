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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

ArrayName = Literal["image", "label"]
Codec = Literal["lz4", "zstd", "none"]
Extents = tuple[int, int, int]

GROUP_KEY: Final = "zarr.json"
# Inside an array's folder, since zarr-python warns of foreign files in a group's.
MANIFEST_KEY: Final = "image/manifest.json"
DIMENSIONS: Final = ("z", "y", "x")
ATTRIBUTES: Final = "verse_data"
"""Name of this package's block in the attributes of the group."""
LABELS: Final = "labels"
"""Group in which OME-Zarr looks for labels of an image."""
VERTEBRAE: Final = f"{LABELS}/vertebrae"
COARSE: Final = "coarse"
"""Group of the coarser levels of the image."""

DTYPE: Final[dict[str, np.dtype[Any]]] = {"image": np.dtype("<i2"), "label": np.dtype("u1")}
# Sentinels: they occur in no voxel, so reading one means that bytes are missing.
FILL: Final[dict[str, int]] = {"image": -32768, "label": 255}

# Offset and length that Zarr gives a chunk that was not written; no store holds one.
ABSENT: Final = 2**64 - 1
# What Blosc compresses on its own within a chunk of the image: four slices along x, so that a
# reader may decode no more of a chunk than its box touches.
BLOSC_BLOCK: Final = 8192
CHECKSUM: Final = 4
"""Bytes of the CRC-32C (``<u4``) that ends each inner chunk, and the index."""


@dataclass(frozen=True)
class Slab:
    """All inner chunks at one `place` of the chunk grid along `axis` (0 … 2 for z, y, x).

    `voxels`, (z, y, x), are one chunk thick at most along `axis`, and whole along the others.
    """

    axis: int
    place: int
    voxels: npt.NDArray[Any]


def slabs_of(array: npt.NDArray[Any], codec: Codec) -> Iterator[Slab]:
    """Cut a (z, y, x) array that lies in memory into slabs along z."""
    thick = inner_chunk(codec)[0]
    for place, begin in enumerate(range(0, array.shape[0], thick)):
        yield Slab(0, place, array[begin : begin + thick])


def shard_key(path: str) -> str:
    """Return the key of the one shard of the array at `path`."""
    return f"{path}/c/0/0/0"


def metadata_key(path: str) -> str:
    """Return the key of an array's or a group's metadata document."""
    return f"{path}/{GROUP_KEY}"


def coarse_path(name: ArrayName, factor: int) -> str:
    """Return the path of a coarser level."""
    # A group of their own for those of the image: xarray opens all arrays of the store's group as
    # one dataset. Those of the label lie beside it, where ome-zarr-models looks for them.
    return f"{COARSE if name == 'image' else VERTEBRAE}/{factor}"


def inner_chunk(codec: Codec) -> Extents:
    """Return the inner chunk along z, y, x: 32³, or 64³ where nothing is to be decoded."""
    return (64, 64, 64) if codec == "none" else (32, 32, 32)


def chunk_grid(shape: tuple[int, ...], chunk: Extents) -> Extents:
    """Return the number of inner chunks along z, y, x; those at the border are whole."""
    z, y, x = (-(-n // c) for n, c in zip(shape, chunk, strict=True))
    return (z, y, x)


def group_document(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def array_document(
    name: ArrayName, shape: Extents, codec: Codec, attributes: dict[str, Any]
) -> dict[str, Any]:
    """Return the ``zarr.json`` of an array of `shape` (z, y, x)."""
    chunk = inner_chunk(codec)
    shard = [n * c for n, c in zip(chunk_grid(shape, chunk), chunk, strict=True)]
    # Samples are handed out as (x, y, z): turning a chunk round once, when it is written, saves
    # turning a patch at every reading. The checksum comes last, so it is held before decoding.
    transpose = {"name": "transpose", "configuration": {"order": [2, 1, 0]}}
    blosc = {"name": "blosc", "configuration": blosc_settings(name, codec)}
    inner = [transpose, _bytes_codec(DTYPE[name].itemsize), blosc, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": list(chunk),
        "codecs": [part for part in inner if codec != "none" or part is not blosc],
        "index_codecs": [_bytes_codec(8), {"name": "crc32c"}],
        "index_location": "end",
    }
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


def blosc_settings(name: ArrayName, codec: Codec) -> dict[str, Any]:
    """Return the Blosc settings of an array in Zarr v3's words."""
    # Sorting bits is what packs noisy voxels; a mask packs as well without, and decodes in a
    # quarter of the time. Zstandard gets one block a chunk: small ones cost it a tenth.
    return {
        "cname": codec,
        "clevel": 5,
        "shuffle": "bitshuffle" if name == "image" else "noshuffle",
        "typesize": DTYPE[name].itemsize,
        "blocksize": BLOSC_BLOCK if name == "image" and codec == "lz4" else 0,
    }


def _bytes_codec(itemsize: int) -> dict[str, Any]:
    endian = {} if itemsize == 1 else {"configuration": {"endian": "little"}}
    return {"name": "bytes", **endian}
