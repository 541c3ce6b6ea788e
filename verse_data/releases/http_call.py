"""One call of the HTTP engine: what its threads share, and the way of one file through it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from verse_data.config import Config
from verse_data.errors import (
    DownloadCorrupt,
    NotTheFile,
    RateLimited,
    ServerUnavailable,
    SourceChanged,
    StorageError,
    Truncated,
    VerseDataError,
)
from verse_data.progress import Advance
from verse_data.records.lock import LockedFile
from verse_data.releases.addresses import file_urls
from verse_data.releases.answers import STALLED, Fault
from verse_data.releases.fetch import WEB, FetchResult, no_address
from verse_data.releases.http import Http
from verse_data.releases.http_body import wait, with_tries
from verse_data.releases.keylock import key_lock
from verse_data.releases.pacing import LONGEST_WAIT, Backoff, Clock
from verse_data.releases.partials import Partial, forget_partial, partial
from verse_data.releases.reach import shown
from verse_data.releases.store import ObjectStore
from verse_data.releases.transfer import Transfer

_LOCK_SECONDS: Final = 3600.0
_PROBE_AFTER: Final = 3
"""Files that failed for good, in a row, after which the others are tried twice only."""
_GIVE_UP_AFTER: Final = 8
"""And after which no more are asked for."""

_ADOPT: Final = "If you have the file from elsewhere: verse-data adopt RELEASE PATH"
"""Whoever knows the dataset puts its name in."""


@dataclass
class Call:
    """One call of fetch: what its threads share."""

    config: Config
    store: ObjectStore
    osf: Http
    other: Http
    backoff: Backoff
    advance: Advance
    stop: threading.Event = field(default_factory=threading.Event)
    given_up: int = 0

    @property
    def clock(self) -> Clock:
        """Where this call takes its time from."""
        return self.osf.gate.clock

    def end(self) -> None:
        """Begin nothing new, and wait for no server; what runs keeps what has come."""
        self.stop.set()
        self.clock.wake()

    def one(self, file: LockedFile) -> FetchResult:
        """Fetch one file; every error of ours becomes a result."""
        start = self.clock.monotonic()
        attempts = _Attempts()
        try:
            self._one(file, attempts)
        except VerseDataError as error:
            result = FetchResult(file=file, ok=False, error=str(error), error_class=type(error))
        except OSError as error:
            text = f"{file.path}: {error}. Check the disk and run the same command again."
            result = FetchResult(file=file, ok=False, error=text, error_class=StorageError)
        else:
            result = FetchResult(file=file, ok=True)
        return replace(
            result,
            bytes=attempts.bytes,
            source=WEB if attempts.url else None,
            url=shown(attempts.url) if attempts.url else None,
            waited=result.ok and not attempts.made,
            tries=attempts.made,
            seconds=self.clock.monotonic() - start,
        )

    def _one(self, file: LockedFile, attempts: _Attempts) -> None:
        if self.store.has(file):
            forget_partial(self.store.incoming, file)
            return
        locks = self.store.incoming.parent / "locks"
        with key_lock(locks, file.sha256, timeout=_LOCK_SECONDS, stop=self.stop.is_set):
            if self.stop.is_set():
                raise Truncated(f"{file.path}: interrupted. Run the same command again to go on.")
            if self.store.has(file):
                self.advance(file.size)
                return
            with partial(self.store.incoming, file) as into:
                self.advance(into.size)
                self._download(file, into, attempts)
                self.store.ingest(file, into.path)

    def _download(self, file: LockedFile, into: Partial, attempts: _Attempts) -> None:
        urls = file_urls(file, osf_site=self.config.osf_site)
        if not urls:
            raise no_address(file)
        for number, url in enumerate(urls, start=1):
            http = self.osf if url.startswith(f"{self.config.osf_site}/") else self.other
            transfer = Transfer(http, file, into, self.advance, self.stop.is_set)
            try:
                self._try(transfer, url, attempts)
            except VerseDataError as error:
                if isinstance(error, StorageError) or number == len(urls):
                    raise
            else:
                self.given_up = 0
                return

    def _try(self, transfer: Transfer, url: str, attempts: _Attempts) -> None:
        """Ask one address until it gives the file or must be given up."""
        attempts.url = url
        seen: Counter[str] = Counter()
        while True:
            self._require_hope(transfer.file)
            before, received = transfer.into.size, transfer.received
            attempts.made += 1
            try:
                transfer.attempt(url)
            except Fault as fault:
                if transfer.into.size > before and fault.traits != STALLED:
                    seen.clear()
                seen[fault.traits.name] += 1
                if (
                    seen[fault.traits.name] >= fault.traits.tries
                    or attempts.made >= self._budget()
                    or (fault.after or 0.0) > LONGEST_WAIT
                    or self.stop.is_set()
                ):
                    if _is_of_the_server(fault):
                        self.given_up += 1
                    raise _told(fault.error, transfer, attempts.made) from fault
                wait(transfer.http, fault, self.backoff.wait(seen.total()))
            else:
                return
            finally:
                attempts.bytes += transfer.received - received

    def _budget(self) -> int:
        """Return how many tries a file has; after files that failed for good, others only probe."""
        return self.backoff.tries if self.given_up < _PROBE_AFTER else 2

    def _require_hope(self, file: LockedFile) -> None:
        """Stop asking a server that has failed file after file: the rest would fail the same way."""
        if self.given_up >= _GIVE_UP_AFTER:
            raise ServerUnavailable(
                f"{file.path}: not asked for, since the server failed {self.given_up} files before. "
                f"Run the same command again later; what has come is kept."
            )


def _is_of_the_server(fault: Fault) -> bool:
    """Whether a fault is likely to hit the next file as well."""
    kinds = (ServerUnavailable, RateLimited)
    return isinstance(fault.error, kinds) or fault.traits == STALLED


def _told(error: VerseDataError, transfer: Transfer, tried: int) -> VerseDataError:
    """Return `error` with the file's name, the tries, and what has been kept."""
    file, kept = transfer.file, transfer.into.size
    text = str(error) if str(error).startswith(file.path) else f"{file.path}: {error}"
    if kept:
        text += f" {kept:,} of {file.size:,} bytes are kept; the same command goes on from there."
    told = with_tries(type(error)(text), tried)
    if isinstance(error, (SourceChanged, DownloadCorrupt, NotTheFile)):
        return type(error)(f"{told} {_ADOPT}")
    return told


class _Attempts:
    """What the attempts at one file came to."""

    def __init__(self) -> None:
        self.made = 0
        self.bytes = 0
        self.url: str | None = None
