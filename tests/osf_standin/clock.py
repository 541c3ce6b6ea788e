"""A clock that nobody waits for."""

from __future__ import annotations

import threading


class FakeClock:
    """Time that passes only where somebody sleeps.

    Attributes
    ----------
    slept : list of float
        Every sleep so far.
    """

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.stopped = threading.Event()
        self._now = 1000.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Return the time."""
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        with self._lock:
            self.slept.append(seconds)
            self._now += max(0.0, seconds)

    def wake(self) -> None:
        """Do nothing: no sleep lasts."""
