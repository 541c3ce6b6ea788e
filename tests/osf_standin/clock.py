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

    def __init__(self, wall: float = 1.7e9) -> None:
        self.slept: list[float] = []
        self._now = 1000.0
        self._wall = wall
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Return the time."""
        with self._lock:
            return self._now

    def wall(self) -> float:
        """Return the date."""
        return self._wall + self.monotonic() - 1000.0

    def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        with self._lock:
            self.slept.append(seconds)
            self._now += max(0.0, seconds)

    def wake(self) -> None:
        """Do nothing: no sleep lasts."""
