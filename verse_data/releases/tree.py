"""Make a lock from a local folder: every file of a release that is already on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from verse_data.errors import PathRefused, UsageError
from verse_data.files import digest_file, storage_errors
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock, check_path
from verse_data.records.names import parse_path
from verse_data.releases import catalog

_WORKERS = 4
_SHOWN = 5
_SKIPPED = {"__MACOSX", "Thumbs.db", "desktop.ini"}


def lock_tree(folder: Path, *, release: str, progress: Progress = silent) -> ReleaseLock:
    """Hash every file under `folder` into a lock.

    Hidden files, and files that operating systems add, are left out. Two folders with the same files
    give the same lock, wherever they are.

    Parameters
    ----------
    folder : Path
        The root of a release, or a folder of such roots; a root contains ``rawdata``.
    release : str
        Name of the release in the lock.
    progress : Progress, optional
        Shows one bar in bytes.

    Raises
    ------
    UsageError
        If `folder` is not a folder or contains no ``rawdata``, or a part of it lacks its own.
    PathRefused
        If a file's name cannot be part of a release.
    """
    check_root(folder)
    found = {path.relative_to(folder).as_posix(): path for path in walk_files(folder)}
    paths = dict(sorted(found.items()))
    for name in paths:
        try:
            check_path(name)
        except ValueError as error:
            raise PathRefused(
                f"{folder}: {error}. Rename it, or lock a tree without it."
            ) from error
    with (
        storage_errors(folder),
        progress(
            "Hashing files", sum(path.stat().st_size for path in paths.values()), "bytes"
        ) as advance,
        ThreadPoolExecutor(_WORKERS) as pool,
    ):
        digests = list(pool.map(lambda path: digest_file(path, advance=advance), paths.values()))
    files = zip(paths, map(asdict, digests), strict=True)
    return ReleaseLock(
        release=release,
        source=LockSource(kind="tree"),
        files=tuple(LockedFile(path=name, **digest) for name, digest in files),
    )


def check_root(folder: Path) -> None:
    """Raise UsageError unless `folder` contains a release: ``rawdata`` in each of its parts."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder. Give the folder that the release lies in.")
    parts = {place: {"rawdata", "derivatives"} & {*names} for place, names, _ in os.walk(folder)}
    if not any("rawdata" in names for names in parts.values()):
        raise UsageError(
            f"{folder} holds no release: there is no folder named rawdata in it. Give a folder such "
            f"as dataset-verse19training/, which holds rawdata/ and derivatives/, or the one above."
        )
    for place, names in parts.items():
        if names == {"derivatives"}:
            raise UsageError(
                f"{place} holds derivatives/ and no rawdata/: its scans would have no CT. Put the "
                f"folder back, or leave this part of the release out."
            )


def check_series(folder: Path, release: str) -> None:
    """Raise UsageError if `release` is published and `folder` contains none of its series.

    Some of the series are enough: a part of a release can be locked, and the rest are findings.
    """
    expected = catalog.load_catalog(release).expected if release in catalog.names() else ()
    if not expected:
        return
    check_root(folder)
    parsed = (parse_path(path.name) for path in walk_files(folder))
    found = sorted({name.series_id for name in parsed if name and name.role != "grading"})
    if not {series.series_id for series in expected} & set(found):
        raise UsageError(
            f"{folder} holds no series of {release}. Found: {_listed(found) or 'no series at all'}. "
            f"Expected: {_listed([series.series_id for series in expected])}. Give data of your own "
            f"a name of their own, such as: verse-data lock mylab --from-tree FOLDER"
        )


def _listed(series: Sequence[str]) -> str:
    more = f" and {len(series) - _SHOWN} more" if len(series) > _SHOWN else ""
    return ", ".join(series[:_SHOWN]) + more


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield every file under `folder`, without hidden ones; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in sorted(folders) if not _is_skipped(name)]
        for name in sorted(names):
            path = Path(place) / name
            if not _is_skipped(name) and path.is_file():
                yield path


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED
