"""Building stores on a Dask cluster: the one door to Dask.

Every worker sees the same folders, or the root of the stores is a URL. A task is idempotent: run
twice, or again after its worker was killed, it gives the same bytes, and publishing by rename
makes the second run harmless. So Dask may run a task as often as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from verse_data.errors import StorageError, ToolMissing, UsageError
from verse_data.volumes.recipe import ScanSource

Result = TypeVar("Result")

_SECONDS: Final = 10.0


def connect(address: str) -> Any:
    """Return a ``distributed.Client`` of the Dask scheduler at `address`, such as ``tcp://host:8786``.

    Raises
    ------
    ToolMissing
        If Dask is not installed.
    StorageError
        If nothing answers there.
    """
    distributed = _distributed()
    try:
        return distributed.Client(address, timeout=_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        message = (
            f"No Dask scheduler answers at {address}: {error}. Start one with `dask scheduler`."
        )
        raise StorageError(message) from None


def build_on(
    client: Any,
    build: Callable[[ScanSource], Result],
    sources: Sequence[ScanSource],
    *,
    done: Callable[[ScanSource, Result], None],
) -> None:
    """Run `build` on each source, on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster.
    build : callable
        Picklable; returns the store, or an error that stops no other scan.
    sources : sequence of ScanSource
        The scans; their paths must be readable on the workers.
    done : callable
        Told of each scan and what `build` returned.

    Raises
    ------
    UsageError
        If `client` is no Dask client.
    StorageError
        If a scan's workers were killed time and again.
    VerseDataError
        The first that `build` raises; scans that are not yet begun are cancelled.
    """
    distributed = _distributed()
    if not isinstance(client, distributed.Client):
        message = f"client= takes a distributed.Client, not {type(client).__name__}."
        raise UsageError(message)
    # Not pure: Dask must not answer from a result that it remembers, since files may be gone.
    futures = {client.submit(build, s, pure=False): s for s in sources}
    try:
        for future in distributed.as_completed(futures):
            done(futures[future], future.result())
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
