"""The public functions: `load_split`, `open_release` and their relatives."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack, get_args, overload

from verse_data import config, serve
from verse_data.errors import (
    IntegrityError,
    NetworkError,
    Offline,
    UsageError,
    counted,
    did_you_mean,
    one_of,
    warn,
)
from verse_data.files import digest_file, storage_errors
from verse_data.grades import require_listed
from verse_data.locks import key_lock
from verse_data.problems import shown
from verse_data.progress import Progress, default
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock, is_release_name
from verse_data.records.names import SPLITS, Split
from verse_data.records.overlay import Layer
from verse_data.release import Release
from verse_data.releases import catalog
from verse_data.releases.catalog import PHANTOM, ReleaseDescription, describe
from verse_data.releases.history import command
from verse_data.releases.import_lock import require_place
from verse_data.releases.osf import TRUST_ON_FIRST_USE, walk_node
from verse_data.releases.repository import Repository, repositories
from verse_data.releases.siblings import clone
from verse_data.releases.tree import check_series
from verse_data.releases.tree import lock_tree as hash_tree
from verse_data.tables.index import ABOUT
from verse_data.tables.overlays import Given, read_overlays, without_copies
from verse_data.tables.splits import check_splits
from verse_data.united import UnitedReleases, selected

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.export.citation import Style
    from verse_data.training import (
        LeftOut,
        PatchDataset,
        ScanDataset,
        SpineSliceDataset,
        VertebraDataset,
        VertebraSliceDataset,
    )
    from verse_data.training.base import ServedDataset
    from verse_data.volumes.cache import Pruned, StoreInfo

    _Served = ScanDataset  # for type checkers; no torch is loaded to define the class below
else:
    _Served = object

__all__ = [
    "PHANTOM",
    "ReleaseInfo",
    "TrustOnFirstUse",
    "VerSeDataset",
    "cite",
    "describe_release",
    "list_releases",
    "load_split",
    "load_table",
    "lock_sibling",
    "lock_tree",
    "open_release",
    "open_releases",
]

Root = str | os.PathLike[str] | None
Unit = Literal["scan", "patch", "vertebra", "slice"]
_LISTING_SECONDS: Final = 6 * 3600.0


# --- datasets and tables -------------------------------------------------------------------------


@overload
def load_split(
    split: Split, *, unit: Literal["scan"] = "scan", **options: Unpack[serve.ScanOptions]
) -> ScanDataset: ...
@overload
def load_split(
    split: Split, *, unit: Literal["patch"], **options: Unpack[serve.PatchOptions]
) -> PatchDataset: ...
@overload
def load_split(
    split: Split, *, unit: Literal["vertebra"], **options: Unpack[serve.VertebraOptions]
) -> VertebraDataset: ...
@overload
def load_split(
    split: Split, *, unit: Literal["slice"], **options: Unpack[serve.VertebraSliceOptions]
) -> VertebraSliceDataset: ...
@overload
def load_split(
    split: Split, *, unit: Literal["slice"], **options: Unpack[serve.SpineSliceOptions]
) -> SpineSliceDataset: ...


def load_split(
    split: Split,
    *,
    unit: Unit = "scan",
    release: str | Sequence[str] = "verse19",
    version: str | None = None,
    where: str | None = None,
    overlays: Sequence[Given] | None = None,
    licence: str | Sequence[str] | None = None,
    root: Root = None,
    offline: bool | None = None,
    **options: Any,
) -> ServedDataset:
    """Serve one published split as a ``torch.utils.data.Dataset``.

    Missing files are fetched and converted first; both show progress, and can be interrupted and
    resumed.

    Parameters
    ----------
    split : {"training", "validation", "test"}
        The published split. No patient is in two.
    unit : {"scan", "patch", "vertebra", "slice"}
        What one sample is: a CT series, a box of fixed size, one vertebra with its grade, or a slice or
        projection of a vertebra or, with ``through="spine"``, of a scan.
    release : str or sequence of str
        Such as ``"verse19"``. Several, as a list or as ``"verse19+verse20"``, are served as one; a
        series that two of them contain, by its name or by the bytes of its CT, is served once, from
        the first that has a sample of it.
    version : str, optional
        As in :func:`open_release`; of several releases as in :func:`open_releases`.
    where : str, optional
        Serve the vertebrae for which this is true, such as ``"grade >= 2 and level >= 'T11'"``;
        with the other units, the scans that have such a vertebra. Patches drawn by level or grade are
        drawn around these vertebrae alone, other patches anywhere in these scans.
    overlays : sequence of str or path
        As in :func:`open_release`; each is laid over those of the releases that it is for.
    licence : str or sequence of str, optional
        As in :func:`open_release`; scans under other terms are in ``excluded``.
    root, offline : optional
        As in :func:`open_release`.
    **options
        Of every unit: ``orientation="RAS"`` (axis codes of the samples), ``spacing=None``
        (mm along R-L, A-P, S-I, or one for all; None keeps the scan's grid), ``interpolation="linear"``,
        ``codec="lz4"`` of the stores, ``transform=None``, ``seed=0``, ``image_dtype="float32"``,
        ``window=None`` (``"bone"``, ``"soft tissue"`` or two numbers in HU, mapped to 0 and 1),
        ``workers=None`` (processes that convert), ``progress=None``; ``label=True`` of scans and patches.
        Those of a unit are listed at its class in :mod:`verse_data.training`. Vertebrae (unless
        `include` has ``"not_assessed"``), and patches drawn by grade, need the grading workbook.

    Returns
    -------
    ScanDataset, PatchDataset, VertebraDataset, VertebraSliceDataset or SpineSliceDataset
        Its samples are documented at :mod:`verse_data.training.samples`.

    Raises
    ------
    UsageError
        If a name or option is wrong, or the split is empty.
    QueryRefused
        If `where` is not part of the query grammar.
    Offline, NetworkError, ContentMissing
        If files are not here and cannot be fetched.
    DiskFull
        If files and stores would not fit on the disk.
    ValidationFailed, IntegrityError, UnsafeInput
        If a file breaks a rule, is damaged, or is refused; or if a patient is in two splits.

    Warns
    -----
    TrustOnFirstUse
        If the release was locked now.
    """
    one_of("split", split, SPLITS)
    preparing, own = serve.split_options(unit, options)
    serve.check_options(unit, preparing, own)
    names = _release_names(release)
    if where is not None:
        from verse_data.tables.query import check_condition

        check_condition(where, several=len(names) > 1)
    settings, show = config.resolve(root=root, offline=offline), options.get("progress")
    how: dict[str, Any] = {"version": version, "licence": licence, "progress": show}
    opened = _all_opened(names, settings, overlays=overlays, **how)
    check_splits({f"{member.name} {member.version}": member.series for member in opened})
    rows = serve.needs(unit, own)
    if rows["graded"]:
        require_listed([member.workbook for member in opened], unit, own)
    ids = [_scans_of(member, split) for member in opened]
    chosen: list[Any] = ids
    if where is not None:
        chosen = selected(opened, where, split, ids, graded=rows["graded"], progress=show)
        if not any(map(len, chosen)):
            raise UsageError(
                f"No vertebra of split {split!r} is one for which {where!r} is true, so there is "
                f"nothing to serve. See what is there: {command(opened[0].files, 'query')}"
            )
    parts = [
        member.contribution(members, **rows, **preparing)
        for member, members in zip(opened, chosen, strict=True)
    ]
    lost = _not_served(opened, split, published=where is None)
    gate = {} if licence is None else {"licence": licence}
    selection = {"split": split, "where": where, **gate}
    return serve.dataset(parts, unit=unit, selection=selection, lost=lost, **own)


def _release_names(release: str | Sequence[str]) -> list[str]:
    """Return the names in `release=`, each once."""
    names = _apart(release) if isinstance(release, str) else release
    if not isinstance(names, Sequence) or not names or not all(isinstance(n, str) for n in names):
        raise UsageError(f"release={release!r}: give a name such as 'verse19', or a list of names.")
    return list(dict.fromkeys(names))


def _apart(joined: str) -> list[str]:
    """Return names or versions that are joined with ``+``, as in provenance with spaces around it."""
    return [one.strip() for one in joined.split("+")]


def _scans_of(release: Release, split: Split) -> list[str]:
    """Return the scan ids of a split; `UsageError` if it has none."""
    ids = [scan_id for scan_id, scan in release.series.items() if scan.split == split]
    if not ids:
        splits = sorted({scan.split for scan in release.series.values() if scan.split})
        raise UsageError(
            f"{release.name} {release.version} has no scan in split {split!r}; it has "
            f"{', '.join(splits) or 'no split at all'}. A folder says which, such as dataset-{release.name}training. "
            f"Serve any of its {len(release.series)} scans with open_release({release.name!r})"
            f".dataset(scan_ids), a fold for example. See what it holds: "
            f"{command(release.files, 'status')}"
        )
    return ids


def _not_served(releases: Sequence[Release], split: Split, *, published: bool) -> list[LeftOut]:
    """Return the scans of a split that are withheld and, if `published`, those that no lock lists."""
    from verse_data.training import LeftOut

    served = {scan.series_id for release in releases for scan in release.series.values()}
    listed = {scan.series_id for release in releases for scan in release.index.listed}
    found = {
        one.scan.series_id: LeftOut(one.scan.scan_id, one.scan.subject_id, one.reason)
        for release in releases
        for one in release.index.withheld
        if one.scan.split == split and one.scan.series_id not in served
    }
    return [*found.values()] + [
        LeftOut(series.scan_id, series.subject_id, "not_in_lock")
        for release in releases
        for series in (release.catalog.expected if release.catalog and published else ())
        if series.split == split and series.series_id not in listed
    ]


def load_table(
    table: Literal["scans", "vertebrae", "subjects", "findings"] = "vertebrae",
    *,
    release: str | Sequence[str] = "verse19",
    version: str | None = None,
    where: str | None = None,
    overlays: Sequence[Given] | None = None,
    root: Root = None,
    offline: bool | None = None,
) -> pd.DataFrame:
    """Load one table of a release, or the rows of it for which `where` is true.

    The masks, centroids and sidecars that it is made from are fetched, and the grading workbook if
    it has an address; offline, the table is made from the files that are here.

    Parameters
    ----------
    table : {"vertebrae", "scans", "subjects", "findings"}
        Which table.
    release : str or sequence of str
        Such as ``"verse19"``; several as in :func:`open_releases`.
    version : str, optional
        As in :func:`open_release`; of several releases as in :func:`open_releases`.
    where : str, optional
        Such as ``"grade >= 2"``. Default: all rows.
    overlays, root, offline : optional
        As in :func:`open_release`.

    Returns
    -------
    pandas.DataFrame
        A copy; what each column means is at :mod:`verse_data.tables.columns`.

    Raises
    ------
    UsageError
        If there is no such table, release or version.
    QueryRefused
        If `where` is not part of the query grammar.
    ContentMissing
        If `where` needs grades, and the grading workbook is not here.
    NetworkError
        If a file cannot be fetched.

    Warns
    -----
    IncompleteTable
        If the network is forbidden, and files that rows come from are not here.
    """
    from verse_data.tables.query import check_condition, select

    one_of("table", table, ("scans", "vertebrae", "subjects", "findings"))
    if where is not None and table != "findings":
        check_condition(where, table, several=len(_release_names(release)) > 1)
    opened = open_named(release, version=version, overlays=overlays, root=root, offline=offline)
    for one in opened.members:
        if not one.config.offline:
            one.fetch_tables(where=where if one is opened else None)
    opened.require_grades(where)
    rows: pd.DataFrame = getattr(opened, table)
    return rows if where is None else select(rows, where)


def cite(
    release: str | None = None,
    *,
    style: Style = "text",
    version: str | None = None,
    root: Root = None,
) -> str:
    """Return the citation of a release, or of this package if no release is named.

    The network is not used, and the release need not be on this machine; if it is, the citation
    includes version and lock.

    Parameters
    ----------
    release : str, optional
        Such as ``"verse19"``.
    style : {"text", "bibtex", "ris", "json"}
        As in :meth:`Release.citation`.
    version, root : optional
        As in :func:`open_release`.

    Returns
    -------
    str
        Lines to print; JSON for ``"json"``.

    Raises
    ------
    UsageError
        If there is no such release, style, or version here.
    """
    from verse_data.export.citation import Style, cite_release, cite_software

    one_of("style", style, get_args(Style))
    known = catalog.names()
    if release is None:
        return cite_software(known, style=style)
    if release in known and not dataset_of(release, config.resolve(root=root)).exists():
        if version is not None:
            raise UsageError(
                f"No version of {release} is on this machine, so {version} cannot be cited by its "
                f"lock. Leave the version out, or make it: verse-data lock {release}"
            )
        return cite_release(release, catalog.load_catalog(release), None, style=style)
    opened = open_release(release, version=version, root=root, offline=True, make=False)
    return opened.citation(style)


class VerSeDataset(_Served):
    """The scans of one published split, with the signature of torchvision's datasets.

    The object that is created is the dataset of :func:`verse_data.load_split` itself.

    Parameters
    ----------
    root : path, optional
        One root of releases and stores; default ``VERSE_DATA_HOME``, else the platform's folders.
    split : {"training", "validation", "test"}
        Published membership.
    transforms : callable, optional
        Called with each sample, a ``dict``.
    download : bool
        Whether missing files may be fetched; if not, no socket is opened. ``VERSE_DATA_OFFLINE=1``
        forbids it in any case.
    checksum : bool
        Whether every file of the split that is on this machine is hashed and compared with the lock.
    release : str or sequence of str
        Such as ``"verse19"`` or ``"phantom"``.
    **options
        Further options of :func:`verse_data.load_split`, such as ``unit="patch"``.

    Raises
    ------
    UsageError
        If there is no such release, split or option.
    Offline, ContentMissing
        If files are missing and `download` is false.
    IntegrityError
        If `checksum` finds a file that is not the one that was locked.

    Examples
    --------
    >>> dataset = VerSeDataset("~/data", "validation", download=True)  # doctest: +SKIP
    """

    def __new__(  # noqa: D102, PYI034 - documented at the class; returns load_split's dataset
        cls,
        root: str | os.PathLike[str] | None = None,
        split: str = "training",
        transforms: Callable[[Any], Any] | None = None,
        download: bool = False,  # noqa: FBT001, FBT002 - the order that users know
        checksum: bool = False,  # noqa: FBT001, FBT002
        *,
        release: str | Sequence[str] = "verse19",
        **options: Any,
    ) -> VerSeDataset:
        if "transform" in options or "offline" in options:
            raise UsageError(
                "VerSeDataset takes transforms= and download=; transform= and offline= are load_split's."
            )
        offline = None if download else True
        load: Any = load_split  # its overloads admit only valid options; it refuses others itself
        served: VerSeDataset = load(
            split,
            release=release,
            root=root,
            offline=offline,
            transform=transforms,
            **options,
        )
        if checksum:
            how = {"version": options.get("version"), "root": root, "offline": True}
            for opened in open_named(release, **how).members:
                _require_unchanged(opened, split, options.get("progress"))
        return served


def _require_unchanged(release: Release, split: str, progress: Progress | None) -> None:
    """Raise `IntegrityError` if a file of `split` on this machine is not the locked one."""
    ids = [scan_id for scan_id, scan in release.series.items() if scan.split == split]
    checked = release.verify(level="hash", scan_ids=ids, progress=progress)
    changed = [finding for finding in checked if finding.rule != "missing"]
    if changed:
        listed = shown([f"{found.path}: {found.message}" for found in changed], indent="  ")
        head = f"{release.name} {release.version} {split}: {counted(len(changed), 'file')} not as locked:"
        raise IntegrityError("\n".join([head, *listed, f"Replace them: {changed[0].command}"]))


# --- releases and stores of this machine ----------------------------------------------------------


@dataclass(frozen=True)
class ReleaseInfo:
    """One release of :func:`list_releases`.

    Attributes
    ----------
    name, title : str
    versions : tuple of str
        Versions on this machine, oldest first; empty if there are none.
    """

    name: str
    title: str
    versions: tuple[str, ...]


def list_releases(*, root: Root = None) -> tuple[ReleaseInfo, ...]:
    """Return the releases that are in the catalog or on this machine, sorted by name.

    Parameters
    ----------
    root : path, optional
        As in :func:`open_release`.

    Returns
    -------
    tuple of ReleaseInfo
        Name, title and versions of each.
    """
    settings = config.resolve(root=root)
    here = {dataset.name: dataset.versions() for dataset in repositories(settings)}
    known = {name: catalog.load_catalog(name).title for name in catalog.names()}
    return tuple(
        ReleaseInfo(name, known.get(name, "locked on this machine"), here.get(name, ()))
        for name in sorted(known.keys() | here.keys())
    )


def describe_release(name: str, *, root: Root = None) -> ReleaseDescription:
    """Return what the catalog knows of a release: its series by split, and the numbers published of it.

    Parameters
    ----------
    name : str
        Such as ``"verse20"``, whose edition lies in two releases.
    root : path, optional
        As in :func:`open_release`.

    Returns
    -------
    ReleaseDescription
        To print, or to read by its attributes.

    Raises
    ------
    UsageError
        If the catalog has no such release.
    """
    return describe(name, dataset_of(name, config.resolve(root=root)).versions())


def list_stores(*, root: Root = None) -> list[StoreInfo]:
    """List the stores on this machine; a store belongs to each release that lists its CT."""
    from verse_data.volumes import cache

    settings = config.resolve(root=root)
    contents = {dataset.name: _contents(dataset) for dataset in repositories(settings)}
    return [
        replace(store, releases=tuple(name for name in contents if store.image in contents[name]))
        for store in cache.list_stores(settings.stores)
    ]


def prune_stores(*, release: str | None = None, root: Root = None, **chosen: Any) -> Pruned:
    """Remove stores, like :func:`verse_data.volumes.cache.prune`; optionally only those of a release."""
    from verse_data.volumes import cache

    settings = config.resolve(root=root)
    if release is None:
        return cache.prune(settings.stores, **chosen)
    here = {dataset.name: dataset for dataset in repositories(settings)}
    if release not in here:
        raise UsageError(
            f"There is no release {release!r} in {settings.releases} (found: "
            f"{', '.join(here) or 'none'}), and only its lock says which stores are its own. "
            f"Choose by age instead: verse-data cache prune --older-than DAYS"
        )
    return cache.prune(settings.stores, images=_contents(here[release]), **chosen)


def _contents(dataset: Repository) -> frozenset[str]:
    """Return the keys of all files of a release, in any version."""
    trees = (dataset.tree_keys(version) for version in dataset.versions())
    return frozenset(key for tree in trees for key in tree.values())


def open_release(
    name: str = "verse19",
    *,
    version: str | None = None,
    overlays: Sequence[Given] | None = None,
    licence: str | Sequence[str] | None = None,
    root: Root = None,
    offline: bool | None = None,
    make: bool = True,
    progress: Progress | None = None,
) -> Release:
    """Open a release; make it first if it is not on this machine.

    A release of the catalog is listed on OSF, twice, and locked; the phantom is written. No file of a
    published release is fetched for that.

    Parameters
    ----------
    name : str
        Such as ``"verse19"`` or ``"phantom"``.
    version : str, optional
        ``"v1"``, or ``"sha256:…"`` with at least 12 digits of a lock's digest. Default: the newest.
    overlays : sequence of str or path
        Corrections that are laid over the files: names of the catalog such as ``"veridah-2025"``, and
        files of your own; see ``docs/overlays.md``. Default: none, the release as published.
    licence : str or sequence of str, optional
        Only scans under one of these terms, such as ``"CC-BY-SA-4.0"``. Default: all scans.
    root : path, optional
        One root of everything; default ``VERSE_DATA_HOME``, else the platform's data folder for
        releases and its cache folder for stores.
    offline : bool, optional
        Whether the network is forbidden; default ``VERSE_DATA_OFFLINE``.
    make : bool
        Whether a published release that is not here is listed and locked; the phantom always is made.
    progress : Progress, optional
        Display of long steps. Default: bars on a terminal or in a notebook, else lines on stderr.

    Returns
    -------
    Release
        The release at this version.

    Raises
    ------
    UsageError
        If there is no such release, version or overlay; if an overlay is of another release or
        digest, names a scan that there is not, or conflicts with another.
    ValidationFailed
        If an overlay breaks a rule of its schema.
    Offline
        If the release is not here and the network is forbidden.
    SourceChanged, NetworkError, IntegrityError
        If OSF cannot be listed; nothing was written.

    Warns
    -----
    TrustOnFirstUse
        If it was locked now: no published digests exist to compare its files with.
    UserWarning
        If an overlay is not confirmed.
    """
    settings = config.resolve(root=root, offline=offline)
    dataset_of(name, settings)  # refuses what is no name
    layers = read_overlays(overlays, [name])[name]
    return _opened(
        name,
        settings,
        version=version,
        layers=layers,
        licence=licence,
        make=make,
        progress=progress,
    )


def _opened(
    name: str,
    settings: config.Config,
    *,
    version: str | None,
    layers: Sequence[Layer] = (),
    licence: str | Sequence[str] | None = None,
    make: bool = True,
    progress: Progress | None,
) -> Release:
    """Open a release with `layers` over it; make it first if it is not here."""
    licences = [licence] if isinstance(licence, str) else [*(licence or ())]
    if licence is not None and not (licences and all(isinstance(one, str) for one in licences)):
        raise UsageError(
            f"licence={licence!r}: give an identifier such as 'CC-BY-SA-4.0', or some."
        )
    if version is not None and not isinstance(version, str):
        raise UsageError(f"version={version!r}: give a text such as 'v1', or None for the newest.")
    dataset = _known_dataset(name, settings)
    entry = catalog.load_catalog(name) if name in catalog.names() else None
    if not dataset.exists() and (make or name == PHANTOM):
        _make_release(dataset, entry, version, progress or default())
    resolved = dataset.resolve(version)
    opened = Release(
        dataset,
        version=resolved,
        config=settings,
        catalog=entry or _own_entry(dataset, resolved),
        layers=layers,
        licences=licences,
        progress=progress,
    )
    if layers or licences:
        _ = opened.index  # refuses what does not fit the version
    return opened


def open_releases(
    releases: str | Sequence[str],
    *,
    version: str | None = None,
    overlays: Sequence[Given] | None = None,
    licence: str | Sequence[str] | None = None,
    root: Root = None,
    offline: bool | None = None,
    make: bool = True,
) -> UnitedReleases:
    """Open several releases as one; make those that are not here.

    Parameters
    ----------
    releases : str or sequence of str
        Such as ``["verse19", "verse20"]`` or ``"verse19+verse20"``, in order of preference.
    version : str, optional
        One of each, joined: ``"v1+v2"``, as in ``UnitedReleases.version``. Default: the newest.
    overlays, licence, root, offline, make : optional
        As in :func:`open_release`; each overlay lies over the release that it names.

    Returns
    -------
    UnitedReleases
        Tables, folds, datasets and exports of all their series, each once; predictions are scored
        against them.

    Raises
    ------
    UsageError
        If there is no such release, version or overlay.
    ValidationFailed
        If a patient is in two splits.
    """
    names, settings = _release_names(releases), config.resolve(root=root, offline=offline)
    how: dict[str, Any] = {"version": version, "licence": licence, "make": make, "progress": None}
    return UnitedReleases(_all_opened(names, settings, overlays=overlays, **how))


def _all_opened(
    names: Sequence[str],
    settings: config.Config,
    *,
    version: str | None,
    overlays: Sequence[Given] | None,
    **how: Any,
) -> list[Release]:
    """Open releases, each at its own of the versions, which are joined with ``+``, or at the newest.

    What overlays correct of a series in one release holds for its copies in the others.
    """
    versions = _apart(version) if isinstance(version, str) else [version] * len(names)
    if len(versions) != len(names):
        raise UsageError(
            f"version={version!r}: give one for each of {', '.join(names)}, joined with +, such as "
            f"{'+'.join(['v1'] * len(names))}."
        )
    for name in names:
        _known_dataset(name, settings)  # before one of them is listed
    layers = read_overlays(overlays, names)
    opened = [
        _opened(name, settings, version=own, layers=layers[name], **how)
        for name, own in zip(names, versions, strict=True)
    ]
    if any(layers.values()) and len(opened) > 1:
        for one, index in zip(opened, without_copies([x.index for x in opened]), strict=True):
            one.index = index
    return opened


def open_named(release: str | Sequence[str], **how: Any) -> Release | UnitedReleases:
    """Open one release, or several whose names are a list or joined with ``+``."""
    names = _release_names(release)
    return open_release(names[0], **how) if len(names) == 1 else open_releases(names, **how)


def _own_entry(dataset: Repository, version: str) -> CatalogEntry | None:
    """Return what ``about.toml`` says of a release that the catalog lacks."""
    file = dataset.lock(version).by_path.get(ABOUT)
    if file is None:
        return None
    if dataset.has(file):
        return catalog.parse_about(dataset.source(file).read(), release=dataset.name)
    warn(
        UserWarning(
            f"{ABOUT} of {dataset.name} {version} (title, licence, citations) is not on this machine, "
            f"and what it says is missing. Bring it: {command(dataset, 'get')}, or "
            f"{command(dataset, 'adopt', ABOUT)}"
        )
    )
    return None


def _known_dataset(name: str, settings: config.Config) -> Repository:
    """Return the dataset of a release that is in the catalog or on this machine."""
    dataset = dataset_of(name, settings)
    if name not in catalog.names() and not dataset.exists():
        here = sorted({*catalog.names(), *(found.name for found in repositories(settings))})
        raise UsageError(
            f"There is no release {name!r}; there are {', '.join(here)}.{did_you_mean(name, here)} A "
            f"folder of files becomes one with: {command(dataset, 'lock', '--from-tree', 'FOLDER')}"
        )
    return dataset


def dataset_of(name: str, settings: config.Config) -> Repository:
    """Return the dataset of a release, which need not exist yet."""
    if not isinstance(name, str) or not is_release_name(name):
        several = not isinstance(name, str) or "+" in name
        raise UsageError(
            f"{name!r} is not a release name: small letters, digits, '-' and '_', such as verse19."
            + " Here one is needed; open_releases, load_split, load_table and the commands query, table, "
            "findings, folds, summary, evaluate, predictions import, export nnunet and export monai take "
            "several." * several
        )
    place = settings.release(name)
    if place.parent != settings.releases:
        warn(
            UserWarning(
                f"{name} is at {place}, beside the stores, which may be cleared at any time. It is used "
                f"there. Move it to where releases are now: mkdir -p {quote(str(settings.releases))} && "
                f"mv {quote(str(place))} {quote(str(settings.releases))}"
            )
        )
    if (place / "objects").is_dir() and not (place / ".git").exists():
        away = place.with_name(f"{name}.git")
        raise UsageError(
            f"{place} is a bare clone, which has no files to read. Make the release from it: "
            f"mv {quote(str(place))} {quote(str(away))} && "
            f"{command(place, 'lock', '--from-sibling', quote(str(away)))}"
        )
    return Repository(place, config=settings)


# --- making a release ----------------------------------------------------------------------------


def _make_release(
    dataset: Repository, entry: CatalogEntry | None, version: str | None, progress: Progress
) -> None:
    """Make the first version of a release: write the phantom, or lock the listing of OSF."""
    is_pinned = (version or "").startswith("sha256:")
    if not is_pinned and version not in {None, "v1"}:
        raise UsageError(
            f"No version of {dataset.name} is on this machine, and making it here gives v1, not "
            f"{version!r}. {_bring_lock(dataset, version)}"
        )
    if dataset.name != PHANTOM and dataset.config.offline:
        title = f" ({entry.title})" if entry else ""
        raise Offline(
            f"{dataset.name}{title} is not on this machine: nothing of it, not even the list of its files, "
            f"lies at {dataset.path}, and the network is forbidden (offline). With the network it comes "
            f"with: {command(dataset, 'get')} (in Python: without offline=True, or download=True). From "
            f"another machine, bring its lock and its files: "
            f"{command(dataset, 'lock', '--from-lock', 'FILE')}, then {command(dataset, 'adopt', 'FOLDER')}"
        )
    require_place(dataset.path)
    # Of two first calls one waits for the other, which may list OSF for minutes, and uses its result.
    walks, key = dataset.config.home / "walks", f"{dataset.name}.make"
    with storage_errors(walks), key_lock(walks, key, timeout=_LISTING_SECONDS):
        if dataset.exists():
            return
        if dataset.name == PHANTOM:
            from verse_data.phantom.folder import publish

            publish(dataset, progress)
        elif entry and entry.osf_node:
            _lock_node(dataset, entry.osf_node, version if is_pinned else None, progress)


def _lock_node(dataset: Repository, node: str, pin: str | None, progress: Progress) -> None:
    """Lock what OSF lists, if its digest fits `pin`."""
    try:
        lock = walk_node(node, config=dataset.config, release=dataset.name, progress=progress)
    except NetworkError as error:
        here = command(dataset, "lock", "--from-tree", "FOLDER")
        raise type(error)(f"{error} A folder with the files needs no network: {here}") from error
    if pin and not lock.digest.startswith(pin.removeprefix("sha256:")):
        raise UsageError(
            f"OSF lists {dataset.name} as the lock {lock.pin} now, not {pin}. Nothing "
            f"was written. {_bring_lock(dataset, pin)}"
        )
    dataset.publish(lock)
    warn(TrustOnFirstUse(lock))


class TrustOnFirstUse(UserWarning):
    """A release was locked from its source's own listing; no published digests exist to compare with.

    Parameters
    ----------
    lock : ReleaseLock
        The new lock, whose digest is in the text.
    """

    def __init__(self, lock: ReleaseLock) -> None:
        super().__init__(
            f"{lock.release} was locked on this machine now: {len(lock.files):,} files, "
            f"{lock.total_bytes:,} bytes, digest {lock.pin}. {TRUST_ON_FIRST_USE} Write the "
            f'digest down: open_release({lock.release!r}, version="sha256:{lock.digest[:12]}") opens '
            f"this version and no other."
        )


def _bring_lock(dataset: Repository, version: str | None) -> str:
    return (
        f"Bring the lock of {version} from a machine that has it: "
        f"{command(dataset, 'lock', '--from-lock', 'FILE')}. Or leave the version out."
    )


def lock_tree(
    name: str,
    folder: str | os.PathLike[str],
    *,
    about: str | os.PathLike[str] | None = None,
    root: Root = None,
    check: bool = True,
    progress: Progress | None = None,
) -> Release:
    """Make a release from files on this machine: check, hash, publish, copy.

    Hidden files, and what systems leave in folders, are left out. Links are followed. A list of
    grades and ``patients.csv`` in the folder fill the tables.

    Parameters
    ----------
    name : str
        Name of the release.
    folder : path
        One with ``rawdata/`` and ``derivatives/``, one that holds several such folders, or one in
        MICCAI's layout.
    about : path, optional
        TOML with title, licence, attribution and citations of these data, which becomes part of the
        release as ``about.toml``. Default: the file of that name in `folder`, if there is one.
    root : path, optional
        As in :func:`open_release`.
    check : bool
        Read every file before anything is written, and refuse a tree with a broken one.
    progress : Progress, optional
        Display of long steps.

    Returns
    -------
    Release
        The version that was made.

    Raises
    ------
    UsageError
        If `folder` is not a release, or contains no series of the published release `name`; or if
        `about` is given for a published release, or beside another in `folder`.
    PathRefused, PermissionDenied
        If a name cannot be locked, a link leads nowhere or back, or something may not be read.
    ValidationFailed, VolumeCorrupt, NiftiRefused
        If a file is broken; nothing was written.

    Warns
    -----
    UserWarning
        If a subject's label may be a person's name, or a session's label a date.
    """
    from verse_data.tables.check import check_tree

    tree, show = Path(folder), progress or default()
    dataset = dataset_of(name, config.resolve(root=root))
    check_series(tree, name)
    sources = [tree] if about is None else [tree, _own_about(Path(about), tree, name)]
    own = sources[-1] / ABOUT if about is None else sources[-1]
    if own.is_file() and name not in catalog.names():
        catalog.parse_about(own.read_bytes(), release=name, name=str(own))
    lock = hash_tree(tree, release=name, progress=show)
    if check:
        check_tree(lock, tree, progress=show)
    if about is not None:
        listed = LockedFile(path=ABOUT, **vars(digest_file(own)))
        files = {**lock.by_path, ABOUT: listed}
        lock = lock.model_copy(update={"files": tuple(files[path] for path in sorted(files))})
    version = dataset.publish(lock)
    dataset.adopt(sources, version, on_difference="refuse", progress=show)
    return open_release(name, version=version, root=root, progress=show)


def _own_about(about: Path, tree: Path, name: str) -> Path:
    """Return `about` if it can describe the release in `tree`."""
    if name in catalog.names():
        raise UsageError(
            f"{name} is published: its licence and citations are known, and are not changed by "
            f"{about}. Give data of your own a name of their own."
        )
    if not about.is_file():
        raise UsageError(f"There is no file {about}. Give a TOML file with title and licence.")
    if (there := tree / ABOUT).is_file() and there.read_bytes() != about.read_bytes():
        raise UsageError(f"{there} says something else than {about}. Keep one of them.")
    return about


def lock_sibling(
    name: str, url: str, *, root: Root = None, progress: Progress | None = None
) -> Release:
    """Make a release from a lab's sibling of it: versions and locks now, contents when fetched.

    Each version's commit must be the one that its lock gives here. Contents that only the sibling
    has are fetched from it; no special remote is enabled except that of the RIA store in `url`.

    Parameters
    ----------
    name : str
        Name of the release, as in its locks.
    url : str
        A RIA store such as ``"ria+file:///data/store#~verse19"``, a clone in a folder, or one behind
        an SSH or HTTPS address.
    root, progress : optional
        As in :func:`open_release`.

    Returns
    -------
    Release
        Its newest version.

    Raises
    ------
    UsageError
        If the release is here already, or the sibling is of another release.
    UrlRefused
        If `url` is not the address of a sibling.
    IntegrityError
        If a version is not what its lock says; nothing was kept.
    StorageError
        If it cannot be cloned.

    Warns
    -----
    UserWarning
        If the sibling has special remotes that were not enabled.
    """
    settings = config.resolve(root=root)
    dataset = dataset_of(name, settings)
    clone(url, dataset.path)
    if (about := dataset.lock(dataset.resolve()).by_path.get(ABOUT)) and not settings.offline:
        dataset.fetch([about])  # a failure is told when it is opened
    return open_release(name, root=root, progress=progress)
