"""Taking over what lies on disk already: by hash, by copy, never moved and never made read-only."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from verse_data.config import Config
from verse_data.errors import SourceChanged, UsageError
from verse_data.progress import Advance, Progress, silent
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.releases.copying import copy_and_hash
from verse_data.releases.store import ObjectStore
from verse_data.releases.tree import walk_files

_WORKERS: Final = 4


@dataclass(frozen=True)
class Difference:
    """A file with a locked file's name, but other bytes."""

    found: str
    size: int
    sha256: str
    file: LockedFile


@dataclass
class AdoptReport:
    """What was found in the sources of one call of ``adopt``.

    Attributes
    ----------
    new : list of LockedFile
        Contents that were copied into the dataset.
    known : list of LockedFile
        Contents that were in the dataset already.
    different : list of Difference
        Files whose name is locked with another content; they were not taken.
    unknown : list of str
        Files whose name and content the lock does not know; they were not taken.
    missing : list of LockedFile
        Files of the version whose content is still not in the dataset.
    """

    new: list[LockedFile] = field(default_factory=list)
    known: list[LockedFile] = field(default_factory=list)
    different: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    missing: list[LockedFile] = field(default_factory=list)

    def __repr__(self) -> str:
        names = ("new", "known", "different", "unknown", "missing")
        return (
            f"<AdoptReport: {', '.join(f'{len(getattr(self, name)):,} {name}' for name in names)}>"
        )

    def refuse_differences(self, release: str) -> None:
        """Raise SourceChanged if a file bears a locked name but holds other bytes."""
        if not self.different:
            return
        first = self.different[0]
        raise SourceChanged(
            f"{first.found}: the file changed since it was locked: {first.file.size:,} bytes, sha256 "
            f"{first.file.sha256[:12]} are locked; {first.size:,} bytes, sha256 {first.sha256[:12]} "
            f"were found ({len(self.different)} such files). "
            f"Lock the tree again: verse-data lock {release} --from-tree FOLDER"
        )


class Wanted:
    """The files of a lock, found by content or by name.

    Parameters
    ----------
    lock : ReleaseLock
        The version that contents are adopted for.
    """

    def __init__(self, lock: ReleaseLock) -> None:
        self._by_content: dict[tuple[int, str], list[LockedFile]] = {}
        self._by_name: dict[str, list[LockedFile]] = {}
        for file in lock.files:
            self._by_content.setdefault((file.size, file.sha256), []).append(file)
            self._by_name.setdefault(file.path.rpartition("/")[2], []).append(file)
        self._sizes = {file.size for file in lock.files}

    def may_hold(self, name: str, size: int) -> bool:
        """Whether a file of this size and name is worth reading."""
        return size in self._sizes or name.rpartition("/")[2] in self._by_name

    def with_content(self, size: int, sha256: str) -> list[LockedFile]:
        """Return the files with this content."""
        return self._by_content.get((size, sha256), [])

    def with_name(self, name: str) -> LockedFile | None:
        """Return the file whose path shares the most trailing parts with `name`, at least one."""
        parts = name.split("/")
        candidates = self._by_name.get(parts[-1], [])
        return max(candidates, key=lambda file: _shared_tail(parts, file.path), default=None)


def _shared_tail(parts: Sequence[str], path: str) -> int:
    pairs = zip(reversed(parts), reversed(path.split("/")), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), len(parts))


def adopt_sources(
    sources: Iterable[Path | str],
    lock: ReleaseLock,
    store: ObjectStore,
    *,
    config: Config,
    progress: Progress = silent,
) -> AdoptReport:
    """Copy everything in `sources` whose content is locked into `store`.

    Raises
    ------
    UsageError
        If a source does not exist; nothing has been adopted then.
    """
    from verse_data.releases.archives import adopt_zip

    sources = list(sources)
    check_sources(sources)
    zips = [source for source in sources if _is_address(source) or _is_zip(Path(source))]
    folders = [Path(source) for source in sources if source not in zips]
    report = adopt_folders(folders, lock, store, progress=progress)
    for source in zips:
        place = source if _is_address(source) else Path(source)
        found = adopt_zip(place, lock, store, config=config, progress=progress)
        report.new += found.new
        report.known += found.known
        report.different += found.different
        report.unknown += found.unknown
    return finish(report, lock, store)


def check_sources(sources: Iterable[Path | str]) -> None:
    """Raise `UsageError` if one of `sources` is neither an address nor there."""
    for source in sources:
        if not _is_address(source) and not Path(source).exists():
            raise UsageError(f"{source} does not exist. Give a folder, a file or a zip to adopt.")


def _is_address(source: Path | str) -> bool:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def _is_zip(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".zip"


def adopt_folders(
    folders: Iterable[Path], lock: ReleaseLock, store: ObjectStore, *, progress: Progress = silent
) -> AdoptReport:
    """Copy every file under `folders` whose content is locked into `store`.

    A file is read once: while it is copied (or after it was cloned, where the file system can),
    its digest is taken of the very bytes that are kept.
    """
    sources = [(path, folder) for folder in folders for path in _files(folder)]
    sizes = [path.stat().st_size for path, _ in sources]
    wanted, report = Wanted(lock), AdoptReport()
    if not sources:
        return finish(report, lock, store)
    with (
        progress("Adopting files", sum(sizes), "bytes") as advance,
        ThreadPoolExecutor(_WORKERS) as pool,
    ):

        def one(source: tuple[Path, Path], size: int) -> None:
            path, folder = source
            name = path.relative_to(folder.parent).as_posix()
            if wanted.may_hold(name, size):
                _adopt_file(path, name, wanted=wanted, store=store, report=report, advance=advance)
            else:
                report.unknown.append(name)
                advance(size)

        list(pool.map(one, sources, sizes))
    return finish(report, lock, store)


def finish(report: AdoptReport, lock: ReleaseLock, store: ObjectStore) -> AdoptReport:
    """Sort a report, so that it does not hang on the order of threads, and add what is missing."""
    # One content may be locked under several paths, and lie in the sources several times.
    new = {file.path: file for file in report.new}
    known = {file.path: file for file in report.known if file.path not in new}
    report.new, report.known = ([found[path] for path in sorted(found)] for found in (new, known))
    report.different.sort(key=lambda difference: difference.found)
    report.unknown.sort()
    report.missing = [file for file in lock.files if not store.has(file)]
    return report


def _files(source: Path) -> Iterator[Path]:
    return walk_files(source) if source.is_dir() else iter([source])


def _adopt_file(
    path: Path,
    name: str,
    *,
    wanted: Wanted,
    store: ObjectStore,
    report: AdoptReport,
    advance: Advance,
) -> None:
    with store.staging(path.name) as staged:
        size, sha256 = copy_and_hash(path, staged, advance=advance)
        place(staged, name, size, sha256, wanted=wanted, store=store, report=report)


def place(
    staged: Path,
    name: str,
    size: int,
    sha256: str,
    *,
    wanted: Wanted,
    store: ObjectStore,
    report: AdoptReport,
) -> None:
    """Put hashed content where it belongs, and note in `report` what it was.

    Parameters
    ----------
    staged : Path
        The content, on the disk of the store; it is the caller's to remove.
    name : str
        Where it was found, for the report and for telling different from unknown.
    size, sha256
        What was measured of it.
    """
    matches = wanted.with_content(size, sha256)
    if not matches:
        namesake = wanted.with_name(name)
        if namesake is None:
            report.unknown.append(name)
        else:
            report.different.append(Difference(name, size, sha256, namesake))
        return
    # One content has several keys where it bears several extensions.
    missing = {file.annex_key: file for file in matches if not store.has(file)}
    *twins, last = missing.values() or (None,)
    for file in twins:
        with store.staging(file.annex_key) as twin:
            shutil.copyfile(staged, twin)
            store.ingest(file, twin)
    if last:
        store.ingest(last, staged)
    report.new.extend(file for file in matches if file.annex_key in missing)
    report.known.extend(file for file in matches if file.annex_key not in missing)
