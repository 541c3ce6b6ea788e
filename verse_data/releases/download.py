"""One file over HTTP: checked before a byte is kept, hashed while it is read, resumed, verified.

Size and digest are known before the first request, so nothing that a server says is trusted. The
partial file has a name of this process's own: two processes that both seem to hold the lock of a
content still never write to one file.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from verse_data.config import Config
from verse_data.errors import (
    ContentMissing,
    DiskFull,
    DownloadCorrupt,
    NotTheFile,
    RateLimited,
    ServerUnavailable,
    StorageError,
    Truncated,
    VerseDataError,
)
from verse_data.files import abandoned, claimed, remove, storage_errors
from verse_data.locks import key_lock
from verse_data.progress import Advance
from verse_data.records.lock import LockedFile
from verse_data.releases.annex import ObjectStore
from verse_data.releases.http import (
    CORRUPT,
    HOURLY,
    UNAVAILABLE,
    WRONG,
    Backoff,
    Clock,
    Fault,
    Http,
    drain,
    read_some,
)
from verse_data.releases.urls import redacted, split_url

if TYPE_CHECKING:
    import requests

_log = logging.getLogger(__name__)

_LOCK_SECONDS: Final = 3600.0
# Consecutive files that a server failed to send, after which no more are requested from it.
_GIVE_UP_AFTER: Final = 4
_ABANDONED_SECONDS: Final = 30 * 24 * 3600
_HEADROOM: Final = 1.05
_BLOCK: Final = 1 << 20
_PEEK: Final = 512
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_HTML: Final = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)
_Result = TypeVar("_Result")


class Servers:
    """The sessions of one call, and each server's consecutive failures. Safe for threads."""

    def __init__(
        self, config: Config, *, clock: Clock | None = None, backoff: Backoff | None = None
    ) -> None:
        self.config, self.clock = config, clock or Clock()
        self._failures: Counter[str] = Counter()
        self._sessions = [
            Http(config, clock=self.clock, limits=limits, backoff=backoff)
            for limits in ([HOURLY], [])
            if not config.offline
        ]

    def close(self) -> None:
        """End all waits for servers, and close all connections."""
        self.clock.wake()
        for http in self._sessions:
            http.close()

    def http(self, url: str) -> Http:
        """Return the session for an address: that for OSF, or that for all others."""
        return self._sessions[not url.startswith(f"{self.config.osf_site}/")]

    def ask(
        self, url: str, once: Callable[[], _Result], *, kept: Callable[[], int] = int
    ) -> _Result:
        """Call `once` with retries, unless the server of `url` failed for several files before."""
        host = split_url(url).netloc
        if self._failures[host] >= _GIVE_UP_AFTER:
            raise ServerUnavailable(
                f"{redacted(url)}: not asked for, since this server failed {_GIVE_UP_AFTER} files before. "
                f"Run the same command again later; what has come is kept."
            )
        try:
            result = self.http(url).retry(once, kept=kept)
        except (ServerUnavailable, RateLimited, Truncated):
            self._failures[host] += 1
            raise
        self._failures[host] = 0
        return result

    def size_offered(self, url: str) -> int | None:
        """Request the first byte of a file; return the size that the server states, if it does."""

        def once() -> int | None:
            with self.http(url).open(url, span="0-0") as response:
                whole = response.status_code == 200
                text = response.headers.get("Content-Length" if whole else "Content-Range", "")
                if not whole:
                    drain(response)
            found = re.fullmatch(r"(?:bytes 0-0/)?([0-9]+)", text.strip())
            return int(found[1]) if found else None

        return self.ask(url, once)


def require_room(folder: Path, needed: int, *, what: str) -> None:
    """Raise DiskFull unless `needed` bytes and a little more are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed * _HEADROOM > free:
        raise DiskFull(
            f"{what}: {needed:,} bytes are needed in {folder}, and {free:,} are free. Nothing was "
            f"started. Free some room, or set VERSE_DATA_HOME to a larger disk, and run it again."
        )


def prepare(folder: Path, needed: int) -> None:
    """Make the folder for partial files, remove old ones, and require room for `needed` bytes."""
    month_ago = time.time() - _ABANDONED_SECONDS
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < month_ago:
                    with abandoned(path) as is_abandoned:
                        if is_abandoned:
                            remove(path)
    require_room(folder, needed, what="What is missing")


class Download:
    """The download of one file: bytes that are here (`size`), bytes `received`, and `tries`."""

    def __init__(
        self,
        servers: Servers,
        store: ObjectStore,
        file: LockedFile,
        urls: Sequence[str],
        advance: Advance,
    ) -> None:
        self._servers, self._store, self._file, self._urls = servers, store, file, urls
        self._advance, self.url = advance, ""
        self.size = self.received = self.tries = 0

    def run(self) -> None:
        """Bring the file into the store, unless another process has; raise why if that fails."""
        file, store = self._file, self._store
        if not self._urls:
            raise ContentMissing(f"{file.size:,} bytes, and no address to fetch them from.")
        self._servers.config.require_network()
        locks, stopped = store.incoming.parent / "locks", self._servers.clock.stopped.is_set
        with (
            storage_errors(store.incoming),
            key_lock(locks, file.sha256, timeout=_LOCK_SECONDS, stop=stopped),
        ):
            if stopped():
                raise Truncated("interrupted. Run the same command again to go on.")
            if store.has(file):
                self._advance(file.size)
                return
            with self._partial() as path:
                require_room(path.parent, file.size - self.size, what="the rest")
                self._try_addresses()
                store.ingest(file, path)

    @contextmanager
    def _partial(self) -> Iterator[Path]:
        """Open a file of our own with earlier bytes; leave it for later calls if not finished."""
        folder, sha256 = self._store.incoming, self._file.sha256
        folder.mkdir(parents=True, exist_ok=True)
        shared = folder / f"{sha256}.part"
        with claimed(folder / f".part-{sha256}-") as place:
            own = place / shared.name
            with suppress(FileNotFoundError):
                shared.rename(own)
            if not own.exists():
                _take_over(folder, own)
            # Unbuffered, so that bytes that are counted are in the file.
            with closing(own.open("a+b", buffering=0)) as self._stream:
                self._digest = hashlib.sha256()
                self._stream.seek(0)
                while block := self._stream.read(_BLOCK):
                    self._count(block)
                if self.size > self._file.size:
                    self._restart()
                try:
                    yield own
                finally:
                    if self.size and own.exists():
                        own.rename(shared)

    def _try_addresses(self) -> None:
        """Try one address after the other; each continues what the one before has sent."""
        for url in self._urls:
            self.url = url
            try:
                self._servers.ask(url, self._attempt, kept=lambda: self.size)
            except VerseDataError as error:
                _log.warning("%s: %s", self._file.path, error)
                if isinstance(error, StorageError) or url == self._urls[-1]:
                    raise
            else:
                return

    def _attempt(self) -> None:
        """Request the missing bytes once, and verify the whole file."""
        self.tries += 1
        try:
            if self.size < self._file.size:
                span, http = f"{self.size}-" if self.size else "", self._servers.http(self.url)
                with http.open(self.url, span=span, size=self._file.size) as response:
                    self._receive(response)
            if (found := self._digest.hexdigest()) != self._file.sha256:
                why = f"sha256 {self._file.sha256[:12]} is locked, and {found[:12]} came ({self.size:,} bytes)"
                raise self._fault(DownloadCorrupt, why, CORRUPT)
        except Fault as fault:
            if fault.tries == CORRUPT:
                self._restart()
            raise

    def _receive(self, response: requests.Response) -> None:
        """Keep the body of a response that passes `_check`."""
        whole = response.status_code == 200
        first = self._read(response, _PEEK) if whole else b""
        self._check(response, first, whole=whole)
        if whole:
            self._restart()
        self._keep(first)
        while block := self._read(response):
            self._keep(block)
            if self._servers.clock.stopped.is_set():
                raise Truncated(f"{redacted(self.url)}: interrupted.")
        if self.size < self._file.size:
            text = f"{redacted(self.url)}: the transfer ended too soon."
            raise Fault(Truncated(text), UNAVAILABLE)

    def _check(self, response: requests.Response, first: bytes, *, whole: bool) -> None:
        """Raise the `Fault` of a response that cannot be the file, or does not fit our bytes."""
        length, encoding, span, kind = (
            response.headers.get(f"Content-{name}", "").strip().lower()
            for name in ("Length", "Encoding", "Range", "Type")
        )
        file = self._file
        part, rest = _RANGE.fullmatch(span), file.size - (0 if whole else self.size)
        fits = part and int(part[1]) == self.size and part[2] in {"*", str(file.size)}
        # A negative or garbled length is ignored; then the bytes are counted.
        offered = int(length) if length.isascii() and length.isdigit() else rest
        wrong = offered > rest or (offered < rest and whole)
        page = _HTML.match(first) or ("html" in kind and wrong)
        page_is_file = file.path.lower().endswith((".html", ".htm", ".xhtml"))
        if encoding not in {"", "identity"}:
            why = f"sent as {encoding}, although the bytes themselves were asked for"
            raise self._fault(NotTheFile, why, WRONG)
        if not (whole or fits):
            why = f"bytes from {self.size} on were asked for, and {span!r} was sent"
            raise self._fault(Truncated, why, CORRUPT)
        if page and not page_is_file:
            why = f"another page was sent in its place ({kind!r}, first bytes {first[:16]!r})"
            raise self._fault(NotTheFile, why, WRONG)
        if wrong:
            why = f"{offered:,} bytes are offered, where {rest:,} are expected"
            raise self._fault(DownloadCorrupt, why, WRONG)

    def _read(self, response: requests.Response, most: int = _BLOCK >> 2) -> bytes:
        block = read_some(response, self.url, most)
        self.received += len(block)
        return block

    def _keep(self, block: bytes) -> None:
        if self.size + len(block) > self._file.size:
            why = f"more bytes came than the {self._file.size:,} that are locked"
            raise self._fault(DownloadCorrupt, why, CORRUPT)
        view = memoryview(block)
        while view:
            view = view[self._stream.write(view) :]
        self._count(block)

    def _count(self, block: bytes) -> None:
        self._digest.update(block)
        self.size += len(block)
        self._advance(len(block))

    def _restart(self) -> None:
        """Discard all bytes received so far."""
        self._stream.truncate(0)
        self._advance(-self.size)
        self._digest, self.size = hashlib.sha256(), 0

    def _fault(self, error: type[VerseDataError], why: str, tries: int) -> Fault:
        return Fault(error(f"{redacted(self.url)}: {why}. Nothing of it was kept."), tries)


def _take_over(folder: Path, own: Path) -> None:
    """Make `own` the partial file of a process that is gone, if one has left it."""
    for place in folder.glob(f".part-{own.stem}-*"):
        with abandoned(place) as is_abandoned:
            if is_abandoned and not own.exists():
                with suppress(FileNotFoundError):
                    (place / own.name).rename(own)
                remove(place)
