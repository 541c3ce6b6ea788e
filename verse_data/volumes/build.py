"""Builds the stores of many scans, in local processes or on a Dask cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from verse_data.errors import (
    NetworkError,
    StorageError,
    ToolMissing,
    UsageError,
    VerseDataError,
    counted,
    warn,
)
from verse_data.progress import Progress, conclude, silent
from verse_data.volumes.cache import sweep_stores
from verse_data.volumes.recipe import Recipe, ScanSource, fingerprint
from verse_data.volumes.remote import RemoteStores
from verse_data.volumes.store import ensure_store, store_path

Task = TypeVar("Task")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_MAX_LISTED: Final = 10
"""Failed scans that a message lists."""
_CONNECT_SECONDS: Final = 10.0
_WATCH_SECONDS: Final = 0.5


def build_stores(
    sources: Sequence[ScanSource],
    recipe: Recipe,
    stores: Path,
    *,
    workers: int = 1,
    client: Any = None,
    remote: RemoteStores | None = None,
    progress: Progress = silent,
) -> dict[str, Path]:
    """Build the stores of `sources` that do not exist yet; return the paths by ``scan_id``.

    A scan that cannot be used does not stop the others: its error is raised after all scans were
    tried, and finished stores are kept. An error of disk or network is raised at once.
    Stores are built in `workers` processes, or on the workers of a Dask `client`. With `remote`
    they are downloaded from its URL, or built and uploaded there, and `stores` is not used.
    """
    if workers < 1:
        raise UsageError(f"workers={workers}: give the number of processes, 1 or more.")
    root = remote.cache if remote else stores
    sweep_stores(root)
    serial = workers == 1 and client is None
    # Somebody waits for a single one.
    told: Any = {"progress": progress} if serial and len(sources) == 1 else {}
    ensure = remote.ensure if remote else partial(ensure_store, stores=stores, **told)
    attempt = partial(_attempt, partial(ensure, recipe=recipe))
    built: dict[str, Path | VerseDataError] = dict.fromkeys((s.scan_id for s in sources), root)
    waiting = []
    with progress("Building the cache", len(sources), "items") as advance:
        for source in sources:
            if serial or store_path(root, fingerprint(source.keys, recipe)).is_dir():
                built[source.scan_id] = attempt(source)
                advance(1)
            else:
                waiting.append(source)
        if waiting:
            _log.info("building %d stores in %s", len(waiting), client or f"{workers} processes")
            done = (
                in_processes(attempt, waiting, workers=workers)
                if client is None
                else on_cluster(client, attempt, waiting)
            )
            for source, store in done:
                built[source.scan_id] = store
                advance(1)
    paths = _all_or_error(built)
    conclude(progress, f"{counted(len(paths), 'store')} at {root}")
    return paths


def _attempt(ensure: Callable[[ScanSource], Path], source: ScanSource) -> Path | VerseDataError:
    """Build one store; return the error if it concerns only this scan, else raise it."""
    try:
        return ensure(source)
    except (StorageError, NetworkError):
        raise  # the next scan would fail in the same way
    except VerseDataError as error:
        return error


def _all_or_error(built: dict[str, Path | VerseDataError]) -> dict[str, Path]:
    """Return the stores, or raise the first error with a count of them all."""
    failed = {name: error for name, error in built.items() if isinstance(error, VerseDataError)}
    if failed:
        first, names = next(iter(failed.values())), ", ".join(list(failed)[:_MAX_LISTED])
        if len(built) == 1:
            raise first
        raise type(first)(
            f"{len(failed)} of {len(built)} scans failed "
            f"({names}{', ...' * (len(failed) > _MAX_LISTED)}); "
            f"{counted(len(built) - len(failed), 'other is', 'others are')} in the cache. {first}"
        )
    return {name: path for name, path in built.items() if isinstance(path, Path)}


def in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with its result, as they finish, from at most `workers` processes."""
    # They are spawned: a fork would inherit the locks of threads that torch and others have
    # started. Ctrl-C reaches only the caller, which lets running tasks finish and starts no others.
    context = multiprocessing.get_context("spawn")
    options: Any = {"initializer": _end_with, "initargs": (os.getpid(),)}
    try:
        processes = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, **options)
    except (OSError, NotImplementedError) as error:  # semaphores lie in shared memory
        why = f"others need shared memory, a /dev/shm that can be written ({error})"
        warn(RuntimeWarning(f"Stores are built in this process: {why}; docker run --shm-size=2g."))
        yield from ((task, function(task)) for task in tasks)
        return
    with processes as pool:
        # A pool starts its processes when tasks are submitted, and never later.
        with _no_main(), _no_interrupts():
            futures = {pool.submit(function, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise StorageError(
                f"One of {workers} worker processes was killed, most likely because memory ran "
                f"out. What is finished stays: run it again with fewer workers (--workers 1)."
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _end_with(parent: int) -> None:
    """End this worker once its parent is gone: it would wait for tasks for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _no_main() -> Iterator[None]:
    """Replace the main module by an empty one for multiprocessing."""
    # A spawned process imports the caller's main module again: a script without
    # ``if __name__ == "__main__":`` would start itself for ever. Our tasks need nothing of it.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which the terminal sends to the whole process group."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def connect(address: str) -> Any:
    """Return a ``distributed.Client`` of the Dask scheduler at `address`, such as ``tcp://host:8786``."""
    distributed = _distributed()
    try:
        return distributed.Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise StorageError(
            f"No Dask scheduler answers at {address}: {error}. Start one with `dask scheduler`."
        ) from None


def on_cluster(
    client: Any, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with its result, as they finish, on the workers of a Dask cluster."""
    # A task is idempotent: if it runs twice, or again after its worker was killed, it makes the
    # same bytes, and publishing by rename makes the second run harmless. An error cancels pending
    # tasks.
    distributed = _distributed()
    if not isinstance(client, distributed.Client):
        raise UsageError(f"client= takes a distributed.Client, not {type(client).__name__}.")
    # Not pure: Dask must not return an earlier result, since files may have been deleted.
    futures = {client.submit(function, task, pure=False): task for task in tasks}
    try:
        for future in distributed.as_completed(futures):
            yield futures[future], future.result()
    except distributed.KilledWorker as error:
        client.cancel(list(futures))
        raise StorageError(
            f"The Dask workers that built a scan were killed, the last at {error.last_worker}, "
            f"most likely because memory ran out. What is finished stays: run it again with fewer "
            f"threads a worker, or more memory."
        ) from None
    except BaseException:
        client.cancel(list(futures))
        raise


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise ToolMissing(
            "Building on a cluster needs Dask: pip install dask distributed"
        ) from None
    return distributed
