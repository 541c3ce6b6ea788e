"""Work in fresh processes that start from a plain script, a notebook and standard input alike."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from verse_data.errors import StorageError

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with its result, as they are done, out of at most `workers` processes.

    They are spawned: a fork would inherit the locks of threads that torch and others have started.
    A spawned process begins by running the caller's main module once more, so that a script
    without ``if __name__ == "__main__":`` would start itself for ever. Ours need nothing of it, and
    do not see it: a pool starts processes when it is given tasks, and never later.

    Ctrl-C is for the caller alone: it lets the tasks that have begun end, and starts no other.

    Raises
    ------
    StorageError
        If a process was killed, as the kernel does where memory runs out.
    Exception
        The first that `function` raises, once the tasks that had begun are done.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        with _main_hidden(), _interrupts_ignored():
            futures = {pool.submit(function, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            message = (
                f"One of {workers} worker processes was killed, most likely because memory ran "
                f"out. What is finished stays: run it again with fewer workers (--workers 1)."
            )
            raise StorageError(message) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Show multiprocessing an empty main module."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that Ctrl-C at the terminal, which all of a group receive, does not reach."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what becomes of a signal
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
