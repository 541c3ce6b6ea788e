"""Inflating a NIfTI file to its very end, in blocks, within the budget that its header sets.

nibabel stops after the bytes that it wants, so the CRC at the end of a .nii.gz usually goes
unread and most bit flips pass. Here the stream is drained, and CRC, length and trailing bytes are
checked, before a volume counts as read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, Self

import numpy as np
import numpy.typing as npt
from isal import igzip_lib

from verse_data.errors import ContentMissing, NiftiRefused, VolumeCorrupt
from verse_data.publishing import storage_errors
from verse_data.volumes.nifti_header import HEADER_SIZE, ImageHeader, parse_header

BLOCK: Final = 2 << 20
"""Bytes inflated at a time: they still lie in the cache when they are converted."""
_COMPRESSED_BLOCK: Final = 1 << 18
_DEFLATE_RATIO: Final = 1032
"""Deflate cannot shrink by more than this: a header that declares more is lying."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_INFLATE_ERROR: Final[Any] = igzip_lib.error


class NiftiStream:
    """One pass over a ``.nii`` or ``.nii.gz``: the checked header, then the voxels in blocks.

    Parameters
    ----------
    path : Path
        The file; compressed or not is told by its first bytes, as names lie.
    name : str
        What to call it in messages.
    sha256 : str, optional
        Digest (hex) that the file must have; it is hashed while it is inflated.

    Raises
    ------
    ContentMissing, NiftiRefused, VolumeCorrupt
        On entering, for a file that is absent, or a header that is refused.
    """

    header: ImageHeader

    def __init__(self, path: Path, *, name: str, sha256: str | None = None) -> None:
        self._path, self.name, self._expected = path, name, sha256
        self._hash = hashlib.sha256()
        self._next = 0

    def __enter__(self) -> Self:
        with storage_errors(self._path):
            try:
                self._file = self._path.open("rb")
            except (FileNotFoundError, IsADirectoryError):
                message = f"{self.name}: there is no file {self._path}. Get it: verse-data get"
                raise ContentMissing(message) from None
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()

    def _open(self) -> None:
        self._size = os.fstat(self._file.fileno()).st_size
        self._compressed = self._file.read(2) == _GZIP_MAGIC
        self._file.seek(0)
        self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        head = self._exactly(HEADER_SIZE, "its header")
        self.header = parse_header(head, name=self.name)
        self._check_room()
        extensions = self._exactly(self.header.offset - HEADER_SIZE, "its header's extensions")
        self._check_extensions(extensions)

    def blocks(self, voxels: int) -> Iterator[tuple[int, npt.NDArray[np.generic]]]:
        """Yield the next `voxels` as ``(number of the first, values as stored)``, in file order."""
        dtype = self.header.dtype
        left, carry = voxels * dtype.itemsize, b""
        while left:
            block = self._some(min(BLOCK, left))
            if not block:
                self._corrupt(f"ends before its {self.header.nbytes:,} bytes of voxels do")
            left -= len(block)
            block = carry + block if carry else block
            whole = len(block) // dtype.itemsize
            carry = block[whole * dtype.itemsize :]
            if whole:
                yield self._next, np.frombuffer(block, dtype, count=whole)
            self._next += whole

    def finish(self) -> None:
        """Check the end, once all voxels were taken: nothing follows, and the digest is right.

        Only now are CRC and length known to be right too: both stand at the end of the stream.
        """
        if self._some(1):
            self._corrupt(f"goes on after its {self.header.nbytes:,} bytes of voxels")
        self._check_digest()

    def hash_rest(self) -> None:
        """Hash what was not read yet, as it lies there, and check the digest of the whole."""
        with storage_errors(self._path):
            while self._fetch(_COMPRESSED_BLOCK):
                pass
        self._check_digest()

    def _check_digest(self) -> None:
        digest = self._hash.hexdigest()
        if self._expected and digest != self._expected:
            self._corrupt(f"has SHA-256 {digest[:12]} where {self._expected[:12]} is locked")

    def _exactly(self, size: int, what: str) -> bytes:
        parts: list[bytes] = []
        while size and (part := self._some(size)):
            parts.append(part)
            size -= len(part)
        if size:
            self._corrupt(f"ends within {what}")
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        """Return 1 to `size` inflated bytes, or none at the file's checked end."""
        with storage_errors(self._path):
            if not self._compressed:
                return self._fetch(size)
            try:
                return self._inflate(size)
            except (_INFLATE_ERROR, EOFError) as error:
                return self._corrupt(f"is damaged: {str(error) or type(error).__name__}")

    def _fetch(self, size: int) -> bytes:
        data = self._file.read(size)
        if self._expected:
            self._hash.update(data)
        return data

    def _inflate(self, size: int) -> bytes:
        while True:
            if self._inflater.eof:
                rest = self._inflater.unused_data
                if len(rest) < len(_GZIP_MAGIC):
                    rest += self._fetch(_COMPRESSED_BLOCK)
                if not rest:
                    return b""
                # A gzip file may have several members, one after the other.
                if not rest.startswith(_GZIP_MAGIC):
                    self._corrupt(f"has {len(rest)} or more bytes after the end of its gzip stream")
                self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
                data = rest
            elif self._inflater.needs_input:
                data = self._fetch(_COMPRESSED_BLOCK)
                if not data:
                    self._corrupt("is cut: its gzip stream has no end")
            else:
                data = b""
            out: bytes = self._inflater.decompress(data, size)
            if out:
                return out

    def _check_room(self) -> None:
        declared = self.header.offset + self.header.nbytes
        if not self._compressed and declared > self._size:
            self._corrupt(f"is cut: its header declares {declared:,} bytes")
        most = self._size * _DEFLATE_RATIO
        if self._compressed and declared > most:
            message = (
                f"{self.name} was refused before reading: it declares {declared:,} bytes, and its "
                f"{self._size:,} compressed bytes cannot hold more than {most:,}. Take it again from its source."
            )
            raise NiftiRefused(message)

    def _check_extensions(self, content: bytes) -> None:
        """Walk over header extensions without looking into them: they may hold private text."""
        place, end = 4, len(content)
        order: Literal["big", "little"] = "big" if self.header.big_endian else "little"
        if not content[0]:
            return
        while place + 8 <= end:
            size = int.from_bytes(content[place : place + 4], order, signed=True)
            if size < 8 or size % 16 or place + size > end:
                message = (
                    f"{self.name} was refused before reading: a header extension declares "
                    f"{size} bytes; it must be a multiple of 16 that ends before byte "
                    f"{self.header.offset}. Get the file again from its release."
                )
                raise NiftiRefused(message)
            place += size

    def _corrupt(self, why: str) -> NoReturn:
        message = (
            f"{self.name} ({self._path}, {self._size:,} bytes) {why}. "
            f"Nothing of it was used. Take the file again from its source."
        )
        raise VolumeCorrupt(message)
