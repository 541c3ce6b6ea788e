"""Checks of where data are and come from: folders, disks, releases, stores, OSF."""

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
from verse_data.doctor.checks import GB, Check, ok, problem, warning
from verse_data.errors import DiskFull, PermissionDenied, VerseDataError, counted
from verse_data.files import nearest_existing
from verse_data.progress import spell_bytes
from verse_data.releases import catalog
from verse_data.releases.history import command
from verse_data.releases.osf_probe import reach_osf
from verse_data.releases.repository import Repository, repositories
from verse_data.releases.urls import redacted
from verse_data.volumes.cache import cache_size, leftover_size
from verse_data.volumes.remote import RemoteStores

_WHOLE: Final = 12 * GB
"""Bytes of verse19 as published; its stores are about as large."""
_LINKS: Final = "symbolic links"
_LOCKS: Final = "locks between processes"
_REMEDIES: Final = {
    _LINKS: f"DataLad's own commands need them: set {config.HOME_VARIABLE} to another disk",
    _LOCKS: "Run one process at a time there: two may do the same work twice; results stay right",
}


def folder_checks(settings: Config, *, root: object) -> Iterator[Check]:
    """Try out the folders of releases and stores; `root` is the caller's option."""
    origin = f"the platform's; {config.HOME_VARIABLE} is not set"
    if root is not None:
        origin = "--root"
    elif os.environ.get(config.HOME_VARIABLE):
        origin = config.HOME_VARIABLE
    yield folder_check("releases folder", settings.releases, origin=origin)
    yield folder_check("stores folder", settings.stores, origin=origin)


def folder_check(name: str, folder: Path, *, origin: str) -> Check:
    """Try in `folder`, or where it would be made, what the package does there; leave nothing."""
    place, here = f"{folder} ({origin})", folder.exists()
    try:
        lacking = _try_out(nearest_existing(folder))
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        fact = f"{place} cannot be written: {error.strerror or error}"
        remedy = f"export {config.HOME_VARIABLE}=FOLDER, a folder of yours with room in it"
        if here and not full:
            fact += "; existing files can be used, and nothing can be added"
            return warning(name, fact, remedy)
        return problem(name, fact, remedy, DiskFull if full else PermissionDenied)
    fact = f"{place} {'can be written' if here else 'is not there yet, and can be made'}"
    if lacking:
        fact += f"; {' and '.join(lacking)} do not work there"
        return warning(name, fact, _REMEDIES[lacking[0]])
    return ok(name, f"{fact}; {_LINKS} and {_LOCKS} work")


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
                lacking.append(_LOCKS)  # both got the lock
        except filelock.Timeout:
            pass
        except (OSError, NotImplementedError):
            lacking.append(_LOCKS)
    return lacking


def disk_checks(settings: Config) -> Iterator[Check]:
    """Compare the free space on the disks of releases and stores with the size of verse19."""
    releases, stores = nearest_existing(settings.releases), nearest_existing(settings.stores)
    if releases.stat().st_dev == stores.stat().st_dev:
        yield disk_check("disk", shutil.disk_usage(releases).free, needed=2 * _WHOLE)
    else:
        yield disk_check("disk of releases", shutil.disk_usage(releases).free, needed=_WHOLE)
        yield disk_check("disk of stores", shutil.disk_usage(stores).free, needed=_WHOLE)


def disk_check(name: str, free: int, *, needed: int) -> Check:
    """Return a check of `free` bytes on a disk where the whole of verse19 takes `needed`."""
    if free >= needed:
        return ok(name, f"{spell_bytes(free)} free")
    return warning(
        name,
        f"{spell_bytes(free)} free; the whole of verse19 takes about {spell_bytes(needed)} there",
        f"verse-data cache prune; or a part: verse-data get verse19 --split test; or "
        f"{config.HOME_VARIABLE} on a larger disk",
    )


def release_checks(settings: Config) -> Iterator[Check]:
    """Yield for each release how much of it is here; a broken one does not hide the others."""
    datasets = repositories(settings)
    if not datasets:
        yield ok("releases", f"none is here; the catalog knows {', '.join(catalog.names())}")
    for dataset in datasets:
        try:
            yield _release(dataset)
        except (VerseDataError, OSError, ValueError) as error:
            fact, remedy = f"cannot be read: {error}", command(dataset, "status")
            yield warning(f"release {dataset.name}", fact, remedy)


def _release(dataset: Repository) -> Check:
    version = dataset.resolve()
    lock = dataset.lock(version)
    here = {file.annex_key: file.size for file in lock.files if dataset.has(file)}
    count = sum(file.annex_key in here for file in lock.files)
    fact = (
        f"{version}, lock sha256:{lock.digest[:12]}, {count:,} of {len(lock.files):,} files here, "
        f"{spell_bytes(sum(here.values()))}, at {dataset.path}"
    )
    return ok(f"release {dataset.name}", fact)


def stores_check(settings: Config) -> Check:
    """Count the stores and leftovers of dead processes; check where machines share stores."""
    count, nbytes = cache_size(settings.stores)
    fact = f"{counted(count, 'store')}, {spell_bytes(nbytes)}"
    if url := settings.stores_url:
        place = redacted(url) if "://" in url else url
        fact += f"; shared ones at {place} ({config.STORES_VARIABLE})"
        try:
            RemoteStores(url, settings.stores).check()
        except VerseDataError as error:
            return problem("stores", f"{fact} cannot be used", str(error), error)
    left, left_bytes = leftover_size(settings.stores)
    if not left:
        return ok("stores", fact)
    fact += f"; {counted(left, 'leftover')} of dead processes, {spell_bytes(left_bytes)}"
    return warning("stores", fact, "verse-data cache prune")


def osf_check(settings: Config) -> Check:
    """Send OSF one small request, unless the network is forbidden."""
    if settings.offline:
        fact = f"not asked: the network is forbidden (--offline, or {config.OFFLINE_VARIABLE})"
        return ok("OSF", fact)
    try:
        reach_osf(settings)
    except VerseDataError as error:
        remedy = "What is here works without it. For a closer look: verse-data doctor --osf"
        return warning("OSF", str(error), remedy)
    return ok("OSF", f"{redacted(settings.osf_api)} responds")
