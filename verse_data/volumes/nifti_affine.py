"""The orientation of a NIfTI file: sform, qform, and what of them is refused."""

from __future__ import annotations

import math
import struct
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt

from verse_data.errors import NiftiRefused
from verse_data.spine.geometry import Affine, Shape, apply_affine

CORNER_TOLERANCE: Final = 0.1
"""Largest distance in mm between the corners of two grids that count as the same grid."""

_LAST_FORM_CODE: Final = 5
_MIN_VOXEL_MM: Final = 0.01
_MAX_VOXEL_MM: Final = 100.0
_MIN_AXIS_VOLUME: Final = 0.1
_HANDEDNESS: Final = (-1.0, 0.0, 1.0)
"""Of a qform: right-handed unless -1. Readers disagree about any other number."""
_HALF_TURN: Final = 3 * float(np.finfo(np.float32).eps)
"""What b² + c² + d² of a qform may lack of 1 by rounding alone, as in nibabel."""


def refuse(name: str, why: str) -> NoReturn:
    """Raise the error of a header that is not read; `why` says what it declares."""
    message = f"{name} was refused before reading: it {why}. Get the file again from its release."
    raise NiftiRefused(message)


def parse_affine(
    content: bytes, order: str, shape: Shape, name: str
) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine of a header, and notes on what a careful reader should know.

    The sform counts before the qform, as in nibabel.

    Raises
    ------
    NiftiRefused
        If there is neither, or the one that counts is no grid in space.
    """
    qform_code, sform_code = struct.unpack_from(f"{order}2h", content, 252)
    for form, code in (("qform", qform_code), ("sform", sform_code)):
        if not 0 <= code <= _LAST_FORM_CODE:
            refuse(name, f"has {form}_code {code}; the format knows 0 to {_LAST_FORM_CODE}")
    if sform_code == qform_code == 0:
        refuse(name, "has neither a qform nor an sform (both codes 0), so no orientation")
    if sform_code == 0:
        return _checked(_qform(content, order, name), "qform", name), ()
    rows = np.array(struct.unpack_from(f"{order}12f", content, 280), dtype=np.float64)
    sform = _checked(np.vstack([rows.reshape(3, 4), [0, 0, 0, 1]]), "sform", name)
    if qform_code == 0:
        return sform, ()
    try:
        distance = corner_distance(sform, _qform(content, order, name), shape)
    except NiftiRefused:
        return sform, ("its qform is not usable; the sform was used",)
    if distance <= CORNER_TOLERANCE:
        return sform, ()
    return sform, (f"qform and sform differ by {distance:.2f} mm at a corner; the sform was used",)


def _qform(content: bytes, order: str, name: str) -> Affine:
    pixdim = struct.unpack_from(f"{order}8f", content, 76)
    b, c, d, *origin = struct.unpack_from(f"{order}6f", content, 256)
    if not all(math.isfinite(value) for value in (*pixdim[:4], b, c, d, *origin)):
        refuse(name, "has a qform with NaN or infinite numbers")
    if min(pixdim[1:4]) <= 0:
        refuse(name, f"has voxel sizes of {pixdim[1:4]} mm; a qform needs them above 0")
    if pixdim[0] not in _HANDEDNESS:
        refuse(name, f"has pixdim[0] {pixdim[0]}, and a qform's handedness is -1 or 1")
    square = b * b + c * c + d * d
    if square > 1 + 1e-5:
        refuse(name, f"has a qform that is no rotation (b² + c² + d² = {square:.4g})")
    # Of a half-turn float32 leaves a rest where there is none, worth up to 0.03 degrees.
    half_turn = 1.0 - square < _HALF_TURN
    a = 0.0 if half_turn else math.sqrt(1.0 - square)
    b, c, d = (value / math.sqrt(a * a + square) for value in (b, c, d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handed = -1.0 if pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array([pixdim[1], pixdim[2], pixdim[3] * handed])
    affine[:3, 3] = origin
    return affine


def _checked(affine: Affine, form: str, name: str) -> Affine:
    if not np.isfinite(affine).all():
        refuse(name, f"has an {form} with NaN or infinite numbers")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if sizes.min() < _MIN_VOXEL_MM or sizes.max() > _MAX_VOXEL_MM:
        text = " x ".join(f"{size:.4g}" for size in sizes)
        refuse(name, f"has voxels of {text} mm; read are {_MIN_VOXEL_MM} to {_MAX_VOXEL_MM} mm")
    if np.abs(affine[:3, 3]).max() > 1e6:
        refuse(name, f"has its origin at {affine[:3, 3].tolist()}, more than a kilometre away")
    volume = abs(float(np.linalg.det(affine[:3, :3] / sizes)))
    if volume < _MIN_AXIS_VOLUME:
        refuse(name, f"has an {form} whose axes nearly lie in one plane (volume {volume:.3g})")
    return affine


def corner_distance(first: npt.ArrayLike, second: npt.ArrayLike, shape: Shape) -> float:
    """Return the largest distance in mm between the corners of two grids of `shape`."""
    ends = [(0, size - 1) for size in shape]
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T
    apart = apply_affine(first, corners) - apply_affine(second, corners)
    return float(np.linalg.norm(apart, axis=1).max())
