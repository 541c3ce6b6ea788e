"""The files below an fsspec URL: a few ways to read and write them, and errors of ours alone.

A folder of this machine, as a path or a ``file://`` URL, is one of the file systems: it needs no
network. What is written there is renamed into place, as an object store does by itself.
"""

from __future__ import annotations

import importlib
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from verse_data.errors import (
    ServerUnavailable,
    StorageError,
    ToolMissing,
    UsageError,
    VerseDataError,
)
from verse_data.publishing import staging, sync, write_file

_BLOCK: Final = 4 << 20
_ERROR_TEXT: Final = 200
"""Characters of a file system's own error that are shown: some add pages of debugging."""


def local_folder(url: str) -> Path | None:
    """Return the folder of this machine that `url` names, or None if it needs the network.

    Raises
    ------
    UsageError
        If its path is relative: it would be another folder wherever a process is started.
    """
    scheme, divider, path = url.partition("://")
    if divider and scheme not in {"file", "local"}:
        return None
    folder = Path(path.removeprefix("localhost") if divider else url).expanduser()
    if not folder.is_absolute():
        message = (
            f"VERSE_DATA_STORES={shown(url)} is no whole path of a folder. Give it from the root "
            f"on, such as /mnt/lab/stores or file:///mnt/lab/stores."
        )
        raise UsageError(message)
    return folder


def shown(url: str) -> str:
    """Return `url` as messages show it: without user name, password and query."""
    parts = urlsplit(url)
    if not parts.scheme:
        return url.rstrip("/")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def check_root(url: str) -> None:
    """Check that stores can be kept at `url`, as far as this machine tells; asks no network.

    Raises
    ------
    StorageError
        If it is a folder that is not there: it is never made, as a disk may not be mounted.
    ToolMissing
        If a package for this kind of URL is not installed.
    UsageError
        If there is no such kind, or machines cannot share it.
    """
    folder = local_folder(url)
    if folder is not None:
        if folder.is_dir():
            return
        message = (
            f"The stores that machines share cannot be reached: VERSE_DATA_STORES names {folder}, "
            f"and there is no such folder. Mount the disk that holds it, or make it: "
            f"mkdir -p {shlex.quote(str(folder))}"
        )
        raise StorageError(message)
    protocol = url.partition("://")[0]
    try:
        from fsspec import get_filesystem_class

        shared = protocol != "memory"  # which is one process's own
        get_filesystem_class(protocol)
    except ImportError as error:
        _obstore(protocol, error)
    except ValueError:
        shared = False
    if not shared:
        message = (
            f"VERSE_DATA_STORES names {protocol}://, where machines can share nothing. Set it to a "
            f"folder, or to a URL such as s3://bucket/prefix."
        )
        raise UsageError(message)


class UrlFiles:
    """Files by their key below a root; connected when it is made.

    Parameters
    ----------
    url : str
        The root, in fsspec's words.
    options : mapping
        Passed to the file system.

    Raises
    ------
    UsageError, ToolMissing, StorageError
        As :func:`check_root` does.
    ServerUnavailable
        Here and in every method, where the file system fails. A file that does not exist is
        ``FileNotFoundError``.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.shown = shown(url)
        folder = local_folder(url)
        self._is_here = folder is not None
        with self._talking():
            check_root(url)
            self._files, self._root = _file_system(str(folder or url), options)

    def exists(self, key: str) -> bool:
        """Return whether there is such a file."""
        with self._talking():
            return bool(self._files.exists(self._at(key)))

    def size(self, key: str) -> int:
        """Return the bytes of a file."""
        with self._talking():
            return int(self._files.size(self._at(key)))

    def read(self, key: str) -> bytes:
        """Return the content of a small file."""
        with self._talking():
            content: bytes = self._files.cat_file(self._at(key))
        return content

    def blocks(self, key: str, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes of a file, in pieces."""
        for begin in range(0, size, _BLOCK):
            with self._talking():
                end = min(begin + _BLOCK, size)
                block: bytes = self._files.cat_file(self._at(key), start=begin, end=end)
            yield block

    def put(self, key: str, path: Path) -> None:
        """Copy the file at `path` to `key`; nobody sees a part of it."""
        with self._talking():
            if not self._is_here:
                self._files.makedirs(self._at(key).rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(path), self._at(key))
                return
            final = Path(self._at(key))
            with staging(final) as staged:
                shutil.copyfile(path, staged)
                sync(staged)
                staged.replace(final)

    def write(self, key: str, content: bytes) -> None:
        """Write a small file at `key`; nobody sees a part of it."""
        with self._talking():
            if self._is_here:
                write_file(Path(self._at(key)), content)
            else:
                self._files.pipe_file(self._at(key), content)

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

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
                f"{self.shown} could not be used: {type(error).__name__}: {first}. Check the "
                f"address, the credentials and the network, and run it again."
            )
            raise ServerUnavailable(message) from error


def _file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the fsspec file system of `url`, and the root in its own words."""
    protocol, _, path = url.partition("://")
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(url, **options)
    except ImportError as error:
        files, root = _obstore(protocol, error)(protocol, **options), path
    return files, str(root).rstrip("/")


def _obstore(protocol: str, lacking: ImportError) -> Any:
    """Return the class of obstore that stands in for a package which fsspec is `lacking`."""
    try:
        # Lighter than s3fs, which pins botocore; a name only, as obstore is optional.
        obstore = importlib.import_module("obstore.fsspec")
    except ImportError:
        remedy = "pip install fsspec obstore"
    else:
        if protocol in obstore.SUPPORTED_PROTOCOLS:
            return obstore.FsspecStore
        remedy = str(lacking)  # which names the package
    message = f"Stores at {protocol}:// need a package that is not installed. {remedy}"
    raise ToolMissing(message) from None
