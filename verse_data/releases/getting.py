"""One call of ``get``: what is missing, where it comes from, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from verse_data.config import Config
from verse_data.errors import ContentMissing, Offline, SourceChanged, UsageError, counted
from verse_data.progress import Advance, Progress, conclude, spell_bytes
from verse_data.records.lock import LockedFile
from verse_data.releases import annex
from verse_data.releases.adopt import copy_and_hash
from verse_data.releases.commands import command
from verse_data.releases.fetch import FetchReport, FetchResult, fetch_each, no_address
from verse_data.releases.fetch_log import FetchLog
from verse_data.releases.siblings import Sibling

if TYPE_CHECKING:
    from verse_data.releases.dataset import ReleaseDataset

_SHOWN: Final = 20


def fetch_files(
    dataset: ReleaseDataset,
    files: Sequence[LockedFile],
    *,
    jobs: int,
    config: Config,
    progress: Progress,
) -> FetchReport:
    """Bring `files` here; see :meth:`ReleaseDataset.fetch`."""
    if not isinstance(jobs, int) or jobs < 1:
        raise UsageError(f"jobs={jobs!r}: at least one file has to be fetched at a time.")
    present = tuple(file for file in files if dataset.has(file))
    missing = [file for file in files if not dataset.has(file)]
    if not missing:
        return FetchReport(present=present, fetched=(), failed=())
    annex.require_usable(dataset.path)
    results: list[FetchResult] = []
    log = FetchLog(dataset.path)
    total = sum(file.size for file in {file.annex_key: file for file in missing}.values())
    with progress("Fetching files", total, "bytes") as advance:

        def keep(result: FetchResult) -> None:
            results.append(result)
            log.append(result)

        try:
            left = _copy_from_siblings(dataset, missing, jobs=jobs, advance=advance, on_result=keep)
            _download(dataset, left, jobs=jobs, config=config, advance=advance, on_result=keep)
        finally:
            dataset.record_presence()
    here = [result.file for result in results if result.ok]
    size = spell_bytes(sum({file.annex_key: file.size for file in here}.values()))
    conclude(progress, f"{size} in {counted(len(here), 'file')} at {dataset.path}")
    waited = tuple(result.file for result in results if result.waited)
    missed = _explained(dataset, [result for result in results if not result.ok])
    return FetchReport(
        present=(*present, *waited),
        fetched=tuple(result for result in results if result.ok and not result.waited),
        failed=tuple(result for result in missed if not _is_unserved(result)),
        to_adopt=tuple(result for result in missed if _is_unserved(result)),
    )


def _copy_from_siblings(
    dataset: ReleaseDataset,
    files: Sequence[LockedFile],
    *,
    jobs: int,
    advance: Advance,
    on_result: Callable[[FetchResult], None],
) -> list[LockedFile]:
    """Copy what a sibling in a folder has, and return the files that are still missing."""
    found = dataset.siblings()
    left: list[LockedFile] = []

    def keep_or_download(result: FetchResult) -> None:
        if result.ok:
            on_result(result)
        else:
            left.append(result.file)

    if not found:
        return list(files)
    copy = partial(_copied, dataset, found, advance=advance)
    fetch_each(files, copy, jobs=jobs, on_result=keep_or_download, stop=lambda: None)
    return left


def _copied(
    dataset: ReleaseDataset, found: Sequence[Sibling], file: LockedFile, *, advance: Advance
) -> FetchResult:
    """Copy a file from the first sibling that has its locked content."""
    start = time.monotonic()
    for sibling in found:
        path = sibling.find(file)
        if path and _is_copied(dataset, file, path, advance=advance):
            return FetchResult(
                file=file,
                ok=True,
                sibling_bytes=file.size,
                source=sibling.name,
                tries=0,
                seconds=time.monotonic() - start,
            )
    return FetchResult(file=file, ok=False)


def _is_copied(dataset: ReleaseDataset, file: LockedFile, path: Path, *, advance: Advance) -> bool:
    """Copy a sibling's file, if it can be read and its content is the locked one."""
    with dataset.store.staging(path.name) as staged:
        try:
            path.open("rb").close()
        except OSError:
            return False
        size, sha256 = copy_and_hash(path, staged, advance)
        if (size, sha256) != (file.size, file.sha256):
            advance(-size)
            return False
        dataset.store.ingest(file, staged)
    return True


def _download(
    dataset: ReleaseDataset,
    files: Sequence[LockedFile],
    *,
    jobs: int,
    config: Config,
    advance: Advance,
    on_result: Callable[[FetchResult], None],
) -> None:
    if not files:
        return
    if config.offline:
        if any(dataset.addresses(file) for file in files):
            raise Offline(_describe_missing(dataset, files))
        for file in files:  # the network would not help either
            on_result(_unserved(file))
        return
    from verse_data.releases.http_engine import HttpEngine

    HttpEngine(config, dataset, advance=advance).fetch(files, jobs=jobs, on_result=on_result)


def _unserved(file: LockedFile) -> FetchResult:
    text = str(no_address(file))
    return FetchResult(file=file, ok=False, error=text, error_class=ContentMissing, tries=0)


def _is_unserved(result: FetchResult) -> bool:
    """Whether nobody could be asked for a file, so that only a person can bring it."""
    return result.error_class is ContentMissing


def _describe_missing(dataset: ReleaseDataset, missing: Sequence[LockedFile]) -> str:
    """Say which files are missing, how much that is, and what brings exactly these."""
    total = sum(file.size for file in missing)
    shown = [f"  {file.path} ({file.size:,} bytes)" for file in missing[:_SHOWN]]
    more = [f"  and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
    head = (
        f"{dataset.name}: {len(missing)} files ({total:,} bytes) are not on this machine, and the "
        f"network is forbidden (offline):"
    )
    version = _newest_with(dataset, missing)
    tail = (
        f"Without --offline, offline=True and VERSE_DATA_OFFLINE=1, they come with: "
        f"{command(dataset, 'get', version=version)}; "
        f"or bring them: {command(dataset, 'adopt', 'PATH', version=version)}"
    )
    return "\n".join([head, *shown, *more, tail])


def _newest_with(dataset: ReleaseDataset, files: Sequence[LockedFile]) -> str | None:
    """Return the newest version that lists all of `files`; None if commands mean it by themselves."""
    wanted = {file.annex_key for file in files}
    versions = dataset.versions()
    for version in reversed(versions):
        if wanted <= {file.annex_key for file in dataset.lock(version).files}:
            return None if version == versions[-1] else version
    return None


def _explained(dataset: ReleaseDataset, failed: Sequence[FetchResult]) -> list[FetchResult]:
    """Write each way out as it is typed for this dataset, and say where later versions lack a file."""
    if not failed:
        return []
    versions = dataset.versions()
    newest = versions[-1]
    has = {file.annex_key: version for version in versions for file in dataset.lock(version).files}
    told = []
    for result in failed:
        version = has.get(result.file.annex_key, newest)
        old = None if version == newest else version
        way = command(dataset, "adopt", "PATH", version=old)
        error = str(result.error).replace("verse-data adopt RELEASE PATH", way)
        if result.error_class is SourceChanged and old:
            why = (
                f"{newest} of {dataset.name} no longer has this content either: its source took it "
                f"away, and it was not fetched here before. "
            )
            start, way_out, rest = error.partition("If you have the ")
            error = f"{start}{why}{way_out}{rest}" if way_out else f"{error} {why}".rstrip()
        told.append(replace(result, error=error))
    return told
