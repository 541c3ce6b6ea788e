"""Checks of the folders of releases and stores, their disks, and what lies in them."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import filelock

from verse_data import config
from verse_data.config import Config
from verse_data.doctor.check import GB, Check, size
from verse_data.errors import DiskFull, PermissionDenied, StorageError, VerseDataError, counted
from verse_data.records.lock import is_release_name
from verse_data.releases import catalog
from verse_data.releases.commands import command
from verse_data.releases.dataset import ReleaseDataset
from verse_data.releases.reach import shown
from verse_data.volumes.cache import cache_size, leftover_size
from verse_data.volumes.remote import RemoteStores

_WHOLE: Final = 12 * GB
"""Bytes of verse19 as published; its stores take about as much."""
_LINKS: Final = "symbolic links"
_LOCKS: Final = "locks between processes"
_LACKING: Final = {
    _LINKS: f"DataLad's own commands need them: set {config.HOME_VARIABLE} to another disk",
    _LOCKS: "Run one process at a time there: two may do the same work twice; results stay right",
}


def folder_checks(settings: Config, *, root: object) -> Iterator[Check]:
    """Try out the folders of releases and stores; `root` is what the caller asked for."""
    if root is not None:
        decided = "--root"
    elif os.environ.get(config.HOME_VARIABLE):
        decided = config.HOME_VARIABLE
    else:
        decided = f"the platform's; {config.HOME_VARIABLE} is not set"
    yield folder_check("releases folder", settings.releases, decided=decided)
    yield folder_check("stores folder", settings.stores, decided=decided)


def folder_check(name: str, folder: Path, *, decided: str) -> Check:
    """Try in `folder`, or where it would be made, what the package does in it; leave nothing there."""
    existing, place = _existing(folder), f"{folder} ({decided})"
    try:
        lacking = _try_out(existing)
    except OSError as error:
        return _unwritable(name, place, error, here=folder.exists())
    made = "can be written" if folder.exists() else "is not there yet, and can be made"
    if lacking:
        fact = f"{place} {made}; {' and '.join(lacking)} do not work there"
        return Check(name=name, state="warning", fact=fact, remedy=_LACKING[lacking[0]])
    return Check(name=name, state="ok", fact=f"{place} {made}; {_LINKS} and {_LOCKS} work")


def _unwritable(name: str, place: str, error: OSError, *, here: bool) -> Check:
    """Return a problem, unless what lies there already can still be used."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    kind: type[StorageError] = DiskFull if full else PermissionDenied
    fact = f"{place} cannot be written: {error.strerror or error}"
    remedy = f"export {config.HOME_VARIABLE}=FOLDER, a folder of yours with room in it"
    if here and not full:
        fact += "; what is in it can be used, and nothing can be added"
        return Check(name=name, state="warning", fact=fact, remedy=remedy)
    code = kind.exit_code
    return Check(name=name, state="problem", fact=fact, remedy=remedy, exit_code=code)


def _try_out(folder: Path) -> list[str]:
    """Return what does not work in `folder`; OSError if nothing can be written."""
    lacking = []
    with tempfile.TemporaryDirectory(prefix=".verse-data-doctor-", dir=folder) as name:
        file, link, lock = (Path(name) / part for part in ("file", "link", "lock"))
        file.write_bytes(bytes(4096))
        try:
            link.symlink_to(file.name)
        except OSError:
            lacking.append(_LINKS)
        try:
            with filelock.FileLock(lock), filelock.FileLock(lock, timeout=0):
                lacking.append(_LOCKS)  # both were given it
        except filelock.Timeout:
            pass
        except (OSError, NotImplementedError):
            lacking.append(_LOCKS)
    return lacking


def disk_checks(settings: Config) -> Iterator[Check]:
    """Compare the room on the disks of releases and stores with what verse19 takes."""
    releases, stores = _existing(settings.releases), _existing(settings.stores)
    if releases.stat().st_dev == stores.stat().st_dev:
        yield disk_check("disk", _free(releases), needed=2 * _WHOLE)
    else:
        yield disk_check("disk of releases", _free(releases), needed=_WHOLE)
        yield disk_check("disk of stores", _free(stores), needed=_WHOLE)


def disk_check(name: str, free: int, *, needed: int) -> Check:
    """Return what `free` bytes mean on a disk where verse19 as a whole takes `needed`."""
    if free >= needed:
        return Check(name=name, state="ok", fact=f"{size(free)} free")
    return Check(
        name=name,
        state="warning",
        fact=f"{size(free)} free; the whole of verse19 takes about {size(needed)} there",
        remedy="verse-data cache prune; or a part: verse-data get verse19 --split test; or "
        f"{config.HOME_VARIABLE} on a larger disk",
    )


def release_checks(settings: Config) -> Iterator[Check]:
    """Say for each release how much of it is here; one that is broken hides no other."""
    # Version 0.1 kept releases beside the stores, and they are used there.
    places = [place for place in (settings.releases, settings.home / "releases") if place.is_dir()]
    names = sorted({path.name for place in places for path in place.iterdir()})
    names = [name for name in names if is_release_name(name)]
    datasets = [ReleaseDataset(settings.release(name), config=settings) for name in names]
    datasets = [dataset for dataset in datasets if dataset.exists()]
    if not datasets:
        fact = f"none is here; the catalog knows {', '.join(catalog.names())}"
        yield Check(name="releases", state="ok", fact=fact)
    for dataset in datasets:
        try:
            yield _release(dataset)
        except (VerseDataError, OSError, ValueError) as error:
            name, fact = f"release {dataset.name}", f"cannot be read: {error}"
            yield Check(name=name, state="warning", fact=fact, remedy=command(dataset, "status"))


def _release(dataset: ReleaseDataset) -> Check:
    version = dataset.resolve()
    lock = dataset.lock(version)
    here = {file.annex_key: file.size for file in lock.files if dataset.has(file)}
    count = sum(file.annex_key in here for file in lock.files)
    fact = (
        f"{version}, lock sha256:{lock.digest[:12]}, {count:,} of {len(lock.files):,} files here, "
        f"{size(sum(here.values()))}"
    )
    return Check(name=f"release {dataset.name}", state="ok", fact=f"{fact}, at {dataset.path}")


def stores_check(settings: Config) -> Check:
    """Count the stores and what dead processes have left; look where machines share them."""
    count, nbytes = cache_size(settings.stores)
    left, left_bytes = leftover_size(settings.stores)
    fact = f"{counted(count, 'store')}, {size(nbytes)}"
    if url := settings.stores_url:
        place = shown(url) if "://" in url else url
        fact += f"; shared ones at {place} ({config.STORES_VARIABLE})"
        try:
            RemoteStores(url, settings.stores).check()
        except VerseDataError as error:
            return Check(
                name="stores",
                state="problem",
                fact=f"{fact} cannot be used",
                remedy=str(error),
                exit_code=error.exit_code,
            )
    if not left:
        return Check(name="stores", state="ok", fact=fact)
    return Check(
        name="stores",
        state="warning",
        fact=f"{fact}; {counted(left, 'leftover')} of dead processes, {size(left_bytes)}",
        remedy="verse-data cache prune",
    )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
