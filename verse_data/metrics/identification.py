"""Which vertebrae a prediction names rightly: identification rate and localisation distance.

A vertebra is identified ("hit") if the point predicted for it lies closer than 20 mm to its true
point, and no other true point of the scan lies closer. Source: "Tasks" of verse2019.grand-challenge.org;
Sekuboyina et al. 2021, doi 10.1016/j.media.2021.102166.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError, one_of
from verse_data.spine.levels import LEVELS, position

Hit = Literal["lt20", "le20"]
HITS: Final[tuple[Hit, ...]] = ("lt20", "le20")
LIMIT_MM: Final = 20.0
Status = Literal["found", "missing", "additional"]


@dataclass(frozen=True, kw_only=True)
class Identified:
    """What became of one vertebra: `missing` has no predicted point, `additional` no true one."""

    status: Status
    hit: bool
    distance_mm: float | None = None
    """From the predicted point to the true one of the same level."""
    nearest: str | None = None
    """Level of the true point nearest to the predicted one."""


def identify(
    truth: Mapping[str, npt.ArrayLike],
    predicted: Mapping[str, npt.ArrayLike],
    *,
    hit: Hit = "lt20",
) -> dict[str, Identified]:
    """Compare the predicted points of one scan with the true ones.

    Points with NaN count as absent. Where two true points are equally near, either counts as nearest.

    Parameters
    ----------
    truth, predicted : mapping of str to (3,) float
        Point of each level, such as ``"T12"``, in world mm.
    hit : {"lt20", "le20"}
        Whether a point at exactly 20 mm misses, as the challenge's text has it, or hits, as its code.

    Returns
    -------
    dict of str to Identified
        Every level that either has, in spine order.

    Raises
    ------
    UsageError
        If there is no such level, a point has not three coordinates, or `hit` is another word.
    """
    one_of("hit", hit, HITS)
    true, found = _placed(truth), _placed(predicted)
    return {
        level: _identified(level, true, found.get(level), hit)
        for level in LEVELS
        if level in true or level in found
    }


def _placed(points: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the points that have a place."""
    placed = {}
    for level, point in points.items():
        position(level)  # refuses what is no level
        place = np.asarray(point, dtype=np.float64)
        if place.shape != (3,):
            raise UsageError(
                f"The point of {level} has shape {place.shape}; give three coordinates."
            )
        if np.isfinite(place).all():
            placed[level] = place
    return placed


def _identified(
    level: str,
    truth: Mapping[str, npt.NDArray[np.float64]],
    point: npt.NDArray[np.float64] | None,
    rule: Hit,
) -> Identified:
    """Judge one level by the distances from its predicted point to all true points."""
    if point is None:
        return Identified(status="missing", hit=False)
    distances = {name: float(np.linalg.norm(place - point)) for name, place in truth.items()}
    nearest = min(distances, key=distances.__getitem__, default=None)
    own = distances.get(level)
    if own is None:
        return Identified(status="additional", hit=False, nearest=nearest)
    within = own < LIMIT_MM if rule == "lt20" else own <= LIMIT_MM
    is_nearest = own <= min(distances.values())
    return Identified(
        status="found",
        hit=within and is_nearest,
        distance_mm=own,
        nearest=level if is_nearest else nearest,
    )
