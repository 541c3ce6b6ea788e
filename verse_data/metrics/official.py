"""What the challenge's published notebook gives, to compare with old numbers; never to report new ones.

A replica of ``utils/evaluate.ipynb`` of github.com/anjany/verse with its flaws, which are:

* Dice is that of all foreground as one, so 1.0 where every label is off by one.
* Masks are resampled to 1 mm with -1024 around them: in a mask that is stored as floating point or
  signed, voxels of the new grid outside the old one count as vertebra, in truth and prediction.
* Distances are in voxels of the scan's own grid, since centroids are scaled by the spacing of the
  mask after it was resampled, which is 1: 20 mm are 10 slices of 2 mm.
* A predicted point is compared only with true points of levels that were predicted too.
* A distance of exactly 20 hits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verse_data.metrics.identification import LIMIT_MM
from verse_data.spine.geometry import Array, apply_affine, voxel_sizes
from verse_data.spine.levels import LABEL_OF_LEVEL


@dataclass(frozen=True, kw_only=True)
class OfficialScores:
    """Figures of the notebook for one scan; NaN where masks or points are absent."""

    dice: float
    id_rate: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """Truth or prediction of a scan: its mask, and points in voxel indices, by level."""

    mask: Array | None
    is_signed: bool
    """Whether the file's number type has -1024: floating point, int16 …"""
    points: Mapping[str, npt.ArrayLike] | None


def official_scores(truth: Side, predicted: Side, affine: npt.ArrayLike) -> OfficialScores:
    """Return Dice and identification rate as the challenge's notebook computes them.

    Parameters
    ----------
    truth, predicted : Side
        Both on the grid of `affine`.
    affine : array of float, shape (4, 4)
        From voxel index to world mm.

    Returns
    -------
    OfficialScores
        To be compared with numbers of the same origin alone.
    """
    dice = math.nan
    if truth.mask is not None and predicted.mask is not None:
        one, other = (_foreground(side, affine) for side in (truth, predicted))
        total = int(one.sum()) + int(other.sum())
        dice = 2.0 * int((one & other).sum()) / total if total else 1.0
    if truth.points is None or predicted.points is None:
        return OfficialScores(dice=dice, id_rate=math.nan)
    true, found = _rounded(truth.points), _rounded(predicted.points)
    id_rate = _hits(true, found) / len(true) if true else math.nan
    return OfficialScores(dice=dice, id_rate=id_rate)


def _foreground(side: Side, affine: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return what is not zero in a mask after the notebook's resampling to 1 mm."""
    assert side.mask is not None
    shape = np.asarray(side.mask.shape)
    sizes = np.asarray(voxel_sizes(affine))
    finer = np.rint(shape * sizes).astype(int)
    matrix = np.asarray(affine, dtype=np.float64)
    # As nibabel's rescale_affine: the middle voxel stays where it is.
    target = matrix.copy()
    target[:3, :3] = matrix[:3, :3] / sizes
    middle = apply_affine(matrix, (shape - 1) // 2)
    target[:3, 3] = middle - target[:3, :3] @ ((finer - 1) // 2)
    back = np.linalg.inv(matrix) @ target
    outside = -1024.0 if side.is_signed else 0.0
    kept = ndimage.affine_transform(
        side.mask.astype(np.float32) if side.is_signed else side.mask,
        back[:3, :3],
        back[:3, 3],
        tuple(finer.tolist()),
        order=0,
        cval=outside,
    )
    found: npt.NDArray[np.bool_] = kept != 0
    return found


def _rounded(points: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[np.float64]]:
    """Return points in voxels with one decimal; those with NaN are left out."""
    placed = {level: np.asarray(point, dtype=np.float64) for level, point in points.items()}
    return {level: p.round(1) for level, p in placed.items() if np.isfinite(p).all()}


def _hits(truth: Mapping[str, Array], predicted: Mapping[str, Array]) -> int:
    """Count levels whose own true point is the nearest of those predicted too, and within 20."""
    shared = sorted(truth.keys() & predicted.keys(), key=LABEL_OF_LEVEL.__getitem__)
    hits = 0
    for place, level in enumerate(shared):
        apart = [float(np.linalg.norm(predicted[level] - truth[name])) for name in shared]
        hits += int(np.argmin(apart)) == place and apart[place] <= LIMIT_MM
    return hits
