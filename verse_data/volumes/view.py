"""A store as an ``xarray.Dataset``: lazy, verified, in any orientation, with world coordinates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from verse_data.spine.geometry import Affine, Array, AxisMap, Box, Shape, check_axcodes
from verse_data.volumes.layout import DTYPE
from verse_data.volumes.reader import ScanReader

_DIM_OF_CODE: Final = {"R": "x", "L": "x", "A": "y", "P": "y", "S": "z", "I": "z"}
# Slant, in mm per voxel, below which a world coordinate depends on one axis alone.
_ALIGNED: Final = 1e-6
Key = tuple[int | slice, ...]
Read = Callable[[Key], Array]
_ABOUT: Final = {
    "image": {"long_name": "CT radiodensity", "units": "HU"},
    "label": {"long_name": "vertebra label"},
}


class _LazyArray(BackendArray):
    """An array whose voxels are read on access by `read`, from a slice or index for each axis."""

    def __init__(self, shape: Shape, dtype: npt.DTypeLike, read: Read) -> None:
        self.shape, self.dtype, self._read = shape, np.dtype(dtype), read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Array:
        support = indexing.IndexingSupport.BASIC
        found: Array = indexing.explicit_indexing_adapter(key, self.shape, support, self._read)
        return found


def _read_voxels(reader: ScanReader, name: str, orientation: str, key: Key) -> Array:
    """Read voxels of an array of a store, in the axes of an orientation."""
    shape, _ = reader.grid(orientation)
    runs = [
        range(n)[part if isinstance(part, slice) else slice(part % n, part % n + 1)]
        for n, part in zip(shape, key, strict=True)
    ]
    image, label = reader.read(
        Box.of((min(run, default=0) for run in runs), (max(run, default=-1) + 1 for run in runs)),
        orientation=orientation,
        image=name == "image",
        label=name == "label",
    )
    steps = (
        slice(None, None, run.step) if isinstance(part, slice) else 0
        for run, part in zip(runs, key, strict=True)
    )
    found: Array = (image if label is None else label)[tuple(steps)]
    return found


def _read_world(row: Array, shape: Shape, key: Key) -> Array:
    """Return the coordinate of voxels along one world axis, from its row of the affine."""
    total = np.asarray(row[3])
    for step, size, part in zip(row, shape, key, strict=False):
        total = np.add.outer(total, step * np.arange(size, dtype=np.float64)[part])
    return total


def open_xarray(
    path: Path, *, orientation: str = "RAS", relabel: Mapping[int, int] | None = None
) -> xr.Dataset:
    """Open the store at `path`; voxels are read and checked on access, with labels by `relabel`.

    ``image`` (int16 HU) and, where there is a mask, ``label`` (uint8) have one dimension per
    anatomical axis, in the order of `orientation`: ``x`` runs right-left, ``y``
    anterior-posterior, ``z`` superior-inferior. Coordinates are ``world_x``, ``world_y``,
    ``world_z`` of each voxel (mm, RAS+), and ``x``, ``y``, ``z`` along a dimension where the world
    coordinate depends on that dimension alone: on all three unless the scan is oblique. The
    attributes ``affine`` and ``centroids`` (label to voxel index) are of this grid, and JSON text.
    """
    codes = check_axcodes(orientation)
    reader = ScanReader(path, relabel=relabel)
    axes = AxisMap.between(reader.affine, codes)
    shape, affine = reader.grid(codes)
    dims = tuple(_DIM_OF_CODE[code] for code in codes)
    points = reader.centroids.items()
    centroids = {label: axes.points(at, reader.shape).tolist() for label, at in points}
    variables = {}
    for name in ("image", "label") if reader.has_label else ("image",):
        lazy = _LazyArray(shape, DTYPE[name], partial(_read_voxels, reader, name, codes))
        variables[name] = (dims, indexing.LazilyIndexedArray(lazy), _ABOUT[name])
    return xr.Dataset(
        variables,
        coords=_coordinates(affine, dims, shape),
        attrs={
            "scan_id": reader.scan_id,
            "fingerprint": reader.fingerprint,
            "orientation": codes,
            "affine": json.dumps(affine.tolist()),
            "labels": reader.labels,
            "centroids": json.dumps(centroids),
            "licence": reader.attributes["licence"],
        },
    )


def _coordinates(affine: Affine, dims: tuple[str, ...], shape: Shape) -> dict[str, Any]:
    coordinates: dict[str, Any] = {}
    for world, dim in enumerate("xyz"):
        read = partial(_read_world, affine[world], shape)
        lazy = indexing.LazilyIndexedArray(_LazyArray(shape, np.float64, read))
        about = {"units": "mm", "long_name": f"{dim} in RAS+ world space"}
        coordinates[f"world_{dim}"] = (dims, lazy, about)
        axis = dims.index(dim)
        others = [row for i, row in enumerate(affine[world, :3]) if i != axis]
        if np.abs(others).max() < _ALIGNED:
            line = affine[world, axis] * np.arange(shape[axis]) + affine[world, 3]
            coordinates[dim] = (dim, line, about)
    return coordinates
