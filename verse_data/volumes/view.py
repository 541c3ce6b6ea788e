"""A store as an ``xarray.Dataset``: lazy, verified, in any orientation, with world coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from verse_data.spine.geometry import Affine, AxisMap, Box, Shape, check_axcodes
from verse_data.volumes.layout import DTYPE
from verse_data.volumes.reader import ScanReader

_DIM_OF_CODE: Final = {"R": "x", "L": "x", "A": "y", "P": "y", "S": "z", "I": "z"}
_ALIGNED: Final = 1e-6
"""Slant, in mm a voxel, below which a world coordinate belongs to one axis alone."""
_LONG_NAMES: Final = {"image": "CT radiodensity", "label": "vertebra label"}


class _LazyArray(BackendArray):
    """Base of arrays that are read where they are looked at, through plain slices."""

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

    def __init__(self, path: Path, name: Literal["image", "label"], orientation: str) -> None:
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
            values = self._box([int(r.min()) for r in runs], [int(r.max()) + 1 for r in runs])
            if any((np.diff(run) != 1).any() for run in runs):
                values = values[np.ix_(*(run - run.min() for run in runs))]
        return values[tuple(slice(None) if isinstance(part, slice) else 0 for part in key)]

    def _box(self, start: list[int], stop: list[int]) -> npt.NDArray[Any]:
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        is_image = self._name == "image"
        image, label = self._reader.read(
            box, orientation=self._orientation, image=is_image, label=not is_image
        )
        values = image if is_image else label
        assert values is not None  # it was asked for
        return values


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

    Parameters
    ----------
    path : Path
        A published store.
    orientation : str
        Axis codes of the grid to show, such as ``"PIR"``; flips and permutations only.

    Returns
    -------
    xarray.Dataset
        ``image`` (int16 HU) and, where there is a mask, ``label`` (uint8), with one dimension an
        anatomical axis, in the order of `orientation`: ``x`` runs right-left, ``y``
        anterior-posterior, ``z`` superior-inferior.
        Coordinates ``world_x``, ``world_y``, ``world_z`` of each voxel (mm, RAS+, computed where
        looked at), and ``x``, ``y``, ``z`` along a dimension where the world coordinate depends
        on that dimension alone: on all three unless the scan is oblique.
        Attributes: ``affine`` (4, 4) of this grid, ``orientation``, ``labels``, ``centroids``
        (label to voxel index of this grid), ``scan_id``, ``fingerprint``, ``licence``.

    Raises
    ------
    ChunkMissing, ChunkCorrupt, StoreCorrupt
        Here or while voxels are read: bytes of the store are not what its manifest says.
    UsageError
        If `orientation` is not three axis codes.
    """
    codes = check_axcodes(orientation)
    reader = ScanReader(path)
    axes = AxisMap.between(reader.affine, codes)
    shape, affine = reader.grid(codes)
    dims = tuple(_DIM_OF_CODE[code] for code in codes)
    names: list[Literal["image", "label"]] = ["image", "label"] if reader.has_label else ["image"]
    variables = {
        name: (
            dims,
            indexing.LazilyIndexedArray(_StoredVolume(path, name, codes)),
            {"long_name": _LONG_NAMES[name], **({"units": "HU"} if name == "image" else {})},
        )
        for name in names
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
