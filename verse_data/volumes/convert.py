"""Converting one scan: onto the store's grid, array by array, with its metadata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from verse_data.errors import SourceChanged, UsageError
from verse_data.files import canonical_json
from verse_data.records.manifest import STORE_FORMAT, StoredKey, StoreManifest
from verse_data.records.source_file import SourceFile
from verse_data.spine.geometry import AxisMap, Box, Grid
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.volumes.coarse import FACTORS, coarse_affine
from verse_data.volumes.layout import (
    ATTRIBUTES,
    COARSE,
    GROUP_KEY,
    MANIFEST_KEY,
    ArrayName,
    Slab,
    coarse_path,
    group_document,
    inner_chunk,
    metadata_key,
    slabs_of,
)
from verse_data.volumes.nifti import ImageHeader, Kind, VolumeStream, check_pair, read_header
from verse_data.volumes.nifti_guard import MAX_VOXELS
from verse_data.volumes.ome import image_metadata, write_labels
from verse_data.volumes.recipe import RECIPE_VERSION, Recipe, ScanSource
from verse_data.volumes.resample import Resampling
from verse_data.volumes.write import Target, WrittenArray, stored_key, write_array

_MAX_EXTENT: Final = 32767
"""Voxels along an axis, of NIfTI and of a manifest."""
_NOTICE: Final = (
    "Converted by verse-data from the files whose git-annex keys stand under 'source'; 'recipe' "
    "says what was changed beside format and order of axes. The licence of those files holds for "
    "this store too. Whoever hands it on names their authors: verse-data provenance RELEASE --json "
    "prints attribution and citations of the release."
)
"""The same in every store: a text of attribution that is corrected must not rename stores."""
_OF_ARRAY: Final[dict[ArrayName, dict[str, Any]]] = {
    "image": {"unit": "Hounsfield unit", "quantity": "radiodensity"},
    "label": {"levels": {str(label): level for label, level in LEVEL_OF_LABEL.items()}},
}


@dataclass(frozen=True)
class _Part:
    """One volume of the scan: its file, what messages call it, and its header as planned with."""

    kind: Kind
    file: SourceFile
    name: str
    header: ImageHeader

    @classmethod
    def read(cls, kind: Kind, file: SourceFile, scan_id: str) -> _Part:
        """Read the header of a volume."""
        name = f"{'CT' if kind == 'image' else 'mask'} of scan {scan_id} ({file.name})"
        return cls(kind, file, name, read_header(file.path, name=name))

    def stream(self) -> VolumeStream:
        """Return a pass over the voxels that hashes the file."""
        return VolumeStream(self.file.path, kind=self.kind, name=self.name, sha256=self.file.sha256)


@dataclass(frozen=True)
class Conversion:
    """One store in the making: to RAS by flips, then to the recipe's spacing, onto `grid`."""

    source: ScanSource
    recipe: Recipe
    name: str
    parts: dict[ArrayName, _Part]
    axes: AxisMap
    grid: Grid

    @classmethod
    def plan(cls, source: ScanSource, recipe: Recipe, name: str) -> Conversion:
        """Look at the headers alone, so that a pair that does not fit fails at once.

        They are not hashed yet: writing compares them with those of the pass that is.
        """
        image = _Part.read("image", source.image, source.scan_id)
        header = image.header
        parts: dict[ArrayName, _Part] = {"image": image}
        if source.mask:
            parts["label"] = _Part.read("mask", source.mask, source.scan_id)
            check_pair(header, parts["label"].header, name=f"Scan {source.scan_id}")
        axes = AxisMap.between(header.affine, "RAS")
        grid = Grid(axes.shape(header.shape), axes.affine(header.affine, header.shape))
        if recipe.spacing is not None:
            resampling = Resampling.plan(grid, recipe.spacing)
            if not resampling.trivial:
                _check_limits(resampling, grid, recipe.spacing)
                grid = resampling
        return cls(source, recipe, name, parts, axes, grid)

    def bytes_needed(self) -> int:
        """Estimate the size of the store: a compressed one is about as large as its sources."""
        size = math.prod(self.grid.shape) * (3 if self.source.mask else 2)
        if self.recipe.codec != "none" and not isinstance(self.grid, Resampling):
            size = min(size, sum(part.file.path.stat().st_size for part in self.parts.values()))
        return size + sum(size // factor**3 for factor in FACTORS)

    def write(self, folder: Path) -> None:
        """Write every file of the store into `folder`, the manifest last."""
        written = {array: self._array(folder, array) for array in self.parts}  # image, then label
        keys: dict[str, StoredKey] = {}
        for parts in written.values():
            keys |= parts.keys
        boxes = written["label"].boxes if "label" in written else None
        grid, scan_id = self.grid, self.source.scan_id
        documents = {metadata_key(COARSE): canonical_json(group_document({}))}
        if boxes is not None:
            documents |= write_labels(folder, grid.affine, keys)
        ome = image_metadata(grid.affine, grid.shape, name=scan_id)
        group = group_document({ATTRIBUTES: self._attributes(boxes), "ome": ome})
        documents[GROUP_KEY] = canonical_json(group)
        for key, content in documents.items():
            (folder / key).write_bytes(content)
            keys[key] = stored_key(content)
        manifest = StoreManifest.seal(
            fingerprint=self.name,
            scan_id=scan_id,
            arrays={name: parts.stored for name, parts in written.items()},
            keys=dict(sorted(keys.items())),
        )
        (folder / MANIFEST_KEY).write_bytes(manifest.to_bytes())

    def _array(self, folder: Path, array: ArrayName) -> WrittenArray:
        """Write one array and its coarser levels, whose attributes say where their voxels lie."""
        attributes = _OF_ARRAY[array]
        coarse = {
            factor: {"affine": coarse_affine(self.grid.affine, array, factor).tolist()}
            for factor in FACTORS
        }
        return write_array(
            folder,
            array,
            (self.grid.shape[2], self.grid.shape[1], self.grid.shape[0]),
            self._slabs(array),
            codec=self.recipe.codec,
            attributes=attributes,
            coarse={
                factor: Target(coarse_path(array, factor), {**attributes, **placed})
                for factor, placed in coarse.items()
            },
        )

    def _slabs(self, array: ArrayName) -> Iterator[Slab]:
        """Yield the store's slabs of a volume, drained to its checked end before the last one."""
        part, codec = self.parts[array], self.recipe.codec
        with part.stream() as stream:
            _check_same(stream, part.header)
            if not isinstance(self.grid, Resampling):
                yield from self._native(stream, inner_chunk(codec)[0])
                return
            flat = np.empty(stream.header.voxels, stream.dtype)
            stream.fill(flat)
            stream.finish()
        volume = self.axes.apply(flat.reshape(part.header.shape, order="F"))
        way = self.recipe.interpolation if array == "image" else "nearest"
        yield from slabs_of(self.grid.apply(volume, way).transpose(2, 1, 0), codec)

    def _native(self, stream: VolumeStream, thick: int) -> Iterator[Slab]:
        """Read slices as the file has them, so many at a time as fill one place of the chunk grid.

        Two buffers take turns: one is encoded while the other is filled.
        """
        i, j, k = stream.header.shape
        target = self.axes.axes.index(2)
        places = list(range(-(-k // thick)))
        if self.axes.flips[target]:
            places.reverse()
        buffers = [np.empty(i * j * min(k, thick), stream.dtype) for _ in range(2)]
        for number, place in enumerate(places):
            count = min(thick, k - place * thick)
            flat = buffers[number % 2][: i * j * count]
            stream.fill(flat)
            if number == len(places) - 1:
                stream.finish()
            slices = self.axes.apply(flat.reshape((i, j, count), order="F"))
            yield Slab(2 - target, place, slices.transpose(2, 1, 0))

    def _points(self) -> dict[int, npt.NDArray[np.float64]]:
        """Return the centroids on the store's grid; none of those that are of other axes."""
        source, header = self.source, self.parts["image"].header
        if source.centroids_axes not in {None, header.axcodes}:
            return {}
        points = np.array([point.ijk for point in source.centroids]).reshape(-1, 3)
        moved = self.axes.points(points, header.shape)
        if isinstance(self.grid, Resampling):
            moved = self.grid.points(moved)
        return {point.label: at for point, at in zip(source.centroids, moved, strict=True)}

    def _attributes(self, boxes: dict[int, Box] | None) -> dict[str, Any]:
        """Return this package's block of the group's attributes. No text of the NIfTI is in it."""
        source, header, keys = self.source, self.parts["image"].header, self.source.keys
        # Such as forms that differ.
        notes = {p.kind: list(p.header.notes) for p in self.parts.values() if p.header.notes}
        return {
            "store_format": STORE_FORMAT,
            "scan_id": source.scan_id,
            "fingerprint": self.name,
            "shape": list(self.grid.shape),
            "affine": self.grid.affine.tolist(),
            "labels": None if boxes is None else _in_spine_order(boxes),
            "label_boxes": {str(n): [box.start, box.stop] for n, box in (boxes or {}).items()},
            "centroids": {str(label): at.tolist() for label, at in self._points().items()},
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
            "licence": source.licence,
            "notice": _NOTICE,
        }


def _check_limits(new: Grid, old: Grid, spacing: tuple[float, float, float]) -> None:
    voxels = math.prod(new.shape)
    if max(new.shape) > _MAX_EXTENT or voxels > MAX_VOXELS:
        raise UsageError(
            f"spacing={spacing} makes {new.shape} voxels out of {old.shape}, {voxels:,} in all; the "
            f"limit is {_MAX_EXTENT:,} along an axis and {MAX_VOXELS:,} in all. Give a coarser spacing."
        )


def _check_same(stream: VolumeStream, planned: ImageHeader) -> None:
    """Check that the file that is read is the one whose header was planned with."""
    found = stream.header
    same = np.array_equal(found.affine, planned.affine)
    if not same or replace(found, affine=planned.affine) != planned:
        raise SourceChanged(
            f"{stream.name} was replaced while it was converted: its shape was {planned.shape} and "
            f"is {found.shape}, or its affine or another field changed. Nothing of it was kept. "
            f"Run it again."
        )


def _in_spine_order(labels: Iterable[int]) -> list[int]:
    """Sort labels cranio-caudally; the reserved ones (26, 27) come last."""
    order = list(LEVEL_OF_LABEL)
    return sorted(labels, key=lambda label: order.index(label) if label in order else label + 100)
