"""Seeded random draws for each sample of an epoch, with exact shares of classes."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from verse_data.errors import UsageError
from verse_data.spine.levels import LEVELS
from verse_data.training.arguments import finite
from verse_data.training.rows import Rows

ORDER, DRAW, CLASS, TRANSFORM = range(4)
"""Purpose of a draw; part of its key, so that draws for different purposes are unrelated."""

Shares = npt.NDArray[np.float64]


_TURN = [threading.RLock()]
"""Held by the thread that uses the generators of this process; a forked process has one of its own."""
os.register_at_fork(after_in_child=lambda: _TURN.__setitem__(0, threading.RLock()))


def _bits(count: int, *key: int) -> npt.NDArray[np.uint64]:
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count)


def uniforms(count: int, *key: int) -> npt.NDArray[np.float64]:
    """Return `count` numbers in [0, 1) for `key`."""
    return np.asarray((_bits(count, *key) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def permutation(count: int, *key: int) -> npt.NDArray[np.int64]:
    """Return the numbers 0 to `count` - 1 in random order for `key`."""
    return np.argsort(_bits(count, *key), kind="stable")


def seeded_transform(
    transform: Callable[[Any], Any], sample: Any, seed: int, epoch: int, index: int
) -> Any:
    """Call `transform` with all usual random generators seeded for this sample."""
    # The generators' states are restored afterwards, so that the draws of the training run itself
    # (dropout, mixing) do not depend on which samples were made in its process.
    turn = _TURN[0]
    if not turn.acquire(blocking=False):  # reentrant: a transform may read other samples
        raise UsageError(
            "Another thread is in a transform, and both would draw from the generators of this process. "
            "Use workers (num_workers=2), or read without transform=, and apply it in one thread."
        )
    try:
        return _seeded(transform, sample, (seed, TRANSFORM, epoch, index))
    finally:
        turn.release()


def _seeded(transform: Callable[[Any], Any], sample: Any, key: tuple[int, ...]) -> Any:
    # Two seeds: MONAI uses NumPy's kind of generator, which would repeat the global one's numbers.
    common, own = (int(bits) for bits in _bits(2, *key))
    of_torch, of_python = torch.random.get_rng_state(), random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002 - the global one that transforms use
    try:
        # Only the default generator: torch.manual_seed would also seed every GPU.
        torch.default_generator.manual_seed(common % 2**63)
        np.random.seed(common % 2**32)  # noqa: NPY002
        random.seed(common)
        reseed = getattr(transform, "set_random_state", None)
        if callable(reseed):  # MONAI's Randomizable has a generator of its own
            reseed(seed=own % 2**32)
        return transform(sample)
    finally:
        torch.random.set_rng_state(of_torch)
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


class DrawPlan:
    """Systematic sampling: in each epoch, an item of share ``p`` is drawn ``p * count`` times.

    The number is exact to within one, also for a class whose items are adjacent. A plain random
    draw would leave out a rare class now and then. `weights` is what the shares were computed from,
    for the provenance.
    """

    def __init__(
        self, shares: Shares, count: int, seed: int, weights: Mapping[str, float] | None = None
    ) -> None:
        self.weights = weights
        self._ends = np.cumsum(shares)
        self._count = count if len(shares) else 0
        self._seed = seed
        self._drawn = (-1, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return self._count

    def item(self, epoch: int, index: int) -> int:
        """Return the item of draw `index` of `epoch`."""
        drawn = self._drawn
        if drawn[0] != epoch:
            drawn = self._drawn = (epoch, self.items(epoch))
        return int(drawn[1][index])

    def items(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the items of all draws of `epoch`, in order."""
        start = uniforms(1, self._seed, CLASS, epoch)[0]
        places = (np.arange(self._count) + start) / max(self._count, 1) * self._ends[-1]
        items = np.searchsorted(self._ends, places, side="right").clip(max=len(self._ends) - 1)
        order = permutation(self._count, self._seed, CLASS, epoch)
        return np.asarray(items[order], dtype=np.int64)


def plan_by_class(
    by: str, rows: Rows, weights: Mapping[Any, float] | None, count: int, seed: int
) -> tuple[Rows, DrawPlan]:
    """Return the vertebrae that can be drawn, sorted by class, and the plan over them.

    Within a class every vertebra is drawn equally often. Vertebrae without a centroid, of scans
    that are not served, or with a missing class are not drawn.
    """
    located = (rows["scan"] >= 0) & np.isfinite(rows["centroid"]).all(axis=1)
    rows = rows[located & (rows[by] >= 0)]
    present = np.unique(rows[by]).tolist()
    names = {value: LEVELS[value] if by == "level" else str(value) for value in present}
    drawn = {value: w for value, w in class_weights("weights", by, weights, names).items() if w}
    members = [np.flatnonzero(rows[by] == value) for value in drawn]
    shares = [
        np.full(len(found), weight / sum(drawn.values()) / len(found))
        for found, weight in zip(members, drawn.values(), strict=True)
    ]
    plan = DrawPlan(
        np.concatenate([np.zeros(0), *shares]),
        count,
        seed,
        {names[value]: weight for value, weight in drawn.items()},
    )
    return rows[np.concatenate([np.zeros(0, dtype=np.int64), *members])], plan


def class_weights(
    option: str, by: str, weights: object, names: Mapping[int, str]
) -> dict[int, float]:
    """Return the weight of each class in `weights`; by default 1 for each class in `names`."""
    if weights is None:
        return dict.fromkeys(names, 1.0)
    if not isinstance(weights, Mapping):
        raise UsageError(f"{option}={weights!r} is not a mapping of {by} to number.")
    values = {name: value for value, name in names.items()}
    if wrong := [str(key) for key in weights if str(key) not in values]:
        raise UsageError(
            f"{option}= names the {by} {', '.join(wrong)}, of which there is no vertebra to draw. "
            f"There are: {', '.join(values) or 'none'}."
        )
    found = {
        values[str(key)]: finite(f"{option}[{key!r}]", weight, least=0)
        for key, weight in weights.items()
    }
    if not sum(found.values()):
        raise UsageError(f"{option}={dict(weights)!r}: one of them must be more than 0.")
    return found
