"""Opens the releases of this machine, lists them and their stores, and makes one of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from verse_data import config
from verse_data.adopting import PHANTOM, write_phantom
from verse_data.errors import Offline, UsageError, did_you_mean, warn
from verse_data.locks import key_lock
from verse_data.progress import Progress, default
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import ReleaseLock, is_release_name
from verse_data.release import Release
from verse_data.releases import catalog
from verse_data.releases.history import command
from verse_data.releases.import_lock import require_place
from verse_data.releases.osf import TRUST_ON_FIRST_USE, walk_node
from verse_data.releases.repository import Repository
from verse_data.releases.siblings import clone
from verse_data.releases.tree import check_series
from verse_data.releases.tree import lock_tree as hash_tree

if TYPE_CHECKING:
    from verse_data.volumes.cache import Pruned, StoreInfo


Root = str | os.PathLike[str] | None
_LISTING_SECONDS: Final = 6 * 3600.0


@dataclass(frozen=True)
class ReleaseInfo:
    """One line of :func:`list_releases`.

    Attributes
    ----------
    name, title : str
    versions : tuple of str
        What is on this machine, oldest first; empty if nothing is.
    """

    name: str
    title: str
    versions: tuple[str, ...]


def list_releases(*, root: Root = None) -> tuple[ReleaseInfo, ...]:
    """Return the releases that the catalog knows or that are on this machine, by name.

    Parameters
    ----------
    root : path, optional
        As in :func:`open_release`.

    Returns
    -------
    tuple of ReleaseInfo
        Name, title and versions of each.
    """
    settings = settle(root=root)
    here = {dataset.name: dataset.versions() for dataset in _datasets(settings)}
    known = {name: catalog.load_catalog(name).title for name in catalog.names()}
    return tuple(
        ReleaseInfo(name, known.get(name, "locked on this machine"), here.get(name, ()))
        for name in sorted(known.keys() | here.keys())
    )


def list_stores(*, root: Root = None) -> list[StoreInfo]:
    """Describe the stores on this machine; a store belongs to each release that lists its CT."""
    from verse_data.volumes import cache

    settings = settle(root=root)
    contents = _contents(settings)
    return [
        replace(
            store, releases=tuple(name for name, keys in contents.items() if store.image in keys)
        )
        for store in cache.list_stores(settings.stores)
    ]


def prune_stores(*, release: str | None = None, root: Root = None, **chosen: Any) -> Pruned:
    """Remove stores on this machine; as :func:`verse_data.volumes.cache.prune`, or of a release."""
    from verse_data.volumes import cache

    settings = settle(root=root)
    if release is None:
        return cache.prune(settings.stores, **chosen)
    contents = _contents(settings)
    if release not in contents:
        raise UsageError(
            f"There is no release {release!r} in {settings.releases} (found: "
            f"{', '.join(contents) or 'none'}), and only its lock says which stores are its own. "
            f"Choose by age instead: verse-data cache prune --older-than DAYS"
        )
    return cache.prune(settings.stores, images=contents[release], **chosen)


def _contents(settings: config.Config) -> dict[str, frozenset[str]]:
    """Return the keys of everything that each release here lists, in any version."""
    return {
        dataset.name: frozenset(
            key for version in dataset.versions() for key in dataset.tree_keys(version).values()
        )
        for dataset in _datasets(settings)
    }


def _datasets(settings: config.Config) -> list[Repository]:
    """Return the releases on this machine, by name."""
    places = [place for place in (settings.releases, settings.home / "releases") if place.is_dir()]
    names = sorted({path.name for place in places for path in place.iterdir()})
    names = [name for name in names if is_release_name(name)]  # and no half-built one
    found = (Repository(settings.release(name), config=settings) for name in names)
    return [dataset for dataset in found if dataset.exists()]


def open_release(
    name: str = "verse19",
    *,
    version: str | None = None,
    root: Root = None,
    offline: bool | None = None,
    make: bool = True,
    progress: Progress | None = None,
) -> Release:
    """Open a release; make it first where it is not on this machine.

    A release of the catalog is listed on OSF, twice, and locked; the phantom is written. No file of a
    published release is fetched for that.

    Parameters
    ----------
    name : str
        Such as ``"verse19"`` or ``"phantom"``.
    version : str, optional
        ``"v1"``, or ``"sha256:…"`` with at least 12 digits of a lock's digest. The newest if missing.
    root : path, optional
        One root of everything; default ``VERSE_DATA_HOME``, else the platform's data folder for
        releases and its cache folder for stores.
    offline : bool, optional
        Whether the network is forbidden; default ``VERSE_DATA_OFFLINE``.
    make : bool
        Whether a published release that is not here is listed and locked; the phantom always is made.
    progress : Progress, optional
        Told of every long step. Default: bars on a terminal or in a notebook, else lines on stderr.

    Returns
    -------
    Release
        At the version that was asked for.

    Raises
    ------
    UsageError
        If there is no such release or version.
    Offline
        If the release is not here and the network is forbidden.
    SourceChanged, NetworkError, IntegrityError
        If OSF cannot be listed; nothing was written.

    Warns
    -----
    TrustOnFirstUse
        If it was locked now: nothing published says what its files should be.
    """
    settings = settle(root=root, offline=offline)
    if version is not None and not isinstance(version, str):
        raise UsageError(f"version={version!r}: give a text such as 'v1', or None for the newest.")
    dataset = known_dataset(name, settings)
    entry = catalog.load_catalog(name) if name in catalog.names() else None
    if not dataset.exists() and (make or name == PHANTOM):
        make_release(dataset, entry, version, progress=progress or default())
    return Release(
        dataset, version=dataset.resolve(version), config=settings, catalog=entry, progress=progress
    )


def known_dataset(name: str, settings: config.Config) -> Repository:
    """Return the dataset of a release that is in the catalog or on this machine."""
    dataset = dataset_of(name, settings)
    if name not in catalog.names() and not dataset.exists():
        here = sorted({*catalog.names(), *(found.name for found in _datasets(settings))})
        raise UsageError(
            f"There is no release {name!r}; there are {', '.join(here)}.{did_you_mean(name, here)} A "
            f"folder of files becomes one with: {command(dataset, 'lock', '--from-tree', 'FOLDER')}"
        )
    return dataset


def make_release(
    dataset: Repository,
    entry: CatalogEntry | None,
    version: str | None = None,
    *,
    progress: Progress,
) -> None:
    """Make the first version of a release: write the phantom, or list and lock what OSF holds."""
    pinned = (version or "").startswith("sha256:")
    if not pinned and version not in {None, "v1"}:
        raise UsageError(
            f"No version of {dataset.name} is on this machine, and making it here gives v1, not "
            f"{version!r}. {_bring_lock(dataset, version)}"
        )
    if dataset.name != PHANTOM and dataset.config.offline:
        raise Offline(_not_here(dataset, entry))
    require_place(dataset.path)
    # A second first call waits for the first, which may list OSF for minutes, and finds what it made.
    with key_lock(dataset.config.home / "walks", f"{dataset.name}.make", timeout=_LISTING_SECONDS):
        if not dataset.exists():
            _make_first(dataset, entry, version if pinned else None, progress)


def _make_first(
    dataset: Repository, entry: CatalogEntry | None, pin: str | None, progress: Progress
) -> None:
    """Write the phantom, or lock what OSF lists."""
    if dataset.name == PHANTOM:
        write_phantom(dataset, progress)
    elif entry and entry.osf_node:
        lock = walk_node(
            entry.osf_node, config=dataset.config, release=dataset.name, progress=progress
        )
        if pin and not lock.digest.startswith(pin.removeprefix("sha256:")):
            raise UsageError(
                f"OSF lists {dataset.name} as the lock sha256:{lock.digest} now, not {pin}. Nothing "
                f"was written. {_bring_lock(dataset, pin)}"
            )
        dataset.publish(lock)
        warn(TrustOnFirstUse(lock))


class TrustOnFirstUse(UserWarning):
    """A release was locked by what its source said; nothing published says what it should be.

    Parameters
    ----------
    lock : ReleaseLock
        What was locked; the text has its digest, to be written down.
    """

    def __init__(self, lock: ReleaseLock) -> None:
        super().__init__(
            f"{lock.release} was locked on this machine now: {len(lock.files):,} files, "
            f"{lock.total_bytes:,} bytes, digest sha256:{lock.digest}. {TRUST_ON_FIRST_USE} Write the "
            f'digest down: open_release({lock.release!r}, version="sha256:{lock.digest[:12]}") opens '
            f"this version and no other."
        )


def _bring_lock(dataset: Repository, version: str | None) -> str:
    return (
        f"Bring the lock of {version} from a machine that has it: "
        f"{command(dataset, 'lock', '--from-lock', 'FILE')}. Or leave the version out."
    )


def _not_here(dataset: Repository, entry: CatalogEntry | None) -> str:
    title = f" ({entry.title})" if entry else ""
    return (
        f"{dataset.name}{title} is not on this machine: nothing of it, not even the list of "
        f"its files, lies at {dataset.path}, and the network is forbidden (offline). With the network it "
        f"comes with: {command(dataset, 'get')} (in Python: without offline=True, or download=True). "
        f"From another machine, bring its lock and its files: "
        f"{command(dataset, 'lock', '--from-lock', 'FILE')}, then {command(dataset, 'adopt', 'FOLDER')}"
    )


def lock_tree(
    name: str,
    folder: str | os.PathLike[str],
    *,
    root: Root = None,
    check: bool = True,
    progress: Progress | None = None,
) -> Release:
    """Make a release of files that lie on this machine: check, hash, publish, copy.

    Parameters
    ----------
    name : str
        Name of the release.
    folder : path
        A folder that holds ``rawdata/`` and ``derivatives/``, or several such folders.
    root : path, optional
        As in :func:`open_release`.
    check : bool
        Read every file before anything is written, and refuse a tree with a broken one.
    progress : Progress, optional
        Told of every long step.

    Returns
    -------
    Release
        The version that was made.

    Raises
    ------
    UsageError
        If `folder` is not a release, or holds no series of the published release `name`.
    ValidationFailed, VolumeCorrupt, NiftiRefused
        If a file is broken; nothing was written.
    """
    from verse_data.tables.check import check_tree

    settings, show = settle(root=root), progress or default()
    dataset = dataset_of(name, settings)
    check_series(Path(folder), name)
    lock = hash_tree(Path(folder), release=name, progress=show)
    if check:
        check_tree(lock, Path(folder), progress=show)
    version = dataset.publish(lock)
    dataset.adopt([Path(folder)], version, on_difference="refuse", progress=show)
    return open_release(name, version=version, root=root, progress=show)


def lock_sibling(
    name: str, url: str, *, root: Root = None, progress: Progress | None = None
) -> Release:
    """Make a release out of a lab's sibling of it: versions and locks now, contents when fetched.

    Each version's commit is compared with what its lock gives here. What only the sibling has comes
    from there; special remotes stay off, but for that of the RIA store that `url` names.

    Parameters
    ----------
    name : str
        Name of the release, as its locks say it.
    url : str
        A RIA store such as ``"ria+file:///data/store#~verse19"``, a clone in a folder, or one behind
        an SSH or HTTPS address.
    root : path, optional
        As in :func:`open_release`.
    progress : Progress, optional
        Told of every long step.

    Returns
    -------
    Release
        Its newest version.

    Raises
    ------
    UsageError
        If the release is here already, or the sibling is one of another release.
    UrlRefused
        If `url` is no place of a sibling.
    IntegrityError
        If a version is not what its lock says; nothing was kept.
    StorageError
        If it cannot be cloned.

    Warns
    -----
    UserWarning
        If the sibling has special remotes that stay off.
    """
    dataset = dataset_of(name, settle(root=root))
    clone(url, dataset.path)
    return open_release(name, root=root, progress=progress)


def release_names(release: str | Sequence[str]) -> list[str]:
    """Return the names that `release=` means, each once."""
    if isinstance(release, str):
        return [release]
    if (
        not isinstance(release, Sequence)
        or not release
        or not all(isinstance(n, str) for n in release)
    ):
        raise UsageError(f"release={release!r}: give a name such as 'verse19', or a list of names.")
    return list(dict.fromkeys(release))


def settle(*, root: Root = None, offline: bool | None = None) -> config.Config:
    """Return the settings of one call, whose root is looked at first."""
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise UsageError(f"root={root!r} is no path. Give one, or None for the configured root.")
    return config.resolve(root=root, offline=offline)


def dataset_of(name: str, settings: config.Config) -> Repository:
    """Return the dataset of a release, which need not exist yet."""
    if not isinstance(name, str) or not is_release_name(name):
        raise UsageError(
            f"{name!r} is not a release name: small letters, digits, '-' and '_', such as verse19."
        )
    place = settings.release(name)
    if place.parent != settings.releases:
        warn(
            UserWarning(
                f"{name} lies at {place}, beside the stores, which may be cleared at any time. It is used "
                f"there. Move it to where releases lie now: mkdir -p {quote(str(settings.releases))} && "
                f"mv {quote(str(place))} {quote(str(settings.releases))}"
            )
        )
    elif settings.data and (settings.home / "releases" / name / ".git").exists():
        warn(
            UserWarning(
                f"{name} lies at {place}, which is used, and at {settings.home / 'releases' / name} as well, "
                f"where an earlier version kept it. Remove one of them."
            )
        )
    return Repository(place, config=settings)
