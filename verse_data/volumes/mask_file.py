"""A mask as a NIfTI file of its own, on the very grid of its CT."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from verse_data.spine.geometry import Array
from verse_data.volumes.nifti import LAYOUT, VolumeStream, byte_order, write_volume

_PLACE_FIELDS: Final = (
    *("sizeof_hdr", "magic", "dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""Fields of a header that say where its voxels lie."""


def write_mask_like(path: Path, labels: Array, *, image: VolumeStream) -> None:
    """Write uint8 labels on the grid of an open CT; what places them in space are the CT's bytes.

    The directions are not made orthonormal, as ITK would like: a reader that refuses the mask
    refuses its CT too, and two headers that differ in the last bits are warned of and compared.
    """
    order = LAYOUT.newbyteorder(byte_order(image.head))
    theirs = np.frombuffer(image.head, order, 1)[0]
    header = np.zeros((), order)
    for field in _PLACE_FIELDS:
        header[field] = theirs[field]
    header["datatype"], header["bitpix"], header["vox_offset"], header["scl_slope"] = 2, 8, 352, 1
    write_volume(path, header.tobytes(), (labels[:, :, k] for k in range(labels.shape[2])))
