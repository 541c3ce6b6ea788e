"""How far a predicted mask agrees with the true one: Dice and surface distances of each level.

Both masks are on one grid; nothing is resampled. A surface is the centres of the voxels of a label
that have a face neighbour outside it, as in MONAI and medpy, in world mm: so distances are right on
oblique and anisotropic grids. (`surface-distance` 0.1, which weighs surface elements by their area,
uses names that NumPy 2 has dropped and SciPy 2 drops.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from verse_data.errors import UsageError, ValidationFailed
from verse_data.machine import allowed_cores
from verse_data.spine.geometry import Array, apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS

Points = npt.NDArray[np.float64]
_LABELS: Final = 29
"""Background, and labels up to T13's 28."""
_BLOCK: Final = 1 << 22
_ROBUST: Final = 95.0
SHIFTS: Final = (-1, 0, 1)
_RESERVED: Final = {
    26: "If it stands for T13, as in exports for nnU-Net and MONAI, verse-data predictions import "
    "makes it 28; if it is the sacrum, write 0.",
    27: "If it is the coccyx, write 0.",
}
_WITHOUT_T13: Final = [level for level in LEVELS if level != "T13"]


@dataclass(frozen=True)
class Overlap:
    """Voxels of a scan by true and predicted label: `counts[truth, prediction]`, shape (29, 29)."""

    counts: npt.NDArray[np.int64]

    @property
    def truth(self) -> dict[str, int]:
        """Voxels of each level in the true mask."""
        return _by_level(self.counts.sum(axis=1))

    @property
    def predicted(self) -> dict[str, int]:
        """Voxels of each level in the predicted mask."""
        return _by_level(self.counts.sum(axis=0))

    def dice(self, level: str, other: str | None = None) -> float:
        """Return the Dice of a true level with the predicted one, or with the predicted `other`."""
        return _dice(self.counts, LABEL_OF_LEVEL[level], LABEL_OF_LEVEL[other or level])

    @property
    def foreground(self) -> float:
        """Dice of all vertebrae as one; NaN if neither mask has any."""
        both = int(self.counts[1:, 1:].sum())
        total = int(self.counts[1:].sum() + self.counts[:, 1:].sum())
        return 2 * both / total if total else math.nan

    def shifted(self, shift: int) -> float:
        """Return the mean Dice of the true levels with the predicted ones `shift` further down."""
        found = [
            max((self.dice(level, other) for other in neighbours(level, shift)), default=0.0)
            for level in self.truth
        ]
        return float(np.mean(found)) if found else math.nan


def _by_level(voxels: Array) -> dict[str, int]:
    return {level: int(n) for label, level in LEVEL_OF_LABEL.items() if (n := voxels[label])}


def _dice(counts: Array, truth: int, predicted: int) -> float:
    total = int(counts[truth].sum() + counts[:, predicted].sum())
    return 2 * int(counts[truth, predicted]) / total if total else math.nan


def neighbours(level: str, shift: int) -> list[str]:
    """Return the levels `shift` further down: T13, which most spines lack, or what lies beyond it."""
    if level == "T13" or not shift:
        return [{-1: "T12", 0: level, 1: "L1"}[shift]]
    place = _WITHOUT_T13.index(level) + shift
    beyond = _WITHOUT_T13[place : place + 1] if place >= 0 else []
    return beyond + ["T13"] * ((level, shift) in {("T12", 1), ("L1", -1)})


def overlap(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, *, name: str = "predicted mask"
) -> Overlap:
    """Count the voxels of two masks by true and predicted label.

    Parameters
    ----------
    truth, predicted : array of int, shape (I, J, K)
        VerSe's labels (T13 is 28) on the same grid.
    name : str
        What messages call the prediction.

    Returns
    -------
    Overlap
        Voxel counts, and Dice by level, of all vertebrae as one, and under a shift of labels.

    Raises
    ------
    UsageError
        If the shapes differ: nothing is resampled.
    ValidationFailed
        If a value is no label, or the prediction has that of the sacrum, which the truth lacks.
    """
    masks = [_checked(np.asarray(truth), "true mask"), _checked(np.asarray(predicted), name)]
    if masks[0].shape != masks[1].shape:
        raise UsageError(
            f"{name}: its shape is {masks[1].shape}, and that of the true mask {masks[0].shape}. Put "
            f"the prediction back on the scan's own grid first; no mask is resampled here."
        )
    # NIfTI's arrays are in Fortran's order; transposed, both are flat without a copy.
    is_fortran = masks[0].flags.f_contiguous
    one, other = ((mask.T if is_fortran else mask).ravel() for mask in masks)
    counts = np.zeros(_LABELS * _LABELS, np.int64)
    for start in range(0, one.size, _BLOCK):
        # Both labels in one number; in blocks, since bincount makes eight bytes of each voxel.
        pairs = one[start : start + _BLOCK].astype(np.int16) * _LABELS
        pairs += other[start : start + _BLOCK].astype(np.int16)
        counts += np.bincount(pairs, minlength=counts.size)
    table = counts.reshape(_LABELS, _LABELS)
    _refuse_reserved(table, name)
    return Overlap(table)


def _checked(mask: Array, name: str) -> Array:
    """Return a mask if all its values are labels; boolean and floating ones are refused."""
    if mask.ndim != 3 or mask.dtype.kind not in "iu":
        raise UsageError(
            f"{name}: its shape is {mask.shape} and its type {mask.dtype}; give a volume of whole "
            f"numbers, such as uint8."
        )
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if low < 0 or high >= _LABELS:
        raise ValidationFailed(
            f"{name}: its values are {low} to {high}, and VerSe's labels 0 to {_LABELS - 1}."
        )
    return mask


def _refuse_reserved(counts: Array, name: str) -> None:
    """Raise ValidationFailed if the prediction alone has label 26 or 27, of no vertebra."""
    for label in _RESERVED:
        voxels = int(counts[:, label].sum())
        if voxels and not counts[label].any():
            raise ValidationFailed(
                f"{name}: {voxels:,} voxels have label {label}, which is no vertebra in VerSe. "
                f"{_RESERVED[label]}"
            )


@dataclass(frozen=True)
class Structure:
    """One label of a mask in world mm: its mean voxel, and the voxels of its surface."""

    centre: Points
    surface: Points

    @classmethod
    def all_of(cls, mask: Array, affine: npt.ArrayLike) -> dict[str, Structure]:
        """Return each level that a mask has."""
        boxes = ndimage.find_objects(mask, max_label=_LABELS - 1)
        return {
            level: cls._cut(mask, boxes[label - 1], label, affine)
            for label, level in LEVEL_OF_LABEL.items()
            if boxes[label - 1] is not None
        }

    @classmethod
    def _cut(cls, mask: Array, box: Any, label: int, affine: npt.ArrayLike) -> Structure:
        inside = np.pad(mask[box] == label, 1)
        core = inside.copy()
        for axis in range(3):
            for step in (-1, 1):
                core &= np.roll(inside, step, axis)
        # Away from the padding again.
        start = np.array([part.start for part in box]) - 1
        centre = np.argwhere(inside).mean(axis=0) + start
        surface = np.argwhere(inside & ~core) + start
        return cls(apply_affine(affine, centre), apply_affine(affine, surface))


def hausdorff(truth: Points, predicted: Points) -> tuple[float, float]:
    """Return the Hausdorff distance of two surfaces and its 95th percentile, in mm.

    Parameters
    ----------
    truth, predicted : array of float, shape (N, 3) and (M, 3)
        Points of the surfaces in world mm, at least one each.

    Returns
    -------
    tuple of float
        The larger of both directed maxima; and the larger of both directed 95th percentiles.
    """
    cores = max(1, int(allowed_cores()))
    there: Any = cKDTree(predicted).query(truth, workers=cores)[0]
    back: Any = cKDTree(truth).query(predicted, workers=cores)[0]
    return (
        float(max(there.max(), back.max())),
        float(max(np.percentile(there, _ROBUST), np.percentile(back, _ROBUST))),
    )


def surface_distances(
    truth: Mapping[str, Structure], predicted: Mapping[str, Structure]
) -> dict[str, tuple[float, float]]:
    """Return Hausdorff distance and HD95 in mm of each level that both masks have."""
    return {
        level: hausdorff(one.surface, predicted[level].surface)
        for level, one in truth.items()
        if level in predicted
    }
