"""One file over HTTP: looked at before a byte is kept, hashed while it is read, resumed, verified.

Size and digest are known before the first request, so nothing that a server says is believed. What
has come lies under a name that is this process's own: two processes that both believe to hold the
lock of a content still never write to one file.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

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
from verse_data.files import is_leftover, process_name, storage_errors, sweep
from verse_data.locks import key_lock
from verse_data.progress import Advance
from verse_data.records.lock import LockedFile
from verse_data.releases.http import (
    CORRUPT,
    UNAVAILABLE,
    WRONG,
    Backoff,
    Clock,
    Fault,
    Gate,
    Http,
    Window,
    read_some,
    retried,
)
from verse_data.releases.store import ObjectStore
from verse_data.releases.urls import shown

if TYPE_CHECKING:
    import requests

log = logging.getLogger("verse_data.download")

_OSF_PER_HOUR: Final = 3600
_LOCK_SECONDS: Final = 3600.0
# Files in a row that the servers failed, after which no more are asked for.
_GIVE_UP_AFTER: Final = 4
_FORGOTTEN_SECONDS: Final = 30 * 24 * 3600
_HEADROOM: Final = 1.05
_BLOCK: Final = 1 << 20
_PEEK: Final = 512
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_HTML: Final = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)


def require_room(folder: Path, needed: int, *, what: str) -> None:
    """Raise DiskFull unless `needed` bytes and a little more are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if needed * _HEADROOM > free:
        raise DiskFull(
            f"{what}: {needed:,} bytes are needed in {folder}, and {free:,} are free. Nothing was "
            f"started. Free some room, or set VERSE_DATA_HOME to a larger disk, and run it again."
        )


class Downloads:
    """What the downloads of one call share: sessions, pace, and how the servers do."""

    def __init__(
        self,
        config: Config,
        store: ObjectStore,
        *,
        jobs: int,
        advance: Advance,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.config, self.store, self.advance = config, store, advance
        self.clock, self.backoff = clock or Clock(), backoff or Backoff()
        self.failures = 0
        window = Window(_OSF_PER_HOUR, 3600.0, self.clock)
        gates = () if config.offline else (Gate(self.clock, (window,)), Gate(self.clock))
        self._sessions = [Http(config, gate=gate, connections=jobs) for gate in gates]

    def close(self) -> None:
        """Close all connections."""
        for http in self._sessions:
            http.close()

    def http(self, url: str) -> Http:
        """Return the session for an address: that of OSF, or of others."""
        return self._sessions[not url.startswith(f"{self.config.osf_site}/")]

    def prepare(self, needed: int) -> None:
        """Make the folder for contents on their way, sweep it, and require room for `needed` bytes."""
        folder, month_ago = self.store.incoming, time.time() - _FORGOTTEN_SECONDS
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            for path in folder.iterdir():
                with suppress(FileNotFoundError):
                    if path.is_file() and path.stat().st_mtime < month_ago:
                        path.unlink()
        require_room(folder, needed, what="What is missing")


class Download:
    """The download of one file: what of it is here (`size`), and what it took."""

    def __init__(self, call: Downloads, file: LockedFile, urls: Sequence[str]) -> None:
        self.call, self.file, self.urls, self.url = call, file, urls, ""
        self.size = self.received = self.tries = 0

    def run(self) -> None:
        """Bring the file into the store, if another process has not; raise why it cannot be had."""
        call, file, store = self.call, self.file, self.call.store
        if not self.urls:
            raise ContentMissing(f"{file.size:,} bytes, and no address to fetch them from.")
        call.config.require_network()
        locks, stopped = store.incoming.parent / "locks", call.clock.stopped.is_set
        with (
            storage_errors(store.incoming),
            key_lock(locks, file.sha256, timeout=_LOCK_SECONDS, stop=stopped),
        ):
            if stopped():
                raise Truncated("interrupted. Run the same command again to go on.")
            if store.has(file):
                call.advance(file.size)
                return
            with self._partial() as path:
                require_room(path.parent, file.size - self.size, what="the rest")
                self._try_addresses()
                store.ingest(file, path)

    @contextmanager
    def _partial(self) -> Iterator[Path]:
        """Open a file of our own with what came before; leave it for others unless it was moved."""
        folder, sha256 = self.call.store.incoming, self.file.sha256
        folder.mkdir(parents=True, exist_ok=True)
        resting = folder / f"{sha256}.part"
        own = folder / f"{sha256}.{process_name()}@{secrets.token_hex(4)}.mine"
        for left in (resting, *_orphans(folder, sha256)):
            with suppress(FileNotFoundError):
                if left == resting:
                    left.rename(own)
                else:
                    # By a copy: should its process live after all, it writes to its own file.
                    shutil.copyfile(left, own)
                    left.unlink()
                break
        # Unbuffered, so that what has been counted is in the file.
        with closing(own.open("a+b", buffering=0)) as self._stream:
            self._digest = hashlib.sha256()
            self._stream.seek(0)
            while block := self._stream.read(_BLOCK):
                self._count(block)
            if self.size > self.file.size:
                self._restart()
            try:
                yield own
            finally:
                if self.size and own.exists():
                    own.rename(resting)
                else:
                    own.unlink(missing_ok=True)

    def _try_addresses(self) -> None:
        call, file = self.call, self.file
        for url in self.urls:
            self.url, http = url, call.http(url)
            if call.failures >= _GIVE_UP_AFTER:
                raise ServerUnavailable(
                    f"not asked for, since the server failed {call.failures} files before. Run the "
                    f"same command again later; what has come is kept."
                )
            try:
                retried(http, self._attempt, backoff=call.backoff, kept=lambda: self.size)
            except VerseDataError as error:
                log.warning("%s: %s", file.path, error)
                # Such a fault is likely to hit the next file as well.
                call.failures += isinstance(error, (ServerUnavailable, RateLimited, Truncated))
                if isinstance(error, StorageError) or url == self.urls[-1]:
                    raise
            else:
                call.failures = 0
                return

    def _attempt(self) -> None:
        """Ask once for what is missing, and verify the whole."""
        self.tries += 1
        try:
            if self.size < self.file.size:
                headers = {"Range": f"bytes={self.size}-"} if self.size else {}
                http = self.call.http(self.url)
                with http.open(self.url, headers=headers, size=self.file.size) as response:
                    self._receive(response)
            if (found := self._digest.hexdigest()) != self.file.sha256:
                text = f"sha256 {self.file.sha256[:12]} is locked, and {found[:12]} came"
                raise self._fault(DownloadCorrupt, f"{text} ({self.size:,} bytes)", CORRUPT)
        except Fault as fault:
            if fault.tries == CORRUPT:
                self._restart()
            raise

    def _receive(self, response: requests.Response) -> None:
        """Keep what comes, once it looks like what was asked for."""
        first = self._first_bytes(response)
        if response.status_code == 200:
            self._restart()
        self._keep(first)
        while block := self._read(response):
            self._keep(block)
            if self.call.clock.stopped.is_set():
                raise Fault(Truncated(f"{shown(self.url)}: interrupted."))
        if self.size < self.file.size:
            text = f"{shown(self.url)}: the transfer ended too soon."
            raise Fault(Truncated(text), UNAVAILABLE)

    def _first_bytes(self, response: requests.Response) -> bytes:
        """Return the first bytes of an answer that fits what is here; `Fault` if it does not."""
        headers, whole, file = response.headers, response.status_code == 200, self.file
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            why = f"sent as {encoding}, although the bytes themselves were asked for"
            raise self._fault(NotTheFile, why, WRONG)
        said = headers.get("Content-Range", "no range").strip()
        part = _RANGE.fullmatch(said)
        if not whole and (
            not part or int(part[1]) != self.size or part[2] not in {"*", str(file.size)}
        ):
            why = f"bytes from {self.size} on were asked for, and {said!r} was sent"
            raise self._fault(Truncated, why, CORRUPT)
        first = self._read(response, _PEEK) if whole else b""
        rest = file.size - (0 if whole else self.size)
        length = headers.get("Content-Length", "").strip()
        # A negative or garbled length says nothing; then the bytes are counted.
        offered = int(length) if length.isascii() and length.isdigit() else rest
        wrong = offered > rest or (offered < rest and whole)
        kind = headers.get("Content-Type", "").lower()
        page = _HTML.match(first) or ("html" in kind and (wrong or not whole))
        if page and not file.path.lower().endswith((".html", ".htm", ".xhtml")):
            said = f"content type {kind!r}, first bytes {first[:16]!r}"
            why = f"another page was sent in its place ({said})"
            raise self._fault(NotTheFile, why, WRONG)
        if wrong:
            why = f"{offered:,} bytes are offered, where {rest:,} are expected"
            raise self._fault(DownloadCorrupt, why, WRONG)
        return first

    def _read(self, response: requests.Response, most: int = _BLOCK >> 2) -> bytes:
        block = read_some(response, self.url, most)
        self.received += len(block)
        return block

    def _keep(self, block: bytes) -> None:
        if self.size + len(block) > self.file.size:
            why = f"more bytes came than the {self.file.size:,} that are locked"
            raise self._fault(DownloadCorrupt, why, CORRUPT)
        view = memoryview(block)
        try:
            while view:
                view = view[self._stream.write(view) :]
        except OSError:
            self._stream.truncate(self.size)
            raise
        self._count(block)

    def _count(self, block: bytes) -> None:
        self._digest.update(block)
        self.size += len(block)
        self.call.advance(len(block))

    def _restart(self) -> None:
        """Throw away what has come."""
        self._stream.truncate(0)
        self.call.advance(-self.size)
        self._digest, self.size = hashlib.sha256(), 0

    def _fault(self, error: type[VerseDataError], why: str, tries: int) -> Fault:
        return Fault(error(f"{shown(self.url)}: {why}. Nothing of it was kept."), tries)


def _orphans(folder: Path, sha256: str) -> list[Path]:
    """Return what processes that are gone left of a content, the longest first."""
    found = [
        (path.stat().st_size, path)
        for path in folder.glob(f"{sha256}.*.mine")
        if is_leftover(path, "@".join(path.name.split(".", 1)[1].split("@")[:2]))
    ]
    return [path for _, path in sorted(found, reverse=True)]
