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
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from verse_data.errors import (
    ContentMissing,
    IntegrityError,
    NetworkError,
    Offline,
    ServerUnavailable,
    StorageError,
    StoreCorrupt,
    ToolMissing,
    VerseDataError,
)
from verse_data.publishing import publish_folder, staging, sync, write_file
from verse_data.records.manifest import REPAIR, StoreManifest
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.manifest import corrupt, load_manifest, missing
from verse_data.volumes.recipe import Recipe, fingerprint
from verse_data.volumes.source import ScanSource
from verse_data.volumes.store import check_store, ensure_store, store_path

_POINTER: Final = "manifest.json"
_BLOCK: Final = 4 << 20
_ERROR_TEXT: Final = 200
"""Characters of a file system's own error that are shown: some add pages of debugging."""
_MEND: Final = (
    "Run `verse-data cache build` where the scan's own files are: the store is built and uploaded "
    "again."
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
        Whether only the local copies may be used.
    """

    url: str
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    offline: bool = False

    def ensure(self, source: ScanSource, recipe: Recipe) -> Path:
        """Return the local copy of a store: from here, else from the URL, else built and uploaded.

        A copy that is here is served whatever the network does. A store that is damaged at the URL
        is built and uploaded again, if the scan's files are on this machine.

        Raises
        ------
        Offline
            If there is no copy here, and the network may not be used.
        ServerUnavailable
            If there is no copy here, and the URL cannot be reached.
        VerseDataError
            As :func:`verse_data.volumes.store.ensure_store` and :meth:`fetch`.
        """
        name = fingerprint(source, recipe)
        here = store_path(self.cache, name)
        if here.is_dir():
            check_store(here)
            self._catch_up(here)
            return here
        if self.has(name):
            try:
                return self.fetch(name)
            except IntegrityError:
                files = [file for file in (source.image, source.mask) if file]
                if not all(file.path.is_file() for file in files):
                    raise
        store = ensure_store(source, recipe, self.cache)
        self.upload(store)
        return store

    def _catch_up(self, here: Path) -> None:
        """Upload a copy whose upload was cut short, if that can be done now."""
        if self.offline or self._note(here).exists():
            return
        # It is whole and it is here: trouble with the URL, or a cache that may only be read, is no
        # reason not to serve it.
        with suppress(NetworkError, StorageError):
            if not self.has(here.name):
                self.upload(here)
            write_file(self._note(here), b"")

    def _note(self, here: Path) -> Path:
        """Return the file that says that a copy is at the URL as well, which saves asking."""
        url = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return here.parent / f".published-{url}-{here.name}"

    def has(self, name: str) -> bool:
        """Return whether the store with fingerprint `name` is published at the URL."""
        with self._talking():
            files, root = self._files()
            return bool(files.exists(f"{root}/{name[:2]}/{name}/{_POINTER}"))

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
        with self._talking():
            files, root = self._files()
            where = f"{root}/{name[:2]}/{name}"
            try:
                content = files.cat_file(f"{where}/{_POINTER}")
            except FileNotFoundError:
                message = f"{self._shown()} holds no store {name}. Build it: verse-data cache build"
                raise ContentMissing(message) from None
        manifest = StoreManifest.parse(content, where=f"{self._shown()}/{name[:2]}/{name}")
        if manifest.fingerprint != name:
            message = (
                f"{self._shown()}/{name[:2]}/{name} holds the manifest of another store. {REPAIR}"
            )
            raise StoreCorrupt(message)
        with staging(final, needed=sum(key.size for key in manifest.keys.values())) as staged:
            for key in manifest.keys:
                self._download(files, f"{where}/{manifest.root}/{key}", staged, key, manifest)
            (staged / MANIFEST_KEY).write_bytes(content)
            publish_folder(staged, final)

    def upload(self, store: Path) -> None:
        """Publish a store of this machine at the URL: its files first, its manifest last.

        Raises
        ------
        ServerUnavailable
            If the URL cannot be written; an upload that stops half-way is never seen as a store.
        """
        manifest = load_manifest(store)
        name = manifest.fingerprint
        with self._talking():
            files, root = self._files()
            where = f"{root}/{name[:2]}/{name}"
            for key in (*manifest.keys, MANIFEST_KEY):
                target = f"{where}/{manifest.root}/{key}"
                files.makedirs(target.rpartition("/")[0], exist_ok=True)
                files.put_file(str(store / key), target)
                if _is_local(files):
                    sync(Path(target))
            if _is_local(files):
                # An object store replaces an object whole; a folder must be made to.
                write_file(Path(where, _POINTER), manifest.to_bytes())
            else:
                files.pipe_file(f"{where}/{_POINTER}", manifest.to_bytes())
        write_file(self._note(store), b"")

    def _download(
        self, files: Any, remote: str, staged: Path, key: str, manifest: StoreManifest
    ) -> None:
        """Bring one file here, hashed on the way."""
        expected = manifest.keys[key]
        target, digest = staged / key, hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        name = manifest.fingerprint
        place = f"{self._shown()}/{name[:2]}/{name}/{manifest.root}"
        try:
            with self._talking():
                size = int(files.size(remote))
            if size == expected.size:
                with target.open("xb") as local:
                    for block in self._blocks(files, remote, size):
                        digest.update(block)
                        local.write(block)
        except FileNotFoundError:
            raise missing(place, manifest, key) from None
        if size != expected.size or digest.hexdigest() != expected.sha256:
            why = (
                f"has {size:,} bytes, and they are not the {expected.size:,} that its manifest "
                f"lists with SHA-256 {expected.sha256[:12]}; nothing of it was kept"
            )
            raise corrupt(place, manifest, key, why)

    def _blocks(self, files: Any, remote: str, size: int) -> Iterator[bytes]:
        for begin in range(0, size, _BLOCK):
            with self._talking():
                block: bytes = files.cat_file(remote, start=begin, end=min(begin + _BLOCK, size))
            yield block

    def _files(self) -> tuple[Any, str]:
        """Return the fsspec file system and the root in its own words."""
        if self.offline:
            message = (
                f"The stores are at {self._shown()}, this one is not on this machine, and the "
                f"network may not be used. Run it again without --offline (VERSE_DATA_OFFLINE)."
            )
            raise Offline(message)
        protocol = self.url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            files, root = url_to_fs(self.url, **self.options)
        except ImportError:
            try:
                # Lighter than s3fs, which pins botocore; a name only, as obstore is optional.
                store = importlib.import_module("obstore.fsspec").FsspecStore
            except ImportError:
                message = (
                    f"Stores at {protocol}:// need a file system for it: "
                    f"pip install 'verse-data[remote]'"
                )
                raise ToolMissing(message) from None
            files, root = store(protocol, **self.options), self.url.partition("://")[2]
        return files, str(root).rstrip("/")

    def _shown(self) -> str:
        """Return the URL as messages show it: without user name, password and query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Turn whatever a file system raises into an error of ours; a missing file stays one."""
        try:
            yield
        except (VerseDataError, FileNotFoundError):
            raise
        except Exception as error:  # each file system has exceptions of its own
            first = next(iter(str(error).splitlines()), "")[:_ERROR_TEXT].rstrip(" .")
            message = (
                f"{self._shown()} could not be used: {type(error).__name__}: {first}. Check the "
                f"address, the credentials and the network, and run it again."
            )
            raise ServerUnavailable(message) from error


def _is_local(files: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(files, LocalFileSystem)
