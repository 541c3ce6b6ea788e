"""Reads and writes NIfTI volumes; the only module that uses nibabel.

Images become int16 Hounsfield units, masks uint8 labels 0 … 28. Slope and intercept are applied in
float64 and the result is rounded to the nearest integer, halves to even. A value that int16 cannot
hold, or the sentinel of stores (-32768), is refused with its voxel index, never clipped.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, NoReturn, Self

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip_lib, isal_zlib
from isal.igzip import IGzipFile

from verse_data.errors import ContentMissing, NiftiRefused, ValidationFailed, VolumeCorrupt
from verse_data.files import staging, storage_errors, sync_file
from verse_data.spine.geometry import SAME_GRID_MM, Affine, Array, Grid, Shape, voxel_sizes
from verse_data.volumes.nifti_guard import (
    AGAIN,
    DTYPES,
    HEADER_SIZE,
    affine_rules,
    check,
    extension_rules,
    field_rules,
    is_unscaled,
    qform_rules,
    start_rules,
)

_BLOCK: Final = 2 << 20
"""Bytes decompressed at a time: few enough to be converted while in the processor's cache."""
_DEFLATE_RATIO: Final = 1032
"""Deflate cannot shrink by more than this: a header that declares more is false."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_open_gzip: Final[Any] = IGzipFile
_TRAILING: Final = "has bytes after the end of its gzip stream"
_DAMAGE: Final[Any] = (gzip.BadGzipFile, igzip_lib.error, isal_zlib.error)
_HALF_TURN: Final = 3 * float(np.finfo(np.float32).eps)
"""How far b² + c² + d² of a half turn may be below 1 by rounding, as in nibabel."""
_FEW_HU: Final = 100  # a range of fractions of which rounding leaves too few grey values for any CT
LAYOUT: Final[np.dtype[Any]] = nib.Nifti1Header.template_dtype
_TEXT_FIELDS: Final = ("db_name", "descrip", "aux_file", "intent_name")

Kind = Literal["image", "mask"]


class _Rule(NamedTuple):
    """Allowed values and stored type of the voxels of one kind."""

    dtype: np.dtype[Any]
    low: int
    high: int
    text: str
    tolerance: float | None = None
    """How far a voxel may be from a whole number; None rounds any value."""


_RULES: Final[dict[Kind, _Rule]] = {
    "image": _Rule(np.dtype("<i2"), -32767, 32767, "HU from -32767 to 32767"),
    "mask": _Rule(np.dtype("u1"), 0, 28, "a whole number from 0 to 28", 1e-3),
}


@dataclass(frozen=True)
class ImageHeader(Grid):
    """The fields that are read of a NIfTI header: grid in the file's own axes, and storage."""

    dtype: np.dtype[Any]
    slope: float = 1.0
    inter: float = 0.0
    offset: int = 352
    notes: tuple[str, ...] = ()
    """Oddities of the header: qform and sform disagree, free text is present …"""
    form_notes: tuple[str, ...] = ()
    """Those of them that are about qform and sform."""

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

    array: Array
    affine: Affine

    @property
    def shape(self) -> Shape:
        """Voxels along i, j, k."""
        i, j, k = self.array.shape
        return (i, j, k)


def parse_header(content: bytes, *, name: str) -> ImageHeader:
    """Parse a NIfTI-1 header, or raise NiftiRefused with the rule that it breaks."""
    check(name, start_rules(content))
    order = byte_order(content)
    fields = np.frombuffer(content, LAYOUT.newbyteorder(order), 1)[0]
    check(name, field_rules(fields))
    i, j, k = fields["dim"][1:4].tolist()
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    affine, form_notes = _affine(fields, (i, j, k), name)
    notes = form_notes + tuple(
        f"free text in {field}, not kept"
        for field in _TEXT_FIELDS
        if fields[field].item().strip(b"\0 ")
    )
    return ImageHeader(
        shape=(i, j, k),
        affine=affine,
        dtype=DTYPES[int(fields["datatype"])].newbyteorder(order),
        slope=1.0 if is_unscaled(slope) else slope,
        inter=0.0 if is_unscaled(slope) else inter,
        offset=int(fields["vox_offset"]),
        notes=notes,
        form_notes=form_notes,
    )


def byte_order(content: bytes) -> Literal["<", ">"]:
    """Return the byte order of a header, as NumPy writes it."""
    return "<" if content[:4] == HEADER_SIZE.to_bytes(4, "little") else ">"


def _affine(fields: Any, shape: Shape, name: str) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine and notes on it; sform takes precedence over qform, as in nibabel."""
    if not fields["sform_code"]:
        return _qform(fields, name), ()
    sform = np.eye(4)
    sform[:3] = [fields[f"srow_{axis}"] for axis in "xyz"]
    check(name, affine_rules(sform, "sform"))
    if not fields["qform_code"]:
        return sform, ()
    try:
        apart = Grid(shape, sform).distance(Grid(shape, _qform(fields, name)))
    except NiftiRefused:
        return sform, ("its qform is not usable; the sform was used",)
    if apart <= SAME_GRID_MM:
        return sform, ()
    return sform, (f"qform and sform differ by {apart:.2f} mm at a corner; the sform was used",)


def _qform(fields: Any, name: str) -> Affine:
    pixdim = fields["pixdim"].tolist()
    names = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    b, c, d, *origin = (float(fields[field]) for field in names)
    check(name, qform_rules(pixdim, [b, c, d, *origin]))
    square = b * b + c * c + d * d
    # For a half turn, float32 rounding alone leaves a remainder, worth up to 0.03 degrees.
    a = 0.0 if 1.0 - square < _HALF_TURN else math.sqrt(1.0 - square)
    b, c, d = (value / math.sqrt(a * a + square) for value in (b, c, d))
    # Not nibabel's function: the bytes of a store depend on the last bits of this matrix.
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
    check(name, affine_rules(affine, "qform"))
    return affine


class _HashedFile(FileIO):
    """A file that hashes all bytes that are read from it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.hash = hashlib.sha256()

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into `buffer`; all buffered readers use this method."""
        count = super().readinto(buffer) or 0
        self.hash.update(memoryview(buffer)[:count])
        return count


class VolumeStream:
    """One pass over a file: its checked header, then its voxels, converted on the way.

    nibabel stops after the bytes that it needs, so it does not read the CRC at the end of a .nii.gz
    and misses most bit flips: here CRC, length, trailing bytes and digest are checked before a
    volume counts as read.
    """

    def __init__(self, path: Path, *, kind: Kind, name: str, sha256: str | None = None) -> None:
        self.kind, self.name, self._path, self._sha256 = kind, name, path, sha256
        self._rule, self._next = _RULES[kind], 0
        self.dtype = self._rule.dtype
        self.low, self.high, self._is_whole = self._rule.high, self._rule.low, True

    def __enter__(self) -> Self:
        with storage_errors(self._path), ExitStack() as undo:
            try:
                self._file = undo.enter_context(_HashedFile(self._path))
            except (FileNotFoundError, IsADirectoryError):
                raise ContentMissing(
                    f"{self.name}: there is no file {self._path}. Get it: verse-data get"
                ) from None
            self.size = os.fstat(self._file.fileno()).st_size
            # By content: names are not reliable.
            self._is_gzip = os.pread(self._file.fileno(), 2, 0) == _GZIP_MAGIC
            gzipped = _open_gzip(fileobj=self._file) if self._is_gzip else None
            self._stream = gzipped or BufferedReader(self._file)
            self._begin(self.size * _DEFLATE_RATIO if self._is_gzip else self.size)
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _begin(self, limit: int) -> None:
        """Read header and extensions; the decompressed file has at most `limit` bytes."""
        self.head = head = self._read(HEADER_SIZE, "its header")
        self.header = header = parse_header(head, name=self.name)
        declared = header.offset + header.nbytes
        if declared > limit:
            self._corrupt(f"cannot hold the {declared:,} bytes that its header declares")
        rest = self._read(header.offset - HEADER_SIZE, "its header's extensions")
        check(self.name, extension_rules(rest, byte_order(head)))

    def fill(self, out: Array) -> None:
        """Read the next ``out.size`` voxels, in the file's order, into the flat array `out`."""
        dtype, what = self.header.dtype, f"its {self.header.nbytes:,} bytes of voxels"
        step = _BLOCK // dtype.itemsize
        for start in range(0, out.size, step):
            part = out[start : start + step]
            block = self._read(part.size * dtype.itemsize, what)
            part[:] = self._converted(np.frombuffer(block, dtype))
            self.low, self.high = min(self.low, int(part.min())), max(self.high, int(part.max()))
            self._next += part.size

    def finish(self) -> None:
        """Check, after all voxels were read, that nothing follows and that the digest is right."""
        # This read also verifies CRC and length, which are at the end of the gzip stream.
        if self._read(1):
            self._corrupt(f"goes on after its {self.header.nbytes:,} bytes of voxels")
        length = (self.header.offset + self.header.nbytes) % (1 << 32)
        end = os.pread(self._file.fileno(), 4, self.size - 4)
        # A stream ends with its length, unless it has several members; isal ignores zeros after it.
        if self._is_gzip and end != struct.pack("<I", length) and self._has_trailing_bytes():
            self._corrupt(_TRAILING)
        self._check_digest()
        if not self._is_whole and self.high - self.low <= _FEW_HU:
            raise ValidationFailed(
                f"{self.name}: its values run from {self.low} to {self.high} in fractions, which "
                f"whole HU cannot hold. Take the CT in HU, from before it was scaled."
            )

    def skip_rest(self) -> None:
        """Read all voxels, to the checked end, and keep only their range."""
        block = np.empty(min(self.header.voxels, _BLOCK), self.dtype)
        for start in range(0, self.header.voxels, block.size):
            self.fill(block[: self.header.voxels - start])
        self.finish()

    def _has_trailing_bytes(self) -> bool:
        """Return whether other bytes follow the last member of the gzip stream, by another pass."""
        with storage_errors(self._path), self._path.open("rb") as file, suppress(*_DAMAGE):
            member, rest = None, b""
            while block := rest or file.read(1 << 16):
                if member is None and block[0] != _GZIP_MAGIC[0]:
                    return True
                member = member or isal_zlib.decompressobj(wbits=31)
                member.decompress(block)
                rest = member.unused_data
                member = None if member.eof else member
        return False

    def _check_digest(self) -> None:
        """Hash the rest of the file, and compare the digest with the locked one."""
        with storage_errors(self._path):
            block = bytearray(1 << 16)
            while self._file.readinto(block):
                pass
        digest = self._file.hash.hexdigest()
        if self._sha256 and digest != self._sha256:
            self._corrupt(f"has SHA-256 {digest[:12]} where {self._sha256[:12]} is locked")

    def _read(self, size: int, what: str = "") -> bytes:
        """Return the next `size` decompressed bytes; fewer at the end raise if `what` is given."""
        with storage_errors(self._path):
            try:
                data: bytes = self._stream.read(size)
            except EOFError:
                cut = not self._has_trailing_bytes()
                self._corrupt("is cut: its gzip stream has no end" if cut else _TRAILING)
            except _DAMAGE as error:
                self._corrupt(f"is damaged: {error}")
        if what and len(data) < size:
            self._corrupt(f"ends within {what}")
        return data

    def _corrupt(self, why: str) -> NoReturn:
        raise VolumeCorrupt(
            f"{self.name} ({self._path}, {self.size:,} bytes) {why}. Nothing of it was used. {AGAIN}"
        )

    def read_rest(self) -> Array:
        """Read all voxels, to the checked end, as an array in the file's own axes."""
        out = np.empty(self.header.voxels, self.dtype)
        self.fill(out)
        self.finish()
        return out.reshape(self.header.shape, order="F")

    def _converted(self, stored: Array) -> Array:
        """Return the values of the next stored voxels, or raise if one is not allowed."""
        rule, header = self._rule, self.header
        as_stored = not header.scaled and stored.dtype.kind in "iu"
        if as_stored and rule.low <= int(stored.min()) and int(stored.max()) <= rule.high:
            return stored
        exact = stored.astype(np.float64) * header.slope + header.inter
        values = np.rint(exact)
        allowed = (values >= rule.low) & (values <= rule.high)
        if rule.tolerance is not None:
            with np.errstate(invalid="ignore"):  # infinity minus infinity
                allowed &= np.abs(exact - values) < rule.tolerance
        if allowed.all():
            self._is_whole &= rule.tolerance is not None or bool((exact == values).all())
            return values
        wrong = int(np.argmin(allowed))
        place = ", ".join(map(str, np.unravel_index(self._next + wrong, header.shape, order="F")))
        found = (exact if header.scaled else stored)[wrong]
        raise ValidationFailed(
            f"{self.name}: voxel ({place}) holds {found}, and must be {rule.text}. "
            f"Nothing of it was kept. {AGAIN}"
        )


def read_image(path: Path, *, name: str, sha256: str | None = None) -> Volume:
    """Read a CT as int16 HU, with all checks of :class:`VolumeStream`; `name` is for messages."""
    return read_volume(VolumeStream(path, kind="image", name=name, sha256=sha256))


def read_mask(path: Path, *, name: str, sha256: str | None = None) -> Volume:
    """Read a mask (uint8 or float64 in VerSe) as uint8 labels; floats are rounded."""
    return read_volume(VolumeStream(path, kind="mask", name=name, sha256=sha256))


def read_volume(stream: VolumeStream) -> Volume:
    """Read a whole volume, with all checks of :class:`VolumeStream`."""
    with stream:
        return Volume(stream.read_rest(), stream.header.affine)


def check_pair(image: Grid, mask: Grid, *, name: str) -> None:
    """Raise ValidationFailed unless a CT and its mask have the same grid."""
    if image.matches(mask):
        return
    apart = ""
    if image.shape == mask.shape:
        apart = f"; their corners lie up to {image.distance(mask):.2f} mm apart"
    raise ValidationFailed(
        f"{name}: the CT has shape {image.shape} and its mask {mask.shape}{apart}. They must be the "
        f"same grid, to {SAME_GRID_MM} mm: take both again from their source."
    )


def write_nifti(
    path: Path,
    array: Array,
    affine: npt.ArrayLike,
    *,
    on_disk_dtype: npt.DTypeLike | None = None,
    slope: float | None = None,
    inter: float = 0.0,
) -> None:
    """Write a NIfTI-1 file atomically; the same input makes the same bytes.

    It is gzipped if `path` ends in ``.gz``, without a time or a file name inside. With `slope`,
    ``(value - inter) / slope`` is stored; it is rounded where `on_disk_dtype` holds whole numbers.
    """
    dtype = np.dtype(on_disk_dtype or array.dtype)
    header = _new_header(array.shape, affine, dtype)
    header.set_slope_inter(slope, None if slope is None else inter)

    def planes() -> Iterator[Array]:
        for k in range(array.shape[2]):
            plane = array[:, :, k]
            if slope is not None:
                plane = (plane - np.float64(inter)) / slope
            if dtype.kind in "iu" and plane.dtype.kind == "f":
                plane = np.rint(plane)
            yield plane.astype(dtype)

    write_volume(path, header.binaryblock, planes())


def write_volume(path: Path, header: bytes, planes: Iterable[Array]) -> None:
    """Write header and voxels atomically, gzipped if the name of `path` says so."""
    with staging(path) as staged:
        with staged.open("wb") as file:
            pack = path.suffix == ".gz"
            target: Any = gzip.GzipFile("", "wb", 1, file, mtime=0) if pack else nullcontext(file)
            with target as stream:
                stream.write(header + b"\0" * 4)
                for plane in planes:
                    stream.write(plane.tobytes(order="F"))
            sync_file(file)
        staged.replace(path)


def nifti_bytes(array: Array, affine: npt.ArrayLike) -> bytes:
    """Return a NIfTI-1 file in memory, not compressed."""
    header: bytes = _new_header(array.shape, affine, array.dtype).binaryblock
    return header + b"\0" * 4 + array.tobytes(order="F")


def _new_header(shape: tuple[int, ...], affine: npt.ArrayLike, dtype: np.dtype[Any]) -> Any:
    """Return a nibabel header with geometry and type, without text, with VerSe's form codes."""
    new_header: Any = nib.Nifti1Header
    header, matrix = new_header(), np.asarray(affine, dtype=np.float64)
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_zooms(voxel_sizes(matrix))
    header.set_sform(matrix, code=2)
    header.set_qform(None, code=0)
    header["vox_offset"] = 352
    return header
