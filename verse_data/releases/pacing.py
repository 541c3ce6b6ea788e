"""When a request may leave: sliding windows, back-off with jitter, and what Retry-After asks for.

Time comes from a `Clock`, so that a test of an hour's throttling takes a millisecond.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from verse_data.errors import NetworkError

LONGEST_WAIT: Final = 900.0
"""Seconds. A server that asks for more gets its wish: we stop, and say when to come back."""


class Clock(Protocol):
    """Where pacing takes its time from."""

    def monotonic(self) -> float:
        """Return seconds from any fixed point."""

    def wall(self) -> float:
        """Return seconds since 1970, as this machine believes."""

    def sleep(self, seconds: float) -> None:
        """Return `seconds` later, or raise if it was woken."""

    def wake(self) -> None:
        """End all sleeps, now and later: the work is being interrupted."""


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def monotonic(self) -> float:
        """Return the machine's monotonic time."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the machine's date."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep; `NetworkError` if it was woken, for whoever sleeps waits for a server."""
        if self._woken.wait(seconds):
            raise NetworkError(
                "Interrupted while waiting for a server. Run the same command again."
            )

    def wake(self) -> None:
        """End all sleeps, now and later."""
        self._woken.set()


class Window:
    """At most `limit` requests in any `period`, counted as the server counts them.

    A place is free again one period after its request has *ended*. The server saw that request
    earlier than that, and sees the next one later than it leaves here, so whatever the network
    does to either, the server counts no more than `limit`.
    """

    def __init__(self, limit: int, period: float, clock: Clock) -> None:
        self._free_at = [clock.monotonic()] * limit
        self._period = period
        self._clock = clock
        self._changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for a free place, and hold it for the time of the request."""
        with self._changed:
            while not self._free_at:
                self._changed.wait()
            free_at = self._free_at.pop(0)
        try:
            wait = free_at - self._clock.monotonic()
            if wait > 0:
                self._clock.sleep(wait)
            yield
        finally:
            with self._changed:
                self._free_at.append(self._clock.monotonic() + self._period)
                self._free_at.sort()
                self._changed.notify()


class Gate:
    """The shared brake: when one thread is told to come back later, all threads wait."""

    def __init__(self, clock: Clock, windows: Sequence[Window] = ()) -> None:
        self.clock = clock
        self._windows = windows
        self._not_before = clock.monotonic()
        self._lock = threading.Lock()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Wait until a request may leave, and count it."""
        with ExitStack() as places:
            for window in self._windows:
                places.enter_context(window.place())
            self.wait()
            yield

    def wait(self) -> float:
        """Wait while the brake is on; return for how many seconds."""
        waited = 0.0
        while (wait := self._not_before - self.clock.monotonic()) > 0:
            self.clock.sleep(wait)
            waited += wait
        return waited

    def close_for(self, seconds: float) -> None:
        """Let no request leave for `seconds`."""
        with self._lock:
            self._not_before = max(self._not_before, self.clock.monotonic() + seconds)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential back-off with full jitter.

    Attributes
    ----------
    tries : int
        Requests in all, the first included.
    first, most : float
        Seconds: upper end of the first wait, and of any wait.
    """

    tries: int = 10
    first: float = 0.25
    most: float = 10.0
    _random: random.Random = field(default_factory=random.SystemRandom, repr=False)

    def wait(self, tried: int) -> float:
        """Return how many seconds to wait after the `tried`-th failure in a row."""
        # The exponent is bounded because 2.0 ** 1024 overflows.
        return self._random.uniform(0.0, min(self.most, self.first * 2.0 ** min(tried - 1, 60)))


def retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Return how many seconds a response asks to wait, or None if it does not say.

    Both forms are read. A date is compared with the server's own `Date`, so that a clock that is
    wrong here does no harm.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    then = _date(text)
    if then is None:
        return None
    now = _date(headers.get("Date", ""))
    return max(0.0, then - (clock.wall() if now is None else now))


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
