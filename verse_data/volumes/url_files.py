"""The files below an fsspec URL: a few ways to read and write them, and errors of ours alone.

A folder of this machine, as a path or a ``file://`` URL, is one of the file systems: it needs no
network. What is written there is renamed into place, as an object store does by itself.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from verse_data.errors import ServerUnavailable, ToolMissing, VerseDataError
from verse_data.publishing import staging, sync, write_file

_BLOCK: Final = 4 << 20
_ERROR_TEXT: Final = 200
"""Characters of a file system's own error that are shown: some add pages of debugging."""


def local_folder(url: str) -> Path | None:
    """Return the folder of this machine that `url` names, or None if it needs the network."""
    scheme, divider, path = url.partition("://")
    if divider and scheme not in {"file", "local"}:
        return None
    return Path(path if divider else url).expanduser().absolute()


def shown(url: str) -> str:
    """Return `url` as messages show it: without user name, password and query."""
    parts = urlsplit(url)
    if not parts.scheme:
        return url.rstrip("/")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


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
    ToolMissing
        If a package for this kind of URL is not installed.
    ServerUnavailable
        Here and in every method, where the file system fails. A file that does not exist is
        ``FileNotFoundError``.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.shown = shown(url)
        with self._talking():
            self._files, self._root = _file_system(url, options)
        self._is_here = local_folder(url) is not None

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
        files, root = store(protocol, **options), path
    return files, str(root).rstrip("/")
