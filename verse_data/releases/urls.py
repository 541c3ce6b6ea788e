"""Which addresses this package opens, how they look in messages, and what keeps all from answering."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from verse_data.errors import ServerUnavailable, UrlRefused

_HARMLESS_QUERY: Final = {"version", "revision", "page", "page[size]"}


def split_url(url: str) -> SplitResult:
    """Return the parts of `url`, or raise UrlRefused if it has none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        why = "its host or port is not valid"
        raise UrlRefused(f"{redacted(url)}: {why}. Nothing was sent.") from error
    return parts


def redacted(url: str) -> str:
    """Return `url` without user, password and signature, for messages and logs."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # a password with a slash in it looks like one
    except ValueError:
        return "an address that cannot be read"
    pairs = [(name, value) for name, value in parse_qsl(parts.query) if name in _HARMLESS_QUERY]
    query = f"?{urlencode(pairs)}" if pairs else ""
    name = f"#{parts.fragment}" if parts.scheme.startswith("ria+") else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}{name}"


def redacted_text(text: str) -> str:
    """Return `text`, such as the output of a program, with each address in it redacted."""
    return re.sub(r"\w[\w.+-]*://[^\s'\"<>]+", lambda found: redacted(found[0]), text)


def redacted_proxy(proxy: str) -> str:
    """Return scheme, host and port of a proxy; everything before an @ may be a password."""
    # The scheme may be missing, and passwords may contain slashes that are not escaped.
    scheme, separator, rest = proxy.partition("://")
    host = re.split(r"[/?#]", (rest if separator else proxy).rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme.lower()}://{host}" if separator and scheme.isalnum() else host


def check_url(url: str, *, named: Sequence[str] = (), proxied: bool = False) -> None:
    """Raise UrlRefused unless `url` is public and https, or on a host that the user named.

    If the user named an address (an endpoint, a typed URL), its host may be on this machine or a
    private network, and plain http is allowed if the user wrote it. Loopback counts as one host.
    """
    parts = split_url(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise UrlRefused(
            f"{redacted(url)}: only plain https addresses are opened. Nothing was sent."
        )
    # A proxy resolves names itself; then only literal addresses can be checked here.
    found = _addresses(parts.hostname, literal=proxied)
    near = [address for address in found if not address.is_global or address.is_multicast]
    for address in near:
        if not _is_named(address, parts.scheme, named):
            raise UrlRefused(
                f"{redacted(url)}: {address} is an address of this machine or a private network, and no "
                f"configured endpoint is there under {parts.scheme}. Nothing was sent. If you run a "
                f"mirror, name it in VERSE_DATA_OSF_API and VERSE_DATA_OSF_SITE."
            )
    if parts.scheme == "http" and not near:
        raise UrlRefused(f"{redacted(url)}: plain http to a public host. Nothing was sent.")


def _is_named(address: Any, scheme: str, named: Sequence[str]) -> bool:
    for parts in map(split_url, named):
        if parts.hostname and (scheme == "https" or parts.scheme == "http"):
            with suppress(ServerUnavailable):
                for own in _addresses(parts.hostname):
                    if own == address or (own.is_loopback and address.is_loopback):
                        return True
    return False


@cache
def _addresses(host: str, *, literal: bool = False) -> tuple[Any, ...]:
    """Return the IP addresses of a name, or only those of a `literal` one, in normal form."""
    flags = socket.AI_NUMERICHOST if literal else 0
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        if literal:
            return ()
        raise ServerUnavailable(
            f"{host}: the name cannot be looked up ({error}). Check the network and try again."
        ) from error
    found = [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in rows]
    return tuple(getattr(address, "ipv4_mapped", None) or address for address in found)


def download_url(site: str, file_id: str, version: int) -> str:
    """Return the address of exactly one version of a file on OSF."""
    # It contains the id and not the guid, which only some files have. The address that it redirects
    # to expires after a minute and must never be stored.
    return f"{site}/download/{file_id}/?version={version}"


def wrong_setting(error: Exception, url: str, proxy: str | None, bundle: object) -> str:
    """Return which setting of the environment lets no request succeed and what to set, or nothing."""
    why = _wrong_certificates(error, bundle) if url.startswith("https:") else ""
    return why or (_wrong_proxy(error, url, proxy) if proxy else "")


def _wrong_certificates(error: Exception, bundle: object) -> str:
    """Return why no certificate can be accepted here and what to set, or nothing if that is not it."""
    import certifi

    path = certifi.where() if bundle is True else str(bundle)
    setting = _variable(path, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    try:
        if not Path(path).is_dir():
            ssl.create_default_context(cafile=path)
    except OSError as wrong:
        why = wrong.strerror or wrong
        return f"{setting}={path} holds no certificates ({why}). Unset it, or name a PEM file."
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"Its certificate was not accepted: {cause.verify_message}. Check this machine's clock; if "
                f"your network has certificates of its own, name their PEM file in {setting} (now {path})."
            )
    return ""


def _wrong_proxy(error: Exception, url: str, proxy: str) -> str:
    """Return why a proxy can never answer and what to set, or nothing if that is not it."""
    setting = _variable(proxy, f"{url.partition(':')[0].upper()}_PROXY", "ALL_PROXY")
    for cause in _causes(error):
        if status := re.search(r"Tunnel connection failed: (4\d\d)", str(cause)):
            return (
                f"The proxy refuses it (status {status[1]}). Change {setting}; one that wants a password is "
                f"written http://USER:PASSWORD@HOST:PORT."
            )
        if isinstance(cause, (socket.gaierror, ConnectionRefusedError)):
            return f"The proxy is not there ({cause.strerror}). Change or unset {setting}."
        if isinstance(cause, ssl.SSLError) and proxy.startswith("https:"):
            return f"The proxy is no https server ({cause.reason}). Write http:// in {setting}."
    if "SOCKS" in str(error):
        return f"{setting} is a SOCKS proxy, which needs a package: pip install pysocks"
    if isinstance(error, ValueError):
        return f"Check how the proxy is written in {setting}, such as http://host:3128."
    return ""


def _variable(value: str, *names: str) -> str:
    """Return which environment variable of `names`, in either case, has a value; or the first."""
    spellings = [spelling for name in names for spelling in (name.lower(), name)]
    return next((name for name in spellings if os.environ.get(name) == value), names[0])


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error of requests and all that it was made of."""
    yield error
    reasons = (getattr(error, name, None) for name in ("reason", "original_error", "__cause__"))
    for inner in (*error.args, *reasons):
        if isinstance(inner, BaseException):
            yield from _causes(inner)
