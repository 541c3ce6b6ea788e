"""Opens the releases of this machine, lists them, and makes one of a folder of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verse_data import config
from verse_data.errors import UsageError
from verse_data.progress import Progress, default
from verse_data.records.lock import is_release_name
from verse_data.release.facade import Release
from verse_data.releases import catalog
from verse_data.releases.dataset import ReleaseDataset

Root = str | os.PathLike[str] | None


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
    """Return the releases that the catalog knows or that are on this machine, by name."""
    settings = _settle(root=root)
    folders = settings.releases.iterdir() if settings.releases.is_dir() else ()
    here = {
        path.name: ReleaseDataset(path).versions() for path in folders if (path / ".git").exists()
    }
    known = {name: catalog.load_catalog(name).title for name in catalog.names()}
    return tuple(
        ReleaseInfo(name, known.get(name, "locked on this machine"), here.get(name, ()))
        for name in sorted(known.keys() | here.keys())
    )


def open_release(
    name: str = "verse19",
    *,
    version: str | None = None,
    root: Root = None,
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Release:
    """Open a release that has been locked on this machine.

    Parameters
    ----------
    name : str
        Such as ``"verse19"`` or ``"phantom"``.
    version : str, optional
        ``"v1"``, or ``"sha256:…"`` with at least 12 digits of a lock's digest. The newest if missing.
    root : path, optional
        Root of releases and caches; default ``VERSE_DATA_HOME``, else the platform's cache folder.
    offline : bool, optional
        Whether the network is forbidden; default ``VERSE_DATA_OFFLINE``.
    progress : Progress, optional
        Told of every long step. Default: bars on a terminal, nothing elsewhere.

    Raises
    ------
    UsageError
        If there is no such release or version here; the text says how to make it.
    """
    settings = _settle(root=root, offline=offline)
    if version is not None and not isinstance(version, str):
        raise UsageError(f"version={version!r}: give a text such as 'v1', or None for the newest.")
    dataset = dataset_of(name, settings)
    entry = catalog.load_catalog(name) if name in catalog.names() else None
    if entry is None and not dataset.exists():
        here = ", ".join(release.name for release in list_releases(root=root))
        raise UsageError(
            f"There is no release {name!r}; there are {here}. A folder of files becomes one with: "
            f"verse-data lock {name} --from-tree FOLDER"
        )
    return Release(
        dataset, version=dataset.resolve(version), config=settings, catalog=entry, progress=progress
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

    Raises
    ------
    UsageError
        If `folder` is not a release, or holds no series of the published release `name`.
    ValidationFailed, VolumeCorrupt, NiftiRefused
        If a file is broken; nothing was written.
    """
    from verse_data.releases.tree import check_series
    from verse_data.releases.tree import lock_tree as hash_tree
    from verse_data.tables.check import check_tree

    settings, show = _settle(root=root), progress or default()
    dataset = dataset_of(name, settings)
    check_series(Path(folder), name)
    lock = hash_tree(Path(folder), release=name, progress=show)
    if check:
        check_tree({file.path: Path(folder) / file.path for file in lock.files}, progress=show)
    version = dataset.publish(lock)
    dataset.adopt([Path(folder)], version, on_difference="refuse", progress=show)
    return open_release(name, version=version, root=root, progress=show)


def release_names(release: str | Sequence[str]) -> list[str]:
    """Return the names that `release=` means, each once.

    Raises
    ------
    UsageError
        If it is neither a name nor a list of them.
    """
    if isinstance(release, str):
        return [release]
    if (
        not isinstance(release, Sequence)
        or not release
        or not all(isinstance(n, str) for n in release)
    ):
        raise UsageError(f"release={release!r}: give a name such as 'verse19', or a list of names.")
    return list(dict.fromkeys(release))


def _settle(*, root: Root = None, offline: bool | None = None) -> config.Config:
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise UsageError(f"root={root!r} is no path. Give one, or None for the configured root.")
    return config.resolve(root=root, offline=offline)


def dataset_of(name: str, settings: config.Config) -> ReleaseDataset:
    """Return the dataset of a release, which need not exist yet.

    Raises
    ------
    UsageError
        If `name` cannot be the name of a release.
    """
    if not isinstance(name, str) or not is_release_name(name):
        raise UsageError(
            f"{name!r} is not a release name: small letters, digits, '-' and '_', such as verse19."
        )
    return ReleaseDataset(settings.releases / name, config=settings)
