"""A store on disk: built once and published by rename, read and checked against its manifest."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from verse_data.errors import (
    ChunkCorrupt,
    ChunkMissing,
    DiskFull,
    IntegrityError,
    StorageError,
    StoreCorrupt,
)
from verse_data.files import publish_folder, sha256_of_json, staging, storage_errors
from verse_data.progress import Progress, silent
from verse_data.records.manifest import MANIFEST_SCHEMA, REPAIR, STORE_FORMAT, StoreManifest
from verse_data.volumes.layout import GROUP_KEY, MANIFEST_KEY
from verse_data.volumes.recipe import Recipe, ScanSource, fingerprint

_log = logging.getLogger(__name__)

_LOCK_SECONDS: Final = 600.0
_MAX_METADATA: Final = 64 << 20
"""Bytes of the largest metadata file that is read whole."""


class EarlierFormat(StoreCorrupt):
    """An intact store of an earlier layout than this version's."""

    state = "earlier_format"


class LaterFormat(StoreCorrupt):
    """An intact store of a later layout than this version's."""

    state = "later_format"


def store_path(stores: Path, name: str) -> Path:
    """Return the path of the store with fingerprint `name` below `stores`."""
    return stores / name[:2] / name


def find_store(name: str, stores: Path) -> Path | None:
    """Return the store with fingerprint `name` after checking that it is complete, or None."""
    final = store_path(stores, name)
    if not final.is_dir():
        return None
    check_store(final)
    return final


def ensure_store(
    source: ScanSource, recipe: Recipe, stores: Path, *, progress: Progress = silent
) -> Path:
    """Return the store of `source` under `recipe`, building it if it does not exist.

    Several processes may call this at once: the first builds and the others wait. The lock only
    saves work: where locks do not work, each builds in its own folder and the first to rename wins.
    """
    name = fingerprint(source.keys, recipe)
    if found := find_store(name, stores):
        return found
    final = store_path(stores, name)
    with _building(final):
        if not final.is_dir():
            _build(source, recipe, final, progress)
    check_store(final)
    return final


@contextmanager
def _building(final: Path) -> Iterator[None]:
    """Hold the lock of a store while it is built, if locks work here."""
    path = final.parent / f".lock-{final.name}"
    lock = FileLock(path, timeout=_LOCK_SECONDS)
    _log.info("taking the lock of %s, for which it waits up to %d s", final, _LOCK_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (Timeout, OSError, NotImplementedError) as error:
        # Held for too long, no locks on this file system, or a problem that building will report.
        _log.info("building %s without its lock: %s", final, error)
    try:
        yield
    finally:
        # Waiting processes find the store; a file that cannot be removed is left to `cache prune`.
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):
            lock.release()


def _build(source: ScanSource, recipe: Recipe, final: Path, progress: Progress) -> None:
    # Imported here, as a process that finds a finished store does not need it.
    from verse_data.volumes.convert import open_conversion

    with source.checked(), open_conversion(source, recipe) as conversion:
        needed = conversion.bytes_needed()
        folder = next(path for path in final.parents if path.is_dir())
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise DiskFull(
                f"The disk is nearly full: the store of scan {source.scan_id} takes about "
                f"{needed:,} bytes at {folder}, and {free:,} are free. Nothing was written. Free "
                f"some room, or set VERSE_DATA_HOME to a larger disk, and run it again."
            )
        with staging(final, needed=needed) as staged:
            staged.mkdir()
            with progress("Converting", conversion.nbytes, "bytes") as advance:
                conversion.write(staged, advance)
            for path in sorted(staged.rglob(GROUP_KEY)):
                check_zarr(path, path.read_bytes(), source.scan_id)
            publish_folder(staged, final)


def fault(
    path: Path | str,
    why: str,
    *,
    scan_id: str | None = None,
    kind: type[IntegrityError] | None = None,
    remedy: str = REPAIR,
) -> IntegrityError:
    """Return the error for a file of a store that does not match its manifest."""
    kind = kind or (StoreCorrupt if str(path).endswith(".json") else ChunkCorrupt)
    return kind(f"{f'Scan {scan_id}: ' if scan_id else ''}{path} {why}. {remedy}")


def open_plain(path: Path, scan_id: str | None = None) -> int:
    """Open a file of a store, which holds no links, folders or special files; return its descriptor."""
    with storage_errors(path):
        try:
            # Non-blocking: opening a pipe without a writer would wait for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(path, flags)
        except (FileNotFoundError, NotADirectoryError):
            why = "does not exist, although the manifest lists it"
            raise fault(path, why, scan_id=scan_id, kind=ChunkMissing) from None
        except OSError:
            if not path.is_symlink():
                raise
            raise fault(path, "is a link, which stores never hold", scan_id=scan_id) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        why = "is a folder or a special file, which stores never hold"
        raise fault(path, why, scan_id=scan_id)
    return descriptor


def _read(path: Path, scan_id: str | None = None, *, most: int | None = _MAX_METADATA) -> bytes:
    """Read a file whole; metadata is small."""
    descriptor = open_plain(path, scan_id)
    with storage_errors(path), os.fdopen(descriptor, "rb") as stream:
        content = stream.read(-1 if most is None else most + 1)
    if most is not None and len(content) > most:
        why = f"has more than {most:,} bytes, too many for metadata"
        raise fault(path, why, scan_id=scan_id)
    return content


def read_listed(
    store: Path, manifest: StoreManifest, key: str, *, most: int | None = _MAX_METADATA
) -> bytes:
    """Read a file of a store whole, and compare it with the digest in the manifest."""
    content = _read(store / key, manifest.scan_id, most=most)
    if hashlib.sha256(content).hexdigest() != manifest.keys[key].sha256:
        why = "is not the one that was written: it has not the SHA-256 that the manifest lists"
        raise fault(store / key, why, scan_id=manifest.scan_id)
    return content


def load_manifest(store: Path) -> StoreManifest:
    """Read and check the manifest of the store at `store`; raise StoreCorrupt if it is damaged."""
    where = store / MANIFEST_KEY
    try:
        content = _read(where)
    except ChunkMissing:
        raise StoreCorrupt(
            f"{store} is no finished store: it has no {MANIFEST_KEY}. It is built when its scan is "
            f"next used. {REPAIR if store.is_dir() else ''}".rstrip()
        ) from None
    try:
        manifest = StoreManifest.parse(content, where=str(where))
    except StoreCorrupt:
        _refuse_other_format(content, where)
        raise
    if manifest.fingerprint != store.name:
        raise StoreCorrupt(
            f"{store}: the manifest in this folder belongs to store {manifest.fingerprint[:12]} "
            f"of scan {manifest.scan_id}; the folder was renamed or swapped. {REPAIR}"
        )
    return manifest


def _refuse_other_format(content: bytes, where: Path) -> None:
    """Raise EarlierFormat or LaterFormat if a manifest is intact, but of another layout."""
    try:
        document = json.loads(content)
        layout, root = document["store_format"], document.pop("root")
    except (ValueError, RecursionError, TypeError, LookupError):
        return
    ours = (document.get("schema_version"), layout) == (MANIFEST_SCHEMA, STORE_FORMAT)
    # Every layout has the root digest, so that a damaged manifest is not taken for one of another.
    if ours or root != sha256_of_json(document):
        return
    whole = f"{where}: this store is whole, but of"
    if isinstance(layout, int) and layout < STORE_FORMAT:
        raise EarlierFormat(
            f"{whole} an earlier layout (store_format) than {STORE_FORMAT}, and not served any more: "
            f"its scan is converted again, beside it, when next used. Remove it: "
            f"verse-data cache prune --earlier-formats"
        )
    raise LaterFormat(
        f"{whole} a later layout (its schema_version or store_format) than this version reads. Use "
        f"the version of verse-data that wrote it, or remove it: verse-data cache prune --all"
    )


def read_metadata(store: Path, manifest: StoreManifest, key: str = GROUP_KEY) -> dict[str, Any]:
    """Return the metadata document `key` of a store, checked against the manifest."""
    document: dict[str, Any] = json.loads(read_listed(store, manifest, key))
    return document


def check_file(
    store: Path,
    manifest: StoreManifest,
    key: str,
    *,
    content: bool = False,
    where: str = "",
    remedy: str = REPAIR,
) -> None:
    """Check kind and size of a listed file by one ``lstat``; with `content`, its SHA-256 too.

    `where` names the store in messages; by default its path.
    """
    path, expected = store / key, manifest.keys[key]
    error = partial(
        fault,
        f"{key} of its store {where or store}",
        scan_id=manifest.scan_id,
        kind=StoreCorrupt if key.endswith(GROUP_KEY) else ChunkCorrupt,
        remedy=remedy,
    )
    with storage_errors(path):
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            why = f"does not exist, although the manifest lists it with {expected.size:,} bytes"
            raise error(why, kind=ChunkMissing) from None
        if not stat.S_ISREG(status.st_mode):
            raise error("is a link or a special file, which stores never hold")
        if status.st_size != expected.size:
            raise error(f"has {status.st_size:,} bytes where the manifest lists {expected.size:,}")
        if content:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != expected.sha256:
                raise error(
                    f"is not the one that was written: expected {expected.size:,} bytes with SHA-256 "
                    f"{expected.sha256[:12]}, found {status.st_size:,} bytes with {found[:12]}"
                )


def check_store(store: Path) -> StoreManifest:
    """Check that a store is complete: manifest, size and kind of each file. Reads no voxels."""
    manifest = load_manifest(store)
    for key in manifest.keys:
        check_file(store, manifest, key)
    return manifest


def verify_store(store: Path) -> list[IntegrityError | StorageError]:
    """Read every byte of a store and return its errors, one per file."""
    found: list[IntegrityError | StorageError] = []
    try:
        manifest = load_manifest(store)
    except (IntegrityError, StorageError) as error:
        return [error]
    for key in sorted(manifest.keys):
        try:
            check_file(store, manifest, key, content=True)
            if key.endswith(GROUP_KEY):
                check_zarr(store / key, _read(store / key), manifest.scan_id)
        except (IntegrityError, StorageError) as error:
            found.append(error)
    # An additional metadata file of another format, for instance, would be read by some tools only.
    present = {path.relative_to(store).as_posix() for path in files_below(store)}
    for key in sorted(present - {MANIFEST_KEY, *manifest.keys}):
        why = "does not belong to its store"
        found.append(fault(store / key, why, scan_id=manifest.scan_id, kind=StoreCorrupt))
    return found


def check_zarr(path: Path, content: bytes, scan_id: str) -> None:
    """Validate a metadata document with zarr-python's own models, without starting its thread."""
    # Opening an array would start an event loop in a thread, after which a process must not fork.
    from zarr.core.group import GroupMetadata
    from zarr.core.metadata import ArrayV3Metadata

    models: dict[str, Any] = {"array": ArrayV3Metadata, "group": GroupMetadata}
    try:
        document = json.loads(content)
        models[document["node_type"]].from_dict(document)
    except Exception as error:  # zarr has no base class of its errors
        why = f"is no metadata that zarr-python reads ({type(error).__name__}: {error})"
        raise fault(path, why, scan_id=scan_id) from error


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files and links below `folder`; another process may remove them meanwhile."""
    for parent, folders, names in os.walk(folder):
        links = (name for name in folders if Path(parent, name).is_symlink())
        yield from (Path(parent, name) for name in (*names, *links))
