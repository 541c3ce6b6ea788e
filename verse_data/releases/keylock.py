"""One process at a time for one thing, where the file system can say so.

A lock here saves double work and is never needed for a right result: on some network file systems
every process is told that it holds the lock.
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import filelock

from verse_data.errors import LockTimeout

_POLL: Final = 0.02
_UNSUPPORTED: Final = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EROFS, errno.EINVAL}


@contextmanager
def key_lock(
    folder: Path, key: str, *, timeout: float, stop: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Hold the lock `key` of `folder`, across threads and processes.

    Parameters
    ----------
    folder : Path
        Where lock files lie; made if it is absent.
    key : str
        Name of what is locked.
    timeout : float
        Seconds to wait for another holder.
    stop : callable
        Asked while waiting; where it says True, no more waiting is done.

    Raises
    ------
    LockTimeout
        If another process held the lock for longer; the text names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _file_name(key)
    lock = filelock.FileLock(path, thread_local=False, **_strict())
    held = _acquire(lock, path, timeout, stop)
    try:
        if held:
            _sign(path)
        yield
    finally:
        if held:
            lock.release(force=True)


def _strict() -> dict[str, Any]:
    # filelock 4 would go over to marker files where flock is absent, and a kill leaves those behind.
    known = inspect.signature(filelock.FileLock.__init__).parameters
    return {"fallback_to_soft": False} if "fallback_to_soft" in known else {}


def _file_name(key: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]{1,120}", key):
        return f"{key}.lock"
    return f"{hashlib.sha256(key.encode()).hexdigest()}.lock"


def _acquire(
    lock: filelock.BaseFileLock, path: Path, timeout: float, stop: Callable[[], bool]
) -> bool:
    try:
        lock.acquire(timeout=timeout, poll_interval=_POLL, cancel_check=stop)
    except filelock.Timeout as error:
        raise LockTimeout(
            f"{path}: {_holder(path)} has held it for more than {timeout:g} s. Wait for that process "
            f"to end, or end it, and run this again."
        ) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(
            f"{path.parent}: this file system knows no locks, so several processes may do the same "
            f"work; the result is right all the same.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _sign(path: Path) -> None:
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}")
    except OSError:
        # The note is for a person who waits; the lock holds without it.
        return


def _holder(path: Path) -> str:
    try:
        return path.read_text()[:200] or "another process"
    except OSError:
        return "another process"
