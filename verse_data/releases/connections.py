"""Connections to servers that give up on one that drips.

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


class SteadyAdapter(HTTPAdapter):
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
        """Let direct connections be steady ones."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """Let connections through a proxy be steady ones."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pools(limits: Limits) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return the classes of connection pools by scheme, whose responses know `limits`."""

    class Response(_SteadyResponse):
        limits_of_answers = limits

    class Plain(HTTPConnection):
        response_class = Response

    class Secure(HTTPSConnection):
        response_class = Response

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _SteadyResponse(http.client.HTTPResponse):
    """An answer, headers and body, that must come at a rate."""

    limits_of_answers: ClassVar[Limits]

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        steady = _SteadyBytes(self.fp.detach(), self.limits_of_answers)
        self.fp = io.BufferedReader(steady)


class _SteadyBytes(io.RawIOBase):
    """The bytes of a socket, for as long as enough of them come."""

    def __init__(self, raw: io.RawIOBase, limits: Limits) -> None:
        self._raw = raw
        self._limits = limits
        self._begun = False
        self._waited = 0.0
        self._came = 0

    def readable(self) -> bool:
        """Say yes."""
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
