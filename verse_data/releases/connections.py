"""HTTP connections with a minimum transfer rate.

A timeout of a socket is a limit on each single wait, so a server that sends a byte every few seconds
holds its client for ever, in a body as in headers. Here the time that was waited for bytes is added
up, from the first byte on, and too few bytes in a window of it are a `TimeoutError`.

This module imports urllib3, which opens a socket when it is imported; nothing imports it that needs
no network.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any, ClassVar

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from verse_data.config import Limits


class MinimumRateAdapter(HTTPAdapter):
    """An adapter whose answers must come at a rate.

    Parameters
    ----------
    limits : Limits
        The rate.
    connections : int
        How many are kept open to one host.
    """

    def __init__(self, limits: Limits, *, connections: int) -> None:
        self._pools = _pools(limits)
        super().__init__(pool_connections=8, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Give direct connections the rate."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """Give connections through a proxy the rate."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pools(limits: Limits) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return the classes of connection pools by scheme, whose responses know `limits`."""

    class Response(_TimedResponse):
        """A response with these limits."""

    Response.limits = limits

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
    """An answer, headers and body, that must come at a rate."""

    limits: ClassVar[Limits]

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        timed = _TimedBytes(self.fp.detach(), self.limits)
        self.fp = io.BufferedReader(timed)


class _TimedBytes(io.RawIOBase):
    """The bytes of a socket, which must come at a rate."""

    def __init__(self, raw: io.RawIOBase, limits: Limits) -> None:
        self._raw = raw
        self._limits = limits
        self._begun = False
        self._waited = 0.0
        self._came = 0

    def readable(self) -> bool:
        """Return True: this is a stream to read from."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what has come.

        Raises
        ------
        TimeoutError
            If fewer bytes than the limit came in the window.
        """
        start = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        if self._begun:
            self._waited += time.monotonic() - start
        self._begun = True
        self._came += count or 0
        if self._waited > self._limits.window_seconds:
            if self._came < self._limits.window_bytes:
                raise TimeoutError(f"{self._came:,} bytes came in {self._waited:.0f} s")
            self._waited, self._came = 0.0, 0
        return count

    def close(self) -> None:
        """Close the socket's file."""
        self._raw.close()
        super().close()
