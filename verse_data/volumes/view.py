"""A store as an ``xarray.Dataset``: lazy, verified, in any orientation, with world coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from verse_data.spine.geometry import Affine, AxisMap, Box, Shape, check_axcodes
from verse_data.volumes.layout import DTYPE
from verse_data.volumes.reader import ScanReader

_DIM_OF_CODE: Final = {"R": "x", "L": "x", "A": "y", "P": "y", "S": "z", "I": "z"}
# Slant, in mm a voxel, below which a world coordinate belongs to one axis alone.
_ALIGNED: Final = 1e-6
_ABOUT: Final = {
    "image": {"long_name": "CT radiodensity", "units": "HU"},
    "label": {"long_name": "vertebra label"},
}


class _LazyArray(BackendArray):
    """An array that is read where it is looked at, through plain slices."""

    shape: Shape
    dtype: np.dtype[Any]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._at
        )
        return values

    def _at(self, key: tuple[int | slice, ...]) -> npt.NDArray[Any]:
        raise NotImplementedError


class _StoredVolume(_LazyArray):
    """Image or label of a store, in the axes of an orientation; a path, so it may be pickled."""

    def __init__(self, path: Path, name: str, orientation: str) -> None:
        self._reader, self._name, self._orientation = ScanReader(path), name, orientation
        self.shape = self._reader.grid(orientation)[0]
        self.dtype = DTYPE[name]

    def _at(self, key: tuple[int | slice, ...]) -> npt.NDArray[Any]:
        runs = [
            np.atleast_1d(np.arange(size)[part]) for size, part in zip(self.shape, key, strict=True)
        ]
        if not all(run.size for run in runs):
            values = np.empty([run.size for run in runs], self.dtype)
        else:
            (i, i1), (j, j1), (k, k1) = ((int(run.min()), int(run.max()) + 1) for run in runs)
            image, label = self._reader.read(
                Box((i, j, k), (i1, j1, k1)),
                orientation=self._orientation,
                image=self._name == "image",
                label=self._name == "label",
            )
            values = np.asarray(image if label is None else label)
            if any((np.diff(run) != 1).any() for run in runs):
                values = values[np.ix_(*(run - run.min() for run in runs))]
        return values[tuple(slice(None) if isinstance(part, slice) else 0 for part in key)]


class _WorldCoordinate(_LazyArray):
    """World position of every voxel along one world axis, computed where it is looked at."""

    def __init__(self, affine: Affine, axis: int, shape: Shape) -> None:
        self._row, self.shape, self.dtype = affine[axis], shape, np.dtype(np.float64)

    def _at(self, key: tuple[int | slice, ...]) -> npt.NDArray[Any]:
        total = np.asarray(self._row[3])
        for axis, (size, part) in enumerate(zip(self.shape, key, strict=True)):
            total = np.add.outer(total, self._row[axis] * np.arange(size, dtype=np.float64)[part])
        return total


def open_xarray(path: Path, *, orientation: str = "RAS") -> xr.Dataset:
    """Open the store at `path`; voxels are read, and checked, where they are looked at.

    ``image`` (int16 HU) and, where there is a mask, ``label`` (uint8) have one dimension an
    anatomical axis, in the order of `orientation`: ``x`` runs right-left, ``y``
    anterior-posterior, ``z`` superior-inferior. Coordinates are ``world_x``, ``world_y``,
    ``world_z`` of each voxel (mm, RAS+), and ``x``, ``y``, ``z`` along a dimension where the world
    coordinate depends on that dimension alone: on all three unless the scan is oblique. The
    attributes ``affine`` and ``centroids`` (label to voxel index) are of this grid.
    """
    codes = check_axcodes(orientation)
    reader = ScanReader(path)
    axes = AxisMap.between(reader.affine, codes)
    shape, affine = reader.grid(codes)
    dims = tuple(_DIM_OF_CODE[code] for code in codes)
    variables = {
        name: (dims, indexing.LazilyIndexedArray(_StoredVolume(path, name, codes)), about)
        for name, about in _ABOUT.items()
        if name == "image" or reader.has_label
    }
    return xr.Dataset(
        variables,
        coords=_coordinates(affine, dims, shape),
        attrs={
            "scan_id": reader.scan_id,
            "fingerprint": reader.fingerprint,
            "orientation": codes,
            "affine": affine,
            "labels": reader.labels,
            "centroids": {
                label: tuple(axes.points(point, reader.shape).tolist())
                for label, point in reader.centroids.items()
            },
            "licence": reader.attributes["licence"],
        },
    )


def _coordinates(affine: Affine, dims: tuple[str, ...], shape: Shape) -> dict[str, Any]:
    coordinates: dict[str, Any] = {}
    for world, dim in enumerate("xyz"):
        lazy = indexing.LazilyIndexedArray(_WorldCoordinate(affine, world, shape))
        about = {"units": "mm", "long_name": f"{dim} in RAS+ world space"}
        coordinates[f"world_{dim}"] = (dims, lazy, about)
        axis = dims.index(dim)
        others = [row for i, row in enumerate(affine[world, :3]) if i != axis]
        if np.abs(others).max() < _ALIGNED:
            line = affine[world, axis] * np.arange(shape[axis]) + affine[world, 3]
            coordinates[dim] = (dim, line, about)
    return coordinates
