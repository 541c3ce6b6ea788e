"""What runs in a worker beside the dataset, and what the parent sees of it: its errors and its death."""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import get_worker_info

from verse_data.training.samples import check_plain, named

_WATCHED = 64
_LOOK_S = 1.0


def shared(tensor: torch.Tensor) -> torch.Tensor:
    """Move `tensor` to shared memory, where workers see what the parent writes, and vice versa."""
    moved: torch.Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return moved


def in_worker() -> bool:
    """Return whether this process is a worker of a ``DataLoader``."""
    return get_worker_info() is not None


def watch(batches: Any) -> None:
    """Let torch's iterator look every second for dead workers while it waits for a batch.

    Given a timeout, torch looks when that is over, unless this process is told of the death: of a
    worker that a fork server has started it is not. This uses a private part of torch's iterator;
    where a version of torch lacks it, such a death is noticed at the timeout.
    """
    if hasattr(batches, "_try_get_data") and "_try_get_data" not in vars(batches):
        # A weak reference: torch ends the workers when the iterator's last one goes.
        batches._try_get_data = functools.partial(_looking, weakref.ref(batches))  # noqa: SLF001


def _looking(reference: weakref.ref[Any], timeout: float = _LOOK_S) -> tuple[bool, Any]:
    batches: Any = reference()
    end = time.monotonic() + timeout
    while True:
        left = max(end - time.monotonic(), 0.0)
        found: tuple[bool, Any] = type(batches)._try_get_data(batches, min(left, _LOOK_S))  # noqa: SLF001
        if found[0] or left <= _LOOK_S:
            return found


class WorkBoard:
    """A line for each of the first 64 workers: the epoch and number of the sample it is making."""

    def __init__(self) -> None:
        self._lines = shared(torch.full((_WATCHED, 2), -1))

    def __setstate__(self, state: dict[str, torch.Tensor]) -> None:
        self._lines = shared(state["_lines"])  # after pickling or a deep copy, shared anew

    def begin(self, epoch: int, number: int) -> None:
        """Note that this worker makes a sample; outside of workers, nothing is noted."""
        worker = get_worker_info()
        if worker is not None and worker.id < _WATCHED:
            self._lines[worker.id, 0], self._lines[worker.id, 1] = epoch, number

    def end(self) -> None:
        """Note that this worker is done with it."""
        worker = get_worker_info()
        if worker is not None and worker.id < _WATCHED:
            self._lines[worker.id, 0] = -1

    def begun(self) -> list[tuple[int, int]]:
        """Return what has been begun and not finished: epoch and number."""
        return [(epoch, number) for epoch, number in self._lines.tolist() if epoch >= 0]

    def clear(self) -> None:
        """Forget what earlier workers were at."""
        self._lines.fill_(-1)


_SHOWN = 4


class GuardedCollate:
    """Calls `collate`; whatever goes wrong is an error of ours that names the scans.

    In a worker, an exception of a local class or a batch that cannot be pickled would otherwise
    hang the loader until its timeout.

    Parameters
    ----------
    collate : callable
        The loader's ``collate_fn``.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        """Return the batch."""
        try:
            batch = self.collate(samples)
            if in_worker():
                check_plain(batch, in_worker=True, key="batch", none_too=True)
        except (Exception, SystemExit) as error:
            raise named(_place(samples), error) from error
        return batch


class GuardedStart:
    """Calls `start` as ``worker_init_fn``; whatever goes wrong is an error of ours.

    Parameters
    ----------
    start : callable
        The loader's ``worker_init_fn``.
    """

    def __init__(self, start: Callable[[int], object]) -> None:
        self.start = start

    def __call__(self, worker: int) -> None:
        """Call it in worker number `worker`."""
        try:
            self.start(worker)
        except (Exception, SystemExit) as error:
            raise named(f"worker_init_fn of worker {worker}", error) from error


def _place(samples: Any) -> str:
    listed = samples if isinstance(samples, list) else [samples]
    ids = [str(s["scan_id"]) for s in listed if isinstance(s, dict) and "scan_id" in s]
    more = " …" if len(ids) > _SHOWN else ""
    return f"collate_fn on {', '.join(ids[:_SHOWN]) or 'samples'}{more}"
