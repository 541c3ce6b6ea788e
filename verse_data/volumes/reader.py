"""The reader of the hot path: boxes of image and label, out of a store, in any orientation."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from verse_data.errors import StoreCorrupt, UsageError
from verse_data.records.manifest import REPAIR
from verse_data.spine.geometry import Affine, AxisMap, Box, Shape
from verse_data.volumes.layout import ATTRIBUTES, DTYPE, GROUP_KEY, ArrayName
from verse_data.volumes.shard import Shard
from verse_data.volumes.store import load_manifest, read_metadata

Image = npt.NDArray[np.int16]
Label = npt.NDArray[np.uint8]

CAPACITY: Final = 512
"""Scans that a process keeps open. One costs its address space, no file descriptor, and about
100 bytes a chunk (0.3 MB for 512 x 512 x 400 voxels)."""


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
        """Return the map from the stored grid to `orientation`; worked out once."""
        found = self._axes.get(orientation)
        if found is None:
            found = self._axes[orientation] = AxisMap.between(self.affine, orientation)
        return found


class _Opened:
    """The open scans of one process, the one used longest ago first."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.lock = threading.Lock()
        self.scans: OrderedDict[tuple[str, bool], OpenScan] = OrderedDict()


_opened = _Opened(-1)


def opened(store: Path, *, verify: bool = True) -> OpenScan:
    """Return the open store at `store`, opening it if this process has not yet."""
    global _opened  # noqa: PLW0603 - replaced as a whole where the process is another
    mine = _opened
    if mine.pid != os.getpid():
        # A lock that another thread of the parent held at the fork is never waited for.
        mine = _opened = _Opened(os.getpid())
    key = (str(store), verify)
    with mine.lock:
        scan = mine.scans.get(key)
        if scan is not None:
            mine.scans.move_to_end(key)
            return scan
    scan = open_scan(store, verify=verify)
    with mine.lock:
        mine.scans[key] = scan
        while len(mine.scans) > CAPACITY:
            mine.scans.popitem(last=False)
    return scan


def close_all() -> None:
    """Drop every handle of this process. Readers open again when they are next used."""
    with _opened.lock:
        _opened.scans.clear()


def open_scan(store: Path, *, verify: bool = True) -> OpenScan:
    """Open the store at `store`: check manifest, metadata and shard indexes, map the shards."""
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


class ScanReader:
    """Reads one scan's store.

    A reader is a path: it opens nothing until it is asked something, holds no handle of its own,
    and may be pickled, forked and used by several threads. Open stores are kept per process; each
    chunk is checked against the manifest when a process first touches it.

    Parameters
    ----------
    path : Path
        Folder of the store.
    verify : bool
        Whether chunks are checked. Off only to measure what checking costs.

    Examples
    --------
    >>> reader = ScanReader(store)                                          # doctest: +SKIP
    >>> image, label = reader.read(Box.around((90, 80, 200), (96, 96, 96)))  # doctest: +SKIP
    """

    __slots__ = ("path", "verify")

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.path, self.verify = Path(path), verify

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
        return tuple(self.attributes["labels"] or ())

    @property
    def label_boxes(self) -> dict[int, Box]:
        """Box of each label of the mask in the stored grid (x, y, z); none without a mask."""
        return {
            int(label): Box((a[0], a[1], a[2]), (b[0], b[1], b[2]))
            for label, (a, b) in self.attributes["label_boxes"].items()
        }

    @property
    def centroids(self) -> dict[int, tuple[float, float, float]]:
        """Centroid of each label as voxel index (x, y, z) of the stored grid."""
        return {
            int(label): (float(x), float(y), float(z))
            for label, (x, y, z) in self.attributes["centroids"].items()
        }

    @property
    def attributes(self) -> dict[str, Any]:
        """What the store says of itself: keys of its sources, licence, recipe, and the above."""
        return self._scan().attributes

    @property
    def fingerprint(self) -> str:
        """SHA-256 over keys of the sources, recipe and store format: the name of the store."""
        return self._scan().fingerprint

    @property
    def scan_id(self) -> str:
        """Whose volume it is."""
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

    @overload
    def read(
        self, box: Box, *, orientation: str = ..., pad_image: int = ..., pad_label: int = ...
    ) -> tuple[Image, Label]: ...

    @overload
    def read(
        self,
        box: Box,
        *,
        orientation: str = ...,
        label: bool,
        pad_image: int = ...,
        pad_label: int = ...,
    ) -> tuple[Image, Label | None]: ...

    @overload
    def read(
        self,
        box: Box,
        *,
        orientation: str = ...,
        image: bool,
        label: bool = ...,
        pad_image: int = ...,
        pad_label: int = ...,
    ) -> tuple[Image | None, Label | None]: ...

    def read(
        self,
        box: Box,
        *,
        orientation: str = "RAS",
        image: bool = True,
        label: bool = True,
        pad_image: int = -1024,
        pad_label: int = 0,
    ) -> tuple[Image | None, Label | None]:
        """Read the voxels of `box`."""
        scan = self._scan()
        axes = scan.axes(orientation)
        if min(box.shape) < 0:
            raise UsageError(f"The box from {box.start} to {box.stop} ends before it starts.")
        if label and "label" not in scan.shards:
            raise UsageError(
                f"Scan {scan.scan_id} has no mask in its store, so no label can be read. "
                f"Read it with label=False, or ask has_label first."
            )
        # What lies inside the volume, in the stored grid, and as a part of the output.
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

        def filled(name: ArrayName, pad: int) -> npt.NDArray[Any]:
            out, held = np.empty(box.shape, DTYPE[name]), None
            if inside != box or name == "label":  # most of a mask is what it is filled with
                out.fill(pad)
                held = pad
            if (target := out[part]).size:
                steps = tuple(slice(None, None, -1 if flip else 1) for flip in axes.flips)
                turned = target[steps].transpose(np.argsort(axes.axes))
                scan.shards[name].gather(turned, start, stop, held=held)
            return out

        return (
            filled("image", pad_image) if image else None,
            filled("label", pad_label) if label else None,
        )

    def _scan(self) -> OpenScan:
        return opened(self.path, verify=self.verify)
