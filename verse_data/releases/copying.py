"""Copying with a digest: of the bytes that are kept, not of the ones that were asked for."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Final

from verse_data.progress import Advance
from verse_data.publishing import storage_errors

_BLOCK: Final = 1 << 20
_FICLONE: Final = 0x40049409
_NO_CLONE: Final = {
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
}


def copy_and_hash(source: Path, target: Path, *, advance: Advance) -> tuple[int, str]:
    """Copy a file, sharing its blocks where the file system can; return size and SHA-256.

    The digest is of the bytes in `target`, so that a source which changes meanwhile does no harm.
    """
    digest, size = hashlib.sha256(), 0
    with storage_errors(source):
        opened = source.open("rb")
    with opened as reader, target.open("w+b") as writer:
        cloned = _clone(reader, writer)
        stream = writer if cloned else reader
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
            if not cloned:
                writer.write(block)
            advance(len(block))
    return size, digest.hexdigest()


def _clone(reader: BinaryIO, writer: BinaryIO) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    os.lseek(writer.fileno(), 0, os.SEEK_SET)
    return True
