"""A ``DataLoader`` by threads or processes that can resume in the middle of an epoch."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import pickle
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader

from verse_data.errors import SampleError, StorageError, UsageError, VerseDataError
from verse_data.machine import allowed_cores
from verse_data.training.arguments import whole
from verse_data.training.batches import AHEAD, BatchMaker, BatchMemory, made_by_threads
from verse_data.training.sampler import EpochDataset, EpochSampler
from verse_data.training.samples import check_sendable, collate, named, ordinary_tensors

_log = logging.getLogger(__name__)
_TIMEOUT_S = 120.0
_MOST_THREADS = 4
_CHECK_S = 1.0
_SHARED_MEMORY_WORDS = ("shm", "bus error", "shared memory", "No space left")
_HINT = (
    "A worker that vanishes was most often killed for memory: use fewer workers, smaller batches or "
    "image_dtype='int16', and give a container more shared memory (docker run --shm-size=2g). One "
    "that hangs waits for something in your transform, or, where it is not forked, must import torch "
    "first: then give timeout= more seconds."
)


class EpochLoader(DataLoader[Any]):
    """One pass is one epoch; the next pass is the next epoch.

    An interrupted pass starts again at the next ``for``; to resume it, load the loader's own state.
    ``len(loader)`` is that of a whole epoch, also while only the rest of one is left, as trainers
    such as Lightning expect. :attr:`remaining` is the rest.

    Parameters
    ----------
    dataset : ServedDataset
        The samples.
    sampler : EpochSampler, optional
        Order and rank; by default a shuffled one.
    batch_size : int or None
        ``None`` returns single samples, unbatched.
    threads : int, optional
        Threads of this process that read batches ahead, into memory that is used again once nobody
        refers to it. By default as many as the cores that this process may use, 4 at most, and none
        with `num_workers`. 0 reads each batch when it is asked for. A `transform` or `collate_fn`
        runs in the thread that iterates, as the generators that it draws from belong to the process.
    num_workers : int
        Processes that make batches, for a transform that takes longer than a training step.
    timeout : float, optional
        Seconds after which a worker process that does not answer is an error; 120 by default.
    **options
        As of ``torch.utils.data.DataLoader``. ``collate_fn`` is torch's by default, or MONAI's where
        samples hold its ``MetaTensor``, so that the batch keeps the affine of each.

    Raises
    ------
    UsageError
        If `sampler` is not one of `dataset`, or ``shuffle`` is given; on iterating, if the dataset
        cannot be pickled for the workers.
    SampleError
        On iterating, if a worker dies or hangs; the text names the scans that it was reading.
    StorageError
        On iterating, if workers cannot be started because the machine lacks shared memory.

    Examples
    --------
    >>> loader = EpochLoader(dataset, batch_size=2, num_workers=2)  # doctest: +SKIP
    >>> for batch in loader:  # doctest: +SKIP
    ...     checkpoint["loader"] = loader.state_dict()
    """

    sampler: EpochSampler

    def __init__(
        self,
        dataset: EpochDataset,
        *,
        sampler: EpochSampler | None = None,
        batch_size: int | None = 1,
        threads: int | None = None,
        num_workers: int = 0,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        if "shuffle" in options or "batch_sampler" in options:
            raise UsageError(
                "Give the order by sampler=dataset.sampler(shuffle=…), not to the loader."
            )
        sampler = EpochSampler(dataset) if sampler is None else sampler
        if not isinstance(sampler, EpochSampler) or sampler.dataset is not dataset:
            raise UsageError(
                f"sampler={type(sampler).__name__}(…) is none of this dataset's, which alone can "
                f"stop and go on: give dataset.sampler(…), or BalancedSampler(dataset). With "
                f"Lightning on several devices: Trainer(use_distributed_sampler=False)."
            )
        plain = options.get("collate_fn") is None
        if batch_size is not None and plain:
            options["collate_fn"] = collate
        timeout = _TIMEOUT_S if timeout is None else timeout
        super().__init__(
            dataset,
            sampler=sampler,
            batch_size=batch_size,
            num_workers=num_workers,
            timeout=timeout if num_workers else 0,
            **options,
        )
        self.collate_fn = functools.partial(guarded_collate, self.collate_fn)
        if self.worker_init_fn is not None:
            self.worker_init_fn = functools.partial(guarded_start, self.worker_init_fn)
        self._served = 0
        # A subclass with its own __getitem__ is read through it, by torch and not by our threads.
        own_items = type(dataset).__getitem__ is not EpochDataset.__getitem__
        self.threads = _threads(0 if own_items and threads is None else threads, num_workers)
        if own_items and self.threads:
            raise UsageError(
                f"threads={threads}: {type(dataset).__name__} has its own __getitem__, which threads "
                f"of this package do not call. Leave threads out, or use num_workers."
            )
        self._plain = plain
        # For image and label of each batch in the making, waiting, and in the caller's hands; of
        # each sample where batches are made by the caller's thread.
        apart = 1 if plain and dataset.transform is None else batch_size or 1
        count = 2 * (self.threads + AHEAD + 2) * apart
        self._memory = BatchMemory(count, pinned=self.pin_memory and torch.cuda.is_available())

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._served = returned = 0
        expected = self.remaining
        self.sampler.dataset.forget_work()
        step = self.batch_size or 1
        for batch in self._by_threads() if self.threads else self._explained(self._started()):
            returned += 1
            # Whole steps, also if the last batch of this rank is short: ranks must agree.
            self._served += step
            yield batch
        if returned < expected:
            raise SampleError(
                f"The epoch ended after {returned} of {expected} batches without an error, as where "
                f"a sampler of your own gives fewer samples than it has."
            )
        self.sampler.set_epoch(self.sampler.epoch + 1)
        self._served = 0

    def __repr__(self) -> str:
        data = self.sampler.dataset
        return (
            f"EpochLoader(batch_size={self.batch_size}, threads={self.threads}, "
            f"num_workers={self.num_workers})\n"
            f"  epoch     {self.sampler.epoch}, {self.remaining:,} of {len(self):,} batches to come\n"
            f"  sampler   {self.sampler!r}\n"
            f"  dataset   {type(data).__name__} of {len(data):,} samples, fingerprint "
            f"{data.fingerprint[:12]}"
        )

    @property
    def remaining(self) -> int:
        """Number of batches of this epoch that have not been returned yet."""
        samples, size = max(self.sampler.remaining - self._served, 0), self.batch_size or 1
        return samples // size if self.drop_last else -(-samples // size)

    def _by_threads(self) -> Iterator[Any]:
        """Return the iterator over batches that threads of this process read."""
        # As torch draws one for its workers: the generator of the training run goes on from the same
        # state, whoever makes the batches.
        with ordinary_tensors():
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        maker = BatchMaker(
            self.sampler.dataset,
            self._memory,
            self.collate_fn,
            batched=self.batch_size is not None,
            in_threads=self._plain and self.sampler.dataset.transform is None,
        )
        singles = ([number] for number in self.sampler)
        batches = iter(singles if self.batch_sampler is None else self.batch_sampler)
        return made_by_threads(maker, batches, threads=self.threads)

    def _started(self) -> Iterator[Any]:
        """Return torch's iterator, with started workers."""
        try:
            if self.num_workers:
                # Before torch does it, which prints an error of its own where semaphores are missing.
                multiprocessing.get_context("fork").Lock()
            with ordinary_tensors():
                batches = super().__iter__()
        except OSError as error:
            raise StorageError(
                f"The workers cannot be started: {error}. They need processes, open files and shared "
                f"memory: a /dev/shm that can be written (docker run --shm-size=2g). Or leave "
                f"num_workers out: threads need none."
            ) from error
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if "pickle" not in str(error):
                raise
            raise UsageError(
                f"The workers could not be started: {error}. Those that are not forked get the "
                f"dataset by pickle: define transform, collate_fn and worker_init_fn at the top "
                f"level of a module, or give multiprocessing_context='fork'."
            ) from error
        watch(batches)
        return batches

    def _explained(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield `batches`; if a worker fails, raise an error that names its sample and a remedy."""
        try:
            yield from batches
        except Exception as error:
            lost = not isinstance(error, VerseDataError) and "DataLoader" in str(error)
            self._iterator = None
            # The error refers to the iterator, whose workers would live as long as the error does.
            # A private method of torch's iterator; an iterator without workers has none.
            getattr(batches, "_shutdown_workers", int)()
            # Batching in a worker needs shared memory; that error arrives as a SampleError.
            short = any(word in str(error) for word in _SHARED_MEMORY_WORDS)
            if not lost and not (short and isinstance(error, SampleError)):
                raise
            places = "; ".join(self.sampler.dataset.in_work()) or "none had begun"
            _log.warning("a worker failed while it made: %s", places)
            raise SampleError(
                f"A DataLoader worker failed: {error}\n  In work: {places}.\n  {_HINT}"
            ) from error

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the next pass; if it is the current one, the rest of it."""
        self.sampler.set_epoch(epoch)
        self._served = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run after the batches returned so far, as plain JSON."""
        served, left = self._served, self.sampler.steps_left
        if self.drop_last and served and left - served < (self.batch_size or 1):
            served = left  # the rest is dropped: this epoch is over
        return self.sampler.state_dict(served=served)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where `state` was taken: the next pass is the rest of its epoch.

        Raises
        ------
        UsageError
            If the state belongs to another dataset or seed.
        """
        self.sampler.load_state_dict(state)
        self._served = 0


def _threads(threads: int | None, num_workers: int) -> int:
    """Return the number of threads that read ahead, by default what the machine's cores allow."""
    if threads is None:
        return 0 if num_workers else min(_MOST_THREADS, max(1, int(allowed_cores())))
    if whole("threads", threads) and num_workers:
        raise UsageError(
            f"threads={threads} and num_workers={num_workers}: batches are made by threads of this "
            f"process or by processes of their own. Give one of them."
        )
    return threads


def guarded_collate(collate_fn: Callable[[Any], Any], samples: Any) -> Any:
    """Return the batch; turn any exception into an error of ours that names the scans."""
    # In a worker, an exception of a local class or a batch that cannot be pickled would otherwise
    # hang the loader until its timeout.
    try:
        with ordinary_tensors():
            batch = collate_fn(samples)
        check_sendable(batch)
    except (Exception, SystemExit) as error:
        listed = samples if isinstance(samples, list) else [samples]
        ids = [str(s["scan_id"]) for s in listed if isinstance(s, dict) and "scan_id" in s]
        raise named(f"collate_fn on {', '.join(ids) or 'samples'}", error) from error
    return batch


def guarded_start(start: Callable[[int], object], worker: int) -> None:
    """Call a ``worker_init_fn``; turn any exception into an error of ours."""
    try:
        start(worker)
    except (Exception, SystemExit) as error:
        raise named(f"worker_init_fn of worker {worker}", error) from error


def watch(batches: Any) -> None:
    """Make torch's iterator check every second for dead workers while it waits for a batch."""
    # With a timeout, torch checks only at its end, unless this process gets SIGCHLD, which it does
    # not for workers of a fork server. This uses a private method of torch's iterator; if a version
    # of torch lacks it, such a death is noticed at the timeout.
    if hasattr(batches, "_try_get_data"):
        # A weak reference: torch ends the workers with the iterator's last reference.
        batches._try_get_data = functools.partial(_get_data, weakref.ref(batches))  # noqa: SLF001


def _get_data(reference: weakref.ref[Any], timeout: float = _CHECK_S) -> tuple[bool, Any]:
    batches: Any = reference()
    end = time.monotonic() + timeout
    while True:
        left = max(end - time.monotonic(), 0.0)
        once = min(left, _CHECK_S)
        with ordinary_tensors():
            found: tuple[bool, Any] = type(batches)._try_get_data(batches, once)  # noqa: SLF001
        if found[0] or left <= _CHECK_S:
            return found
