"""From the files of one scan to its published store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from verse_data.errors import DiskFull
from verse_data.publishing import publish_folder, staging, sweep
from verse_data.records.manifest import StoreManifest
from verse_data.volumes.manifest import check_size, load_manifest
from verse_data.volumes.recipe import Recipe, ScanSource, fingerprint

_LOCK_SECONDS: Final = 600.0


def store_path(stores: Path, name: str) -> Path:
    """Return where the store with fingerprint `name` lies below `stores`."""
    return stores / name[:2] / name


def find_store(name: str, stores: Path) -> Path | None:
    """Return the store with fingerprint `name` if it is there, once it is known to be whole.

    Raises
    ------
    ChunkMissing, ChunkCorrupt, StoreCorrupt
        If files of it are missing, cut or damaged.
    """
    final = store_path(stores, name)
    if not final.is_dir():
        return None
    check_store(final)
    return final


def ensure_store(source: ScanSource, recipe: Recipe, stores: Path) -> Path:
    """Return the store of `source` under `recipe`, building it if it is not there.

    Several processes may call this at once: the first builds and the others wait for it. The lock
    that they wait on only saves work; where it does not function, each builds in its own temporary
    folder and the first to rename wins.

    Raises
    ------
    ContentMissing, ContentCorrupt, NiftiRefused, VolumeCorrupt, ValidationFailed
        If a source cannot be used; its bytes are hashed while they are converted.
    ChunkMissing, ChunkCorrupt, StoreCorrupt
        If there is a store, and files of it are missing, cut or damaged.
    DiskFull, PermissionDenied, StorageError
        If it cannot be written; nothing half-written is left.
    """
    name = fingerprint(source.keys, recipe)
    if found := find_store(name, stores):
        return found
    final = store_path(stores, name)
    with _building(final):
        if not final.is_dir():
            _build(source, recipe, final)
    check_store(final)
    return final


def check_store(store: Path) -> StoreManifest:
    """Check that a store is whole: its manifest, and size and kind of each file. Reads no voxel.

    Raises
    ------
    ChunkMissing, ChunkCorrupt, StoreCorrupt
    """
    manifest = load_manifest(store)
    for key in manifest.keys:
        check_size(store, manifest, key)
    return manifest


@contextmanager
def _building(final: Path) -> Iterator[None]:
    """Hold the lock of a store while it is built, if locks work here."""
    sweep(final.parent)
    path = final.parent / f".lock-{final.name}"
    lock = FileLock(path, timeout=_LOCK_SECONDS)
    held = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        held = True
    except Timeout:
        pass  # a holder that hangs: build without it
    except (OSError, NotImplementedError):
        # No locks on this file system, or a fault that building itself will name.
        with suppress(OSError):
            path.unlink()
    if not held:
        yield
        return
    try:
        yield
    finally:
        # Whoever waits for it finds the store; what cannot be removed is swept by `cache prune`.
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):
            lock.release()


def _build(source: ScanSource, recipe: Recipe, final: Path) -> None:
    # Whoever finds a finished store needs nothing of what builds one.
    from verse_data.volumes.convert import Conversion

    with source.checked():
        conversion = Conversion.plan(source, recipe, final.name)
    needed = conversion.bytes_needed()
    folder = next(path for path in final.parents if path.is_dir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = (
            f"The disk is nearly full: the store of scan {source.scan_id} takes about "
            f"{needed:,} bytes at {folder}, and {free:,} are free. Nothing was written. Free some "
            f"room, or set VERSE_DATA_HOME to a larger disk, and run it again."
        )
        raise DiskFull(message)
    with staging(final, needed=needed) as staged:
        staged.mkdir()
        with source.checked():
            conversion.write(staged)
        publish_folder(staged, final)
