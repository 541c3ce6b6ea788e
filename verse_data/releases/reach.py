"""Which addresses this package opens, and how they look in messages."""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from verse_data.errors import ServerUnavailable, UrlRefused

_HARMLESS_QUERY: Final = {"version", "revision", "page", "page[size]"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach:
    """Which addresses may be opened: public ones over https, and those that the user named.

    Parameters
    ----------
    *named : str
        Addresses from the user's own hand (configured endpoints, a typed URL). Where one lies on
        this machine or a private network, that host may be reached, and over plain http if it was
        named so. Loopback counts as one host.
    """

    def __init__(self, *named: str) -> None:
        self._named = named

    def check(self, url: str, *, proxied: bool = False) -> None:
        """Raise UrlRefused unless `url` may be opened.

        Parameters
        ----------
        url : str
            Address, absolute.
        proxied : bool, default False
            Whether a proxy will look the name up; then only literal addresses can be judged.

        Raises
        ------
        UrlRefused
            If it may not.
        ServerUnavailable
            If its name cannot be looked up.
        """
        parts = split_url(url)
        if (
            parts.scheme not in {"http", "https"}
            or not parts.hostname
            or parts.username is not None
        ):
            raise UrlRefused(
                f"{shown(url)}: only plain https addresses are opened. Nothing was sent."
            )
        literal = _literal(parts.hostname)
        found: tuple[Address, ...] = (literal,) if literal else ()
        if literal is None and not proxied:
            found = _addresses(parts.hostname)
        near = [address for address in found if not _is_public(address)]
        for address in near:
            if not self._is_named(address, parts.scheme):
                raise UrlRefused(
                    f"{shown(url)}: {address} is an address of this machine or a private network, "
                    f"and no configured endpoint is there under {parts.scheme}. Nothing was sent. If "
                    f"you run a mirror, name it in VERSE_DATA_OSF_API and VERSE_DATA_OSF_SITE."
                )
        if parts.scheme == "http" and not near:
            raise UrlRefused(f"{shown(url)}: plain http to a public host. Nothing was sent.")

    def _is_named(self, address: Address, scheme: str) -> bool:
        for url in self._named:
            parts = split_url(url)
            if not parts.hostname or (scheme == "http" and parts.scheme != "http"):
                continue
            theirs = _literal(parts.hostname)
            try:
                owns = (theirs,) if theirs else _addresses(parts.hostname)
            except ServerUnavailable:
                continue
            if any(own == address or (own.is_loopback and address.is_loopback) for own in owns):
                return True
        return False


def split_url(url: str) -> SplitResult:
    """Return the parts of `url`, or raise UrlRefused if it has none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UrlRefused(f"{url[:200]!r} is not an address: {error}. Nothing was sent.") from error
    return parts


def shown(url: str) -> str:
    """Return `url` without user, password and signature, for messages and logs."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    pairs = [(name, value) for name, value in parse_qsl(parts.query) if name in _HARMLESS_QUERY]
    query = f"?{urlencode(pairs)}" if pairs else ""
    return f"{parts.scheme}://{host}{parts.path}{query}"


def shown_proxy(proxy: str) -> str:
    """Return scheme, host and port of a proxy: all that stands before an @ may be a password.

    Proxies are named without a scheme too, and passwords hold slashes that nobody has escaped.
    """
    scheme, separator, rest = proxy.partition("://")
    host = re.split(r"[/?#]", (rest if separator else proxy).rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme.lower()}://{host}" if separator and scheme.isalnum() else host


def _literal(host: str) -> Address | None:
    try:
        return _unmapped(ipaddress.ip_address(host))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    mapped: Address | None = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast


@lru_cache(maxsize=256)
def _addresses(host: str) -> tuple[Address, ...]:
    """Look a name up; every spelling of an address that the system accepts comes out plain."""
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ServerUnavailable(
            f"{host}: the name cannot be looked up ({error}). Check the network and try again."
        ) from error
    texts = dict.fromkeys(str(row[4][0]).split("%")[0] for row in rows)
    return tuple(_unmapped(ipaddress.ip_address(text)) for text in texts)
