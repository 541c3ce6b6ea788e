"""The one door to the network: a session with its reach and its pace.

Nothing is kept from here: no cookies, no credentials of ``.netrc``, no redirect that requests
follows by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from verse_data import __version__
from verse_data.config import Config
from verse_data.errors import ServerUnavailable, UrlRefused
from verse_data.releases.answers import STALLED, Fault, drain, judge, login_page, unreachable
from verse_data.releases.pacing import Gate
from verse_data.releases.reach import Reach, shown, split_url

if TYPE_CHECKING:
    import requests

MOST_REDIRECTS: Final = 5
_SIGNED_SECONDS: Final = 30.0
"""Half the life of an address that OSF signs."""
_HEADERS: Final = {"User-Agent": f"verse-data/{__version__}", "Accept-Encoding": "identity"}


class Http:
    """A session: its reach, its pace, and its connections. Safe for threads.

    Parameters
    ----------
    config : Config
        Endpoints, token, and how long a server is waited for. If it says offline, no session is made.
    gate : Gate
        Pace that all requests of this session share.
    named : tuple of str
        Further addresses that the user named.
    connections : int
        How many are kept open to one host.

    Raises
    ------
    Offline
        If the configuration forbids sockets.
    """

    def __init__(
        self,
        config: Config,
        *,
        gate: Gate,
        named: tuple[str, ...] = (),
        connections: int = 16,
    ) -> None:
        config.require_network()
        from verse_data.releases.connections import MinimumRateAdapter

        self.config = config
        self.gate = gate
        self._reach = Reach(config.osf_api, config.osf_site, *named)
        self._routes: dict[str, _Route] = {}
        self._adapter = MinimumRateAdapter(config.limits, connections=connections)

    def close(self) -> None:
        """Close all connections."""
        self._adapter.close()

    @contextmanager
    def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        token: bool = False,
        size: int = 0,
    ) -> Iterator[requests.Response]:
        """Follow `url` to its 200 or 206 and give the response, its body unread.

        Parameters
        ----------
        url : str
            Address.
        headers : mapping, optional
            Sent to every host on the way.
        token : bool, default False
            Whether to send the user's token, which only an address of the API gets.
        size : int, default 0
            Bytes that the body may have, if it is a long one: its deadline is later then.

        Raises
        ------
        Fault
            If there is no such answer.
        """
        sent = dict(headers or {})
        if token and self.config.osf_token and _is_below(url, self.config.osf_api):
            sent["Authorization"] = f"Bearer {self.config.osf_token}"
        here = url
        for hop in range(MOST_REDIRECTS + 1):
            if hop and self.gate.wait() > _SIGNED_SECONDS:
                # While we waited for another thread's Retry-After, the address here has run out.
                here = url
            # A download counts once, however many hosts it leads over.
            with self.gate.request() if hop == 0 else nullcontext():
                response = self._send(here, sent, size)
            try:
                target = response.headers.get("Location") if response.is_redirect else None
                if target is None:
                    judge(response, url, clock=self.gate.clock, redirected=hop > 0)
                    yield response
                    return
                drain(response)
            finally:
                # Puts a connection back if its answer was read to the end, else drops it.
                response.close()
            sent.pop("Authorization", None)
            here = _next(here, target, url)
        text = f"{shown(url)}: more than {MOST_REDIRECTS} redirects. Try again later."
        raise Fault(ServerUnavailable(text))

    def _send(self, url: str, headers: Mapping[str, str], size: int) -> requests.Response:
        import requests
        import urllib3

        route, limits = self._route(url), self.config.limits
        try:
            self._reach.check(url, proxied=route.proxy is not None)
        except UrlRefused as error:
            raise Fault(error) from error
        except ServerUnavailable as error:
            raise Fault(error, STALLED) from error
        try:
            # Straight to the adapter: a session would add cookies and credentials of ~/.netrc, and
            # prepare each redirect a second time.
            request = requests.Request("GET", url, headers={**_HEADERS, **headers}).prepare()
            return self._adapter.ask(
                request,
                seconds=limits.total + size / limits.slowest,
                stream=True,
                timeout=(limits.connect, limits.idle),
                verify=route.verify,
                proxies=route.proxies,
            )
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,
        ) as error:
            raise unreachable(error, url, route.proxy) from error

    def _route(self, url: str) -> _Route:
        """Return the proxies and certificates that the environment names for a host."""
        import requests
        from requests.utils import select_proxy

        try:
            parts = split_url(url)
        except UrlRefused as error:
            raise Fault(error) from error
        host = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        if host not in self._routes:
            with requests.Session() as session:
                told = session.merge_environment_settings(url, {}, None, None, None)
            proxy = select_proxy(url, told["proxies"])
            verify = True if told["verify"] is None else told["verify"]
            self._routes[host] = _Route(dict(told["proxies"]), verify, proxy)
        return self._routes[host]


@dataclass(frozen=True)
class _Route:
    """What the environment says about the way to a host."""

    proxies: dict[str, str]
    verify: bool | str
    proxy: str | None


def _next(here: str, target: str, asked: str) -> str:
    try:
        url = urljoin(here, target)
        parts = split_url(url)
    except (UrlRefused, ValueError) as error:
        raise Fault(UrlRefused(f"{shown(asked)} leads to no address. Nothing was sent.")) from error
    if parts.path.rstrip("/").endswith("/login"):
        raise login_page(asked, parts.hostname)
    if split_url(here).scheme == "https" and parts.scheme == "http":
        text = f"{shown(asked)} leads from https to plain http. Nothing was sent."
        raise Fault(UrlRefused(text))
    return url


def _is_below(url: str, endpoint: str) -> bool:
    ours, theirs = urlsplit(endpoint), urlsplit(url)
    return (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)
