"""Building stores on a Dask cluster: the one door to Dask.

Every worker sees the same folders, or the root of the stores is a URL. A task is idempotent: run
twice, or again after its worker was killed, it gives the same bytes, and publishing by rename
makes the second run harmless. So Dask may run a task as often as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from verse_data.errors import StorageError, ToolMissing, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")

_SECONDS: Final = 10.0


def connect(address: str) -> Any:
    """Return a ``distributed.Client`` of the Dask scheduler at `address`, such as ``tcp://host:8786``."""
    distributed = _distributed()
    try:
        return distributed.Client(address, timeout=_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        message = (
            f"No Dask scheduler answers at {address}: {error}. Start one with `dask scheduler`."
        )
        raise StorageError(message) from None


def on_cluster(
    client: Any, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with its result, as they are done, on the workers of a Dask cluster.

    The first error that `function` raises is raised, and tasks that are not yet begun are cancelled.
    """
    distributed = _distributed()
    if not isinstance(client, distributed.Client):
        message = f"client= takes a distributed.Client, not {type(client).__name__}."
        raise UsageError(message)
    # Not pure: Dask must not answer from a result that it remembers, since files may be gone.
    futures = {client.submit(function, task, pure=False): task for task in tasks}
    try:
        for future in distributed.as_completed(futures):
            yield futures[future], future.result()
    except distributed.KilledWorker as error:
        client.cancel(list(futures))
        message = (
            f"The Dask workers that built a scan were killed, the last at {error.last_worker}, "
            f"most likely because memory ran out. What is finished stays: run it again with fewer "
            f"threads a worker, or more memory."
        )
        raise StorageError(message) from None
    except BaseException:
        client.cancel(list(futures))
        raise


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        message = "Building on a cluster needs Dask: pip install dask distributed"
        raise ToolMissing(message) from None
    return distributed
