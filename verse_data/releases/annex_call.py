"""One call of the git-annex engine: what its threads share, and the way of one file through it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from verse_data.digests import digest_file
from verse_data.errors import (
    RateLimited,
    ServerUnavailable,
    StorageError,
    Truncated,
    VerseDataError,
)
from verse_data.progress import Advance
from verse_data.records.lock import LockedFile
from verse_data.releases.annex_faults import Kind, kind_of, looks_wrong, quoted, size_of
from verse_data.releases.annex_get import AnnexDied, AnnexEnded, Answer, GetProcess
from verse_data.releases.fetch import WEB, FetchResult, no_address
from verse_data.releases.keylock import key_lock
from verse_data.releases.pacing import Backoff
from verse_data.releases.reach import shown
from verse_data.releases.store import ObjectStore

_LOCK_SECONDS: Final = 3600.0
_BREATH_SECONDS: Final = 0.1
_GIVE_UP_AFTER: Final = 3


class Dataset(Protocol):
    """The part of a dataset that this engine needs."""

    @property
    def path(self) -> Path:
        """Folder of the dataset."""

    @property
    def store(self) -> ObjectStore:
        """Its contents."""

    def addresses(self, file: LockedFile) -> tuple[str, ...]:
        """Return every address that gives the content of `file`."""


@dataclass
class _Tally:
    """What became of one file so far."""

    tries: int = 0
    bytes: int = 0
    sibling_bytes: int = 0
    source: str | None = None
    taken_over: bool = False
    """Whether what an earlier try had left was the whole file."""
    told: int = 0
    """Bytes that the progress bar has been told of."""

    def count(self, amount: int) -> None:
        """Count bytes that came from where git-annex turned to last."""
        if self.source in {None, WEB}:
            self.bytes += max(0, amount)
        else:
            self.sibling_bytes += max(0, amount)


@dataclass
class Call:
    """One call of fetch: what its threads share."""

    dataset: Dataset
    jobs: int
    settings: Sequence[str]
    stall: float
    backoff: Backoff
    advance: Advance
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The web addresses that git-annex knows, by key."""
    given_up: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    _process: GetProcess | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def one(self, file: LockedFile) -> FetchResult:
        """Fetch one file; every error of ours becomes a result."""
        start, tally = time.monotonic(), _Tally()
        error: VerseDataError | None = None
        try:
            self._one(file, tally)
        except VerseDataError as caught:
            error = caught
        except OSError as caught:
            error = StorageError(f"{file.path}: {caught}. Check the disk and run this again.")
        self._tell(tally, 0 if error else file.size)
        urls = self.addresses.get(file.annex_key, ()) if tally.source == WEB else ()
        return FetchResult(
            file=file,
            ok=error is None,
            error=None if error is None else str(error),
            error_class=None if error is None else type(error),
            bytes=tally.bytes,
            sibling_bytes=tally.sibling_bytes,
            source=tally.source,
            # Of several addresses git-annex does not say which one gave the content.
            url=shown(urls[0]) if len(urls) == 1 else None,
            waited=error is None and not tally.tries and not tally.taken_over,
            tries=tally.tries,
            seconds=time.monotonic() - start,
        )

    def _one(self, file: LockedFile, tally: _Tally) -> None:
        store = self.dataset.store
        if store.has(file):
            return
        locks = store.incoming.parent / "locks"
        with key_lock(locks, file.sha256, timeout=_LOCK_SECONDS, stop=self.stop.is_set):
            seen: Counter[str] = Counter()
            while not store.has(file):
                self._require_hope(file)
                kind, text = self._try(file, tally)
                if kind is None:
                    continue
                seen[kind.words] += 1
                if seen[kind.words] >= kind.tries or sum(seen.values()) >= self.backoff.tries:
                    raise self._final(file, kind, text, tally)
                if kind.waits:
                    self.stop.wait(self.backoff.wait(sum(seen.values())))
        self.given_up = 0

    def _try(self, file: LockedFile, tally: _Tally) -> tuple[Kind | None, str]:
        """Ask git-annex once; return how it failed, if it did."""
        left = self.dataset.path / ".git" / "annex" / "tmp" / file.annex_key
        if self._is_complete(left, file, tally):
            return None, ""
        before = here = size_of(left)
        tally.tries += 1

        def heard(amount: int) -> None:
            nonlocal here
            here = amount
            self._tell(tally, min(amount, file.size))

        try:
            answer = self._get().ask(file.annex_key, heard)
        except AnnexEnded:  # for the sake of another file: ask again, once it has been started anew
            tally.tries -= 1
            self.stop.wait(_BREATH_SECONDS)
            return None, ""
        except AnnexDied as error:
            answer = Answer(ok=False, text=str(error))
        tally.source = answer.source
        if self.dataset.store.has(file):
            tally.count(file.size - before)
            return None, ""
        tally.count(here - before)
        kind = kind_of(answer.text)
        if kind.poison or looks_wrong(left, file):
            left.unlink(missing_ok=True)
        if "not available" in answer.text and not self.dataset.addresses(file):
            raise no_address(file)
        return kind, answer.text

    def _is_complete(self, left: Path, file: LockedFile, tally: _Tally) -> bool:
        """Take over what an earlier try left if it is the whole file; remove it if it cannot be."""
        size = size_of(left)
        if size == file.size and size and digest_file(left).sha256 == file.sha256:
            self.dataset.store.ingest(file, left)
            tally.taken_over = True
            return True
        if size >= file.size or looks_wrong(left, file):
            left.unlink(missing_ok=True)
        return False

    def _final(self, file: LockedFile, kind: Kind, text: str, tally: _Tally) -> VerseDataError:
        if kind.error in {ServerUnavailable, RateLimited}:
            self.given_up += 1
        times = f"tried {tally.tries} times" if tally.tries > 1 else "tried once"
        return kind.error(f"{file.path}: {kind.says} ({times}; git-annex: {quoted(text)}).")

    def _require_hope(self, file: LockedFile) -> None:
        """Stop asking a server that has failed file after file: the rest would fail the same way."""
        if self.stop.is_set():
            raise Truncated(f"{file.path}: interrupted. Run the same command again to go on.")
        if self.given_up >= _GIVE_UP_AFTER:
            raise ServerUnavailable(
                f"{file.path}: not asked for, since the server failed {self.given_up} files before. "
                f"Run the same command again later; what has come is kept."
            )

    def _tell(self, tally: _Tally, here: int) -> None:
        if here != tally.told:
            self.advance(here - tally.told)
            tally.told = here

    def _get(self) -> GetProcess:
        """Return the running git-annex; start one if it ended, or was the parent process's."""
        with self._lock:
            if self._process is None or not self._process.is_usable():
                self._process = GetProcess(
                    self.dataset.path, jobs=self.jobs, settings=self.settings, stall=self.stall
                )
            return self._process

    def end(self) -> None:
        """Begin nothing new, and end git-annex if it still has something to do."""
        self.stop.set()
        process = self._process
        if process and process.is_busy():
            process.kill()

    def close(self) -> None:
        """Let git-annex end."""
        process, self._process = self._process, None
        if process:
            process.close()
