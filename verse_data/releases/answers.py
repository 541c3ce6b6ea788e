"""What an answer of a server means, and what may be done about a bad one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from verse_data.errors import (
    NotTheFile,
    RateLimited,
    ServerUnavailable,
    SourceChanged,
    Truncated,
    UrlRefused,
    VerseDataError,
)
from verse_data.releases.pacing import Clock, retry_after
from verse_data.releases.reach import shown, shown_proxy

if TYPE_CHECKING:
    import requests

# requests and urllib3 open a socket when they are imported (they look whether there is IPv6), so
# whoever needs no network must be able to import this module without them.
_BRIEF: Final = 64 << 10


@dataclass(frozen=True)
class Traits:
    """What may be done about a fault.

    Attributes
    ----------
    name : str
        What kind of fault it is; kinds are counted one by one.
    tries : int
        How often it may happen before it is final.
    waits : bool
        Whether the next try is to come later, and not at once.
    """

    name: str
    tries: int
    waits: bool = True


FINAL: Final = Traits("final", 1)
UNAVAILABLE: Final = Traits("unavailable", 10)
STALLED: Final = Traits("stalled", 3)
WRONG: Final = Traits("wrong", 3)
"""Another page in place of the file: a portal, or a passing fault of the site."""
CORRUPT: Final = Traits("corrupt", 2)
"""One clean restart; a second wrong digest is the server's own."""
RESTART: Final = Traits("restart", 3, waits=False)
"""What had been kept does not go with what came; it is thrown away and asked for again."""


class Fault(Exception):
    """One request failed; inside this package only, what leaves is `error`.

    Attributes
    ----------
    error : VerseDataError
        What the caller sees if no further try helps.
    traits : Traits
        How often this kind of fault may happen before it is final.
    after : float or None
        Seconds that the server asked to wait.
    """

    def __init__(
        self, error: VerseDataError, traits: Traits = FINAL, after: float | None = None
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.traits = traits
        self.after = after


class RangeRefused(Fault):
    """The server has no bytes where we want to go on."""


def judge(response: requests.Response, url: str, *, clock: Clock, redirected: bool) -> None:
    """Return if `response` brings the file, else raise the `Fault` that it is.

    Parameters
    ----------
    response : requests.Response
        Not a redirect.
    url : str
        The address that was asked first.
    clock : Clock
        For a Retry-After that is a date.
    redirected : bool
        Whether the answer comes from another address than the one asked first.
    """
    status = response.status_code
    if status in {200, 206}:
        return
    where = f"{shown(url)}: status {status}"
    after = retry_after(response.headers, clock)
    when = "" if after is None else f" The server asks to come back in {after:,.0f} s."
    if status == 429:
        error = RateLimited(f"{where}, too many requests.{when} Run the same command again then.")
        raise Fault(error, UNAVAILABLE, after)
    if status >= 500 or status in {408, 425}:
        calm = b"maintenance_mode" in drain(response)
        why = "OSF is under maintenance" if calm else "a fault of the server"
        text = f"{where}, {why}.{when} Run the same command again later."
        raise Fault(ServerUnavailable(text), UNAVAILABLE, after)
    if redirected and status in {400, 401, 403}:
        # A signed address lives for a minute; the next try is given a new one.
        host = shown(response.url)
        raise Fault(ServerUnavailable(f"{where} from {host}; a signed address ran out."), WRONG)
    if status == 416:
        text = (
            f"{where}: the server has no bytes beyond those that are here. Run the command again."
        )
        raise RangeRefused(Truncated(text), RESTART)
    if status in {404, 410}:
        why = "the server no longer has it. On OSF a deleted file is gone in all its versions"
        raise Fault(SourceChanged(f"{where}: {why}."))
    if status in {401, 403}:
        raise Fault(SourceChanged(f"{where}: it is not public, or not any more."))
    raise Fault(NotTheFile(f"{where}, which is no answer to a download. Check the address."))


def login_page(url: str, host: str | None) -> Fault:
    """Return the fault of a redirect to a log-in page."""
    what = f"leads to a log-in page at {host}: it is not public, or not any more"
    return Fault(NotTheFile(f"{shown(url)} {what}."))


def unreachable(error: Exception, url: str, proxy: str | None) -> Fault:
    """Return the fault of a request that got no answer."""
    import requests

    through = f" through the proxy {shown_proxy(proxy)}" if proxy else ""
    if isinstance(error, requests.exceptions.SSLError):
        hint = "Check this machine's clock and proxy"
        text = f"{shown(url)}{through}: the certificate was not accepted. {hint}."
        return Fault(ServerUnavailable(text))
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        hint = " Check how the proxy is written, such as http://host:3128." if proxy else ""
        return Fault(UrlRefused(f"{shown(url)}{through} cannot be opened. Nothing was sent.{hint}"))
    timed_out = isinstance(error, requests.exceptions.Timeout)
    what = "no answer in time" if timed_out else "it cannot be reached, or hung up"
    text = (
        f"{shown(url)}{through}: {what} ({type(error).__name__}). Check the network, or try later."
    )
    return Fault(ServerUnavailable(text), STALLED if timed_out else UNAVAILABLE)


def read_some(response: requests.Response, url: str, most: int = 256 << 10) -> bytes:
    """Return what has come of a body, as it was sent; nothing at its end.

    Raises
    ------
    Fault
        If the connection broke or stood still; `Truncated`.
    """
    import urllib3

    raw = response.raw
    # What has come is kept also when the next piece never does; urllib3 1 lacks read1.
    read = getattr(raw, "read1", raw.read)
    try:
        block: bytes = read(most, decode_content=False)
    except (urllib3.exceptions.TimeoutError, TimeoutError) as error:
        text = (
            f"{shown(url)}: the transfer stood still, or was too slow ({error.__cause__ or error})."
        )
        raise Fault(Truncated(text), STALLED) from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        text = f"{shown(url)}: the connection broke ({type(error).__name__})."
        raise Fault(Truncated(text), UNAVAILABLE) from error
    return block


def drain(response: requests.Response) -> bytes:
    """Read a short answer, so that its connection can be used again."""
    import urllib3

    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > _BRIEF:
        return b""
    try:
        return bytes(response.raw.read(_BRIEF, decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return b""
