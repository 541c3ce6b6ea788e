"""Which scans a dataset serves, as plain columns that workers share without copying."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.geometry import Affine, AxisMap, Shape, apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.training.foreground import Foreground
from verse_data.volumes.reader import ScanReader

_MAX_OPEN = 256


@dataclass(frozen=True)
class ServedScan:
    """One CT series whose store is ready to be read.

    Attributes
    ----------
    scan_id, subject_id : str
        Such as ``"verse401_split-verse253"`` and ``"verse401"``.
    split : str
        Published membership: ``"training"``, ``"validation"`` or ``"test"``.
    store : Path
        Folder of the scan's Zarr store; its name is the store's fingerprint.
    """

    scan_id: str
    subject_id: str
    split: str
    store: Path

    @property
    def has_label(self) -> bool:
        """Whether the store holds a vertebra mask."""
        return (self.store / "label").is_dir()


@dataclass(frozen=True)
class LeftOut:
    """One CT series that was asked for and is not served.

    Attributes
    ----------
    scan_id, subject_id : str
    reason : str
        ``no_ct``, or ``no_mask`` where the mask is needed.
    """

    scan_id: str
    subject_id: str
    reason: str


class ScanColumns:
    """The scans of a dataset as NumPy columns.

    A Python list of objects grows in every forked worker, because reading an object writes its
    reference count; an array of fixed-width strings does not.

    Parameters
    ----------
    scans : sequence of ServedScan

    Raises
    ------
    UsageError
        If a scan occurs twice, or a subject lies in two splits.
    """

    def __init__(self, scans: Sequence[ServedScan]) -> None:
        self.scan_id = _strings(scan.scan_id for scan in scans)
        self.subject_id = _strings(scan.subject_id for scan in scans)
        self.split = _strings(scan.split for scan in scans)
        self.store = _strings(os.fspath(scan.store) for scan in scans)
        self._check()

    def _check(self) -> None:
        names, counts = np.unique(self.scan_id, return_counts=True)
        if (counts > 1).any():
            twice = ", ".join(names[counts > 1][:5])
            message = (
                f"These scans were given twice: {twice}. Give each scan once; scans of two "
                f"releases that hold the same series must be deduplicated first."
            )
            raise UsageError(message)
        pairs = set(zip(self.subject_id.tolist(), self.split.tolist(), strict=True))
        counted = Counter(subject for subject, _ in pairs)
        torn = sorted(subject for subject, count in counted.items() if count > 1)
        if torn:
            message = (
                f"These subjects lie in more than one split, which leaks patients: "
                f"{', '.join(torn[:5])}. Serve each split as a dataset of its own."
            )
            raise UsageError(message)

    def __len__(self) -> int:
        return len(self.scan_id)

    def __iter__(self) -> Iterator[ServedScan]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ServedScan:
        """Return scan number `index`."""
        return ServedScan(
            str(self.scan_id[index]),
            str(self.subject_id[index]),
            str(self.split[index]),
            Path(str(self.store[index])),
        )

    def names(self, index: int) -> dict[str, str]:
        """Return ``scan_id``, ``subject_id`` and ``split`` of scan number `index`.

        For samples: making a `ServedScan` makes a `Path`, whose parts Python interns, and that
        writes all over a table which forked workers share with their parent.
        """
        return {
            "scan_id": str(self.scan_id[index]),
            "subject_id": str(self.subject_id[index]),
            "split": str(self.split[index]),
        }

    def positions(self, scan_ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return for each of `scan_ids` its number here, or -1 if it is not served."""
        order = np.argsort(self.scan_id, kind="stable")
        if not len(order):
            return np.full(len(scan_ids), -1, dtype=np.int64)
        wanted = np.asarray(scan_ids, dtype=np.str_)
        place = np.searchsorted(self.scan_id, wanted, sorter=order).clip(max=len(order) - 1)
        found = order[place]
        return np.where(self.scan_id[found] == wanted, found, -1).astype(np.int64)


def _strings(values: Iterator[str]) -> npt.NDArray[np.str_]:
    return np.array(list(values), dtype=np.str_)


@dataclass(frozen=True)
class OrientedScan:
    """A scan whose store is open in this process, in the orientation that is served.

    Attributes
    ----------
    reader : ScanReader
        The store; its own grid is RAS.
    shape : (X, Y, Z)
        Of the scan in the served orientation.
    affine : (4, 4) array
        Voxel index of the served grid to mm, RAS+.
    axes : AxisMap
        From the store's grid to the served one.
    centroids : (26, 3) array
        In mm, RAS+, a row a level in spine order; NaN where the scan has none.
    """

    reader: ScanReader
    shape: Shape
    affine: Affine
    axes: AxisMap
    centroids: npt.NDArray[np.float64]
    _foreground: list[Foreground] = field(default_factory=list)

    @classmethod
    def open(cls, store: str, orientation: str) -> OrientedScan:
        """Open the store in the folder `store`."""
        reader = ScanReader(Path(store))
        shape, affine = reader.grid(orientation)
        axes = AxisMap.between(reader.affine, orientation)
        return cls(reader, shape, affine, axes, _centroid_rows(reader))

    @property
    def foreground(self) -> Foreground:
        """The labelled voxels, counted at the first use in this process."""
        # Not functools.cached_property: up to Python 3.11 it holds a lock while it computes, and
        # a worker that is forked at that moment would wait for it for ever.
        if not self._foreground:
            self._foreground.append(Foreground(self.reader))
        return self._foreground[0]

    def from_store(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map voxel indices of the store's grid, shape (..., 3), to the served grid."""
        return self.axes.points(points, self.reader.shape)

    def from_world(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map mm, shape (..., 3), to voxel indices of the served grid."""
        return apply_affine(np.linalg.inv(self.affine), points)


def _centroid_rows(reader: ScanReader) -> npt.NDArray[np.float64]:
    rows = np.full((len(LEVELS), 3), np.nan)
    centroids, affine = reader.centroids, reader.affine
    for row, level in enumerate(LEVELS):
        if (label := LABEL_OF_LEVEL[level]) in centroids:
            rows[row] = apply_affine(affine, centroids[label])
    return rows


class Readers:
    """Open scans of this process: opened at their first use, dropped on pickling and forking.

    Parameters
    ----------
    orientation : str
        Axis codes in which they are served.
    max_open : int
        The scan that was opened first is closed when there are more.
    """

    def __init__(self, orientation: str, *, max_open: int = _MAX_OPEN) -> None:
        self._orientation = orientation
        self._max_open = max_open
        self._pid = -1
        self._open: dict[str, OrientedScan] = {}

    def get(self, store: str) -> OrientedScan:
        """Return the scan in the folder `store`, opened in this process."""
        if self._pid != os.getpid():
            self._open, self._pid = {}, os.getpid()
        if store not in self._open:
            if len(self._open) >= self._max_open:
                self._open.pop(next(iter(self._open)))
            self._open[store] = OrientedScan.open(store, self._orientation)
        return self._open[store]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pid": -1, "_open": {}}
