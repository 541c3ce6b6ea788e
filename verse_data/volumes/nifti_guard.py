"""The guard in front of every NIfTI file: what its header may say, and its bytes to their very end.

Only what is checked here is read; free text and extensions of a header never travel on. nibabel
stops after the bytes that it wants, so the CRC at the end of a .nii.gz goes unread and most bit
flips pass: here CRC, length and trailing bytes are checked before a volume counts as read.
"""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Self

import numpy as np
from isal import igzip_lib

from verse_data.errors import ContentMissing, NiftiRefused, VolumeCorrupt
from verse_data.files import storage_errors
from verse_data.spine.geometry import Affine, Shape

HEADER_SIZE: Final = 348
MAX_OFFSET: Final = 1 << 20
"""Largest ``vox_offset``: a header with extensions of more than 1 MiB is refused."""
MAX_VOXELS: Final = 1 << 29
"""Largest volume: 512 x 512 x 2048, four times the longest spine CT to be expected."""
_DTYPES: Final = {2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 16: "f4", 64: "f8"}
_READ_TYPES: Final = ", ".join(np.dtype(text).name for text in _DTYPES.values())
_WRONG_UNITS: Final = {1: "metres", 3: "micrometres"}
_COMPRESSED_BLOCK: Final = 1 << 18
_DEFLATE_RATIO: Final = 1032
"""Deflate cannot shrink by more than this: a header that declares more is lying."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_INFLATE_ERROR: Final[Any] = igzip_lib.error


def refuse(name: str, why: str) -> NoReturn:
    """Raise the error of a header that is not read; `why` says what it declares."""
    raise NiftiRefused(
        f"{name} was refused before reading: it {why}. Get the file again from its release."
    )


class Guard:
    """What a header may say: each method returns what is read, or refuses with value and rule."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _must(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001 - it is a rule
        if not holds:
            refuse(self._name, otherwise)

    def byte_order(self, content: bytes) -> Literal["<", ">"]:
        """Return the byte order of a NIfTI-1 header."""
        short = f"holds {len(content)} bytes, fewer than the {HEADER_SIZE} of a header"
        self._must(len(content) >= HEADER_SIZE, short)
        little, big = int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")
        self._must(540 not in {little, big}, "is NIfTI-2 (sizeof_hdr 540); only NIfTI-1 is read")
        self._must(HEADER_SIZE in {little, big}, f"has sizeof_hdr {little} instead of 348")
        return "<" if little == HEADER_SIZE else ">"

    def shape(self, dim: list[int]) -> Shape:
        """Return the shape that the field ``dim`` declares."""
        count, sizes = dim[0], tuple(dim[1 : dim[0] + 1])
        self._must(3 <= count <= 7, f"has {count} dimensions (dim[0]) where a volume has 3")
        self._must(min(sizes) >= 1, f"declares the size {sizes}: each must be at least 1")
        several = f"declares {count} dimensions of size {sizes}, more than one volume"
        self._must(all(size == 1 for size in sizes[3:]), several)
        i, j, k = sizes[:3]
        text = f"declares {i} x {j} x {k} = {i * j * k:,} voxels; the limit is {MAX_VOXELS:,}"
        self._must(i * j * k <= MAX_VOXELS, text)
        return (i, j, k)

    def storage(self, fields: Any, order: str) -> tuple[np.dtype[Any], int]:
        """Return type and place of the voxels."""
        magic, code = fields["magic"].item(), int(fields["datatype"])
        bits, offset = int(fields["bitpix"]), float(fields["vox_offset"])
        unit = _WRONG_UNITS.get(int(fields["xyzt_units"]) & 7)
        self._must(magic == b"n+1", f"has magic {magic!r} where a one-file NIfTI-1 has b'n+1'")
        self._must(code in _DTYPES, f"has data type code {code}; read are {_READ_TYPES}")
        dtype = np.dtype(order + _DTYPES[code])
        size = f"says bitpix {bits} for {dtype.name}, which has {dtype.itemsize * 8}"
        self._must(bits == dtype.itemsize * 8, size)
        place = f"has vox_offset {offset}; it must be a whole number from 352 to {MAX_OFFSET}"
        self._must(352 <= offset <= MAX_OFFSET and offset.is_integer(), place)
        self._must(unit is None, f"measures in {unit} (xyzt_units {fields['xyzt_units']}), not mm")
        return dtype, int(offset)

    def scaling(self, slope: float, inter: float) -> tuple[float, float]:
        """Apply the format's rule: a slope of 0 (or NaN, as nibabel writes) means no scaling."""
        if math.isnan(slope) or slope == 0:
            text = f"has scl_slope {slope}, which means none, but scl_inter {inter}"
            self._must(math.isnan(inter) or inter == 0, text)
            return 1.0, 0.0
        of_ct = "for a CT or a mask it lies"
        # nibabel saves float labels as int32 with a slope of 7e-9.
        self._must(1e-9 <= slope <= 100, f"has scl_slope {slope}; {of_ct} from 1e-9 to 100")
        self._must(abs(inter) <= 32767, f"has scl_inter {inter}; {of_ct} within +-32767")
        return slope, inter

    def form_codes(self, **codes: int) -> None:
        """Refuse forms of unknown codes, and a header without either."""
        for form, code in codes.items():
            self._must(0 <= code <= 5, f"has {form}_code {code}; the format knows 0 to 5")
        none = "has neither a qform nor an sform (both codes 0), so no orientation"
        self._must(any(codes.values()), none)

    def qform(self, pixdim: list[float], quaternion: list[float]) -> None:
        """Refuse a qform that is no rotation; `quaternion` holds b, c, d and the origin."""
        finite = all(map(math.isfinite, (*pixdim[:4], *quaternion)))
        self._must(finite, "has a qform with NaN or infinite numbers")
        sizes = pixdim[1:4]
        self._must(min(sizes) > 0, f"has voxel sizes of {sizes} mm; a qform needs them above 0")
        # Right-handed unless -1: readers disagree about any other number.
        handed = f"has pixdim[0] {pixdim[0]}, and a qform's handedness is -1 or 1"
        self._must(pixdim[0] in {-1.0, 0.0, 1.0}, handed)
        square = sum(value * value for value in quaternion[:3])
        text = f"has a qform that is no rotation (b² + c² + d² = {square:.4g})"
        self._must(square <= 1 + 1e-5, text)

    def affine(self, affine: Affine, form: str) -> Affine:
        """Return an affine that is a grid in space."""
        finite = bool(np.isfinite(affine).all())
        self._must(finite, f"has an {form} with NaN or infinite numbers")
        sizes, origin = np.linalg.norm(affine[:3, :3], axis=0), affine[:3, 3]
        text = " x ".join(f"{size:.4g}" for size in sizes)
        fits = bool(sizes.min() >= 0.01 and sizes.max() <= 100)
        self._must(fits, f"has voxels of {text} mm; read are 0.01 to 100 mm")
        far = f"has its origin at {origin.tolist()}, more than a kilometre away"
        self._must(bool(np.abs(origin).max() <= 1e6), far)
        volume = abs(float(np.linalg.det(affine[:3, :3] / sizes)))
        flat = f"has an {form} whose axes nearly lie in one plane (volume {volume:.3g})"
        self._must(volume >= 0.1, flat)
        return affine

    def extensions(self, content: bytes, order: str) -> None:
        """Walk over header extensions without looking into them: they may hold private text."""
        place, end = 4, len(content)
        rule = f"it must be a multiple of 16 that ends before byte {HEADER_SIZE + end}"
        while content[0] and place + 8 <= end:
            size = int(np.frombuffer(content, f"{order}i4", 1, place)[0])
            sound = size >= 8 and size % 16 == 0 and place + size <= end
            self._must(sound, f"has a header extension that declares {size} bytes; {rule}")
            place += size


class CheckedFile:
    """The bytes of a ``.nii`` or ``.nii.gz``, inflated in blocks up to its checked end."""

    def __init__(self, path: Path, *, name: str, sha256: str | None = None) -> None:
        self._path, self.name, self._expected = path, name, sha256
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        with storage_errors(self._path), ExitStack() as undo:
            try:
                self._file = undo.enter_context(self._path.open("rb"))
            except (FileNotFoundError, IsADirectoryError):
                raise ContentMissing(
                    f"{self.name}: there is no file {self._path}. Get it: verse-data get"
                ) from None
            self._size = os.fstat(self._file.fileno()).st_size
            # Its first bytes tell whether it is compressed: names lie.
            self._compressed = self._file.read(2) == _GZIP_MAGIC
            self._file.seek(0)
            self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self.begin()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self) -> None:
        """Read what stands in front; a failure closes the file."""

    def check_room(self, declared: int) -> None:
        """Refuse a header that declares more bytes than the file can hold."""
        if not self._compressed and declared > self._size:
            self.corrupt(f"is cut: its header declares {declared:,} bytes")
        if self._compressed and declared > (most := self._size * _DEFLATE_RATIO):
            refuse(
                self.name,
                f"declares {declared:,} bytes, and its {self._size:,} compressed bytes cannot hold "
                f"more than {most:,}",
            )

    def read_exactly(self, size: int, what: str) -> bytes:
        """Return the next `size` inflated bytes; `what` says in messages what they are."""
        parts: list[bytes] = []
        while size and (part := self.read_some(size)):
            parts.append(part)
            size -= len(part)
        if size:
            self.corrupt(f"ends within {what}")
        return b"".join(parts)

    def read_some(self, size: int) -> bytes:
        """Return 1 to `size` inflated bytes, or none at the file's checked end."""
        with storage_errors(self._path):
            if not self._compressed:
                return self._fetch(size)
            try:
                return self._inflate(size)
            except (_INFLATE_ERROR, EOFError) as error:
                return self.corrupt(f"is damaged: {str(error) or type(error).__name__}")

    def hash_rest(self) -> None:
        """Hash what was not read yet, as it lies there, and check the digest of the whole."""
        with storage_errors(self._path):
            while self._fetch(_COMPRESSED_BLOCK):
                pass
        self.check_digest()

    def check_digest(self) -> None:
        """Compare the digest of what was read with the locked one."""
        digest = self._hash.hexdigest()
        if self._expected and digest != self._expected:
            self.corrupt(f"has SHA-256 {digest[:12]} where {self._expected[:12]} is locked")

    def _fetch(self, size: int) -> bytes:
        data = self._file.read(size)
        if self._expected:
            self._hash.update(data)
        return data

    def _inflate(self, size: int) -> bytes:
        while True:
            data = b""
            if self._inflater.eof:
                data = self._inflater.unused_data
                if len(data) < len(_GZIP_MAGIC):
                    data += self._fetch(_COMPRESSED_BLOCK)
                if not data:
                    return b""
                # A gzip file may have several members, one after the other.
                if not data.startswith(_GZIP_MAGIC):
                    self.corrupt(f"has {len(data)} or more bytes after the end of its gzip stream")
                self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            elif self._inflater.needs_input:
                data = self._fetch(_COMPRESSED_BLOCK)
                if not data:
                    self.corrupt("is cut: its gzip stream has no end")
            out: bytes = self._inflater.decompress(data, size)
            if out:
                return out

    def corrupt(self, why: str) -> NoReturn:
        """Raise the error of a damaged file."""
        raise VolumeCorrupt(
            f"{self.name} ({self._path}, {self._size:,} bytes) {why}. "
            f"Nothing of it was used. Take the file again from its source."
        )
