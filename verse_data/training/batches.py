"""Batches made by threads, in memory that is used again.

The reader decodes in C without the interpreter's lock, so threads of this process read as fast as
worker processes would, and nothing is copied from one process to another. The boxes of a batch are
decoded, cast and placed in one pass, straight into the tensor that is returned.

Memory is used again once nobody refers to it. A tensor made by ``torch.from_numpy`` keeps the array
that it was made from, and so do its views and the arrays made of it; a finalizer of that array
returns the memory. A batch that somebody keeps is therefore never overwritten.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from verse_data.errors import UsageError
from verse_data.spine.geometry import Array, Shape
from verse_data.training.sampler import EpochDataset
from verse_data.training.samples import Sample
from verse_data.volumes.reader import Empty

_log = logging.getLogger(__name__)
AHEAD = 1
"""Batches that wait, finished, beyond those that the threads are making."""
_LARGEST = 2
"""Memory is used again for an array that fills at least 1 / 2 of it."""

Number = tuple[int, int]
"""Epoch, and number of a sample in it."""


class BatchMemory:
    """Memory for the volumes of batches; that of `count` volumes is kept for later ones.

    Where batches are pinned, torch allocates them: only its allocator knows when a copy to the GPU,
    which goes on after the tensor is gone, has ended.
    """

    def __init__(self, count: int, *, pinned: bool) -> None:
        # Only operations of a deque that are atomic: a finalizer may run at any point of any thread,
        # and in a forked child, where a lock might stay locked for ever.
        self._idle: deque[Array] = deque(maxlen=count)
        self.pinned = pinned

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """Return a tensor that is not initialised."""
        if self.pinned:
            return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self._taken(size)
        # Only the tensor may refer to `array`: a NumPy view of it would keep `memory` alone, and be
        # overwritten; a view of ``tensor.numpy()`` keeps the tensor.
        array = memory[:size].view(dtype).reshape(shape)
        weakref.finalize(array, self._idle.append, memory).atexit = False
        return torch.from_numpy(array)

    def _taken(self, size: int) -> Array:
        for _ in range(len(self._idle)):
            try:
                memory = self._idle.popleft()
            except IndexError:  # another thread took it
                break
            if size <= memory.nbytes <= size * _LARGEST:
                return memory
            self._idle.append(memory)
        return np.empty(size, dtype=np.uint8)


class _Places:
    """The volumes of one batch: a tensor for each key, with a place for each sample."""

    def __init__(self, memory: BatchMemory, count: int | None) -> None:
        self._memory, self._count = memory, count
        self._volumes: dict[str, torch.Tensor] = {}

    def allocator(self, number: int) -> Empty:
        """Return what allocates the volumes of sample `number` of the batch."""

        def empty(key: str, shape: Shape, dtype: str) -> Array:
            if self._count is None:
                return self._memory.empty(shape, dtype).numpy()
            if key not in self._volumes:
                self._volumes[key] = self._memory.empty((self._count, 1, *shape), dtype)
            place: Array = self._volumes[key][number, 0].numpy()
            fits = place.shape == tuple(shape) and place.dtype == dtype
            return place if fits else np.empty(shape, dtype)

        return empty

    def batch(self, samples: list[Sample], collate: Callable[[Any], Any]) -> Any:
        """Return the batch of `samples`, most of whose volumes lie in their places already."""
        if not self._volumes:
            return collate(samples)
        for key, volume in self._volumes.items():
            for place, sample in zip(volume, samples, strict=True):
                if sample[key].shape != place.shape:
                    return collate(samples)  # which refuses them, and says what to do
                if sample[key].data_ptr() != place.data_ptr():
                    place.copy_(sample[key])
        rest = collate([{k: v for k, v in s.items() if k not in self._volumes} for s in samples])
        return {
            key: self._volumes[key] if key in self._volumes else rest[key] for key in samples[0]
        }


@dataclass(frozen=True)
class BatchMaker:
    """Makes batches of a dataset, in two steps: one for any thread, one for the caller's."""

    dataset: EpochDataset
    memory: BatchMemory
    collate: Callable[[Any], Any]  # of a list of samples or, if not `batched`, of one sample
    batched: bool
    in_threads: bool
    """Whether samples are also finished and batched by threads. A transform or a function of the
    user's is not: it may draw from generators, which belong to the process."""

    def read(self, numbers: list[Number]) -> Any:
        """Read the samples of one batch, in any thread."""
        together = self.batched and self.in_threads
        places = _Places(self.memory, len(numbers) if together else None)
        samples = [
            self.dataset.read(*each, places.allocator(at)) for at, each in enumerate(numbers)
        ]
        return self._batch(samples, numbers, places) if self.in_threads else samples

    def finish(self, made: Any, numbers: list[Number]) -> Any:
        """Return the batch out of what :meth:`read` returned, in the caller's thread."""
        batch = made if self.in_threads else self._batch(made, numbers, None)
        # Image and label are pinned already, and returned as they are.
        return pin_memory(batch) if self.memory.pinned else batch  # type: ignore[no-untyped-call]

    def _batch(self, raw: list[Sample], numbers: list[Number], places: _Places | None) -> Any:
        samples = [self.dataset.transformed(s, *n) for s, n in zip(raw, numbers, strict=True)]
        if not self.batched:
            return self.collate(samples[0])
        return places.batch(samples, self.collate) if places else self.collate(samples)


def made_by_threads(
    maker: BatchMaker, batches: Iterator[list[Number]], *, threads: int
) -> Iterator[Any]:
    """Yield a batch for each of `batches`, in order; `threads` read ahead of the caller."""
    process = os.getpid()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="verse-data")
    _log.debug("%d threads read batches ahead", threads)
    before = None
    try:
        first = itertools.islice(batches, threads + AHEAD)
        ahead = deque((numbers, pool.submit(maker.read, numbers)) for numbers in first)
        while ahead:
            numbers, future = ahead.popleft()
            read = future.result()
            if following := next(batches, None):
                ahead.append((following, pool.submit(maker.read, following)))
            batch = maker.finish(read, numbers)
            del future, read
            yield batch
            # Only now is the batch before this one freed. The caller would free it after the threads
            # were given work; and for each tensor that is freed, torch gives up the interpreter's
            # lock, which it gets back after up to 5 ms.
            before = batch  # noqa: F841
            del batch
            if os.getpid() != process:
                raise UsageError(
                    "This iterator belongs to the process that started it, whose threads a fork does "
                    "not copy. Iterate over the loader anew in this process: for batch in loader."
                )
    finally:
        if os.getpid() == process:
            pool.shutdown(cancel_futures=True)
