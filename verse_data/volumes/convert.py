"""Converting one scan: onto the store's grid, array by array, with its metadata."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from verse_data.digests import canonical_json
from verse_data.records.manifest import STORE_FORMAT, StoredKey, StoreManifest
from verse_data.spine.geometry import Box, axcodes
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.volumes.coarse import FACTORS, coarse_affine
from verse_data.volumes.grid import Grid
from verse_data.volumes.layout import (
    ATTRIBUTES,
    COARSE,
    GROUP_KEY,
    MANIFEST_KEY,
    ArrayName,
    coarse_path,
    group_document,
    metadata_key,
)
from verse_data.volumes.nifti import VolumeStream, check_pair, read_header
from verse_data.volumes.nifti_header import ImageHeader
from verse_data.volumes.ome import image_metadata, write_labels
from verse_data.volumes.recipe import RECIPE_VERSION, Recipe
from verse_data.volumes.source import ScanSource, SourceFile
from verse_data.volumes.write import Target, WrittenArray, stored_key, write_array

_HU: Final[dict[str, Any]] = {"unit": "Hounsfield unit", "quantity": "radiodensity"}
_NOTICE: Final = (
    "Converted by verse-data from the files whose git-annex keys stand under 'source'; 'recipe' "
    "says what was changed beside format and order of axes. The licence of those files holds for "
    "this store too. Whoever hands it on names their authors: verse-data provenance RELEASE --json "
    "prints attribution and citations of the release."
)
"""The same in every store: a text of attribution that is corrected must not rename stores."""
_LEVELS: Final[dict[str, Any]] = {
    "levels": {str(label): level for label, level in LEVEL_OF_LABEL.items()}
}


@dataclass(frozen=True)
class Conversion:
    """One store in the making: the scan, what is done to it, and the grid that follows."""

    source: ScanSource
    recipe: Recipe
    name: str
    header: ImageHeader
    mask_header: ImageHeader | None
    grid: Grid

    @classmethod
    def plan(cls, source: ScanSource, recipe: Recipe, name: str) -> Conversion:
        """Look at the headers alone, so that a pair that does not fit fails at once.

        They are not hashed yet: writing compares them with those of the pass that is.
        """
        header = read_header(source.image.path, name=source.describe(source.image))
        mask = None
        if source.mask:
            mask = read_header(source.mask.path, name=source.describe(source.mask))
            check_pair(header, mask, name=f"Scan {source.scan_id}")
        return cls(source, recipe, name, header, mask, Grid.plan(header, recipe))

    def bytes_needed(self) -> int:
        """Estimate the size of the store: a compressed one is about as large as its sources."""
        source = self.source
        size = math.prod(self.grid.shape) * (3 if source.mask else 2)
        if self.recipe.codec != "none" and not self.grid.resampling:
            files = (source.image, source.mask)
            size = min(size, sum(file.path.stat().st_size for file in files if file))
        return size + sum(size // factor**3 for factor in FACTORS)

    def write(self, folder: Path) -> None:
        """Write every file of the store into `folder`, the manifest last."""
        written = self._arrays(folder)
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

    def _arrays(self, folder: Path) -> dict[ArrayName, WrittenArray]:
        """Write image, then label."""
        source, codec = self.source, self.recipe.codec
        written: dict[ArrayName, WrittenArray] = {}
        x, y, z = self.grid.shape
        files: dict[ArrayName, SourceFile | None] = {"image": source.image, "label": source.mask}
        for array, file in files.items():
            if file is None:
                continue
            is_image = array == "image"
            planned = self.header if is_image else self.mask_header
            assert planned is not None  # a mask has one
            stream = VolumeStream(
                file.path,
                kind="image" if is_image else "mask",
                name=source.describe(file),
                sha256=file.sha256,
            )
            interpolation = self.recipe.interpolation if is_image else "nearest"
            attributes = _HU if is_image else _LEVELS
            written[array] = write_array(
                folder,
                array,
                (z, y, x),
                self.grid.slabs(stream, planned, codec, interpolation),
                codec=codec,
                attributes=attributes,
                coarse={factor: self._level(array, factor, attributes) for factor in FACTORS},
            )
        return written

    def _level(self, array: ArrayName, factor: int, attributes: dict[str, Any]) -> Target:
        """Return where a coarser level goes; its attributes say where its voxels lie."""
        affine = coarse_affine(self.grid.affine, array, factor).tolist()
        return Target(coarse_path(array, factor), {**attributes, "affine": affine})

    def _attributes(self, boxes: dict[int, Box] | None) -> dict[str, Any]:
        """Return this package's block of the group's attributes. No text of the NIfTI is in it."""
        source, grid, header = self.source, self.grid, self.header
        placed = source.centroids_axes in {None, axcodes(header.affine)}
        centroids = source.centroids if placed else ()
        points = grid.points(np.array([p.ijk for p in centroids]).reshape(-1, 3))
        return {
            "store_format": STORE_FORMAT,
            "scan_id": source.scan_id,
            "fingerprint": self.name,
            "shape": list(grid.shape),
            "affine": grid.affine.tolist(),
            "labels": None if boxes is None else _in_spine_order(boxes),
            "label_boxes": {
                str(label): [box.start, box.stop] for label, box in (boxes or {}).items()
            },
            "centroids": {
                str(p.label): at.tolist() for p, at in zip(centroids, points, strict=True)
            },
            "source": {
                "shape": list(header.shape),
                "affine": header.affine.tolist(),
                "axcodes": axcodes(header.affine),
                "image": source.image.key,
                "mask": source.mask.key if source.mask else None,
                "centroids": source.centroids_key,
                **self._notes(),
            },
            "recipe": self.recipe.model_dump(mode="json"),
            "recipe_version": RECIPE_VERSION,
            "licence": source.licence,
            "notice": _NOTICE,
        }

    def _notes(self) -> dict[str, dict[str, list[str]]]:
        """Return what was noted of the headers, such as forms that differ; nothing of nothing."""
        headers = {"image": self.header, "mask": self.mask_header}
        notes = {role: list(header.notes) for role, header in headers.items() if header}
        found = {role: lines for role, lines in notes.items() if lines}
        return {"notes": found} if found else {}


def _in_spine_order(labels: Iterable[int]) -> list[int]:
    """Sort labels cranio-caudally; the reserved ones (26, 27) come last."""
    order = list(LEVEL_OF_LABEL)
    return sorted(labels, key=lambda label: order.index(label) if label in order else label + 100)
