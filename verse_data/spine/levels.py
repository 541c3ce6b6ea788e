"""Vertebral levels, their mask labels, and their order along the spine.

Label order is not spine order: T13 carries label 28 but lies between T12 (19) and L1 (20).
Source: the VerSe label map (Sekuboyina et al. 2021), which reserves 26 (sacrum) and 27 (coccyx).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from verse_data.errors import UsageError

Region = Literal["cervical", "thoracic", "lumbar"]

_CERVICAL: Final = tuple(f"C{i}" for i in range(1, 8))
_THORACIC: Final = tuple(f"T{i}" for i in range(1, 14))
_LUMBAR: Final = tuple(f"L{i}" for i in range(1, 7))

LEVELS: Final[tuple[str, ...]] = _CERVICAL + _THORACIC + _LUMBAR
"""All 26 levels, cranio-caudally: C1 … C7, T1 … T13, L1 … L6."""

LABEL_OF_LEVEL: Final[dict[str, int]] = {
    **{level: label for label, level in enumerate(_CERVICAL, start=1)},
    **{level: label for label, level in enumerate(_THORACIC[:12], start=8)},
    **{level: label for label, level in enumerate(_LUMBAR, start=20)},
    "T13": 28,
}
"""Mask and centroid label of each level."""

LEVEL_OF_LABEL: Final[dict[int, str]] = {LABEL_OF_LEVEL[level]: level for level in LEVELS}
"""Level of each label, in spine order."""

BELOW_LEVELS: Final[dict[int, str]] = {26: "S", 27: "Co"}
"""Short names of what lies below all levels, sacrum and coccyx: masks of other programs have them."""

GRADED_LEVELS: Final[tuple[str, ...]] = _THORACIC[:12] + _LUMBAR
"""The 18 levels that the VerSe'19 grading workbook has columns for."""

_POSITION: Final = {level: position for position, level in enumerate(LEVELS)}


def position(level: str) -> int:
    """Return the index of `level` along the spine: C1 is 0, L6 is 25."""
    try:
        return _POSITION[level]
    except KeyError:
        raise UsageError(
            f"There is no vertebral level {level!r}; levels are {LEVELS[0]} to {LEVELS[-1]}."
        ) from None


def in_spine_order(labels: Iterable[int]) -> list[int]:
    """Sort labels cranio-caudally."""
    return sorted(labels, key=[*LEVEL_OF_LABEL, *BELOW_LEVELS].index)


def region(level: str) -> Region:
    """Return the region of the spine that `level` belongs to."""
    place = position(level)
    if place < len(_CERVICAL):
        return "cervical"
    return "thoracic" if place < len(_CERVICAL) + len(_THORACIC) else "lumbar"
