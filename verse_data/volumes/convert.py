"""Converts one scan into a store: its arrays on the store's grid, resampled at need; its metadata."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.files import canonical_json
from verse_data.progress import Advance, ignore
from verse_data.records.manifest import STORE_FORMAT, StoreManifest
from verse_data.records.source_file import SourceFile
from verse_data.spine.geometry import Array, AxisMap, Box, Grid
from verse_data.spine.levels import LEVEL_OF_LABEL, in_spine_order
from verse_data.volumes.layout import (
    ATTRIBUTES,
    COARSE,
    DTYPE,
    FACTORS,
    GROUP_KEY,
    MANIFEST_KEY,
    VERTEBRAE,
    ArrayName,
    group_document,
    image_metadata,
    inner_chunk,
    label_groups,
    metadata_key,
)
from verse_data.volumes.nifti import Kind, VolumeStream, check_pair
from verse_data.volumes.nifti_guard import MAX_VOXELS, range_doubt
from verse_data.volumes.recipe import RECIPE_VERSION, Recipe, ScanSource, fingerprint
from verse_data.volumes.write import Slab, slabs_of, stored_key, write_array

Interpolation = Literal["linear", "cubic", "nearest"]
Triple = tuple[float, float, float]

_log = logging.getLogger(__name__)
_SAME: Final = 1e-6
"""Relative difference of voxel sizes that is none."""
_MAX_EXTENT: Final = 32767
"""Largest number of voxels along an axis, in NIfTI and in a manifest."""
_NOTICE: Final = (
    "Converted by verse-data from the files whose git-annex keys stand under 'source'; 'recipe' "
    "says what was changed beside format and order of axes. The licence of those files holds for "
    "this store too. Whoever hands it on names their authors: verse-data provenance RELEASE --json "
    "prints attribution and citations of the release."
)
"""The same in every store: correcting an attribution must not change the content of stores."""
_ARRAY_ATTRIBUTES: Final[dict[ArrayName, dict[str, Any]]] = {
    "image": {"unit": "Hounsfield unit", "quantity": "radiodensity"},
    "label": {"levels": {str(label): level for label, level in LEVEL_OF_LABEL.items()}},
}


@dataclass(frozen=True, eq=False)
class Resampling(Grid):
    """A new grid, and its position on the old one, along the same axes; exact in mm.

    Along an axis that gets coarser, the first voxel keeps its position, and every new voxel centre
    lies within the old ones. Along one that gets finer, the new voxels fill the extent of the old
    ones evenly: if the first kept its position there, half of the new voxels of a 2:1 step would lie
    half-way between two old ones, and labels would be shifted to one side. ``scipy.ndimage.zoom``
    and ``torch.interpolate`` are off by a fraction of a voxel that grows along the axis.
    """

    steps: Triple
    """Old voxels per new voxel along each axis."""
    start: Triple
    """Position of the first new voxel, as an index of the old grid."""

    @classmethod
    def plan(cls, old: Grid, spacing: Triple) -> Resampling:
        """Return the resampling of a grid to voxels of `spacing` mm along its axes."""
        steps = np.array(spacing) / np.array(old.spacing)
        steps[np.abs(steps - 1) < _SAME] = 1.0
        voxels, finer = np.array(old.shape), steps < 1
        coarse = np.floor((voxels - 1) / steps + _SAME) + 1
        size = np.where(finer, np.maximum(np.rint(voxels / steps), 1), coarse).astype(int)
        start = np.where(finer, (voxels - 1 - (size - 1) * steps) / 2, 0.0)
        scaled = np.diag([*steps, 1.0])
        scaled[:3, 3] = start
        shape, *along = (tuple(part.tolist()) for part in (size, steps, start))
        return cls(shape, old.affine @ scaled, *along)

    def points(self, points: npt.ArrayLike) -> Array:
        """Map voxel indices, shape (..., 3), from the old grid to the new one."""
        moved: Array = (np.asarray(points, np.float64) - self.start) / self.steps
        return moved

    def apply(self, volume: Array, interpolation: Interpolation) -> Array:
        """Return a volume on the new grid, in its own dtype."""
        # ``nearest`` is for labels, and takes the upper voxel of two at equal distance; the others
        # are for HU, and round to the nearest integer.
        methods = {"nearest": self._nearest, "linear": self._linear, "cubic": self._cubic}
        return methods[interpolation](volume)

    def _neighbours(self, axis: int, old: int) -> tuple[Array, ...]:
        """Return, for new voxels along an axis, the old ones below and above, and the fraction."""
        places = self.start[axis] + np.arange(self.shape[axis]) * self.steps[axis]
        places = np.clip(places, 0, old - 1)
        lower = np.floor(places).astype(np.intp)
        return lower, np.minimum(lower + 1, old - 1), places - lower

    def _nearest(self, volume: Array) -> Array:
        for axis, old in enumerate(volume.shape):
            lower, upper, weight = self._neighbours(axis, old)
            volume = volume.take(np.where(weight < 0.5, lower, upper), axis=axis)
        return volume

    def _linear(self, volume: Array) -> Array:
        """Interpolate one new slice at a time, so that only slices are held as float64."""
        (i, i1, wi), (j, j1, wj), planes = (
            self._neighbours(axis, old) for axis, old in enumerate(volume.shape)
        )
        wi = wi[:, None]
        # Fortran order: slices of constant k are contiguous, as in the file.
        out = np.empty(self.shape, np.int16, order="F")
        for k, (low, high, weight) in enumerate(zip(*planes, strict=True)):
            plane = volume[:, :, low].astype(np.float64)
            if weight:
                plane += weight * (volume[:, :, high] - plane)
            plane = plane[:, j] * (1 - wj) + plane[:, j1] * wj
            plane = plane[i] * (1 - wi) + plane[i1] * wi
            out[:, :, k] = np.rint(plane)
        return out

    def _cubic(self, volume: Array) -> Array:
        from scipy import ndimage

        # float32 halves the memory; it holds every int16 exactly.
        values = ndimage.affine_transform(
            volume.astype(np.float32),
            np.array(self.steps),
            offset=self.start,
            output_shape=self.shape,
            output=np.float32,
            order=3,
            mode="mirror",
        )
        # A spline overshoots at edges; only metal beside air could leave int16.
        return np.clip(np.rint(values), -32767, 32767).astype(np.int16)


@contextmanager
def open_conversion(source: ScanSource, recipe: Recipe) -> Iterator[Conversion]:
    """Open the volumes of a scan and check their headers, so that a mismatched pair fails at once."""
    # Voxels are then read from the same open files: replacing a file meanwhile does no harm.
    parts: tuple[tuple[ArrayName, Kind, str, SourceFile | None], ...] = (
        ("image", "image", "CT", source.image),
        ("label", "mask", "mask", source.mask),
    )
    with ExitStack() as files:
        volumes = {
            array: files.enter_context(
                VolumeStream(
                    file.path,
                    kind=kind,
                    name=f"{what} of scan {source.scan_id} ({file.name})",
                    sha256=file.sha256,
                )
            )
            for array, kind, what, file in parts
            if file
        }
        yield Conversion(source, recipe, volumes)


class Conversion:
    """The conversion of one scan: to RAS by flips, then to the recipe's spacing, onto `grid`."""

    def __init__(
        self, source: ScanSource, recipe: Recipe, volumes: dict[ArrayName, VolumeStream]
    ) -> None:
        self.source, self.recipe, self.volumes = source, recipe, volumes
        self.header = header = volumes["image"].header
        if "label" in volumes:
            check_pair(header, volumes["label"].header, name=f"Scan {source.scan_id}")
        self.axes = AxisMap.between(header.affine, "RAS")
        self.grid = Grid(
            self.axes.shape(header.shape), self.axes.affine(header.affine, header.shape)
        )
        self.resampling: Resampling | None = None
        if recipe.spacing is not None:
            new = Resampling.plan(self.grid, recipe.spacing)
            if new.steps != (1.0, 1.0, 1.0):  # else the scan has these voxels
                voxels = math.prod(new.shape)
                if max(new.shape) > _MAX_EXTENT or voxels > MAX_VOXELS:
                    raise UsageError(
                        f"spacing={recipe.spacing} makes {new.shape} voxels out of {self.grid.shape}, "
                        f"{voxels:,} in all; the limit is {_MAX_EXTENT:,} along an axis and "
                        f"{MAX_VOXELS:,} in all. Give a coarser spacing."
                    )
                self.grid = self.resampling = new

    def bytes_needed(self) -> int:
        """Estimate the size of the store: a compressed one is about as large as its sources."""
        size = math.prod(self.grid.shape) * (3 if self.source.mask else 2)
        if self.recipe.codec != "none" and not self.resampling:
            size = min(size, sum(volume.size for volume in self.volumes.values()))
        return size + sum(size // factor**3 for factor in FACTORS)

    @property
    def nbytes(self) -> int:
        """Size of all voxels of the store, of which `write` tells how many are done."""
        return math.prod(self.grid.shape) * sum(DTYPE[array].itemsize for array in self.volumes)

    def write(self, folder: Path, advance: Advance = ignore) -> None:
        """Write every file of the store into `folder`, the manifest last."""
        shape, codec = self.grid.shape, self.recipe.codec
        written = {
            array: write_array(
                folder,
                array,
                (shape[2], shape[1], shape[0]),
                self._told(array, advance),
                codec=codec,
                affine=self.grid.affine,
                attributes=_ARRAY_ATTRIBUTES[array],
            )
            for array in self.volumes  # the image first
        }
        image = self.volumes["image"]
        if doubt := range_doubt(image.low, image.high):
            _log.warning("%s: %s; it is served as it is", image.name, doubt)
        keys = {key: stored for array in written.values() for key, stored in array.keys.items()}
        documents = {metadata_key(COARSE): group_document({})}
        boxes = None
        if "label" in written:
            boxes = written["label"].boxes
            documents |= label_groups(self.grid.affine)
            keys |= {
                _link(folder, key, f"{VERTEBRAE}/{key}"): stored
                for key, stored in keys.items()
                if key.startswith("label/")
            }
        ome = image_metadata(self.grid.affine, shape, name=self.source.scan_id)
        documents[GROUP_KEY] = group_document({ATTRIBUTES: self._attributes(boxes), "ome": ome})
        for key, document in documents.items():
            content = canonical_json(document)
            (folder / key).write_bytes(content)
            keys[key] = stored_key(content)
        manifest = StoreManifest.seal(
            fingerprint=fingerprint(self.source.keys, self.recipe),
            scan_id=self.source.scan_id,
            arrays={array: parts.stored for array, parts in written.items()},
            keys=dict(sorted(keys.items())),
        )
        (folder / MANIFEST_KEY).write_bytes(manifest.to_bytes())

    def _told(self, array: ArrayName, advance: Advance) -> Iterator[Slab]:
        """Yield the store's slabs, and tell the size of each that was taken."""
        for slab in self._slabs(array):
            yield slab
            advance(slab.voxels.nbytes)

    def _slabs(self, array: ArrayName) -> Iterator[Slab]:
        """Yield the store's slabs of a volume; its checksums are verified before the last one."""
        volume, codec = self.volumes[array], self.recipe.codec
        if not self.resampling:
            yield from self._native(volume, inner_chunk(codec)[0])
            return
        interpolation = self.recipe.interpolation if array == "image" else "nearest"
        voxels = self.resampling.apply(self.axes.apply(volume.read_rest()), interpolation)
        yield from slabs_of(voxels.transpose(2, 1, 0), codec)

    def _native(self, volume: VolumeStream, thick: int) -> Iterator[Slab]:
        """Read slices in the file's order, as many at a time as one row of chunks is thick."""
        # Two buffers alternate: one is encoded while the other is filled.
        i, j, k = volume.header.shape
        target = self.axes.axes.index(2)
        places = list(range(-(-k // thick)))
        if self.axes.flips[target]:
            places.reverse()
        buffers = [np.empty(i * j * min(k, thick), volume.dtype) for _ in range(2)]
        for number, place in enumerate(places):
            count = min(thick, k - place * thick)
            flat = buffers[number % 2][: i * j * count]
            volume.fill(flat)
            if number == len(places) - 1:
                volume.finish()
            slices = self.axes.apply(flat.reshape((i, j, count), order="F"))
            yield Slab(2 - target, place, slices.transpose(2, 1, 0))

    def _points(self) -> dict[str, list[float]]:
        """Return the centroids on the store's grid, or none if they are indices of another one."""
        file = self.source.centroids
        if not file or not file.points or not file.fits(self.header):
            return {}
        moved = self.axes.points([point.point for point in file.points], self.header.shape)
        if self.resampling:
            moved = self.resampling.points(moved)
        labels = [str(point.label) for point in file.points]
        return dict(zip(labels, moved.tolist(), strict=True))

    def _attributes(self, boxes: dict[int, Box] | None) -> dict[str, Any]:
        """Return this package's block of the group's attributes, without any text of the NIfTI."""
        keys, header = self.source.keys, self.header
        # Such as a qform that differs from the sform.
        notes = {
            volume.kind: list(volume.header.notes)
            for volume in self.volumes.values()
            if volume.header.notes
        }
        return {
            "store_format": STORE_FORMAT,
            "scan_id": keys.scan_id,
            "fingerprint": fingerprint(keys, self.recipe),
            "shape": list(self.grid.shape),
            "affine": self.grid.affine.tolist(),
            "labels": None if boxes is None else in_spine_order(boxes),
            "label_boxes": {str(n): [box.start, box.stop] for n, box in (boxes or {}).items()},
            "centroids": self._points(),
            "source": {
                "shape": list(header.shape),
                "affine": header.affine.tolist(),
                "axcodes": header.axcodes,
                "image": keys.image,
                "mask": keys.mask,
                "centroids": keys.centroids,
                **({"notes": notes} if notes else {}),
            },
            "recipe": self.recipe.model_dump(mode="json"),
            "recipe_version": RECIPE_VERSION,
            "licence": keys.licence,
            "notice": _NOTICE,
        }


def _link(folder: Path, key: str, link: str) -> str:
    """Hard-link a file of a store to where OME-Zarr looks for labels; return the link's key."""
    (folder / link).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(folder / key, folder / link)
    except OSError:  # a file system without hard links
        shutil.copyfile(folder / key, folder / link)
    return link
