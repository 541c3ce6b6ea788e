"""Whether a server still gives the content of a file: a look at one byte of it, not a download."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final, Self

from verse_data.config import Config
from verse_data.errors import RateLimited, ServerUnavailable, VerseDataError
from verse_data.records.lock import LockedFile
from verse_data.releases.http import Backoff, Clock, Gate, Http, SystemClock, Window, drain, retried
from verse_data.releases.urls import shown, split_url

_PER_HOUR: Final = 3600
_TRIES: Final = 4
_GIVE_UP_AFTER: Final = 3
"""Files that a server failed, in a row, after which it is asked for no more."""
_TOTAL: Final = re.compile(r"bytes 0-0/(\d+)")


class StillServed:
    """Asks servers for the first byte of files; use it as a context manager. Safe for threads.

    Parameters
    ----------
    config : Config
        Endpoints.
    clock : Clock, optional
        Where pacing takes its time from.
    """

    def __init__(self, config: Config, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        gate = Gate(self._clock, (Window(_PER_HOUR, 3600.0, self._clock),))
        self._http = Http(config, gate=gate)
        self._backoff = Backoff(tries=_TRIES)
        self._failures: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.wake()
        self._http.close()

    def refusal(self, file: LockedFile, urls: Sequence[str]) -> str | None:
        """Return why none of `urls` gives `file`, or None if one does."""
        if not file.size:
            return None  # of nothing, nothing is lost
        reason = "it has no address."
        for url in urls:
            try:
                found = self._ask(url)
            except VerseDataError as error:
                reason = str(error)
            else:
                if found == file.size:
                    return None
                reason = f"{shown(url)} does not offer {file.size:,} bytes any more."
        return reason

    def _ask(self, url: str) -> int | None:
        """Ask with patience for what passes, but not file after file for what does not."""
        host = split_url(url).netloc
        if self._failures[host] >= _GIVE_UP_AFTER:
            raise ServerUnavailable(f"{shown(url)} was not asked: its server failed others before.")
        try:
            found = retried(self._http, partial(self._size, url), backoff=self._backoff)
        except (ServerUnavailable, RateLimited):
            self._failures[host] += 1
            raise
        self._failures[host] = 0
        return found

    def _size(self, url: str) -> int | None:
        """Return how many bytes an address offers, None if it does not say."""
        with self._http.open(url, headers={"Range": "bytes=0-0"}) as response:
            if response.status_code == 206:
                drain(response)
                part = _TOTAL.fullmatch(response.headers.get("Content-Range", "").strip())
                return int(part[1]) if part else None
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isascii() and length.isdigit() else None
