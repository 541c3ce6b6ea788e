"""A small S3 server on loopback: put, get with ranges, head, delete, list. Credentials are not looked at."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class S3Server(ThreadingHTTPServer):
    """Objects in memory, by ``bucket/key``; every request is noted, and some can be made to fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.refuse: str | None = None
        """Part of a key whose writing is answered with 403."""

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server for a while."""
    server = S3Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Nobody:
    """An address at which nothing answers."""

    url: str


@contextmanager
def nobody() -> Iterator[Nobody]:
    """Hold a port without listening: one that was merely closed may be another server's by now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Nobody(f"http://127.0.0.1:{held.getsockname()[1]}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _key(self) -> str:
        key = unquote(urlsplit(self.path).path).strip("/")
        self.server.log.append((self.command, key))
        return key

    def _answer(self, status: int, body: bytes = b"", **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _absent(self) -> None:
        self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>")

    def do_PUT(self) -> None:
        key = self._key()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuse and self.server.refuse in key:
            self._answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
            return
        self.server.objects[key] = body
        self._answer(200, ETag=_etag(body))

    def do_HEAD(self) -> None:
        body = self.server.objects.get(self._key())
        if body is None:
            self._absent()
        else:
            self._answer(200, Content_Length=len(body), ETag=_etag(body), Last_Modified=_DATE)

    def do_GET(self) -> None:
        key = self._key()
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "list-type" in query:
            self._list(key, query)
            return
        body = self.server.objects.get(key)
        if body is None:
            self._absent()
            return
        about = {"ETag": _etag(body), "Last_Modified": _DATE}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self._answer(200, body, **about)
            return
        begin = int(wanted[1])
        end = min(int(wanted[2] or len(body)), len(body) - 1)
        about["Content_Range"] = f"bytes {begin}-{end}/{len(body)}"
        self._answer(206, body[begin : end + 1], **about)

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._key(), None)
        self._answer(204)

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        slash = "/" in query.get("delimiter", [])
        files, folders = [], set()
        for name, body in sorted(self.server.objects.items()):
            key = name.removeprefix(f"{bucket}/")
            if not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if slash and "/" in rest:
                folders.add(prefix + rest.split("/")[0] + "/")
                continue
            files.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size><ETag>{_etag(body)}"
                f"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        dirs = "".join(
            f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>"
            for f in sorted(folders)
        )
        text = (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>"
            f"{len(files)}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
            f"{''.join(files)}{dirs}</ListBucketResult>"
        )
        self._answer(200, text.encode(), Content_Type="application/xml")


_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'
