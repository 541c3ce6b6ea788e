"""Local files: atomic writing, digests, and the folders shipped with the package.

What this package writes is built under a temporary name beside its target, flushed to the disk, and
renamed. So a reader sees the complete result or nothing, also after a kill, without any lock. The
temporary name contains process and machine, so that leftovers can be removed later.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from verse_data.errors import DiskFull, PermissionDenied, StorageError, UsageError, VerseDataError

_PREFIX: Final = ".tmp-"
_STALE_SECONDS: Final = 24 * 3600
_FLUSHES: Final = 8
_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class FileDigests:
    """Size in bytes and digests (lower-case hex) of one file's content."""

    size: int
    sha256: str
    md5: str


def digest_file(path: Path, *, advance: Callable[[int], None] | None = None) -> FileDigests:
    """Read `path` once and return its size and digests."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            sha256.update(block)
            md5.update(block)
            size += len(block)
            if advance:
                advance(len(block))
    return FileDigests(size, sha256.hexdigest(), md5.hexdigest())


def canonical_json(value: Any) -> bytes:
    """Return `value` as UTF-8 JSON with sorted keys, no extra whitespace, and a final newline."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode() + b"\n"


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 (hex) of `value` in canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def locate(name: str) -> Path:
    """Return the folder `name` (``"catalog"`` or ``"schemas"``): the packaged copy, else the checkout's.

    A wheel has both inside the package; a checkout, also installed as editable, has them beside it,
    next to ``pyproject.toml``.
    """
    package = Path(__file__).parent
    packaged, checkout = package / "_resources" / name, package.parent / name
    if packaged.is_dir():
        return packaged
    if checkout.is_dir() and (package.parent / "pyproject.toml").is_file():
        return checkout
    raise StorageError(
        f"The installed package lacks its {name!r} folder (looked at {packaged} and {checkout}). "
        f"Reinstall it: pip install --force-reinstall verse-data"
    )


@contextmanager
def storage_errors(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turn the operating system's errors on `path`, which takes `needed` bytes, into ours."""
    try:
        yield
    except OSError as error:
        # Some of our own errors are also OSErrors, and already have a full message.
        if isinstance(error, VerseDataError):
            raise
        raise _translated(error, path, needed) from error


def _translated(error: OSError, path: Path, needed: int | None) -> StorageError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        free = shutil.disk_usage(nearest_existing(path)).free
        wanted = f"about {needed:,} bytes needed, " if needed is not None else ""
        limit = "the limit on file sizes (ulimit -f)" if error.errno == errno.EFBIG else "the disk"
        return DiskFull(
            f"No room left: writing {path} hit the end of {limit}: {wanted}{free:,} bytes free. "
            f"Nothing half-written was left. Free some room, or set VERSE_DATA_HOME to a larger "
            f"disk, and run it again."
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return PermissionDenied(
            f"{path} may not be read or written by user id {os.getuid()}: {error.strerror}. "
            f"Fix its permissions, or set VERSE_DATA_HOME to a folder of yours."
        )
    size = f" ({len(os.fsencode(path)):,} bytes)" if error.errno == errno.ENAMETOOLONG else ""
    return StorageError(
        f"{path}: {error.strerror or error}{size}. Check the disk and run it again."
    )


def nearest_existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def staged_path(final: Path) -> Path:
    """Return a new temporary path of this process beside `final`."""
    return final.parent / f"{_PREFIX}{process_name()}@{secrets.token_hex(4)}@{final.name}"


@contextmanager
def staging(final: Path, *, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `final` to build it at; remove what is left there at the end."""
    staged = staged_path(final)
    with storage_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
    try:
        with storage_errors(final, needed=needed):
            yield staged
    finally:
        _remove(staged)


def write_file(final: Path, content: bytes) -> None:
    """Write `content` to `final` atomically, replacing the file that was there."""
    with storage_errors(final):
        if final.exists() and not final.is_file():
            # As root, a rename would put a file in the place of /dev/null.
            raise UsageError(f"{final} is no plain file, and is not replaced. Name a file.")
    with staging(final) as staged:
        with staged.open("wb") as stream:
            stream.write(content)
            sync_file(stream)
        staged.replace(final)
        sync(final.parent)


def sync_file(stream: IO[bytes]) -> None:
    """Flush an open file to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(staged: Path, final: Path) -> bool:
    """Flush the folder `staged` to the disk and rename it to `final`; False if that exists."""
    tree = [(Path(folder), names) for folder, _, names in os.walk(staged, topdown=False)]
    files = [folder / name for folder, names in tree for name in names]
    # In parallel: a file system flushes concurrent requests together.
    with ThreadPoolExecutor(_FLUSHES) as pool:
        # Symbolic links are part of their folder, and may point at nothing.
        list(pool.map(sync, [path for path in files if not path.is_symlink()]))
        list(pool.map(sync, [folder for folder, _ in tree]))
    try:
        staged.rename(final)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    sync(final.parent)
    return True


def discard(path: Path) -> None:
    """Remove a published file or folder, if it is there: it leaves its final name at once, whole."""
    with staging(path) as aside, suppress(FileNotFoundError):  # another process was first
        path.rename(aside)


def sweep(folder: Path) -> list[Path]:
    """Remove leftovers in `folder` of processes that are gone, and any that are a day old."""
    stale = leftovers(folder)
    for path in stale:
        _remove(path)
    return stale


def leftovers(folder: Path) -> list[Path]:
    """Return what :func:`sweep` would remove."""
    owners = {
        path: "@".join(path.name.removeprefix(_PREFIX).split("@")[:2])
        for path in folder.glob(f"{_PREFIX}*")
    }
    return [path for path, process in owners.items() if is_leftover(path, process)]


def process_name(number: int | None = None) -> str:
    """Return the name of a process in temporary file names: its id and machine."""
    try:
        # Containers may share a host name and a folder, but have process ids of their own.
        namespace = f"-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # no Linux
        namespace = ""
    return f"{os.getpid() if number is None else number}@{socket.gethostname()}{namespace}"


def is_leftover(path: Path, process: str) -> bool:
    """Whether the process that `path` is named after is gone, or `path` is a day old."""
    number = process.partition("@")[0]
    try:
        old = time.time() - path.lstat().st_mtime > _STALE_SECONDS
    except FileNotFoundError:
        return False
    ours = number.isdigit() and process == process_name(int(number))
    return old or (ours and not _is_alive(int(number)))


def _is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    # What cannot be removed now is swept later; the error that led here is the one to report.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
