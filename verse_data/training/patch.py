"""Patches: boxes of a fixed number of voxels, drawn at random from the scans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError, ValidationFailed, one_of
from verse_data.spine.geometry import Box, Shape
from verse_data.spine.levels import LEVELS
from verse_data.training.arguments import voxels, whole
from verse_data.training.base import ServedDataset
from verse_data.training.draw import DRAW, DrawPlan, plan_by_class, uniforms
from verse_data.training.rows import read_rows
from verse_data.training.samples import Sample
from verse_data.training.scans import OrientedScan, ServedScan
from verse_data.volumes.reader import Empty, ScanReader, fresh

if TYPE_CHECKING:
    import pandas as pd

_CELL = 32


class PatchDataset(ServedDataset):
    """Patches of one shape, so that they can be batched.

    Beside the keys of :mod:`verse_data.training.samples`, a sample has ``box`` (int64 (2, 3):
    first voxel and the one after the last, in the scan's grid in `orientation`; it extends beyond
    a scan that is smaller than the patch) and, with ``sampling="level"`` or ``"grade"``, ``level``
    (str) and ``grade`` (int, -1 = not assessed) of the vertebra that it was drawn for.

    A patch lies inside its scan. Along an axis where the scan is smaller, the scan is centred in
    the patch, and voxels outside are -1024 HU and label 0.

    Parameters
    ----------
    scans : sequence of ServedScan
        The scans to draw from.
    vertebrae : DataFrame, optional
        Rows of the vertebrae table; needed for ``"level"`` and ``"grade"``.
    patch_size : int or (X, Y, Z)
        Voxels along the axes of `orientation`; one number is a cube. Default: 96.
    sampling : {"uniform", "foreground", "level", "grade"}
        Anywhere; around a voxel drawn uniformly from the scan's mask; around a vertebra, whose
        level or grade is drawn first. The first two draw all scans equally often. In the last two
        the centroid lies in the middle half of the patch, or nearer to its end at the scan's
        border.
    weights : mapping, optional
        Relative frequency of each level (``{"T12": 2, "L1": 1}``) or grade (``{0: 1, 2: 1}``);
        classes without a weight are not drawn. By default each class that occurs is drawn equally
        often. Exact to within one patch in every epoch.
    patches_per_scan : int
        Number of patches in an epoch, per scan.
    patches_per_epoch : int, optional
        Number of patches in an epoch; overrides `patches_per_scan`.
    label : bool
        Whether samples have ``label``; scans without a mask are then excluded.
    **served
        ``orientation``, ``transform``, ``seed``, ``image_dtype``, ``provenance``, ``left_out``: see
        :class:`verse_data.training.base.ServedDataset`.

    Raises
    ------
    UsageError
        If an option is invalid, or a class in `weights` does not occur.
    """

    unit = "patch"

    def __init__(
        self,
        scans: Sequence[ServedScan],
        *,
        vertebrae: pd.DataFrame | None = None,
        patch_size: int | Sequence[int] = 96,
        sampling: Literal["uniform", "foreground", "level", "grade"] = "uniform",
        weights: Mapping[Any, float] | None = None,
        patches_per_scan: int = 8,
        patches_per_epoch: int | None = None,
        label: bool = True,
        **served: Any,
    ) -> None:
        one_of("sampling", sampling, ("uniform", "foreground", "level", "grade"))
        super().__init__(scans, needs_label=label or sampling == "foreground", **served)
        self.patch_size = voxels("patch_size", patch_size)
        self.sampling, self.label = sampling, label
        count = whole("patches_per_scan", patches_per_scan) * len(self.scans)
        if patches_per_epoch is not None:
            count = whole("patches_per_epoch", patches_per_epoch)
        if sampling in {"level", "grade"}:
            if vertebrae is None:
                raise UsageError(
                    f"sampling={sampling!r} needs vertebrae=, rows of release.vertebrae."
                )
            rows = read_rows(vertebrae, self.scans)
            self.rows, self._plan = plan_by_class(sampling, rows, weights, count, self.seed)
        elif weights is not None:
            raise UsageError(
                f"weights= has no meaning with sampling={sampling!r}; use 'level' or 'grade'."
            )
        else:
            shares = np.full(len(self.scans), 1 / max(len(self.scans), 1))
            self._plan = DrawPlan(shares, count, self.seed)

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def options(self) -> dict[str, Any]:
        """All options that the samples depend on."""
        return {
            "patch_size": list(self.patch_size),
            "sampling": self.sampling,
            "weights": self._plan.weights,
            "patches": len(self),
            "label": self.label,
            **super().options,
        }

    def scan_number(self, epoch: int, index: int) -> int:
        """Return the number of the scan that patch `index` of `epoch` is drawn from."""
        item = self._plan.item(epoch, index)
        return item if self.rows is None else int(self.rows["scan"][item])

    def _make(self, epoch: int, index: int, empty: Empty = fresh) -> Sample:
        number = self.scan_number(epoch, index)
        box = self._box(self._open(number), epoch, index)
        sample = self._boxed(number, box, empty, label=self.label)
        if self.rows is not None:
            row = self.rows[self._plan.item(epoch, index)]
            sample |= {"level": LEVELS[row["level"]], "grade": int(row["grade"])}
        return sample

    def _box(self, scan: OrientedScan, epoch: int, index: int) -> Box:
        key, size = (self.seed, DRAW, epoch, index), np.asarray(self.patch_size)
        if self.sampling == "uniform":
            first = np.floor(uniforms(3, *key) * (np.asarray(scan.shape) - size + 1))
            return fitted_box(first, self.patch_size, scan.shape)
        if self.rows is None:
            drawn = foreground(str(scan.reader.path)).voxel(uniforms(1, *key)[0])
            centre = scan.from_store(drawn)
        else:
            centroid = self.rows["centroid"][self._plan.item(epoch, index)]
            centre = scan.from_world(centroid) + (uniforms(3, *key) - 0.5) * size / 2
        return fitted_box(Box.around(centre, self.patch_size).start, self.patch_size, scan.shape)


def fitted_box(start: Iterable[float], size: Shape, shape: Shape) -> Box:
    """Return the box of `size` that starts at `start`, moved into a volume of `shape`.

    Along an axis where the volume is smaller than the box, the volume is centred in the box.
    """
    corner = [
        min(max(int(first), 0), room - part) if room >= part else -((part - room) // 2)
        for first, part, room in zip(start, size, shape, strict=True)
    ]
    return Box.of(corner, np.add(corner, size))


class Foreground:
    """Draws labelled voxels: counts those of each 32³ cell once, and then reads one cell per draw.

    Counting reads the mask in slabs of 32 slices, once per scan and process: a few ms for a scan of
    1 mm, 0.3 s for 512 x 512 x 1000 voxels.
    """

    def __init__(self, reader: ScanReader) -> None:
        self._reader = reader
        i, j, k = (range(0, size, _CELL) for size in reader.shape)
        counts = np.zeros((len(i), len(j), len(k)), dtype=np.int64)
        for slab, first in enumerate(k):
            label = self._labels(Box((0, 0, first), (*reader.shape[:2], first + _CELL)))
            if not label.any():
                continue
            for x, y in np.ndindex(len(i), len(j)):
                part = label[i[x] : i[x] + _CELL, j[y] : j[y] + _CELL]
                counts[x, y, slab] = np.count_nonzero(part)
        self._cells = np.argwhere(counts) * _CELL
        self._ends = np.cumsum(counts[counts > 0])

    def _labels(self, box: Box) -> npt.NDArray[np.uint8]:
        within = box.clipped(self._reader.shape)
        label: npt.NDArray[np.uint8] = self._reader.read(within, image=False)[1]
        return label

    def voxel(self, fraction: float) -> npt.NDArray[np.int64]:
        """Return the labelled voxel (x, y, z) of the store's grid at `fraction` in [0, 1)."""
        if not len(self._ends):
            raise ValidationFailed(
                f"The mask of {self._reader.scan_id} is empty, so no patch can be drawn around "
                f"its voxels. Leave the scan out, or use sampling='uniform'."
            )
        number = int(fraction * self._ends[-1])
        cell = int(np.searchsorted(self._ends, number, side="right"))
        first = self._cells[cell]
        label = self._labels(Box.of(first, first + _CELL))
        before = int(self._ends[cell - 1]) if cell else 0
        place = np.flatnonzero(label)[number - before]
        return np.asarray(first + np.array(np.unravel_index(place, label.shape)))


@lru_cache(maxsize=256)
def foreground(store: str) -> Foreground:
    """Return the labelled voxels of the store at a path, counted at the first use in a process."""
    return Foreground(ScanReader(Path(store)))
