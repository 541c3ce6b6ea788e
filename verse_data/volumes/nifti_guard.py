"""The rules for NIfTI headers, checked before anything else of a file is read.

Only fields that are checked here are used; free text and extensions of a header are never kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from verse_data.errors import NiftiRefused
from verse_data.spine.geometry import Affine

HEADER_SIZE: Final = 348
MAX_OFFSET: Final = 1 << 20
"""Largest ``vox_offset``: a header with extensions of more than 1 MiB is refused."""
MAX_VOXELS: Final = 1 << 29
"""Largest volume: 512 x 512 x 2048, four times the longest spine CT to be expected."""
_TYPE_CODES: Final = {
    2: "u1",
    256: "i1",
    4: "i2",
    512: "u2",
    8: "i4",
    768: "u4",
    16: "f4",
    64: "f8",
    1024: "i8",
    1280: "u8",
}
DTYPES: Final = {code: np.dtype(text) for code, text in _TYPE_CODES.items()}
"""Supported number types, by their code in the header."""
_SUPPORTED: Final = ", ".join(dtype.name for dtype in DTYPES.values())
_WRONG_UNITS: Final = {1: "metres", 3: "micrometres"}
AGAIN: Final = "Copy the file again from its source, or write it anew."
"""What to do about a file that cannot be read, of a release or of one's own."""
_FAT, _BONE = -200, 200
"""Every CT of a body has fat or air below the one and bone above the other, in HU."""

Rule = tuple[bool, str]
"""Whether a rule holds, and the predicate of the message if it does not."""


def check(name: str, rules: Iterable[Rule]) -> None:
    """Raise NiftiRefused for the first of `rules` that the header of the file `name` breaks."""
    for holds, problem in rules:
        if not holds:
            raise NiftiRefused(f"{name} was refused before reading: it {problem}. {AGAIN}")


def start_rules(content: bytes) -> Iterator[Rule]:
    """Yield the rules for the bytes that a NIfTI-1 header starts with."""
    sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
    yield 540 not in sizes, "is NIfTI-2 (sizeof_hdr 540); only NIfTI-1 is read"
    yield HEADER_SIZE in sizes, f"has sizeof_hdr {min(sizes)} instead of {HEADER_SIZE}"


def field_rules(fields: Any) -> Iterator[Rule]:
    """Yield the rules for dimensions, data type, scaling and form codes."""
    count, *sizes = fields["dim"].tolist()
    sizes, voxels = sizes[: max(count, 0)], math.prod(sizes[:3])
    yield 3 <= count <= 7, f"has {count} dimensions (dim[0]) where a volume has 3"
    yield min(sizes) >= 1, f"declares the size {sizes}: each must be at least 1"
    yield max(sizes[3:], default=1) == 1, f"declares the size {sizes}, more than one volume"
    size = " x ".join(map(str, sizes[:3]))
    yield voxels <= MAX_VOXELS, f"declares {size} = {voxels:,} voxels; the limit is {MAX_VOXELS:,}"

    magic, code, bits = fields["magic"].item(), int(fields["datatype"]), int(fields["bitpix"])
    yield magic == b"n+1", f"has magic {magic!r} where a one-file NIfTI-1 has b'n+1'"
    read = f"read are {_SUPPORTED}: save a mask as uint8 and a CT as int16"
    yield code in DTYPES, f"has data type code {code}; {read}"
    yield (
        bits == DTYPES[code].itemsize * 8,
        f"says bitpix {bits} for {DTYPES[code].name}, which has {DTYPES[code].itemsize * 8}",
    )
    offset, unit = float(fields["vox_offset"]), int(fields["xyzt_units"]) & 7
    rule = f"it must be a whole number from 352 to {MAX_OFFSET}"
    yield offset.is_integer() and 352 <= offset <= MAX_OFFSET, f"has vox_offset {offset}; {rule}"
    yield unit not in _WRONG_UNITS, f"measures in {_WRONG_UNITS.get(unit)}, not mm (xyzt_units)"

    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    scaling, none = f"scl_slope {slope} and scl_inter {inter}", is_unscaled(slope)
    yield not none or math.isnan(inter) or inter == 0, f"has {scaling}, which scale by nothing"
    # nibabel saves float labels as int32 with a slope of 7e-9.
    sensible = 1e-9 <= slope <= 100 and abs(inter) <= 32767
    yield none or sensible, f"has {scaling}; of a CT or a mask they lie in 1e-9 to 100, and ±32767"

    codes = {form: int(fields[f"{form}_code"]) for form in ("qform", "sform")}
    for form, code in codes.items():
        yield 0 <= code <= 5, f"has {form}_code {code}; the format knows 0 to 5"
    yield any(codes.values()), "has neither a qform nor an sform (both codes 0), so no orientation"


def is_unscaled(slope: float) -> bool:
    """Return whether a slope means no scaling: 0, as the format says, or NaN, as nibabel writes."""
    return math.isnan(slope) or slope == 0


def range_doubt(low: int, high: int) -> str:
    """Return why values from `low` to `high` are not those of a CT in HU, or nothing if they may be."""
    rule = f"a CT in HU has fat or air below {_FAT} and bone above {_BONE}"
    is_ct = low <= _FAT and high >= _BONE
    return "" if is_ct else f"its values run from {low} to {high}; {rule}"


def qform_rules(pixdim: list[float], quaternion: list[float]) -> Iterator[Rule]:
    """Yield the rules for a qform; `quaternion` holds b, c, d and the origin."""
    finite = all(map(math.isfinite, (*pixdim[:4], *quaternion)))
    yield finite, "has a qform with NaN or infinite numbers"
    yield min(pixdim[1:4]) > 0, f"has voxels of {pixdim[1:4]} mm; a qform needs them above 0"
    # Right-handed unless -1: readers disagree about any other number.
    handed = pixdim[0] in {-1.0, 0.0, 1.0}
    yield handed, f"has pixdim[0] {pixdim[0]}, and a qform's handedness is -1 or 1"
    square = sum(value * value for value in quaternion[:3])
    yield square <= 1 + 1e-5, f"has a qform that is no rotation (b² + c² + d² = {square:.4g})"


def affine_rules(affine: Affine, form: str) -> Iterator[Rule]:
    """Yield the rules for an affine: finite, with plausible voxel sizes, origin and axes."""
    yield bool(np.isfinite(affine).all()), f"has an {form} with NaN or infinite numbers"
    sizes, origin = np.linalg.norm(affine[:3, :3], axis=0), affine[:3, 3]
    fits = bool(sizes.min() >= 0.01 and sizes.max() <= 100)
    yield fits, f"has voxels of {[float(f'{n:.4g}') for n in sizes]} mm; read are 0.01 to 100 mm"
    near = bool(np.abs(origin).max() <= 1e6)
    yield near, f"has its origin at {origin.tolist()}, more than a kilometre away"
    volume = abs(float(np.linalg.det(affine[:3, :3] / sizes)))
    yield volume >= 0.1, f"has an {form} whose axes nearly lie in one plane (volume {volume:.3g})"


def extension_rules(content: bytes, order: str) -> Iterator[Rule]:
    """Yield the rules for sizes of header extensions; their content may be private: skip it."""
    place, end = 4, len(content)
    rule = f"it must be a multiple of 16 that ends before byte {HEADER_SIZE + end}"
    while content[0] and place + 8 <= end:
        size = int(np.frombuffer(content, f"{order}i4", 1, place)[0])
        sound = size >= 8 and size % 16 == 0 and place + size <= end
        yield sound, f"has a header extension that declares {size} bytes; {rule}"
        place += size
