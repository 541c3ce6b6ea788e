"""Looking after the stores on this machine: list, verify, prune, size."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from verse_data.errors import IntegrityError, StorageError
from verse_data.progress import Progress, silent
from verse_data.publishing import discard
from verse_data.volumes.layout import ATTRIBUTES
from verse_data.volumes.manifest import (
    files_below,
    load_manifest,
    other_format,
    read_metadata,
    verify_store,
)
from verse_data.volumes.sweeping import folders, stale, sweep_stores

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_DAY: Final = 86400.0


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """One store on this machine.

    Attributes
    ----------
    path : Path
        Its folder.
    fingerprint : str
        Its name.
    nbytes : int
        Bytes of its files.
    age_days : float
        Days since it was built.
    scan_id : str or None
        Whose it is; None if its metadata cannot be read.
    image : str or None
        git-annex key of its CT; the locks that list it say which releases it belongs to.
    recipe : dict
        What was done to the volumes.
    error : str or None
        Why its metadata cannot be read; voxels are not looked at here.
    state : {"sound", "damaged", "earlier_format", "later_format", "unreadable"}
        The formats are those of other versions of this package; ``unreadable`` is a store that the
        disk or its permissions keep from being read.
    releases : tuple of str
        Releases on this machine whose lock lists its CT; empty where nobody looked.
    """

    path: Path
    fingerprint: str
    nbytes: int
    age_days: float
    scan_id: str | None = None
    image: str | None = None
    recipe: dict[str, Any]
    error: str | None = None
    state: Literal["sound", "damaged", "earlier_format", "later_format", "unreadable"] = "sound"
    releases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """What was, or would be, removed: stores, leftovers of dead processes, bytes of both."""

    stores: tuple[Path, ...]
    leftovers: tuple[Path, ...]
    nbytes: int


def store_folders(stores: Path) -> Iterator[Path]:
    """Yield the folders of all stores below `stores`, sorted by name."""
    for folder in folders(stores):
        for path in sorted(folder.iterdir()):
            ours = _FINGERPRINT.fullmatch(path.name) and path.name.startswith(folder.name)
            if ours and path.is_dir():
                yield path


def list_stores(stores: Path) -> list[StoreInfo]:
    """Describe all stores below `stores`; reads metadata only."""
    found = []
    for path in store_folders(stores):
        with suppress(FileNotFoundError):
            described = _describe(path)
            path.lstat()  # if another process has pruned it, what was read of it means nothing
            found.append(described)
    return found


def _describe(path: Path) -> StoreInfo:
    facts: dict[str, Any] = {
        "path": path,
        "fingerprint": path.name,
        "nbytes": _nbytes(path),
        "age_days": max(0.0, (time.time() - path.lstat().st_mtime) / _DAY),
    }
    try:
        manifest = load_manifest(path)
        attributes = read_metadata(path, manifest)["attributes"][ATTRIBUTES]
    except IntegrityError as error:
        age = other_format(path)
        facts["state"] = f"{age}_format" if age else "damaged"
        return StoreInfo(**facts, recipe={}, error=str(error))
    except StorageError as error:
        return StoreInfo(**facts, recipe={}, error=str(error), state="unreadable")
    return StoreInfo(
        **facts,
        scan_id=manifest.scan_id,
        image=attributes["source"]["image"],
        recipe=attributes["recipe"],
    )


def verify_stores(
    stores: Path, *, repair: bool = False, progress: Progress = silent
) -> dict[Path, list[IntegrityError | StorageError]]:
    """Read every byte of every store and hold it against its manifest.

    Stores of another version's layout are left alone.

    Parameters
    ----------
    stores : Path
        Root of the stores.
    repair : bool
        Whether to remove damaged stores; they are built again when next used. Those that merely
        cannot be read stay.
    progress : Progress
        Told of the bytes read.

    Returns
    -------
    dict
        What is wrong with each damaged store; empty if all is well.
    """
    paths = list(store_folders(stores))
    sizes = [_nbytes(path) for path in paths]
    damaged: dict[Path, list[IntegrityError | StorageError]] = {}
    with progress("Verifying stores", sum(sizes), "bytes") as advance:
        for path, size in zip(paths, sizes, strict=True):
            found = verify_store(path)
            # Another process may have pruned it meanwhile.
            if found and path.is_dir() and other_format(path) is None:
                damaged[path] = found
                if repair and any(isinstance(error, IntegrityError) for error in found):
                    discard(path)
            advance(size)
    return damaged


def prune(
    stores: Path,
    *,
    images: Collection[str] | None = None,
    keep: Iterable[str] | None = None,
    older_than_days: float | None = None,
    earlier_formats: bool = False,
    everything: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Remove leftovers of dead processes, damaged stores, and the stores that are asked for.

    Stores of another version's layout go only with `everything` or by age, those of earlier ones
    with `earlier_formats` too.

    Parameters
    ----------
    stores : Path
        Root of the stores.
    images : collection of str, optional
        Only stores of CTs with these keys, such as those of a release; alone, all of them.
    keep : iterable of str, optional
        Fingerprints still in use: all other stores go.
    older_than_days : float, optional
        Stores built longer ago than this go.
    earlier_formats : bool
        Whether stores go that earlier versions of this package wrote, and this one does not serve.
    everything : bool
        Whether all stores go.
    dry_run : bool
        Whether only to say what would go.
    """
    kept = None if keep is None else set(keep)
    asked = everything or kept is not None or older_than_days is not None or images is not None

    def aged(store: StoreInfo) -> bool:
        return older_than_days is None or store.age_days > older_than_days

    def goes(store: StoreInfo) -> bool:
        if store.state == "damaged":
            return True
        if store.state == "earlier_format" and earlier_formats:
            return True
        if store.state != "sound":
            return everything or (older_than_days is not None and images is None and aged(store))
        if not asked or (images is not None and store.image not in images):
            return False
        return aged(store) and (kept is None or store.fingerprint not in kept)

    going = [store for store in list_stores(stores) if goes(store)]
    swept = stale(stores)
    nbytes = sum(store.nbytes for store in going) + sum(map(_nbytes, swept))
    if not dry_run:
        sweep_stores(stores)
        for store in going:
            discard(store.path)
    return Pruned(tuple(store.path for store in going), tuple(swept), nbytes)


def cache_size(stores: Path) -> tuple[int, int]:
    """Return number and bytes of all stores below `stores`."""
    sizes = [_nbytes(path) for path in store_folders(stores)]
    return len(sizes), sum(sizes)


def leftover_size(stores: Path) -> tuple[int, int]:
    """Return number and bytes of what dead processes have left below `stores`."""
    found = stale(stores)
    return len(found), sum(map(_nbytes, found))


def _nbytes(store: Path) -> int:
    """Sum up the files of a store; one with several names (hard links) counts once."""
    seen: dict[tuple[int, int], int] = {}
    for path in (store, *files_below(store)):
        with suppress(FileNotFoundError):  # swept by another process meanwhile
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())
