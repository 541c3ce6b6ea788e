"""The levels of a spine in mask and centroids: their order, and which are rare, absent or skipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from verse_data.records.names import Role
from verse_data.spine.geometry import Grid, world_axes
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS, position
from verse_data.tables.join import ScanSources

Seen = Iterator[tuple[str, Role | None, str, str]]
"""Rule, role of the file, level, message."""

_RARE: Final = {
    "T13": ("t13", "a thirteenth thoracic vertebra; its label is 28"),
    "L6": ("l6", "a sixth lumbar vertebra; its label is 25"),
}
_WHOLE_L5_MM: Final = 80.0
"""An image that goes on so far below the middle of L4 shows the next vertebra as a whole."""


def level_rules(sources: ScanSources) -> Seen:
    """Yield what is odd in the labels of the mask, and in the levels of mask and centroids."""
    yield from _mask_rules(sources)
    for level in in_order(_RARE.keys() & sources.mask_levels):
        rule, message = _RARE[level]
        yield rule, "mask", level, message
    yield from _skipped_levels(sources)
    yield from _end_at_l4(sources)


def _mask_rules(sources: ScanSources) -> Seen:
    if sources.mask is None:
        return
    if not sources.mask.labels:
        yield "mask-empty", "mask", "", "all voxels of the mask are 0: no vertebra"
    masked, pointed = sources.mask_levels, set(sources.points)
    for label in sorted(set(sources.mask.labels) - set(LEVEL_OF_LABEL)):
        yield "label-unknown", "mask", "", f"label {label} names no vertebra"
    for level in in_order(masked):
        facts = sources.mask.labels[LABEL_OF_LEVEL[level]]
        if facts.crumbs:
            message = f"{facts.crumbs} of {facts.voxels:,} voxels lie apart from the vertebra"
            yield "crumbs", "mask", level, message
    if sources.centroids:
        for level in in_order(masked - pointed):
            yield "mask-without-centroid", "mask", level, f"{level} has a mask and no centroid"
        for level in in_order(pointed - masked):
            message = f"{level} has a centroid and no mask"
            yield "centroid-without-mask", "centroids", level, message


def _skipped_levels(sources: ScanSources) -> Seen:
    """Yield each level that mask and centroids lack between others; T13 is rare, T12 may be absent."""
    role: Role = "mask" if sources.mask else "centroids"
    for upper, lower in pairwise(in_order(sources.levels)):
        rule, why = "level-skipped", "; it was left out, or the labels of others are wrong"
        if (upper, lower) == ("T11", "L1"):
            rule, why = "no-t12", ""
        for level in LEVELS[position(upper) + 1 : position(lower)]:
            if level != "T13":
                yield rule, role, level, f"{lower} follows {upper}{why}"


def _end_at_l4(sources: ScanSources) -> Seen:
    """Yield L5 if the labels end at L4 though the image shows what lies below."""
    point, grid = sources.points.get("L4"), sources.grid
    if point and grid and sources.placed and not {"L5", "L6"} & sources.levels:
        below = _image_below(point.point, grid)
        if below > _WHOLE_L5_MM:
            message = (
                f"the labels end at L4, and the image goes on for {below:.0f} mm below its point: four "
                f"lumbar vertebrae, or L5 was left out"
            )
            yield "no-l5", "centroids", "L5", message


def _image_below(point: tuple[float, float, float], grid: Grid) -> float:
    """Return how far the image reaches below a voxel index, in mm along its axis from head to foot."""
    axes = world_axes(grid.affine)
    axis = next(axis for axis, (world, _) in enumerate(axes) if world == 2)
    voxels = point[axis] if axes[axis][1] > 0 else grid.shape[axis] - 1 - point[axis]
    return voxels * grid.spacing[axis]


def disorders(positions: Mapping[str, npt.ArrayLike]) -> Iterator[tuple[str, str]]:
    """Yield level and reason of each step from a level to the next that goes back along the spine.

    Of two neighbouring steps at 90 degrees or more, the one that descends less goes back; bends of
    real spines, such as kyphosis and scoliosis, stay far below 90 degrees. If no step goes back,
    the sequence as a whole may still run upwards.
    """
    levels = in_order(set(positions))
    if len(levels) < 2:
        return
    points = np.array([positions[level] for level in levels], dtype=np.float64)
    steps = np.diff(points, axis=0)
    backward = {
        place if steps[place, 2] >= steps[place + 1, 2] else place + 1
        for place in range(len(steps) - 1)
        if steps[place] @ steps[place + 1] <= 0
    }

    def at(place: int) -> str:
        return f"{levels[place]} lies at ({', '.join(f'{x:.1f}' for x in points[place])}) mm"

    for place in sorted(backward):
        upper, lower = levels[place], levels[place + 1]
        message = f"from {upper} to {lower} the labels go back along the spine"
        yield lower, f"{at(place)} and {at(place + 1)}: {message}"
    if not backward and points[-1, 2] >= points[0, 2]:
        yield levels[-1], f"{at(0)} and {at(-1)}: the labels run from foot to head"


def in_order(levels: set[str]) -> list[str]:
    """Return levels from head to foot."""
    return [level for level in LEVELS if level in levels]
