"""The Open Science Framework: listing a node, and making a release lock of it.

A folder is listed by WaterButler in one request; components, and the host of a node's storage, are
available only from the API. Facts and sources are in docs/osf.md.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from verse_data.config import Config
from verse_data.errors import (
    IntegrityError,
    NotTheFile,
    PathRefused,
    SourceChanged,
    UsageError,
    ValidationFailed,
)
from verse_data.problems import listed
from verse_data.progress import Advance, Progress, silent
from verse_data.records.base import rule_of
from verse_data.records.lock import ReleaseLock
from verse_data.records.names import is_clutter
from verse_data.releases import catalog
from verse_data.releases.http import HOURLY, Backoff, Clock, Http
from verse_data.releases.urls import redacted

TRUST_ON_FIRST_USE: Final = (
    "Nobody has published the digests of this release, so this lock trusts what OSF says today "
    "(trust on first use). From now on every byte is held against it. To check it against somebody "
    "else's, compare the digests of the two locks."
)
_PAGE_SIZE: Final = 100  # the API's maximum
_MAX_PAGES: Final = 1000
_MAX_DEPTH: Final = 32
_log = logging.getLogger(__name__)


def _at(*places: str, **default: Any) -> Any:
    """Return a field that is read from the first of these dotted paths that a response has."""
    paths = [AliasPath(*place.split(".")) for place in places]
    return Field(validation_alias=AliasChoices(*paths), **default)


def _file_id(path: str) -> str:
    # The id is permanent. The guid, which is shorter, exists only for some files.
    if re.fullmatch(r"[0-9a-f]{24}", path.strip("/")):
        return path.strip("/")
    raise ValueError(f"{path!r} holds no id of 24 hex digits")


class _Answer(BaseModel):
    """A part of a response of OSF; fields that are not named here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Row = TypeVar("Row", bound=_Answer)


class Entry(_Answer):
    """A file or folder of a listing; size, version and digests are of a file's newest version."""

    id: Annotated[str, AfterValidator(_file_id)] = _at("attributes.path")
    kind: Literal["file", "folder"] = _at("attributes.kind")
    name: str = _at("attributes.name")
    size: int | None = _at("attributes.size", default=None)
    version: int | None = _at(
        "attributes.current_version", "attributes.extra.version", default=None
    )
    md5: str | None = _at("attributes.extra.hashes.md5", default=None)
    sha256: str | None = _at("attributes.extra.hashes.sha256", default=None)


_OF_FILES_ALONE: Final = dict.fromkeys(("size", "version", "md5", "sha256"))


class Child(_Answer):
    """A component of a node."""

    node: str = _at("id")
    title: str = _at("attributes.title")


class _Linked(_Answer):
    storage: Any = _at("links.upload", "links.move", "links.delete", default=None)


class Page(_Answer, Generic[Row]):
    """A page of the API, or a whole listing of WaterButler."""

    data: list[Row]
    next: str | None = _at("links.next", default=None)
    # Of all pages. API 2.0 and 2.1 have it in different places.
    total: int | None = _at("links.meta.total", "meta.total", default=None)


def check_node(node: str) -> str:
    """Return `node` if it has the form of a node's id, else raise UsageError."""
    if re.fullmatch(r"[a-z0-9]{5,24}", node):
        return node
    raise UsageError(f"{node!r} is not the id of an OSF node, such as jtfa5.")


class OsfClient:
    """Reads listings at the pace that OSF allows to people without an account.

    `seen` has the raw responses so far.
    """

    def __init__(self, config: Config, *, clock: Clock, backoff: Backoff | None = None) -> None:
        self._api = config.osf_api
        self.seen: list[Any] = []
        self._roots: dict[str, str] = {}
        listing, other = [(3, 1.0), (75, 60.0)], [(10, 1.0), (100, 3600.0)]
        if config.osf_token:
            # Those limits do not apply to a person with a token.
            listing = other = [(10, 1.0)]
        self._listing = Http(config, clock=clock, limits=listing, backoff=backoff, token=True)
        self._other = Http(config, clock=clock, limits=other, backoff=backoff, token=True)
        self.storage = Http(config, clock=clock, limits=[HOURLY], backoff=backoff)

    def close(self) -> None:
        """Close all connections."""
        for http in (self._listing, self._other, self.storage):
            http.close()

    def children(self, node: str) -> list[Child]:
        """Return the public components of `node`, sorted by id."""
        url = f"{self._api}/nodes/{node}/children/"
        children = self._pages(Page[Child], self._other, url, node)
        return sorted(children, key=lambda child: check_node(child.node))

    def storage_root(self, node: str) -> str | None:
        """Return the WaterButler address of a node's storage, or None if it is empty."""
        # The host depends on the region of the node, so it is read from the API's own links.
        if node in self._roots:
            return self._roots[node]
        url, part = self._api_url(node, ""), f"/resources/{node}/providers/osfstorage/"
        rows = self._ask(Page[_Linked], self._listing, _numbered(url, 1), node).data
        for row in rows:
            host, found, _ = str(row.storage).partition(part)
            if found:
                self._roots[node] = f"{host}{part}"
                return self._roots[node]
        if not rows:
            return None
        raise NotTheFile(f"{redacted(url)}: no entry has the address of the node's storage.")

    def folder(self, node: str, folder: str) -> list[Entry]:
        """Return the entries of a folder by its id, "" for the root: one request to WaterButler."""
        root = self.storage_root(node)
        if root is None:
            return []
        url = f"{root}{folder}/" if folder else root
        page = self._ask(Page[Entry], self.storage, url, node, known=bool(folder))
        return _entries(page.data, url)

    def api_folder(self, node: str, folder: str) -> list[Entry]:
        """Return the same from the API, page by page, for ``doctor --osf`` to compare."""
        url = self._api_url(node, folder)
        return _entries(self._pages(Page[Entry], self._listing, url, node, folder), url)

    def _api_url(self, node: str, folder: str) -> str:
        return f"{self._api}/nodes/{node}/files/osfstorage/{f'{folder}/' if folder else ''}"

    def _pages(
        self, model: type[Page[Row]], http: Http, url: str, node: str, folder: str = ""
    ) -> list[Row]:
        """Return the rows of all pages; a total that changes between pages is an error."""
        page = self._ask(model, http, _numbered(url, 1), node, known=bool(folder))
        total, rows = page.total, list(page.data)
        for number in range(2, _MAX_PAGES):
            if page.next is None or page.total != total:
                break
            page = self._ask(model, http, _numbered(url, number), node, known=True)
            rows += page.data
        if page.next is None and page.total == total and total in {None, len(rows)}:
            return rows
        raise SourceChanged(
            f"{redacted(url)}: the listing changed while it was read ({len(rows)} of {total} entries). No "
            f"lock was made. Run the same command again."
        )

    def _ask(
        self, model: type[Page[Row]], http: Http, url: str, node: str, *, known: bool = False
    ) -> Page[Row]:
        """Return the listing at an address; `known` if an earlier response led to it."""
        try:
            answer = http.read_json(url)
        except SourceChanged as error:
            what = "cannot be listed: its id is wrong, or it is not public"
            if known:
                what = "changed while it was listed: a folder or page is gone, or is being edited"
            raise SourceChanged(
                f"OSF node {node} {what} ({error}). No lock was made. Run the same command again."
            ) from error
        self.seen.append(answer)
        try:
            return model.model_validate(answer)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise NotTheFile(
                f"{redacted(url)}: not a listing of OSF: {where} {rule_of(first)}. Check the endpoint "
                f"({urlsplit(url).netloc}), or try again later."
            ) from error


def _numbered(url: str, number: int) -> str:
    """Return the address of a page of a listing of the API."""
    # Not taken from `links.next`, so that the token goes nowhere else, and a mirror need not rewrite
    # its pages.
    return f"{url}?{urlencode({'page[size]': _PAGE_SIZE, 'page': number})}"


def _entries(entries: list[Entry], url: str) -> list[Entry]:
    """Return the entries of one folder, sorted by name."""
    for values in ({entry.id for entry in entries}, {entry.name for entry in entries}):
        if len(values) < len(entries):  # which happens when pages shift between two requests
            raise SourceChanged(
                f"{redacted(url)}: an entry is listed twice, so the listing changed while it was read. "
                f"No lock was made. Run the same command again."
            )
    # Folders have attributes of files too, which differ between the two routes.
    entries = [e if e.kind == "file" else e.model_copy(update=_OF_FILES_ALONE) for e in entries]
    return sorted(entries, key=attrgetter("name"))


class _Listed(NamedTuple):
    """A file or folder by its path in the release; the folder of a component has no entry."""

    path: str
    node: str
    entry: Entry | None


class _Walk:
    """One walk over a node: its folders, then its components, each in a folder named by its title."""

    def __init__(self, client: OsfClient, advance: Advance) -> None:
        self._client, self._advance = client, advance
        self._seen: set[str] = set()

    def node(self, node: str, prefix: str = "", depth: int = 1) -> Iterator[_Listed]:
        """Yield everything in a node and below it."""
        self._seen.add(node)
        yield from self._folder(node, "", prefix, depth)
        # A component that is linked in two places is listed once.
        children = [child for child in self._client.children(node) if child.node not in self._seen]
        self._seen.update(child.node for child in children)
        titles = [re.sub(r"[^A-Za-z0-9.-]+", "_", child.title).strip("._") for child in children]
        names = [title or child.node for title, child in zip(titles, children, strict=True)]
        counts = Counter(name.casefold() for name in names)
        for child, name in zip(children, names, strict=True):
            unique = name if counts[name.casefold()] == 1 else f"{name}_{child.node}"
            yield _Listed(f"{prefix}{unique}/", child.node, None)
            yield from self.node(child.node, f"{prefix}{unique}/", depth + 1)

    def _folder(self, node: str, folder: str, prefix: str, depth: int) -> Iterator[_Listed]:
        if depth > _MAX_DEPTH:
            raise PathRefused(f"{node}: folders more than {_MAX_DEPTH} deep. No lock was made.")
        entries = self._client.folder(node, folder)
        self._advance(1)
        for entry in entries:
            if is_clutter(entry.name) and entry.name.casefold() != ".git":  # which is refused
                continue
            path = f"{prefix}{entry.name}"
            if "/" in entry.name:
                text = f"OSF node {node}: {path!r}: a name has a slash in it. No lock was made."
                raise PathRefused(text)
            yield _Listed(path, node, entry)
            if entry.kind == "folder":
                yield from self._folder(node, entry.id, f"{path}/", depth + 1)


def walk_node(
    node: str,
    *,
    config: Config,
    release: str,
    progress: Progress = silent,
    clock: Clock | None = None,
) -> ReleaseLock:
    """List all files of an OSF node and its components, twice, and return their lock.

    The walk keeps to OSF's rate limits and waits when OSF asks for it. After an interruption it
    starts again from the beginning.

    Parameters
    ----------
    node : str
        Id of the node, such as ``"jtfa5"``.
    config : Config
        Endpoints and token.
    release : str
        Name of the release that the lock is for.
    progress : Progress
        Advanced by one per folder.
    clock : Clock, optional
        Clock for pacing.

    Raises
    ------
    SourceChanged
        If the listing changed while it was read, or the node is gone or private.
    IntegrityError
        If OSF has no SHA-256 of a file.
    PathRefused
        If a name is not a plain file name.
    NetworkError
        If the network failed for good.
    """
    check_node(node)
    with closing(OsfClient(config, clock=clock or Clock())) as client:
        _log.info("listing OSF node %s", node)
        with progress(f"Listing OSF node {node}", 0, "items") as advance:
            first = list(_Walk(client, advance).node(node))
        # The second walk makes the result a snapshot: every folder is read in the first walk before
        # any is read in the second, so if both agree, the whole tree was like this between them.
        _log.info("listing OSF node %s again: %d files and folders", node, len(first))
        folders = 1 + sum(row.entry is None or row.entry.kind == "folder" for row in first)
        with progress(f"Listing OSF node {node} again, to compare", folders, "items") as advance:
            second = list(_Walk(client, advance).node(node))
    if changed := {row.path for row in {*first} ^ {*second}}:
        raise SourceChanged(
            f"OSF node {node} changed while it was listed: {listed(sorted(changed))}. No lock was made, for "
            f"it would mix two states. Run the same command again when the upload is over."
        )
    return _make_lock(node, first, release)


def _make_lock(node: str, walked: list[_Listed], release: str) -> ReleaseLock:
    """Return the lock of the listed files and of the catalog's supplements of `release`."""
    rows = [(path, owner, entry) for path, owner, entry in walked if entry and entry.kind == "file"]
    if bare := [p for p, _, e in rows if None in (e.size, e.version, e.sha256)]:
        raise IntegrityError(
            f"OSF node {node}: no SHA-256, size or version is known of {listed(sorted(bare))}. Without them "
            f"no download could be checked. Download the release by hand and lock the folder: "
            f"verse-data lock {release} --from-tree FOLDER"
        )
    found: list[dict[str, Any]] = [
        {"path": path, "node": owner, "file_id": entry.id, "file_version": entry.version}
        | entry.model_dump(include={"size", "sha256", "md5"})
        for path, owner, entry in rows
    ]
    if (
        release in catalog.names()
    ):  # supplements are hosted elsewhere; the catalog has their digests
        fields, there = {"path", "size", "sha256", "md5", "urls"}, {path for path, _, _ in rows}
        extras = [x for x in catalog.load_catalog(release).supplements if x.path not in there]
        found += [extra.model_dump(include=fields) for extra in extras]
    files = tuple(sorted(found, key=itemgetter("path")))
    source = {"kind": "osf", "node": node}
    try:
        return ReleaseLock.model_validate({"release": release, "source": source, "files": files})
    except ValidationError as error:
        found_wrong = error.errors(include_url=False)
        reasons = [
            f"{files[int(p['loc'][1])]['path']!r}: {rule_of(p)}" if p["loc"][1:] else rule_of(p)
            for p in found_wrong
        ]
        kind = PathRefused if found_wrong[0]["loc"][-1:] == ("path",) else ValidationFailed
        raise kind(f"OSF node {node}: {'; '.join(reasons)}. No lock was made.") from error
