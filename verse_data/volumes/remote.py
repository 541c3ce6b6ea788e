"""A root of stores that machines share, in a folder or behind an fsspec URL, and its local cache.

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

_log = logging.getLogger("verse_data.remote")

_BLOCK: Final = 4 << 20
_BY_WHOM: Final = "by the first machine that uses it and has the scan's files, or can fetch them."
# What repairs a store of this machine does nothing for one that is shared.
_REMEDY: Final = f"It is built and uploaded again {_BY_WHOM}"


@dataclass(frozen=True)
class RemoteStores:
    """Stores that machines share, and the verified copies of them on this one. May be pickled.

    `url` is a folder, or a root in fsspec's words (``s3://bucket/prefix``); `cache` the root of the
    local copies. `options` go to the file system; credentials are better left to its own
    environment variables. `offline` forbids the network, and no folder of this machine.
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
        with suppress(OSError):  # a disk that is gone has an error of its own, when it is used
            is_own = is_own or any(folder.glob(f"[0-9a-f][0-9a-f]/*/{MANIFEST_KEY}"))
        if is_own:
            raise UsageError(
                f"{_shown(self.url)} holds one machine's own stores, so it cannot be the shared "
                f"root as well. Name another folder in VERSE_DATA_STORES, or leave it unset."
            )

    def check(self) -> None:
        """Check that stores can be kept at the URL, as far as this machine tells; asks no network."""
        _check_root(self.url)

    def ensure(self, source: ScanSource, recipe: Recipe) -> Path:
        """Return the local copy of a store: from here, else from the URL, else built and uploaded.

        A store that is damaged at the URL is built and uploaded again, if the scan's files are on
        this machine. Where the network may not be used a store is built here, and uploaded when it
        is next asked for with a network.
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
        """Return the local copy of a store that is here or at the URL; None if it is at neither."""
        if here := find_store(name, self.cache):
            self._catch_up(here)
            return here
        return self.fetch(name) if self.has(name) else None

    def has(self, name: str) -> bool:
        """Return whether the store with fingerprint `name` is published at the URL."""
        return self._files().exists(f"{_place(name)}/manifest.json")

    def fetch(self, name: str) -> Path:
        """Return the local copy of a published store, bringing it here if need be, whole or not at all."""
        if here := find_store(name, self.cache):
            return here
        final, files, place = store_path(self.cache, name), self._files(), _place(name)
        where = f"{files.shown}/{place}"
        try:
            content = files.read(f"{place}/manifest.json")
        except FileNotFoundError:
            raise ContentMissing(
                f"{files.shown} holds no store {name}. It is built and uploaded {_BY_WHOM}"
            ) from None
        manifest = StoreManifest.parse(content, where=where, remedy=_REMEDY)
        if manifest.fingerprint != name:
            why = "holds the manifest of another store"
            raise fault(where, why, kind=StoreCorrupt, remedy=_REMEDY)
        with staging(final) as staged:
            for key, listed in manifest.keys.items():
                files.get(f"{place}/{manifest.root}/{key}", staged / key, listed.size)
                at = f"{where}/{manifest.root}"
                check_file(staged, manifest, key, content=True, where=at, remedy=_REMEDY)
            (staged / MANIFEST_KEY).write_bytes(content)
            publish_folder(staged, final)
        write_file(self._note(final), b"")
        return final

    def upload(self, store: Path) -> None:
        """Publish a store of this machine at the URL: its files, checked before, then its manifest."""
        manifest, files = load_manifest(store), self._files()
        for key in manifest.keys:
            check_file(store, manifest, key, content=True)
        place = _place(manifest.fingerprint)
        for key in (*manifest.keys, MANIFEST_KEY):
            files.put(f"{place}/{manifest.root}/{key}", store / key)
        files.put(f"{place}/manifest.json", store / MANIFEST_KEY)
        write_file(self._note(store), b"")

    def _catch_up(self, here: Path) -> None:
        """Upload a copy that is not at the URL, if that can be done now."""
        if self._is_cut_off or self._unreachable or self._note(here).exists():
            return
        # It is whole and it is here: trouble with the URL, or a cache that may only be read, is no
        # reason not to serve it.
        try:
            if not self.has(here.name):
                self.upload(here)
            write_file(self._note(here), b"")
        except (NetworkError, StorageError) as error:
            _log.info("the store %s is not uploaded: %s", here, error)
            if isinstance(error, NetworkError):
                self._unreachable.add(self.url)  # each of many copies would wait as long, in vain

    def _note(self, here: Path) -> Path:
        """Return the file that says that a copy is at the URL as well, which saves asking."""
        url = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return here.parent / f".published-{url}-{here.name}"

    @property
    def _is_cut_off(self) -> bool:
        return self.offline and _local_folder(self.url) is None

    def _files(self) -> _Files:
        if self._is_cut_off:
            raise Offline(
                f"The stores are at {_shown(self.url)}, this one is not on this machine, and the "
                f"network may not be used. Run it again without --offline (VERSE_DATA_OFFLINE)."
            )
        return _Files(self.url, self.options)


class _Files:
    """Files by their key below a root; one that does not exist is ``FileNotFoundError``."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.shown, self._folder = _shown(url), _local_folder(url)
        protocol, _, path = url.partition("://")
        with self._translated():
            if obstore := _check_root(url):
                self._files, root = obstore(protocol, **options), path
            else:
                from fsspec.core import url_to_fs

                self._files, root = url_to_fs(str(self._folder or url), **options)
            self._root = str(root).rstrip("/")

    def exists(self, key: str) -> bool:
        with self._translated():
            return bool(self._files.exists(f"{self._root}/{key}"))

    def read(self, key: str) -> bytes:
        with self._translated():
            content: bytes = self._files.cat_file(f"{self._root}/{key}")
        return content

    def get(self, key: str, target: Path, expected: int) -> None:
        """Copy a file here, if there is one; of another size than `expected`, its size alone."""
        target.parent.mkdir(parents=True, exist_ok=True)
        path = f"{self._root}/{key}"
        with suppress(FileNotFoundError), target.open("xb") as local:
            with self._translated():
                size = int(self._files.size(path))
            local.truncate(size)
            for begin in range(0, size if size == expected else 0, _BLOCK):
                with self._translated():
                    end = min(begin + _BLOCK, size)
                    block = self._files.cat_file(path, start=begin, end=end)
                local.write(block)

    def put(self, key: str, source: Path) -> None:
        """Copy a file to `key`; nobody sees a part of it."""
        path = f"{self._root}/{key}"
        with self._translated():
            if self._folder is None:
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(source), path)
                return
            with staging(Path(path)) as staged:
                shutil.copyfile(source, staged)
                sync(staged)
                staged.replace(path)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever a file system raises into an error of ours; a missing file stays one."""
        try:
            yield
        except (VerseDataError, FileNotFoundError):
            raise
        except Exception as error:  # each file system has exceptions of its own
            # Some add pages of debugging.
            first = next(iter(str(error).splitlines()), "")[:200].rstrip(" .")
            raise ServerUnavailable(
                f"{self.shown} could not be used: {type(error).__name__}: {first}. Check the "
                f"address, the credentials and the network, and run it again."
            ) from error


def _place(name: str) -> str:
    return f"{name[:2]}/{name}"


def _shown(url: str) -> str:
    """Return `url` as messages show it: without user name, password and query."""
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return (place if parts.scheme else url).rstrip("/")


def _local_folder(url: str) -> Path | None:
    """Return the folder of this machine that `url` names, or None if it needs the network."""
    scheme, divider, path = url.partition("://")
    if divider and scheme not in {"file", "local"}:
        return None
    folder = Path(path.removeprefix("localhost") if divider else url).expanduser()
    if not folder.is_absolute():  # another folder wherever a process is started
        raise UsageError(
            f"VERSE_DATA_STORES={_shown(url)} is no whole path of a folder. Give it from the root "
            f"on, such as /mnt/lab/stores or file:///mnt/lab/stores."
        )
    return folder


def _check_root(url: str) -> Any:
    """Check that stores can be kept at `url`; return obstore's file system where it must stand in."""
    folder, protocol = _local_folder(url), url.partition("://")[0]
    if folder is not None:
        if folder.is_dir():
            return None
        # It is never made: a disk may not be mounted.
        raise StorageError(
            f"The stores that machines share cannot be reached: VERSE_DATA_STORES names {folder}, "
            f"and there is no such folder. Mount the disk that holds it, or make it: "
            f"mkdir -p {shlex.quote(str(folder))}"
        )
    from fsspec import get_filesystem_class  # takes a sixth of a second

    try:
        get_filesystem_class(protocol)
        shared = protocol != "memory"  # which is one process's own
    except ImportError as error:
        return _obstore(protocol, error)
    except ValueError:
        shared = False
    if shared:
        return None
    raise UsageError(
        f"VERSE_DATA_STORES names {protocol}://, where machines can share nothing. Set it to a "
        f"folder, or to a URL such as s3://bucket/prefix."
    )


def _obstore(protocol: str, lacking: ImportError) -> Any:
    """Return obstore's file system, which stands in for a package that fsspec is `lacking`."""
    try:
        # Lighter than s3fs, which pins botocore; a name only, as obstore is optional.
        obstore = importlib.import_module("obstore.fsspec")
    except ImportError:
        remedy = "pip install fsspec obstore"
    else:
        if protocol in obstore.SUPPORTED_PROTOCOLS:
            return obstore.FsspecStore
        remedy = str(lacking)  # which names the package
    raise ToolMissing(
        f"Stores at {protocol}:// need a package that is not installed. {remedy}"
    ) from None
