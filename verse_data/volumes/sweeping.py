"""What processes that died leave below a root of stores: half-built folders, and old locks."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from verse_data.publishing import leftovers, sweep

_LOCK_SECONDS: Final = 24 * 3600


def folders(stores: Path) -> list[Path]:
    """Return the folders that hold stores, named by the first two digits of their fingerprints."""
    return sorted(path for path in stores.glob("[0-9a-f][0-9a-f]") if path.is_dir())


def stale(stores: Path) -> list[Path]:
    """Return the leftovers of dead processes below `stores`, and locks that are a day old."""
    return [
        path for folder in folders(stores) for path in (*leftovers(folder), *_old_locks(folder))
    ]


def sweep_stores(stores: Path) -> None:
    """Remove what :func:`stale` returns, as far as it is ours to remove."""
    for folder in folders(stores):
        sweep(folder)
        for lock in _old_locks(folder):
            # Another process may be sweeping too, or the folder not ours to write.
            with suppress(OSError):
                lock.unlink()


def _old_locks(folder: Path) -> list[Path]:
    found = []
    for lock in folder.glob(".lock-*"):
        with suppress(FileNotFoundError):
            if time.time() - lock.lstat().st_mtime > _LOCK_SECONDS:
                found.append(lock)
    return found
