"""The vertebrae of a synthetic patient: sizes, positions along the sagittal curve, and solids.

Coordinates are millimetres in the patient: `a` anterior, `u` up (cranial), `r` to the right.
Sizes are rounded means of adults from the vertebral morphometry of Panjabi et al. (Spine
1991-1992); they need to look plausible, not to represent a population.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt

from verse_data.spine.levels import LEVELS

Field = npt.NDArray[np.float32]
Point = tuple[float, float, float]

SACRUM: Final = "S1"
_MARGIN_MM: Final = 6.0
_HALF_WIDTH_MM: Final = 52.0

# Anchors along the spine (C1 = 0, T1 = 7, L1 = 19, S1 = 24), and the values in mm or degrees.
_ANCHORS: Final = (0.0, 2.0, 6.0, 7.0, 12.0, 18.0, 19.0, 21.0, 23.0, 24.0)
_SIZES: Final = {
    "height": (12.0, 14.0, 15.0, 17.0, 19.5, 24.0, 26.0, 27.5, 28.0, 29.0),
    "depth": (16.0, 16.0, 17.0, 18.0, 26.0, 31.0, 32.0, 34.0, 35.0, 33.0),
    "width": (22.0, 22.0, 28.0, 30.0, 29.0, 41.0, 43.0, 47.0, 51.0, 54.0),
    "spinous": (8.0, 14.0, 26.0, 30.0, 36.0, 26.0, 27.0, 29.0, 25.0, 8.0),
    "transverse": (16.0, 11.0, 14.0, 17.0, 16.0, 8.0, 16.0, 21.0, 19.0, 0.0),
    "pedicle": (3.0, 3.0, 3.5, 4.0, 4.2, 6.0, 6.2, 6.8, 7.5, 7.0),
}
_DISC: Final = (3.0, 5.0, 5.0, 4.0, 4.5, 6.5, 8.0, 10.0, 10.0, 6.0)
# Tilt of the upper endplate, positive if it slopes down to the front: cervical lordosis, thoracic
# kyphosis and lumbar lordosis.
_TILT: Final = (-4.0, -2.0, 16.0, 20.0, 2.0, -14.0, -13.0, 1.0, 20.0, 36.0)
_SPINOUS_DROP: Final = (5.0, 12.0, 25.0, 35.0, 55.0, 25.0, 12.0, 8.0, 8.0, 20.0)

_LOSS_OF_GRADE: Final = {1: (0.20, 0.25), 2: (0.27, 0.39), 3: (0.43, 0.58)}
_SHAPE_NAMES: Final = {1: "wedge", 2: "biconcave", 3: "crush"}


@dataclass(frozen=True, kw_only=True)
class Vertebra:
    """One vertebra: its position, size and fracture; lengths in mm, angles in radians."""

    level: str
    centre: Point  # middle of the vertebral body (a, u, r)
    tilt: float  # by which the body's cranial axis leans forward
    height: float  # of the intact body, as are depth and width
    depth: float
    width: float
    spinous: float  # length of the spinous process
    spinous_drop: float  # its angle, downwards
    transverse: float  # length of the transverse process beyond the body
    pedicle: float  # half its thickness
    fracture_type: str = "none"  # or wedge, biconcave, crush
    loss: float = 0.0  # fraction of the body's height, by Genant's definition for this shape

    @property
    def rear(self) -> float:
        """Local anterior coordinate of the tip of the spinous process, mm."""
        return -self.depth / 2 - 20 - self.spinous

    @property
    def lowest(self) -> float:
        """Cranial coordinate (patient's frame) that the whole vertebra stays above, mm."""
        drop = 0.15 * self.height + self.spinous * math.sin(self.spinous_drop)
        lever = self.depth / 2 + 20 + self.spinous * math.cos(self.spinous_drop)
        tip = -drop * math.cos(self.tilt) + lever * math.sin(self.tilt)
        return self.centre[1] + min(tip - 15, -self.height / 2 - 16)


def place(
    column: Sequence[str], *, fractures: Mapping[str, tuple[int, int]], rng: np.random.Generator
) -> list[Vertebra]:
    """Return the vertebrae of `column`, cranio-caudally; size and curve are drawn with `rng`."""
    size, curve, sway = (float(rng.uniform(*ends)) for ends in ((0.95, 1.05), (0.8, 1.1), (-3, 3)))
    # One draw for each of all levels, so that a patient's vertebra is the same in each series.
    spread = dict(zip(LEVELS, rng.random(len(LEVELS)), strict=True))
    placed: list[Vertebra] = []
    a = u = 0.0
    for level in column:
        shape, loss = _deformity(fractures.get(level), spread.get(level, 0.0))
        tilt = float(np.deg2rad(curve * _at(level, _TILT)))
        height, disc = (size * _at(level, values) for values in (_SIZES["height"], _DISC))
        # A crushed body is lower as a whole, and the vertebrae below it move up.
        half = height * (1 - (loss if shape == "crush" else loss / 3)) / 2
        a, u = a - half * math.sin(tilt), u - half * math.cos(tilt)
        placed.append(
            Vertebra(
                level=level,
                # Rounded, as the last bits of a sine differ between processors.
                centre=(round(a, 6), round(u, 6), round(sway * math.sin(_anchor(level) / 4), 6)),
                tilt=round(tilt, 6),
                **{name: size * _at(level, values) for name, values in _SIZES.items()},
                spinous_drop=float(np.deg2rad(_at(level, _SPINOUS_DROP))),
                fracture_type=shape,
                loss=loss,
            )
        )
        a, u = a - (half + disc) * math.sin(tilt), u - (half + disc) * math.cos(tilt)
    return placed


def _deformity(finding: tuple[int, int] | None, spread: float) -> tuple[str, float]:
    if finding is None:
        return "none", 0.0
    low, high = _LOSS_OF_GRADE[finding[0]]
    return _SHAPE_NAMES[finding[1]], float(low + spread * (high - low))


def _at(level: str, values: tuple[float, ...]) -> float:
    return float(np.interp(_anchor(level), _ANCHORS, values))


def _anchor(level: str) -> float:
    """Return the position of a level among the anchors; extra ones are between their neighbours."""
    extra = {"T13": 18.5, "L6": 23.5, SACRUM: 24.0}
    if level in extra:
        return extra[level]
    usual = [name for name in LEVELS if name not in extra]
    return float(usual.index(level))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid with axes (P, I, R); `origin` is the position (a, u, r) of voxel (0, 0, 0) in mm."""

    shape: tuple[int, int, int]
    origin: Point
    in_plane: float
    slice_mm: float

    @property
    def sizes(self) -> Point:
        """Voxel size in mm along P, I and R."""
        return (self.in_plane, self.in_plane, self.slice_mm)

    def index(self, point: Point) -> npt.NDArray[np.float64]:
        """Return the voxel index of a point (a, u, r) in mm."""
        a, u, r = (value - zero for value, zero in zip(point, self.origin, strict=True))
        return np.array([-a / self.in_plane, -u / self.in_plane, r / self.slice_mm])


@dataclass(frozen=True)
class Local:
    """Coordinates of some voxels in a vertebra's own frame, mm; `r` is an absolute value."""

    where: tuple[slice, slice, slice]
    a: Field
    u: Field
    r: Field


def local(vertebra: Vertebra, grid: Grid) -> Local:
    """Return the voxels of `grid` that may belong to `vertebra`, in its frame."""
    reach_up = max(vertebra.height * 1.4, vertebra.height / 2 + 24) + _MARGIN_MM
    rear, front = vertebra.rear - _MARGIN_MM, vertebra.depth / 2 + _MARGIN_MM
    corners = [(a, u) for a in (rear, front) for u in (-reach_up - 8, reach_up)]
    cos, sin = round(math.cos(vertebra.tilt), 9), round(math.sin(vertebra.tilt), 9)
    a0, u0, r0 = vertebra.centre
    world = [(a0 + a * cos + u * sin, u0 - a * sin + u * cos) for a, u in corners]
    low = grid.index((max(a for a, _ in world), max(u for _, u in world), r0 - _HALF_WIDTH_MM))
    high = grid.index((min(a for a, _ in world), min(u for _, u in world), r0 + _HALF_WIDTH_MM))
    where = [
        slice(int(np.clip(np.floor(first), 0, n)), int(np.clip(np.ceil(last) + 1, 0, n)))
        for first, last, n in zip(low, high, grid.shape, strict=True)
    ]
    i, j, k = (np.arange(part.start, part.stop, dtype=np.float32) for part in where)
    a = (grid.origin[0] - i * grid.in_plane - a0)[:, None, None]
    u = (grid.origin[1] - j * grid.in_plane - u0)[None, :, None]
    r = np.abs(grid.origin[2] + k * grid.slice_mm - r0)[None, None, :]
    turned = (a * np.float32(cos) - u * np.float32(sin), a * np.float32(sin) + u * np.float32(cos))
    return Local((where[0], where[1], where[2]), *turned, r.astype(np.float32))


def distance(vertebra: Vertebra, at: Local) -> Field:
    """Return the signed distance in mm to the surface of `vertebra`, below zero inside."""
    if vertebra.level == "C1":
        return _atlas(vertebra, at)
    solid: Field = _body(vertebra, at)
    if vertebra.level == "C2":
        height = vertebra.height
        dens = _capsule(at, (2.0, height / 2 - 2, 0.0), (1.0, height / 2 + 15, 0.0), 4.5)
        solid = np.minimum(solid, dens)
    for start, stop, radius in _arch(vertebra):
        solid = np.minimum(solid, _capsule(at, start, stop, radius))
    return solid


def screws(vertebra: Vertebra, at: Local, *, radius: float) -> Field:
    """Return the signed distance to a pair of pedicle screws of `radius` mm."""
    v = vertebra
    head = (-v.depth / 2 - 16, v.height * 0.22, v.width * 0.33)
    tip = (v.depth / 2 - 9, v.height * 0.12, v.width * 0.2)
    return _capsule(at, head, tip, radius)


def _body(v: Vertebra, at: Local) -> Field:
    """Return an elliptic cylinder with a waist, its endplates deformed by the fracture."""
    front = np.clip(at.a / np.float32(v.depth) + np.float32(0.5), 0, 1)
    middle = np.clip(1 - (2 * at.a / v.depth) ** 2, 0, 1)
    middle = middle * np.clip(1 - 0.8 * (2 * at.r / v.width) ** 2, 0, 1)
    if v.fracture_type == "wedge":
        lost: Field | np.float32 = front * np.float32(v.loss)
    elif v.fracture_type == "biconcave":
        lost = middle * np.float32(v.loss)
    else:
        lost = np.float32(v.loss)
    half_height = v.height / 2 * (1 - lost) - 0.8 * middle
    waist = 1 - 0.09 * np.clip(1 - (2 * at.u / v.height) ** 2, 0, 1)
    # The posterior wall is flat: an ellipse that is cut off behind.
    depth = np.where(at.a > 0, v.depth * 0.5, v.depth * 0.58).astype(np.float32) * waist
    radius = np.sqrt((at.a / depth) ** 2 + (at.r / (v.width / 2 * waist)) ** 2)
    around = (radius - 1) * np.float32(v.depth / 2)
    rear = -at.a - v.depth / 2
    solid = np.maximum(np.maximum(around, np.abs(at.u) - half_height), rear)
    return np.asarray(solid, dtype=np.float32)


def _arch(v: Vertebra) -> list[tuple[Point, Point, float]]:
    """Return the capsules of the arch on one side; the other is its mirror image."""
    if v.level == SACRUM:
        return []
    wall, h, thick = -v.depth / 2, v.height, v.pedicle
    side = v.width * 0.34
    high, low = 0.22 * h, -0.15 * h
    root = (wall - 20, low, 0.0)
    tip = (
        root[0] - round(v.spinous * math.cos(v.spinous_drop), 6),
        root[1] - round(v.spinous * math.sin(v.spinous_drop), 6),
        0.0,
    )
    reach = v.width / 2 + v.transverse
    back = -14 if v.level.startswith("L") else -20
    joint = 0.55 * h + 3
    # A lumbar spinous process is a plate: a second rod under the first.
    plate = 7.0 if v.level.startswith("L") else 2.0
    return [
        ((wall + 3, high, side), (wall - 9, high, side), thick),
        ((wall - 11, high, side), (wall - 13, joint, side), 0.6 * thick + 1.2),
        ((wall - 14, low, side * 0.8), (wall - 17, -joint - 2, side * 0.8), 0.6 * thick + 1.2),
        ((wall - 12, 0.05 * h, side), (wall - 19, low, 2.0), 0.45 * thick + 1.6),
        (root, tip, 0.35 * thick + 2.0),
        (
            (root[0] - 3, root[1] - plate / 2, 0.0),
            (tip[0], tip[1] - plate, 0.0),
            0.35 * thick + 2.0,
        ),
        ((wall - 10, high, side), (wall + back, high, reach - 3), 0.3 * thick + 2.0),
    ]


def _atlas(v: Vertebra, at: Local) -> Field:
    """Return the signed distance to C1, a ring without a body."""
    front, rear, side = v.depth / 2, -v.depth / 2 - 20, 17.0
    parts = [
        ((front, 0.0, 0.0), (front - 5, 0.0, side - 3), 3.0),
        ((front - 4, 0.0, side), (front - 14, 0.0, side), 6.0),
        ((front - 14, 0.0, side), (rear + 5, 1.0, 11.0), 3.0),
        ((rear + 5, 1.0, 11.0), (rear, 1.0, 0.0), 3.0),
        ((front - 9, 0.0, side), (front - 11, 0.0, side + v.transverse), 3.5),
    ]
    return reduce(np.minimum, (_capsule(at, *part) for part in parts))


def _capsule(at: Local, start: Point, stop: Point, radius: float) -> Field:
    """Return the distance to a segment, minus `radius`."""
    da, du, dr = (np.float32(b - a) for a, b in zip(start, stop, strict=True))
    a, u, r = (
        axis - np.float32(zero) for axis, zero in zip((at.a, at.u, at.r), start, strict=True)
    )
    length = np.float32(da * da + du * du + dr * dr)
    along = np.clip(((a * da + u * du) + r * dr) / length, 0, 1)
    square = (a - along * da) ** 2 + (u - along * du) ** 2 + (r - along * dr) ** 2
    return np.asarray(np.sqrt(square) - np.float32(radius), dtype=np.float32)
