"""Reading and writing NIfTI volumes: the one door to nibabel, behind the guard.

Images become int16 Hounsfield units, masks uint8 labels 0 … 28: see
:mod:`verse_data.volumes.nifti_values` for the rules.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import nibabel as nib
import numpy as np
import numpy.typing as npt

from verse_data.errors import ValidationFailed
from verse_data.publishing import staging, sync_file
from verse_data.spine.geometry import Affine, Shape, voxel_sizes
from verse_data.volumes.nifti_affine import CORNER_TOLERANCE, corner_distance
from verse_data.volumes.nifti_header import ImageHeader
from verse_data.volumes.nifti_stream import NiftiStream
from verse_data.volumes.nifti_values import CONVERSIONS, Kind, Stored


@dataclass(frozen=True)
class Volume:
    """A volume in its file's own axes.

    Attributes
    ----------
    array : (I, J, K) array
        int16 HU or uint8 labels; Fortran-ordered, as NIfTI is.
    affine : (4, 4) array
        Voxel index to world mm, RAS+.
    """

    array: npt.NDArray[Any]
    affine: Affine

    @property
    def shape(self) -> Shape:
        """Voxels along i, j, k."""
        i, j, k = self.array.shape
        return (i, j, k)


def read_header(path: Path, *, name: str, sha256: str | None = None) -> ImageHeader:
    """Read the checked header of the file at `path`, called `name` in messages.

    With `sha256`, the rest of the file is hashed too, and the whole must have that digest (hex).

    Raises
    ------
    ContentMissing, NiftiRefused, VolumeCorrupt
    """
    with NiftiStream(path, name=name, sha256=sha256) as stream:
        if sha256:
            stream.hash_rest()
        return stream.header


class VolumeStream(NiftiStream):
    """One pass over the voxels of a file, converted on the way: a slab of slices at a time.

    Parameters
    ----------
    path : Path
        The ``.nii`` or ``.nii.gz``.
    kind : {"image", "mask"}
        An image becomes int16 HU, a mask uint8 labels.
    name : str
        What to call it in messages.
    sha256 : str, optional
        Digest (hex) that the file must have.
    """

    def __init__(self, path: Path, *, kind: Kind, name: str, sha256: str | None = None) -> None:
        super().__init__(path, name=name, sha256=sha256)
        self._convert, self.dtype, self._rule = CONVERSIONS[kind]

    def fill(self, out: npt.NDArray[Any]) -> None:
        """Read the next ``out.size`` voxels of the file, in its order, into the flat array `out`.

        Raises
        ------
        VolumeCorrupt
            If the file ends before, or is damaged.
        ValidationFailed
            If a voxel holds what its kind cannot; the first one is named.
        """
        done = 0
        for first, stored in self.blocks(out.size):
            values, wrong = self._convert(stored, self.header)
            if wrong is not None and wrong.any():
                self._refuse(first, stored, wrong)
            out[done : done + len(values)] = values
            done += len(values)

    def _refuse(self, first: int, stored: Stored, wrong: npt.NDArray[np.bool_]) -> NoReturn:
        header, at = self.header, int(np.argmax(wrong))
        index = np.unravel_index(first + at, header.shape, order="F")
        place = ", ".join(str(int(i)) for i in index)
        value = stored[at] * header.slope + header.inter if header.scaled else stored[at]
        message = (
            f"{self.name}: voxel ({place}) holds {value}, and must be {self._rule}. "
            f"Nothing of it was kept. Take the file again from its source."
        )
        raise ValidationFailed(message)


def read_image(path: Path, *, name: str, sha256: str | None = None) -> Volume:
    """Read a CT as int16 HU, drained to its checked end.

    Parameters
    ----------
    path : Path
        The ``.nii`` or ``.nii.gz``.
    name : str
        What to call it in messages.
    sha256 : str, optional
        Digest (hex) that the file must have.

    Raises
    ------
    ContentMissing, NiftiRefused
        If there is no file, or its header is refused.
    VolumeCorrupt
        If it is cut, flipped, or longer than its header says.
    ValidationFailed
        If a voxel is not finite or lies outside -32767 … 32767 HU; the first one is named.
    """
    return read_volume(VolumeStream(path, kind="image", name=name, sha256=sha256))


def read_mask(path: Path, *, name: str, sha256: str | None = None) -> Volume:
    """Read a mask as uint8 labels 0 … 28, drained to its checked end.

    Float masks are rounded, never truncated; a voxel further than 0.001 from a whole number is an
    error. VerSe's masks are uint8 or float64.

    Raises
    ------
    ContentMissing, NiftiRefused, VolumeCorrupt
        As :func:`read_image`.
    ValidationFailed
        If a voxel holds no label; the first one is named.
    """
    return read_volume(VolumeStream(path, kind="mask", name=name, sha256=sha256))


def check_pair(image: Volume | ImageHeader, mask: Volume | ImageHeader, *, name: str) -> None:
    """Check that a CT and its mask lie on the same grid.

    Raises
    ------
    ValidationFailed
        If the shapes differ, or any corner lies more than 0.1 mm apart.
    """
    if image.shape != mask.shape:
        message = (
            f"{name}: the CT has shape {image.shape} and its mask {mask.shape}. They must be the "
            f"same grid: take both again from their source."
        )
        raise ValidationFailed(message)
    distance = corner_distance(image.affine, mask.affine, image.shape)
    if not distance <= CORNER_TOLERANCE:
        message = (
            f"{name}: the corners of the CT and of its mask lie up to {distance:.2f} mm apart; the "
            f"limit is {CORNER_TOLERANCE} mm (both have shape {image.shape}). They must be the "
            f"same grid: take both again from their source."
        )
        raise ValidationFailed(message)


def write_nifti(
    path: Path,
    array: npt.NDArray[Any],
    affine: npt.ArrayLike,
    *,
    on_disk_dtype: npt.DTypeLike | None = None,
    slope: float | None = None,
    inter: float | None = None,
    sform_code: int = 2,
    qform_code: int = 0,
) -> None:
    """Write a NIfTI-1 file, whole or not at all; the same input gives the same bytes.

    Parameters
    ----------
    path : Path
        Target; gzipped if it ends in ``.gz``, without a time or a file name inside.
    array : (I, J, K) array
        The values, in the file's own axes.
    affine : (4, 4) array
        Voxel index to world mm; NIfTI keeps it as float32.
    on_disk_dtype : dtype, optional
        What is stored; the array's own otherwise.
    slope, inter : float, optional
        If given, ``(value - inter) / slope`` is stored, rounded.
    sform_code, qform_code : int
        VerSe's files have 2 and 0.
    """
    dtype = np.dtype(on_disk_dtype or array.dtype)
    header = _new_header(array.shape, affine, dtype, codes=(sform_code, qform_code))
    header.set_slope_inter(slope, inter)
    scale = None if slope is None and inter is None else (slope or 1.0, inter or 0.0)
    with staging(path) as staged:
        with staged.open("wb") as file:
            packed = gzip.GzipFile("", "wb", 1, file, mtime=0) if path.suffix == ".gz" else None
            target: IO[bytes] | gzip.GzipFile = packed or file
            target.write(header.binaryblock + b"\0" * 4)
            for k in range(array.shape[2]):
                target.write(_stored(array[:, :, k], dtype, scale).tobytes(order="F"))
            if packed:
                packed.close()
            sync_file(file)
        staged.replace(path)


def _new_header(
    shape: tuple[int, ...], affine: npt.ArrayLike, dtype: np.dtype[Any], *, codes: tuple[int, int]
) -> Any:
    """Return a nibabel header that holds geometry and type, and no text."""
    header_class: Any = nib.Nifti1Header
    header = header_class()
    matrix = np.asarray(affine, dtype=np.float64)
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_zooms(voxel_sizes(matrix))
    header.set_sform(matrix, code=codes[0])
    header.set_qform(matrix if codes[1] else None, code=codes[1])
    header["vox_offset"] = 352
    return header


def _stored(
    plane: npt.NDArray[Any], dtype: np.dtype[Any], scale: tuple[float, float] | None
) -> npt.NDArray[Any]:
    if scale is not None:
        plane = (plane - np.float64(scale[1])) / scale[0]
    if dtype.kind in "iu" and plane.dtype.kind not in "iu":
        plane = np.rint(plane)
    return plane.astype(dtype)


def read_volume(stream: VolumeStream) -> Volume:
    """Read a volume to its checked end."""
    with stream:
        out = np.empty(stream.header.voxels, stream.dtype)
        stream.fill(out)
        stream.finish()
    return Volume(out.reshape(stream.header.shape, order="F"), stream.header.affine)
