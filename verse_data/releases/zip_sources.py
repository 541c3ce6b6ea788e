"""Where a zip's bytes come from: a file here, or a server that gives ranges."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from verse_data.config import Config
from verse_data.errors import ArchiveRefused, NotTheFile, SourceChanged, Truncated
from verse_data.progress import Advance
from verse_data.publishing import storage_errors
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
    pause,
    read_some,
    retried,
)
from verse_data.releases.urls import shown
from verse_data.releases.zip_end import Source

_BLOCK: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class NoRanges(NotTheFile):
    """A server gives an archive only as a whole."""


class FileSource:
    """A zip on disk. Safe for threads.

    Parameters
    ----------
    path : Path
        The archive; it is only read.
    name : str, optional
        What messages call it, if not by its path.
    """

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        self.name = name or str(path)
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def read(self, first: int, length: int) -> bytes:
        """Return exactly `length` bytes from `first` on."""
        return b"".join(self.stream(first, length))

    def stream(self, first: int, length: int) -> Iterator[bytes]:
        """Yield exactly `length` bytes from `first` on, piece by piece."""
        end = first + length
        while first < end:
            piece = os.pread(self._descriptor, min(_BLOCK, end - first), first)
            if not piece:
                raise ArchiveRefused(f"{self.name}: it ends before byte {end:,}: it was cut.")
            yield piece
            first += len(piece)


class HttpSource:
    """A zip on a server, read by ranges. Safe for threads.

    Parameters
    ----------
    url : str
        Address, as the user typed it.
    config : Config
        Whether the network may be used.

    Raises
    ------
    NoRanges
        If the server gives the archive only as a whole.
    """

    def __init__(
        self,
        url: str,
        *,
        config: Config,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = shown(url)
        self.size = 0
        self._url = url
        self._backoff = backoff or Backoff()
        self._etag: str | None = None
        self._http = Http(config, gate=Gate(clock or SystemClock()), named=(url,))
        try:
            self._learn()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _learn(self) -> None:
        """Ask for the first byte, and learn from the answer how many there are."""
        for _ in self._pieces(0, 1):
            pass

    def read(self, first: int, length: int) -> bytes:
        """Return exactly `length` bytes from `first` on."""
        return b"".join(self.stream(first, length))

    def stream(self, first: int, length: int) -> Iterator[bytes]:
        """Yield exactly `length` bytes from `first` on; a broken connection is taken up again."""
        yield from self._pieces(first, length)

    def _pieces(self, first: int, length: int) -> Iterator[bytes]:
        end, tried, mark = first + length, 0, first
        while first < end:
            tried += 1
            try:
                for piece in self._ask(first, end):
                    first += len(piece)
                    yield piece
            except Fault as fault:
                # Tries count anew once a fair piece has come, so a long member survives many cuts.
                tried = 1 if first - mark >= _BLOCK else tried
                mark = first
                pause(self._http, fault, tried, self._backoff)

    def _ask(self, first: int, end: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={first}-{end - 1}"}
        with self._http.open(self._url, headers=headers, size=end - first) as response:
            told = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            if response.status_code != 206 or told is None or int(told[1]) != first:
                raise Fault(NoRanges(f"{self.name}: the server gives no parts of the archive."))
            self._recognise(int(told[3]), response.headers.get("ETag"))
            while first < end and (
                piece := read_some(response, self._url, min(_BLOCK, end - first))
            ):
                first += len(piece)
                yield piece
        if first < end:
            raise Fault(Truncated(f"{self.name}: the transfer ended too soon."), UNAVAILABLE)

    def _recognise(self, size: int, etag: str | None) -> None:
        if not self.size:
            self.size, self._etag = size, etag
        if (size, etag) != (self.size, self._etag):
            raise Fault(SourceChanged(f"{self.name}: it changed while it was read. Run it again."))


@contextmanager
def open_source(
    source: Path | str,
    *,
    config: Config,
    name: str | None = None,
    clock: Clock | None = None,
    backoff: Backoff | None = None,
) -> Iterator[Source]:
    """Give the bytes of a zip, by path or by address."""
    if isinstance(source, str) and re.match(r"https?://", source):
        opened: FileSource | HttpSource = HttpSource(
            source, config=config, clock=clock, backoff=backoff
        )
    else:
        opened = FileSource(Path(source), name=name)
    try:
        yield opened
    finally:
        opened.close()


def download_whole(
    url: str,
    target: Path,
    *,
    config: Config,
    most: int,
    advance: Advance,
    clock: Clock | None = None,
    backoff: Backoff | None = None,
) -> None:
    """Write all of an archive to `target`, for servers that give no ranges, such as OSF's folder zips.

    Its bytes are not known before; its members are checked one by one afterwards.

    Raises
    ------
    ArchiveRefused
        If it is longer than `most` bytes.
    NetworkError
        If it cannot be had.
    """
    http = Http(config, gate=Gate(clock or SystemClock()), named=(url,))

    def once() -> None:
        _download_once(http, url, target, most=most, advance=advance)

    with closing(http):
        retried(http, once, backoff=backoff or Backoff())


def _download_once(http: Http, url: str, target: Path, *, most: int, advance: Advance) -> None:
    size = 0
    with http.open(url, size=most) as response, storage_errors(target), target.open("wb") as stream:
        length = response.headers.get("Content-Length", "")
        while block := read_some(response, url):
            if not size and not block.startswith(b"PK"):
                text = (
                    f"{shown(url)}: no zip was sent, first bytes {block[:16]!r}. Nothing was kept."
                )
                raise Fault(NotTheFile(text), WRONG)
            size += len(block)
            if size > most:
                raise ArchiveRefused(
                    f"{shown(url)}: more than {most:,} bytes, which is beyond what the release needs. "
                    f"Nothing was kept."
                )
            stream.write(block)
            advance(len(block))
    if length.isdigit() and size != int(length):
        text = f"{shown(url)}: {size:,} of {length} bytes came."
        raise Fault(Truncated(text), STALLED)
