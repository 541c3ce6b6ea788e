"""Open stores, kept per process: what a reader needs after the first look at a scan."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from verse_data.errors import StoreCorrupt
from verse_data.records.manifest import REPAIR, StoreManifest
from verse_data.spine.geometry import Affine, AxisMap, Shape
from verse_data.volumes.layout import ATTRIBUTES, FILL, GROUP_KEY, ArrayName, metadata_key
from verse_data.volumes.manifest import load_manifest, read_metadata
from verse_data.volumes.mapped import ShardFacts
from verse_data.volumes.shard import Shard

CAPACITY: Final = 512
"""Scans that a process keeps open. One costs its address space, no file descriptor, and about
100 bytes a chunk (0.3 MB for 512 x 512 x 400 voxels)."""

_READABLE: Final = {"transpose", "bytes", "blosc", "crc32c"}


@dataclass(frozen=True)
class OpenScan:
    """The checked metadata of a store, and its mapped arrays by name.

    Attributes
    ----------
    fingerprint, scan_id : str
        Of the manifest.
    attributes : dict
        This package's block of the group's attributes.
    shape : (int, int, int)
        Voxels along x, y, z.
    affine : (4, 4) array
        Voxel index (x, y, z) to world mm, RAS+.
    shards : dict
        ``"image"`` and, where there is a mask, ``"label"``.
    """

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
    """Return the open store at `store`, opening it if this process has not yet.

    After a fork the child starts with nothing open: a lock that another thread of the parent held
    at that moment is never waited for.

    Raises
    ------
    StoreCorrupt, ChunkMissing, ChunkCorrupt
        If the store is damaged.
    """
    global _opened  # noqa: PLW0603 - replaced as a whole where the process is another
    mine = _opened
    if mine.pid != os.getpid():
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
    group = read_metadata(store, manifest, GROUP_KEY)
    attributes = group.get("attributes", {}).get(ATTRIBUTES)
    if not isinstance(attributes, dict):
        message = f"{store}/{GROUP_KEY} has no block {ATTRIBUTES!r} in its attributes. {REPAIR}"
        raise StoreCorrupt(message)
    shards: dict[str, Shard] = {
        name: Shard(_shard_facts(store, manifest, name), verify=verify) for name in manifest.arrays
    }
    z, y, x = manifest.arrays["image"].shape
    return OpenScan(
        fingerprint=manifest.fingerprint,
        scan_id=manifest.scan_id,
        attributes=attributes,
        shape=(x, y, z),
        affine=np.array(attributes["affine"], dtype=np.float64),
        shards=shards,
    )


def _shard_facts(store: Path, manifest: StoreManifest, name: ArrayName) -> ShardFacts:
    array = manifest.arrays[name]
    document = read_metadata(store, manifest, metadata_key(name))
    chain = document["codecs"][0]["configuration"]["codecs"]
    settings = {codec["name"]: codec.get("configuration", {}) for codec in chain}
    order = settings.get("transpose", {}).get("order")
    if not settings.keys() <= _READABLE or order not in (None, [2, 1, 0]):
        where = f"{store}/{metadata_key(name)}"
        message = f"{where} names codecs that this version does not read: {chain}. {REPAIR}"
        raise StoreCorrupt(message)
    return ShardFacts(
        path=store / array.shard,
        scan_id=manifest.scan_id,
        size=manifest.keys[array.shard].size,
        array=array,
        fill=FILL[name],
        transposed=order is not None,
        in_blocks=order is not None and settings.get("blosc", {}).get("blocksize", 0) > 0,
    )
