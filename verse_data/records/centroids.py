"""Centroid files: one point per vertebra, in voxel indices of the scan's own grid.

Subject-based files are a list whose first entry holds the axis codes; MICCAI files lack it, and
their points lie in a 1 mm isotropic frame of their own. Source: VerSe centroid JSON files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError, field_validator

from verse_data.errors import UsageError, ValidationFailed
from verse_data.problems import shown
from verse_data.records.base import Record, described, read_json, rule_of
from verse_data.spine.geometry import check_axcodes
from verse_data.spine.levels import LEVEL_OF_LABEL

_SOURCE: Final = "centroid JSON"
_LIMIT_ENTRIES: Final = 200
_MAX_POSITION: Final = 1e6
"""More voxels than any image has along an axis; keeps world positions finite."""


def _position(axis: str, alias: str) -> Any:
    return described(f"Position along the {axis} axis", _SOURCE, unit="voxel", alias=alias)


class Centroid(Record):
    """Centre of one vertebral body (of the whole mask for C1)."""

    label: int = described("Mask label of the vertebra; T13 is 28", _SOURCE, ge=1, le=28)
    x: float = _position("first", "X")
    y: float = _position("second", "Y")
    z: float = _position("third", "Z")

    @field_validator("label")
    @classmethod
    def _names_a_vertebra(cls, label: int) -> int:
        if label not in LEVEL_OF_LABEL:
            raise ValueError("is not the label of a vertebra")
        return label

    @field_validator("x", "y", "z")
    @classmethod
    def _lies_in_an_image(cls, position: float) -> float:
        if abs(position) > _MAX_POSITION:
            raise ValueError("lies outside any image")
        return position

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


_POINTS: Final = TypeAdapter(list[Centroid])


class CentroidFile(Record):
    """All points of one scan."""

    direction: str | None = described(
        "Axis codes of the grid, such as PIR; null in MICCAI files", _SOURCE
    )
    points: tuple[Centroid, ...] = described("One point a vertebra, no label twice", _SOURCE)
    unplaced: tuple[int, ...] = described(
        "Labels whose entry holds NaN, and so has no position", _SOURCE, default=()
    )

    @property
    def frame(self) -> Literal["voxel", "isotropic"]:
        """Whether points are indices of the image grid, or lie in MICCAI's 1 mm frame."""
        return "voxel" if self.direction else "isotropic"


def parse_centroids(data: bytes, *, name: str) -> CentroidFile:
    """Read a centroid file of either variant, or raise ValidationFailed with all bad entries."""
    entries = read_json(data, name=name, allow_nan=True)
    if not isinstance(entries, list):
        raise ValidationFailed(
            f"{name}: a centroid file is a list of points. Restore the file from its source."
        )
    if len(entries) > _LIMIT_ENTRIES:
        raise ValidationFailed(
            f"{name}: {len(entries):,} entries are over the limit of {_LIMIT_ENTRIES}."
        )
    problems: list[str] = []
    direction, first = None, 0
    if entries and isinstance(entries[0], dict) and "direction" in entries[0]:
        direction, first = _direction(entries[0], problems), 1
    listed = entries[first:]
    points: list[Centroid] = []
    try:
        points = _POINTS.validate_python([_without_nan(entry) for entry in listed])
    except ValidationError as error:
        problems += _broken_rules(error, first)
    seen: dict[int, int] = {}
    for number, point in enumerate(points, start=first):
        first_use = seen.setdefault(point.label, number)
        if first_use != number:
            problems.append(f"entry {number}: label {point.label} is already in entry {first_use}")
    if problems:
        lines = shown(problems, indent="  ")
        raise ValidationFailed("\n".join([f"{name}: {len(problems)} bad entries:", *lines]))
    pairs = list(zip(points, listed, strict=True))
    return CentroidFile(
        direction=direction,
        points=tuple(point for point, entry in pairs if not _nan_axes(entry)),
        unplaced=tuple(point.label for point, entry in pairs if _nan_axes(entry)),
    )


def _direction(entry: dict[str, Any], problems: list[str]) -> str | None:
    letters = entry["direction"]
    codes = "".join(map(str, letters)) if isinstance(letters, list) else ""
    with suppress(UsageError):
        if len(entry) == 1 and list(codes) == letters and check_axcodes(codes) == codes:
            return codes
    rule = "is not three axis codes such as ['P', 'I', 'R'], alone in their entry"
    problems.append(f"entry 0: {str(letters)[:40]} {rule}")
    return None


def _nan_axes(entry: dict[str, Any]) -> list[str]:
    """Return which coordinates of a point are NaN."""
    return [key for key in "XYZ" if isinstance(at := entry.get(key), float) and math.isnan(at)]


def _without_nan(entry: Any) -> Any:
    """Return an entry with 0.0 for NaN coordinates, so that its other rules are still checked."""
    return entry | dict.fromkeys(_nan_axes(entry), 0.0) if isinstance(entry, dict) else entry


def _broken_rules(error: ValidationError, first: int) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        number, *where = problem["loc"]
        # The value of an unknown key may be personal data, and is not repeated.
        known = problem["type"] not in {"extra_forbidden", "missing"}
        value = f" {str(problem['input'])[:60]!r}" if known else ""
        place = f"entry {int(number) + first}, {'.'.join(map(str, where))[:60]}"
        yield f"{place}:{value} {rule_of(problem)}"
