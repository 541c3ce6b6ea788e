"""Getting contents: which files are missing, where each comes from, what became of it, and a log."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

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
from verse_data.files import storage_errors
from verse_data.progress import Advance, Progress, conclude, ignore, spell_bytes
from verse_data.records.lock import LockedFile
from verse_data.releases import annex
from verse_data.releases.adopt import copy_and_hash
from verse_data.releases.commands import command
from verse_data.releases.download import Download, Downloads
from verse_data.releases.history import History
from verse_data.releases.http import Backoff, Clock
from verse_data.releases.siblings import Sibling, siblings
from verse_data.releases.store import ObjectStore
from verse_data.releases.urls import shown

log = logging.getLogger("verse_data.fetch")

_SHOWN: Final = 20
# The source of what came from a web address; every other name is that of a sibling.
WEB: Final = "web"


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """What became of one file."""

    file: LockedFile
    ok: bool  # whether its verified content is now in the dataset
    error: str | None = None  # begins with the file's path
    error_class: type[VerseDataError] | None = None
    bytes: int = 0  # that came over the web for it, wasted ones included
    sibling_bytes: int = 0  # that came from a sibling in a folder (another clone, a RIA store)
    source: str | None = None  # "web", or the sibling's name; None if nobody was asked
    url: str | None = None  # that gave the content or was tried last, without credentials
    waited: bool = False  # whether another process had fetched it when its turn came
    tries: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """What became of one call of ``fetch``.

    Attributes
    ----------
    present : tuple of LockedFile
        Files that were here before, or that another process brought in the meantime.
    fetched, failed : tuple of FetchResult
        Files that came now, and files that did not.
    to_adopt : tuple of FetchResult
        Files that have no address, and no sibling gave them: only a person can bring them.
    """

    present: tuple[LockedFile, ...]
    fetched: tuple[FetchResult, ...]
    failed: tuple[FetchResult, ...]
    to_adopt: tuple[FetchResult, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes that came over the web, wasted ones included."""
        return sum(result.bytes for result in (*self.fetched, *self.failed))

    @property
    def sibling_bytes(self) -> int:
        """Bytes that came from siblings."""
        return sum(result.sibling_bytes for result in (*self.fetched, *self.failed))

    def __repr__(self) -> str:
        return (
            f"<FetchReport: {len(self.fetched):,} fetched, {len(self.present):,} here before, "
            f"{len(self.failed):,} failed, {len(self.to_adopt):,} to adopt>"
        )

    def raise_for_failures(self, *, needed: Container[str] = ()) -> None:
        """Raise the error of the files that did not come, if there are any."""
        failed = [*self.failed, *(r for r in self.to_adopt if r.file.path in needed)]
        if not failed:
            return
        classes = {result.error_class or NetworkError for result in failed}
        kind = classes.pop() if len(classes) == 1 else NetworkError
        here = len(self.fetched) + len(self.present)
        asked = len(self.failed) + len(self.to_adopt) + here
        kept = "; the others are in place" if here and here + len(failed) == asked else ""
        head = f"{len(failed)} of {asked} files could not be fetched{kept}:"
        raise kind("\n".join([head, *_some(str(result.error) for result in failed)]))


def _some(lines: Iterable[str]) -> list[str]:
    """Return the first 20 of `lines`, set in, and how many more there are."""
    every = [f"  {line}" for line in lines]
    more = [f"  and {len(every) - _SHOWN} more"] if len(every) > _SHOWN else []
    return every[:_SHOWN] + more


class FetchLog:
    """The log of one dataset, ``.git/verse-data/fetch-log.jsonl``: appended to, never rewritten.

    A content that was removed, or came from this machine's disk, has a line that says just that:
    what was fetched before is not what lies here now.
    """

    def __init__(self, dataset: Path) -> None:
        self.path = dataset / ".git" / "verse-data" / "fetch-log.jsonl"

    def append(self, result: FetchResult) -> None:
        """Add what became of one file; addresses hold no credentials."""
        line = {
            "path": result.file.path,
            "key": result.file.annex_key,
            "ok": result.ok,
            "verified": result.ok,
            "source": result.source,
            "url": result.url,
            "bytes": result.bytes,
            "sibling_bytes": result.sibling_bytes,
            "tries": result.tries,
            "seconds": round(result.seconds, 3),
            "engine": "http" if result.source in {None, WEB} else "copy",
            "error": result.error,
            "error_class": result.error_class and result.error_class.__name__,
            "verse_data": __version__,
        }
        self._write([line])

    def note(self, event: Literal["dropped", "adopted"], keys: Iterable[str]) -> None:
        """Add that the contents of `keys` left this machine, or came from its own disk."""
        if lines := [{"key": key, "event": event} for key in keys]:
            self._write(lines)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        now = {"time": datetime.now(tz=UTC).isoformat(timespec="seconds")}
        data = "".join(json.dumps(now | line, ensure_ascii=False) + "\n" for line in lines).encode()
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write to a file that was opened for appending: lines of two processes do not mix.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path, flags, 0o644)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def last_fetches(self) -> dict[str, dict[str, Any]]:
        """Return by key the line of the fetch that brought the content that lies here, if known."""
        last: dict[str, dict[str, Any]] = {}
        for line in self.read():
            if line.get("event"):
                last.pop(str(line.get("key")), None)
            elif line.get("ok") and (line.get("bytes") or line.get("sibling_bytes")):
                last[str(line.get("key"))] = line
        return last

    def read(self) -> list[dict[str, Any]]:
        """Return all lines, oldest first, but for what is none, such as one that a kill cut short."""
        try:
            if not stat.S_ISREG(self.path.lstat().st_mode):
                return []
            lines = self.path.read_bytes().split(b"\n")
        except OSError:
            return []
        return [line for text in lines if isinstance(line := _parsed(text), dict)]


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def download_url(site: str, file_id: str, version: int) -> str:
    """Return the address of exactly one version of a file on OSF.

    It holds the id and not the guid, which exists only for some files. The address that it leads to
    lives for a minute and must never be kept.
    """
    return f"{site}/download/{file_id}/?version={version}"


def file_urls(file: LockedFile, *, osf_site: str) -> tuple[str, ...]:
    """Return all addresses of `file`, the one on OSF first."""
    # Those on OSF stand in no lock, so that it is the same whichever endpoint it was made through.
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
    """Bring `files` into the dataset of `store`; see :meth:`ReleaseDataset.fetch`."""
    if not isinstance(jobs, int) or jobs < 1:
        raise UsageError(f"jobs={jobs!r}: at least one file has to be fetched at a time.")
    present = [file for file in files if store.has(file)]
    missing = [file for file in files if not store.has(file)]
    if not missing:
        return FetchReport(present=tuple(present), fetched=(), failed=())
    annex.require_usable(store.path)
    results: list[FetchResult] = []

    def keep(result: FetchResult) -> None:
        results.append(result)
        FetchLog(store.path).append(result)

    with progress("Fetching files", _total(missing), "bytes") as advance:
        try:
            fetch_each(
                store,
                missing,
                config=config,
                jobs=jobs,
                on_result=keep,
                advance=advance,
                near=siblings(store.path),
            )
        finally:
            with store.unrecorded() as keys:
                annex.record_presence(store.path, dict.fromkeys(keys, True))
    failed = _with_way_out(store.path, [result for result in results if not result.ok])
    if any(result.error_class is Offline for result in failed):
        raise Offline(_describe_missing(store.path, [result.file for result in failed]))
    size = spell_bytes(_total(result.file for result in results if result.ok))
    came = counted(sum(result.ok for result in results), "file")
    conclude(progress, f"{size} in {came} at {store.path}")
    return FetchReport(
        present=(*present, *(result.file for result in results if result.waited)),
        fetched=tuple(result for result in results if result.ok and not result.waited),
        failed=tuple(result for result in failed if result.error_class is not ContentMissing),
        to_adopt=tuple(result for result in failed if result.error_class is ContentMissing),
    )


def _total(files: Iterable[LockedFile]) -> int:
    """Return the bytes of `files`, of each content once."""
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
    """Bring each content out of a `near` folder or over HTTP, `jobs` at a time; report every file.

    Whatever happens, also a kill, a file is at its final name whole and right, or not at all.
    """
    groups: dict[str, list[LockedFile]] = {}
    for file in files:
        groups.setdefault(file.annex_key, []).append(file)
    far = [file for file in files if not any(sibling.find(file) for sibling in near)]
    shared = Downloads(config, store, jobs=jobs, advance=advance, clock=clock, backoff=backoff)
    with closing(shared) as call, ThreadPoolExecutor(jobs) as pool:
        if not config.offline:
            call.prepare(_total(file for file in far if not store.has(file)))
        pending = {
            pool.submit(_fetch_one, call, group[0], near): group for group in groups.values()
        }
        try:
            for future in as_completed(pending):
                result = future.result()
                on_result(result)
                # Another file of the same content: the cost is counted once.
                for twin in pending[future][1:]:
                    error = result.error and result.error.replace(result.file.path, twin.path, 1)
                    on_result(
                        replace(result, file=twin, error=error, bytes=0, sibling_bytes=0, tries=0)
                    )
        finally:
            # Also after an interruption: what still runs shall end soon, and nothing new is begun.
            for future in pending:
                future.cancel()
            call.clock.wake()


def _fetch_one(call: Downloads, file: LockedFile, near: Sequence[Sibling]) -> FetchResult:
    """Bring one file here; every error of ours becomes a result."""
    start, error = call.clock.monotonic(), None
    download = Download(call, file, file_urls(file, osf_site=call.config.osf_site))
    source = None
    try:
        source = next((each.name for each in near if _is_copied(call, file, each)), None)
        if not source:
            download.run()
    except VerseDataError as caught:
        error = caught
    kept = (
        f" {download.size:,} of {file.size:,} bytes are kept; the same command goes on from there."
    )
    return FetchResult(
        file=file,
        ok=error is None,
        error=f"{file.path}: {error}{kept if download.size else ''}" if error else None,
        error_class=type(error) if error else None,
        bytes=download.received,
        sibling_bytes=file.size if source else 0,
        source=source or (WEB if download.tries else None),
        url=shown(download.url) if download.tries else None,
        waited=error is None and not (download.tries or source),
        tries=download.tries,
        seconds=call.clock.monotonic() - start,
    )


def _is_copied(call: Downloads, file: LockedFile, sibling: Sibling) -> bool:
    """Copy a sibling's file, if it has one that can be read and whose content is the locked one."""
    path = sibling.find(file)
    if path is None or not os.access(path, os.R_OK):
        return False
    with call.store.staging(path.name) as staged:
        size, sha256 = copy_and_hash(path, staged, advance=call.advance)
        if (size, sha256) == (file.size, file.sha256):
            call.store.ingest(file, staged)
            return True
    log.warning("%s: sibling %s has other content in its place", file.path, sibling.name)
    call.advance(-size)
    return False


def _last_versions(dataset: Path) -> dict[str, str]:
    """Return by key the last version that lists a content, but for those that the newest lists."""
    history = History(dataset)
    every = {v: {file.annex_key for file in history.lock(v).files} for v in history.versions()}
    newest = list(every.values())[-1] if every else set()
    return {key: version for version, keys in every.items() for key in keys - newest}


def _describe_missing(dataset: Path, missing: Sequence[LockedFile]) -> str:
    """Say which files are missing, how much that is, and what brings exactly these."""
    last = _last_versions(dataset)
    version = next((last[file.annex_key] for file in missing if file.annex_key in last), None)
    size = sum(file.size for file in missing)
    head = (
        f"{dataset.name}: {len(missing)} files ({size:,} bytes) are not on this machine, and the "
        f"network is forbidden (offline):"
    )
    tail = (
        f"Without --offline, offline=True and VERSE_DATA_OFFLINE=1, they come with: "
        f"{command(dataset, 'get', version=version)}; or bring them: "
        f"{command(dataset, 'adopt', 'PATH', version=version)}"
    )
    lines = _some(f"{file.path} ({file.size:,} bytes)" for file in missing)
    return "\n".join([head, *lines, tail])


def _with_way_out(dataset: Path, failed: Sequence[FetchResult]) -> list[FetchResult]:
    """Add how to bring a file that the network will not, and whether later versions lack it."""
    last, added = _last_versions(dataset) if failed else {}, []
    for result in failed:
        text, old = str(result.error), last.get(result.file.annex_key)
        if old and result.error_class is SourceChanged:
            text += (
                f" Versions of {dataset.name} after {old} no longer have this content either: its "
                f"source took it away, and it was not fetched here before."
            )
        if result.error_class in {ContentMissing, DownloadCorrupt, NotTheFile, SourceChanged}:
            way = command(dataset, "adopt", "PATH", version=old)
            text += f" If you have the file from elsewhere: {way}"
        added.append(replace(result, error=text))
    return added
