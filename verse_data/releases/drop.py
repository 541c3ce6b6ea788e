"""Making room: contents are removed where all files that have them were named, and a copy is elsewhere."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from verse_data.config import Config
from verse_data.errors import Offline, RateLimited, ServerUnavailable, VerseDataError
from verse_data.records.lock import LockedFile
from verse_data.releases import annex
from verse_data.releases.fetch import FetchLog
from verse_data.releases.http import Backoff, Clock, Gate, Http, SystemClock, Window, drain, retried
from verse_data.releases.urls import shown, split_url

if TYPE_CHECKING:
    from verse_data.releases.repository import Repository
    from verse_data.releases.siblings import Sibling

_WORKERS: Final = 8
_PER_HOUR: Final = 3600
_TRIES: Final = 4
_GIVE_UP_AFTER: Final = 3
"""Files that a server failed, in a row, after which it is asked for no more."""


@dataclass(frozen=True)
class DropReport:
    """What became of one call of ``drop``.

    Attributes
    ----------
    dropped : tuple of LockedFile
        Files whose contents were removed.
    shared, kept : tuple of (LockedFile, str)
        Files whose contents stay, and why: other files have them too; no other copy was found.
    """

    dropped: tuple[LockedFile, ...]
    shared: tuple[tuple[LockedFile, str], ...] = ()
    kept: tuple[tuple[LockedFile, str], ...] = ()

    @property
    def bytes(self) -> int:
        """Room that was made."""
        return sum(file.size for file in {file.annex_key: file for file in self.dropped}.values())


def drop_files(
    dataset: Repository,
    files: Sequence[LockedFile],
    *,
    version: str | None = None,
    unchecked: bool = False,
    damaged: bool = False,
) -> DropReport:
    """Remove the contents of `files`, which are of `version`, from this machine.

    A content goes only if every file that has it is among `files`: those of their own version, and
    those of the newest; and if an address or a sibling still has it. That is not asked if
    `unchecked`; of what is known to be `damaged` neither is, for nobody loses anything.
    """
    here = {file.annex_key: file for file in files if dataset.object_path(file).exists()}
    if not here:
        return DropReport(())
    annex.require_usable(dataset.path)
    shared = {} if damaged else _needed_by_others(dataset, files, version)
    own = [file for key, file in here.items() if key not in shared]
    checked = [] if unchecked or damaged else own
    held = _held_by_siblings(dataset, checked)
    lost = _not_served(dataset, [file for file in checked if file.annex_key not in held])
    gone = [file for file in own if file.annex_key not in lost]
    keys = [file.annex_key for file in gone]
    # In this order: what git-annex believes to be here must be here, whenever this is interrupted.
    annex.record_presence(dataset.path, dict.fromkeys(keys, False))
    FetchLog(dataset.path).note("dropped", keys)
    # A sibling that had it too may have removed it meanwhile: then it is put back.
    back = [file for file in gone if not _is_removed(dataset, file, held.get(file.annex_key))]
    annex.record_presence(dataset.path, {file.annex_key: True for file in back})
    why = "its other copy, at a sibling, was removed meanwhile"
    lost |= {file.annex_key: why for file in back}

    def with_reason(reasons: Mapping[str, str]) -> tuple[tuple[LockedFile, str], ...]:
        return tuple((file, reasons[key]) for key, file in here.items() if key in reasons)

    dropped = tuple(file for file in gone if file not in back)
    return DropReport(dropped, shared=with_reason(shared), kept=with_reason(lost))


def _is_removed(dataset: Repository, file: LockedFile, holder: Sibling | None) -> bool:
    return dataset.store.remove(
        file, confirm=lambda: holder is None or holder.find(file) is not None
    )


def _needed_by_others(
    dataset: Repository, files: Sequence[LockedFile], version: str | None
) -> dict[str, str]:
    """Return by key which files that were not named have the same content."""
    named = {(file.annex_key, file.path) for file in files}
    others: dict[str, dict[str, None]] = defaultdict(dict)
    for lock in (dataset.lock(version), dataset.lock()):
        for file in lock.files:
            if (file.annex_key, file.path) not in named:
                others[file.annex_key][file.path] = None
    return {
        key: f"it is also the content of {first}, which was not named"
        + (f", and of {len(more)} more" if more else "")
        for key, (first, *more) in others.items()
    }


def _held_by_siblings(dataset: Repository, files: Sequence[LockedFile]) -> dict[str, Sibling]:
    """Return by key a sibling in a folder that has the content too."""
    return {
        file.annex_key: sibling
        for sibling in dataset.siblings()
        for file in files
        if sibling.has(file, excluding=dataset.object_path(file))
    }


def _not_served(dataset: Repository, files: Sequence[LockedFile]) -> dict[str, str]:
    """Return by key why no address gives a content any more; those that one gives are absent."""
    if not files:
        return {}
    if dataset.config.offline:
        raise Offline(
            f"{dataset.name}: whether {len(files)} files can be had again cannot be asked, since the "
            f"network is forbidden (offline). Allow it, or say --unchecked to remove them regardless."
        )
    urls = [dataset.addresses(file) for file in files]
    # In this order, so that an interruption wakes the threads that wait for a server.
    with ThreadPoolExecutor(_WORKERS) as pool, closing(StillServed(dataset.config)) as served:
        refusals = list(pool.map(served.refusal, files, urls))
    return {
        file.annex_key: f"no other copy of it was found: {why}"
        for file, why in zip(files, refusals, strict=True)
        if why is not None
    }


class StillServed:
    """Asks servers for the first byte of files, to see whether they have them. Safe for threads."""

    def __init__(self, config: Config, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        gate = Gate(self._clock, (Window(_PER_HOUR, 3600.0, self._clock),))
        self._http = Http(config, gate=gate)
        self._failures: Counter[str] = Counter()

    def close(self) -> None:
        """Wait for no server any more, and close all connections."""
        self._clock.wake()
        self._http.close()

    def refusal(self, file: LockedFile, urls: Sequence[str]) -> str | None:
        """Return why none of `urls` gives `file`, or None if one does."""
        if not file.size:
            return None  # of nothing, nothing is lost
        reason = "it has no address."
        for url in urls:
            try:
                if self._size(url) == file.size:
                    return None
                reason = f"{shown(url)} does not offer {file.size:,} bytes any more."
            except VerseDataError as error:
                reason = str(error)
        return reason

    def _size(self, url: str) -> int | None:
        """Ask with patience for what passes, but not file after file for what does not."""
        host = split_url(url).netloc
        if self._failures[host] >= _GIVE_UP_AFTER:
            raise ServerUnavailable(f"{shown(url)} was not asked: its server failed others before.")
        try:
            size = retried(self._http, partial(self._ask, url), backoff=Backoff(tries=_TRIES))
        except (ServerUnavailable, RateLimited):
            self._failures[host] += 1
            raise
        self._failures[host] = 0
        return size

    def _ask(self, url: str) -> int | None:
        """Return how many bytes an address offers, None if it does not say."""
        with self._http.open(url, headers={"Range": "bytes=0-0"}) as response:
            if response.status_code == 206:
                drain(response)
                text = response.headers.get("Content-Range", "").strip().partition("bytes 0-0/")[2]
            else:
                text = response.headers.get("Content-Length", "")
            return int(text) if re.fullmatch("[0-9]+", text) else None
