"""One locked file on this machine: what is parsed of it is compared with its lock first."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from verse_data.errors import (
    FILE_FAULTS,
    ContentCorrupt,
    ContentMissing,
    IntegrityError,
    UsageError,
    VolumeCorrupt,
)
from verse_data.files import storage_errors
from verse_data.records.keys import size_and_digest


@dataclass(frozen=True)
class SourceFile:
    """One file and the name of its content."""

    path: Path
    key: str
    """git-annex key, which pins size and digest."""
    name: str = ""
    """What messages call it: its path in the release."""
    release: str = ""
    scan_id: str = ""
    repair: str = ""
    """The command that replaces it if it is damaged."""

    def __post_init__(self) -> None:
        """Refuse keys that bytes cannot be compared with."""
        if not self.name:
            object.__setattr__(self, "name", self.path.name)
        if size_and_digest(self.key) is None:
            raise UsageError(
                f"{self.name}: its key {self.key!r} holds no SHA-256, so its bytes could not "
                f"be checked. Give a git-annex key such as SHA256E-s<bytes>--<digest>.nii.gz."
            )

    @property
    def size(self) -> int:
        """Bytes that the key promises."""
        return self._locked()[0]

    @property
    def sha256(self) -> str:
        """Digest that the key promises."""
        return self._locked()[1]

    def _locked(self) -> tuple[int, str]:
        found = size_and_digest(self.key)
        assert found  # it was a key when this was made
        return found

    def read(self) -> bytes:
        """Return the content of a small file, or raise ContentCorrupt if it is not the locked one."""
        with self._reading(), self.path.open("rb") as stream:
            data = stream.read(self.size + 1)
            digest = hashlib.sha256(data)
            size = len(data)
            # Too long: no more of it is kept, and its digest is still said.
            while size > self.size and (block := stream.read(1 << 20)):
                digest.update(block)
                size += len(block)
        self._compare(size, digest.hexdigest(), ContentCorrupt)
        return data

    def check(self) -> None:
        """Hash the whole file; raise as :meth:`read` does."""
        self._check(ContentCorrupt)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Run a block that reads the file; what it finds wrong is the damage's fault, if there is any."""
        try:
            yield
        except ContentMissing:
            raise
        except FILE_FAULTS as error:
            self._check(VolumeCorrupt if isinstance(error, VolumeCorrupt) else ContentCorrupt)
            raise

    def stat(self) -> os.stat_result:
        """Return what the file system says of the file; raise as :meth:`read` does if it is gone."""
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
        self._compare(size, digest, kind)

    def _compare(self, size: int, digest: str, kind: type[IntegrityError]) -> None:
        if (size, digest) == (self.size, self.sha256):
            return
        raise kind(
            f"{self}: {self.path} ({size:,} bytes) has SHA-256 {digest[:12]} where "
            f"{self.sha256[:12]} is locked ({self.size:,} bytes). Nothing of it was used. "
            f"{f'Replace it: {self.repair}' if self.repair else 'Get it again from its source.'}"
        )

    def __str__(self) -> str:
        """Return what messages call the file, its release and its scan."""
        known = {"release": self.release, "scan": self.scan_id}
        parts = ", ".join(f"{what} {value}" for what, value in known.items() if value)
        return f"{self.name} ({parts})" if parts else self.name
