"""Checks of arguments, so that a wrong value raises UsageError at once."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import SupportsIndex, cast

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.geometry import Shape
from verse_data.spine.windows import WINDOWS, window_range

Millimetres = float | Sequence[float]


def whole(option: str, value: object, *, least: int = 0, below: int = 2**63) -> int:
    """Return `value` as an ``int`` if it is a whole number in the allowed range."""
    try:
        number = operator.index(cast("SupportsIndex", value))
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number < below:
        last = "2**63 - 1" if below == 2**63 else str(below - 1)
        raise UsageError(f"{option}={value!r} is not a whole number from {least} to {last}.")
    return number


def finite(option: str, value: object, *, least: float = -math.inf) -> float:
    """Return `value` as a ``float`` if it is a finite number in the allowed range."""
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if math.isfinite(number) and number >= least:
        return number
    limit = "" if least == -math.inf else f" of {least:g} or more"
    raise UsageError(f"{option}={value!r} is not a finite number{limit}.")


def window_of(option: str, value: object) -> tuple[float, float]:
    """Return the lowest and highest HU of a window, given by name or as two numbers."""
    numbers = window_range(value) if isinstance(value, str) else value
    try:
        low, high = (finite(option, number) for number in cast("Iterable[object]", numbers))
    except (TypeError, ValueError):  # UsageError is a ValueError
        low = high = 0.0
    if low < high:
        return low, high
    names = ", ".join(repr(name) for name in WINDOWS)
    raise UsageError(
        f"{option}={value!r} is no window: give {names}, or two numbers in HU, the lower first, such as "
        f"(-200, 800)."
    )


def voxels(option: str, value: object) -> Shape:
    """Return `value`, one number of voxels or three, as three."""
    given = (value,) * 3 if isinstance(value, Integral) else value
    try:
        x, y, z = (whole(option, number, least=1) for number in cast("Iterable[object]", given))
    except (TypeError, ValueError) as error:  # UsageError is a ValueError
        raise UsageError(
            f"{option}={given!r} is not three positive whole numbers, such as (96, 96, 96)."
        ) from error
    return (x, y, z)


def lengths(option: str, value: Millimetres) -> npt.NDArray[np.float64]:
    """Return one length in mm, or three, as three."""
    try:
        sizes = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        sizes = np.zeros(())
    if sizes.shape not in {(), (3,)} or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise UsageError(f"{option}={value!r} is not a positive length in mm, or three of them.")
    return np.resize(sizes, 3)
