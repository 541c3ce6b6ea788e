"""What a bucket, or a host before it, can do wrong: one mode at a time."""

from __future__ import annotations

import gzip
import re
import socket
import struct
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osf_standin.server import Handler

PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>OSF</title></head><body>"
    + b"<p>app</p>" * 40
    + b"</body></html>"
)

MODES = (
    "cut_length",
    "cut_no_length",
    "cut_chunked",
    "reset",
    "html",
    "html_as_bytes",
    "gzip",
    "negative_length",
    "stall",
    "drip",
    "drip_headers",
    "endless_continue",
    "endless_headers",
    "endless_trailers",
    "redirect_file",
    "redirect_private",
    "redirect_loop",
    "extra",
    "extra_chunked",
    "flip",
    "ignore_range",
    "wrong_range",
    "wrong_total",
    "changed",
    "unsatisfiable",
    "throttle",
    "throttle_date",
    "unavailable",
    "gone",
    "forbidden",
)
"""All modes; the first thirteen rows of the board are among them."""


@dataclass
class Fault:
    """A fault that a host plays.

    Attributes
    ----------
    mode : str
        One of `MODES`.
    times : int or None
        How many requests it hits; None is all.
    host : str
        Which host plays it: "bucket", "storage", "site", "api".
    seconds : float
        Retry-After of the throttles, or how long a stall or a drip lasts.
    match : str
        Regular expression that the request's path must contain.
    after : int
        Bytes that are sent well before a cut, flip, stall or drip; half of the body if negative.
    """

    mode: str
    times: int | None = None
    host: str = "bucket"
    seconds: float = 1.0
    match: str = ""
    after: int = -1

    def takes(self, host: str, path: str) -> bool:
        """Whether this request is hit; counts it."""
        if host != self.host or self.times == 0 or not re.search(self.match, path):
            return False
        if self.times is not None:
            self.times -= 1
        return True


def play(fault: Fault, handler: Handler, body: bytes) -> bool:
    """Answer in the fault's way; False if the request is to be answered well after all."""
    mode = fault.mode
    if mode in {"throttle", "throttle_date", "unavailable", "gone", "forbidden"}:
        _refuse(fault, handler)
    elif mode.startswith("redirect"):
        targets = {
            "redirect_file": "file:///etc/passwd",
            "redirect_private": "http://169.254.169.254/latest/meta-data",
            "redirect_loop": handler.path,
        }
        handler.answer(302, b"", {"Location": targets[mode]})
    elif mode.startswith("html"):
        kind = "text/html; charset=utf-8" if mode == "html" else "application/octet-stream"
        handler.answer(200, PAGE, {"Content-Type": kind})
    elif mode in ENDLESS:
        endless(fault, handler, *ENDLESS[mode])
    else:
        return _spoil(fault, handler, body)
    return True


def _refuse(fault: Fault, handler: Handler) -> None:
    status = {"unavailable": 503, "gone": 404, "forbidden": 403}.get(fault.mode, 429)
    headers = {"Content-Type": "application/json"}
    if fault.mode == "throttle":
        headers["Retry-After"] = str(int(fault.seconds))
    if fault.mode == "throttle_date":
        # Counted from the very moment that the answer's own Date tells.
        now = int(time.time())
        headers["Retry-After"] = formatdate(now + fault.seconds, usegmt=True)
        handler.date_time_string = lambda *_: formatdate(now, usegmt=True)  # type: ignore[method-assign]
    handler.answer(status, b'{"errors":[{"detail":"not now"}]}', headers)


def _spoil(fault: Fault, handler: Handler, body: bytes) -> bool:
    mode = fault.mode
    start = handler.range_start()
    if start is None and mode in {"ignore_range", "wrong_range", "wrong_total", "unsatisfiable"}:
        return False
    if mode == "unsatisfiable":
        handler.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        return True
    if mode == "ignore_range":
        handler.answer(200, body, {"Accept-Ranges": "none"})
        return True
    if mode == "changed":
        other = bytes(len(body))
        handler.answer(200, other, {"ETag": '"another"'})
        return True
    first = start or 0
    rest = body[first:]
    half = len(rest) // 2 if fault.after < 0 else min(fault.after, len(rest))
    headers = {"ETag": handler.etag(body), "Accept-Ranges": "bytes"}
    status = 200
    if start is not None:
        status = 206
        lie = 7 if mode == "wrong_range" else 0
        total = len(body) + (mode == "wrong_total")
        headers["Content-Range"] = f"bytes {first - lie}-{len(body) - 1 - lie}/{total}"
    if mode in {"wrong_range", "wrong_total"}:
        handler.answer(status, rest, headers)
    elif mode == "gzip":
        handler.answer(status, gzip.compress(rest), {**headers, "Content-Encoding": "gzip"})
    elif mode == "extra":
        handler.answer(status, rest + b"extra bytes", headers)
    elif mode == "flip":
        spoilt = bytearray(rest)
        spoilt[half] ^= 16
        handler.answer(status, bytes(spoilt), headers)
    else:
        _stream(fault, handler, (status, headers), rest, half)
    return True


def _stream(
    fault: Fault, handler: Handler, head: tuple[int, dict[str, str]], rest: bytes, half: int
) -> None:
    """Send what only a hand-made answer can be: broken framing and broken connections."""
    mode = fault.mode
    status, headers = head
    handler.close_connection = True
    framing = {"Content-Length": str(len(rest))}
    if mode in {"cut_chunked", "extra_chunked"}:
        framing = {"Transfer-Encoding": "chunked"}
    elif mode == "cut_no_length":
        framing = {}
    elif mode == "negative_length":
        framing = {"Content-Length": "-5"}
    if mode == "drip_headers":
        drip(fault, handler, b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 60_000)
        return
    handler.begin(status, {**headers, **framing, "Connection": "close"})
    if mode in {"cut_chunked", "extra_chunked"}:
        sent = rest[:half] if mode == "cut_chunked" else rest + b"extra bytes"
        handler.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n")
        if mode == "extra_chunked":
            handler.write(b"0\r\n\r\n")
        return
    handler.write(rest if mode == "negative_length" else rest[:half])
    if mode == "reset":
        time.sleep(0.02)
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.shutdown(socket.SHUT_RD)
        handler.hang_up()
    elif mode == "stall":
        handler.server.standin.pause(fault.seconds)
    elif mode == "drip":
        drip(fault, handler, rest[half:])


# What comes first, and what comes again and again: an answer that never gets to its end, at any speed.
ENDLESS = {
    "endless_continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless_headers": (b"HTTP/1.1 200 OK\r\nX-Filler: ", b"x" * 20_000),
    "endless_trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\x1f\r\n0\r\n",
        b"X-Filler: y\r\n",
    ),
}


def endless(fault: Fault, handler: Handler, first: bytes, again: bytes) -> None:
    """Send `first`, and `again` as long as the fault lasts or the client listens, fast enough."""
    handler.close_connection = True
    end = time.monotonic() + fault.seconds
    try:
        handler.wfile.write(first)
        while time.monotonic() < end:
            # A header line may not be longer than 64 kB.
            line = again if fault.mode != "endless_headers" else again + b"\r\nX-Filler: "
            handler.wfile.write(line)
            handler.wfile.flush()
            handler.server.standin.pause(0.01)
    except OSError:  # the client has hung up
        return


def drip(fault: Fault, handler: Handler, data: bytes) -> None:
    """Send one byte every twentieth of a second, as long as the fault lasts or the client listens."""
    end = time.monotonic() + fault.seconds
    for byte in data:
        if time.monotonic() > end:
            return
        try:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
        except OSError:  # the client has hung up
            return
        handler.server.standin.pause(0.05)
