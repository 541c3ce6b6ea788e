"""Drawing vertebrae so that grades are even within each level and no subject dominates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.training.arguments import finite, whole
from verse_data.training.draw import DrawPlan
from verse_data.training.rows import VertebraColumns
from verse_data.training.sampler import EpochSampler
from verse_data.training.vertebra import VertebraDataset

if TYPE_CHECKING:
    import pandas as pd

_CLOSE = 1e-9
_SUBJECT_TIMES = 3.0
_GRADE_TIMES = 2.0

Shares = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class BalancedSampler(EpochSampler):
    """Draws vertebrae with replacement, grades evenly within each level, no subject too often.

    A network that sees nothing but healthy vertebrae at one level, and nothing but fractures at
    another, learns to tell levels. So each level comes as often as it does in the dataset, and the
    grades that it has come equally often at it. Then the vertebrae of a grade are evened out until
    none comes more than twice as often as the average one of its grade, and subjects are cut down
    to `max_subject_share`. What is cut off goes to the others in proportion, which moves the grades
    at a level a little away from even, and what subjects lose may lift others above that twice.

    Every vertebra of a grade that is drawn has a share. Each epoch draws it as often as its share
    says, to within one, in an order of its own.

    What this cannot do: a level without a fracture stays healthy, a grade that one patient alone
    has stays that patient's, and as some levels have no fracture, grade 0 comes more often than
    the others over all levels, unless `grade_weights` are given.

    Parameters
    ----------
    dataset : VertebraDataset
        What is drawn from.
    grade_weights : mapping of int to float, optional
        How often each grade is drawn over all levels, relative to one another; grades that are not
        named are not drawn. The grades that a level has are then uneven at it where other levels
        lack some. By default grades are even within each level, and come over all levels as that
        makes them.
    max_subject_share : float, optional
        Upper limit of the share of one subject; by default three times an even share of those who
        have a vertebra that is drawn. The limit goes before the grades: where one subject holds
        all severe fractures, they stay rare.
    count : int, optional
        Draws in an epoch; by default the length of the dataset.
    **options
        ``shuffle``, ``rank``, ``world_size`` and ``uneven``, as in
        :class:`verse_data.training.sampler.EpochSampler`.

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
        wanted = _grade_shares(rows, grade_weights)
        drawn = _drawn(rows, wanted)
        limit = _limit(rows.subject_id[drawn], max_subject_share)
        self._shares = np.zeros(len(rows))
        self._shares[drawn] = balanced_shares(rows.take(drawn), wanted, limit)
        self._order = np.lexsort((rows.level, rows.grade))
        draws = len(dataset) if count is None else whole("count", count, least=1)
        self._plan = DrawPlan(self._shares[self._order], draws, dataset.seed)
        self._asked = {
            "grade_weights": None
            if wanted is None
            else {str(grade): share for grade, share in sorted(wanted.items())},
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


def balanced_shares(
    rows: VertebraColumns, grades: Mapping[int, float] | None, limit: float
) -> Shares:
    """Return the share of each vertebra, all above 0 and summing to 1."""
    shares = _even_within_levels(rows)
    for grade in np.unique(rows.grade):
        members = rows.grade == grade
        held = shares[members].sum()
        one_by_one = np.arange(members.sum())
        evened = _capped(shares[members] / held, one_by_one, _GRADE_TIMES / len(one_by_one))
        shares[members] = evened * (held if grades is None else grades[int(grade)])
    _, subject = np.unique(rows.subject_id, return_inverse=True)
    return _capped(shares, subject, limit)


def _even_within_levels(rows: VertebraColumns) -> Shares:
    """Return shares in which levels keep their frequency, and grades are even at each level."""
    levels, level = np.unique(rows.level, return_inverse=True)
    grades, grade = np.unique(rows.grade, return_inverse=True)
    counts = np.zeros((len(levels), len(grades)))
    np.add.at(counts, (level, grade), 1)
    cell = counts.sum(axis=1) / len(rows) / (counts > 0).sum(axis=1)
    return np.asarray(cell[level] / counts[level, grade])


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


def _drawn(rows: VertebraColumns, grades: Mapping[int, float] | None) -> Flags:
    """Return which vertebrae have a grade that is drawn."""
    if grades is None:
        return np.ones(len(rows), dtype=np.bool_)
    return np.isin(rows.grade, [grade for grade, share in grades.items() if share > 0])


def _limit(subject_id: npt.NDArray[np.str_], asked: float | None) -> float:
    """Return the greatest share of one subject, if those that are drawn from can meet it."""
    subjects = len(np.unique(subject_id))
    if asked is None:
        return min(1.0, _SUBJECT_TIMES / subjects)
    limit = finite("max_subject_share", asked)
    if limit * subjects < 1 - _CLOSE:
        raise UsageError(
            f"max_subject_share={limit:g} cannot be met by {subjects} subjects with the grades "
            f"that are drawn: it must be at least {1 / subjects:g}."
        )
    return limit


def _grade_shares(
    rows: VertebraColumns, weights: Mapping[int, float] | None
) -> dict[int, float] | None:
    """Return the share of each grade that was asked for; None if none was."""
    present = np.unique(rows.grade).tolist()
    if not present:
        raise UsageError(
            "The dataset has no vertebra to draw; see dataset.excluded for the reasons."
        )
    if weights is None:
        return None
    asked = _numbers(weights)
    absent = sorted(set(asked) - set(present))
    total = sum(asked.values())
    if absent or not total > 0 or min(asked.values()) < 0:
        raise UsageError(
            f"grade_weights={weights!r}: grades here are {present}; give each 0 or more, "
            f"and one of them more."
        )
    return {grade: weight / total for grade, weight in asked.items()}


def _numbers(weights: object) -> dict[int, float]:
    if not isinstance(weights, Mapping):
        raise UsageError(
            f"grade_weights={weights!r} is not a mapping, such as {{0: 1, 2: 1, 3: 1}}."
        )
    return {
        whole("a grade of grade_weights", grade, least=-1): finite(
            f"grade_weights[{grade!r}]", weight
        )
        for grade, weight in weights.items()
    }


def _of_vertebrae(dataset: object) -> VertebraDataset:
    if isinstance(dataset, VertebraDataset):
        return dataset
    raise UsageError(
        f"BalancedSampler draws vertebrae, not from a {type(dataset).__name__}; "
        f"serve them with unit='vertebra'."
    )
