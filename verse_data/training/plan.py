"""Which item each sample of an epoch is drawn from, so that shares are met exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.levels import LEVELS
from verse_data.training.numbers import finite
from verse_data.training.randomness import CLASS, permutation, uniforms
from verse_data.training.vertebrae import VertebraColumns


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
            message = f"An epoch of {count} samples makes no sense; give a positive number."
            raise UsageError(message)
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

    Raises
    ------
    UsageError
        If `weights` names a class that does not exist, or of which there is no vertebra.
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
        message = f"weights={weights!r} is not a mapping of {by} to number."
        raise UsageError(message)
    names = {_name(by, value): value for value in present}
    wrong = [str(key) for key in weights if str(key) not in names]
    if wrong:
        message = (
            f"weights= names the {by} {', '.join(wrong)}, of which there is no vertebra with a "
            f"centroid here. There are: {', '.join(names) or 'none'}."
        )
        raise UsageError(message)
    shares = {key: finite(f"weights[{key!r}]", weight) for key, weight in weights.items()}
    if any(share < 0 for share in shares.values()) or not sum(shares.values()):
        message = f"weights={dict(weights)!r}: each must be 0 or more, and one of them more."
        raise UsageError(message)
    return {names[str(key)]: share for key, share in shares.items() if share}
