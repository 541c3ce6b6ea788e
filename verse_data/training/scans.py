"""The scans that are served, as columns, and open in this process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError, ValidationFailed
from verse_data.spine.geometry import Affine, AxisMap, Box, Shape, apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.volumes.reader import ScanReader

if TYPE_CHECKING:
    import pandas as pd


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
        ``not_in_lock`` where it was published and the lock lists no file of it; ``no_ct``; ``no_mask`` where the mask is needed; ``no_vertebra`` where vertebrae are served and
        none is known; ``same_series`` where it is served under another id, from another release.
    """

    scan_id: str
    subject_id: str
    reason: str


def part_served(
    scans: Sequence[ServedScan], *, label: bool
) -> tuple[list[ServedScan], list[LeftOut]]:
    """Return the scans that can be served, and the others: those without a mask that is needed."""
    served: list[ServedScan] = []
    without: list[LeftOut] = []
    for scan in scans:
        if label and not scan.has_label:
            without.append(LeftOut(scan.scan_id, scan.subject_id, "no_mask"))
        else:
            served.append(scan)
    return served, without


def left_out_table(left_out: Sequence[LeftOut]) -> pd.DataFrame:
    """Return one row for each scan that is left out."""
    import pandas as pd

    rows = [(scan.scan_id, scan.subject_id, scan.reason) for scan in left_out]
    return pd.DataFrame(rows, columns=["scan_id", "subject_id", "reason"])


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
            raise UsageError(
                f"These scans were given twice: {twice}. Give each scan once; scans of two "
                f"releases that hold the same series must be deduplicated first."
            )
        pairs = set(zip(self.subject_id.tolist(), self.split.tolist(), strict=True))
        counted = Counter(subject for subject, _ in pairs)
        torn = sorted(subject for subject, count in counted.items() if count > 1)
        if torn:
            raise UsageError(
                f"These subjects lie in more than one split, which leaks patients: "
                f"{', '.join(torn[:5])}. Serve each split as a dataset of its own."
            )

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


_CELL = 32


class Foreground:
    """Counts the labelled voxels of each 32³ cell once, and then reads one cell a draw.

    Counting reads the mask slab by slab: a few ms for a scan of 1 mm, 0.3 s for 512 x 512 x 1000,
    once per scan and process, and 32 slices at a time in memory.

    Parameters
    ----------
    reader : ScanReader
        Of a store with a mask.
    """

    def __init__(self, reader: ScanReader) -> None:
        self._reader = reader
        counts = _counts(reader)
        self._cells = np.argwhere(counts)
        self._ends = np.cumsum(counts[counts > 0])

    def __len__(self) -> int:
        """Return the number of labelled voxels."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def voxel(self, fraction: float) -> tuple[int, int, int]:
        """Return the labelled voxel (x, y, z) of the store's grid that `fraction` in [0, 1) picks."""
        if not len(self):
            raise ValidationFailed(
                f"The mask of {self._reader.scan_id} is empty, so no patch can be drawn around "
                f"its voxels. Leave the scan out, or use sampling='uniform'."
            )
        number = int(fraction * len(self))
        cell = int(np.searchsorted(self._ends, number, side="right"))
        box = _cell_box(self._cells[cell], self._reader.shape)
        voxels = np.flatnonzero(_labels(self._reader, box))
        before = int(self._ends[cell - 1]) if cell else 0
        x, y, z = np.unravel_index(voxels[number - before], box.shape)
        return (int(x) + box.start[0], int(y) + box.start[1], int(z) + box.start[2])


def _cell_box(cell: npt.NDArray[np.intp], shape: Shape) -> Box:
    x, y, z = (int(n) * _CELL for n in cell)
    return Box((x, y, z), (x + _CELL, y + _CELL, z + _CELL)).clipped(shape)


def _counts(reader: ScanReader) -> npt.NDArray[np.int64]:
    """Return the number of labelled voxels in each cell, in x, y, z."""
    shape = reader.shape
    x, y, z = (-(-n // _CELL) for n in shape)
    counts = np.zeros((x, y, z), dtype=np.int64)
    for slab in range(z):
        box = Box((0, 0, slab * _CELL), (shape[0], shape[1], (slab + 1) * _CELL)).clipped(shape)
        label = _labels(reader, box)
        if not label.any():
            continue
        for i, j in product(range(x), range(y)):
            part = label[i * _CELL : (i + 1) * _CELL, j * _CELL : (j + 1) * _CELL]
            counts[i, j, slab] = np.count_nonzero(part)
    return counts


def _labels(reader: ScanReader, box: Box) -> npt.NDArray[np.uint8]:
    label: npt.NDArray[np.uint8] = reader.read(box, image=False)[1]
    return label


_MAX_OPEN = 256


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
        scan = self._open.get(store)
        if scan is None:
            scan = OrientedScan.open(store, self._orientation)
            self._open[store] = scan
            for oldest in list(self._open)[: -self._max_open]:
                self._open.pop(oldest, None)  # another thread may have been quicker
        return scan

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pid": -1, "_open": {}}
