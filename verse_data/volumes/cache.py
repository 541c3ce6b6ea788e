"""Maintenance of the stores on this machine: list, verify, prune, size."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from verse_data.errors import IntegrityError, StorageError
from verse_data.files import discard, sweep
from verse_data.progress import Progress, silent
from verse_data.volumes.layout import ATTRIBUTES
from verse_data.volumes.store import (
    EarlierFormat,
    LaterFormat,
    files_below,
    load_manifest,
    read_metadata,
    verify_store,
)

_DAY: Final = 86400.0


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """One store on this machine, from its metadata; voxels are not read.

    `scan_id` and `image`, the git-annex key of its CT, are None if its metadata cannot be read,
    for the reason `error`. Earlier and later formats are those of other versions of this package;
    ``unreadable`` is a store that the disk or its permissions keep from being read. `releases` are
    those on this machine whose lock lists its CT, if the caller filled them in.
    """

    path: Path
    fingerprint: str
    nbytes: int
    age_days: float
    scan_id: str | None = None
    image: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    state: Literal["sound", "damaged", "earlier_format", "later_format", "unreadable"] = "sound"
    releases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """What was, or would be, removed: stores, leftovers of dead processes, total bytes."""

    stores: tuple[Path, ...]
    leftovers: tuple[Path, ...]
    nbytes: int


def _folders(stores: Path) -> list[Path]:
    """Return the folders that hold stores, named by the first two digits of their fingerprints."""
    return sorted(path for path in stores.glob("[0-9a-f][0-9a-f]") if path.is_dir())


def _store_folders(stores: Path) -> list[Path]:
    return [
        path
        for folder in _folders(stores)
        for path in sorted(folder.iterdir())
        if re.fullmatch(f"{folder.name}[0-9a-f]{{62}}", path.name) and path.is_dir()
    ]


def list_stores(stores: Path) -> list[StoreInfo]:
    """Describe all stores below `stores`; reads metadata only."""
    found = []
    for path in _store_folders(stores):
        with suppress(FileNotFoundError):
            described = _describe(path)
            path.lstat()  # if another process has pruned it meanwhile, leave it out
            found.append(described)
    return found


def _describe(path: Path) -> StoreInfo:
    info = StoreInfo(
        path=path,
        fingerprint=path.name,
        nbytes=_nbytes(path),
        age_days=max(0.0, (time.time() - path.lstat().st_mtime) / _DAY),
    )
    try:
        manifest = load_manifest(path)
        attributes = read_metadata(path, manifest)["attributes"][ATTRIBUTES]
    except IntegrityError as error:
        return replace(info, error=str(error), state=getattr(error, "state", "damaged"))
    except StorageError as error:
        return replace(info, error=str(error), state="unreadable")
    image, recipe = attributes["source"]["image"], attributes["recipe"]
    return replace(info, scan_id=manifest.scan_id, image=image, recipe=recipe)


def verify_stores(
    stores: Path, *, repair: bool = False, progress: Progress = silent
) -> dict[Path, list[IntegrityError | StorageError]]:
    """Read every byte of every store; return the errors of each damaged one.

    Stores of another version's layout are skipped. `repair` removes damaged stores, which are built
    again when next used, but not those that merely cannot be read.
    """
    paths = list(_store_folders(stores))
    sizes = [_nbytes(path) for path in paths]
    damaged: dict[Path, list[IntegrityError | StorageError]] = {}
    with progress("Verifying stores", sum(sizes), "bytes") as advance:
        for path, size in zip(paths, sizes, strict=True):
            found = verify_store(path)
            # Another process may have pruned it meanwhile.
            if found and path.is_dir() and not isinstance(found[0], EarlierFormat | LaterFormat):
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
    """Remove leftovers of dead processes, damaged stores, and the stores that the options select.

    `images` are keys of CTs, such as those of a release, whose stores are removed (all, or those
    that the other options select); stores with a fingerprint in `keep` stay. Stores of another
    version's layout are removed only with `everything` or by age, or, if earlier, with
    `earlier_formats`.
    """
    kept = None if keep is None else set(keep)
    selecting = everything or kept is not None or older_than_days is not None or images is not None

    def is_removed(store: StoreInfo) -> bool:
        is_old = older_than_days is None or store.age_days > older_than_days
        if store.state == "damaged" or (store.state == "earlier_format" and earlier_formats):
            return True
        if store.state != "sound":
            return everything or (older_than_days is not None and images is None and is_old)
        has_image = images is None or store.image in images
        is_kept = kept is not None and store.fingerprint in kept
        return selecting and has_image and is_old and not is_kept

    removed = [store for store in list_stores(stores) if is_removed(store)]
    stale = sweep_stores(stores, dry_run=True)
    nbytes = sum(store.nbytes for store in removed) + sum(map(_nbytes, stale))
    if not dry_run:
        sweep_stores(stores)
        for store in removed:
            discard(store.path)
    return Pruned(tuple(store.path for store in removed), tuple(stale), nbytes)


def cache_size(stores: Path) -> tuple[int, int]:
    """Return number and bytes of all stores below `stores`."""
    return _count(_store_folders(stores))


def leftover_size(stores: Path) -> tuple[int, int]:
    """Return number and bytes of the leftovers of dead processes below `stores`."""
    return _count(sweep_stores(stores, dry_run=True))


def _count(paths: list[Path]) -> tuple[int, int]:
    return len(paths), sum(map(_nbytes, paths))


def sweep_stores(stores: Path, *, dry_run: bool = False) -> list[Path]:
    """Remove the leftovers of dead processes below `stores`; return them, also in a dry run."""
    return [path for folder in _folders(stores) for path in sweep(folder, dry_run=dry_run)]


def _nbytes(store: Path) -> int:
    """Return the total size of a store's files; hard links to one file count once."""
    seen: dict[tuple[int, int], int] = {}
    for path in (store, *files_below(store)):
        with suppress(FileNotFoundError):  # swept by another process meanwhile
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())
