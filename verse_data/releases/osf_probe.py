"""A few paced questions to OSF through the client itself, and how the answers differ from what it expects.

The report is meant for a public issue: names, types and counts; no token, no signed address, no path.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from verse_data import config
from verse_data.config import Config, Limits, __version__
from verse_data.errors import IntegrityError, NotTheFile, SourceChanged, VerseDataError, counted
from verse_data.releases import catalog
from verse_data.releases.fetch import download_url
from verse_data.releases.http import Backoff, Clock, Gate, Http, SystemClock, read_some, retried
from verse_data.releases.osf import Entry, OsfClient, check_node
from verse_data.releases.urls import shown

# How long a server is waited for that is only asked whether it is there.
_BRIEF: Final = Limits(
    connect=5.0, idle=10.0, window_seconds=10.0, window_bytes=1, total=20.0, slowest=1_000.0
)
_ONCE: Final = Backoff(tries=1)
_MAX_DEPTH: Final = 6
_SHOWN: Final = 12
_Result = TypeVar("_Result")

# The fields that the client reads of each kind of row, with their types.
_FOLDER: Final = "attributes.kind:string attributes.name:string attributes.path:string"
_FILE: Final = f"""{_FOLDER} attributes.size:integer attributes.extra.hashes.md5:string
attributes.extra.hashes.sha256:string"""
_READ: Final = {
    ("components", "component"): "id:string attributes.title:string",
    ("api", "folder"): _FOLDER,
    ("api", "file"): f"{_FILE} attributes.current_version:integer",
    ("waterbutler", "folder"): _FOLDER,
    ("waterbutler", "file"): f"{_FILE} attributes.extra.version:integer",
}
# Those that OSF is known to send beside them, from its source and public reports.
_ATTRIBUTES: Final = """access_requests_enabled analytics_key category checkout collection contentType
created_utc current_user_can_comment current_user_is_contributor current_user_is_contributor_or_group_member
current_user_permissions current_version custom_citation date_created date_modified delete_allowed
description etag extra.checkout extra.downloads extra.guid extra.hashes.md5 extra.hashes.sha256
extra.latestVersionSeen extra.version fork guid kind last_touched materialized materialized_path modified
modified_utc name node_license.copyright_holders node_license.year path preprint provider public
registration resource show_as_unviewed size sizeInt subjects tags title wiki_enabled"""
_LINKS: Final = "delete download html info iri move new_folder related render self upload"
_PATHS: Final = [f"attributes.{name}" for name in _ATTRIBUTES.split()]
_KNOWN: Final = {
    *("id", "type", "relationships", "attributes", "links"),
    *(f"links.{name}" for name in _LINKS.split()),
    *(path.rsplit(".", above)[0] for path in _PATHS for above in range(path.count(".") + 1)),
}
_TYPES: Final = {
    type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OsfAnswer:
    """What came of one question: a warning is a difference that the client gets along with.

    `wrong` names fields that are missing or of another type, `new` those that OSF was not known to
    send; `exit_code` is that of the error class of a problem.
    """

    question: str
    state: Literal["ok", "warning", "problem"]
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
        """That of the first problem, or 0."""
        return next((answer.exit_code for answer in self.answers if answer.exit_code), 0)


def verse_node() -> str:
    """Return the OSF node of verse19, out of the catalog."""
    return check_node(catalog.load_catalog("verse19").osf_node or "")


def reach_osf(settings: Config) -> None:
    """Ask OSF one small question, once; an error if there is no answer within seconds."""
    client = OsfClient(replace(settings, limits=_BRIEF), clock=SystemClock(), backoff=_ONCE)
    with closing(client):
        client.children(verse_node())


def report_on_osf(
    *,
    root: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    clock: Clock | None = None,
) -> OsfReport:
    """Ask OSF about ten paced questions, and compare the answers with what the client expects."""
    settings = config.resolve(root=root, offline=offline)
    about = {
        "verse-data": __version__,
        "python": platform.python_version(),
        "system": sys.platform,
        "requests": metadata.version("requests"),
        "api": shown(settings.osf_api),
        "site": shown(settings.osf_site),
        "node": verse_node(),
        "token": "sent to the api" if settings.osf_token else "none",
        "asked": datetime.now(tz=UTC).isoformat(timespec="seconds"),
    }
    probe = _Probe(replace(settings, limits=_BRIEF), verse_node(), clock or SystemClock())
    with closing(probe.client):
        probe.run()
    return OsfReport(about=about, answers=tuple(probe.answers))


@dataclass
class _Probe:
    """The questions in their order; each is asked once."""

    config: Config
    node: str
    clock: Clock
    answers: list[OsfAnswer] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = OsfClient(
            self.config, clock=self.clock, backoff=_ONCE, observe=self.seen.append
        )

    def run(self) -> None:
        """Ask everything that the answers before allow."""
        client, node = self.client, self.node
        self._ask("components of the node", "components", lambda: client.children(node))
        root = self._ask("root folder, API", "api", lambda: client.storage_root(node))
        stored = root and self._ask(
            "a folder with files, WaterButler",
            "waterbutler",
            lambda: self._first_files(client.folder, ""),
        )
        question = "the same folder, API" if stored else "a folder with files, API"
        start = stored[0] if stored else ""
        listed = self._ask(question, "api", lambda: self._first_files(client.api_folder, start))
        if stored and listed:
            same = stored[1] == listed[1]
            fact = "say the same" if same else "differ, so that locks made over them would differ"
            self._note("both routes", fact, None if same else SourceChanged)
        entries = (stored or listed or ("", []))[1]
        files = [entry for entry in entries if entry.kind == "file" and entry.size != 0]
        if file := min(files, key=lambda entry: entry.size or 0, default=None):
            self._hashes(file)
            self._byte(file)

    def _ask(self, question: str, source: str, ask: Callable[[], _Result]) -> _Result | None:
        """Ask, note what came, and return it; None if it was an error."""
        self.seen.clear()
        result, error = None, None
        try:
            result = ask()
            fact = _fact(result)
        except VerseDataError as caught:
            error, fact = type(caught), str(caught)
        found = [differences(source, answer) for answer in self.seen]
        wrong, new = ([item for pair in found for item in pair[part]] for part in (0, 1))
        self._note(question, fact, error, warn=bool(wrong), wrong=wrong, new=new)
        return result

    def _first_files(
        self, list_folder: Callable[[str, str], list[Entry]], folder: str
    ) -> tuple[str, list[Entry]]:
        """Return id and entries of the first folder that holds a file, from `folder` on."""
        for _ in range(_MAX_DEPTH):
            entries = list_folder(self.node, folder)
            if any(entry.kind == "file" for entry in entries) or not entries:
                return folder, entries
            folder = entries[0].id
        return folder, []

    def _hashes(self, file: Entry) -> None:
        missing = [n for n in ("size", "version", "sha256", "md5") if getattr(file, n) is None]
        error = IntegrityError if missing not in ([], ["md5"]) else None
        fact = f"no {', '.join(missing)}" if missing else "size, version, sha256 and md5 are told"
        fact += "; without it no lock can be made" if error else ""
        self._note("hashes of one file", fact, error, warn=bool(missing))

    def _byte(self, file: Entry) -> None:
        """Ask for the first byte of a file, over all its redirects."""
        url = download_url(self.config.osf_site, file.id, file.version or 1)
        http = Http(self.config, gate=Gate(self.clock))

        def once() -> tuple[int, str, str, str]:
            with http.open(url, headers={"Range": "bytes=0-0"}) as response:
                read_some(response, url, 1)
                span, kind = (response.headers.get(f"Content-{n}", "") for n in ("Range", "Type"))
                return response.status_code, span, kind, urlsplit(response.url or "").hostname or ""

        error: type[VerseDataError] | None = None
        try:
            with closing(http):
                status, span, kind, host = retried(http, once, backoff=_ONCE)
        except VerseDataError as caught:
            self._note("one byte of it", str(caught), type(caught))
            return
        whole = status == 206 and span == f"bytes 0-0/{file.size}"
        fact = (
            f"status {status}, range {span[:60]!a} of {file.size} bytes from {host}: interrupted "
        )
        fact = f"status 206 from {host}" if whole else f"{fact}downloads would start anew"
        if "html" in kind.lower():
            fact, error = f"a web page came from {host} in its place", NotTheFile
        self._note("one byte of it", fact, error, warn=not whole)

    def _note(
        self, question: str, fact: str, error: type[VerseDataError] | None, *, warn: bool = False,
        wrong: list[str] | None = None, new: list[str] | None = None,
    ) -> None:  # fmt: skip
        answer = OsfAnswer(
            question=question,
            state="problem" if error else "warning" if warn else "ok",
            fact=fact,
            wrong=tuple(dict.fromkeys(wrong or ())),
            new=tuple(dict.fromkeys(new or ())),
            exit_code=error.exit_code if error else 0,
        )
        self.answers.append(answer)


def _fact(found: Any) -> str:
    """Say what an answer holds, without a name: components, an address, or a folder's entries."""
    if found is None or isinstance(found, str):
        return f"storage at {urlsplit(found).hostname}" if found else "empty"
    if isinstance(found, list):
        return counted(len(found), "component")
    kinds = [entry.kind for entry in found[1]]
    return f"{counted(kinds.count('file'), 'file')}, {counted(kinds.count('folder'), 'folder')}"


def differences(source: str, answer: Any) -> tuple[list[str], list[str]]:
    """Return what an answer lacks or has of another type, and the names that are new in it."""
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        return [f"data: {_type_of(answer)} where an object with an array 'data' was expected"], []
    wrong, new = [] if source == "waterbutler" else _of_page(answer), set()
    kinds = [_kind(source, row) for row in answer["data"]]
    for kind in dict.fromkeys(kinds):
        rows = [_fields(row) for row, its in zip(answer["data"], kinds, strict=True) if its == kind]
        new |= {path for fields in rows for path in fields} - _KNOWN
        if (source, kind) not in _READ:
            wrong.append(f"attributes.kind: {len(rows)} of {len(kinds)} rows are no file or folder")
            continue
        for path, expected in (word.split(":") for word in _READ[source, kind].split()):
            others = Counter(fields.get(path, "missing") for fields in rows)
            del others[expected]
            wrong += [
                f"{path}: {other} in {count} of {len(rows)} {kind}s, expected {expected}"
                for other, count in sorted(others.items())
            ]
    # Names that are no plain words are escaped and cut: the report is pasted into an issue.
    names = [n if re.fullmatch(r"[\w.$-]{1,80}", n) else ascii(n[:60]) for n in sorted(new)]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return wrong, names[:_SHOWN] + more


def _of_page(answer: dict[str, Any]) -> list[str]:
    """Return what the client would miss in a page of the API, on its way from page to page."""
    fields, wrong = _fields({name: answer.get(name) for name in ("links", "meta")}), []
    following = fields.get("links.next", "missing")
    if following not in {"string", "null"}:
        wrong.append(f"links.next: {following}, expected string or null")
    if "integer" not in {fields.get("links.meta.total"), fields.get("meta.total")}:
        wrong.append("links.meta.total or meta.total: missing, expected integer")
    return wrong


def _kind(source: str, row: Any) -> str:
    if source == "components":
        return "component"
    attributes = row.get("attributes") if isinstance(row, dict) else None
    return str(attributes.get("kind") if isinstance(attributes, dict) else None)


def _fields(value: Any, prefix: str = "") -> dict[str, str]:
    """Return the type of each field by its path; of what is not read, the top alone."""
    found: dict[str, str] = {}
    for name, item in (value if isinstance(value, dict) else {}).items():
        found[f"{prefix}{name}"] = _type_of(item)
        if prefix or name in {"attributes", "links", "meta"}:
            found |= _fields(item, f"{prefix}{name}.")
    return found


def _type_of(value: Any) -> str:
    return _TYPES.get(type(value), "object")
