"""What runs in a worker beside the dataset: its errors and results must be able to leave it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verse_data.training.samples import check_plain, named
from verse_data.training.workers import in_worker

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
        """Return the batch.

        Raises
        ------
        SampleError
            If `collate` fails, or returns what cannot be sent from this worker.
        """
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
