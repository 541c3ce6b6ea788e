"""A root of stores that machines share, in a folder or behind an fsspec URL, and its local cache.

An object store cannot rename, so a store is published by its manifest, which is written last::

    <root>/<fingerprint[:2]>/<fingerprint>/manifest.json            lists all files of the store
    <root>/<fingerprint[:2]>/<fingerprint>/<root digest>/...        its files; a Zarr group

Files are stored under the digest of their own manifest, so that files of two machines that build
the same store at once are never mixed. A store is read by downloading all of it, checking every
byte against the manifest, and renaming it into the local cache, from which all later reads are
served.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import shlex
import shutil
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
    UsageError,
    VerseDataError,
)
from verse_data.files import publish_folder, staging, sync, write_file
from verse_data.records.manifest import StoreManifest
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.recipe import Recipe, ScanSource, fingerprint
from verse_data.volumes.store import (
    check_file,
    ensure_store,
    fault,
    find_store,
    load_manifest,
    store_path,
)

_log = logging.getLogger(__name__)

_BLOCK: Final = 4 << 20
# The command that repairs a store of this machine does not repair a shared one.
_REMEDY: Final = (
    "It is built and uploaded again by the first machine that uses it and has the scan's files, or "
    "can fetch them."
)


@dataclass(frozen=True)
class RemoteStores:
    """Stores that machines share, and the verified copies of them on this one. May be pickled.

    `url` is a folder, or an fsspec URL (``s3://bucket/prefix``); `cache` the root of the local
    copies. `options` are passed to the file system; credentials are better left to its own
    environment variables. `offline` forbids the network, but not a folder of this machine.
    """

    url: str
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    offline: bool = False
    _unreachable: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse to share a folder that holds the stores of one machine: the layouts differ."""
        if (folder := _local_folder(self.url)) is None:
            return
        is_own = folder.resolve() == self.cache.resolve()
        with suppress(OSError):  # a missing disk is reported when it is used
            is_own = is_own or any(folder.glob(f"[0-9a-f][0-9a-f]/*/{MANIFEST_KEY}"))
        if is_own:
            raise UsageError(
                f"{self.shown} holds one machine's own stores, so it cannot be the shared root as "
                f"well. Name another folder in VERSE_DATA_STORES, or leave it unset."
            )

    @property
    def shown(self) -> str:
        """The URL for messages: without user name, password and query."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return (f"{parts.scheme}://{host}{parts.path}" if parts.scheme else self.url).rstrip("/")

    def check(self) -> None:
        """Check that stores can be kept at the URL, as far as possible without the network."""
        _file_system(self.url, self.options)

    def ensure(self, source: ScanSource, recipe: Recipe) -> Path:
        """Return the local copy of a store: from the cache, else the URL, else built and uploaded.

        A store that is damaged at the URL is built and uploaded again, if the scan's files are on
        this machine. Offline, a store is built here, and uploaded when it is next used online.
        """
        try:
            if found := self.find(fingerprint(source.keys, recipe)):
                return found
        except (IntegrityError, Offline) as error:
            if not all(file.path.is_file() for file in (source.image, source.mask) if file):
                raise
            _log.info("building the store of %s: %s", source.scan_id, error)
        store = ensure_store(source, recipe, self.cache)
        if not self._is_cut_off:
            self.upload(store)
        return store

    def find(self, name: str) -> Path | None:
        """Return the local copy of a store in the cache or at the URL; None if it is in neither."""
        if here := find_store(name, self.cache):
            self._upload_if_missing(here)
            return here
        return self.fetch(name) if self.has(name) else None

    def has(self, name: str) -> bool:
        """Return whether the store with fingerprint `name` is published at the URL."""
        with self._files() as (files, root):
            return bool(files.exists(f"{root}/{_place(name)}/manifest.json"))

    def fetch(self, name: str) -> Path:
        """Return the local copy of a published store, after an atomic download if there is none."""
        if here := find_store(name, self.cache):
            return here
        final, place = store_path(self.cache, name), _place(name)
        where = f"{self.shown}/{place}"
        try:
            with self._files() as (files, root):
                content = files.cat_file(f"{root}/{place}/manifest.json")
        except FileNotFoundError:
            raise ContentMissing(f"{self.shown} holds no store {name}. {_REMEDY}") from None
        manifest = StoreManifest.parse(content, where=where, remedy=_REMEDY)
        if manifest.fingerprint != name:
            why = "holds the manifest of another store"
            raise fault(where, why, kind=StoreCorrupt, remedy=_REMEDY)
        place, where = f"{place}/{manifest.root}", f"{where}/{manifest.root}"
        with staging(final, needed=sum(key.size for key in manifest.keys.values())) as staged:
            for key, listed in manifest.keys.items():
                self._download(f"{place}/{key}", staged / key, listed.size)
                check_file(staged, manifest, key, content=True, where=where, remedy=_REMEDY)
            (staged / MANIFEST_KEY).write_bytes(content)
            publish_folder(staged, final)
        write_file(self._marker(final), b"")
        return final

    def upload(self, store: Path) -> None:
        """Publish a local store at the URL: check its files, upload them, then its manifest."""
        manifest, place = load_manifest(store), _place(store.name)
        for key in manifest.keys:
            check_file(store, manifest, key, content=True)
        for key in (*manifest.keys, MANIFEST_KEY):
            self._put(store / key, f"{place}/{manifest.root}/{key}")
        self._put(store / MANIFEST_KEY, f"{place}/manifest.json")
        write_file(self._marker(store), b"")

    def _upload_if_missing(self, here: Path) -> None:
        """Upload a copy that is not at the URL, if that can be done now."""
        if self._is_cut_off or self._unreachable or self._marker(here).exists():
            return
        # The local copy is complete: neither trouble with the URL nor a read-only cache keeps it
        # from being used.
        try:
            if not self.has(here.name):
                self.upload(here)
            write_file(self._marker(here), b"")
        except (NetworkError, StorageError) as error:
            _log.info("the store %s is not uploaded: %s", here, error)
            if isinstance(error, NetworkError):
                self._unreachable.add(
                    self.url
                )  # else each of many copies would wait for its timeout

    def _download(self, key: str, target: Path, expected: int) -> None:
        """Copy a file here, if it exists; if not of `expected` size, only reproduce its size."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), target.open("xb") as local:
            with self._files() as (files, root):
                size = int(files.size(f"{root}/{key}"))
            local.truncate(size)
            for begin in range(0, size if size == expected else 0, _BLOCK):
                with self._files() as (files, root):
                    end = min(begin + _BLOCK, size)
                    block = files.cat_file(f"{root}/{key}", start=begin, end=end)
                local.write(block)

    def _put(self, source: Path, key: str) -> None:
        """Copy a file to the URL atomically."""
        with self._files() as (files, root):
            path = f"{root}/{key}"
            if _local_folder(self.url) is None:
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
                files.put_file(str(source), path)
                return
            with staging(Path(path)) as staged:
                shutil.copyfile(source, staged)
                sync(staged)
                staged.replace(path)

    def _marker(self, here: Path) -> Path:
        """Return the file whose existence means that the store is published; saves a request."""
        url = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return here.parent / f".published-{url}-{here.name}"

    @property
    def _is_cut_off(self) -> bool:
        return self.offline and _local_folder(self.url) is None

    @contextmanager
    def _files(self) -> Iterator[tuple[Any, str]]:
        """Yield file system and root; turn its errors into ours, except FileNotFoundError."""
        if self._is_cut_off:
            raise Offline(
                f"The stores are at {self.shown}, this one is not on this machine, and the "
                f"network may not be used. Run it again without --offline (VERSE_DATA_OFFLINE)."
            )
        try:
            yield _file_system(self.url, self.options)
        except (VerseDataError, FileNotFoundError):
            raise
        except Exception as error:  # each file system has its own exceptions
            # Some messages contain pages of debugging output.
            first = next(iter(str(error).splitlines()), "")[:200].rstrip(" .")
            raise ServerUnavailable(
                f"{self.shown} could not be used: {type(error).__name__}: {first}. Check the "
                f"address, the credentials and the network, and run it again."
            ) from error


def _place(name: str) -> str:
    return f"{name[:2]}/{name}"


def _local_folder(url: str) -> Path | None:
    """Return the folder of this machine that `url` names, or None if it needs the network."""
    scheme, divider, path = url.partition("://")
    if divider and scheme not in {"file", "local"}:
        return None
    folder = Path(path.removeprefix("localhost") if divider else url).expanduser()
    if not folder.is_absolute():  # a relative path depends on where a process is started
        raise UsageError(
            f"VERSE_DATA_STORES={url} is not an absolute path of a folder. Give one such as "
            f"/mnt/lab/stores or file:///mnt/lab/stores."
        )
    return folder


def _file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return fsspec's file system for `url`, or obstore's if it has none, and its root."""
    from fsspec import get_filesystem_class  # takes a sixth of a second
    from fsspec.core import url_to_fs

    folder, (protocol, _, path) = _local_folder(url), url.partition("://")
    if folder is not None:
        if not folder.is_dir():  # never created here: its disk may not be mounted
            raise StorageError(
                f"The stores that machines share cannot be reached: VERSE_DATA_STORES names "
                f"{folder}, and there is no such folder. Mount the disk that holds it, or make it: "
                f"mkdir -p {shlex.quote(str(folder))}"
            )
        protocol, url, options = "file", str(folder), {}
    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        try:
            # Lighter than s3fs, which pins botocore; imported by name, as obstore is optional.
            obstore = importlib.import_module("obstore.fsspec")
        except ImportError:
            raise ToolMissing(
                f"Stores at {protocol}:// need a package that is not installed. {error}, or: "
                f"pip install fsspec obstore"
            ) from None
        return obstore.FsspecStore(protocol, **options), path.rstrip("/")
    except ValueError:
        protocol = "memory"
    if protocol == "memory":  # private to one process
        raise UsageError(
            f"VERSE_DATA_STORES names {url.partition('://')[0]}://, which machines cannot share. "
            f"Set it to a folder, or to a URL such as s3://bucket/prefix."
        )
    files, root = url_to_fs(url, **options)
    return files, str(root).rstrip("/")
