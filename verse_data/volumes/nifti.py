"""Reading and writing NIfTI volumes: the one door to nibabel, behind the guard.

Images become int16 Hounsfield units, masks uint8 labels 0 … 28. Slope and intercept are applied in
float64 and the result is rounded to the nearest integer, halves to even. A value that int16 cannot
hold, or the one that stores keep as their sentinel (-32768), is refused with its place rather than
clipped: clipping would change data without a word.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from verse_data.errors import NiftiRefused, ValidationFailed
from verse_data.files import staging, sync_file
from verse_data.spine.geometry import SAME_GRID_MM, Affine, Grid, Shape, voxel_sizes
from verse_data.volumes.nifti_guard import HEADER_SIZE, CheckedFile, Guard

_BLOCK: Final = 2 << 20
"""Bytes inflated at a time: they still lie in the cache when they are converted."""
_HALF_TURN: Final = 3 * float(np.finfo(np.float32).eps)
"""What b² + c² + d² of a qform may lack of 1 by rounding alone, as in nibabel."""
_LITTLE: Final[np.dtype[Any]] = nib.Nifti1Header.template_dtype.newbyteorder("<")
_LAYOUT: Final = {"<": _LITTLE, ">": _LITTLE.newbyteorder(">")}
_TEXT_FIELDS: Final = ("db_name", "descrip", "aux_file", "intent_name")

Kind = Literal["image", "mask"]


class _Rule(NamedTuple):
    """What voxels of one kind may be, and become."""

    dtype: np.dtype[Any]
    low: int
    high: int
    text: str
    tolerance: float | None = None
    """How far from a whole number a voxel may lie; None rounds any."""


_RULES: Final[dict[Kind, _Rule]] = {
    "image": _Rule(np.dtype("<i2"), -32767, 32767, "HU from -32767 to 32767"),
    "mask": _Rule(np.dtype("u1"), 0, 28, "a whole number from 0 to 28", 1e-3),
}


@dataclass(frozen=True)
class ImageHeader(Grid):
    """What is read of a NIfTI header: the grid in the file's own axes, and how it is stored."""

    dtype: np.dtype[Any]
    slope: float = 1.0
    inter: float = 0.0
    offset: int = 352
    notes: tuple[str, ...] = ()
    """What a careful reader should know: qform and sform disagree, free text is present …"""

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


@dataclass(frozen=True)
class Volume:
    """A volume in its file's own axes: int16 HU or uint8 labels, Fortran-ordered as NIfTI is."""

    array: npt.NDArray[Any]
    affine: Affine

    @property
    def shape(self) -> Shape:
        """Voxels along i, j, k."""
        i, j, k = self.array.shape
        return (i, j, k)


def parse_header(content: bytes, *, name: str) -> ImageHeader:
    """Read a NIfTI-1 header; NiftiRefused says what it declares that is not read, and the rule."""
    guard = Guard(name)
    order = guard.byte_order(content)
    fields = np.frombuffer(content, _LAYOUT[order], 1)[0]
    shape = guard.shape(fields["dim"].tolist())
    dtype, offset = guard.storage(fields, order)
    scaling = guard.scaling(float(fields["scl_slope"]), float(fields["scl_inter"]))
    affine, notes = _affine(fields, shape, guard)
    notes += tuple(
        f"free text in {field}, not kept"
        for field in _TEXT_FIELDS
        if fields[field].item().strip(b"\0 ")
    )
    return ImageHeader(shape, affine, dtype, *scaling, offset, notes)


def _affine(fields: Any, shape: Shape, guard: Guard) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine and notes on it; the sform counts before the qform, as in nibabel."""
    qform_code, sform_code = int(fields["qform_code"]), int(fields["sform_code"])
    guard.form_codes(qform=qform_code, sform=sform_code)
    if sform_code == 0:
        return guard.affine(_qform(fields, guard), "qform"), ()
    rows = [fields[f"srow_{axis}"].astype(np.float64) for axis in "xyz"]
    sform = guard.affine(np.vstack([*rows, [0, 0, 0, 1]]), "sform")
    if qform_code == 0:
        return sform, ()
    try:
        apart = Grid(shape, sform).distance(Grid(shape, _qform(fields, guard)))
    except NiftiRefused:
        return sform, ("its qform is not usable; the sform was used",)
    if apart <= SAME_GRID_MM:
        return sform, ()
    return sform, (f"qform and sform differ by {apart:.2f} mm at a corner; the sform was used",)


def _qform(fields: Any, guard: Guard) -> Affine:
    pixdim = fields["pixdim"].tolist()
    names = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    b, c, d, *origin = (float(fields[field]) for field in names)
    guard.qform(pixdim, [b, c, d, *origin])
    square = b * b + c * c + d * d
    # Of a half-turn float32 leaves a rest where there is none, worth up to 0.03 degrees.
    a = 0.0 if 1.0 - square < _HALF_TURN else math.sqrt(1.0 - square)
    b, c, d = (value / math.sqrt(a * a + square) for value in (b, c, d))
    # Not nibabel's: its last bits differ, and the bytes of a store follow from them.
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


class VolumeStream(CheckedFile):
    """One pass over a file: its checked header, then its voxels, converted on the way."""

    header: ImageHeader

    def __init__(self, path: Path, *, kind: Kind, name: str, sha256: str | None = None) -> None:
        super().__init__(path, name=name, sha256=sha256)
        self._rule, self._next = _RULES[kind], 0
        self.dtype = self._rule.dtype

    def begin(self) -> None:
        """Read and check the header and what stands between it and the voxels."""
        guard, head = Guard(self.name), self.read_exactly(HEADER_SIZE, "its header")
        self.header = parse_header(head, name=self.name)
        self.check_room(self.header.offset + self.header.nbytes)
        rest = self.read_exactly(self.header.offset - HEADER_SIZE, "its header's extensions")
        guard.extensions(rest, guard.byte_order(head))

    def fill(self, out: npt.NDArray[Any]) -> None:
        """Read the next ``out.size`` voxels, in the file's order, into the flat array `out`."""
        dtype, done, carry = self.header.dtype, 0, b""
        while done < out.size:
            left = (out.size - done) * dtype.itemsize - len(carry)
            block = self.read_some(min(_BLOCK, left))
            if not block:
                self.corrupt(f"ends before its {self.header.nbytes:,} bytes of voxels do")
            block = carry + block if carry else block
            count = len(block) // dtype.itemsize
            carry = block[count * dtype.itemsize :]
            if count:
                out[done : done + count] = self._converted(np.frombuffer(block, dtype, count))
            done += count
            self._next += count

    def finish(self) -> None:
        """Check the end, once all voxels were taken: nothing follows, and the digest is right."""
        # Only now are CRC and length known to be right too: both stand at the end of the stream.
        if self.read_some(1):
            self.corrupt(f"goes on after its {self.header.nbytes:,} bytes of voxels")
        self.check_digest()

    def _converted(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of the next stored voxels, if all of them are such as their kind has."""
        rule, header = self._rule, self.header
        if not header.scaled and stored.dtype.kind in "iu":
            if rule.low <= int(stored.min()) and int(stored.max()) <= rule.high:
                return stored
            exact = values = stored
        else:
            exact = stored.astype(np.float64) * header.slope + header.inter
            values = np.rint(exact)
        right = (values >= rule.low) & (values <= rule.high)
        if rule.tolerance is not None:
            with np.errstate(invalid="ignore"):  # of infinity less infinity
                right &= np.abs(exact - values) < rule.tolerance
        if right.all():
            return values
        wrong = int(np.argmin(right))
        index = np.unravel_index(self._next + wrong, header.shape, order="F")
        place = ", ".join(str(int(i)) for i in index)
        found = (exact if header.scaled else stored)[wrong]
        raise ValidationFailed(
            f"{self.name}: voxel ({place}) holds {found}, and must be {rule.text}. "
            f"Nothing of it was kept. Take the file again from its source."
        )


def read_header(path: Path, *, name: str, sha256: str | None = None) -> ImageHeader:
    """Read the checked header of a file; with `sha256` (hex), the whole file must have that digest."""
    with VolumeStream(path, kind="image", name=name, sha256=sha256) as stream:
        if sha256:
            stream.hash_rest()
        return stream.header


def read_image(path: Path, *, name: str, sha256: str | None = None) -> Volume:
    """Read a CT as int16 HU, drained to its checked end; `name` is what messages call it."""
    return read_volume(VolumeStream(path, kind="image", name=name, sha256=sha256))


def read_mask(path: Path, *, name: str, sha256: str | None = None) -> Volume:
    """Read a mask, in VerSe uint8 or float64, as uint8 labels; floats are rounded, never truncated."""
    return read_volume(VolumeStream(path, kind="mask", name=name, sha256=sha256))


def read_volume(stream: VolumeStream) -> Volume:
    """Read a volume to its checked end."""
    with stream:
        out = np.empty(stream.header.voxels, stream.dtype)
        stream.fill(out)
        stream.finish()
    return Volume(out.reshape(stream.header.shape, order="F"), stream.header.affine)


def check_pair(image: Grid, mask: Grid, *, name: str) -> None:
    """Raise ValidationFailed, with numbers, unless a CT and its mask lie on the same grid."""
    if image.matches(mask):
        return
    what = f"the CT has shape {image.shape} and its mask {mask.shape}"
    if image.shape == mask.shape:
        what = (
            f"the corners of the CT and of its mask lie up to {image.distance(mask):.2f} mm apart; "
            f"the limit is {SAME_GRID_MM} mm (both have shape {image.shape})"
        )
    raise ValidationFailed(
        f"{name}: {what}. They must be the same grid: take both again from their source."
    )


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

    It is gzipped if `path` ends in ``.gz``, without a time or a file name inside. With `slope` or
    `inter`, ``(value - inter) / slope`` is stored, rounded. VerSe's form codes are the defaults.
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
