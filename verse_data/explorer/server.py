"""The explorer's web server: one page and its data, for the browsers of one person on this machine.

It listens on 127.0.0.1. A one-time token in the address becomes a cookie; requests without it, from
pages of other origins, or under another host name (DNS rebinding) get 403. Nothing on disk is served
by its path: files of the page are an allow-list, and volumes are named by the release's own scan ids.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import sys
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, urlsplit

from verse_data.errors import VerseDataError
from verse_data.explorer import cuts
from verse_data.explorer.facts import TABLES, Explored, page_facts
from verse_data.explorer.prepare import Scans
from verse_data.volumes.reader import ScanReader

PAGE: Final = Path(__file__).parent / "page"
FILES: Final = {
    "index.html": "text/html; charset=utf-8",
    "explorer.css": "text/css; charset=utf-8",
    "data.js": "text/javascript; charset=utf-8",
    "table.js": "text/javascript; charset=utf-8",
    "slices.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "filters.js": "text/javascript; charset=utf-8",
    "explorer.js": "text/javascript; charset=utf-8",
    "vendor/niivue.umd.js": "text/javascript; charset=utf-8",
    "vendor/LICENSE.niivue": "text/plain; charset=utf-8",
}
"""The files of the page, and their types."""

_HOST: Final = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")
# Any port: a tunnel from another machine has one of its own.
_SITES: Final = {"same-origin", "none"}
"""Values of Sec-Fetch-Site for requests of the page itself, and of a person's own navigation."""
_VOLUME: Final = re.compile(r"/scan/([A-Za-z0-9_-]+)/(image|label)")
_STATE: Final = re.compile(r"/scan/([A-Za-z0-9_-]+)")
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src data:; connect-src 'self' data: blob:; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
}
_NO_POINT: Final = "A point is x, y and z in mm."
_JSON: Final = "application/json; charset=utf-8"
_log = logging.getLogger("verse_data.explorer")


class Answer(NamedTuple):
    """A body that is made when its ETag is not the one that the browser has."""

    kind: str
    etag: str
    make: Callable[[], bytes]


class _Refused(Exception):
    """A request that is not answered, with its status and a sentence."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves one release, from its creation until it is closed.

    Parameters
    ----------
    release : Release
        Its tables are read now, so that warnings and errors reach the caller.
    """

    daemon_threads = True

    def __init__(self, release: Explored) -> None:
        self.release, self.scans = release, Scans(release)
        self.tables = release.readable_tables
        self.facts = json.dumps(page_facts(release), allow_nan=False).encode()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cookie = secrets.token_urlsafe(32)
        self._token: str | None = secrets.token_urlsafe(32)
        self.url = f"http://127.0.0.1:{self.server_port}/?token={self._token}"

    @property
    def cookie_name(self) -> str:
        """The name of the cookie, which all ports of a host share."""
        return f"verse_data_{self.server_port}"

    def redeem(self, token: str) -> bool:
        """Whether a token is the one of the address; it is so once."""
        if self._token is None or not hmac.compare_digest(token.encode(), self._token.encode()):
            return False
        self._token = None
        return True

    def run(self, announce: Callable[[str], None], *, browser: bool) -> None:
        """Serve until Ctrl-C; the address is announced once it can be opened, and opened if wanted."""
        try:
            with suppress(KeyboardInterrupt):
                announce(self.url)
                if browser:
                    webbrowser.open(self.url)
                self.serve_forever()
        finally:
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log errors of a connection; browsers break them off all the time."""
        del request, client_address
        if not isinstance(sys.exception(), ConnectionError):
            _log.exception("a request of the explorer failed")

    def answer(self, path: str, query: dict[str, str]) -> Answer:
        """Return the answer to a request that may be answered."""
        name = path.removeprefix("/") or "index.html"
        if name in FILES:
            return _made(FILES[name], (PAGE / name).read_bytes())
        if path == "/facts":
            return _made(_JSON, self.facts)
        if path == "/select":
            return _json(self._select(query.get("table", ""), query.get("where", "")))
        if path == "/value":
            return _json(self._value(query))
        if found := _VOLUME.fullmatch(path):
            return self._volume(found[1], found[2], query)
        if found := _STATE.fullmatch(path):
            return _json(self.scans.state(self._known(found[1]), again="again" in query))
        raise _Refused(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _known(self, scan_id: str) -> str:
        if scan_id not in self.release.series:
            raise _Refused(HTTPStatus.NOT_FOUND, f"There is no scan {scan_id}.")
        return scan_id

    def _select(self, table: str, where: str) -> dict[str, Any]:
        """Return the rows for which a condition is true, by index; or its error, which is an answer."""
        from verse_data.tables.query import select

        if table not in TABLES:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"Tables are {', '.join(TABLES)}.")
        try:
            rows = select(getattr(self.tables, table), where)
            self.release.require_grades(where)
        except VerseDataError as error:
            return {"error": str(error)}
        return {"rows": [int(number) for number in rows.index]}

    def _value(self, query: dict[str, str]) -> dict[str, Any]:
        """Return HU and label of the voxel at a point in world mm, in full resolution."""
        point = _point(query)
        if point is None:
            raise _Refused(HTTPStatus.BAD_REQUEST, _NO_POINT)
        return cuts.voxel_at(self._ready(query.get("scan", "")), point)

    def _volume(self, scan_id: str, name: str, query: dict[str, str]) -> Answer:
        reader, centre = self._ready(scan_id), _point(query)
        array: Any = name
        if array == "label" and not reader.has_label:
            raise _Refused(HTTPStatus.NOT_FOUND, f"Scan {scan_id} has no mask.")
        tag = cuts.etag(reader, array, centre)
        return Answer(
            "application/octet-stream", tag, lambda: cuts.cut_nifti(reader, array, centre)
        )

    def _ready(self, scan_id: str) -> ScanReader:
        reader = self.scans.reader(self._known(scan_id))
        if reader is None:
            raise _Refused(HTTPStatus.CONFLICT, f"Scan {scan_id} is not ready; ask for it first.")
        return reader


def _made(kind: str, content: bytes) -> Answer:
    """Return an answer that is made already."""
    return Answer(kind, hashlib.sha256(content).hexdigest(), lambda: content)


def _json(value: Any) -> Answer:
    return _made(_JSON, json.dumps(value, allow_nan=False).encode())


def _parts(target: str) -> SplitResult:
    """Return the parts of a request's target, which a stranger may send in any form."""
    try:
        return urlsplit(target)
    except ValueError as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, "This is no address.") from error


def _point(query: dict[str, str]) -> cuts.Point | None:
    """Return the point in world mm of a request, or None if it has none."""
    given = [query[axis] for axis in "xyz" if axis in query]
    if not given:
        return None
    try:
        x, y, z = (float(text) for text in given)
    except ValueError:
        x = y = z = float("nan")
    if not all(abs(value) < 1e5 for value in (x, y, z)):
        raise _Refused(HTTPStatus.BAD_REQUEST, _NO_POINT)
    return x, y, z


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection of a browser."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "verse-data", ""
    timeout = 60  # of an idle connection, in seconds

    server: Server  # not any socketserver

    def do_GET(self) -> None:
        """Answer a request, or say why not."""
        try:
            self._check_host()
            parts = _parts(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            if parts.path == "/" and "token" in query:
                self._enter(query["token"])
                return
            self._check_origin()
            self._check_cookie()
            self._send(self.server.answer(parts.path, query))
        except _Refused as refused:
            self._say(refused.status, str(refused))
        except VerseDataError as error:
            self._say(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log requests for those who want to know, and not to the terminal."""
        _log.debug(format, *args)

    def _check_host(self) -> None:
        """Refuse names that another machine's DNS may have pointed here."""
        if not _HOST.fullmatch(self.headers.get("Host", "")):
            raise _Refused(
                HTTPStatus.FORBIDDEN, "This server answers as 127.0.0.1 and localhost only."
            )

    def _check_origin(self) -> None:
        """Refuse what pages of other origins ask for, also those of other ports here."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "none")
        if origin not in {None, f"http://{self.headers['Host']}"} or site not in _SITES:
            raise _Refused(HTTPStatus.FORBIDDEN, "Pages of other origins get nothing here.")

    def _check_cookie(self) -> None:
        """Refuse who has not come by the address with the token."""
        if not self._is_known():
            raise _Refused(
                HTTPStatus.FORBIDDEN,
                "This page needs the address that `verse-data explore` printed, which works once. "
                "Start it again for another browser.",
            )

    def _is_known(self) -> bool:
        """Whether the cookie is that of this server."""
        try:
            sent = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie_name)
        except CookieError:
            return False
        value = sent.value if sent else ""
        return hmac.compare_digest(value.encode(), self.server.cookie.encode())

    def _enter(self, token: str) -> None:
        """Turn the one-time token into a cookie, and leave it out of the address."""
        if not self._is_known() and not self.server.redeem(token):
            why = (
                "This address was used already, or is of an earlier run. Start the explorer again."
            )
            raise _Refused(HTTPStatus.FORBIDDEN, why)
        cookie = f"{self.server.cookie_name}={self.server.cookie}"
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{cookie}; Path=/; HttpOnly; SameSite=Strict")
        self._end(b"")

    def _send(self, answer: Answer) -> None:
        """Send an answer, or only that the browser has it already."""
        etag = f'"{answer.etag}"'
        unchanged = self.headers.get("If-None-Match") == etag
        content = b"" if unchanged else answer.make()
        self.send_response(HTTPStatus.NOT_MODIFIED if unchanged else HTTPStatus.OK)
        self.send_header("ETag", etag)
        self.send_header("Content-Type", answer.kind)
        self._end(content)

    def _say(self, status: HTTPStatus, message: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self._end(message.encode())

    def _end(self, content: bytes) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
