"""The on-disk format of a store: names, chunking, codecs and metadata documents.

::

    <stores>/<fingerprint[:2]>/<fingerprint>/
        zarr.json              group: affine, levels, centroids, licence, sources; OME-Zarr 0.5
        image/zarr.json        int16 HU (z, y, x)       image/c/0/0/0    its one shard
        label/zarr.json        uint8 labels (z, y, x)   label/c/0/0/0    its one shard
        coarse/2, coarse/4     the image at 1/2 and 1/4 of its resolution, for viewers
        labels/vertebrae/      the label array again (hard links), where OME-Zarr looks for it,
                               and its coarser levels 2 and 4
        image/manifest.json    size and digest of each file, checksum of each inner chunk

The grid is RAS-canonical: x grows to the right, y anteriorly, z superiorly. Every inner chunk is
written, empty or not, so a missing chunk is an error and never stands for the fill value.

OME-Zarr 0.5 metadata (https://ngff.openmicroscopy.org/0.5/) lets napari, NiiVue and others open a
store as an image with labels.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from typing import Any, Final, Literal

import numpy as np

from verse_data.spine.geometry import Affine, Shape, voxel_sizes
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.spine.windows import WINDOWS

ArrayName = Literal["image", "label"]
Codec = Literal["lz4", "zstd", "none"]
Extents = tuple[int, int, int]

GROUP_KEY: Final = "zarr.json"
# Inside an array's folder, since zarr-python warns about unknown files in that of a group.
MANIFEST_KEY: Final = "image/manifest.json"
DIMENSIONS: Final = ("z", "y", "x")
ATTRIBUTES: Final = "verse_data"
"""Name of this package's block in the attributes of the group."""
VERTEBRAE: Final = "labels/vertebrae"
"""Group of the label array below ``labels``, where OME-Zarr looks for it."""
COARSE: Final = "coarse"
"""Group of the coarser levels of the image."""

DTYPE: Final[dict[str, np.dtype[Any]]] = {"image": np.dtype("<i2"), "label": np.dtype("u1")}
# Sentinels: no voxel has these values, so reading one means that bytes are missing.
FILL: Final[dict[str, int]] = {"image": -32768, "label": 255}

# Offset and length of a chunk that was not written, in Zarr's shard index; never in our stores.
ABSENT: Final = 2**64 - 1
# Bytes that Blosc compresses separately within a chunk of the image: four slices along x, so that
# a reader can decode only the part of a chunk that its box touches.
BLOSC_BLOCK: Final = 8192
CHECKSUM: Final = 4
"""Bytes of the CRC-32C (``<u4``) that ends each inner chunk, and the index."""
FACTORS: Final = (2, 4)
"""Downsampling factor of each coarser level; they divide a chunk."""
_OME_VERSION: Final = {"version": "0.5"}
_BONE, _FULL = WINDOWS["bone"], WINDOWS["full"]
_CHANNEL: Final = {
    "label": "CT, HU",
    "color": "FFFFFF",
    "active": True,
    "coefficient": 1,
    "family": "linear",
    "inverted": False,
    # The initial window of a viewer, and its limits.
    "window": {"min": _FULL[0], "start": _BONE[0], "end": _BONE[1], "max": _FULL[1]},
}


def shard_key(path: str) -> str:
    """Return the key of the one shard of the array at `path`."""
    return f"{path}/c/0/0/0"


def metadata_key(path: str) -> str:
    """Return the key of an array's or a group's metadata document."""
    return f"{path}/{GROUP_KEY}"


def coarse_path(name: ArrayName, factor: int) -> str:
    """Return the path of a coarser level."""
    # Those of the image have a group of their own, as xarray opens all arrays of the store's group
    # as one dataset. Those of the label are beside it, where ome-zarr-models looks for them.
    return f"{COARSE if name == 'image' else VERTEBRAE}/{factor}"


def inner_chunk(codec: Codec) -> Extents:
    """Return the shape of an inner chunk (z, y, x): 32³, or 64³ if chunks are not compressed."""
    return (64, 64, 64) if codec == "none" else (32, 32, 32)


def chunk_grid(shape: tuple[int, ...], chunk: Extents) -> Extents:
    """Return the number of inner chunks along z, y, x; the last of an axis may exceed the shape."""
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
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    crc32c = {"name": "crc32c"}
    inner: list[dict[str, Any]] = [
        # Samples are returned as (x, y, z): transposing a chunk once, when it is written, saves it
        # at every read. The checksum comes last, so it is verified before decoding.
        {"name": "transpose", "configuration": {"order": [2, 1, 0]}},
        {"name": "bytes"} if name == "label" else little,
    ]
    if codec != "none":
        inner.append({"name": "blosc", "configuration": blosc_settings(name, codec)})
    sharding = {
        "chunk_shape": list(chunk),
        "codecs": [*inner, crc32c],
        "index_codecs": [little, crc32c],
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
    """Return the Blosc settings of an array as Zarr v3 writes them."""
    # Noisy voxels compress well only with bitshuffle; a mask compresses as well without, and
    # decodes in a quarter of the time. Zstandard gets one block per chunk: small ones slow it down.
    return {
        "cname": codec,
        "clevel": 5,
        "shuffle": "bitshuffle" if name == "image" else "noshuffle",
        "typesize": DTYPE[name].itemsize,
        "blocksize": BLOSC_BLOCK if name == "image" and codec == "lz4" else 0,
    }


def image_metadata(affine: Affine, shape: Shape, *, name: str) -> dict[str, Any]:
    """Return the ``ome`` attribute of the group of a store of `shape` (x, y, z): image and window."""
    first_shown = {"defaultT": 0, "defaultZ": shape[2] // 2, "model": "greyscale"}
    omero = {"name": name, **_OME_VERSION, "channels": [_CHANNEL], "rdefs": first_shown}
    return {**_OME_VERSION, "multiscales": [_multiscale(affine, "image", name)], "omero": omero}


def label_groups(affine: Affine) -> dict[str, dict[str, Any]]:
    """Return the documents of the groups in which OME-Zarr looks for labels, by key."""
    label = {
        **_OME_VERSION,
        "multiscales": [_multiscale(affine, "label", "vertebrae")],
        "image-label": {
            "colors": [
                {"label-value": value, "rgba": [*_colour(place), 255]}
                for place, value in enumerate(LEVEL_OF_LABEL)
            ],
            "properties": [
                {"label-value": value, "level": level} for value, level in LEVEL_OF_LABEL.items()
            ],
            "source": {"image": "../../"},
        },
    }
    listing = {**_OME_VERSION, "labels": ["vertebrae"]}
    return {
        metadata_key("labels"): group_document({"ome": listing}),
        metadata_key(VERTEBRAE): group_document({"ome": label}),
    }


def level_offset(name: ArrayName, factor: int) -> float:
    """Return the position of a level's first voxel along each axis, in voxels of the store."""
    return (factor - 1) / 2 if name == "image" else float((factor - 1) // 2)


def _multiscale(affine: Affine, array: ArrayName, name: str) -> dict[str, Any]:
    """Return the ``multiscales`` entry of an array and its coarser levels."""
    # OME-Zarr 0.5 has scale and translation, but no rotation: an oblique scan has its true voxel
    # size and origin here, and its affine in this package's own attributes and those of levels.
    sizes, origin = np.array(voxel_sizes(affine))[::-1], affine[2::-1, 3]
    datasets = []
    for factor in (1, *FACTORS):
        path: str = array if factor == 1 else coarse_path(array, factor)
        at = origin + level_offset(array, factor) * sizes
        transformations = [
            {"type": "scale", "scale": (sizes * factor).tolist()},
            {"type": "translation", "translation": at.tolist()},
        ]
        path = path.removeprefix(f"{VERTEBRAE}/")
        datasets.append({"path": path, "coordinateTransformations": transformations})
    return {
        "name": name,
        "axes": [{"name": axis, "type": "space", "unit": "millimeter"} for axis in DIMENSIONS],
        "datasets": datasets,
        "type": "mean" if array == "image" else "nearest",
    }


def _colour(place: int) -> tuple[int, ...]:
    """Return a colour in which neighbouring vertebrae differ: a third of the circle apart."""
    return tuple(round(part * 255) for part in hsv_to_rgb((place * 0.381966) % 1.0, 0.75, 0.95))
