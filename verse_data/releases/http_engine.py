"""The engine over plain HTTP: many files at once, each resumed, retried and verified.

Whatever happens to it, also a kill, a file is at its final name whole and right, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from verse_data.config import Config
from verse_data.progress import Advance, ignore
from verse_data.publishing import storage_errors, sweep
from verse_data.records.lock import LockedFile
from verse_data.releases.fetch import FetchResult, fetch_each
from verse_data.releases.http import Http
from verse_data.releases.http_call import Call
from verse_data.releases.pacing import Backoff, Clock, Gate, SystemClock, Window
from verse_data.releases.partials import require_room, sweep_partials
from verse_data.releases.store import ObjectStore

_OSF_PER_HOUR: Final = 3600


class _Dataset(Protocol):
    """The part of a dataset that is needed."""

    @property
    def store(self) -> ObjectStore: ...


class HttpEngine:
    """Fetches files over HTTP into a dataset's object store.

    Parameters
    ----------
    config : Config
        Endpoints, and how long a server is waited for.
    dataset : ReleaseDataset
        Where contents go to.
    advance : Advance, optional
        Told of bytes as they come; of bytes that are thrown away as a minus.
    clock : Clock, optional
        Where pacing takes its time from.
    backoff : Backoff, optional
        How often and how long to wait for a server that fails.
    """

    def __init__(
        self,
        config: Config,
        dataset: _Dataset,
        *,
        advance: Advance | None = None,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._config = config
        self._store = dataset.store
        self._advance: Advance = advance or ignore
        self._clock = clock
        self._backoff = backoff or Backoff()

    def fetch(
        self,
        files: Sequence[LockedFile],
        *,
        jobs: int,
        on_result: Callable[[FetchResult], None],
    ) -> None:
        """Fetch `files`, at most `jobs` at a time; `on_result` is called once a file.

        Raises
        ------
        Offline
            If the configuration forbids sockets, and something is missing.
        DiskFull
            If all that is missing does not fit on the disk.
        """
        self._require_room(files)
        with self._call(jobs) as call:
            fetch_each(files, call.one, jobs=jobs, on_result=on_result, stop=call.end)

    def _require_room(self, files: Sequence[LockedFile]) -> None:
        wanted = {file.annex_key: file for file in files}
        missing = sum(file.size for file in wanted.values() if not self._store.has(file))
        folder = self._store.incoming
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            sweep_partials(folder)
        require_room(folder, missing, what=f"{len(wanted)} files")

    @contextmanager
    def _call(self, jobs: int) -> Iterator[Call]:
        clock = self._clock or SystemClock()
        window = Window(_OSF_PER_HOUR, 3600.0, clock)
        osf, other = (
            Http(self._config, gate=gate, connections=jobs)
            for gate in (Gate(clock, (window,)), Gate(clock))
        )
        try:
            yield Call(
                config=self._config,
                store=self._store,
                osf=osf,
                other=other,
                backoff=self._backoff,
                advance=self._advance,
            )
        finally:
            osf.close()
            other.close()
