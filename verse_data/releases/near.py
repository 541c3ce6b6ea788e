"""Which near address git-annex may reach: that of a configured endpoint, in our calls alone."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit


def near_settings(url: str) -> tuple[str, ...]:
    """Return the git settings that let git-annex reach a configured endpoint that lies near.

    git-annex refuses this machine and private networks. Exactly the endpoint's address is allowed,
    for the one call that these settings are given to.
    """
    near = near_addresses(url)
    return (f"annex.security.allowed-ip-addresses={' '.join(near)}",) if near else ()


def near_addresses(url: str) -> tuple[str, ...]:
    """Return the addresses of a URL's host that lie on this machine or a private network."""
    try:
        rows = socket.getaddrinfo(urlsplit(url).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return ()
    found = dict.fromkeys(str(row[4][0]).split("%")[0] for row in rows)
    return tuple(text for text in found if not ipaddress.ip_address(text).is_global)
