"""Checks of numbers that users give, so that a wrong one is an error of ours, at once."""

from __future__ import annotations

import math
import operator
from numbers import Integral, Real
from typing import TYPE_CHECKING, SupportsIndex, cast

from verse_data.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


def whole(option: str, value: object, *, least: int = 0, below: int = 2**63) -> int:
    """Return `value` as an ``int`` if it is a whole number that is allowed."""
    try:
        number = operator.index(cast("SupportsIndex", value))
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number < below:
        last = "2**63 - 1" if below == 2**63 else str(below - 1)
        raise UsageError(f"{option}={value!r} is not a whole number from {least} to {last}.")
    return number


def finite(option: str, value: object) -> float:
    """Return `value` as a ``float`` if it is a finite number."""
    if not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value):
        return float(value)
    raise UsageError(f"{option}={value!r} is not a finite number.")


def three(option: str, value: object) -> tuple[int, int, int]:
    """Return `value` as three numbers of voxels, if it is."""
    try:
        x, y, z = (whole(option, number, least=1) for number in cast("Iterable[object]", value))
    except (TypeError, ValueError) as error:  # UsageError is a ValueError
        raise UsageError(
            f"{option}={value!r} is not three positive whole numbers, such as (96, 96, 96)."
        ) from error
    return (x, y, z)


def cube(option: str, value: object) -> tuple[int, int, int]:
    """Return `value` as three numbers of voxels; a single one stands for all three."""
    return three(option, (value,) * 3 if isinstance(value, Integral) else value)
