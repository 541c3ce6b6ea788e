"""Make a lock from a local folder: every file of a release that is already on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

from verse_data.errors import (
    PathRefused,
    PermissionDenied,
    StorageError,
    UsageError,
    VerseDataError,
    counted,
    warn,
)
from verse_data.files import FileDigests, digest_file, storage_errors
from verse_data.problems import listed, shown
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock, by_folded_name, check_path
from verse_data.records.names import is_clutter, is_scan_id, parse_path, scan_of
from verse_data.releases import catalog

_WORKERS = 4
_SHOWN = 5
_LABEL: Final = re.compile(r"(?<![^/_])(?:sub|ses)-[^/_.]+")
# The ids of all catalogs are letters and a number; one letter is nobody's name.
_MONTH: Final = "(?i:jan|feb|mar|märz?|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])"
_PERSONAL: Final = re.compile(
    r"sub-(?!([a-z]*|[A-Z]{1,4})[0-9]+$)..+|ses-.*([0-9]{6}|[0-9]\W[0-9]+\W[0-9]"
    rf"|[0-9]{_MONTH}|{_MONTH}[0-9][0-9]).*"
)


def lock_tree(folder: Path, *, release: str, progress: Progress = silent) -> ReleaseLock:
    """Hash every file under `folder` into a lock, the same one wherever the folder is.

    Clutter (`is_clutter`) is left out, and links are followed, to files and to folders. What cannot
    be locked is refused with its name before anything is hashed.
    """
    found = _walk_release(folder)
    paths = dict(sorted((path.relative_to(folder).as_posix(), path) for path in found.files))
    _warn_of_people(paths)

    def digest(path: Path) -> FileDigests:
        with storage_errors(path):
            return digest_file(path, advance=advance)

    with (
        progress(
            "Hashing files", sum(path.stat().st_size for path in paths.values()), "bytes"
        ) as advance,
        ThreadPoolExecutor(_WORKERS) as pool,
    ):
        digests = list(pool.map(digest, paths.values()))
    files = zip(paths, map(asdict, digests), strict=True)
    return ReleaseLock(
        release=release,
        source=LockSource(kind="tree"),
        files=tuple(LockedFile(path=name, **digest) for name, digest in files),
    )


def check_series(folder: Path, release: str) -> None:
    """Raise UsageError if `release` is published and `folder` contains none of its series."""
    # Some of the series are enough: a part of a release can be locked, and the rest are findings.
    expected = catalog.load_catalog(release).expected if release in catalog.names() else ()
    if not expected:
        return
    parsed = (parse_path(path.name) for path in _walk_release(folder).files)
    found = sorted({name.series_id for name in parsed if name and name.role != "grading"})
    if not {series.series_id for series in expected} & set(found):
        raise UsageError(
            f"{folder} holds no series of {release}. Found: {listed(found, most=_SHOWN) or 'no series at all'}. "
            f"Expected: {listed([one.series_id for one in expected], most=_SHOWN)}. Give data of your own "
            f"a name of their own, such as: verse-data lock mylab --from-tree FOLDER"
        )


def _warn_of_people(paths: Iterable[str]) -> None:
    """Warn of labels of subjects that are no numbers, and of those of sessions that are dates."""
    labels = {label for path in paths for label in _LABEL.findall(path)}
    if personal := sorted(filter(_PERSONAL.fullmatch, labels), reverse=True):
        warn(
            UserWarning(
                f"{counted(len(personal), 'label')} may be a person's name or the date of a visit: "
                f"{listed(personal)}. Tables, exports and copies of a release hold its "
                f"labels. If so, stop, rename folders and files, for example to sub-lab001 and "
                f"ses-1, and lock them then. Nothing was written so far."
            )
        )


def _walk_release(folder: Path) -> Walked:
    """Return what is in the release at `folder`; one error names all that cannot be locked."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder. Give the folder that the release lies in.")
    found = walk(folder)
    faults = [*found.faults]
    names = [path.relative_to(folder).as_posix() for path in (*found.files, *found.folders)]
    for name in names[: len(found.files)]:
        try:
            check_path(name)
        except ValueError as error:
            faults.append(PathRefused(str(error)))
        if (scan := scan_of(name)) and not is_scan_id(scan):
            faults.append(PathRefused(f"{name!r} makes a scan id of more than 64 letters"))
    try:
        by_folded_name(names)
    except ValueError as error:
        faults.append(PathRefused(str(error)))
    if faults:
        head = f"{folder}: not all of it can be locked, so nothing was written:"
        then = (
            "Fetch what a link stands for (in a clone: datalad get), or remove the link; make "
            "readable what may not be read; rename or remove the rest."
        )
        raise type(faults[0])("\n".join([head, *shown(faults, indent="  "), then]))
    raw, derived = (
        {path.parent for path in found.folders if path.name == kind and path != folder}
        for kind in ("rawdata", "derivatives")
    )
    parsed = filter(None, (parse_path(path.name) for path in found.files))
    if not raw and not any((name.layout, name.role) == ("miccai", "ct") for name in parsed):
        raise UsageError(
            f"{folder} holds no release: there is no folder named rawdata in it. Give a folder such "
            f"as dataset-verse19training/, which holds rawdata/ and derivatives/, or the one above."
        )
    for place in sorted(derived - raw):
        raise UsageError(
            f"{place} holds derivatives/ and no rawdata/: its scans would have no CT. Put the "
            f"folder back, or leave this part of the release out."
        )
    return found


class Walked(NamedTuple):
    """What is in a folder, in order of names, and why the rest cannot be read."""

    files: list[Path]
    folders: list[Path]
    faults: list[VerseDataError]


def walk(place: Path) -> Walked:
    """Return everything at and under `place` but clutter."""
    # Links to folders are followed, each folder once: one that leads back into what is walked
    # anyway, or to a folder above that, is a fault.
    found, waiting = Walked([], [], []), [place]
    root = Path(os.path.realpath(place))
    walked, above = {root}, {root, *root.parents}
    while waiting:
        path = waiting.pop()
        try:
            target = Path(os.path.realpath(path)) if path != place and path.is_symlink() else None
            if path.is_file():
                path.open("rb").close()
                found.files.append(path)
            elif not path.is_dir():
                nowhere = not path.exists() and f"a link to {path.readlink()}, where nothing is"
                found.faults.append(PathRefused(f"{path}: {nowhere or 'a pipe, socket or device'}"))
            elif target and (target in above or not walked.isdisjoint(target.parents)):
                why = f"a link to {target}, in or above the tree, or linked twice"
                found.faults.append(PathRefused(f"{path}: {why}"))
            else:
                if target:
                    walked.add(target)
                    above |= {target, *target.parents}
                names = sorted(path.iterdir(), reverse=True)
                waiting += [below for below in names if not is_clutter(below.name)]
                found.folders.append(path)
        except OSError as error:
            kind = PermissionDenied if isinstance(error, PermissionError) else StorageError
            found.faults.append(kind(f"{path}: {error.strerror}"))
    return found
