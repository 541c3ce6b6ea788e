"""The scans of a dataset: as columns of strings, and opened in this process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.geometry import Affine, AxisMap, Shape, apply_affine, voxel_sizes
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.volumes.reader import ScanReader


@dataclass(frozen=True)
class ServedScan:
    """One CT series whose store exists.

    Attributes
    ----------
    scan_id, subject_id : str
        Such as ``"verse401_split-verse253"`` and ``"verse401"``.
    split : str
        Published membership: ``"training"``, ``"validation"`` or ``"test"``.
    store : Path
        Folder of the scan's Zarr store; its name is the store's fingerprint.
    relabel : str
        The labels that an overlay changes, old and new: ``"19:20 20:19"``. Default: none.
    """

    scan_id: str
    subject_id: str
    split: str
    store: Path
    relabel: str = ""

    @property
    def has_label(self) -> bool:
        """Whether the store holds a vertebra mask."""
        return (self.store / "label").is_dir()


@dataclass(frozen=True)
class LeftOut:
    """One CT series that was requested and is not served.

    Attributes
    ----------
    scan_id, subject_id : str
    reason : str
        ``not_in_lock`` if it was published and the lock lists no file of it; ``no_ct``; ``no_mask``
        if the mask is needed; ``no_vertebra`` if vertebrae are served and none is known;
        ``same_series`` if it is served under another id, from another release; ``overlay`` if an
        overlay excludes it; ``licence`` if its terms are none of those that were asked for.
    """

    scan_id: str
    subject_id: str
    reason: str


class ScanColumns:
    """The scans of a dataset as NumPy columns.

    A Python list of objects grows in every forked worker, because reading an object writes its
    reference count; an array of fixed-width strings does not.
    """

    def __init__(self, scans: Sequence[ServedScan]) -> None:
        rows = [(s.scan_id, s.subject_id, s.split, os.fspath(s.store), s.relabel) for s in scans]
        columns = [np.array(column, dtype=np.str_) for column in zip(*rows, strict=True)]
        self.scan_id, self.subject_id, self.split, self.store, self.relabel = (
            columns or [np.zeros(0, "<U1")] * 5
        )
        twice = _repeated(self.scan_id)
        if twice:
            raise UsageError(
                f"These scans were given twice: {', '.join(twice[:5])}. Give each scan once; scans of "
                f"two releases that hold the same series must be deduplicated first."
            )
        leaking = _repeated(np.unique([row[1:3] for row in rows], axis=0)[:, 0] if rows else ())
        if leaking:
            raise UsageError(
                f"These subjects lie in more than one split, which leaks patients: "
                f"{', '.join(leaking[:5])}. Serve each split as a dataset of its own."
            )

    def __len__(self) -> int:
        return len(self.scan_id)

    def __iter__(self) -> Iterator[ServedScan]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ServedScan:
        """Return scan number `index`."""
        return ServedScan(
            **self.names(index),
            store=Path(str(self.store[index])),
            relabel=str(self.relabel[index]),
        )

    def names(self, index: int) -> dict[str, str]:
        """Return ``scan_id``, ``subject_id`` and ``split`` of scan number `index`."""
        # For samples: a `ServedScan` has a `Path`, whose parts Python interns, and interning writes
        # to memory that forked workers share with their parent.
        return {
            "scan_id": str(self.scan_id[index]),
            "subject_id": str(self.subject_id[index]),
            "split": str(self.split[index]),
        }


def _repeated(names: Any) -> list[str]:
    return sorted(str(name) for name, count in Counter(names).items() if count > 1)


@dataclass(frozen=True)
class OrientedScan:
    """A scan whose store is open in this process, in the orientation that is served."""

    reader: ScanReader  # of the store, whose own grid is RAS
    shape: Shape
    affine: Affine  # voxel index of the served grid to mm, RAS+
    axes: AxisMap  # from the store's grid to the served one
    centroids: npt.NDArray[np.float64]
    """(26, 3) in mm, RAS+, one row per level in spine order; NaN where the scan has none."""

    @property
    def directions(self) -> npt.NDArray[np.float64]:
        """Unit vectors (RAS+) along the axes of the served grid, as columns."""
        return np.asarray(self.affine[:3, :3] / np.asarray(voxel_sizes(self.affine)))

    def from_store(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map voxel indices of the store's grid, shape (..., 3), to the served grid."""
        return self.axes.points(points, self.reader.shape)

    def from_world(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map mm, shape (..., 3), to voxel indices of the served grid."""
        return apply_affine(np.linalg.inv(self.affine), points)


@lru_cache(maxsize=256)
def open_scan(store: str, orientation: str, relabel: str = "") -> OrientedScan:
    """Return the scan of the store at a path; it holds no handle, so a fork may inherit it."""
    pairs = (pair.split(":") for pair in relabel.split())
    reader = ScanReader(Path(store), relabel={int(old): int(new) for old, new in pairs})
    found, missing = reader.centroids, (np.nan,) * 3
    voxels = [found.get(LABEL_OF_LEVEL[level], missing) for level in LEVELS]
    return OrientedScan(
        reader,
        *reader.grid(orientation),
        axes=AxisMap.between(reader.affine, orientation),
        # One by one: a product of whole matrices may differ in the last bits.
        centroids=np.stack([apply_affine(reader.affine, voxel) for voxel in voxels]),
    )
