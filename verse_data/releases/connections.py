"""HTTP connections with a minimum transfer rate, and a deadline for each answer.

A timeout of a socket is a limit on each single wait, so a server that sends a byte every few seconds
holds its client for ever: in a body, in headers, in answers that only announce another, in chunk lines
and trailers. Here everything that is read of an answer is counted, from its first byte on: too few
bytes in a window of waiting, or an answer that has not ended by its deadline, are a `TimeoutError`.

This module imports urllib3, which opens a socket when it is imported; nothing imports it that needs
no network.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import threading
import time
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from verse_data.config import Limits


class MinimumRateAdapter(HTTPAdapter):
    """An adapter whose answers must come at a rate, and end by a deadline.

    Parameters
    ----------
    limits : Limits
        The rate.
    connections : int
        How many are kept open to one host.
    """

    def __init__(self, limits: Limits, *, connections: int) -> None:
        self._call = _Call()
        self._pools = _pools(limits, self._call)
        super().__init__(pool_connections=8, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Give direct connections the limits."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """Give connections through a proxy the limits."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def ask(
        self, request: requests.PreparedRequest, *, seconds: float, **options: Any
    ) -> requests.Response:
        """Send a request whose answer, with its body, must be read to its end in `seconds`."""
        self._call.deadline = time.monotonic() + seconds
        return super().send(request, **options)


class _Call(threading.local):
    """The deadline of the request that this thread is sending."""

    deadline = math.inf


def _pools(limits: Limits, call: _Call) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return the classes of connection pools by scheme, whose responses know the limits."""

    class Response(_TimedResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, watch=_Watch(limits, call.deadline), **options)

    class Plain(HTTPConnection):
        response_class = Response

    class Secure(HTTPSConnection):
        response_class = Response

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _TimedResponse(http.client.HTTPResponse):
    """An answer, headers and body, under a watch."""

    def __init__(self, sock: socket.socket, *arguments: Any, watch: _Watch, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_TimedBytes(self.fp.detach(), watch))


class _Watch:
    """Whether enough bytes come, and in time."""

    def __init__(self, limits: Limits, deadline: float) -> None:
        self._limits = limits
        self._deadline = deadline
        self._begun = False
        self._waited = 0.0
        self._came = 0

    def check(self, waited: float, count: int) -> None:
        """Count a wait and what came of it; raise TimeoutError if it is too little, or too late."""
        if self._begun:
            self._waited += waited
        self._begun = True
        self._came += count
        if time.monotonic() > self._deadline:
            raise TimeoutError("not whole by its deadline")
        if self._waited > self._limits.window_seconds:
            if self._came < self._limits.window_bytes:
                raise TimeoutError(f"{self._came:,} bytes came in {self._waited:.0f} s")
            self._waited, self._came = 0.0, 0


class _TimedBytes(io.RawIOBase):
    """The bytes of a socket, under a watch."""

    def __init__(self, raw: io.RawIOBase, watch: _Watch) -> None:
        self._raw = raw
        self._watch = watch

    def readable(self) -> bool:
        """Return True: this is a stream to read from."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what has come; `TimeoutError` if it is too little, or too late."""
        start = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._watch.check(time.monotonic() - start, count or 0)
        return count

    def close(self) -> None:
        """Close the socket's file."""
        self._raw.close()
        super().close()
