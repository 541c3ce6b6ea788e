"""A spine as numbers: sizes of each vertebra, and where the sagittal curve puts it.

Coordinates are millimetres in the patient: `a` anterior, `u` up (cranial), `r` to the right.
Sizes are means of adults, read off the vertebral morphometry that Panjabi et al. published
(Spine 1991-1992) and rounded; they need to look right, not to be a population's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from verse_data.spine import levels

SACRUM: Final = "S1"

# Anchor along the spine (C1 = 0, T1 = 7, L1 = 19, S1 = 24) and the value there, in mm or degrees.
_ANCHORS: Final = (0.0, 2.0, 6.0, 7.0, 12.0, 18.0, 19.0, 21.0, 23.0, 24.0)
_HEIGHT: Final = (12.0, 14.0, 15.0, 17.0, 19.5, 24.0, 26.0, 27.5, 28.0, 29.0)
_DEPTH: Final = (16.0, 16.0, 17.0, 18.0, 26.0, 31.0, 32.0, 34.0, 35.0, 33.0)
_WIDTH: Final = (22.0, 22.0, 28.0, 30.0, 29.0, 41.0, 43.0, 47.0, 51.0, 54.0)
_DISC: Final = (3.0, 5.0, 5.0, 4.0, 4.5, 6.5, 8.0, 10.0, 10.0, 6.0)
# Tilt of the upper endplate: positive slopes down to the front. It gives cervical lordosis,
# thoracic kyphosis and lumbar lordosis.
_TILT: Final = (-4.0, -2.0, 16.0, 20.0, 2.0, -14.0, -13.0, 1.0, 20.0, 36.0)
_SPINOUS: Final = (8.0, 14.0, 26.0, 30.0, 36.0, 26.0, 27.0, 29.0, 25.0, 8.0)
_SPINOUS_DROP: Final = (5.0, 12.0, 25.0, 35.0, 55.0, 25.0, 12.0, 8.0, 8.0, 20.0)
_TRANSVERSE: Final = (16.0, 11.0, 14.0, 17.0, 16.0, 8.0, 16.0, 21.0, 19.0, 0.0)
_PEDICLE: Final = (3.0, 3.0, 3.5, 4.0, 4.2, 6.0, 6.2, 6.8, 7.5, 7.0)

_LOSS_OF_GRADE: Final = {1: (0.20, 0.25), 2: (0.27, 0.39), 3: (0.43, 0.58)}
_SHAPE_NAMES: Final = {1: "wedge", 2: "biconcave", 3: "crush"}


@dataclass(frozen=True, kw_only=True)
class Vertebra:
    """One vertebra, placed.

    Attributes
    ----------
    centre : (float, float, float)
        Middle of the vertebral body (a, u, r), mm.
    tilt : float
        Radians by which the body's cranial axis leans forward.
    height, depth, width : float
        Of the intact body, mm.
    spinous, spinous_drop, transverse, pedicle : float
        Length (mm) and fall (radians) of the spinous process, reach of the transverse process
        beyond the body and half-thickness of the pedicle, mm.
    fracture_type : str
        ``"none"``, ``"wedge"``, ``"biconcave"`` or ``"crush"``.
    loss : float
        Part of the body's height that is lost, by Genant's definition for this shape.
    """

    level: str
    centre: tuple[float, float, float]
    tilt: float
    height: float
    depth: float
    width: float
    spinous: float
    spinous_drop: float
    transverse: float
    pedicle: float
    fracture_type: str = "none"
    loss: float = 0.0

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


def build(
    column: Sequence[str],
    *,
    findings: Mapping[str, tuple[int, int]],
    rng: np.random.Generator,
) -> list[Vertebra]:
    """Place the vertebrae of `column`, cranio-caudally; size and curve are drawn with `rng`."""
    size, curve, sway = (float(rng.uniform(*ends)) for ends in ((0.95, 1.05), (0.8, 1.1), (-3, 3)))
    # One draw for every level there is: a patient's vertebra is the same in each of its series.
    spread = dict(zip(levels.LEVELS, rng.random(len(levels.LEVELS)), strict=True))
    placed: list[Vertebra] = []
    a = u = 0.0
    for level in column:
        shape, loss = _deformity(findings.get(level), spread.get(level, 0.0))
        tilt = float(np.deg2rad(curve * _at(level, _TILT)))
        height, disc = size * _at(level, _HEIGHT), size * _at(level, _DISC)
        # A crushed body is lower as a whole, and what lies below it moves up.
        half = height * (1 - (loss if shape == "crush" else loss / 3)) / 2
        a, u = a - half * math.sin(tilt), u - half * math.cos(tilt)
        placed.append(
            Vertebra(
                level=level,
                # Rounded, as the last bits of a sine differ between processors.
                centre=(round(a, 6), round(u, 6), round(sway * math.sin(_anchor(level) / 4), 6)),
                tilt=round(tilt, 6),
                height=height,
                depth=size * _at(level, _DEPTH),
                width=size * _at(level, _WIDTH),
                spinous=size * _at(level, _SPINOUS),
                spinous_drop=float(np.deg2rad(_at(level, _SPINOUS_DROP))),
                transverse=size * _at(level, _TRANSVERSE),
                pedicle=size * _at(level, _PEDICLE),
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
    """Return the level's place between the anchors; extra vertebrae lie between their neighbours."""
    extra = {"T13": 18.5, "L6": 23.5, SACRUM: 24.0}
    if level in extra:
        return extra[level]
    usual = [name for name in levels.LEVELS if name not in extra]
    return float(usual.index(level))
