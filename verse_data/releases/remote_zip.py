"""A zip at an address, as a file: read by ranges, or downloaded whole where there are none."""

from __future__ import annotations

import bisect
import errno
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from verse_data.config import Config
from verse_data.errors import ArchiveRefused, NotTheFile, SourceChanged, Truncated
from verse_data.progress import Advance
from verse_data.releases.http import (
    STALLED,
    UNAVAILABLE,
    WRONG,
    Backoff,
    Clock,
    Fault,
    Gate,
    Http,
    SystemClock,
    read_some,
    retried,
)
from verse_data.releases.urls import shown

if TYPE_CHECKING:
    import requests

_TAIL: Final = 256 << 10
"""Bytes at the end that are read at once; the directory of 1,500 members fits."""


class NoRanges(NotTheFile):
    """A server gives an archive only as a whole."""


class RemoteZip:
    """A zip at an address, by ranges or whole. Safe for threads."""

    def __init__(
        self, url: str, config: Config, clock: Clock | None, backoff: Backoff | None
    ) -> None:
        self.name, self.size, self.starts = shown(url), 0, list[int]()
        self._url, self._tail, self._backoff = url, b"", backoff or Backoff()
        self._etag: str | None = None
        self._http = Http(config, gate=Gate(clock or SystemClock()), named=(url,))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def learn(self) -> None:
        """Read the first byte, whose answer says how many there are, and the tail."""
        self._ask(0, 1)
        self._tail = self._ask(max(0, self.size - _TAIL), self.size)

    def read(self, first: int, most: int) -> bytes:
        """Return some bytes from `first` on: none beyond where the next member starts."""
        if self.size - len(self._tail) <= first < self.size:
            return self._tail[first - self.size :][:most]
        after = bisect.bisect_right(self.starts, first)
        end = self.starts[after] if after < len(self.starts) else self.size
        return self._ask(first, min(end, first + most)) if first < end else b""

    def _ask(self, first: int, end: int) -> bytes:
        """Return exactly these bytes; a broken connection is taken up again where it broke."""
        block = bytearray()
        retried(self._http, lambda: self._ask_for_rest(first, end, block), backoff=self._backoff)
        return bytes(block)

    def _ask_for_rest(self, first: int, end: int, block: bytearray) -> None:
        first += len(block)
        headers = {"Range": f"bytes={first}-{end - 1}"}
        with self._http.open(self._url, headers=headers, size=end - first) as response:
            self._recognise(response, first)
            while first < end and (piece := read_some(response, self._url, end - first)):
                block += piece
                first += len(piece)
        if first < end:
            raise Fault(Truncated(f"{self.name}: the transfer ended too soon."), UNAVAILABLE)

    def _recognise(self, response: requests.Response, first: int) -> None:
        """Learn size and ETag of the archive from its first answer; refuse another archive."""
        part = response.headers.get("Content-Range", "").strip()
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", part)
        if response.status_code != 206 or place is None or int(place[1]) != first:
            raise Fault(NoRanges(f"{self.name}: the server gives no parts of the archive."))
        facts = int(place[2]), response.headers.get("ETag")
        if not self.size:
            self.size, self._etag = facts
        if facts != (self.size, self._etag):
            raise Fault(SourceChanged(f"{self.name}: it changed while it was read. Run it again."))

    def download(self, target: Path, *, most: int, advance: Advance) -> None:
        """Write all of the archive, at most so many bytes, to `target`; its members are checked later."""
        retried(self._http, lambda: self._whole(target, most, advance), backoff=self._backoff)

    def _whole(self, target: Path, most: int, advance: Advance) -> None:
        size = 0
        with self._http.open(self._url, size=most) as response, target.open("wb") as stream:
            length = response.headers.get("Content-Length", "")
            while block := read_some(response, self._url):
                if not size and not block.startswith(b"PK"):
                    text = f"{self.name}: no zip was sent, first bytes {block[:16]!r}. Nothing was kept."
                    raise Fault(NotTheFile(text), WRONG)
                size += len(block)
                if size > most:
                    raise ArchiveRefused(
                        f"{self.name}: more than {most:,} bytes, which is beyond what the release "
                        f"needs. Nothing was kept."
                    )
                stream.write(block)
                advance(len(block))
        if length.isdigit() and size != int(length):
            raise Fault(Truncated(f"{self.name}: {size:,} of {length} bytes came."), STALLED)


class RemoteZipFile(io.RawIOBase):
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
        """Go to another place; nothing is asked for before it is read."""
        place = offset + (0, self._at, self._remote.size)[whence]
        if place < 0:
            raise OSError(errno.EINVAL, "a place before the archive")  # as a file does
        self._at = place
        return place

    def readinto(self, buffer: Any) -> int:
        """Read at least a byte; none at the end."""
        block = self._remote.read(self._at, len(buffer))
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)
