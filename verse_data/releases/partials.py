"""What an interrupted download leaves, bound to the digest that it shall have.

A partial belongs to one process at a time because taking it is a rename, which only one can win;
so two processes that both believe to hold the lock of a key still never write to one file.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from verse_data.errors import DiskFull, DownloadCorrupt
from verse_data.publishing import is_leftover, process_name, storage_errors
from verse_data.records.lock import LockedFile

_BLOCK: Final = 1 << 20
_FORGOTTEN_SECONDS: Final = 30 * 24 * 3600
_HEADROOM: Final = 1.05


class Partial:
    """The bytes of one file that have come so far, with their running digest.

    Attributes
    ----------
    path : Path
        Where they lie, under a name that is this process's own.
    size : int
        How many they are.
    etag : str or None
        What the server called the content that they are of.
    """

    def __init__(self, path: Path, note: Path, file: LockedFile) -> None:
        self.path = path
        self.size = 0
        self.etag: str | None = None
        self._file = file
        self._note = note
        self._digest = hashlib.sha256()
        # Unbuffered, so that what has been counted is in the file.
        self._stream: IO[bytes] = path.open("r+b", buffering=0)
        self._load()

    def _load(self) -> None:
        while block := self._stream.read(_BLOCK):
            self._digest.update(block)
            self.size += len(block)
        if self.size > self._file.size:
            self.reset()
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(self._note.read_bytes())
            self.etag = told["etag"] if told["sha256"] == self._file.sha256 else None

    def append(self, block: bytes) -> None:
        """Add bytes.

        Raises
        ------
        DownloadCorrupt
            If they are more than the file has; nothing of it is kept.
        DiskFull
            If there is no room for them; what came before is kept.
        """
        if self.size + len(block) > self._file.size:
            self.reset()
            raise DownloadCorrupt(
                f"{self._file.path}: more bytes came than the {self._file.size:,} that are locked. "
                f"Nothing was kept."
            )
        try:
            view = memoryview(block)
            while view:
                view = view[self._stream.write(view) :]
        except OSError:
            self._stream.truncate(self.size)
            self._stream.seek(self.size)
            with storage_errors(self.path, needed=self._file.size - self.size):
                raise
        self._digest.update(block)
        self.size += len(block)

    def reset(self) -> None:
        """Forget what has come."""
        self._stream.seek(0)
        self._stream.truncate(0)
        self._digest = hashlib.sha256()
        self.size = 0
        self.etag = None

    def describe(self, *, url: str, etag: str | None) -> None:
        """Note beside the bytes where they come from, for whoever goes on with them."""
        self.etag = etag
        told = {"url": url, "etag": etag, "size": self._file.size, "sha256": self._file.sha256}
        own = self.path.with_suffix(".note")
        with storage_errors(self._note):
            try:
                own.write_text(json.dumps(told))
                own.replace(self._note)
            finally:
                own.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Digest (hex) of what has come."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


@contextmanager
def partial(folder: Path, file: LockedFile) -> Iterator[Partial]:
    """Give the partial of `file` in `folder`; put it back, or remove it if it was moved or empty.

    Raises
    ------
    DiskFull
        If the rest of the file would not fit on the disk.
    StorageError
        If the folder cannot be written.
    """
    shared = folder / f"{file.sha256}.part"
    own = folder / f"{file.sha256}.{process_name()}@{secrets.token_hex(4)}.mine"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not _take(shared, own) and not any(_copy(path, own) for path in _orphans(folder, file)):
            own.touch()
        held = Partial(own, shared.with_suffix(".json"), file)
    try:
        require_room(folder, file.size - held.size, what=file.path)
        yield held
    finally:
        held.close()
        if held.size and own.exists():
            _take(own, shared)
        else:
            own.unlink(missing_ok=True)
            shared.with_suffix(".json").unlink(missing_ok=True)


def forget_partial(folder: Path, file: LockedFile) -> None:
    """Remove what a process left of `file` that was killed once the content was in its place."""
    shared = folder / f"{file.sha256}.part"
    for path in (shared, shared.with_suffix(".json")):
        path.unlink(missing_ok=True)


def sweep_partials(folder: Path) -> None:
    """Remove what nobody has gone on with for a month: its release is no longer fetched."""
    limit = time.time() - _FORGOTTEN_SECONDS
    for path in [
        path for end in ("part", "mine", "json", "note") for path in folder.glob(f"*.{end}")
    ]:
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < limit:
                path.unlink()


def require_room(folder: Path, needed: int, *, what: str) -> None:
    """Raise DiskFull unless `needed` bytes and a little more are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if needed * _HEADROOM > free:
        raise DiskFull(
            f"{what}: {needed:,} bytes are needed in {folder}, and {free:,} are free. Nothing was "
            f"started. Free some room, or set VERSE_DATA_HOME to a larger disk, and run it again."
        )


def _take(source: Path, target: Path) -> bool:
    try:
        source.rename(target)
    except FileNotFoundError:
        return False
    return True


def _copy(source: Path, target: Path) -> bool:
    """Take over what a process left that seems to be gone.

    By a copy: should it live after all, in a container with our host's name, it writes to its own
    file and not to the one that we have the digest of.
    """
    try:
        shutil.copyfile(source, target)
        source.unlink()
    except FileNotFoundError:
        target.unlink(missing_ok=True)
        return False
    return True


def _orphans(folder: Path, file: LockedFile) -> list[Path]:
    """Return partials of processes that are gone, the longest first."""
    found = [path for path in folder.glob(f"{file.sha256}.*.mine") if _is_orphan(path)]
    return sorted(found, key=_size, reverse=True)


def _is_orphan(path: Path) -> bool:
    return is_leftover(path, "@".join(path.name.split(".", 1)[1].split("@")[:2]))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
