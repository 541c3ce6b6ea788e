"""Fetching files: which are missing, where each comes from, the result of each, and a log."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from verse_data import problems
from verse_data.config import Config, __version__
from verse_data.errors import (
    ContentMissing,
    DownloadCorrupt,
    NetworkError,
    NotTheFile,
    Offline,
    SourceChanged,
    UsageError,
    VerseDataError,
    counted,
)
from verse_data.files import storage_errors, sweep
from verse_data.progress import Advance, Progress, conclude, ignore, spell_bytes
from verse_data.records.lock import LockedFile
from verse_data.releases import annex
from verse_data.releases.adopt import copy_and_hash
from verse_data.releases.annex import ObjectStore
from verse_data.releases.download import Download, Servers, prepare
from verse_data.releases.history import History, command
from verse_data.releases.http import Backoff, Clock
from verse_data.releases.siblings import Sibling, get_from_servers, siblings
from verse_data.releases.urls import download_url, redacted

_log = logging.getLogger(__name__)

# The source of files from a web address; every other name is that of a sibling.
WEB: Final = "web"


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """The result of fetching one file."""

    file: LockedFile
    ok: bool  # whether its verified content is now in the dataset
    error: str | None = None  # begins with the file's path
    error_class: type[VerseDataError] | None = None
    bytes: int = 0  # received over the web for it, including wasted ones
    sibling_bytes: int = 0  # from a sibling in a folder (another clone, a RIA store)
    source: str | None = None  # "web", or the sibling's name; None if none was needed, because
    # another process had fetched the file meanwhile
    url: str | None = None  # that sent the content or was tried last, without credentials
    tries: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """The result of one call of ``fetch``."""

    present: tuple[LockedFile, ...]  # here before, or fetched by another process meanwhile
    fetched: tuple[FetchResult, ...]
    failed: tuple[FetchResult, ...]
    to_adopt: tuple[FetchResult, ...] = ()  # with no address, and at no sibling

    @property
    def bytes(self) -> int:
        """Bytes received over the web, including wasted ones."""
        return sum(result.bytes for result in (*self.fetched, *self.failed))

    @property
    def sibling_bytes(self) -> int:
        """Bytes received from siblings."""
        return sum(result.sibling_bytes for result in (*self.fetched, *self.failed))

    def __repr__(self) -> str:
        return (
            f"<FetchReport: {len(self.fetched):,} fetched, {len(self.present):,} here before, "
            f"{len(self.failed):,} failed, {len(self.to_adopt):,} to adopt>"
        )

    def raise_for_failures(self, *, needed: Container[str] = ()) -> None:
        """Raise an error that lists the files that could not be fetched, if there are any."""
        failed = [*self.failed, *(r for r in self.to_adopt if r.file.path in needed)]
        if failed:
            classes = {result.error_class or NetworkError for result in failed}
            kind = classes.pop() if len(classes) == 1 else NetworkError
            others = [*self.present, *self.fetched, *self.failed, *self.to_adopt]
            kept = "; what came is in place" if self.fetched else ""
            head = f"{len(failed)} of {len(others)} files could not be fetched{kept}:"
            lines = problems.shown([result.error for result in failed], indent="  ")
            raise kind("\n".join([head, *lines]))


class FetchLog:
    """The log of one dataset, ``.git/verse-data/fetch-log.jsonl``: appended to, never rewritten.

    Dropping a content, or adopting it from this machine's disk, adds a line too, so that an earlier
    fetch is not taken for the origin of what is here now.
    """

    def __init__(self, dataset: Path) -> None:
        self.path = dataset / ".git" / "verse-data" / "fetch-log.jsonl"

    def append(self, result: FetchResult) -> None:
        """Add the result of one file; addresses hold no credentials."""
        facts = {name: value for name, value in vars(result).items() if name != "file"}
        facts |= {
            "path": result.file.path,
            "key": result.file.annex_key,
            "engine": "http" if result.source in {None, WEB} else "copy",
            "seconds": round(result.seconds, 3),
            "error_class": result.error_class and result.error_class.__name__,
            "verse_data": __version__,
        }
        self._write([facts])

    def note(self, event: Literal["dropped", "adopted"], keys: Iterable[str]) -> None:
        """Add that the contents of `keys` were removed, or adopted from this machine's disk."""
        self._write([{"key": key, "event": event} for key in keys])

    def _write(self, lines: list[dict[str, Any]]) -> None:
        now = {"time": datetime.now(tz=UTC).isoformat(timespec="seconds")}
        data = "".join(json.dumps(now | line, ensure_ascii=False) + "\n" for line in lines).encode()
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A single write in append mode, so that lines of two processes do not mix.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path, flags, 0o644)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def last_fetches(self) -> dict[str, dict[str, Any]]:
        """Return by key the line of the fetch that a content here comes from, if known."""
        last: dict[str, dict[str, Any]] = {}
        for line in self.read():
            key = str(line.get("key"))
            if line.get("event"):
                last.pop(key, None)
            elif line.get("ok") and (line.get("bytes") or line.get("sibling_bytes")):
                last[key] = line
        return last

    def read(self) -> list[dict[str, Any]]:
        """Return all valid lines, oldest first; a line may be cut short by a kill."""
        found = []
        with suppress(OSError):
            if stat.S_ISREG(self.path.lstat().st_mode):
                for text in self.path.read_bytes().split(b"\n"):
                    with suppress(ValueError, RecursionError):
                        found.append(json.loads(text))
        return [line for line in found if isinstance(line, dict)]


def file_urls(file: LockedFile, *, osf_site: str) -> tuple[str, ...]:
    """Return all addresses of `file`, the one on OSF first."""
    # A lock holds no addresses on OSF, so that it does not depend on the endpoint it was made with.
    if file.file_id is None or file.file_version is None:
        return file.urls
    return (download_url(osf_site, file.file_id, file.file_version), *file.urls)


def fetch_files(
    store: ObjectStore,
    files: Sequence[LockedFile],
    *,
    jobs: int,
    config: Config,
    progress: Progress,
) -> FetchReport:
    """Fetch `files` into the dataset of `store`; see :meth:`Repository.fetch`."""
    if not isinstance(jobs, int) or jobs < 1:
        raise UsageError(f"jobs={jobs!r}: at least one file has to be fetched at a time.")
    sweep(store.incoming)
    present = [file for file in files if store.has(file)]
    missing = [file for file in files if not store.has(file)]
    if not missing:
        return FetchReport(present=tuple(present), fetched=(), failed=())
    annex.require_usable(store.path)
    results: list[FetchResult] = []

    def keep(result: FetchResult) -> None:
        results.append(result)
        FetchLog(store.path).append(result)

    near = siblings(store.path)
    with progress("Fetching files", _total(missing), "bytes") as advance:
        try:
            fetch_each(
                store, missing, config=config, jobs=jobs, on_result=keep, advance=advance, near=near
            )
        finally:
            with store.unrecorded() as keys:
                annex.record_presence(store.path, dict.fromkeys(keys, True))
    failed = _explained(store.path, [result for result in results if not result.ok])
    # What neither a folder nor an address gave, git-annex may get from a sibling on a server.
    got = get_from_servers(store.path, [result.file for result in failed]) if failed else {}
    for file in [result.file for result in failed if result.file.annex_key in got]:
        source = got[file.annex_key]
        keep(FetchResult(file=file, ok=True, sibling_bytes=file.size, source=source))
    failed = [result for result in failed if result.file.annex_key not in got]
    came = [result for result in results if result.ok]
    size = spell_bytes(_total(result.file for result in came))
    conclude(progress, f"{size} in {counted(len(came), 'file')} at {store.path}")
    return FetchReport(
        present=(*present, *(result.file for result in came if not result.source)),
        fetched=tuple(result for result in came if result.source),
        failed=tuple(result for result in failed if result.error_class is not ContentMissing),
        to_adopt=tuple(result for result in failed if result.error_class is ContentMissing),
    )


def _total(files: Iterable[LockedFile]) -> int:
    """Return the bytes of `files`, counting each content once."""
    return sum({file.annex_key: file.size for file in files}.values())


def fetch_each(
    store: ObjectStore,
    files: Sequence[LockedFile],
    *,
    config: Config,
    jobs: int,
    on_result: Callable[[FetchResult], None],
    advance: Advance = ignore,
    near: Sequence[Sibling] = (),
    clock: Clock | None = None,
    backoff: Backoff | None = None,
) -> None:
    """Fetch each content from a `near` folder or over HTTP, `jobs` at a time; report every file.

    Whatever happens, also a kill, a file at its final path is complete and correct.
    """
    twins: dict[str, list[LockedFile]] = defaultdict(list)
    for file in files:
        twins[file.annex_key].append(file)
    servers = Servers(config, clock=clock, backoff=backoff)
    # The servers are closed first, also after an interruption, so that running downloads end soon.
    with ThreadPoolExecutor(jobs) as pool, closing(servers):
        if not config.offline:
            far = (file for file in files if not any(sibling.find(file) for sibling in near))
            prepare(store.incoming, _total(file for file in far if not store.has(file)))
        pending = [
            pool.submit(_fetch_one, servers, store, same, near, advance) for same in twins.values()
        ]
        try:
            for future in as_completed(pending):
                for result in future.result():
                    on_result(result)
        finally:
            for future in pending:
                future.cancel()


def _fetch_one(
    servers: Servers,
    store: ObjectStore,
    files: Sequence[LockedFile],
    near: Sequence[Sibling],
    advance: Advance,
) -> list[FetchResult]:
    """Fetch the one content of `files`; errors of this package become results."""
    start, file, error = servers.clock.monotonic(), files[0], None
    urls = file_urls(file, osf_site=servers.config.osf_site)
    download, source = Download(servers, store, file, urls, advance), None
    try:
        copies = (sibling.name for sibling in near if _is_copied(store, file, sibling, advance))
        if not (source := next(copies, None)):
            download.run()
    except VerseDataError as caught:
        error = caught
    kept = ""
    if download.size:
        kept = f" {download.size:,} of {file.size:,} bytes are kept; the same command goes on from there."
    first = FetchResult(
        file=file,
        ok=error is None,
        error_class=type(error) if error else None,
        bytes=download.received,
        sibling_bytes=file.size if source else 0,
        source=source or (WEB if download.tries else None),
        url=redacted(download.url) if download.tries else None,
        tries=download.tries,
        seconds=servers.clock.monotonic() - start,
    )
    # Bytes and tries of a content are counted once.
    others = [replace(first, file=twin, bytes=0, sibling_bytes=0, tries=0) for twin in files[1:]]
    return [
        replace(each, error=f"{each.file.path}: {error}{kept}" if error else None)
        for each in (first, *others)
    ]


def _is_copied(store: ObjectStore, file: LockedFile, sibling: Sibling, advance: Advance) -> bool:
    """Copy a sibling's file, if it has a readable one with the locked content."""
    path = sibling.find(file)
    if path is None:
        return False
    with store.staging(path.name) as staged:
        size, sha256 = copy_and_hash(path, staged, advance)
        if (size, sha256) == (file.size, file.sha256):
            store.ingest(file, staged)
            return True
    _log.warning("%s: sibling %s has other content in its place", file.path, sibling.name)
    advance(-size)
    return False


def _explained(dataset: Path, failed: Sequence[FetchResult]) -> list[FetchResult]:
    """Add to each error how else to get the file; raise one `Offline` if the network is forbidden."""
    history = History(dataset)
    versions = history.versions() if failed else ()
    # The last version that has a content, if that is not the newest.
    last = {file.annex_key: v for v in versions for file in history.lock(v).files}
    old = {key: version for key, version in last.items() if version != versions[-1]}

    def adopt(file: LockedFile) -> str:
        return command(dataset, "adopt", "PATH", version=old.get(file.annex_key))

    if any(result.error_class is Offline for result in failed):
        missing = [result.file for result in failed]
        size = sum(file.size for file in missing)
        head = f"{dataset.name}: {len(missing)} files ({size:,} bytes) are not on this machine, and the "
        lines = problems.shown([f"{f.path} ({f.size:,} bytes)" for f in missing], indent="  ")
        get = command(dataset, "get", version=old.get(missing[0].annex_key))
        tail = (
            f"Without --offline, offline=True and VERSE_DATA_OFFLINE=1, they come with: {get}; or "
            f"bring them: {adopt(missing[0])}"
        )
        raise Offline("\n".join([f"{head}network is forbidden (offline):", *lines, tail]))
    explained = []
    for result in failed:
        text, since = str(result.error), old.get(result.file.annex_key)
        if since and result.error_class is SourceChanged:
            text += f" Versions of {dataset.name} after {since} no longer have this content either."
        if result.error_class in {ContentMissing, DownloadCorrupt, NotTheFile, SourceChanged}:
            text += f" If you have the file from elsewhere: {adopt(result.file)}"
        explained.append(replace(result, error=text))
    return explained
