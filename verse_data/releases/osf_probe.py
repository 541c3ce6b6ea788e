"""A few paced requests to OSF through the client, and how the responses differ from what it expects."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from verse_data import config
from verse_data.config import Config, Limits, __version__
from verse_data.errors import IntegrityError, NotTheFile, SourceChanged, VerseDataError, counted
from verse_data.releases import catalog
from verse_data.releases.http import Backoff, Clock, read_some
from verse_data.releases.osf import Child, Entry, OsfClient, Page, check_node
from verse_data.releases.urls import download_url, redacted

if TYPE_CHECKING:
    import requests

_SHOWN: Final = 12
_State = Literal["ok", "warning", "problem"]
_Answered = tuple[_State, str]
# Short limits, as a server is only asked whether it responds.
_BRIEF: Final = Limits(
    connect=5.0, idle=10.0, window_seconds=10.0, window_bytes=1, total=20.0, slowest=1_000.0
)
_ONCE: Final = Backoff(tries=1)
# Attributes that OSF is known to send, from its source and public reports.
_KNOWN: Final = """access_requests_enabled analytics_key category checkout collection contentType
    created_utc current_user_can_comment current_user_is_contributor
    current_user_is_contributor_or_group_member current_user_permissions current_version
    custom_citation date_created date_modified delete_allowed description etag extra fork guid kind
    last_touched materialized materialized_path modified modified_utc name node_license path preprint
    provider public registration resource show_as_unviewed size sizeInt subjects tags title
    wiki_enabled"""


@dataclass(frozen=True, kw_only=True)
class OsfAnswer:
    """The result of one question; a warning is a difference that the client can handle.

    `wrong` names fields that are missing or of another type, `new` those that OSF was not known to
    send; `exit_code` is that of a problem's error class.
    """

    question: str
    state: _State
    fact: str
    wrong: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class OsfReport:
    """Versions, endpoints and node, whether a token was sent, and the answers."""

    about: dict[str, str]
    answers: tuple[OsfAnswer, ...]

    @property
    def exit_code(self) -> int:
        """The exit code of the first problem, or 0."""
        return next((answer.exit_code for answer in self.answers if answer.exit_code), 0)


def verse_node() -> str:
    """Return the OSF node of verse19, from the catalog."""
    return check_node(catalog.load_catalog("verse19").osf_node or "")


def reach_osf(settings: Config) -> None:
    """Send OSF one small request, once; an error if there is no response within seconds."""
    client = OsfClient(replace(settings, limits=_BRIEF), clock=Clock(), backoff=_ONCE)
    with closing(client):
        client.children(verse_node())


def report_on_osf(
    *,
    root: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    clock: Clock | None = None,
) -> OsfReport:
    """Send OSF about ten paced requests, and compare the responses with what the client expects.

    The report can be put into a public issue: it has names, types and counts, and no token, signed
    address or path.
    """
    settings = config.resolve(root=root, offline=offline)
    about = {
        "verse-data": __version__,
        "python": platform.python_version(),
        "system": sys.platform,
        "requests": metadata.version("requests"),
        "api": redacted(settings.osf_api),
        "site": redacted(settings.osf_site),
        "node": verse_node(),
        "token": "sent to the api" if settings.osf_token else "none",
        "asked": datetime.now(tz=UTC).isoformat(timespec="seconds"),
    }
    client = OsfClient(replace(settings, limits=_BRIEF), clock=clock or Clock(), backoff=_ONCE)
    probe = _Probe(client, verse_node(), settings.osf_site)
    with closing(client):
        probe.run()
    return OsfReport(about=about, answers=tuple(probe.answers))


class _Probe:
    """The questions in order, each asked once; each method returns state and fact, or raises."""

    def __init__(self, client: OsfClient, node: str, site: str) -> None:
        self.client, self.node, self.site = client, node, site
        self.answers: list[OsfAnswer] = []
        self.folder, self.listings = "", list[list[Entry]]()

    def run(self) -> None:
        """Ask every question that the earlier answers make possible."""
        client, question = self.client, "a folder with files"
        self._ask("components of the node", self._components, Page[Child])
        answered = self._ask("root folder, API", self._root) != "problem"
        if answered and client.storage_root(self.node):
            self._ask(f"{question}, WaterButler", lambda: self._first_files(client.folder))
            question = "the same folder" if self.listings else question
        self._ask(f"{question}, API", lambda: self._first_files(client.api_folder))
        if len(self.listings) == 2:
            self._ask("both routes", self._routes)
        files = [e for e in chain(*self.listings) if e.kind == "file" and e.size != 0]
        if file := min(files, key=lambda entry: entry.size or 0, default=None):
            self._ask("hashes of one file", lambda: _hashes(file))
            self._ask("one byte of it", lambda: self._first_byte(file))

    def _ask(
        self, question: str, ask: Callable[[], _Answered], model: type[BaseModel] = Page[Entry]
    ) -> _State:
        """Ask, record the answer and how it differs from what was expected, and return the state."""
        self.client.seen.clear()
        exit_code = 0
        try:
            state, fact = ask()
        except VerseDataError as error:
            state, fact, exit_code = "problem", str(error), error.exit_code
        wrong, new = _differences(model, self.client.seen)
        if wrong and state == "ok":
            state = "warning"
        answer = OsfAnswer(
            question=question, state=state, fact=fact, wrong=wrong, new=new, exit_code=exit_code
        )
        self.answers.append(answer)
        return state

    def _components(self) -> _Answered:
        return "ok", counted(len(self.client.children(self.node)), "component")

    def _root(self) -> _Answered:
        root = self.client.storage_root(self.node)
        return "ok", f"storage at {urlsplit(root).hostname}" if root else "empty"

    def _first_files(self, list_folder: Callable[[str, str], list[Entry]]) -> _Answered:
        """Find the first folder that holds a file, and keep its entries."""
        entries = list_folder(self.node, self.folder)
        while entries and all(entry.kind == "folder" for entry in entries):
            self.folder = entries[0].id
            entries = list_folder(self.node, self.folder)
        self.listings.append(entries)
        kinds = [entry.kind for entry in entries]
        files, folders = (counted(kinds.count(kind), kind) for kind in ("file", "folder"))
        return "ok", f"{files}, {folders}"

    def _routes(self) -> _Answered:
        if self.listings[0] != self.listings[1]:
            raise SourceChanged("differ, so that locks made over them would differ")
        return "ok", "say the same"

    def _first_byte(self, file: Entry) -> _Answered:
        """Ask for the first byte of a file, over all its redirects."""
        url, http = download_url(self.site, file.id, file.version or 1), self.client.storage

        def once() -> requests.Response:
            with http.open(url, span="0-0") as response:
                read_some(response, url, 1)
                return response

        response = http.retry(once)
        host, status = urlsplit(response.url or "").hostname, response.status_code
        span, kind = (response.headers.get(f"Content-{name}", "") for name in ("Range", "Type"))
        if "html" in kind.lower():
            raise NotTheFile(f"a web page came from {host} in its place")
        if status == 206 and span == f"bytes 0-0/{file.size}":
            return "ok", f"status 206 from {host}"
        why = f"range {span[:60]!a}: interrupted downloads would start from the beginning"
        return "warning", f"status {status} from {host}, {why}"


def _hashes(file: Entry) -> _Answered:
    missing = [n for n in ("size", "version", "sha256", "md5") if getattr(file, n) is None]
    if missing not in ([], ["md5"]):
        raise IntegrityError(f"no {', '.join(missing)}; without it no lock can be made")
    return ("warning", "no md5") if missing else ("ok", "size, version, sha256 and md5 are told")


def _differences(
    model: type[BaseModel], answers: list[Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return fields that are missing or of another type in the responses, and new names in them."""
    wrong: Counter[str] = Counter()
    names: set[str] = set()
    for answer in answers:
        try:
            model.model_validate(answer, strict=True)
        except ValidationError as error:
            for problem in error.errors(include_url=False, include_input=False):
                place = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
                wrong[f"{place}: {problem['type']}"] += 1
        rows = answer.get("data") if isinstance(answer, dict) else None
        for row in rows if isinstance(rows, list) else []:
            attributes = row.get("attributes") if isinstance(row, dict) else None
            names.update(attributes if isinstance(attributes, dict) else {})
    # Names that are no plain words are escaped and cut: the report is pasted into an issue.
    new = sorted(names.difference(_KNOWN.split()))[:_SHOWN]
    return (
        tuple(f"{what} ({counted(count, 'row')})" for what, count in wrong.items()),
        tuple(ascii(name[:60])[1:-1] for name in new),
    )
