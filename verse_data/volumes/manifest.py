"""Reading a store's manifest, and holding the files of the store against it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from verse_data.digests import digest_file, sha256_of_json
from verse_data.errors import ChunkCorrupt, ChunkMissing, IntegrityError, StorageError, StoreCorrupt
from verse_data.publishing import storage_errors
from verse_data.records.manifest import (
    MANIFEST_SCHEMA,
    REPAIR,
    STORE_FORMAT,
    StoredKey,
    StoreManifest,
)
from verse_data.volumes.layout import GROUP_KEY, MANIFEST_KEY

_MAX_METADATA = 64 << 20
"""Bytes of the largest metadata file that is read whole."""
_NOT_SERVED: Final = {
    "earlier": (
        f"of an earlier layout (store_format) than {STORE_FORMAT}, and not served any more: its "
        f"scan is converted again, beside it, when next used. Remove it: "
        f"verse-data cache prune --earlier-formats"
    ),
    "later": (
        "of a later layout (its schema_version or store_format) than this version reads. Use the "
        "version of verse-data that wrote it, or remove it: verse-data cache prune --all"
    ),
}


def load_manifest(store: Path) -> StoreManifest:
    """Read and check the manifest of the store at `store`.

    Raises
    ------
    StoreCorrupt
        If there is none, it is damaged, or it belongs to another store than the folder's name says.
    """
    where = store / MANIFEST_KEY
    try:
        content = _read_plain(where)
    except _Absent:
        message = (
            f"{store} is no finished store: it has no {MANIFEST_KEY}. {REPAIR}"
            if store.is_dir()
            else f"There is no store at {store}. It is built when its scan is next used."
        )
        raise StoreCorrupt(message) from None
    try:
        manifest = StoreManifest.parse(content, where=str(where))
    except StoreCorrupt:
        age = other_format(store)
        if age is None:
            raise
        raise StoreCorrupt(f"{where}: this store is whole, but {_NOT_SERVED[age]}") from None
    if manifest.fingerprint != store.name:
        message = (
            f"{store}: the manifest in this folder belongs to store {manifest.fingerprint[:12]} "
            f"of scan {manifest.scan_id}; the folder was renamed or swapped. {REPAIR}"
        )
        raise StoreCorrupt(message)
    return manifest


def read_metadata(store: Path, manifest: StoreManifest, key: str = GROUP_KEY) -> dict[str, Any]:
    """Return the metadata document `key` of a store, checked against the manifest.

    Raises
    ------
    ChunkMissing
        If it does not exist.
    StoreCorrupt
        If it is not the one that the manifest lists.
    """
    expected = _listed(store, manifest, key)
    try:
        content = _read_plain(store / key, whose=f"Scan {manifest.scan_id}: ")
    except _Absent:
        raise missing(store, manifest, key) from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected.sha256:
        raise StoreCorrupt(_mismatch(store, manifest, key, len(content), found))
    document: dict[str, Any] = json.loads(content)
    return document


def missing(store: Path | str, manifest: StoreManifest, key: str) -> ChunkMissing:
    """Return the error for a `key` that the manifest lists and the store lacks."""
    return ChunkMissing(
        f"Scan {manifest.scan_id}: {key} of its store {store} does not exist, although the "
        f"manifest lists it with {manifest.keys[key].size:,} bytes. {REPAIR}"
    )


def corrupt(
    store: Path | str, manifest: StoreManifest, key: str, why: str
) -> ChunkCorrupt | StoreCorrupt:
    """Return the error for bytes of `key` that are not what the manifest says; `why` says how."""
    kind = StoreCorrupt if key.endswith(GROUP_KEY) else ChunkCorrupt
    return kind(f"Scan {manifest.scan_id}: {key} of its store {store} {why}. {REPAIR}")


def check_size(store: Path, manifest: StoreManifest, key: str) -> None:
    """Check that `key` is a plain file of the listed size; costs one ``lstat``.

    Raises
    ------
    ChunkMissing, ChunkCorrupt, StoreCorrupt
        If not.
    """
    expected = _listed(store, manifest, key)
    with storage_errors(store / key):
        try:
            status = os.lstat(store / key)
        except (FileNotFoundError, NotADirectoryError):
            raise missing(store, manifest, key) from None
    if not stat.S_ISREG(status.st_mode):
        raise corrupt(store, manifest, key, "is a link or a special file, which stores never hold")
    if status.st_size != expected.size:
        why = f"has {status.st_size:,} bytes where the manifest lists {expected.size:,}"
        raise corrupt(store, manifest, key, why)


def check_content(store: Path, manifest: StoreManifest, key: str) -> None:
    """Check size and SHA-256 of `key`; reads the whole file.

    Raises
    ------
    ChunkMissing, ChunkCorrupt, StoreCorrupt
        If they are not what the manifest lists.
    """
    check_size(store, manifest, key)
    with storage_errors(store / key):
        found = digest_file(store / key)
    if found.sha256 != manifest.keys[key].sha256:
        kind = StoreCorrupt if key.endswith(GROUP_KEY) else ChunkCorrupt
        raise kind(_mismatch(store, manifest, key, found.size, found.sha256))


def other_format(store: Path) -> Literal["earlier", "later"] | None:
    """Return which layout a whole manifest at `store` is of, if it is not this version's.

    Every layout keeps the root digest, so that a damaged manifest is not taken for a foreign one.
    """
    try:
        document = json.loads(_read_plain(store / MANIFEST_KEY))
    except (_Absent, IntegrityError, StorageError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    layout = document.get("store_format")
    root = document.pop("root", None)
    ours = (document.get("schema_version"), layout) == (MANIFEST_SCHEMA, STORE_FORMAT)
    if ours or root != sha256_of_json(document):
        return None
    return "earlier" if isinstance(layout, int) and layout < STORE_FORMAT else "later"


def verify_store(store: Path) -> list[IntegrityError | StorageError]:
    """Read every byte of a store and return what is wrong with it, one error a file.

    Files that the manifest does not list are findings too: a second metadata format beside the
    first, for instance, would be read by some tools and not by others.
    """
    try:
        manifest = load_manifest(store)
    except (IntegrityError, StorageError) as error:
        return [error]
    found: list[IntegrityError | StorageError] = []
    for key in sorted(manifest.keys):
        try:
            check_content(store, manifest, key)
        except (IntegrityError, StorageError) as error:
            found.append(error)
    listed = {MANIFEST_KEY, *manifest.keys}
    for path in sorted(files_below(store)):
        key = path.relative_to(store).as_posix()
        if key not in listed:
            message = f"Scan {manifest.scan_id}: {path} does not belong to its store. {REPAIR}"
            found.append(StoreCorrupt(message))
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all that is no folder below `folder`, links too; another process may remove it meanwhile."""
    for parent, folders, names in os.walk(folder):
        links = (name for name in folders if Path(parent, name).is_symlink())
        yield from (Path(parent, name) for name in (*names, *links))


def _listed(store: Path, manifest: StoreManifest, key: str) -> StoredKey:
    try:
        return manifest.keys[key]
    except KeyError:
        message = f"{store}: its manifest lists no {key!r}. {REPAIR}"
        raise StoreCorrupt(message) from None


def _mismatch(store: Path, manifest: StoreManifest, key: str, size: int, sha256: str) -> str:
    expected = manifest.keys[key]
    return (
        f"Scan {manifest.scan_id}: {key} of its store {store} is not the one that was written: "
        f"expected {expected.size:,} bytes with SHA-256 {expected.sha256[:12]}, "
        f"found {size:,} bytes with {sha256[:12]}. {REPAIR}"
    )


def _read_plain(path: Path, *, whose: str = "") -> bytes:
    """Read a small file, refusing links, folders and special files: a store holds none."""
    try:
        with storage_errors(path):
            content = _read_no_link(path)
    except _NotPlain:
        message = f"{whose}{path} is a folder or a special file, which stores never hold. {REPAIR}"
        raise StoreCorrupt(message) from None
    except StorageError:
        if not path.is_symlink():
            raise
        message = f"{whose}{path} is a link, which stores never hold. {REPAIR}"
        raise StoreCorrupt(message) from None
    if len(content) > _MAX_METADATA:
        message = (
            f"{whose}{path} has more than {_MAX_METADATA:,} bytes, too many for metadata. {REPAIR}"
        )
        raise StoreCorrupt(message)
    return content


def _read_no_link(path: Path) -> bytes:
    try:
        # Not blocking: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise _Absent from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _NotPlain
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(_MAX_METADATA + 1)
    finally:
        os.close(descriptor)


class _Absent(Exception):
    """There is no such file."""


class _NotPlain(Exception):
    """It is no ordinary file."""
