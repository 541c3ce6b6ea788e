"""Local files: atomic writing, digests, and the folders shipped with the package.

What this package writes is built under a temporary name beside its target, flushed to the disk, and
renamed. So a reader sees the complete result or nothing, also after a kill. The temporary folder is
locked while its process lives, so that others can tell leftovers from work.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from verse_data.errors import DiskFull, PermissionDenied, StorageError, UsageError, VerseDataError
from verse_data.locks import locked, machine, try_lock

_PREFIX: Final = ".tmp-"
# Ours, those of versions that named process and host, and locks of stores.
_LEFT: Final = re.compile(
    r"\.tmp-[0-9a-f]{8}-[0-9a-f]{8}|\.tmp-\d+@[^@]+@[0-9a-f]+@.+|\.lock-[0-9a-f]{64}", re.DOTALL
)
STAGED: Final = len(f"{_PREFIX}01234567-01234567/")
"""Bytes that staging adds to a path."""
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


def read_given(path: Path) -> bytes:
    """Return the content of a file that the user named; UsageError if there is none."""
    with storage_errors(path):
        if not path.is_file():
            raise UsageError(f"There is no file {path}.")
        return path.read_bytes()


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
            f"Nothing half-written was left. Free some room, or choose a larger disk (for releases: "
            f"VERSE_DATA_HOME), and run it again."
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return PermissionDenied(
            f"{path} may not be read or written by user id {os.getuid()}: {error.strerror}. "
            f"Fix its permissions, or give a path of yours (for releases: VERSE_DATA_HOME)."
        )
    size = f" ({len(os.fsencode(path)):,} bytes)" if error.errno == errno.ENAMETOOLONG else ""
    remedy = "Check the disk and run it again."
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        remedy = "A part of this path is a file, not a folder: give another path."
    return StorageError(f"{path}: {error.strerror or error}{size}. {remedy}")


def nearest_existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def check_output(path: Path, endings: Collection[str] = (), what: str = "") -> Path:
    """Return `path` if `what`, a file with one of `endings`, can be written there; without any, a folder.

    Called before the work whose result is written, and raises UsageError.
    """
    if endings and path.suffix.lower() not in endings:
        *most, last = endings
        raise UsageError(
            f"{str(path)!r} is no name of {what}. Give one that ends in {', '.join(most)} or {last}, "
            f"such as name{next(iter(endings))}."
        )
    with storage_errors(path):
        place = nearest_existing(path)
        replaced = bool(endings) and place == path
        if not (place.is_file() if replaced else place.is_dir()):
            what = "plain file, and is not replaced" if replaced else "folder to write into"
            raise UsageError(f"{place} is no {what}. Name another.")
    return path


@contextmanager
def staging(final: Path, *, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path to build `final` at, in a folder beside it that is removed at the end.

    Leftovers of other processes beside `final` are removed first.
    """
    with storage_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        sweep(final.parent)
    with storage_errors(final, needed=needed), claimed(final.parent / _PREFIX) as folder:
        yield folder / final.name


@contextmanager
def claimed(stem: Path) -> Iterator[Path]:
    """Make a folder whose name begins with `stem`, and remove it at the end.

    Its lock, held meanwhile, tells every other process that this one lives: unlike a process id it
    means the same in all containers, and it ends with the process, whatever the clock says.
    """
    descriptor = None
    try:
        while descriptor is None:
            folder = _temporary(stem)
            descriptor = _make_locked(folder)
        yield folder
    finally:
        remove(folder)
        if descriptor is not None:
            os.close(descriptor)


def _temporary(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}{machine()}-{secrets.token_hex(4)}")


def _make_locked(folder: Path) -> int | None:
    """Make a folder and hold its lock; None if another process has swept it before that."""
    folder.mkdir()
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY)
        if try_lock(descriptor) is not False and folder.exists():
            return descriptor
        os.close(descriptor)
    return None


def write_file(final: Path, content: bytes) -> None:
    """Write `content` to `final` atomically, replacing the file that was there."""
    with storage_errors(final):
        if final.exists() and not final.is_file():
            # As root, a rename would put a file in the place of /dev/null.
            raise UsageError(f"{final} is no plain file, and is not replaced. Name another.")
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
    with set_aside(path, path.parent):
        pass


@contextmanager
def set_aside(path: Path, folder: Path) -> Iterator[Path]:
    """Move what is at `path` to a temporary name in `folder`; remove it there at the end.

    It takes no room, so that a full disk can be tidied; and a lock moves along.
    """
    aside = _temporary(folder / _PREFIX)
    with locked(path):
        try:
            with storage_errors(path), suppress(FileNotFoundError):  # another process was first
                path.rename(aside)
            yield aside
        finally:
            remove(aside)


def sweep(folder: Path, *, dry_run: bool = False) -> list[Path]:
    """Remove what processes that are gone left in `folder`; return it, also in a dry run."""
    swept = []
    with suppress(OSError):
        for path in [Path(entry) for entry in os.scandir(folder) if _LEFT.fullmatch(entry.name)]:
            with abandoned(path) as is_abandoned:
                if is_abandoned:
                    swept.append(path)
                    if not dry_run:
                        remove(path)
    return swept


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Tell whether the process that made `path` is gone, and hold its lock meanwhile.

    Another machine's lock may not be seen here: what it made counts as abandoned after a day.
    """
    with locked(path) as is_free:
        is_ours = f"-{machine()}-" in path.name
        yield is_free is not False and ((is_ours and bool(is_free)) or _is_old(path))


def _is_old(path: Path) -> bool:
    """Whether the last change of `path` is more than a day away, also in the future."""
    try:
        changed = path.lstat().st_mtime
    except OSError:
        return False
    return abs(time.time() - changed) > _STALE_SECONDS


def remove(path: Path) -> None:
    """Remove a temporary file or folder; what cannot be removed now is swept later."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
