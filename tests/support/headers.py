"""NIfTI files made byte by byte, right and wrong, for the guard."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.volumes.nifti import ImageHeader, VolumeStream

AFFINE = np.array([[-0.8, 0.1, 0, 20], [0.1, -0.8, 0, 30], [0, 0, 2, -60], [0, 0, 0, 1.0]])
SHAPE = (7, 6, 5)
CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768,
         "i8": 1024, "u8": 1280}  # fmt: skip


def voxels(dtype: str = "i2", low: int = 0, high: int = 28) -> npt.NDArray[Any]:
    """Return a small volume that differs in every axis."""
    return np.random.default_rng(3).integers(low, high, SHAPE).astype(dtype)


def nifti(
    array: npt.NDArray[Any] | None = None,
    *,
    order: str = "<",
    extension: bytes = b"",
    tail: bytes = b"",
    **fields: Any,
) -> bytes:
    """Return a file, not compressed. A field may be named to be given another value.

    Fields: sizeof_hdr, dim (8), datatype, bitpix, pixdim (8), vox_offset, scl_slope, scl_inter,
    xyzt_units, qform_code, sform_code, quatern (6), srow (12), magic, flag.
    """
    array = voxels() if array is None else array
    dim = (array.ndim, *array.shape)
    given: dict[str, Any] = {
        "sizeof_hdr": 348,
        "dim": (*dim, *[1] * (8 - len(dim))),
        "datatype": CODES[array.dtype.newbyteorder("=").str[1:]],
        "bitpix": array.dtype.itemsize * 8,
        "pixdim": (1.0, 0.8, 0.8, 2.0, 0, 0, 0, 0),
        "vox_offset": 352.0 + len(extension),
        "scl_slope": float("nan"),
        "scl_inter": float("nan"),
        "xyzt_units": 2,
        "qform_code": 0,
        "sform_code": 2,
        "quatern": (0.0, 0, 0, 0, 0, 0),
        "srow": tuple(AFFINE[:3].reshape(-1)),
        "magic": b"n+1\0",
        "flag": b"\1\0\0\0" if extension else b"\0\0\0\0",
    } | fields
    header = bytearray(352)
    places = {
        "sizeof_hdr": (0, "i"),
        "dim": (40, "8h"),
        "datatype": (70, "h"),
        "bitpix": (72, "h"),
        "pixdim": (76, "8f"),
        "vox_offset": (108, "f"),
        "scl_slope": (112, "f"),
        "scl_inter": (116, "f"),
        "xyzt_units": (123, "B"),
        "qform_code": (252, "h"),
        "sform_code": (254, "h"),
        "quatern": (256, "6f"),
        "srow": (280, "12f"),
    }
    for name, (place, form) in places.items():
        value = given[name]
        struct.pack_into(
            order + form, header, place, *(value if isinstance(value, tuple) else (value,))
        )
    header[344:348], header[348:352] = given["magic"], given["flag"]
    body = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    return bytes(header) + extension + body + tail


def packed(content: bytes) -> bytes:
    """Return `content` gzipped."""
    return gzip.compress(content, 1, mtime=0)


def read_header(path: Path, *, name: str) -> ImageHeader:
    """Return the header of a file."""
    with VolumeStream(path, kind="image", name=name) as stream:
        return stream.header
