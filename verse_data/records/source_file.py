"""One locked file: its git-annex key, and its bytes, which are checked against the key before use.

A key is ``SHA256E-s<size>--<sha256><extension>``. The rules for keys and object paths are
git-annex's own (``Backend/Hash.hs``, ``Annex/DirHashes.hs``); a test compares them with
``git annex calckey`` and ``examinekey``.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from verse_data.errors import (
    FILE_FAULTS,
    ContentCorrupt,
    ContentMissing,
    IntegrityError,
    UsageError,
    VolumeCorrupt,
)
from verse_data.files import storage_errors

_EXTENSION_PARTS: Final = 2
_EXTENSION_LENGTH: Final = 4
_LETTERS: Final = "0123456789zqjxkmvwgpfZQJXKMVWGPF"
_KEY: Final = re.compile(r"SHA256E-s(?P<size>0|[1-9]\d*)--(?P<sha256>[0-9a-f]{64})(\.[^/]*)?")


def key_extension(path: str) -> str:
    """Return the part of a file's name that its key keeps, such as ``".nii.gz"``; case is kept."""
    # Up to two trailing parts of at most four alphanumeric characters (bytes, if not ASCII).
    name = path.rsplit("/", 1)[-1].lstrip(".")
    kept: list[str] = []
    for part in reversed(name.split(".")[1:]):
        if len(part.encode()) > _EXTENSION_LENGTH:
            break
        if all(letter.isalnum() or not letter.isascii() for letter in part):
            kept.append(part)
    return "".join(f".{part}" for part in reversed(kept[:_EXTENSION_PARTS]) if part)


def annex_key(path: str, *, size: int, sha256: str) -> str:
    """Return the key of the content with this size and digest under the name `path`."""
    return f"SHA256E-s{size}--{sha256}{key_extension(path)}"


def size_and_digest(key: str) -> tuple[int, str] | None:
    """Return size in bytes and SHA-256 of a key, or None if it is not a SHA256E key with size."""
    match = _KEY.fullmatch(key)
    return (int(match["size"]), match["sha256"]) if match else None


def object_path(key: str) -> str:
    """Return the path of the content of `key`, relative to the work tree, with ``/``."""
    word = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()[:4], "little")
    a, b, c, d = (_LETTERS[(word >> shift) & 31] for shift in (0, 6, 12, 18))
    return f".git/annex/objects/{b}{a}/{d}{c}/{key}/{key}"


def other_object_path(key: str) -> str:
    """Return the path of the content in a bare repository or on a file system without links."""
    return f".git/annex/objects/{log_folder(key)}/{key}/{key}"


def link_target(path: str, key: str) -> str:
    """Return the target of the symbolic link that stands for a locked file in the work tree."""
    return "../" * path.count("/") + object_path(key)


def log_folder(key: str) -> str:
    """Return the folder of the logs of `key` on the ``git-annex`` branch."""
    digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    return f"{digest[:3]}/{digest[3:6]}"


@dataclass(frozen=True)
class SourceFile:
    """One file on disk, and the git-annex key of its content."""

    path: Path
    key: str
    """git-annex key, which pins size and digest."""
    name: str = ""
    """Name in messages: its path in the release."""
    release: str = ""
    scan_id: str = ""
    repair: str = ""
    """Command that replaces the file if it is damaged."""

    def __post_init__(self) -> None:
        """Refuse keys without size and SHA-256."""
        if not self.name:
            object.__setattr__(self, "name", self.path.name)
        _ = self._expected

    @cached_property
    def _expected(self) -> tuple[int, str]:
        found = size_and_digest(self.key)
        if found is None:
            raise UsageError(
                f"{self.name}: its key {self.key!r} holds no SHA-256, so its bytes could not "
                f"be checked. Give a git-annex key such as SHA256E-s<bytes>--<digest>.nii.gz."
            )
        return found

    @property
    def size(self) -> int:
        """Size in bytes, from the key."""
        return self._expected[0]

    @property
    def sha256(self) -> str:
        """SHA-256 (hex), from the key."""
        return self._expected[1]

    def read(self) -> bytes:
        """Return the content of a small file, or raise ContentCorrupt if it is not the locked one."""
        with self._reading(), self.path.open("rb") as stream:
            # One byte too many shows that a file is too long; the rest need not be read.
            data = stream.read(self.size + 1)
        if (len(data), hashlib.sha256(data).hexdigest()) == self._expected:
            return data
        self.check()
        return self.read()  # the file was replaced by the right one meanwhile

    def check(self) -> None:
        """Hash the whole file; raise as :meth:`read` does."""
        self._check(ContentCorrupt)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Run a block that reads the file; if it fails on a damaged file, raise the damage."""
        try:
            yield
        except ContentMissing:
            raise
        except FILE_FAULTS as error:
            self._check(VolumeCorrupt if isinstance(error, VolumeCorrupt) else ContentCorrupt)
            raise

    def stat(self) -> os.stat_result:
        """Return the ``os.stat_result`` of the file; raise as :meth:`read` does if it is gone."""
        with self._reading():
            return self.path.stat()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with storage_errors(self.path):
            try:
                yield
            except FileNotFoundError:
                repair = self.repair or "verse-data get"
                raise ContentMissing(
                    f"{self}: there is no file {self.path}. Get it: {repair}"
                ) from None

    def _check(self, kind: type[IntegrityError]) -> None:
        with self._reading(), self.path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if (size, digest) != self._expected:
            raise kind(
                f"{self}: {self.path} ({size:,} bytes) has SHA-256 {digest[:12]} where "
                f"{self.sha256[:12]} is locked ({self.size:,} bytes). Nothing of it was used. "
                f"{f'Replace it: {self.repair}' if self.repair else 'Get it again from its source.'}"
            )

    def __str__(self) -> str:
        """Return the name of the file with its release and scan, for messages."""
        known = {"release": self.release, "scan": self.scan_id}
        parts = ", ".join(f"{what} {value}" for what, value in known.items() if value)
        return f"{self.name} ({parts})" if parts else self.name
