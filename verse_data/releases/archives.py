"""Zips that people have, or that lie on a server: their members, taken by hash.

Nothing is ever unpacked to a member's name. A member that may be wanted is inflated into a
scratch file under a budget, hashed, and moved to the place of its digest, or thrown away.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from verse_data.config import Config
from verse_data.errors import ArchiveRefused
from verse_data.progress import Advance, Progress, silent
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.releases.adopt import AdoptReport, Wanted, finish, place
from verse_data.releases.download import require_room
from verse_data.releases.http import Backoff, Clock
from verse_data.releases.store import ObjectStore
from verse_data.releases.urls import shown
from verse_data.releases.zip_directory import Member, read_members
from verse_data.releases.zip_end import Source
from verse_data.releases.zip_members import extract, refuse_gzip_bomb
from verse_data.releases.zip_sources import FileSource, NoRanges, download_whole, open_source

_WORKERS: Final = 4
_BLOCK: Final = 1 << 20
_SLACK: Final = 64 << 20


def adopt_zip(
    source: Path | str,
    lock: ReleaseLock,
    store: ObjectStore,
    *,
    config: Config,
    progress: Progress = silent,
    clock: Clock | None = None,
    backoff: Backoff | None = None,
) -> AdoptReport:
    """Copy every member of a zip whose content is locked into `store`.

    Parameters
    ----------
    source : Path or str
        A file, or an ``https`` address. Of a remote zip only its directory and the members that
        are missing are read, one ranged request each; where the server gives no ranges, the whole
        is downloaded to the store's disk first, and removed afterwards.
    lock : ReleaseLock
        The version that contents are adopted for.
    store : ObjectStore
        Where they go to.
    config : Config
        Whether the network may be used.
    progress : Progress
        Told of inflated bytes.

    Returns
    -------
    AdoptReport
        New, known, different (with both digests) and unknown members.

    Raises
    ------
    ArchiveRefused
        If the archive is hostile, damaged or ambiguous. What was taken before that stays: its
        digests were right.
    Offline
        If `source` is an address and the configuration forbids sockets.
    """
    try:
        with open_source(source, config=config, clock=clock, backoff=backoff) as opened:
            return _adopt(opened, lock, store, progress)
    except NoRanges:
        with (
            store.staging("archive.zip") as whole,
            progress("Downloading the archive", 0, "bytes") as advance,
        ):
            download_whole(
                str(source),
                whole,
                config=config,
                most=_budget(lock),
                advance=advance,
                clock=clock,
                backoff=backoff,
            )
            with open_source(whole, config=config, name=shown(str(source))) as opened:
                return _adopt(opened, lock, store, progress)


def _adopt(
    source: Source, lock: ReleaseLock, store: ObjectStore, progress: Progress
) -> AdoptReport:
    members = read_members(source)
    wanted, report = Wanted(lock), AdoptReport()
    sizes = {file.size for file in lock.files}
    read: list[Member] = []
    for member in members:
        if member.size not in sizes:
            refuse_gzip_bomb(source, member)
        _sort_out(member, source, wanted=wanted, store=store, report=report, read=read)
    _require_budget(source, read, lock)
    require_room(_made(store.incoming), _largest(read), what=source.name)
    total = sum(member.size for member in read)
    with (
        progress("Adopting the archive", total, "bytes") as advance,
        ThreadPoolExecutor(_WORKERS) as pool,
    ):
        taker = _Taker(source, wanted, store, report, advance)
        for _ in pool.map(taker.take, read):
            pass
    return finish(report, lock, store)


def _sort_out(
    member: Member,
    source: Source,
    *,
    wanted: Wanted,
    store: ObjectStore,
    report: AdoptReport,
    read: list[Member],
) -> None:
    """Decide without reading a member whether it is unknown, known, or to be read."""
    if not wanted.may_hold(member.name, member.size):
        report.unknown.append(member.name)
        return
    namesake = wanted.with_name(member.name)
    # Over the network it pays to compare the checksums of what is here with the directory's.
    if (
        not isinstance(source, FileSource)
        and namesake is not None
        and namesake.size == member.size
        and store.has(namesake)
        and _crc(store, namesake) == member.crc
    ):
        report.known.append(namesake)
        return
    read.append(member)


def _crc(store: ObjectStore, file: LockedFile) -> int:
    crc = 0
    with store.object_path(file).open("rb") as stream:
        while block := stream.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def _require_budget(source: Source, members: Sequence[Member], lock: ReleaseLock) -> None:
    """Refuse an archive that would have us inflate far more than the release holds."""
    total, limit = sum(member.size for member in members), _budget(lock)
    if total > limit:
        raise ArchiveRefused(
            f"{source.name}: its members of locked names or sizes hold {total:,} bytes, and a release "
            f"of {lock.total_bytes:,} bytes cannot need more than {limit:,}. Nothing was taken from it."
        )


def _budget(lock: ReleaseLock) -> int:
    return 2 * lock.total_bytes + _SLACK


def _largest(members: Sequence[Member]) -> int:
    return sum(sorted((member.size for member in members), reverse=True)[:_WORKERS])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Taker:
    """Takes members, from several threads; `AdoptReport`'s lists are appended to only."""

    def __init__(
        self,
        source: Source,
        wanted: Wanted,
        store: ObjectStore,
        report: AdoptReport,
        advance: Advance,
    ) -> None:
        self._source = source
        self._wanted = wanted
        self._store = store
        self._report = report
        self._advance = advance

    def take(self, member: Member) -> None:
        """Inflate one member, and put it where its digest belongs."""
        with self._store.staging(f"member-{member.start}") as staged:
            sha256 = extract(self._source, member, staged, advance=self._advance)
            place(
                staged,
                member.name,
                member.size,
                sha256,
                wanted=self._wanted,
                store=self._store,
                report=self._report,
            )
