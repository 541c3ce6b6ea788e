"""From stored numbers to Hounsfield units and labels.

Slope and intercept are applied in float64 and the result is rounded to the nearest integer, halves
to even. A value that int16 cannot hold, or the one that stores keep as their sentinel (-32768), is
refused with its place rather than clipped: clipping would change data without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from verse_data.volumes.nifti_header import ImageHeader

MIN_HU: Final = -32767
MAX_HU: Final = 32767
MAX_LABEL: Final = 28
LABEL_TOLERANCE: Final = 1e-3
"""How far from a whole number a voxel of a float mask may lie."""

Kind = Literal["image", "mask"]

Stored = npt.NDArray[Any]
Convert = Callable[[Stored, ImageHeader], tuple[Stored, npt.NDArray[np.bool_] | None]]


def _to_hounsfield(
    stored: Stored, header: ImageHeader
) -> tuple[Stored, npt.NDArray[np.bool_] | None]:
    if not header.scaled and stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        low, high = int(stored.min()), int(stored.max())
        inside = low >= MIN_HU and high <= MAX_HU
        return stored, None if inside else (stored < MIN_HU) | (stored > MAX_HU)
    values = np.rint(stored.astype(np.float64) * header.slope + header.inter)
    return _kept(values, ~((values >= MIN_HU) & (values <= MAX_HU)), np.int16)


def _to_label(stored: Stored, header: ImageHeader) -> tuple[Stored, npt.NDArray[np.bool_] | None]:
    if not header.scaled and stored.dtype.kind in "iu":
        inside = int(stored.min()) >= 0 and int(stored.max()) <= MAX_LABEL
        return stored, None if inside else (stored < 0) | (stored > MAX_LABEL)
    exact = stored.astype(np.float64) * header.slope + header.inter
    values = np.rint(exact)
    whole = np.abs(exact - values) < LABEL_TOLERANCE
    return _kept(values, ~(whole & (values >= 0) & (values <= MAX_LABEL)), np.uint8)


def _kept(
    values: npt.NDArray[np.float64], wrong: npt.NDArray[np.bool_], dtype: npt.DTypeLike
) -> tuple[Stored, npt.NDArray[np.bool_]]:
    """Cast only what fits: casting NaN warns, and means nothing."""
    if wrong.any():
        return np.zeros(len(values), dtype), wrong
    return values.astype(dtype), wrong


CONVERSIONS: Final[dict[Kind, tuple[Convert, np.dtype[Any], str]]] = {
    "image": (_to_hounsfield, np.dtype("<i2"), f"HU from {MIN_HU} to {MAX_HU}"),
    "mask": (_to_label, np.dtype("u1"), f"a whole number from 0 to {MAX_LABEL}"),
}
