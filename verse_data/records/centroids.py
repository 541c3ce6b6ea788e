"""Centroid files: one point a vertebra, in voxel indices of the scan's own grid.

Subject-based files are a list whose first entry says the axis codes; MICCAI files lack it, and
their points lie in a 1 mm isotropic frame of their own. Source: VerSe centroid JSON files.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from verse_data.errors import UsageError, ValidationFailed
from verse_data.records.base import Record, described, read_json, rule_of
from verse_data.spine.geometry import check_axcodes
from verse_data.spine.levels import LEVEL_OF_LABEL

_SOURCE: Final = "centroid JSON"
_SHOWN: Final = 20
_LIMIT_ENTRIES: Final = 200
_FARTHEST: Final = 1e6
"""No image has as many voxels along an axis; world positions farther out would not be finite."""


def _position(axis: str) -> Any:
    return described(f"Position along the {axis} axis", source=_SOURCE, unit="voxel")


class Centroid(Record):
    """Centre of one vertebral body (of the whole mask for C1)."""

    label: Annotated[
        int, described("Mask label of the vertebra; T13 is 28", source=_SOURCE, ge=1, le=28)
    ]
    x: Annotated[float, Field(alias="X"), _position("first")]
    y: Annotated[float, Field(alias="Y"), _position("second")]
    z: Annotated[float, Field(alias="Z"), _position("third")]

    @property
    def level(self) -> str:
        """Anatomical name of the level."""
        return LEVEL_OF_LABEL[self.label]

    @property
    def point(self) -> tuple[float, float, float]:
        """The three coordinates."""
        return (self.x, self.y, self.z)

    @property
    def voxel(self) -> tuple[int, int, int]:
        """The nearest voxel."""
        return (round(self.x), round(self.y), round(self.z))


class CentroidFile(Record):
    """All points of one scan."""

    direction: Annotated[
        str | None,
        described("Axis codes of the grid, such as PIR; null in MICCAI files", source=_SOURCE),
    ]
    points: Annotated[
        tuple[Centroid, ...], described("One point a vertebra, no label twice", source=_SOURCE)
    ]
    unplaced: Annotated[
        tuple[int, ...],
        described("Labels whose entry holds NaN, and so has no position", source=_SOURCE),
    ] = ()

    @property
    def frame(self) -> Literal["voxel", "isotropic"]:
        """Whether points are indices of the image grid, or lie in MICCAI's 1 mm frame."""
        return "voxel" if self.direction else "isotropic"


def parse_centroids(data: bytes, *, name: str) -> CentroidFile:
    """Read a centroid file of either variant, or raise ValidationFailed with all bad entries."""
    entries = read_json(data, name=name, allow_nan=True)
    if not isinstance(entries, list):
        raise ValidationFailed(
            f"{name}: a centroid file is a list of points, and this one is {_kind(entries)}. "
            f"Restore the file from its source."
        )
    if len(entries) > _LIMIT_ENTRIES:
        raise ValidationFailed(
            f"{name}: {len(entries):,} entries are over the limit of {_LIMIT_ENTRIES}."
        )
    problems: list[str] = []
    direction, first = None, 0
    if entries and isinstance(entries[0], dict) and "direction" in entries[0]:
        direction, first = _direction(entries[0], problems), 1
    points: list[Centroid] = []
    unplaced: list[int] = []
    seen: dict[int, int] = {}
    for number, entry in enumerate(entries[first:], start=first):
        point = _point(number, entry, problems)
        if point is None:
            continue
        label = point if isinstance(point, int) else point.label
        if label in seen:
            problems.append(f"entry {number}: label {label} stands in entry {seen[label]} already")
        seen[label] = number
        if isinstance(point, int):
            unplaced.append(point)
        else:
            points.append(point)
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        lines = "\n  ".join([*problems[:_SHOWN], *more])
        raise ValidationFailed(f"{name}: {len(problems)} bad entries:\n  {lines}")
    return CentroidFile(direction=direction, points=tuple(points), unplaced=tuple(unplaced))


def _direction(entry: dict[str, Any], problems: list[str]) -> str | None:
    letters = entry["direction"]
    codes = "".join(map(str, letters)) if isinstance(letters, list) else ""
    with suppress(UsageError):
        if len(entry) == 1 and list(codes) == letters and check_axcodes(codes) == codes:
            return codes
    more = f" beside {len(entry) - 1} other keys" if len(entry) > 1 else ""
    problems.append(
        f"entry 0: {str(letters)[:40]}{more} is not three axis codes such as ['P', 'I', 'R']"
    )
    return None


def _point(number: int, entry: Any, problems: list[str]) -> Centroid | int | None:
    """Return the point, or its bare label if a coordinate is NaN, or None if it is bad."""
    if not isinstance(entry, dict):
        problems.append(f"entry {number}: {_kind(entry)} where a point was expected")
        return None
    missing = [key for key in "XYZ" if isinstance(at := entry.get(key), float) and math.isnan(at)]
    try:
        point = Centroid.model_validate({**entry, **dict.fromkeys(missing, 0.0)})
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            where = ".".join(map(str, problem["loc"]))[:60]
            # What stands under a key of nobody's may be a name, and is not repeated.
            known = problem["type"] not in {"extra_forbidden", "missing"}
            shown = f" {str(problem['input'])[:60]!r}:" if known else ""
            problems.append(f"entry {number}, {where}:{shown} {rule_of(problem)}")
        return None
    far = [f"{key}: {x:g}" for key, x in zip("XYZ", point.point, strict=True) if abs(x) > _FARTHEST]
    if point.label not in LEVEL_OF_LABEL:
        problems.append(f"entry {number}, label: {point.label} names no vertebra")
    elif far:
        problems.append(f"entry {number}, {', '.join(far)} lies beyond every image")
    else:
        return point.label if missing else point
    return None


def _kind(value: Any) -> str:
    words: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
    }
    return "null" if value is None else words.get(type(value), f"the number {str(value)[:40]}")
