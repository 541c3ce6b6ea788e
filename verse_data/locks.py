"""Locks between threads and processes, on file systems that support them.

A lock here saves double work and is never needed for a correct result: on some network file systems
every process gets the lock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import inspect
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import LockTimeout

if TYPE_CHECKING:
    import filelock

_log = logging.getLogger(__name__)

_POLL_SECONDS, _CHECK_SECONDS = 0.02, 1.0
_UNSUPPORTED: Final = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EROFS, errno.EINVAL}


@cache
def machine() -> str:
    """Return digits that stand for this machine since it was started, also in its containers."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # no Linux
        name = socket.gethostname()
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed; False if it is held, None without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def locked(path: Path) -> Iterator[bool | None]:
    """Hold the lock of what is at `path`, if it is free (True); False and None as in `try_lock`."""
    opened: list[int] = []
    try:
        with suppress(OSError):
            while len(opened) < 2:
                opened.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
        locks = [try_lock(descriptor) for descriptor in opened]
        # Where this process gets the lock twice, locks mean nothing.
        yield locks[0] if len(locks) == 2 and locks[1] is False else None
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextmanager
def key_lock(
    folder: Path, key: str, *, timeout: float, stop: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Hold a lock across threads and processes; `LockTimeout` after `timeout` s, or if `stop()`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.lock"
    lock = _new_lock(path)
    try:
        _acquire(lock, path, timeout, stop)
        # Shown to whoever waits; the lock works without it.
        with suppress(OSError):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}")
        yield
    finally:
        lock.release(force=True)


def _new_lock(path: Path) -> filelock.BaseFileLock:
    import filelock

    # filelock 4 would switch to marker files where flock is absent, and a kill leaves those behind.
    has_soft = "fallback_to_soft" in inspect.signature(filelock.FileLock.__init__).parameters
    options: dict[str, Any] = {"fallback_to_soft": False} if has_soft else {}
    return filelock.FileLock(path, thread_local=False, **options)


def _acquire(
    lock: filelock.BaseFileLock, path: Path, timeout: float, stop: Callable[[], bool]
) -> None:
    """Wait for the lock; warn where the file system has none."""
    import filelock

    end = time.monotonic() + timeout
    while not lock.is_locked:
        try:
            lock.acquire(timeout=min(timeout, _CHECK_SECONDS), poll_interval=_POLL_SECONDS)
        except filelock.Timeout as error:
            holder = "another process"
            with suppress(OSError):
                holder = path.read_text()[:200] or holder
            if stop() or time.monotonic() >= end:
                raise LockTimeout(
                    f"{path}: {holder} has held it for more than {timeout:g} s. Wait for that process "
                    f"to end, or end it, and run this again."
                ) from error
            _log.info("Waiting for %s, held by %s", path, holder)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
                raise
            why = "several processes may do the same work; the result is still correct"
            text = f"{path.parent}: this file system has no locks, so {why}."
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            return
