"""A root of stores behind an fsspec URL, such as an object store, read through a local cache.

An object store cannot rename, so a store is published by its manifest, which is written last::

    <root>/<fingerprint[:2]>/<fingerprint>/manifest.json            what the store consists of
    <root>/<fingerprint[:2]>/<fingerprint>/<root digest>/...        its files; a Zarr group

Files lie under the digest of their own manifest, so that two machines that build the same store
at once never mix. Reading brings the whole store here, holds every byte against the manifest,
and renames it into the local cache: whatever is read later is read from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from verse_data.errors import (
    ContentMissing,
    IntegrityError,
    NetworkError,
    Offline,
    StorageError,
    StoreCorrupt,
    UsageError,
)
from verse_data.publishing import publish_folder, staging, write_file
from verse_data.records.manifest import REPAIR, StoreManifest
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.manifest import check_content, corrupt, load_manifest, missing
from verse_data.volumes.recipe import Recipe, fingerprint
from verse_data.volumes.source import ScanSource
from verse_data.volumes.store import check_store, ensure_store, store_path
from verse_data.volumes.url_files import UrlFiles, check_root, local_folder, shown

_POINTER: Final = "manifest.json"
_BUILD: Final = (
    "The first machine that uses it and has the scan's files, or can fetch them, uploads it."
)
_MEND: Final = (
    "It is built and uploaded again by the first machine that uses it and has the scan's files, or "
    "can fetch them."
)


@dataclass(frozen=True)
class RemoteStores:
    """Stores behind a URL, and the verified copies of them on this machine. May be pickled.

    Attributes
    ----------
    url : str
        Root of the stores in fsspec's words: ``s3://bucket/prefix``, ``gs://…``, ``file:///…``.
    cache : Path
        Root of the local copies; an ordinary root of stores.
    options : mapping
        Passed to the file system, such as ``endpoint``; credentials are better left to its own
        environment variables.
    offline : bool
        Whether the network may not be used. A folder of this machine is used all the same.
    """

    url: str
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    offline: bool = False
    _silent: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse to share a folder that holds the stores of one machine: the layouts differ."""
        folder = local_folder(self.url)
        if folder and (folder.resolve() == self.cache.resolve() or _is_own(folder)):
            message = (
                f"{shown(self.url)} holds one machine's own stores, so it cannot be the shared "
                f"root as well. Name another folder in VERSE_DATA_STORES, or leave it unset."
            )
            raise UsageError(message)

    def check(self) -> None:
        """Check that stores can be kept at the URL; see :func:`verse_data.volumes.url_files.check_root`."""
        check_root(self.url)

    def ensure(self, source: ScanSource, recipe: Recipe) -> Path:
        """Return the local copy of a store: from here, else from the URL, else built and uploaded.

        A copy that is here is served whatever the network does. A store that is damaged at the URL
        is built and uploaded again, if the scan's files are on this machine. Where the network may
        not be used a store is built here, and uploaded when it is next asked for with a network.

        Raises
        ------
        Offline
            If there is no copy here, nothing to build it from, and the network may not be used.
        ServerUnavailable
            If there is no copy here, and the URL cannot be reached.
        VerseDataError
            As :func:`verse_data.volumes.store.ensure_store` and :meth:`fetch`.
        """
        name = fingerprint(source.keys, recipe)
        try:
            found = self.find(name)
        except (IntegrityError, Offline):
            if not _has_files(source):
                raise
            found = None
        if found:
            return found
        store = ensure_store(source, recipe, self.cache)
        if not self._cut_off:
            self.upload(store)
        return store

    def find(self, name: str) -> Path | None:
        """Return the local copy of a store that is here or at the URL; None if it is at neither.

        Raises
        ------
        ChunkMissing, ChunkCorrupt, StoreCorrupt
            If it is damaged.
        Offline
            If it is not here, and the network may not be used.
        ServerUnavailable, StorageError
            If it is not here, and the URL cannot be reached.
        """
        here = store_path(self.cache, name)
        if here.is_dir():
            check_store(here)
            self._catch_up(here)
            return here
        return self.fetch(name) if self.has(name) else None

    @property
    def _cut_off(self) -> bool:
        """Whether the URL may not be asked."""
        return self.offline and local_folder(self.url) is None

    def _catch_up(self, here: Path) -> None:
        """Upload a copy that is not at the URL, if that can be done now."""
        if self._cut_off or self._silent or self._note(here).exists():
            return
        # It is whole and it is here: trouble with the URL, or a cache that may only be read, is no
        # reason not to serve it.
        try:
            if not self.has(here.name):
                self.upload(here)
            write_file(self._note(here), b"")
        except NetworkError:
            self._silent.add(self.url)  # each of many copies would wait as long, and in vain
        except StorageError:
            pass

    def _note(self, here: Path) -> Path:
        """Return the file that says that a copy is at the URL as well, which saves asking."""
        url = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return here.parent / f".published-{url}-{here.name}"

    def has(self, name: str) -> bool:
        """Return whether the store with fingerprint `name` is published at the URL."""
        return self._files().exists(f"{name[:2]}/{name}/{_POINTER}")

    def fetch(self, name: str) -> Path:
        """Return the local copy of a published store, bringing it here if need be.

        Raises
        ------
        ContentMissing
            If there is no such store at the URL.
        ChunkMissing, ChunkCorrupt, StoreCorrupt
            If what lies at the URL is not what its manifest says; nothing of it is kept.
        DiskFull, PermissionDenied, ServerUnavailable
        """
        final = store_path(self.cache, name)
        if final.is_dir():
            check_store(final)
            return final
        try:
            self._bring(name, final)
        except IntegrityError as error:
            # What repairs a store of this machine does nothing for one at a URL.
            raise type(error)(str(error).replace(REPAIR, _MEND)) from None
        write_file(self._note(final), b"")
        return final

    def _bring(self, name: str, final: Path) -> None:
        files, place = self._files(), f"{name[:2]}/{name}"
        where = f"{files.shown}/{place}"
        try:
            content = files.read(f"{place}/{_POINTER}")
        except FileNotFoundError:
            message = f"{files.shown} holds no store {name}. {_BUILD}"
            raise ContentMissing(message) from None
        manifest = StoreManifest.parse(content, where=where)
        if manifest.fingerprint != name:
            message = f"{where} holds the manifest of another store. {REPAIR}"
            raise StoreCorrupt(message)
        with staging(final, needed=sum(key.size for key in manifest.keys.values())) as staged:
            for key in manifest.keys:
                _download(files, f"{place}/{manifest.root}", staged, key, manifest)
            (staged / MANIFEST_KEY).write_bytes(content)
            publish_folder(staged, final)

    def upload(self, store: Path) -> None:
        """Publish a store of this machine at the URL: its files first, its manifest last.

        Raises
        ------
        ChunkMissing, ChunkCorrupt, StoreCorrupt
            If it is damaged; nothing of it is uploaded.
        ServerUnavailable
            If the URL cannot be written; an upload that stops half-way is never seen as a store.
        """
        manifest, files = load_manifest(store), self._files()
        for key in manifest.keys:
            check_content(store, manifest, key)
        place = f"{manifest.fingerprint[:2]}/{manifest.fingerprint}"
        for key in (*manifest.keys, MANIFEST_KEY):
            files.put(f"{place}/{manifest.root}/{key}", store / key)
        files.write(f"{place}/{_POINTER}", manifest.to_bytes())
        write_file(self._note(store), b"")

    def _files(self) -> UrlFiles:
        if self._cut_off:
            raise self._unreachable()
        return UrlFiles(self.url, self.options)

    def _unreachable(self) -> Offline:
        return Offline(
            f"The stores are at {shown(self.url)}, this one is not on this machine, and the "
            f"network may not be used. Run it again without --offline (VERSE_DATA_OFFLINE)."
        )


def _is_own(folder: Path) -> bool:
    """Return whether stores lie in `folder` as a machine keeps its own, for itself alone."""
    with suppress(OSError):  # a disk that hangs or is gone has an error of its own, when it is used
        return any(folder.glob(f"[0-9a-f][0-9a-f]/*/{MANIFEST_KEY}"))
    return False


def _has_files(source: ScanSource) -> bool:
    return all(file.path.is_file() for file in (source.image, source.mask) if file)


def _download(files: UrlFiles, place: str, staged: Path, key: str, manifest: StoreManifest) -> None:
    """Bring one file here, hashed on the way."""
    expected = manifest.keys[key]
    target, digest = staged / key, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    where = f"{files.shown}/{place}"
    try:
        size = files.size(f"{place}/{key}")
        if size == expected.size:
            with target.open("xb") as local:
                for block in files.blocks(f"{place}/{key}", size):
                    digest.update(block)
                    local.write(block)
    except FileNotFoundError:
        raise missing(where, manifest, key) from None
    if size != expected.size or digest.hexdigest() != expected.sha256:
        why = (
            f"has {size:,} bytes, and they are not the {expected.size:,} that its manifest "
            f"lists with SHA-256 {expected.sha256[:12]}; nothing of it was kept"
        )
        raise corrupt(where, manifest, key, why)
