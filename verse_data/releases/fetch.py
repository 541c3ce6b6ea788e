"""Getting contents: what became of one file, and of a whole call."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Final

from verse_data.errors import ContentMissing, NetworkError, VerseDataError
from verse_data.records.lock import LockedFile

_SHOWN = 20
WEB: Final = "web"
"""The source of what came from a web address; every other name is that of a sibling."""


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """What became of one file.

    Attributes
    ----------
    file : LockedFile
        The file that was asked for.
    ok : bool
        Whether its verified content is now in the dataset.
    error : str or None
        What went wrong, where, why, and what to do.
    error_class : type or None
        The class of `error`, out of :mod:`verse_data.errors`.
    bytes : int
        Bytes that came over the web for it, wasted ones included.
    sibling_bytes : int
        Bytes that came from a sibling in a folder (another clone, a RIA store).
    source : str or None
        ``"web"``, or the name of the sibling that gave the content; None if nobody was asked.
    url : str or None
        Address that gave the content or, on failure, that was tried last; without credentials.
        None if it was a sibling.
    waited : bool
        Whether it was here when its turn came, since another process had fetched it.
    tries : int
        Requests made.
    seconds : float
        Time from the first request to the end.
    """

    file: LockedFile
    ok: bool
    error: str | None = None
    error_class: type[VerseDataError] | None = None
    bytes: int = 0
    sibling_bytes: int = 0
    source: str | None = None
    url: str | None = None
    waited: bool = False
    tries: int = 1
    seconds: float = 0.0


def fetch_each(
    files: Sequence[LockedFile],
    one: Callable[[LockedFile], FetchResult],
    *,
    jobs: int,
    on_result: Callable[[FetchResult], None],
    stop: Callable[[], None],
) -> None:
    """Call `one` for a file of each content, at most `jobs` at a time, and report every file.

    `stop` is called when no more results are waited for: also after an interruption, when what
    still runs shall end soon and nothing new is begun.
    """
    groups: dict[str, list[LockedFile]] = {}
    for file in files:
        groups.setdefault(file.annex_key, []).append(file)
    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(one, group[0]): group for group in groups.values()}
        try:
            for future in as_completed(pending):
                result = future.result()
                on_result(result)
                for twin in pending[future][1:]:
                    on_result(_for_twin(result, twin))
        finally:
            for future in pending:
                future.cancel()
            stop()


def _for_twin(result: FetchResult, twin: LockedFile) -> FetchResult:
    """Return what became of another file of the same content; the cost is counted once."""
    error, path = result.error, result.file.path
    if error is not None and error.startswith(path):
        error = twin.path + error.removeprefix(path)
    return replace(result, file=twin, error=error, bytes=0, sibling_bytes=0, tries=0)


def no_address(file: LockedFile) -> ContentMissing:
    """Return the error of a file that nobody serves; whoever knows the dataset puts its name in."""
    return ContentMissing(
        f"{file.path} ({file.size:,} bytes) has no address to fetch it from. If you have it: "
        f"verse-data adopt RELEASE PATH"
    )


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
        Files that nobody serves: they have no address, and no sibling gave them. Only a person who
        has them can bring them.
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
        """Raise the error of the files that did not come, if there are any.

        Parameters
        ----------
        needed : container of str
            Paths of files that were asked for by what they are; these are failures also if nobody
            serves them.

        Raises
        ------
        VerseDataError
            Of the failures' own class if they share one, else `NetworkError`; the text counts
            them and shows the first 20.
        """
        failed = [*self.failed, *(r for r in self.to_adopt if r.file.path in needed)]
        if not failed:
            return
        classes = {result.error_class or NetworkError for result in failed}
        kind = classes.pop() if len(classes) == 1 else NetworkError
        shown = [f"  {_named(result)}" for result in failed[:_SHOWN]]
        rest = len(failed) - len(shown)
        more = [f"  and {rest} more"] if rest else []
        here = len(self.fetched) + len(self.present)
        asked = len(self.failed) + len(self.to_adopt) + here
        kept = "; the others are in place" if here and here + len(failed) == asked else ""
        head = f"{len(failed)} of {asked} files could not be fetched{kept}:"
        raise kind("\n".join([head, *shown, *more]))


def _named(result: FetchResult) -> str:
    """Return what went wrong, with the file's name once."""
    text = str(result.error)
    return text if text.startswith(result.file.path) else f"{result.file.path}: {text}"
