"""Drawing vertebrae so that grades and levels are even and no subject dominates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.training.numbers import finite, whole
from verse_data.training.order import EpochSampler
from verse_data.training.plan import DrawPlan
from verse_data.training.vertebra import VertebraDataset
from verse_data.training.vertebrae import VertebraColumns

if TYPE_CHECKING:
    import pandas as pd

_ROUNDS = 200
_CLOSE = 1e-9
_DEFAULT_TIMES = 3.0

Shares = npt.NDArray[np.float64]


class BalancedSampler(EpochSampler):
    """Draws vertebrae with replacement, by shares made from the counts of the table.

    The shares are raked: grades are brought to `grade_weights`, levels within what grades allow
    to equal parts, and no subject gets more than `max_subject_share`. Each epoch then draws every
    vertebra as often as its share says, to within one, in an order of its own.

    Parameters
    ----------
    dataset : VertebraDataset
        What is drawn from.
    grade_weights : mapping of int to float, optional
        How often each grade is drawn, relative to one another; by default all equally often.
    max_subject_share : float, optional
        Upper limit of the share of one subject; by default three times an even share of those who
        have a vertebra that is drawn. The limit goes before the grades: where one subject holds
        all severe fractures, they stay rare.
    count : int, optional
        Draws in an epoch; by default the length of the dataset.
    shuffle, rank, world_size, uneven
        See :class:`verse_data.training.order.EpochSampler`.

    Raises
    ------
    UsageError
        If the dataset is empty, a grade does not occur, or the limit cannot be met.
    """

    dataset: VertebraDataset

    def __init__(
        self,
        dataset: VertebraDataset,
        *,
        grade_weights: Mapping[int, float] | None = None,
        max_subject_share: float | None = None,
        count: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, **options)
        dataset = _of_vertebrae(self.dataset)
        rows = dataset.rows
        wanted = _grade_targets(rows, grade_weights)
        limit = _limit(rows, wanted, max_subject_share)
        self._shares = balanced_shares(rows, wanted, limit)
        self._order = np.lexsort((rows.level, rows.grade))
        draws = len(dataset) if count is None else whole("count", count, least=1)
        self._plan = DrawPlan(self._shares[self._order], draws, dataset.seed)
        self._asked = {
            "grade_weights": {str(grade): share for grade, share in sorted(wanted.items())},
            "max_subject_share": limit,
            "count": draws,
        }

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples of `epoch`, over all ranks, without padding."""
        numbers = np.asarray(self._order[self._plan.items(epoch)], dtype=np.int64)
        return numbers if self.shuffle else np.sort(numbers)

    @property
    def options(self) -> dict[str, Any]:
        """What, beside the dataset, decides the order over all ranks; plain JSON."""
        return {**super().options, **self._asked}

    def _total(self) -> int:
        return len(self._plan)

    @property
    def shares(self) -> pd.DataFrame:
        """Scan, subject, level, grade and share of each vertebra; the shares sum to 1."""
        return self.dataset.vertebrae.assign(share=self._shares)


def balanced_shares(rows: VertebraColumns, grades: Mapping[int, float], limit: float) -> Shares:
    """Return the share of each vertebra, summing to 1.

    Iterative proportional fitting: scale to the shares of grades, to even shares of levels (half
    way, as they may contradict the grades), and cut off subjects above `limit`; again until
    nothing moves.

    Parameters
    ----------
    rows : VertebraColumns
    grades : mapping
        Share of each grade; they sum to 1.
    limit : float
        Greatest share of one subject.
    """
    _, subject = np.unique(rows.subject_id, return_inverse=True)
    levels, level = np.unique(rows.level, return_inverse=True)
    shares = np.full(len(rows), 1 / len(rows)) * np.isin(rows.grade, list(grades))
    targets = np.array([grades.get(int(grade), 0.0) for grade in rows.grade])
    for _ in range(_ROUNDS):
        before = shares
        now = np.bincount(level, shares)[level]
        even = np.divide(1 / len(levels), now, out=np.ones_like(now), where=now > 0)
        shares = shares * np.sqrt(even)
        held = np.bincount(rows.grade + 1, shares)[rows.grade + 1]
        shares = shares * np.divide(targets, held, out=np.zeros_like(held), where=held > 0)
        shares = _capped(shares / shares.sum(), subject, limit)
        if np.abs(shares - before).max() < _CLOSE:
            break
    return shares


def _capped(shares: Shares, group: npt.NDArray[np.intp], limit: float) -> Shares:
    """Bring every group down to `limit`, and give what is cut off to the others in proportion."""
    fixed = np.zeros(group.max() + 1, dtype=np.bool_)
    while True:
        sums = np.bincount(group, shares)
        over = (sums > limit * (1 + _CLOSE)) & ~fixed
        if not over.any():
            return shares
        fixed |= over
        free = sums[~fixed].sum()
        factors = np.where(fixed, limit / np.maximum(sums, 1e-300), 1.0)
        if free > 0:
            factors[~fixed] = (1 - limit * fixed.sum()) / free
        shares = shares * factors[group]


def _limit(rows: VertebraColumns, grades: Mapping[int, float], asked: float | None) -> float:
    """Return the greatest share of one subject, if those that are drawn from can meet it."""
    drawn = [grade for grade, share in grades.items() if share > 0]
    subjects = len(np.unique(rows.subject_id[np.isin(rows.grade, drawn)]))
    if asked is None:
        return min(1.0, _DEFAULT_TIMES / subjects)
    limit = finite("max_subject_share", asked)
    if limit * subjects < 1 - _CLOSE:
        message = (
            f"max_subject_share={limit:g} cannot be met by {subjects} subjects with the grades "
            f"that are drawn: it must be at least {1 / subjects:g}."
        )
        raise UsageError(message)
    return limit


def _grade_targets(rows: VertebraColumns, weights: Mapping[int, float] | None) -> dict[int, float]:
    present = np.unique(rows.grade).tolist()
    if not present:
        message = "The dataset has no vertebra to draw; see dataset.excluded for the reasons."
        raise UsageError(message)
    asked = dict.fromkeys(present, 1.0) if weights is None else _numbers(weights)
    absent = sorted(set(asked) - set(present))
    total = sum(asked.values())
    if absent or not total > 0 or min(asked.values()) < 0:
        message = (
            f"grade_weights={weights!r}: grades here are {present}; give each 0 or more, "
            f"and one of them more."
        )
        raise UsageError(message)
    return {grade: weight / total for grade, weight in asked.items()}


def _numbers(weights: object) -> dict[int, float]:
    if not isinstance(weights, Mapping):
        message = f"grade_weights={weights!r} is not a mapping, such as {{0: 1, 2: 1, 3: 1}}."
        raise UsageError(message)
    return {
        whole("a grade of grade_weights", grade, least=-1): finite(
            f"grade_weights[{grade!r}]", weight
        )
        for grade, weight in weights.items()
    }


def _of_vertebrae(dataset: object) -> VertebraDataset:
    if isinstance(dataset, VertebraDataset):
        return dataset
    message = (
        f"BalancedSampler draws vertebrae, not from a {type(dataset).__name__}; "
        f"serve them with unit='vertebra'."
    )
    raise UsageError(message)
