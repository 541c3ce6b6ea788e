"""The order of an epoch, its parts for each rank, and how to go on in the middle of it.

The order is a pure function of (seed, epoch). Ranks take every `world_size`-th sample of it, and
the state of a run is (epoch, offset), bound to seed, dataset and sampler. The offset is counted
over all ranks: a run may go on with another number of workers, and of ranks.
"""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch.utils.data import Dataset, Sampler, get_worker_info

from verse_data.errors import UsageError
from verse_data.files import sha256_of_json
from verse_data.training.arguments import finite, one_of, whole
from verse_data.training.draw import ORDER, DrawPlan, Shares, class_weights, permutation
from verse_data.training.rows import Rows

if TYPE_CHECKING:
    import pandas as pd

_WATCHED_WORKERS = 64
_CLOSE = 1e-9
_SUBJECT_TIMES = 3.0
_GRADE_TIMES = 2.0


class EpochDataset(Dataset[Any], ABC):
    """A dataset whose sample follows from seed, epoch and number, whoever makes it."""

    unit: str

    def __init__(self, seed: int) -> None:
        self.seed = whole("seed", seed)
        # In shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        # A line for each worker: the epoch and number of the sample that it is making.
        self._work = torch.full((_WATCHED_WORKERS, 2), -1)
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()  # a pickled or deeply copied tensor is private; one sent to a worker is not

    def _share(self) -> None:
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._work.share_memory_()  # type: ignore[no-untyped-call]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples of an epoch."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What is equal for datasets that serve the same samples."""

    @abstractmethod
    def place(self, epoch: int, index: int) -> str:
        """Return the words by which errors name sample `index` of `epoch`."""

    def note_work(self, epoch: int, number: int) -> None:
        """Note what this worker makes, -1 for nothing; outside of workers, nothing is noted."""
        worker = get_worker_info()
        if worker is not None and worker.id < _WATCHED_WORKERS:
            self._work[worker.id, 0], self._work[worker.id, 1] = epoch, number

    def in_work(self) -> list[str]:
        """Return the places of the samples that workers have begun and not finished."""
        return [self.place(epoch, number) for epoch, number in self._work.tolist() if epoch >= 0]

    def forget_work(self) -> None:
        """Forget what earlier workers were at."""
        self._work.fill_(-1)

    @property
    def epoch(self) -> int:
        """The epoch that ``dataset[i]`` draws for."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Draw for `epoch` from now on, in workers that already run as well."""
        self._epoch[0] = whole("epoch", epoch)


class EpochSampler(Sampler[tuple[int, int]]):
    """Gives ``(epoch, number)`` for each sample that this rank takes, in order.

    Parameters
    ----------
    dataset : ServedDataset
        What is drawn from; its seed is used.
    shuffle : bool
        Whether each epoch has an order of its own; else samples come in the dataset's order.
    rank, world_size : int, optional
        Which part of the epoch is taken; both or neither. By default what ``torch.distributed``
        says if it is initialised, else rank 0 of 1.
    uneven : {"pad", "exact"}
        Where ranks do not divide the epoch. ``"pad"``: the first samples are repeated until all
        ranks have the same number, which lock-step training needs; :attr:`padded` says how many.
        ``"exact"``: every sample once over all ranks, and some ranks have one fewer.

    Raises
    ------
    UsageError
        If rank and world size make no sense.
    """

    def __init__(
        self,
        dataset: EpochDataset,
        *,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Literal["pad", "exact"] = "pad",
    ) -> None:
        self.dataset = dataset
        self.shuffle = bool(shuffle)
        self.rank, self.world_size = _rank_of(rank, world_size)
        self.uneven = one_of("uneven", uneven, ("pad", "exact"))
        self.epoch = dataset.epoch
        self._count = len(dataset)
        self._offset = 0

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples of `epoch`, over all ranks, without padding."""
        if self.shuffle:
            return permutation(len(self.dataset), self.dataset.seed, ORDER, epoch)
        return np.arange(len(self.dataset))

    @property
    def padded(self) -> int:
        """Number of samples that are served again in what is to come, so that ranks are even."""
        return -(self._count - self._offset) % self.world_size if self.uneven == "pad" else 0

    def __len__(self) -> int:
        """Return the number of samples that this rank takes in a whole epoch."""
        return self._taken(0, self.rank)

    @property
    def remaining(self) -> int:
        """Number of samples that this rank still takes in this epoch."""
        return self._taken(self._offset, self.rank)

    @property
    def steps_left(self) -> int:
        """Number of samples that the rank with most still takes in this epoch."""
        return self._taken(self._offset, 0)

    def _taken(self, offset: int, rank: int) -> int:
        first = offset if self.uneven == "pad" else offset + rank
        return len(range(first, self._count, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order, epoch = self.order(self.epoch), self.epoch
        # What is left is padded, not the epoch: a run may go on with another number of ranks. And
        # with the epoch's first samples: resumed or not, the same ones are repeated.
        numbers = np.concatenate([order[self._offset :], np.resize(order, self.padded)])
        for number in numbers[self.rank :: self.world_size]:
            yield epoch, int(number)

    def set_epoch(self, epoch: int) -> None:
        """Start `epoch` from its beginning; where it is the current one, go on in it.

        Trainers call this before each epoch, also before one that a checkpoint has brought back.
        """
        self.dataset.set_epoch(epoch)
        if self.dataset.epoch != self.epoch:
            self.epoch, self._offset = self.dataset.epoch, 0

    def state_dict(self, *, served: int = 0) -> dict[str, Any]:
        """Return where the run is: plain JSON, and the same on every rank after the same steps.

        Parameters
        ----------
        served : int
            Samples that this rank has been given since the epoch, or the resumed part of it,
            began. A sampler cannot know: workers fetch ahead. ``EpochLoader`` counts it.
        """
        epoch, offset = self.epoch, self._offset + whole("served", served) * self.world_size
        # Asked of all ranks together: each must say the same after the same number of samples.
        if offset >= max(self._count, 1):
            epoch, offset = epoch + 1, 0
        return {**self._bound(), "epoch": epoch, "offset": offset}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises
        ------
        UsageError
            If it is no such state, or belongs to another seed, to a dataset that serves something
            else, or to a sampler of another class or with other options than ranks and `uneven`.
        """
        bound = self._bound()
        if not isinstance(state, Mapping) or set(state) != {*bound, "epoch", "offset"}:
            raise UsageError(
                f"This is not the state of a run, as state_dict() gives it: {reprlib.repr(state)}."
            )
        for key, mine in bound.items():
            if state[key] != mine:
                raise UsageError(
                    f"This state is of a run with {key} {state[key]!r}, and this one's is {mine!r}. "
                    f"Build dataset and sampler with the same release, version, options and seed."
                )
        epoch = whole("state['epoch']", state["epoch"])
        offset = whole("state['offset']", state["offset"], below=max(self._count, 1))
        self.set_epoch(epoch)
        self._offset = offset

    def _bound(self) -> dict[str, Any]:
        """Return what a state is bound to."""
        options = {"class": type(self).__name__, **self.options}
        return {
            "seed": self.dataset.seed,
            "dataset": self.dataset.fingerprint,
            "sampler": sha256_of_json(options),
        }

    @property
    def options(self) -> dict[str, Any]:
        """What, beside the dataset, decides the order over all ranks; plain JSON."""
        return {"shuffle": self.shuffle}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(epoch={self.epoch}, rank {self.rank} of {self.world_size}, "
            f"{self.remaining} samples to come, {self.padded} padded over all ranks)"
        )


def _rank_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is None and world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1
    try:
        ranks = whole("world_size", world_size, least=1)
        return whole("rank", rank, below=ranks), ranks
    except UsageError as error:
        raise UsageError(f"{error} Of rank= and world_size=, give both or neither.") from error


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

    def __init__(
        self,
        dataset: EpochDataset,
        *,
        grade_weights: Mapping[int, float] | None = None,
        max_subject_share: float | None = None,
        count: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, **options)
        if dataset.unit != "vertebra":
            raise UsageError(
                f"BalancedSampler draws vertebrae, not from a {type(dataset).__name__}; serve them "
                f"with unit='vertebra'."
            )
        rows: Rows = dataset.rows  # type: ignore[attr-defined]
        if not len(rows):
            raise UsageError("The dataset has no vertebra to draw; dataset.excluded says why.")
        wanted = _grade_shares(rows, grade_weights)
        drawn = np.isin(rows["grade"], [grade for grade, share in wanted.items() if share])
        limit = _limit(rows["subject_id"][drawn], max_subject_share)
        self._shares = np.zeros(len(rows))
        asked = None if grade_weights is None else wanted
        self._shares[drawn] = balanced_shares(rows[drawn], asked, limit)
        self._order = np.lexsort((rows["level"], rows["grade"]))
        self._count = len(dataset) if count is None else whole("count", count, least=1)
        self._plan = DrawPlan(self._shares[self._order], self._count, dataset.seed)
        self._asked: dict[str, Any] = {
            "grade_weights": asked
            and {str(grade): share for grade, share in sorted(asked.items())},
            "max_subject_share": limit,
            "count": self._count,
        }

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples of `epoch`, over all ranks, without padding."""
        numbers = np.asarray(self._order[self._plan.items(epoch)], dtype=np.int64)
        return numbers if self.shuffle else np.sort(numbers)

    @property
    def options(self) -> dict[str, Any]:
        """What, beside the dataset, decides the order over all ranks; plain JSON."""
        return {**super().options, **self._asked}

    @property
    def shares(self) -> pd.DataFrame:
        """Scan, subject, level, grade and share of each vertebra; the shares sum to 1."""
        table: pd.DataFrame = self.dataset.vertebrae  # type: ignore[attr-defined]
        return table.assign(share=self._shares)


def _grade_shares(rows: Rows, weights: Mapping[int, float] | None) -> dict[int, float]:
    """Return the share of each grade that is drawn over all levels, if it was asked for."""
    names = {grade: str(grade) for grade in np.unique(rows["grade"]).tolist()}
    found = class_weights("grade_weights", "grade", weights, names)
    total = sum(found.values())
    return {grade: weight / total for grade, weight in found.items()}


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


def balanced_shares(rows: Rows, grades: Mapping[int, float] | None, limit: float) -> Shares:
    """Return the share of each vertebra, all above 0 and summing to 1."""
    shares = _even_within_levels(rows)
    for grade in np.unique(rows["grade"]):
        members = rows["grade"] == grade
        held = shares[members].sum()
        one_by_one = np.arange(members.sum())
        evened = _capped(shares[members] / held, one_by_one, _GRADE_TIMES / len(one_by_one))
        shares[members] = evened * (held if grades is None else grades[int(grade)])
    _, subject = np.unique(rows["subject_id"], return_inverse=True)
    return _capped(shares, subject, limit)


def _even_within_levels(rows: Rows) -> Shares:
    """Return shares in which levels keep their frequency, and grades are even at each level."""
    levels, level = np.unique(rows["level"], return_inverse=True)
    grades, grade = np.unique(rows["grade"], return_inverse=True)
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
