"""A few paced questions to OSF through the client itself, and how the answers differ from what it expects.

What is reported is meant for a public issue: names, types and counts, no token, no signed address.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from verse_data.config import Config, Limits
from verse_data.errors import IntegrityError, NotTheFile, SourceChanged, VerseDataError, counted
from verse_data.releases.fetch import download_url
from verse_data.releases.http import Backoff, Clock, Gate, Http, SystemClock, read_some, retried
from verse_data.releases.osf import OsfClient, check_node
from verse_data.releases.osf_listing import Entry
from verse_data.releases.osf_shapes import Source, differences

State = Literal["ok", "warning", "problem"]

BRIEF: Final = Limits(
    connect=5.0, idle=10.0, window_seconds=10.0, window_bytes=1, total=20.0, slowest=1_000.0
)
"""How long a server is waited for that is only asked whether it is there."""
ONCE: Final = Backoff(tries=1)
_DEEPEST: Final = 6
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class OsfAnswer:
    """What came of one question.

    Attributes
    ----------
    question : str
    state : {"ok", "warning", "problem"}
        A warning is a difference that the client gets along with.
    fact : str
        What the answer says, or why there is none.
    wrong : tuple of str
        Fields that are missing or of another type.
    new : tuple of str
        Fields that OSF was not known to send; the client ignores them.
    exit_code : int
        That of the error class of a problem, else 0.
    """

    question: str
    state: State
    fact: str
    wrong: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    exit_code: int = 0


def reach_osf(config: Config, *, node: str) -> int:
    """Ask OSF one small question, and return how many components `node` has.

    Raises
    ------
    Offline
        If the configuration forbids sockets.
    NetworkError, SourceChanged
        If there is no answer within seconds, or another one than expected; nothing is tried twice.
    """
    client = OsfClient(replace(config, limits=BRIEF), clock=SystemClock(), backoff=ONCE)
    with closing(client):
        return len(client.children(node))


def probe_osf(config: Config, *, node: str, clock: Clock | None = None) -> tuple[OsfAnswer, ...]:
    """Ask OSF for components, listings over both routes, hashes and a byte, and compare the answers.

    Parameters
    ----------
    config : Config
        Endpoints and token.
    node : str
        Id of a public node with files.
    clock : Clock, optional
        Where pacing takes its time from.

    Raises
    ------
    Offline
        If the configuration forbids sockets.
    UsageError
        If `node` cannot be the id of a node.
    """
    probe = _Probe(replace(config, limits=BRIEF), check_node(node), clock or SystemClock())
    with closing(probe.client):
        probe.run()
    return tuple(probe.answers)


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
            self.config,
            clock=self.clock,
            backoff=ONCE,
            observe=lambda _, answer: self.seen.append(answer),
        )

    def run(self) -> None:
        """Ask everything that the answers before allow."""
        client, node = self.client, self.node
        self._ask(
            "components of the node",
            "components",
            lambda: client.children(node),
            lambda found: counted(len(found), "component"),
        )
        root = self._ask("root folder, API", "api", lambda: client.storage_root(node), _storage)
        folder: tuple[str, list[Entry]] | None = None
        if root:
            folder = self._ask(
                "a folder with files, WaterButler",
                "waterbutler",
                lambda: self._descend(lambda below: client.storage_folder(root, below)),
                lambda found: _counts(found[1]),
            )
        listed = self._ask(
            "the same folder, API" if folder else "a folder with files, API",
            "api",
            lambda: self._by_api(folder),
            lambda found: _counts(found[1]),
        )
        if folder and listed:
            self._compare(folder[1], listed[1])
        entries = (folder or listed or ("", []))[1]
        files = [entry for entry in entries if entry.kind == "file" and entry.size != 0]
        if file := min(files, key=lambda entry: entry.size or 0, default=None):
            self._hashes(file)
            self._byte(file)

    def _ask(
        self,
        question: str,
        source: Source,
        ask: Callable[[], _Result],
        say: Callable[[_Result], str],
    ) -> _Result | None:
        """Ask, note what came, and return it; None if it was an error."""
        self.seen.clear()
        result, error = None, None
        try:
            result = ask()
            fact = say(result)
        except VerseDataError as caught:
            error, fact = caught, str(caught)
        told = [differences(source, answer) for answer in self.seen]
        wrong = tuple(dict.fromkeys(item for items, _ in told for item in items))
        self.answers.append(
            OsfAnswer(
                question=question,
                state="problem" if error else "warning" if wrong else "ok",
                fact=fact,
                wrong=wrong,
                new=tuple(dict.fromkeys(item for _, items in told for item in items)),
                exit_code=error.exit_code if error else 0,
            )
        )
        return result

    def _descend(self, list_folder: Callable[[str], list[Entry]]) -> tuple[str, list[Entry]]:
        """Return id and entries of the first folder that holds a file."""
        folder = ""
        for _ in range(_DEEPEST):
            entries = list_folder(folder)
            if any(entry.kind == "file" for entry in entries) or not entries:
                return folder, entries
            folder = entries[0].id
        return folder, []

    def _by_api(self, folder: tuple[str, list[Entry]] | None) -> tuple[str, list[Entry]]:
        if folder is None:
            return self._descend(lambda below: self.client.api_folder(self.node, below))
        return folder[0], self.client.api_folder(self.node, folder[0])

    def _compare(self, first: list[Entry], second: list[Entry]) -> None:
        same = first == second
        fact = "say the same" if same else "differ, so that locks made over them would differ"
        self._note("both routes", fact, None if same else SourceChanged)

    def _hashes(self, file: Entry) -> None:
        missing = [
            name for name in ("size", "version", "sha256", "md5") if getattr(file, name) is None
        ]
        needed = [name for name in missing if name != "md5"]
        fact = f"no {', '.join(missing)}" if missing else "size, version, sha256 and md5 are told"
        if needed:
            fact += "; without it no lock can be made"
        self._note(
            "hashes of one file", fact, IntegrityError if needed else None, warn=bool(missing)
        )

    def _byte(self, file: Entry) -> None:
        """Ask for the first byte of a file, over all its redirects."""
        url = download_url(self.config.osf_site, file.id, file.version or 1)
        http = Http(self.config, gate=Gate(self.clock))

        def once() -> tuple[int, str, str, str]:
            with http.open(url, headers={"Range": "bytes=0-0"}) as response:
                read_some(response, url, 1)
                head = response.headers
                return (
                    response.status_code,
                    head.get("Content-Range", ""),
                    head.get("Content-Type", "").lower(),
                    urlsplit(response.url or "").hostname or "",
                )

        try:
            with closing(http):
                status, span, kind, host = retried(http, once, backoff=ONCE)
        except VerseDataError as error:
            self._note("one byte of it", str(error), type(error))
            return
        if "html" in kind:
            self._note("one byte of it", f"a web page came from {host} in its place", NotTheFile)
        elif status != 206 or span != f"bytes 0-0/{file.size}":
            fact = f"status {status}, range {span[:60]!a} of {file.size} bytes from {host}: interrupted downloads would start anew"
            self._note("one byte of it", fact, None, warn=True)
        else:
            self._note("one byte of it", f"status 206 from {host}", None)

    def _note(
        self, question: str, fact: str, error: type[VerseDataError] | None, *, warn: bool = False
    ) -> None:
        state: State = "problem" if error else "warning" if warn else "ok"
        code = error.exit_code if error else 0
        self.answers.append(OsfAnswer(question=question, state=state, fact=fact, exit_code=code))


def _storage(root: str | None) -> str:
    return f"storage at {urlsplit(root).hostname}" if root else "empty"


def _counts(entries: list[Entry]) -> str:
    files = sum(entry.kind == "file" for entry in entries)
    return f"{counted(files, 'file')}, {counted(len(entries) - files, 'folder')}"
