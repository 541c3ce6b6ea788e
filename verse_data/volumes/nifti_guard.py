"""The guard in front of every NIfTI file: what its header may say, and its bytes to their very end.

Only what is checked here is read; free text and extensions of a header never travel on. nibabel
stops after the bytes that it wants, so the CRC at the end of a .nii.gz goes unread and most bit
flips pass: here CRC, length and trailing bytes are checked before a volume counts as read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NoReturn, Self

import numpy as np
from isal import igzip_lib, isal_zlib
from isal.igzip import IGzipFile

from verse_data.errors import ContentMissing, NiftiRefused, VolumeCorrupt
from verse_data.publishing import storage_errors
from verse_data.spine.geometry import Affine

HEADER_SIZE: Final = 348
MAX_OFFSET: Final = 1 << 20
"""Largest ``vox_offset``: a header with extensions of more than 1 MiB is refused."""
MAX_VOXELS: Final = 1 << 29
"""Largest volume: 512 x 512 x 2048, four times the longest spine CT to be expected."""
DTYPES: Final = {
    code: np.dtype(text)
    for code, text in {2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4"}.items()
} | {16: np.dtype("f4"), 64: np.dtype("f8")}
"""Number types that are read, by their code in the header."""
_READ_TYPES: Final = ", ".join(dtype.name for dtype in DTYPES.values())
_WRONG_UNITS: Final = {1: "metres", 3: "micrometres"}
_BLOCK: Final = 1 << 18
_DEFLATE_RATIO: Final = 1032
"""Deflate cannot shrink by more than this: a header that declares more is lying."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_OPEN_PACKED: Final[Any] = IGzipFile
_DAMAGE: Final[Any] = (EOFError, gzip.BadGzipFile, igzip_lib.error, isal_zlib.error)

Rule = tuple[bool, str]
"""Whether a rule holds, and what a header does that breaks it."""


def check(name: str, rules: Iterable[Rule]) -> None:
    """Refuse the file `name` by the first of `rules` that its header breaks."""
    for holds, otherwise in rules:
        if not holds:
            raise NiftiRefused(
                f"{name} was refused before reading: it {otherwise}. "
                f"Get the file again from its release."
            )


def start_rules(content: bytes) -> Iterator[Rule]:
    """Yield the rules for the bytes that a NIfTI-1 header starts with."""
    sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
    yield 540 not in sizes, "is NIfTI-2 (sizeof_hdr 540); only NIfTI-1 is read"
    yield HEADER_SIZE in sizes, f"has sizeof_hdr {min(sizes)} instead of {HEADER_SIZE}"


def field_rules(fields: Any) -> Iterator[Rule]:
    """Yield the rules for the fields that say how voxels are stored and which forms there are."""
    count, *sizes = fields["dim"].tolist()
    sizes, voxels = sizes[: max(count, 0)], math.prod(sizes[:3])
    yield 3 <= count <= 7, f"has {count} dimensions (dim[0]) where a volume has 3"
    yield min(sizes) >= 1, f"declares the size {sizes}: each must be at least 1"
    yield max(sizes[3:], default=1) == 1, f"declares the size {sizes}, more than one volume"
    yield voxels <= MAX_VOXELS, f"declares {voxels:,} voxels; the limit is {MAX_VOXELS:,}"

    magic, code, bits = fields["magic"].item(), int(fields["datatype"]), int(fields["bitpix"])
    yield magic == b"n+1", f"has magic {magic!r} where a one-file NIfTI-1 has b'n+1'"
    yield code in DTYPES, f"has data type code {code}; read are {_READ_TYPES}"
    yield bits == DTYPES[code].itemsize * 8, f"says bitpix {bits} for {DTYPES[code].name}"
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


def qform_rules(pixdim: list[float], quaternion: list[float]) -> Iterator[Rule]:
    """Yield the rules for a qform that is a rotation; `quaternion` holds b, c, d and the origin."""
    finite = all(map(math.isfinite, (*pixdim[:4], *quaternion)))
    yield finite, "has a qform with NaN or infinite numbers"
    yield min(pixdim[1:4]) > 0, f"has voxels of {pixdim[1:4]} mm; a qform needs them above 0"
    # Right-handed unless -1: readers disagree about any other number.
    handed = pixdim[0] in {-1.0, 0.0, 1.0}
    yield handed, f"has pixdim[0] {pixdim[0]}, and a qform's handedness is -1 or 1"
    square = sum(value * value for value in quaternion[:3])
    yield square <= 1 + 1e-5, f"has a qform that is no rotation (b² + c² + d² = {square:.4g})"


def affine_rules(affine: Affine, form: str) -> Iterator[Rule]:
    """Yield the rules for an affine that is a grid in space."""
    yield bool(np.isfinite(affine).all()), f"has an {form} with NaN or infinite numbers"
    sizes, origin = np.linalg.norm(affine[:3, :3], axis=0), affine[:3, 3]
    fits = bool(sizes.min() >= 0.01 and sizes.max() <= 100)
    yield fits, f"has voxels of {sizes.round(4).tolist()} mm; read are 0.01 to 100 mm"
    near = bool(np.abs(origin).max() <= 1e6)
    yield near, f"has its origin at {origin.tolist()}, more than a kilometre away"
    volume = abs(float(np.linalg.det(affine[:3, :3] / sizes)))
    yield volume >= 0.1, f"has an {form} whose axes nearly lie in one plane (volume {volume:.3g})"


def extension_rules(content: bytes, order: str) -> Iterator[Rule]:
    """Walk over header extensions without looking into them: they may hold private text."""
    place, end = 4, len(content)
    rule = f"it must be a multiple of 16 that ends before byte {HEADER_SIZE + end}"
    while content[0] and place + 8 <= end:
        size = int(np.frombuffer(content, f"{order}i4", 1, place)[0])
        sound = size >= 8 and size % 16 == 0 and place + size <= end
        yield sound, f"has a header extension that declares {size} bytes; {rule}"
        place += size


class _HashedFile(io.FileIO):
    """A file that hashes what is read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.hash = hashlib.sha256()

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into `buffer`, which is how every reader above this one asks."""
        count = super().readinto(buffer) or 0
        self.hash.update(memoryview(buffer)[:count])
        return count


class CheckedFile:
    """The bytes of a ``.nii`` or ``.nii.gz``, inflated and hashed up to their checked end."""

    def __init__(self, path: Path, *, name: str, sha256: str | None = None) -> None:
        self._path, self.name, self._expected = path, name, sha256

    def __enter__(self) -> Self:
        with storage_errors(self._path), ExitStack() as undo:
            try:
                self._file = undo.enter_context(_HashedFile(self._path))
            except (FileNotFoundError, IsADirectoryError):
                raise ContentMissing(
                    f"{self.name}: there is no file {self._path}. Get it: verse-data get"
                ) from None
            self.size = os.fstat(self._file.fileno()).st_size
            # Its first bytes tell whether it is compressed: names lie.
            self._compressed = os.pread(self._file.fileno(), 2, 0) == _GZIP_MAGIC
            self._stream: Any = (
                _OPEN_PACKED(fileobj=self._file)
                if self._compressed
                else io.BufferedReader(self._file)
            )
            self.begin()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self) -> None:
        """Read what stands in front; a failure closes the file."""

    def check_room(self, declared: int) -> None:
        """Refuse a header that declares more bytes than the file can hold."""
        if not self._compressed and declared > self.size:
            self.corrupt(f"is cut: its header declares {declared:,} bytes")
        most = self.size * _DEFLATE_RATIO
        what = f"declares {declared:,} bytes, and its {self.size:,} cannot hold more than {most:,}"
        check(self.name, [(declared <= most, what)])

    def read_exactly(self, size: int, what: str) -> bytes:
        """Return the next `size` inflated bytes; `what` says in messages what they are."""
        data = self.read_some(size)
        if len(data) < size:
            self.corrupt(f"ends within {what}")
        return data

    def read_some(self, size: int) -> bytes:
        """Return `size` inflated bytes, or fewer where the file comes to its checked end."""
        with storage_errors(self._path):
            try:
                data: bytes = self._stream.read(size)
            except _DAMAGE as error:
                self.corrupt(f"is damaged: {error}")
        return data

    def hash_rest(self) -> None:
        """Hash what was not read yet, as it lies there, and check the digest of the whole."""
        with storage_errors(self._path):
            block = bytearray(_BLOCK)
            while self._file.readinto(block):
                pass
        self.check_digest()

    def check_digest(self) -> None:
        """Compare the digest of what was read with the locked one."""
        digest = self._file.hash.hexdigest()
        if self._expected and digest != self._expected:
            self.corrupt(f"has SHA-256 {digest[:12]} where {self._expected[:12]} is locked")

    def corrupt(self, why: str) -> NoReturn:
        """Raise the error of a damaged file."""
        raise VolumeCorrupt(
            f"{self.name} ({self._path}, {self.size:,} bytes) {why}. "
            f"Nothing of it was used. Take the file again from its source."
        )
