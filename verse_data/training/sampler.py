"""The order of an epoch, its parts for each rank, and how to go on in the middle of it.

The order is a pure function of (seed, epoch). Ranks take every `world_size`-th sample of it, and
the state of a run is (epoch, offset), bound to seed, dataset and sampler. The offset is counted
over all ranks: a run may go on with another number of workers, and of ranks.
"""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch.utils.data import Dataset, Sampler

from verse_data.errors import UsageError
from verse_data.files import sha256_of_json
from verse_data.training.arguments import whole
from verse_data.training.draw import ORDER, permutation
from verse_data.training.workers import WorkBoard, shared

Uneven = Literal["pad", "exact"]


class EpochDataset(Dataset[Any], ABC):
    """A dataset whose sample follows from seed, epoch and number, whoever makes it."""

    def __init__(self, seed: int) -> None:
        self.seed = whole("seed", seed)
        # Shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = shared(torch.zeros(1, dtype=torch.int64))
        self._board = WorkBoard()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A pickled or deeply copied tensor is private again; one sent to a worker stays shared.
        self._epoch = shared(self._epoch)

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

    def in_work(self) -> list[str]:
        """Return the places of the samples that workers have begun and not finished."""
        return [self.place(epoch, number) for epoch, number in self._board.begun()]

    def forget_work(self) -> None:
        """Forget what earlier workers were at."""
        self._board.clear()

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
        uneven: Uneven = "pad",
    ) -> None:
        self.dataset = dataset
        self.shuffle = bool(shuffle)
        self.rank, self.world_size = _place(rank, world_size)
        if uneven not in {"pad", "exact"}:
            raise UsageError(f"uneven={uneven!r} is neither 'pad' nor 'exact'.")
        self.uneven = uneven
        self.epoch = self.dataset.epoch
        self._offset = 0

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples of `epoch`, over all ranks, without padding."""
        if self.shuffle:
            return permutation(len(self.dataset), self.dataset.seed, ORDER, epoch)
        return np.arange(len(self.dataset))

    def _total(self) -> int:
        return len(self.dataset)

    @property
    def padded(self) -> int:
        """Number of samples that are served again in what is to come, so that ranks are even."""
        return -(self._total() - self._offset) % self.world_size if self.uneven == "pad" else 0

    def __len__(self) -> int:
        """Return the number of samples that this rank takes in a whole epoch."""
        first = 0 if self.uneven == "pad" else self.rank
        return len(range(first, self._total(), self.world_size))

    @property
    def remaining(self) -> int:
        """Number of samples that this rank still takes in this epoch."""
        first = 0 if self.uneven == "pad" else self.rank
        return len(range(self._offset + first, self._total(), self.world_size))

    @property
    def steps_left(self) -> int:
        """Number of samples that the rank with most still takes in this epoch."""
        return len(range(self._offset, self._total(), self.world_size))

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
        if offset >= max(self._total(), 1):
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
        wanted = {*bound, "epoch", "offset"}
        if not isinstance(state, Mapping) or set(state) != wanted:
            raise UsageError(
                f"This is not the state of a run: it must be what state_dict() gave, with the "
                f"keys {', '.join(sorted(wanted))}; got {reprlib.repr(state)}."
            )
        for key, mine in bound.items():
            if state[key] != mine:
                raise UsageError(
                    f"This state is of a run with {key} {state[key]!r}, and this one's is "
                    f"{mine!r}: its order means nothing here. Build dataset and sampler with the "
                    f"same release, version, options and seed."
                )
        epoch = whole("state['epoch']", state["epoch"])
        offset = whole("state['offset']", state["offset"], below=max(self._total(), 1))
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


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is None and world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1
    try:
        ranks = whole("world_size", world_size, least=1)
        return whole("rank", rank, below=ranks), ranks
    except UsageError as error:
        raise UsageError(
            f"rank={rank!r}, world_size={world_size!r}: give both, with "
            f"0 <= rank < world_size, or neither."
        ) from error
