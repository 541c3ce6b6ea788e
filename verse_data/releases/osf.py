"""The Open Science Framework: folder listings over two routes, children.

Sources: OSF's API v2 and WaterButler v1, as facts in docs/osf.md. Both routes give the same
entries; WaterButler lists a folder in one request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal
from urllib.parse import urlencode

from verse_data.config import Config
from verse_data.errors import NotTheFile, SourceChanged, UsageError
from verse_data.releases.http import Backoff, Clock, Gate, Http, Window, read_json
from verse_data.releases.osf_listing import Child, Entry, NodeRow, Page, Row, entries_of, parsed
from verse_data.releases.urls import shown

Route = Literal["waterbutler", "api"]

PAGE_SIZE: Final = 100
"""The most that the API gives."""
_MOST_PAGES: Final = 1000
_NODE: Final = re.compile(r"[a-z0-9]{5,24}")


class ListingChanged(SourceChanged):
    """The pages of one folder do not fit together."""


def check_node(node: str) -> str:
    """Return `node` if it looks like a node's id, else raise UsageError."""
    if _NODE.fullmatch(node):
        return node
    raise UsageError(f"{node!r} is not the id of an OSF node, such as jtfa5.")


class OsfClient:
    """Reads listings at the pace that OSF allows to people without an account.

    Parameters
    ----------
    config : Config
        Endpoints and token.
    clock : Clock
        Where the pace comes from.
    backoff : Backoff, optional
        How often and how long to wait for a server that fails.
    observe : callable, optional
        Called with the address and the JSON of each answer, before it is parsed.

    Raises
    ------
    Offline
        If the configuration forbids sockets.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        backoff: Backoff | None = None,
        observe: Callable[[str, Any], None] | None = None,
    ) -> None:
        self._config = config
        self._backoff = backoff or Backoff()
        self._observe = observe
        listing: tuple[Window, ...] = (Window(3, 1.0, clock), Window(75, 60.0, clock))
        other: tuple[Window, ...] = (Window(10, 1.0, clock), Window(100, 3600.0, clock))
        if config.osf_token:
            # The anonymous classes do not apply to a person with a token.
            listing = other = (Window(10, 1.0, clock),)
        self._listing = Http(config, gate=Gate(clock, listing))
        self._other = Http(config, gate=Gate(clock, other))
        self._storage = Http(config, gate=Gate(clock, (Window(3600, 3600.0, clock),)))

    def close(self) -> None:
        """Close all connections."""
        for http in (self._listing, self._other, self._storage):
            http.close()

    def children(self, node: str) -> list[Child]:
        """Return the public components of `node`, sorted by id."""
        url = f"{self._config.osf_api}/nodes/{node}/children/"
        rows = [parsed(NodeRow, row, url) for page in self._pages(self._other, url) for row in page]
        children = [Child(node=check_node(row.id), title=row.attributes.title) for row in rows]
        return sorted(children, key=lambda child: child.node)

    def storage_root(self, node: str) -> str | None:
        """Return the WaterButler address of a node's storage, or None if it is empty.

        The host depends on the region of the node, so it is read from the API's own links.
        """
        url = self._api_folder(node, "")
        page = parsed(Page, self._api(self._listing, f"{url}?{_page_query(1)}"), url)
        for row in page.data:
            links = parsed(Row, row, url).links
            for link in (links.upload, links.move, links.delete):
                root, found, _ = (link or "").partition(f"/resources/{node}/providers/osfstorage/")
                if found:
                    return f"{root}{found}"
        if not page.data:
            return None
        raise NotTheFile(
            f"{shown(url)}: no entry tells where the node's storage is. Try --via api."
        )

    def api_folder(self, node: str, folder: str) -> list[Entry]:
        """Return the entries of a folder (`folder` is its id, or "" for the root), API route."""
        url = self._api_folder(node, folder)
        rows = [row for page in self._pages(self._listing, url) for row in page]
        return entries_of(rows, url)

    def storage_folder(self, root: str, folder: str) -> list[Entry]:
        """Return the entries of a folder, WaterButler route: one request, no pages."""
        url = f"{root}{folder}/" if folder else root
        answer = self._ask(self._storage, url, token=False)
        return entries_of(parsed(Page, answer, url).data, url)

    def _api_folder(self, node: str, folder: str) -> str:
        below = f"{folder}/" if folder else ""
        return f"{self._config.osf_api}/nodes/{node}/files/osfstorage/{below}"

    def _api(self, http: Http, url: str) -> Any:
        return self._ask(http, url, token=True)

    def _ask(self, http: Http, url: str, *, token: bool) -> Any:
        answer = read_json(http, url, backoff=self._backoff, token=token)
        if self._observe:
            self._observe(url, answer)
        return answer

    def _pages(self, http: Http, url: str) -> Iterator[list[Any]]:
        """Yield the rows of each page; a total that changes on the way is an error."""
        seen, total = 0, None
        for number in range(1, _MOST_PAGES):
            # The next address is made here and not taken from `links.next`: so the token can go
            # nowhere else, and a mirror need not rewrite its pages.
            page = parsed(Page, self._api(http, f"{url}?{_page_query(number)}"), url)
            seen += len(page.data)
            total = page.total if total is None else total
            if page.total != total:
                break
            yield page.data
            if page.links.next is None:
                if total is not None and total != seen:
                    break
                return
        raise ListingChanged(
            f"{shown(url)}: the listing changed while it was read ({seen} of {total} entries). No "
            f"lock was made. Run the same command again."
        )


def _page_query(number: int) -> str:
    return urlencode({"page[size]": PAGE_SIZE, "page": number})
