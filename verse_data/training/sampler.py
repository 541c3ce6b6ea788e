"""The order of an epoch, its division over ranks, and how to resume in the middle of it.

The order is a pure function of (seed, epoch). Ranks take every `world_size`-th sample of it, and
the state of a run is (epoch, offset), bound to seed, dataset and sampler. The offset counts the
samples of all ranks: a run may be resumed with another number of workers and of ranks.
"""

from __future__ import annotations

import mmap
import operator
import os
import reprlib
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch.utils.data import Dataset, Sampler, get_worker_info

from verse_data.errors import UsageError, one_of
from verse_data.files import sha256_of_json
from verse_data.training.arguments import finite, whole
from verse_data.training.draw import ORDER, DrawPlan, Shares, class_weights, permutation
from verse_data.training.rows import Rows
from verse_data.volumes.reader import Empty, fresh

if TYPE_CHECKING:
    import pandas as pd

_WATCHED_WORKERS = 64
_ROUNDING = 1e-9
_SUBJECT_FACTOR = 3.0
"""Default limit of a subject's share, as a multiple of an even share."""
_GRADE_FACTOR = 2.0
"""Limit of a vertebra's share within its grade, as a multiple of an even share."""
Index = int | tuple[int, int]  # number of a sample in the current epoch, or (epoch, number)


class SharedNumbers:
    """Numbers shared with workers: by the mapping if forked, else by its file. A copy is independent."""

    def __init__(self, rows: npt.NDArray[np.int64], file: Any = None) -> None:
        self._file = _nameless_file() if file is None else file.detach()
        weakref.finalize(self, os.close, self._file)
        if file is None:
            os.write(self._file, rows.tobytes())
        self.rows = np.frombuffer(mmap.mmap(self._file, rows.nbytes), np.int64).reshape(rows.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedNumbers, (self.rows.copy(), get_spawning_popen() and DupFd(self._file))


def _nameless_file() -> int:
    with suppress(AttributeError, OSError):  # not Linux, or one that forbids it
        return os.memfd_create("verse-data")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class EpochDataset(Dataset[Any], ABC):
    """A dataset whose samples depend only on seed, epoch and number, not on the process."""

    unit: str
    transform: Callable[[Any], Any] | None = None

    def __init__(self, seed: int) -> None:
        self.seed = whole("seed", seed)
        # The epoch; then, by worker, epoch and number of its sample. Not in /dev/shm, which may be missing.
        self._shared = SharedNumbers(np.array([[0, 0]] + [[-1, -1]] * _WATCHED_WORKERS))

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples of an epoch."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Digest that is equal for datasets that serve the same samples."""

    @abstractmethod
    def read(self, epoch: int, number: int, empty: Empty = fresh) -> Any:
        """Return sample `number` of `epoch` before the transform; safe in any thread."""

    @abstractmethod
    def transformed(self, sample: Any, epoch: int, number: int) -> Any:
        """Return what ``dataset[epoch, number]`` returns, from what :meth:`read` does."""

    def __getitem__(self, index: Index) -> Any:
        """Return one sample: number `index` of the current epoch, or ``(epoch, number)``."""
        given, number = index if isinstance(index, tuple) else (self.epoch, index)
        epoch, number = whole("epoch", given), operator.index(number)
        if not -len(self) <= number < len(self):
            raise IndexError(f"There is no sample {number}; there are {len(self):,}.")
        number %= len(self)
        self.note_work(epoch, number)
        try:
            return self.transformed(self.read(epoch, number), epoch, number)
        finally:
            self.note_work(-1, -1)

    @abstractmethod
    def name_of(self, epoch: int, index: int) -> str:
        """Return the name of sample `index` of `epoch` in errors."""

    def note_work(self, epoch: int, number: int) -> None:
        """Record which sample this worker makes, -1 for none; does nothing outside of workers."""
        worker = get_worker_info()
        if worker is not None and worker.id < _WATCHED_WORKERS:
            self._shared.rows[1 + worker.id] = epoch, number

    def in_work(self) -> list[str]:
        """Return the names of the samples that workers have begun and not finished."""
        return [self.name_of(*row) for row in self._shared.rows[1:].tolist() if row[0] >= 0]

    def forget_work(self) -> None:
        """Clear the records of earlier workers."""
        self._shared.rows[1:] = -1

    @property
    def epoch(self) -> int:
        """The epoch of ``dataset[i]``."""
        return int(self._shared.rows[0, 0])

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the current one, also in running workers."""
        self._shared.rows[0, 0] = whole("epoch", epoch)


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(epoch, number)`` for each sample of this rank, in order.

    Parameters
    ----------
    dataset : ServedDataset
        The samples; its seed is used.
    shuffle : bool
        Whether each epoch has a random order of its own; else samples are in the dataset's order.
    rank, world_size : int, optional
        The part of the epoch; both or neither. By default those of ``torch.distributed`` if it is
        initialised, else rank 0 of 1.
    uneven : {"pad", "exact"}
        If the epoch cannot be divided evenly by the ranks. ``"pad"``: the first samples are
        repeated until all ranks have the same number, as synchronous training requires;
        :attr:`padded` is how many. ``"exact"``: every sample once over all ranks, and some ranks
        have one fewer.

    Raises
    ------
    UsageError
        If rank and world size are invalid.
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
        """Number of samples repeated in the rest of this epoch, so that all ranks have as many."""
        return -(self._count - self._offset) % self.world_size if self.uneven == "pad" else 0

    def __len__(self) -> int:
        """Return the number of samples of this rank in a whole epoch."""
        return self._taken(0, self.rank)

    @property
    def remaining(self) -> int:
        """Number of samples of this rank that are left in this epoch."""
        return self._taken(self._offset, self.rank)

    @property
    def steps_left(self) -> int:
        """Number of samples that are left in this epoch for the rank with most."""
        return self._taken(self._offset, 0)

    def _taken(self, offset: int, rank: int) -> int:
        first = offset if self.uneven == "pad" else offset + rank
        return len(range(first, self._count, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order, epoch = self.order(self.epoch), self.epoch
        # The rest of the epoch is padded, not the epoch: a run may resume with another number of
        # ranks. Resumed or not, the epoch's first samples are the ones that are repeated.
        numbers = np.concatenate([order[self._offset :], np.resize(order, self.padded)])
        for number in numbers[self.rank :: self.world_size]:
            yield epoch, int(number)

    def set_epoch(self, epoch: int) -> None:
        """Start `epoch` from its beginning, or continue it if it is the current one.

        Trainers call this before each epoch, also before one that is resumed from a checkpoint.
        """
        self.dataset.set_epoch(epoch)
        if self.dataset.epoch != self.epoch:
            self.epoch, self._offset = self.dataset.epoch, 0

    def state_dict(self, *, served: int = 0) -> dict[str, Any]:
        """Return the position of the run as plain JSON, equal on every rank after the same steps.

        Parameters
        ----------
        served : int
            Samples of this rank since the start of the epoch, or of its resumed part. A sampler
            cannot know it, as workers prefetch; ``EpochLoader`` counts it.
        """
        epoch, offset = self.epoch, self._offset + whole("served", served) * self.world_size
        # By the samples of all ranks: each rank must return the same after the same steps.
        if offset >= max(self._count, 1):
            epoch, offset = epoch + 1, 0
        return {**self._bound(), "epoch": epoch, "offset": offset}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where `state` was taken.

        Raises
        ------
        UsageError
            If it is not such a state, or belongs to another seed, to a dataset with other samples,
            or to a sampler of another class or with other options; ranks and `uneven` may differ.
        """
        bound = self._bound()
        if not isinstance(state, Mapping) or set(state) != {*bound, "epoch", "offset"}:
            raise UsageError(
                f"This is not the state of a run, as from state_dict(): {reprlib.repr(state)}. A state "
                f"has {', '.join(sorted({*bound, 'epoch', 'offset'}))}."
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
        """Return the seed and fingerprints that a state is bound to."""
        options = {"class": type(self).__name__, **self.options}
        return {
            "seed": self.dataset.seed,
            "dataset": self.dataset.fingerprint,
            "sampler": sha256_of_json(options),
        }

    @property
    def options(self) -> dict[str, Any]:
        """All options that the order over all ranks depends on, as plain JSON."""
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
    """Draws vertebrae with replacement: grades evenly at each level, with a limit for each subject.

    A network that sees only healthy vertebrae at one level, and only fractures at another, learns
    to recognise levels. So each level is drawn as often as it occurs in the dataset, and the grades
    that occur at a level equally often. Then shares are limited: that of a vertebra to twice the
    average of its grade, and that of a subject to `max_subject_share`. The excess is distributed
    over the others in proportion, which makes the grades at a level slightly uneven; the excess of
    subjects may raise other vertebrae above twice the average.

    Every vertebra of a drawn grade has a share. Each epoch draws it in proportion to its share,
    exact to within one, in a random order of its own.

    Limits: at a level without a fracture, only healthy vertebrae are drawn; a grade that occurs in
    one patient only is drawn from that patient; and as some levels have no fracture, grade 0 is
    drawn more often than the others over all levels, unless `grade_weights` are given.

    Parameters
    ----------
    dataset : VertebraDataset
        The vertebrae to draw from.
    grade_weights : mapping of int to float, optional
        Relative frequency of each grade over all levels; grades without a weight are not drawn. The
        grades at a level are then uneven if other levels lack some of them. By default grades are
        even within each level, and their frequency over all levels follows from that.
    max_subject_share : float, optional
        Upper limit of the share of one subject; by default three times an even share of those with
        a vertebra that is drawn. The limit takes precedence over the grades: if one subject has all
        severe fractures, they stay rare.
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
        if not hasattr(dataset, "vertebrae"):
            raise UsageError(
                f"BalancedSampler draws vertebrae, not from a {type(dataset).__name__}; serve them "
                f"with unit='vertebra'."
            )
        rows: Rows = dataset.rows  # type: ignore[attr-defined]
        if not len(rows):
            raise UsageError("The dataset has no vertebra to draw; dataset.excluded says why.")
        by_grade = _grade_shares(rows, grade_weights)
        drawn = np.isin(rows["grade"], [grade for grade, share in by_grade.items() if share])
        limit = _limit(rows["subject_id"][drawn], max_subject_share)
        self._shares = np.zeros(len(rows))
        given = None if grade_weights is None else by_grade
        self._shares[drawn] = balanced_shares(rows[drawn], given, limit)
        self._order = np.lexsort((rows["level"], rows["grade"]))
        self._count = len(dataset) if count is None else whole("count", count, least=1)
        self._plan = DrawPlan(self._shares[self._order], self._count, dataset.seed)
        self._balancing: dict[str, Any] = {
            "grade_weights": given
            and {str(grade): share for grade, share in sorted(given.items())},
            "max_subject_share": limit,
            "count": self._count,
        }

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples of `epoch`, over all ranks, without padding."""
        numbers = np.asarray(self._order[self._plan.items(epoch)], dtype=np.int64)
        return numbers if self.shuffle else np.sort(numbers)

    @property
    def options(self) -> dict[str, Any]:
        """All options that the order over all ranks depends on, as plain JSON."""
        return {**super().options, **self._balancing}

    @property
    def shares(self) -> pd.DataFrame:
        """Scan, subject, level, grade and share of each vertebra; the shares sum to 1."""
        table: pd.DataFrame = self.dataset.vertebrae  # type: ignore[attr-defined]
        return table.assign(share=self._shares)


def _grade_shares(rows: Rows, weights: Mapping[int, float] | None) -> dict[int, float]:
    """Return the share of each grade that is drawn: its weight, or an even one without weights."""
    names = {grade: str(grade) for grade in np.unique(rows["grade"]).tolist()}
    found = class_weights("grade_weights", "grade", weights, names)
    total = sum(found.values())
    return {grade: weight / total for grade, weight in found.items()}


def _limit(subject_id: npt.NDArray[np.str_], max_share: float | None) -> float:
    """Return the largest share of one subject, or raise if `max_share` is below an even share."""
    subjects = len(np.unique(subject_id))
    if max_share is None:
        return min(1.0, _SUBJECT_FACTOR / subjects)
    limit = finite("max_subject_share", max_share)
    if limit * subjects < 1 - _ROUNDING:
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
        total = shares[members].sum()
        each = np.arange(members.sum())
        capped = _capped(shares[members] / total, each, _GRADE_FACTOR / len(each))
        shares[members] = capped * (total if grades is None else grades[int(grade)])
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
    """Reduce every group to `limit`, and distribute the excess over the others in proportion."""
    fixed = np.zeros(group.max() + 1, dtype=np.bool_)
    while True:
        sums = np.bincount(group, shares)
        over = (sums > limit * (1 + _ROUNDING)) & ~fixed
        if not over.any():
            return shares
        fixed |= over
        free = sums[~fixed].sum()
        factors = np.where(fixed, limit / np.maximum(sums, 1e-300), 1.0)
        if free > 0:
            factors[~fixed] = (1 - limit * fixed.sum()) / free
        shares = shares * factors[group]
