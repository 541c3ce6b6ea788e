"""From an OSF node to a release lock: a walk over all its folders, twice.

The second round is what makes the result a snapshot. Every folder is read in round one before any
is read in round two; if both rounds say the same, then at the moment between them the whole tree
stood exactly so, although OSF cannot list a tree at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from verse_data.config import Config
from verse_data.errors import (
    NetworkError,
    PathRefused,
    SourceChanged,
    UsageError,
)
from verse_data.progress import Advance, Progress, silent
from verse_data.records.lock import ReleaseLock
from verse_data.releases.http import Clock, SystemClock
from verse_data.releases.osf import ListingChanged, OsfClient, Route, check_node
from verse_data.releases.osf_listing import Entry
from verse_data.releases.osf_lock import Tree, make_lock
from verse_data.releases.walk_journal import Journal

TRUST_ON_FIRST_USE: Final = (
    "Nobody has published the digests of this release, so this lock trusts what OSF says today "
    "(trust on first use). From now on every byte is held against it. To check it against somebody "
    "else's, compare the digests of the two locks."
)
_SHOWN: Final = 20
_DEEPEST: Final = 32


def walk_node(
    node: str,
    *,
    config: Config,
    release: str,
    via: Route = "waterbutler",
    progress: Progress = silent,
    clock: Clock | None = None,
) -> ReleaseLock:
    """List all files of an OSF node and its components, and return their lock.

    The walk keeps to OSF's limits, waits when it is told to, and can be interrupted: what the first
    round has listed is kept under ``config.home`` and the next walk goes on from there. The second
    round is always asked anew, whole.

    Parameters
    ----------
    node : str
        Id of the node, such as ``"jtfa5"``.
    config : Config
        Endpoints, token and home.
    release : str
        Name of the release that the lock is for.
    via : {"waterbutler", "api"}
        Route. WaterButler lists a folder in one request; the API serves 100 entries a page, at
        most 75 pages a minute.
    progress : Progress
        Told of each level of folders.
    clock : Clock, optional
        Where pacing takes its time from.

    Raises
    ------
    SourceChanged
        If the listing changed while it was read, or the node is gone or private.
    IntegrityError
        If OSF knows no SHA-256 of a file.
    PathRefused
        If a name could not be a plain file name.
    NetworkError
        If the network failed for good.
    """
    if via not in {"waterbutler", "api"}:
        raise UsageError(f"via={via!r} is not a route. Use 'waterbutler' or 'api'.")
    client = OsfClient(config, clock=clock or SystemClock())
    try:
        with Journal.open(config, node=check_node(node), via=via) as journal:
            return make_lock(node, _read_twice(client, node, via, journal, progress), release)
    finally:
        client.close()


def _read_twice(
    client: OsfClient, node: str, via: Route, journal: Journal, progress: Progress
) -> Tree:
    """Return what both rounds say, and discard the journal unless it can be gone on with."""
    walker = _Walker(client, via, journal, progress)
    try:
        first = walker.round(1, node)
        second = walker.round(2, node)
    except SourceChanged:
        # What has been listed is of a state that is gone: the next walk starts from nothing.
        journal.discard()
        raise
    except NetworkError as error:
        kept = f"What has been listed of {node} is kept; the same command goes on from there."
        raise type(error)(f"{error} {kept}") from error
    journal.discard()
    if first != second:
        raise SourceChanged(_changes(node, first, second))
    return first


class _Walker:
    """Reads rounds, from the journal where it has them."""

    def __init__(self, client: OsfClient, via: Route, journal: Journal, progress: Progress) -> None:
        self._client = client
        self._via = via
        self._journal = journal
        self._progress = progress
        self._roots: dict[str, str] = {}
        self._expected = 0

    def round(self, number: int, node: str) -> Tree:
        """Return what this round saw of `node` and everything below it."""
        if number == 1:
            tree = self._descend(
                number, node, lambda depth, count: self._show(f"level {depth}", node, count)
            )
            self._expected = len(tree.folders)
            return tree
        # Round one has told how many folders there are, so one bar estimates the whole round.
        with self._progress(
            f"Listing OSF node {node} again, to compare", self._expected, "items"
        ) as advance:
            return self._descend(number, node, lambda *_: nullcontext(advance))

    def _show(self, level: str, node: str, count: int) -> AbstractContextManager[Advance]:
        return self._progress(f"Listing OSF node {node}, {level}", count, "items")

    def _descend(
        self, number: int, node: str, bar: Callable[[int, int], AbstractContextManager[Advance]]
    ) -> Tree:
        tree = Tree()
        level = [(node, "")]
        for depth in range(1, _DEEPEST + 1):
            if not level:
                return tree
            with bar(depth, len(level)) as advance:
                level = [
                    below for place in level for below in self._read(number, place, tree, advance)
                ]
        raise PathRefused(f"{node}: folders lie more than {_DEEPEST} deep. Nothing was written.")

    def _read(
        self, number: int, place: tuple[str, str], tree: Tree, advance: Callable[[int], None]
    ) -> Iterator[tuple[str, str]]:
        node, folder = place
        with _gone_means_changed(node, folder):
            entries = self._journal.folder(number, place, lambda: self._list(node, folder))
            tree.folders[place] = entries
            yield from ((node, entry.id) for entry in entries if entry.kind == "folder")
            if not folder:
                found = self._journal.children(number, node, lambda: self._client.children(node))
                # A component that is linked in two places is listed once.
                tree.children[node] = found
                known = {known for known, below in tree.folders if not below}
                yield from ((child.node, "") for child in found if child.node not in known)
        advance(1)

    def _list(self, node: str, folder: str) -> list[Entry]:
        if self._via == "api":
            return self._client.api_folder(node, folder)
        # An empty storage has no address to keep: the next round asks whether it still is empty.
        root = self._roots.get(node) or self._client.storage_root(node)
        if root is None:
            return []
        self._roots[node] = root
        return self._client.storage_folder(root, folder)


@contextmanager
def _gone_means_changed(node: str, folder: str) -> Iterator[None]:
    try:
        yield
    except SourceChanged as error:
        if isinstance(error, ListingChanged):
            raise SourceChanged(str(error)) from error
        if not folder:
            raise SourceChanged(
                f"OSF node {node} cannot be listed: {error} Check the node's id, and that it is public."
            ) from error
        raise SourceChanged(
            f"OSF node {node} changed while it was listed: a folder is gone, or is being edited "
            f"({error}). No lock was made. Run the same command again."
        ) from error


def _changes(node: str, first: Tree, second: Tree) -> str:
    def flat(tree: Tree) -> set[tuple[str, ...]]:
        rows = {
            (entry.name, entry.model_dump_json()) for es in tree.folders.values() for entry in es
        }
        return rows | {(c.title, c.node) for cs in tree.children.values() for c in cs}

    names = sorted({row[0] for row in flat(first) ^ flat(second)}) or ["the folders"]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"OSF node {node} changed while it was listed: {', '.join(names[:_SHOWN])}{more}. No lock was "
        f"made, for it would be of no one state. Run the same command again when the upload is over."
    )
