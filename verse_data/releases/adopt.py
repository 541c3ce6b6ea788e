"""Adopting files that people have already: files, folders and zips, local or at a URL, by digest.

Nothing is moved, made read-only, or written under a name from an archive: a candidate is copied or
inflated into a scratch file, hashed, and kept only if its digest is locked.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import logging
import shutil
import struct
import threading
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from verse_data.config import Config
from verse_data.errors import ArchiveRefused, SourceChanged, UsageError, VerseDataError
from verse_data.files import storage_errors
from verse_data.progress import Advance, Progress, silent
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import is_clutter
from verse_data.releases.annex import ObjectStore
from verse_data.releases.http import Backoff, Clock, Http
from verse_data.releases.remote_zip import NoRanges, RemoteFile, RemoteZip, download_zip
from verse_data.releases.tree import walk
from verse_data.releases.urls import redacted

_log = logging.getLogger(__name__)

_WORKERS: Final = 4
_BLOCK: Final = 1 << 20
_RANGE: Final = 8 << 20
"""Limit in bytes of one range request, and of a zip's directory (40,000 members)."""
_SLACK: Final = 64 << 20
_FICLONE: Final = 0x40049409
# Errors of zipfile for a damaged archive.
_DAMAGE: Final = (
    zipfile.BadZipFile,
    struct.error,
    zlib.error,
    ArithmeticError,
    EOFError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Difference:
    """A file with the name of a locked file, but other bytes."""

    found: str
    size: int
    sha256: str
    file: LockedFile


@dataclass
class AdoptReport:
    """What was found in the sources of one call of ``adopt``; only what is `new` was copied."""

    new: list[LockedFile] = field(default_factory=list)
    known: list[LockedFile] = field(default_factory=list)  # in the dataset already
    different: list[Difference] = field(default_factory=list)  # locked with another content
    unknown: list[str] = field(default_factory=list)  # neither name nor content is in the lock
    missing: list[LockedFile] = field(default_factory=list)  # of the version, and not here even now

    def __repr__(self) -> str:
        counts = (f"{len(found):,} {name}" for name, found in vars(self).items())
        return f"<AdoptReport: {', '.join(counts)}>"

    def refuse_differences(self, release: str) -> None:
        """Raise SourceChanged if a file has a locked name but other bytes."""
        if not self.different:
            return
        first = self.different[0]
        raise SourceChanged(
            f"{first.found}: the file changed since it was locked: {first.file.size:,} bytes, sha256 "
            f"{first.file.sha256[:12]} are locked; {first.size:,} bytes, sha256 {first.sha256[:12]} "
            f"were found ({len(self.different)} such files). "
            f"Lock the tree again: verse-data lock {release} --from-tree FOLDER"
        )


def _base(name: str) -> str:
    return name.rpartition("/")[2]


class _Candidate(NamedTuple):
    """A file in a source; `write` copies its content to a path and returns size and SHA-256."""

    name: str
    size: int
    write: Callable[[Path, Advance], tuple[int, str]]


class _Adoption:
    """One call: the lock's contents, and what was found so far. Threads append to its lists."""

    def __init__(self, lock: ReleaseLock, store: ObjectStore, progress: Progress) -> None:
        self.store, self.progress, self.report, self._lock = store, progress, AdoptReport(), lock
        # No archive of the release can need more than this.
        self.budget = 2 * lock.total_bytes + _SLACK
        self._by_content: dict[tuple[int, str], list[LockedFile]] = defaultdict(list)
        self._by_name: dict[str, list[LockedFile]] = defaultdict(list)
        for file in lock.files:
            self._by_content[file.size, file.sha256].append(file)
            self._by_name[_base(file.path)].append(file)

    def take(
        self,
        title: str,
        found: Iterable[_Candidate],
        *,
        source: str = "",
        budget: float = float("inf"),
    ) -> None:
        """Read the files that have a locked size or name; keep those whose content is locked."""
        sizes = {size for size, _ in self._by_content}
        chosen = []
        for one in found:
            if one.size in sizes or _base(one.name) in self._by_name:
                chosen.append(one)
            # A folder was walked without clutter; a zip was not.
            elif not (source and any(map(is_clutter, one.name.split("/")))):
                self.report.unknown.append(one.name)
        total = sum(one.size for one in chosen)
        if total > budget:
            raise ArchiveRefused(
                f"{source}: its members of locked names or sizes hold {total:,} bytes, and a release "
                f"of {self._lock.total_bytes:,} bytes cannot need more than {budget:,}. Nothing was "
                f"taken from it."
            )
        if chosen:
            with (
                self.progress(title, total, "bytes") as advance,
                ThreadPoolExecutor(_WORKERS) as pool,
            ):
                list(pool.map(partial(self._take_one, advance), chosen))

    def _take_one(self, advance: Advance, found: _Candidate) -> None:
        with self.store.staging("adopted") as staged:
            size, sha256 = found.write(staged, advance)
            if matches := self._by_content.get((size, sha256)):
                self._keep(staged, matches)
            elif namesake := self._namesake(found.name):
                self.report.different.append(Difference(found.name, size, sha256, namesake))
            else:
                self.report.unknown.append(found.name)

    def _keep(self, staged: Path, matches: Sequence[LockedFile]) -> None:
        # One content has several keys if its files have different extensions.
        missing = {file.annex_key: file for file in matches if not self.store.has(file)}
        for number, file in enumerate(missing.values(), start=1):
            with self.store.staging(file.annex_key) as own:
                if number < len(missing):
                    shutil.copyfile(staged, own)
                self.store.ingest(file, own if number < len(missing) else staged)
        for file in matches:
            (self.report.new if file.annex_key in missing else self.report.known).append(file)

    def _namesake(self, name: str) -> LockedFile | None:
        """Return the locked file for a name: the one whose path it ends with, else by base name."""
        same = self._by_name.get(_base(name), [])
        whole = (file for file in same if f"/{name}".endswith(f"/{file.path}"))
        return next(whole, same[0] if same else None)

    def is_here(self, info: zipfile.ZipInfo) -> bool:
        """Whether a member has name, size and checksum of a file that is here."""
        file = self._namesake(info.filename)
        if file is None or file.size != info.file_size or not self.store.has(file):
            return False
        same = zlib.crc32(self.store.object_path(file).read_bytes()) == info.CRC
        if same:
            self.report.known.append(file)
        return same

    def finish(self) -> AdoptReport:
        """Return the report, sorted so that it does not depend on the order of threads."""
        # One content may be locked under several paths, and be in the sources several times.
        report, by_path = self.report, attrgetter("path")
        report.known = sorted({*report.known} - {*report.new}, key=by_path)
        report.new = sorted({*report.new}, key=by_path)
        report.different.sort(key=lambda difference: difference.found)
        report.unknown.sort()
        report.missing = [file for file in self._lock.files if not self.store.has(file)]
        return report


def adopt_sources(
    sources: Iterable[Path | str],
    lock: ReleaseLock,
    store: ObjectStore,
    *,
    config: Config,
    progress: Progress = silent,
    clock: Clock | None = None,
    backoff: Backoff | None = None,
) -> AdoptReport:
    """Copy everything in `sources` whose content is locked into `store`.

    Of a zip at an address only the directory and the missing members are read, by range requests; if
    the server does not support them, all of it is downloaded to the store's disk, and then removed.
    """
    sources = list(sources)
    check_sources(sources)
    adoption = _Adoption(lock, store, progress)
    zips = [source for source in sources if _is_address(source) or _is_zip(Path(source))]
    places = [Path(source) for source in sources if source not in zips]
    walked = [(place, walk(place)) for place in places]
    adoption.report.unknown += [str(fault) for _, found in walked for fault in found.faults]
    adoption.take(
        "Adopting files",
        (
            _Candidate(
                path.relative_to(place.parent).as_posix(),
                path.stat().st_size,
                partial(copy_and_hash, path),
            )
            for place, found in walked
            for path in found.files
        ),
    )
    for source in zips:
        if _is_address(source):
            with closing(Http(config, clock=clock, backoff=backoff, named=(str(source),))) as http:
                _take_remote_zip(adoption, str(source), http)
        else:
            with storage_errors(Path(source)):
                _take_zip(adoption, str(source), partial(io.FileIO, source))
    return adoption.finish()


def check_sources(sources: Iterable[Path | str]) -> None:
    """Raise `UsageError` if one of `sources` is neither an address nor an existing path."""
    for source in sources:
        if not _is_address(source) and not Path(source).exists():
            raise UsageError(f"{source} does not exist. Give a folder, a file or a zip to adopt.")


def _is_address(source: Path | str) -> bool:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def _is_zip(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".zip"


def copy_and_hash(source: Path, target: Path, advance: Advance) -> tuple[int, str]:
    """Copy a file, sharing its blocks where the file system can; return size and SHA-256."""
    # The digest is of the bytes in `target`, so that a source that changes meanwhile does no harm.
    with storage_errors(source):
        opened = source.open("rb")
    with opened as reader, target.open("w+b") as writer:
        if _is_cloned(reader, writer):
            return _hash(writer, advance)
        return _hash(reader, advance, into=writer)


def _hash(stream: Any, advance: Advance, *, into: BinaryIO | None = None) -> tuple[int, str]:
    """Read to the end, writing `into` where it is given; return size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    while block := stream.read(_BLOCK):
        digest.update(block)
        size += len(block)
        if into:
            into.write(block)
        advance(len(block))
    return size, digest.hexdigest()


def _is_cloned(reader: BinaryIO, writer: BinaryIO) -> bool:
    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError:  # if the disk is at fault, copying will raise it
        return False
    return True


class _ZipReader(io.BufferedReader):
    """A zip as a file that refuses reads larger than the limit of a directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes; all where it is missing."""
        if size is not None and size > _RANGE:
            raise zipfile.BadZipFile(f"its directory is longer than {_RANGE:,} bytes")
        return super().read(size)


def _take_zip(
    adoption: _Adoption,
    name: str,
    open_zip: Callable[[], io.RawIOBase],
    remote: RemoteZip | None = None,
) -> None:
    """Take the members of a zip; each thread opens it for itself."""
    per_thread = threading.local()

    def archive() -> zipfile.ZipFile:
        if not hasattr(per_thread, "archive"):
            buffer = _RANGE if remote else io.DEFAULT_BUFFER_SIZE
            reader = opened.enter_context(_ZipReader(open_zip(), buffer))
            with _damage_refused(name):
                per_thread.archive = opened.enter_context(zipfile.ZipFile(reader))
        return per_thread.archive  # type: ignore[no-any-return]

    def inflate(info: zipfile.ZipInfo, path: Path, advance: Advance) -> tuple[int, str]:
        with _damage_refused(f"{name}, member {info.filename!r}"), path.open("wb") as target:
            if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise zipfile.BadZipFile("it is neither stored nor deflated")
            with archive().open(info) as member:
                return _hash(member, advance, into=target)

    with ExitStack() as opened:
        members = [info for info in archive().infolist() if not info.is_dir()]
        if remote:
            remote.starts = sorted([*(i.header_offset for i in members), archive().start_dir])
            # Members that are here already, by their checksums, are not read over the network.
            members = [info for info in members if not adoption.is_here(info)]
        adoption.take(
            "Adopting the archive",
            # Names are shown to people: line ends, escapes and bidi controls become "?".
            (
                _Candidate(
                    "".join(letter if letter.isprintable() else "?" for letter in info.filename),
                    info.file_size,
                    partial(inflate, info),
                )
                for info in members
            ),
            source=name,
            budget=adoption.budget,
        )


@contextmanager
def _damage_refused(name: str) -> Iterator[None]:
    """Turn errors of zipfile for a damaged zip into ArchiveRefused."""
    try:
        yield
    except VerseDataError:
        raise
    except (*_DAMAGE, OSError) as error:
        # EINVAL is a seek before the file's start: the archive's fault, not the disk's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        why = "it is encrypted" if "encrypted" in str(error) else str(error) or type(error).__name__
        raise ArchiveRefused(
            f"{name}: {why}. It is damaged, encrypted or not a zip; a file that was adopted from it "
            f"before has its locked digest. If you trust it, unpack it yourself and adopt the folder: "
            f"verse-data adopt RELEASE FOLDER"
        ) from error


def _take_remote_zip(adoption: _Adoption, url: str, http: Http) -> None:
    """Take the members of a zip at an address, by range requests if its server supports them."""
    try:
        remote = RemoteZip(url, http)
    except NoRanges:
        _log.info("%s: no ranges, so the whole archive is downloaded", redacted(url))
    else:
        _take_zip(adoption, redacted(url), lambda: RemoteFile(remote), remote)
        return
    with adoption.store.staging("archive.zip") as whole:
        with adoption.progress("Downloading the archive", 0, "bytes") as advance:
            download_zip(url, http, whole, most=adoption.budget, advance=advance)
        _take_zip(adoption, redacted(url), partial(io.FileIO, whole))
