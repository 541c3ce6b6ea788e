"""The engine that lets git-annex fetch, and mends what it does not mend by itself.

git-annex fails a second process instead of letting it wait, keeps what a wrong answer left and
resumes from it, and neither obeys nor reports Retry-After (facts in docs/releases.md). So a key
is fetched by one process at a time, a poisoned partial is removed, and a file that git-annex
cannot get is tried once more by our own engine, which succeeds or says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from verse_data.config import Config
from verse_data.errors import DownloadCorrupt, NetworkError, Truncated
from verse_data.progress import Advance, ignore
from verse_data.records.lock import LockedFile
from verse_data.releases.annex import ensure_known, web_addresses
from verse_data.releases.annex_call import Call, Dataset
from verse_data.releases.fetch import FetchResult, fetch_each
from verse_data.releases.pacing import Backoff
from verse_data.releases.reach import near_settings

_STALL_SECONDS: Final = 30.0
_DOUBTFUL: Final = {DownloadCorrupt, Truncated, NetworkError}
"""Failures after which our own engine may succeed, or knows better what is wrong."""
_SETTINGS: Final = (
    "annex.retry=0",  # we retry, after looking at what was left behind
    # GetProcess watches for stalls itself, at the same rate. git-annex's own way starts helpers that
    # outlive it, holding the key's transfer lock, and sees no stall before the first byte.
    "annex.stalldetection=false",
    "credential.helper=",  # a server that asks for a password gets none
)


class AnnexEngine:
    """Fetches files through git-annex into a dataset.

    Parameters
    ----------
    config : Config
        Endpoints. Where one lies on this machine or a private network, git-annex may reach
        exactly that address, for these calls alone.
    dataset : ReleaseDataset
        Where contents go to.
    advance : Advance, optional
        Told of bytes as they come; of bytes that are thrown away as a minus.
    backoff : Backoff, optional
        How long to wait for a server that fails.
    stall : float
        Seconds without a byte after which a transfer is given up.
    """

    name = "annex"

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        *,
        advance: Advance | None = None,
        backoff: Backoff | None = None,
        stall: float = _STALL_SECONDS,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._advance: Advance = advance or ignore
        self._backoff = backoff or Backoff(first=1.0, most=30.0)
        self._stall = stall

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
            If the configuration forbids sockets.
        """
        self._config.require_network()
        doubtful: list[FetchResult] = []

        def sort_out(result: FetchResult) -> None:
            if result.error_class in _DOUBTFUL:
                doubtful.append(result)
            else:
                on_result(result)

        with self._call(jobs, [file.annex_key for file in files]) as call:
            fetch_each(files, call.one, jobs=jobs, on_result=sort_out, stop=call.end)
        self._ask_again(doubtful, jobs=jobs, on_result=on_result)

    def _ask_again(
        self, doubtful: list[FetchResult], *, jobs: int, on_result: Callable[[FetchResult], None]
    ) -> None:
        """Try once more with our own engine what git-annex failed at: it comes, or we learn why."""
        before = {result.file.path: result for result in doubtful}

        def merge(result: FetchResult) -> None:
            first = before[result.file.path]
            on_result(
                replace(
                    result,
                    bytes=first.bytes + result.bytes,
                    sibling_bytes=first.sibling_bytes,
                    tries=first.tries + result.tries,
                    seconds=first.seconds + result.seconds,
                )
            )

        if doubtful:
            from verse_data.releases.http_engine import HttpEngine

            own = HttpEngine(
                self._config, self._dataset, advance=self._advance, backoff=Backoff(tries=1)
            )
            own.fetch([result.file for result in doubtful], jobs=jobs, on_result=merge)

    @contextmanager
    def _call(self, jobs: int, keys: Sequence[str]) -> Iterator[Call]:
        ensure_known(self._dataset.path)
        call = Call(
            dataset=self._dataset,
            jobs=jobs,
            settings=(*_SETTINGS, *near_settings(self._config.osf_site)),
            stall=self._stall,
            backoff=self._backoff,
            advance=self._advance,
            addresses=web_addresses(self._dataset.path, keys),
        )
        try:
            yield call
        finally:
            call.close()
