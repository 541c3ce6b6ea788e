"""Divide groups into parts of nearly equal counts, by whole-number arithmetic alone.

Each group (a subject) has a vector of counts. The cost of a division is a sum of squares: for
each count, the distance of each part from an equal share, weighted so that rare counts matter as
much as frequent ones. A greedy start is improved by the best move or swap until none helps, then
shaken and improved again until that has been fruitless for a while. Of many groups a window of some
hundred is looked at at a time, so that memory grows with their number, not with its square. There is
no floating point, no clock and no generator but SHA-256, so every platform finds the same division.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Whole = npt.NDArray[np.int64]

_SCALE: Final = 1 << 20
_SHAKES: Final = 400
_WORK: Final = 24_000_000
"""Swaps weighed at most after the first descent, so that large catalogues end too."""
_WINDOW: Final = 512
"""Groups that may move at a time."""
_MOVED_BY_A_SHAKE: Final = 3


def divide(counts: Whole, *, parts: int, seed: int, priority: Whole | None = None) -> Whole:
    """Assign each group to one of `parts`.

    Parameters
    ----------
    counts : ndarray of int64, shape (groups, kinds)
        What each group holds of each kind; at least as many groups as parts.
    parts : int
        Number of parts.
    seed : int
        Another seed gives another, about equally good, division.
    priority : ndarray of int64, shape (kinds,), optional
        How much the balance of each kind weighs; all alike by default.

    Returns
    -------
    ndarray of int64, shape (groups,)
        Part of each group, 0 to `parts` - 1; no part is empty.
    """
    search = _Search(counts, parts=parts, priority=priority)
    search.start_greedily()
    for first in range(0, len(counts), _WINDOW):
        search.look_at(first)
        search.descend()
    draw = _draws(seed, search.width)
    best, best_cost = search.part.copy(), search.cost()
    fruitless, shakes = 0, min(_SHAKES, _WORK // search.width**2)
    while shakes and fruitless < 2 * search.width and best_cost > search.least_cost():
        search.shake(draw)
        search.descend()
        cost = search.cost()
        fruitless = 0 if cost < best_cost else fruitless + 1
        if cost <= best_cost:
            best, best_cost = search.part.copy(), cost
        else:
            search.put(best)
        shakes -= 1
    return best


def _draws(seed: int, below: int) -> Iterator[int]:
    """Yield whole numbers from 0 to `below` - 1, the same on every platform."""
    counter = 0
    while True:
        digest = hashlib.sha256(f"{seed}/{counter}".encode()).digest()
        yield int.from_bytes(digest[:8], "big") % below
        counter += 1


class _Search:
    def __init__(self, counts: Whole, *, parts: int, priority: Whole | None) -> None:
        self._counts = counts
        self._parts = parts
        self._totals = counts.sum(axis=0)
        weights = _SCALE // np.maximum(self._totals, 1)
        self._weights = np.maximum(weights * (1 if priority is None else priority), 1)
        self._weighted = counts * self._weights
        self._square = (self._weighted * counts).sum(axis=1)
        self.part = np.full(len(counts), -1, dtype=np.int64)
        # Per part and kind: parts * count - total, which is 0 at an equal share.
        self._off = np.tile(-self._totals, (parts, 1))

    @property
    def width(self) -> int:
        """Return how many groups may move."""
        return len(self._pair)

    def look_at(self, first: int) -> None:
        """Let the groups from `first` on move, a window of them, or of the last if there are fewer."""
        first = max(min(first, len(self._counts) - _WINDOW), 0)
        self._window = slice(first, first + _WINDOW)
        square, weighted = self._square[self._window], self._weighted[self._window]
        gram = weighted @ self._counts[self._window].T
        self._pair = square[:, None] + square[None, :] - 2 * gram

    def cost(self) -> int:
        return int((self._off**2 @ self._weights).sum())

    def least_cost(self) -> int:
        """Return the cost of a division in which no count differs by more than one."""
        left = self._totals % self._parts
        return int((left * (self._parts - left) * self._parts) @ self._weights)

    def put(self, part: Whole) -> None:
        self.part = part.copy()
        held = np.zeros_like(self._off)
        np.add.at(held, self.part, self._counts)
        self._off = self._parts * held - self._totals

    def start_greedily(self) -> None:
        """Give each group, the heavy ones first, to the part where it costs least."""
        for group in np.argsort(-self._square, kind="stable"):
            self._move(int(group), int(np.argmin(self._off @ self._weighted[group])))

    def descend(self) -> None:
        """Take the best move or swap until none makes the division better."""
        start = self._window.start
        while True:
            pull = self._weighted[self._window] @ self._off.T
            mover, target, moved = self._best_move(pull)
            first, second, swapped = self._best_swap(pull)
            if min(moved, swapped) >= 0:
                return
            if moved <= swapped:
                self._move(start + mover, target)
            else:
                self._swap(start + first, start + second)

    def shake(self, draw: Iterator[int]) -> None:
        """Swap a few groups at random."""
        for _ in range(_MOVED_BY_A_SHAKE):
            self._swap(self._window.start + next(draw), self._window.start + next(draw))

    def _swap(self, first: int, second: int) -> None:
        here, there = int(self.part[first]), int(self.part[second])
        self._move(first, there)
        self._move(second, here)

    def _move(self, group: int, target: int) -> None:
        step = self._parts * self._counts[group]
        if self.part[group] >= 0:
            self._off[self.part[group]] -= step
        self._off[target] += step
        self.part[group] = target

    # Both changes of cost are divided by 2 * parts, which they share.

    def _best_move(self, pull: Whole) -> tuple[int, int, int]:
        rows, part = np.arange(self.width), self.part[self._window]
        change = pull - pull[rows, part][:, None] + self._parts * self._square[self._window, None]
        change[rows, part] = 0
        # A part never loses its last group.
        change[np.bincount(self.part, minlength=self._parts)[part] == 1] = 0
        group, target = np.unravel_index(np.argmin(change), change.shape)
        return int(group), int(target), int(change[group, target])

    def _best_swap(self, pull: Whole) -> tuple[int, int, int]:
        part = self.part[self._window]
        crossed = pull[:, part]
        at_home = np.diag(crossed)
        change = crossed + crossed.T - at_home[:, None] - at_home[None, :]
        change += self._parts * self._pair
        change[part[:, None] == part[None, :]] = 0
        first, second = np.unravel_index(np.argmin(change), change.shape)
        return int(first), int(second), int(change[first, second])
