"""What each sample of an epoch is drawn from: seeded, with shares of classes met exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from verse_data.errors import UsageError
from verse_data.spine.levels import LEVELS
from verse_data.training.arguments import finite
from verse_data.training.rows import VertebraColumns

ORDER, DRAW, CLASS, TRANSFORM = range(4)
"""Purposes: keys that differ in them give unrelated numbers."""


def _bits(count: int, *key: int) -> npt.NDArray[np.uint64]:
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count)


def uniforms(count: int, *key: int) -> npt.NDArray[np.float64]:
    """Return `count` numbers in [0, 1) for `key`."""
    return np.asarray((_bits(count, *key) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def permutation(count: int, *key: int) -> npt.NDArray[np.int64]:
    """Return the numbers 0 to `count` - 1 in an order drawn for `key`."""
    return np.argsort(_bits(count, *key), kind="stable")


def seeded_transform(
    transform: Callable[[Any], Any], sample: Any, seed: int, epoch: int, index: int
) -> Any:
    """Call `transform` with all usual random generators seeded for this sample.

    The generators' states are put back afterwards, so that a training run's own draws (dropout,
    mixing) do not depend on which samples were made in its process.
    """
    # Two words: MONAI's generators are of NumPy's kind, and would repeat its global one.
    word, own = (int(bits) for bits in _bits(2, seed, TRANSFORM, epoch, index))
    with _generators(word):
        reseed = getattr(transform, "set_random_state", None)
        if callable(reseed):  # MONAI's Randomizable keeps a generator of its own
            reseed(seed=own % 2**32)
        return transform(sample)


@contextmanager
def _generators(word: int) -> Iterator[None]:
    state_torch = torch.random.get_rng_state()
    state_numpy = np.random.get_state()  # noqa: NPY002 - the global one that transforms use
    state_python = random.getstate()
    # The default generator alone: torch.manual_seed would also touch every GPU.
    torch.default_generator.manual_seed(word % 2**63)
    np.random.seed(word % 2**32)  # noqa: NPY002
    random.seed(word)
    try:
        yield
    finally:
        torch.random.set_rng_state(state_torch)
        np.random.set_state(state_numpy)  # noqa: NPY002
        random.setstate(state_python)


class DrawPlan:
    """Systematic sampling: in each epoch, an item of share ``p`` is drawn ``p * count`` times.

    The number is exact to within one, and so is that of each class whose items stand together. A
    plain random draw would leave out a rare class every now and then.

    Parameters
    ----------
    shares : array
        Share of each item; they sum to 1.
    count : int
        Draws in an epoch.
    seed : int
    weights : mapping, optional
        What the shares were made from; for the record.

    Raises
    ------
    UsageError
        If `count` is negative.
    """

    def __init__(
        self,
        shares: npt.NDArray[np.float64],
        count: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if count < 0:
            raise UsageError(f"An epoch of {count} samples makes no sense; give a positive number.")
        self.weights = None if weights is None else dict(weights)
        self._ends = np.cumsum(shares)
        self._count = count if len(shares) else 0
        self._seed = seed
        self._epoch = -1
        self._items = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._count

    def item(self, epoch: int, index: int) -> int:
        """Return the item that draw `index` of `epoch` takes."""
        if epoch != self._epoch:
            self._items, self._epoch = self.items(epoch), epoch
        return int(self._items[index])

    def items(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the items of all draws of `epoch`, in their order."""
        start = uniforms(1, self._seed, CLASS, epoch)[0]
        places = (np.arange(self._count) + start) / max(self._count, 1) * self._ends[-1]
        items = np.searchsorted(self._ends, places, side="right").clip(max=len(self._ends) - 1)
        order = permutation(self._count, self._seed, CLASS, epoch)
        return np.asarray(items[order], dtype=np.int64)


def plan_by_scan(scans: int, count: int, seed: int) -> DrawPlan:
    """Return the plan that draws each of `scans` scans equally often."""
    return DrawPlan(np.full(scans, 1 / max(scans, 1)), count, seed)


def plan_by_class(
    by: Literal["level", "grade"],
    vertebrae: VertebraColumns,
    weights: Mapping[Any, float] | None,
    count: int,
    seed: int,
) -> tuple[VertebraColumns, DrawPlan]:
    """Return the vertebrae that can be drawn, class by class, and the plan over them.

    Within a class every vertebra is drawn equally often. Those without a centroid, of scans that
    are not served or without the property are not drawn.
    """
    values = vertebrae.level if by == "level" else vertebrae.grade
    usable = (vertebrae.scan >= 0) & (values >= 0) & np.isfinite(vertebrae.centroid).all(axis=1)
    present = np.unique(values[usable]).tolist()
    asked = _asked(by, weights, present)
    rows = np.concatenate(
        [np.zeros(0, dtype=np.int64), *(np.flatnonzero(usable & (values == c)) for c in asked)]
    )
    kept, classes = vertebrae.take(rows), values[rows]
    total = sum(asked.values())
    shares = np.zeros(len(rows))
    for value, weight in asked.items():
        members = classes == value
        shares[members] = weight / total / members.sum()
    names = {_name(by, value): weight for value, weight in asked.items()}
    return kept, DrawPlan(shares, count, seed, names)


def _name(by: str, value: int) -> str:
    return LEVELS[value] if by == "level" else str(value)


def _asked(by: str, weights: object, present: list[int]) -> dict[int, float]:
    if weights is None:
        return dict.fromkeys(present, 1.0)
    if not isinstance(weights, Mapping):
        raise UsageError(f"weights={weights!r} is not a mapping of {by} to number.")
    names = {_name(by, value): value for value in present}
    wrong = [str(key) for key in weights if str(key) not in names]
    if wrong:
        raise UsageError(
            f"weights= names the {by} {', '.join(wrong)}, of which there is no vertebra with a "
            f"centroid here. There are: {', '.join(names) or 'none'}."
        )
    shares = {key: finite(f"weights[{key!r}]", weight) for key, weight in weights.items()}
    if any(share < 0 for share in shares.values()) or not sum(shares.values()):
        raise UsageError(
            f"weights={dict(weights)!r}: each must be 0 or more, and one of them more."
        )
    return {names[str(key)]: share for key, share in shares.items() if share}
