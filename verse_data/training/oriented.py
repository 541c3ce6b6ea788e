"""Scans that are open in this process, in the orientation that is served."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.spine.geometry import Affine, AxisMap, Shape, apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.training.foreground import Foreground
from verse_data.volumes.reader import ScanReader

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
