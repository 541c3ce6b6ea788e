"""Building the stores of many scans: each on its own, in processes here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import NetworkError, StorageError, UsageError, VerseDataError, counted
from verse_data.progress import Progress, conclude, silent
from verse_data.volumes.cluster import build_on
from verse_data.volumes.pool import in_processes
from verse_data.volumes.recipe import Recipe, ScanSource, fingerprint
from verse_data.volumes.store import ensure_store, store_path
from verse_data.volumes.sweeping import sweep_stores

if TYPE_CHECKING:
    from verse_data.volumes.remote import RemoteStores

_NAMED: Final = 10
"""Failed scans that a message names."""

__all__ = ["build_stores", "ensure_store"]


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
    """Build the stores of `sources` that are not there yet.

    Each scan is independent: one that cannot be used does not stop the others, and what is built
    stays, so a run that was stopped goes on where it was. Leftovers of dead processes are swept.

    Parameters
    ----------
    sources : sequence of ScanSource
        The scans.
    recipe : Recipe
        What is done to them.
    stores : Path
        Root of the stores.
    workers : int
        Processes. Each holds two slabs of a volume, about 0.2 GB in all for 512 x 512 slices; with
        a recipe that resamples, the volume before and after.
    client : distributed.Client, optional
        Build on the workers of this Dask cluster instead; they must see sources and `stores`.
    remote : RemoteStores, optional
        Take stores from its URL where it has them, and upload there what is built. Its local
        copies lie below its own root; `stores` is not used.
    progress : Progress
        Told of each scan that is done.

    Returns
    -------
    dict
        Store of each ``scan_id``.

    Raises
    ------
    UsageError
        If `workers` is less than one.
    IntegrityError, UnsafeInput, ValidationFailed
        The first error of a scan, once all scans were tried; it says how many others failed.
    StorageError, NetworkError
        At once, after the scans in the making are done: the disk or the network is not a scan's.
    """
    if workers < 1:
        message = f"workers={workers}: give the number of processes, 1 or more."
        raise UsageError(message)
    root = remote.cache if remote else stores
    sweep_stores(root)
    build: Callable[[ScanSource], Path] = (
        partial(remote.ensure, recipe=recipe)
        if remote
        else partial(ensure_store, recipe=recipe, stores=stores)
    )
    attempt = partial(_attempt, build)
    built: dict[str, Path | VerseDataError] = {}
    with progress("Building the cache", len(sources), "items") as advance:

        def done(source: ScanSource, store: Path | VerseDataError) -> None:
            built[source.scan_id] = store
            advance(1)

        waiting = []
        for source in sources:
            here = store_path(root, fingerprint(source.keys, recipe)).is_dir()
            if here or (workers <= 1 and client is None):
                done(source, attempt(source))
            else:
                waiting.append(source)
        if waiting and client is not None:
            build_on(client, attempt, waiting, done=done)
        elif waiting:
            for source, store in in_processes(attempt, waiting, workers=workers):
                done(source, store)
    stores_here = _all_or_error({source.scan_id: built[source.scan_id] for source in sources})
    conclude(progress, f"{counted(len(stores_here), 'store')} at {root}")
    return stores_here


def _attempt(build: Callable[[ScanSource], Path], source: ScanSource) -> Path | VerseDataError:
    """Build one store; return the error where only this scan can be at fault."""
    try:
        return build(source)
    except (StorageError, NetworkError):
        raise  # the next scan would fare no better
    except VerseDataError as error:
        return error


def _all_or_error(built: dict[str, Path | VerseDataError]) -> dict[str, Path]:
    """Return the stores, or raise the first error with a count of them all."""
    stores = {name: path for name, path in built.items() if isinstance(path, Path)}
    failed = {name: error for name, error in built.items() if isinstance(error, VerseDataError)}
    if not failed:
        return stores
    first = next(iter(failed.values()))
    if len(built) == 1:
        raise first
    names = ", ".join(list(failed)[:_NAMED]) + (", ..." if len(failed) > _NAMED else "")
    message = (
        f"{len(failed)} of {len(built)} scans failed ({names}); {counted(len(stores), 'other is', 'others are')} "
        f"in the cache. {first}"
    )
    raise type(first)(message)
