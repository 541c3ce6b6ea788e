"""The guard in front of every NIfTI file: its header, checked before anything is allocated.

Only what is listed here is read; free text and extensions of the header never travel on. Layout:
https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from verse_data.spine.geometry import Affine, Shape
from verse_data.volumes.nifti_affine import parse_affine, refuse

HEADER_SIZE: Final = 348
MAX_OFFSET: Final = 1 << 20
"""Largest ``vox_offset``: a header with extensions of more than 1 MiB is refused."""
MAX_VOXELS: Final = 1 << 29
"""Largest volume: 512 x 512 x 2048, four times the longest spine CT to be expected."""
_DTYPES: Final = {2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 16: "f4", 64: "f8"}
_TEXT_FIELDS: Final = {"db_name": (14, 18), "descrip": (148, 80), "aux_file": (228, 24)}
_INTENT_NAME: Final = (328, 16)
_UNIT_OF_CODE: Final = {1: "metres", 3: "micrometres"}


@dataclass(frozen=True)
class ImageHeader:
    """What is read of a NIfTI header.

    Attributes
    ----------
    shape : (int, int, int)
        Voxels along the file's own axes i, j, k.
    affine : (4, 4) array
        Voxel index to world mm, RAS+.
    dtype : numpy.dtype
        As stored, with its byte order.
    slope, inter : float
        ``value = stored * slope + inter``; 1 and 0 where the header says none.
    offset : int
        Byte at which the voxels start.
    big_endian : bool
        Byte order of the header.
    notes : tuple of str
        What a careful reader should know: qform and sform disagree, free text is present …
    """

    shape: Shape
    affine: Affine
    dtype: np.dtype[np.generic]
    slope: float = 1.0
    inter: float = 0.0
    offset: int = 352
    big_endian: bool = False
    notes: tuple[str, ...] = ()

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored voxels."""
        return self.voxels * self.dtype.itemsize

    @property
    def scaled(self) -> bool:
        """Whether slope and intercept change the stored numbers."""
        return self.slope != 1.0 or self.inter != 0.0


def parse_header(content: bytes, *, name: str) -> ImageHeader:
    """Read a NIfTI-1 header out of the first bytes of a file.

    Parameters
    ----------
    content : bytes
        At least 348 bytes, as inflated.
    name : str
        What to call the file in messages.

    Raises
    ------
    NiftiRefused
        If the header declares anything that is not read, with the value found and the rule.
    """
    if len(content) < HEADER_SIZE:
        refuse(name, f"holds {len(content)} bytes, fewer than the {HEADER_SIZE} of a header")
    order = _byte_order(content, name)
    if content[344:348] != b"n+1\0":
        refuse(name, f"has magic {content[344:348]!r} where a one-file NIfTI-1 has b'n+1\\x00'")
    shape = _shape(struct.unpack_from(f"{order}8h", content, 40), name)
    code, bits = struct.unpack_from(f"{order}2h", content, 70)
    dtype = _dtype(code, bits, order, name)
    offset = _offset(struct.unpack_from(f"{order}f", content, 108)[0], name)
    slope, inter = _scaling(struct.unpack_from(f"{order}2f", content, 112), name)
    unit = content[123] & 7
    if unit in _UNIT_OF_CODE:
        refuse(name, f"measures in {_UNIT_OF_CODE[unit]} (xyzt_units {content[123]}), not in mm")
    affine, notes = parse_affine(content, order, shape, name)
    notes = (*notes, *_text(content))
    return ImageHeader(shape, affine, dtype, slope, inter, offset, order == ">", notes)


def _byte_order(content: bytes, name: str) -> str:
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", content, 0)
        if size == HEADER_SIZE:
            return order
        if size == 540:
            refuse(name, "is NIfTI-2 (sizeof_hdr 540), and only NIfTI-1 is read")
    return refuse(name, f"has sizeof_hdr {struct.unpack_from('<i', content)[0]} instead of 348")


def _shape(dim: tuple[int, ...], name: str) -> Shape:
    count = dim[0]
    if not 3 <= count <= 7:
        refuse(name, f"has {count} dimensions (dim[0]) where a volume has 3")
    sizes = dim[1 : count + 1]
    if min(sizes) < 1:
        refuse(name, f"declares the size {sizes}: each must be at least 1")
    if any(size != 1 for size in sizes[3:]):
        refuse(name, f"declares {count} dimensions of size {sizes}, more than one volume")
    i, j, k = sizes[:3]
    if i * j * k > MAX_VOXELS:
        refuse(
            name, f"declares {i} x {j} x {k} = {i * j * k:,} voxels; the limit is {MAX_VOXELS:,}"
        )
    return (i, j, k)


def _dtype(code: int, bits: int, order: str, name: str) -> np.dtype[np.generic]:
    if code not in _DTYPES:
        allowed = ", ".join(np.dtype(text).name for text in _DTYPES.values())
        refuse(name, f"has data type code {code}; read are {allowed}")
    dtype = np.dtype(order + _DTYPES[code])
    if bits != dtype.itemsize * 8:
        refuse(name, f"says bitpix {bits} for {dtype.name}, which has {dtype.itemsize * 8}")
    return dtype


def _offset(value: float, name: str) -> int:
    if not math.isfinite(value) or value != int(value) or not 352 <= value <= MAX_OFFSET:
        refuse(name, f"has vox_offset {value}; it must be a whole number from 352 to {MAX_OFFSET}")
    return int(value)


def _scaling(fields: tuple[float, ...], name: str) -> tuple[float, float]:
    """Apply the format's rule: a slope of 0 (or NaN, as nibabel writes) means no scaling."""
    slope, inter = fields
    if math.isnan(slope) or slope == 0:
        if not math.isnan(inter) and inter != 0:
            refuse(name, f"has scl_slope {slope}, which means none, but scl_inter {inter}")
        return 1.0, 0.0
    # nibabel saves float labels as int32 with a slope of 7e-9.
    if not 1e-9 <= slope <= 100:
        refuse(name, f"has scl_slope {slope}; for a CT or a mask it lies from 1e-9 to 100")
    if not math.isfinite(inter) or abs(inter) > 32767:
        refuse(name, f"has scl_inter {inter}; for a CT or a mask it lies within +-32767")
    return slope, inter


def _text(content: bytes) -> tuple[str, ...]:
    """Name the fields that hold free text, which is neither read nor kept."""
    fields = {**_TEXT_FIELDS, "intent_name": _INTENT_NAME}
    return tuple(
        f"free text in {name}, not kept"
        for name, (start, size) in fields.items()
        if content[start : start + size].strip(b"\0 ")
    )
