"""A zip at an address, as a file: read by range requests, or downloaded if there are none."""

from __future__ import annotations

import bisect
import errno
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import ArchiveRefused, NotTheFile, SourceChanged, Truncated
from verse_data.progress import Advance
from verse_data.releases.http import UNAVAILABLE, WRONG, Fault, Http, check_length, read_some
from verse_data.releases.urls import redacted

if TYPE_CHECKING:
    import requests

_TAIL: Final = 256 << 10
"""Bytes at the end that are read in one request; the directory of 1,500 members fits."""


class NoRanges(NotTheFile):
    """The server does not support range requests."""


class RemoteZip:
    """The bytes of a zip at an address, requested when they are read. Safe for threads."""

    def __init__(self, url: str, http: Http) -> None:
        self.size, self.starts = 0, list[int]()
        self._url, self._name, self._http = url, redacted(url), http
        self._tail, self._etag = b"", ""
        self._request(0, 1)  # whose response states the size
        self._tail = self._request(max(0, self.size - _TAIL), self.size)

    def read(self, first: int, most: int) -> bytes:
        """Return at most `most` bytes from `first` on, up to the start of the next member."""
        if self.size - len(self._tail) <= first < self.size:
            return self._tail[first - self.size :][:most]
        after = bisect.bisect_right(self.starts, first)
        end = self.starts[after] if after < len(self.starts) else self.size
        return self._request(first, min(end, first + most)) if first < end else b""

    def _request(self, first: int, end: int) -> bytes:
        """Return exactly these bytes; an error if the archive is not that of the first response."""

        def once() -> bytes:
            block, span = bytearray(), f"{first}-{end - 1}"
            with self._http.open(self._url, span=span, size=end - first) as response:
                self._check(response, first)
                while piece := read_some(response, self._url, end - first - len(block)):
                    block += piece
            if len(block) < end - first:
                raise Fault(Truncated(f"{self._name}: the transfer ended too soon."), UNAVAILABLE)
            return bytes(block)

        return self._http.retry(once)

    def _check(self, response: requests.Response, first: int) -> None:
        part = response.headers.get("Content-Range", "").strip()
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", part)
        if response.status_code != 206 or place is None or int(place[1]) != first:
            raise NoRanges(f"{self._name}: the server does not send parts of the archive.")
        facts = int(place[2]), response.headers.get("ETag", "")
        if not self.size:
            self.size, self._etag = facts
        if facts != (self.size, self._etag):
            raise SourceChanged(f"{self._name}: it changed while it was read. Run it again.")


class RemoteFile(io.RawIOBase):
    """A remote zip as a file."""

    def __init__(self, remote: RemoteZip) -> None:
        self._remote, self._at = remote, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; nothing is requested before it is read."""
        position = offset + (0, self._at, self._remote.size)[whence]
        if position < 0:
            raise OSError(errno.EINVAL, "a position before the archive")  # as a file does
        self._at = position
        return position

    def readinto(self, buffer: Any) -> int:
        """Read at least a byte; none at the end."""
        block = self._remote.read(self._at, len(buffer))
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)


def download_zip(url: str, http: Http, target: Path, *, most: int, advance: Advance) -> None:
    """Write the whole archive, of at most `most` bytes, to `target`; members are checked later."""

    def once() -> None:
        size = 0
        with http.open(url, size=most) as response, target.open("wb") as stream:
            while block := read_some(response, url):
                if not size and not block.startswith(b"PK"):
                    text = f"{redacted(url)}: no zip was sent, first bytes {block[:16]!r}."
                    raise Fault(NotTheFile(text), WRONG)
                size += stream.write(block)
                advance(len(block))
                if size > most:
                    raise ArchiveRefused(
                        f"{redacted(url)}: more than {most:,} bytes, which is beyond what the "
                        f"release needs. Nothing was kept."
                    )
        check_length(response, url, size)

    http.retry(once)
