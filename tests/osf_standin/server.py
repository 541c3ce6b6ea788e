"""The stand-in's five hosts."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from osf_standin import listings
from osf_standin.faults import Fault, play
from osf_standin.tree import File, Folder, Node
from osf_standin.zips import Entry, build

HOSTS = ("api", "site", "storage", "bucket", "accounts", "mirror")
_SECRET = b"stand-in"
_LIFE_SECONDS = 60
PIECE = 60_000
"""Bytes of a body that are written at once."""
COOKIE = "session=c00kie-canary; Path=/"
"""What a host that has moved asks to keep."""


@dataclass(frozen=True)
class Seen:
    """One request as the server saw it."""

    host: str
    method: str
    path: str
    headers: dict[str, str]
    at: float

    @property
    def token(self) -> str | None:
        """The Authorization header, if one was sent."""
        return self.headers.get("authorization")


@dataclass
class Limit:
    """At most `count` requests in any `seconds` on addresses that match."""

    host: str
    match: str
    count: int
    seconds: float
    _hits: list[float] = field(default_factory=list)

    def wait(self, host: str, path: str, now: float) -> float:
        """Count a request; return how long it must wait, 0 if it may pass."""
        if host != self.host or not re.search(self.match, path):
            return 0.0
        self._hits = [hit for hit in self._hits if hit > now - self.seconds]
        if len(self._hits) >= self.count:
            return self._hits[0] + self.seconds - now
        self._hits.append(now)
        return 0.0


class OsfStandin:
    """All hosts together; use it as a context manager.

    Attributes
    ----------
    nodes : dict
        Nodes by id; put a `Node` there before or while it runs.
    seen : list of Seen
        Every request so far.
    faults : list of Fault
        Played in this order, the first that takes a request.
    limits : list of Limit
        Rate limits; none at first.
    latency : float
        Seconds that every answer takes.
    clock_offset : float
        Seconds by which the bucket's clock runs ahead, to let signed addresses expire.
    before : callable or None
        Called with each `Seen` before it is answered, to change the tree under a walk.
    modern : bool
        Whether listings have the form of API 2.1 and later.
    now : callable
        Gives the time of `Seen.at` and of the limits.
    trickle : float
        Seconds between two pieces of 60 kB of a body.
    hold_at : int or None
        Bytes of a body after which an answer stands still, until this is None again.
    mirror : dict
        Path and bytes of what a sixth host serves, which is not OSF's: zips of elsewhere.
    moved : dict
        Hosts that have moved: each request of one is redirected to the address given for it, with
        a cookie to take along.
    sent_bytes : int
        Bytes of bodies that have been sent, by all hosts.
    """

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.limits: list[Limit] = []
        self.latency = 0.0
        self.clock_offset = 0.0
        self.before: Callable[[Seen], None] | None = None
        self.modern = False
        self.now: Callable[[], float] = time.monotonic
        self.trickle = 0.0
        self.hold_at: int | None = None
        self.mirror: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.sent_bytes = 0
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._servers = {host: _Server(self, host) for host in HOSTS}

    def __enter__(self) -> Self:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    @property
    def hosts(self) -> dict[str, str]:
        """Base address of each host; the API's ends in /v2."""
        ports = {host: server.server_address[1] for host, server in self._servers.items()}
        urls = {host: f"http://127.0.0.1:{port}" for host, port in ports.items()}
        return {**urls, "api": f"{urls['api']}/v2"}

    @property
    def environment(self) -> dict[str, str]:
        """The settings that point verse-data here."""
        return {"VERSE_DATA_OSF_API": self.hosts["api"], "VERSE_DATA_OSF_SITE": self.hosts["site"]}

    def play(self, mode: str, **settings: Any) -> Fault:
        """Play a fault from now on."""
        fault = Fault(mode, **settings)
        self.faults.append(fault)
        return fault

    def limit(self, host: str, match: str, count: int, seconds: float) -> None:
        """Throttle from now on."""
        self.limits.append(Limit(host, match, count, seconds))

    def pause(self, seconds: float) -> None:
        """Sleep, or wake up because the stand-in stops."""
        self._stopping.wait(seconds)

    def holds(self, sent: int) -> bool:
        """Whether an answer of which `sent` bytes are out stands still now."""
        held = self.hold_at is not None and sent >= self.hold_at
        return held and not self._stopping.is_set()

    def count(self, host: str) -> int:
        """Return how many requests a host has seen."""
        return sum(1 for seen in self.seen if seen.host == host)

    def all_nodes(self) -> dict[str, Node]:
        """Return every node, components too, by id."""
        found: dict[str, Node] = {}

        def below(node: Node) -> None:
            found[node.id] = node
            for component in node.components:
                below(component)

        for node in self.nodes.values():
            below(node)
        return found

    def file(self, identity: str) -> tuple[Node, File] | None:
        """Find a file by id, or by a guid that somebody has minted."""
        for node in self.all_nodes().values():
            for _, thing in node.walk().values():
                if isinstance(thing, File) and identity in {thing.id, thing.guid}:
                    return node, thing
        return None

    def content(self, sha256: str) -> bytes | None:
        """Return the bytes that the bucket holds under a digest; it forgets nothing."""
        return self._bucket().get(sha256)

    def _bucket(self) -> dict[str, bytes]:
        kept: dict[str, bytes] = self.__dict__.setdefault("_kept", {})
        seen: set[int] = self.__dict__.setdefault("_seen_versions", set())
        for node in self.all_nodes().values():
            for _, thing in node.walk().values():
                if isinstance(thing, File):
                    for content in thing.versions:
                        if id(content) not in seen:
                            seen.add(id(content))
                            kept[hashlib.sha256(content).hexdigest()] = content
        return kept

    def signed(self, content: bytes) -> str:
        """Return an address of `content` in the bucket that lives a minute."""
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            self._bucket().setdefault(digest, content)
        expires = int(time.time() + self.clock_offset) + _LIFE_SECONDS
        query = {"Expires": expires, "Signature": _signature(digest, expires)}
        return f"{self.hosts['bucket']}/osf-bucket/{digest}?{urlencode(query)}"


def _signature(digest: str, expires: int) -> str:
    return hmac.new(_SECRET, f"{digest}{expires}".encode(), "sha256").hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A closed socket must not wait for threads that play a stall.
    block_on_close = False
    request_queue_size = 128

    def __init__(self, standin: OsfStandin, host: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.standin = standin
        self.host = host

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that hang up: many tests do."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection of one host."""

    protocol_version = "HTTP/1.1"
    # Without this, keep-alive clients measure 40 ms of delayed acknowledgements.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a GET."""
        self._serve()

    def do_HEAD(self) -> None:
        """Answer a HEAD."""
        self._serve()

    def _serve(self) -> None:
        standin, host = self.server.standin, self.server.host
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(host, self.command, self.path, headers, standin.now())
        with standin._lock:
            standin.seen.append(seen)
            if standin.before:
                standin.before(seen)
            waits = [limit.wait(host, self.path, seen.at) for limit in standin.limits]
        if standin.latency:
            standin.pause(standin.latency)
        if seen.token and host != "api":
            # A token that leaves the API is a leak, and the test shall fail loudly.
            return self.answer(400, b"a token was sent to a host that is not the API")
        if host in standin.moved:
            to = urlsplit(standin.moved[host])
            location = f"{to.scheme}://{to.netloc}{self.path}"
            return self.answer(302, b"", {"Location": location, "Set-Cookie": COOKIE})
        if wait := max(waits, default=0.0):
            detail = f"Request was throttled. Expected available in {int(wait) + 1} seconds."
            body = json.dumps({"errors": [{"detail": detail}]}).encode()
            return self.answer(429, body, {"Retry-After": str(int(wait) + 1)})
        parts = urlsplit(self.path)
        fault = next((f for f in standin.faults if f.takes(host, self.path)), None)
        body = b""
        if host == "bucket":
            body = standin.content(parts.path.rpartition("/")[2]) or b""
        if host == "mirror":
            body = standin.mirror.get(parts.path, b"")
        if host in {"api", "storage"}:
            body = (
                b" " * 100_000
            )  # what a fault makes its answer of; JSON may begin with any blanks
        if fault and play(fault, self, body):
            return None
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        with standin._lock:
            reply = getattr(self, f"_{host}")(parts.path, query)
        return reply() if callable(reply) else None

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.begin(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.write(body)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send a status and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def write(self, data: bytes) -> None:
        """Send bytes of a body."""
        standin = self.server.standin
        with contextlib.suppress(ConnectionError):
            for first in range(0, len(data), PIECE):
                while standin.holds(first):
                    standin.pause(0.005)
                piece = data[first : first + PIECE]
                self.wfile.write(piece)
                self.wfile.flush()
                standin.sent_bytes += len(piece)
                if standin.trickle:
                    standin.pause(standin.trickle)

    def hang_up(self) -> None:
        """Close the connection without another word."""
        self.connection.close()

    def range_start(self) -> int | None:
        """Return where the asked range starts, or None if the whole is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return int(match[1]) if match else None

    @staticmethod
    def etag(body: bytes) -> str:
        """Return the bucket's ETag: the quoted MD5."""
        return f'"{hashlib.md5(body).hexdigest()}"'

    def _json(self, value: Any, status: int = 200, kind: str = "application/vnd.api+json") -> Any:
        body = json.dumps(value).encode()
        return lambda: self.answer(status, body, {"Content-Type": kind})

    def _not_found(self, detail: str = "Not found.") -> Any:
        return self._json({"errors": [{"detail": detail}]}, 404)

    def _api(self, path: str, query: dict[str, str]) -> Any:
        standin = self.server.standin
        token = self.headers.get("Authorization")
        if token is not None and not token.startswith("Bearer "):
            return self._json({"errors": [{"detail": "Invalid token."}]}, 401)
        match = re.fullmatch(r"/v2/nodes/(\w+)/(children|files(?:/osfstorage(?:/(\w+))?)?)/", path)
        node = standin.all_nodes().get(match[1]) if match else None
        if match is None or node is None:
            return self._not_found()
        if not node.public:
            return self._json(
                {"errors": [{"detail": "Authentication credentials were not provided."}]}, 401
            )
        if match[2] == "children":
            rows = [
                listings.child_row(child, standin.hosts)
                for child in node.components
                if child.public
            ]
        elif match[2] == "files":
            rows = [
                {
                    "id": f"{node.id}:osfstorage",
                    "type": "files",
                    "attributes": {"name": "osfstorage"},
                }
            ]
        else:
            found = self._folder(node, match[3])
            if found is None:
                return self._not_found()
            prefix, folder = found
            rows = [
                listings.api_row(node, prefix + _label(thing), thing, standin.hosts)
                for thing in folder.children.values()
            ]
        try:
            page = listings.page(
                rows, f"{standin.hosts['api']}{path[3:]}", query, modern=standin.modern
            )
        except ValueError:
            page = None
        return self._not_found("Invalid page.") if page is None else self._json(page)

    def _folder(self, node: Node, identity: str | None) -> tuple[str, Folder] | None:
        if identity is None:
            return "/", node.root
        path, thing = node.walk().get(identity, ("", None))
        return (path, thing) if isinstance(thing, Folder) else None

    def _site(self, path: str, query: dict[str, str]) -> Any:
        standin = self.server.standin
        match = re.fullmatch(r"/download/(\w+)/", path)
        if match is None:
            return lambda: self.answer(404, b"<html>404</html>", {"Content-Type": "text/html"})
        found = standin.file(match[1])
        if found is None:
            # Deleted files are gone in all versions.
            return lambda: self.answer(404, b"<html>gone</html>", {"Content-Type": "text/html"})
        node, file = found
        if not node.public:
            login = f"{standin.hosts['accounts']}/login?service=osf"
            return lambda: self.answer(302, b"", {"Location": login})
        picked = self._version(file, query)
        if isinstance(picked, int):
            return lambda: self.answer(picked, b"<html>no</html>", {"Content-Type": "text/html"})
        where = f"/v1/resources/{node.id}/providers/osfstorage/{file.id}"
        asked = {name: value for name, value in query.items() if name in {"version", "revision"}}
        target = f"{standin.hosts['storage']}{where}?{urlencode({'action': 'download', **asked})}"
        return lambda: self.answer(302, b"", {"Location": target})

    @staticmethod
    def _version(file: File, query: dict[str, str]) -> bytes | int:
        """Return the bytes of the asked version, or the status of a refusal."""
        text = query.get("version", query.get("revision", str(len(file.versions))))
        if not text.isdigit():
            return 400
        return file.versions[int(text) - 1] if 1 <= int(text) <= len(file.versions) else 404

    def _storage(self, path: str, query: dict[str, str]) -> Any:
        standin = self.server.standin
        match = re.fullmatch(r"/v1/resources/(\w+)/providers/osfstorage/(?:(\w+)(/?))?", path)
        node = standin.all_nodes().get(match[1]) if match else None
        if match is None or node is None:
            return self._json({"code": 404, "message": "Could not retrieve file or directory"}, 404)
        if not node.public:
            return self._json({"code": 403, "message": "Forbidden"}, 403)
        if match[2] and not match[3]:
            return self._stored_file(node, match[2], query)
        found = self._folder(node, match[2])
        if found is None:
            return self._json({"code": 404, "message": "Could not retrieve folder"}, 404)
        prefix, folder = found
        if "zip" in query:
            return lambda: self.answer_zip(folder)
        rows = [
            listings.storage_row(node, prefix + _label(thing), thing, standin.hosts)
            for thing in folder.children.values()
        ]
        return self._json({"data": rows}, kind="application/json; charset=UTF-8")

    def _stored_file(self, node: Node, identity: str, query: dict[str, str]) -> Any:
        standin = self.server.standin
        path, file = node.walk().get(identity, ("", None))
        if not isinstance(file, File):
            return self._json({"code": 404, "message": "Could not retrieve file"}, 404)
        if "versions" in query:
            return self._json({"data": listings.versions(file)})
        if "meta" in query or self.command == "HEAD":
            row = listings.storage_row(node, path, file, standin.hosts)
            if self.command == "HEAD":
                headers = {"X-Waterbutler-Metadata": json.dumps(row["attributes"])}
                return lambda: self.answer(200, file.newest, headers)
            return self._json({"data": row})
        picked = self._version(file, query)
        if isinstance(picked, int):
            return self._json({"code": picked, "message": "no such version"}, picked)
        target = standin.signed(picked)
        return lambda: self.answer(302, b"", {"Location": target})

    def _bucket(self, path: str, query: dict[str, str]) -> Any:
        standin = self.server.standin
        digest = path.removeprefix("/osf-bucket/")
        body = standin.content(digest)
        expires = query.get("Expires", "0")
        if query.get("Signature") != _signature(digest, int(expires)):
            return lambda: self.answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if time.time() + standin.clock_offset > int(expires):
            return lambda: self.answer(400, b"<Error><Code>ExpiredToken</Code></Error>")
        if body is None:
            return lambda: self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        return lambda: self.answer_range(body)

    def answer_range(self, body: bytes) -> None:
        """Send a body, or the part of it that was asked for, as a bucket does."""
        headers = {
            "ETag": self.etag(body),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if (
            asked is None
            or asked.groups() == ("", "")
            or (condition and condition != headers["ETag"])
        ):
            return self.answer(200, body, headers)
        first, last = _bounds(asked[1], asked[2], len(body))
        if first > last:
            return self.answer(416, b"", {**headers, "Content-Range": f"bytes */{len(body)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        return self.answer(206, body[first : last + 1], headers)

    def _mirror(self, path: str, query: dict[str, str]) -> Any:
        del query
        body = self.server.standin.mirror.get(path)
        if body is None:
            return lambda: self.answer(404, b"not here")
        return lambda: self.answer_range(body)

    def answer_zip(self, folder: Folder) -> None:
        """Stream a folder as a zip: no length, no ranges, and other bytes every time."""
        below = Node("zip", root=folder).walk().values()
        entries = [
            Entry(path.lstrip("/"), thing.newest, streamed=True)
            for path, thing in below
            if isinstance(thing, File)
        ]
        secrets.SystemRandom().shuffle(entries)
        body = build(entries)
        self.close_connection = True
        self.begin(200, {"Content-Type": "application/zip", "Transfer-Encoding": "chunked"})
        for first in range(0, len(body), PIECE):
            piece = body[first : first + PIECE]
            self.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.write(b"0\r\n\r\n")

    def _accounts(self, *_: object) -> Any:
        page = b"<!DOCTYPE html><html><body>Sign in with your OSF account to continue</body></html>"
        return lambda: self.answer(200, page, {"Content-Type": "text/html; charset=utf-8"})


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


def _label(thing: File | Folder) -> str:
    return f"{thing.name}/" if isinstance(thing, Folder) else thing.name


@contextlib.contextmanager
def forbidden_sockets(monkeypatch: Any) -> Iterator[list[object]]:
    """Let every attempt to open a socket fail, and list the attempts."""
    tried: list[object] = []

    def refuse(*args: object, **_: object) -> None:
        tried.append(args)
        raise AssertionError(f"a socket was opened: {args}")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        patch.setattr(socket, "create_connection", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield tried
