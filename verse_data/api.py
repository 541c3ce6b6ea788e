"""The front door: `load_split`, `open_release`, `list_releases`, `load_table`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from verse_data import config
from verse_data.errors import UsageError
from verse_data.progress import Progress, default
from verse_data.records.lock import is_release_name
from verse_data.records.names import SPLITS, Split
from verse_data.release import Release, serving
from verse_data.release.options import PatchOptions, ScanOptions, VertebraOptions, sort_options
from verse_data.releases import catalog
from verse_data.releases.dataset import ReleaseDataset

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.training import PatchDataset, ScanDataset, VertebraDataset

Root = str | os.PathLike[str] | None
Unit = Literal["scan", "patch", "vertebra"]


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
    settings = config.resolve(root=root)
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
    settings = config.resolve(root=root, offline=offline)
    dataset = _dataset(name, settings)
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
        If `folder` is not a release.
    ValidationFailed, VolumeCorrupt, NiftiRefused
        If a file is broken; nothing was written.
    """
    from verse_data.releases.tree import lock_tree as hash_tree
    from verse_data.tables.check import check_tree

    settings, show = config.resolve(root=root), progress or default()
    dataset = _dataset(name, settings)
    lock = hash_tree(Path(folder), release=name, progress=show)
    if check:
        check_tree({file.path: Path(folder) / file.path for file in lock.files}, progress=show)
    version = dataset.publish(lock)
    dataset.adopt([Path(folder)], version, on_difference="refuse", progress=show)
    return open_release(name, version=version, root=root, progress=show)


@overload
def load_split(
    split: Split,
    *,
    unit: Literal["scan"] = "scan",
    release: str | Sequence[str] = ...,
    version: str | None = ...,
    where: str | None = ...,
    root: Root = ...,
    offline: bool | None = ...,
    **options: Unpack[ScanOptions],
) -> ScanDataset: ...
@overload
def load_split(
    split: Split,
    *,
    unit: Literal["patch"],
    release: str | Sequence[str] = ...,
    version: str | None = ...,
    where: str | None = ...,
    root: Root = ...,
    offline: bool | None = ...,
    **options: Unpack[PatchOptions],
) -> PatchDataset: ...
@overload
def load_split(
    split: Split,
    *,
    unit: Literal["vertebra"],
    release: str | Sequence[str] = ...,
    version: str | None = ...,
    where: str | None = ...,
    root: Root = ...,
    offline: bool | None = ...,
    **options: Unpack[VertebraOptions],
) -> VertebraDataset: ...


def load_split(
    split: Split,
    *,
    unit: Unit = "scan",
    release: str | Sequence[str] = "verse19",
    version: str | None = None,
    where: str | None = None,
    root: Root = None,
    offline: bool | None = None,
    **options: Any,
) -> ScanDataset | PatchDataset | VertebraDataset:
    """Serve one published split as a ``torch.utils.data.Dataset``.

    What is missing is fetched, what is not yet converted is converted; both show progress, and
    can be stopped and started again.

    Parameters
    ----------
    split : {"training", "validation", "test"}
        The published split. No patient lies in two.
    unit : {"scan", "patch", "vertebra"}
        What one sample is: a CT series, a box of fixed size, or one vertebra with its grade.
    release : str or sequence of str
        Such as ``"verse19"``. Several are served as one; a series that two of them hold is served
        once, from the first.
    version : str, optional
        As in :func:`open_release`; only with one release.
    where : str, optional
        Serve the vertebrae for which this is true, such as ``"grade >= 2 and level >= 'T11'"``;
        with the other units, the scans that have such a vertebra.
    root, offline
        As in :func:`open_release`.
    **options
        Of every unit: ``orientation="RAS"`` (axis codes of what is handed out), ``spacing=None``
        (mm along R-L, A-P, S-I; None keeps the scan's grid), ``interpolation="linear"``,
        ``codec="lz4"`` of the stores, ``transform=None``, ``seed=0``, ``image_dtype="float32"``,
        ``label=True``, ``workers=None`` (processes that convert), ``engine="annex"``. Those of a
        unit are listed at its class in :mod:`verse_data.training`.

    Returns
    -------
    ScanDataset, PatchDataset or VertebraDataset
        Its samples are documented at :mod:`verse_data.training.samples`.

    Raises
    ------
    UsageError
        If a name or option is wrong, or the split is empty.
    QueryRefused
        If `where` is not part of the query grammar.
    Offline, NetworkError, ContentMissing
        If files are not here and cannot be had.
    ValidationFailed, IntegrityError, UnsafeInput
        If a file breaks a rule, is damaged, or is refused.
    """
    if split not in SPLITS:
        raise UsageError(f"There is no split {split!r}; splits are {', '.join(SPLITS)}.")
    how, own = sort_options(unit, options)
    names = [release] if isinstance(release, str) else list(release)
    if version is not None and len(names) > 1:
        raise UsageError(
            "version= goes with one release; open each with open_release and use Release.dataset."
        )
    opened = [
        open_release(
            name, version=version, root=root, offline=offline, progress=options.get("progress")
        )
        for name in names
    ]
    _assert_grouped(opened)
    parts = [member.contribution(_members(member, split, where), **how) for member in opened]
    return serving.dataset(parts, unit=unit, **own)


def _assert_grouped(releases: Sequence[Release]) -> None:
    """Raise `ValidationFailed` if a patient lies in two splits, across releases too."""
    import pandas as pd

    from verse_data.tables.splits import official_splits

    rows = [(s.scan_id, s.subject_id, s.split) for r in releases for s in r.series.values()]
    official_splits(pd.DataFrame(rows, columns=["scan_id", "subject_id", "split"]))


def _members(release: Release, split: Split, where: str | None) -> list[str] | pd.DataFrame:
    """Return the scan ids of `split`, or the vertebra rows of it for which `where` is true."""
    ids = [scan_id for scan_id, scan in release.series.items() if scan.split == split]
    if not ids:
        raise UsageError(
            f"{release.name} {release.version} has no scan in split {split!r}. "
            f"See what it holds: verse-data status {release.name}"
        )
    return ids if where is None else release.select(where, scan_ids=ids)


def load_table(
    table: Literal["scans", "vertebrae", "subjects", "findings"] = "vertebrae",
    *,
    release: str = "verse19",
    version: str | None = None,
    where: str | None = None,
    root: Root = None,
    offline: bool | None = None,
) -> pd.DataFrame:
    """Load one table of a release, or the rows of it for which `where` is true.

    Raises
    ------
    UsageError
        If there is no such table, release or version.
    QueryRefused
        If `where` is not part of the query grammar.
    """
    from verse_data.tables.query import select

    if table not in {"scans", "vertebrae", "subjects", "findings"}:
        raise UsageError(
            f"There is no table {table!r}; tables are scans, vertebrae, subjects, findings."
        )
    opened = open_release(release, version=version, root=root, offline=offline)
    rows: pd.DataFrame = getattr(opened, table)
    return rows if where is None else select(rows, where)


def _dataset(name: str, settings: config.Config) -> ReleaseDataset:
    if not is_release_name(name):
        raise UsageError(
            f"{name!r} is no name of a release: use lower-case letters, digits, '-' and '_'."
        )
    return ReleaseDataset(settings.releases / name, config=settings)
