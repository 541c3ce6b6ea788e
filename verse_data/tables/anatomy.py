"""Whether the labels of a scan follow one another down the spine, told by its centroids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from verse_data.spine.levels import LEVELS

Point = npt.NDArray[np.float64]


class Disorder(NamedTuple):
    """Two levels whose positions contradict their order, with the reason."""

    level: str
    message: str


def disorders(positions: Mapping[str, npt.ArrayLike]) -> Iterator[Disorder]:
    """Yield each step from a level to the next one that goes back along the spine.

    A step goes back if it makes an angle of 90 degrees or more with a neighbouring step; of the two
    that one is meant which leads less far down. The bends of a real spine, kyphosis and scoliosis
    among them, stay far below. Where no step goes back, the whole may still run upwards.
    """
    levels = [level for level in LEVELS if level in positions]
    if len(levels) < 2:
        return
    points = np.array([positions[level] for level in levels], dtype=np.float64)
    steps = np.diff(points, axis=0)
    backward = {
        place if steps[place, 2] >= steps[place + 1, 2] else place + 1
        for place in range(len(steps) - 1)
        if steps[place] @ steps[place + 1] <= 0
    }
    for place in sorted(backward):
        upper, lower = levels[place], levels[place + 1]
        yield Disorder(
            lower,
            f"{_at(upper, points[place])} and {_at(lower, points[place + 1])}: from {upper} to "
            f"{lower} the labels go back along the spine",
        )
    if not backward and points[-1, 2] >= points[0, 2]:
        yield Disorder(
            levels[-1],
            f"{_at(levels[0], points[0])} and {_at(levels[-1], points[-1])}: the labels run from "
            f"foot to head",
        )


def _at(level: str, point: Point) -> str:
    return f"{level} lies at ({', '.join(f'{value:.1f}' for value in point)}) mm"
