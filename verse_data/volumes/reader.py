"""Reads boxes of image and label from a store, in any orientation; the hot path of training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from verse_data.errors import StoreCorrupt, UsageError
from verse_data.records.manifest import REPAIR
from verse_data.spine.geometry import Affine, Array, AxisMap, Box, Shape
from verse_data.spine.levels import in_spine_order
from verse_data.volumes.layout import ATTRIBUTES, DTYPE, GROUP_KEY, ArrayName
from verse_data.volumes.shard import Shard
from verse_data.volumes.store import load_manifest, read_metadata

CAPACITY: Final = 512
"""Scans that a process keeps open. Each takes its address space, no file descriptor, and about
100 bytes per chunk (0.3 MB for 512 x 512 x 400 voxels)."""
_OUTSIDE: Final[dict[str, int]] = {"image": -1024, "label": 0}

Empty = Callable[[str, Shape, str], Array]
"""Allocates the array ``image`` or ``label`` of a shape and dtype, not initialised."""


def fresh(key: str, shape: Shape, dtype: str) -> Array:
    """Allocate by NumPy."""
    del key
    return np.empty(shape, dtype)


@dataclass(frozen=True)
class OpenScan:
    """The checked metadata of a store, and its mapped arrays by name; shape and affine in x, y, z."""

    fingerprint: str
    scan_id: str
    attributes: dict[str, Any]
    shape: Shape
    affine: Affine
    shards: dict[str, Shard]
    _axes: dict[str, AxisMap] = field(default_factory=dict)

    def axes(self, orientation: str) -> AxisMap:
        """Return the map from the stored grid to `orientation`; computed once."""
        found = self._axes.get(orientation)
        if found is None:
            found = self._axes[orientation] = AxisMap.between(self.affine, orientation)
        return found


def opened(store: Path, *, verify: bool = True) -> OpenScan:
    """Return the open store at `store`, opening it if this process has not yet."""
    # Per process: a forked child checks chunks again, whatever its parent has checked.
    return _opened(str(store), verify, os.getpid())


@lru_cache(CAPACITY)
def _opened(path: str, verify: bool, _process: int) -> OpenScan:  # noqa: FBT001 - a cache's key
    """Open the store at `path`: check manifest, metadata and shard indexes, map the shards."""
    store = Path(path)
    manifest = load_manifest(store)
    attributes = read_metadata(store, manifest).get("attributes", {}).get(ATTRIBUTES)
    if not isinstance(attributes, dict):
        raise StoreCorrupt(
            f"{store}/{GROUP_KEY} has no block {ATTRIBUTES!r} in its attributes. {REPAIR}"
        )
    z, y, x = manifest.arrays["image"].shape
    return OpenScan(
        fingerprint=manifest.fingerprint,
        scan_id=manifest.scan_id,
        attributes=attributes,
        shape=(x, y, z),
        affine=np.array(attributes["affine"], dtype=np.float64),
        shards={name: Shard(store, manifest, name, verify=verify) for name in manifest.arrays},
    )


def close_all() -> None:
    """Close all stores of this process. Readers open them again when they are next used."""
    _opened.cache_clear()


def relabelled(voxels: Array, new: Mapping[int, int]) -> Array:
    """Return the voxels of a mask with the `new` label of each that changes."""
    if not new:
        return voxels
    # Faster than indexing a table by the voxels, which makes indices of eight bytes.
    table = bytes(new.get(label, label) for label in range(256))
    found = voxels.astype(np.uint8, copy=False).tobytes().translate(table)
    return np.frombuffer(found, np.uint8).reshape(voxels.shape).astype(voxels.dtype)


class ScanReader:
    """Reads one scan's store.

    A reader is only a path: it opens the store when it is first used, holds no handle of its own,
    and may be pickled, forked and used by several threads. Open stores are kept per process; each
    chunk is checked against the manifest when a process first reads it. `verify` turns these checks
    off, only to measure their cost. `relabel` has the new label of each that an overlay changes;
    all labels that are read follow it, except those in `attributes`.
    """

    __slots__ = ("path", "relabel", "verify")

    def __init__(
        self, path: Path, *, verify: bool = True, relabel: Mapping[int, int] | None = None
    ) -> None:
        self.path, self.verify, self.relabel = Path(path), verify, dict(relabel or {})

    def __repr__(self) -> str:
        return f"ScanReader({str(self.path)!r})"

    @property
    def shape(self) -> Shape:
        """Voxels along x (to the right), y (anteriorly) and z (superiorly)."""
        return self._scan().shape

    @property
    def affine(self) -> Affine:
        """(4, 4), voxel index (x, y, z) of the stored grid to world mm, RAS+."""
        return self._scan().affine.copy()

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels that occur in the mask, in spine order; none where there is no mask."""
        return tuple(in_spine_order(map(self._new, self.attributes["labels"] or ())))

    @property
    def label_boxes(self) -> dict[int, Box]:
        """Box of each label of the mask in the stored grid (x, y, z); none without a mask."""
        boxes = self.attributes["label_boxes"].items()
        return {self._new(label): Box.of(*corners) for label, corners in boxes}

    @property
    def centroids(self) -> dict[int, tuple[float, float, float]]:
        """Centroid of each label as voxel index (x, y, z) of the stored grid."""
        points = self.attributes["centroids"].items()
        return {self._new(label): (float(x), float(y), float(z)) for label, (x, y, z) in points}

    def _new(self, label: str | int) -> int:
        return self.relabel.get(int(label), int(label))

    def relabelled(self, voxels: Array) -> Array:
        """Return labels of the store as they are served."""
        return relabelled(voxels, self.relabel)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the store: keys of its sources, licence, recipe, and the above."""
        return self._scan().attributes

    @property
    def fingerprint(self) -> str:
        """SHA-256 over keys of the sources, recipe and store format: the name of the store."""
        return self._scan().fingerprint

    @property
    def scan_id(self) -> str:
        """Id of the scan."""
        return self._scan().scan_id

    @property
    def has_label(self) -> bool:
        """Whether the store holds a mask."""
        return "label" in self._scan().shards

    def grid(self, orientation: str = "RAS") -> tuple[Shape, Affine]:
        """Return shape and affine of the scan in the axes of `orientation`."""
        scan = self._scan()
        axes = scan.axes(orientation)
        return axes.shape(scan.shape), axes.affine(scan.affine, scan.shape)

    def read(
        self,
        box: Box,
        *,
        orientation: str = "RAS",
        image: bool = True,
        label: bool = True,
        empty: Empty = fresh,
    ) -> tuple[Any, Any]:
        """Return int16 HU and uint8 labels of `box`, each None if it was not requested.

        Outside the scan they are -1024 and 0. `empty` allocates them, and may do so in a larger
        dtype, such as float32.
        """
        scan = self._scan()
        axes = scan.axes(orientation)
        if min(box.shape) < 0:
            raise UsageError(f"The box from {box.start} to {box.stop} ends before it starts.")
        if label and "label" not in scan.shards:
            raise UsageError(
                f"Scan {scan.scan_id} has no mask in its store, so no label can be read. "
                f"Read it with label=False, or ask has_label first."
            )
        # The part inside the volume: as a box of the stored grid, and as slices of the output.
        inside = box.clipped(axes.shape(scan.shape))
        start, stop = [0, 0, 0], [0, 0, 0]
        for low, high, source, flip in zip(
            inside.start, inside.stop, axes.axes, axes.flips, strict=True
        ):
            size = scan.shape[source]
            start[source], stop[source] = (size - high, size - low) if flip else (low, high)
        part = tuple(
            slice(max(low - first, 0), max(high - first, 0))
            for low, high, first in zip(inside.start, inside.stop, box.start, strict=True)
        )

        def padded(name: ArrayName) -> Array:
            out, prefilled = empty(name, box.shape, DTYPE[name].name), None
            if inside != box or name == "label":  # most chunks of a mask equal the padding
                prefilled = _OUTSIDE[name]
                out.fill(prefilled)
            if (target := out[part]).size:
                steps = tuple(slice(None, None, -1 if flip else 1) for flip in axes.flips)
                turned = target[steps].transpose(np.argsort(axes.axes))
                scan.shards[name].gather(turned, start, stop, prefilled=prefilled)
                if name == "label" and self.relabel:
                    target[...] = self.relabelled(target)
            return out

        return padded("image") if image else None, padded("label") if label else None

    def _scan(self) -> OpenScan:
        return opened(self.path, verify=self.verify)
