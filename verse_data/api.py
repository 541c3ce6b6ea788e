"""The front door: `load_split`, `load_table`, `open_release`, `lock_tree`, `list_releases`, `cite`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from verse_data import serve, union
from verse_data.adopting import PHANTOM
from verse_data.errors import IntegrityError, UsageError, counted, did_you_mean
from verse_data.grades import require_listed
from verse_data.opening import (
    ReleaseInfo,
    Root,
    TrustOnFirstUse,
    dataset_of,
    known_dataset,
    list_releases,
    lock_tree,
    open_release,
    release_names,
    settle,
)
from verse_data.progress import Progress
from verse_data.records.names import SPLITS, Split
from verse_data.release import Release
from verse_data.releases.history import command
from verse_data.serve import (
    PatchOptions,
    ScanOptions,
    VertebraOptions,
    needs,
    split_options,
)
from verse_data.tables.splits import assert_one_split_each

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.export.citation import Style
    from verse_data.training import LeftOut, PatchDataset, ScanDataset, VertebraDataset

    _Served = ScanDataset  # for type checkers; no torch is loaded to define the class below
else:
    _Served = object

__all__ = [
    "PHANTOM",
    "ReleaseInfo",
    "TrustOnFirstUse",
    "VerSeDataset",
    "cite",
    "list_releases",
    "load_split",
    "load_table",
    "lock_tree",
    "open_release",
]

_SHOWN_CHANGES = 5
Unit = Literal["scan", "patch", "vertebra"]


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
        Such as ``"verse19"``. Several are served as one; a series that two of them hold, by its name
        or by the bytes of its CT, is served once, from the first that has a sample of it.
    version : str, optional
        As in :func:`open_release`; only with one release.
    where : str, optional
        Serve the vertebrae for which this is true, such as ``"grade >= 2 and level >= 'T11'"``;
        with the other units, the scans that have such a vertebra.
    root, offline : optional
        As in :func:`open_release`.
    **options
        Of every unit: ``orientation="RAS"`` (axis codes of what is handed out), ``spacing=None``
        (mm along R-L, A-P, S-I, or one for all; None keeps the scan's grid), ``interpolation="linear"``,
        ``codec="lz4"`` of the stores, ``transform=None``, ``seed=0``, ``image_dtype="float32"``,
        ``workers=None`` (processes that convert), ``progress=None``; ``label=True`` of scans and patches.
        Those of a unit are listed at its class in :mod:`verse_data.training`. Vertebrae (unless
        `include` has ``"not_assessed"``), and patches drawn by grade, need the grading workbook.

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
    DiskFull
        If files and stores would not fit on the disk.
    ValidationFailed, IntegrityError, UnsafeInput
        If a file breaks a rule, is damaged, or is refused; or if a patient lies in two splits.

    Warns
    -----
    TrustOnFirstUse
        If the release was locked now.
    """
    if split not in SPLITS:
        guess = did_you_mean(split, SPLITS)
        raise UsageError(f"There is no split {split!r}; splits are {', '.join(SPLITS)}.{guess}")
    how, own = split_options(unit, options)
    serve.check_options(unit, how, own)
    if where is not None:
        from verse_data.tables.query import check_condition

        check_condition(where)
    names = release_names(release)
    if version is not None and len(names) > 1:
        raise UsageError(
            "version= goes with one release; open each with open_release and use Release.dataset."
        )
    settings = settle(root=root, offline=offline)
    for name in names:
        known_dataset(name, settings)
    opened = [
        open_release(
            name, version=version, root=root, offline=offline, progress=options.get("progress")
        )
        for name in names
    ]
    _assert_grouped(opened)
    require_listed([member.workbook for member in opened], unit, own)
    rows = needs(unit, own)
    chosen = [
        _members(
            member,
            split,
            where,
            graded=rows["graded"],
            several=len(names) > 1,
            progress=options.get("progress"),
        )
        for member in opened
    ]
    if not any(len(members) for members in chosen):
        raise UsageError(
            f"No vertebra of split {split!r} is one for which {where!r} is true, so there is nothing "
            f"to serve. See what is there: {command(opened[0].files, 'query')}"
        )
    parts = [
        member.contribution(members, **rows, **how)
        for member, members in zip(opened, chosen, strict=True)
    ]
    lost = () if where is not None else _lost_upstream(opened, split)
    return serve.dataset(parts, unit=unit, lost=lost, **own)


def _lost_upstream(releases: Sequence[Release], split: Split) -> list[LeftOut]:
    """Return the series of a split that were published, and of which no lock lists a file."""
    from verse_data.training import LeftOut

    listed = {scan.series_id for release in releases for scan in release.series.values()}
    return [
        LeftOut(series.scan_id, series.subject_id, "not_in_lock")
        for release in releases
        for series in (release.catalog.expected if release.catalog else ())
        if series.split == split and series.series_id not in listed
    ]


def _assert_grouped(releases: Sequence[Release]) -> None:
    """Raise `ValidationFailed` if a patient lies in two splits, across releases too."""
    union.assert_no_ct_in_two_splits({f"{r.name} {r.version}": r.series for r in releases})
    held = [release.series for release in releases]
    subject = union.patients(held, union.same_series(held))
    every = (scan for scans in held for scan in scans.values())
    assert_one_split_each((subject[s.subject_id], s.split) for s in every if s.split)


def _members(
    release: Release,
    split: Split,
    where: str | None,
    *,
    graded: bool,
    several: bool,
    progress: Progress | None,
) -> list[str] | pd.DataFrame:
    """Return the scan ids of `split`, or the vertebra rows of it for which `where` is true."""
    ids = [scan_id for scan_id, scan in release.series.items() if scan.split == split]
    if not ids:
        raise UsageError(_no_such_split(release, split, several=several))
    if where is None:
        return ids
    return release.fetch_and_select(where, scan_ids=ids, graded=graded, progress=progress)


def _no_such_split(release: Release, split: Split, *, several: bool) -> str:
    told = f"{release.name} {release.version} has no scan in split {split!r}"
    if held := sorted({scan.split for scan in release.series.values() if scan.split}):
        without = f" Leave {release.name!r} out of release=." if several else ""
        return f"{told}; it has {', '.join(held)}.{without}"
    return (
        f"{told}, nor in any other: a folder says which, such as dataset-{release.name}training. "
        f"Serve any of its {len(release.series)} scans with open_release({release.name!r})"
        f".dataset(scan_ids), a fold for example. See what it holds: "
        f"{command(release.files, 'status')}"
    )


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

    The masks, centroids and sidecars that it is made of are fetched, and the grading workbook where
    an address has it; offline, the table holds what is here.

    Parameters
    ----------
    table : {"vertebrae", "scans", "subjects", "findings"}
        Which one.
    release : str
        Such as ``"verse19"``.
    version : str, optional
        As in :func:`open_release`.
    where : str, optional
        Such as ``"grade >= 2"``. Default: all rows.
    root : path, optional
        As in :func:`open_release`.
    offline : bool, optional
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
        If it asks about grades, and the grading workbook is not here.
    NetworkError
        If a file cannot be had.

    Warns
    -----
    IncompleteTable
        If it is offline, and files that rows come from are not here.
    """
    from verse_data.tables.query import check_condition, select

    if table not in ("scans", "vertebrae", "subjects", "findings"):
        raise UsageError(
            f"There is no table {table!r}; tables are scans, vertebrae, subjects, findings."
        )
    if where is not None and table != "findings":
        check_condition(where, table)
    opened = open_release(release, version=version, root=root, offline=offline)
    graded = opened.workbook.can_be_fetched
    if not graded:
        opened.require_grades(where)
    if not opened.config.offline:
        opened.fetch_tables(graded=graded)
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
    """Return how a release is cited, or this package if no release is named.

    The network is not used, and the release need not be on this machine; where it is, version and
    lock are named.

    Parameters
    ----------
    release : str, optional
        Such as ``"verse19"``.
    style : {"text", "bibtex", "ris", "json"}
        As in :meth:`Release.citation`.
    version : str, optional
        As in :func:`open_release`.
    root : path, optional
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
    from verse_data import config
    from verse_data.export.citation import check_style, cite_release, cite_software
    from verse_data.releases import catalog

    check_style(style)
    if release is None:
        return cite_software(catalog.names(), style=style)
    known = release in catalog.names()
    if known and not dataset_of(release, config.resolve(root=root)).exists():
        if version is not None:
            raise UsageError(
                f"No version of {release} is on this machine, so {version} cannot be cited by its "
                f"lock. Leave the version out, or make it: verse-data lock {release}"
            )
        return cite_release(release, catalog.load_catalog(release), None, style=style)
    return open_release(release, version=version, root=root, offline=True, make=False).citation(
        style
    )


class VerSeDataset(_Served):
    """The scans of one published split, by the signature that users of torchvision know.

    What is made is the dataset of :func:`verse_data.load_split` itself.

    Parameters
    ----------
    root : path, optional
        One root of releases and stores; default ``VERSE_DATA_HOME``, else the platform's folders.
    split : {"training", "validation", "test"}
        Published membership.
    transforms : callable, optional
        Called with each sample, a ``dict``.
    download : bool
        Whether what is missing may be fetched; if not, no socket is opened. ``VERSE_DATA_OFFLINE=1``
        forbids it all the same.
    checksum : bool
        Whether every file of the split that is on this machine is hashed and held against the lock.
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

    def __new__(  # noqa: D102, PYI034 - the class says it; what is made is load_split's dataset
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
        load: Any = load_split  # its overloads know only what is right; it refuses the rest
        served: VerSeDataset = load(
            split,
            release=release,
            root=root,
            offline=offline,
            transform=transforms,
            **options,
        )
        if checksum:
            for name in release_names(release):
                opened = open_release(name, version=options.get("version"), root=root, offline=True)
                _require_unchanged(opened, split, options.get("progress"))
        return served


def _require_unchanged(release: Release, split: str, progress: Progress | None) -> None:
    """Raise `IntegrityError` if a file of `split` that is here is not the locked one."""
    ids = [scan_id for scan_id, scan in release.series.items() if scan.split == split]
    checked = release.verify(level="hash", scan_ids=ids, progress=progress)
    changed = [finding for finding in checked if finding.rule != "missing"]
    if changed:
        listed = "\n  ".join(f"{found.path}: {found.message}" for found in changed[:_SHOWN_CHANGES])
        raise IntegrityError(
            f"{counted(len(changed), 'file')} of {release.name} {release.version} {split} "
            f"{'is' if len(changed) == 1 else 'are'} not what was locked:\n  {listed}\n"
            f"Replace them: {changed[0].command}"
        )
