"""Centroid files: one point per vertebra, in voxel indices of the scan's own grid.

Subject-based files are a list whose first entry holds the axis codes; MICCAI files lack it, and
their points lie in a 1 mm isotropic frame of their own. TPTBox's files say more in the first entry,
and hold many points of a vertebra: that of its body, or of the whole mask, has the number 50.
Source: VerSe centroid JSON files; TPTBox 1.1, core/poi_fun/save_load.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from verse_data.errors import UsageError, ValidationFailed
from verse_data.problems import shown
from verse_data.records.base import Record, described, read_json, rule_of
from verse_data.spine.geometry import Grid, check_axcodes
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL

_SOURCE: Final = "centroid JSON"
_LIMIT_ENTRIES: Final = 200
_MAX_POSITION: Final = 1e6
"""More voxels than any image has along an axis; keeps world positions finite."""
_OTHERS: Final = {"S1": 26, "COCC": 27, "S2": 29, "S3": 30, "S4": 31, "S5": 32, "S6": 33}
"""Sacrum and coccyx in TPTBox; VerSe reserves 26 and 27, and labels neither."""
_LABEL_OF_NAME: Final = LABEL_OF_LEVEL | _OTHERS
_CENTRE: Final = 50
"""TPTBox's number of the centre of a vertebral body, or of the whole mask of a vertebra."""
_PLACES: Final = 256
"""A label in TPTBox's lists is the number of the point times this, plus the vertebra's label."""

_Placed = list[tuple[str, Any]]
"""Entries, each after its place in the file."""
_Three = Annotated[list[float], Field(min_length=3, max_length=3)]


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


class _Head(Record, extra="ignore"):
    """First entry, of which VerSe has the direction alone; what else TPTBox writes is not needed."""

    direction: str
    shape: _Three | None = None
    zoom: _Three | None = None
    format: Literal["docker", "POI"] | None = None
    level_one_info: Literal["Any", "Vertebra_Instance"] = "Any"
    level_two_info: Literal["Any", "Location"] = "Any"

    @field_validator("direction", mode="before")
    @classmethod
    def _names_axes(cls, letters: Any) -> str:
        codes = "".join(map(str, letters)) if isinstance(letters, list) else ""
        with suppress(UsageError):
            if list(codes) == letters and check_axcodes(codes) == codes:
                return codes
        raise ValueError("is not three axis codes such as ['P', 'I', 'R']")


_HEAD: Final = TypeAdapter(list[_Head])
_POINTS: Final = TypeAdapter(list[Centroid])


class CentroidFile(Record):
    """All points of one scan."""

    direction: str | None = described(
        "Axis codes of the grid, such as PIR; null in MICCAI files", _SOURCE
    )
    shape: _Three | None = described("Voxels of the grid, if TPTBox says it", _SOURCE, default=None)
    zoom: _Three | None = described(
        "Voxel size of the grid, if TPTBox says it", _SOURCE, unit="mm", default=None
    )
    points: tuple[Centroid, ...] = described("One point a vertebra, no label twice", _SOURCE)
    unplaced: tuple[int, ...] = described(
        "Labels whose entry holds NaN, and so has no position", _SOURCE, default=()
    )
    others: tuple[int, ...] = described(
        "Labels of sacrum and coccyx, whose points are not read", _SOURCE, default=()
    )

    def fits(self, grid: Grid) -> bool:
        """Return whether points are indices of `grid`; those in MICCAI's own frame are of none."""
        if self.direction != grid.axcodes:
            return False
        if self.shape:
            return _nearly(self.shape, grid.shape, 0.5)
        return not self.zoom or _nearly(self.zoom, grid.spacing, 0.02)


def _nearly(ours: Sequence[float], others: Sequence[float], most: float) -> bool:
    return max(abs(one - other) for one, other in zip(ours, others, strict=True)) < most


def parse_centroids(data: bytes, *, name: str) -> CentroidFile:
    """Read a centroid file of VerSe or TPTBox, or raise ValidationFailed with all bad entries."""
    entries = read_json(data, name=name, allow_nan=True)
    first = entries[0] if isinstance(entries, list) and entries else None
    keys = first.keys() if isinstance(first, dict) else set()
    # Without a direction, these keys are of files with points in mm.
    is_in_mm = "direction" not in keys and keys & {"coordinate_system", "format", "vert_label"}
    if not isinstance(entries, list) or is_in_mm:
        raise ValidationFailed(
            f"{name}: a centroid file is a list of points in voxels of the CT. Restore the file from "
            f"its source, or save the points on the grid of the CT: POI.save of TPTBox."
        )
    problems: list[str] = []
    listed = [(f"entry {number}", entry) for number, entry in enumerate(entries)]
    head: dict[str, Any] = {"direction": None}
    if "direction" in keys and "label" not in keys:
        try:
            (valid,) = _HEAD.validate_python([first])
            head = valid.model_dump(include={"direction", "shape", "zoom"})
        except ValidationError as error:
            problems += _broken_rules(error, ["entry 0"])
        listed = listed[1:]
        if len(keys) > 1:
            listed = [] if problems else _centres(listed, problems)
    if len(listed) > _LIMIT_ENTRIES:
        raise ValidationFailed(
            f"{name}: {len(listed):,} entries are over the limit of {_LIMIT_ENTRIES}."
        )
    others = tuple(sorted({entry["label"] for _, entry in listed if _is_other(entry)}))
    listed = [(place, entry) for place, entry in listed if not _is_other(entry)]
    points: list[Centroid] = []
    try:
        points = _POINTS.validate_python([_without_nan(entry) for _, entry in listed])
    except ValidationError as error:
        problems += _broken_rules(error, [place for place, _ in listed])
    seen: dict[int, str] = {}
    for (place, _), point in zip(listed, points, strict=False):
        first_use = seen.setdefault(point.label, place)
        if first_use != place:
            problems.append(f"{place}: label {point.label} is already in {first_use}")
    if problems:
        lines = shown(problems, indent="  ")
        raise ValidationFailed("\n".join([f"{name}: {len(problems)} bad entries:", *lines]))
    pairs = [(point, entry) for point, (_, entry) in zip(points, listed, strict=True)]
    return CentroidFile(
        **head,
        points=tuple(point for point, entry in pairs if not _nan_axes(entry)),
        unplaced=tuple(point.label for point, entry in pairs if _nan_axes(entry)),
        others=others,
    )


def _centres(listed: _Placed, problems: list[str]) -> _Placed:
    """Return the centres of vertebrae among TPTBox's points, as entries such as VerSe's."""
    found: _Placed = []
    for place, entry in listed:
        label = entry.get("label") if isinstance(entry, dict) else 0
        if label is None:  # {"L1": {"50": [X, Y, Z], "42": …}, …}
            for level, points in entry.items():
                at = points.get(str(_CENTRE)) if isinstance(points, dict) else str(points)
                own = (
                    int(level)
                    if level.isdecimal() and len(level) < 4
                    else _LABEL_OF_NAME.get(level.upper(), level)
                )
                xyz = dict(zip("XYZW", at if isinstance(at, list) else [at], strict=False))
                found += [(f"{place}, {level[:20]}", {"label": own, **xyz})] if at else []
        elif type(label) is not int or label < _PLACES:
            found.append((place, entry))
        elif label // _PLACES == _CENTRE:
            found.append((place, entry | {"label": label % _PLACES}))
    if listed and not found:
        problems.append(f"no point is the centre of a vertebra, number {_CENTRE} of TPTBox")
    return found


def _is_other(entry: Any) -> bool:
    label = entry.get("label") if isinstance(entry, dict) else None
    return type(label) is int and label in _OTHERS.values()


def _nan_axes(entry: dict[str, Any]) -> list[str]:
    """Return which coordinates of a point are NaN."""
    return [key for key in "XYZ" if isinstance(at := entry.get(key), float) and math.isnan(at)]


def _without_nan(entry: Any) -> Any:
    """Return an entry with 0.0 for NaN coordinates, so that its other rules are still checked."""
    return entry | dict.fromkeys(_nan_axes(entry), 0.0) if isinstance(entry, dict) else entry


def _broken_rules(error: ValidationError, places: Sequence[str]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        number, *where = problem["loc"]
        # The value of an unknown key may be personal data, and is not repeated.
        known = problem["type"] not in {"extra_forbidden", "missing"}
        value = f" {str(problem['input'])[:60]!r}" if known else ""
        yield f"{places[int(number)]}, {'.'.join(map(str, where))[:60]}:{value} {rule_of(problem)}"
