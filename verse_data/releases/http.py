"""HTTP: pace, retries, and answers that must come at a rate and by a deadline.

requests and urllib3 open a socket when they are imported (they look whether there is IPv6), so they
are imported where a session is made: whoever needs no network can import this module.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urljoin

from verse_data.config import Config, Limits, __version__
from verse_data.errors import (
    NetworkError,
    NotTheFile,
    RateLimited,
    ServerUnavailable,
    SourceChanged,
    Truncated,
    UrlRefused,
    VerseDataError,
)
from verse_data.releases.urls import check_url, shown, shown_proxy, split_url

if TYPE_CHECKING:
    import requests

log = logging.getLogger("verse_data.http")

# How often a kind of fault may happen before it is final. Corrupt: what was kept does not go with
# what came, so it is thrown away and asked for anew, once. Wrong: another page in place of the file,
# from a portal or in a passing fault of the site. Stalled: a server that is slow stays slow.
CORRUPT, WRONG, STALLED, UNAVAILABLE = 2, 3, 3, 10
# Seconds. A server that asks for more gets its wish: we stop, and say when to come back.
LONGEST_WAIT: Final = 900.0
HOURLY: Final = (3600, 3600.0)  # requests, seconds: what OSF allows of downloads
_MOST_REDIRECTS, _MOST_CONNECTIONS, _SHORT_BODY, _MOST_JSON = 5, 32, 64 << 10, 32 << 20
_HEADERS: Final = {"User-Agent": f"verse-data/{__version__}", "Accept-Encoding": "identity"}
_random: Final = random.SystemRandom()  # not the shared one, which training may have seeded
_Result = TypeVar("_Result")


class Fault(Exception):
    """A request failed in a way that may pass: the error, the tries it has, the wait asked for."""

    def __init__(self, error: VerseDataError, tries: int, after: float = 0.0) -> None:
        super().__init__(str(error))
        self.error, self.tries, self.after = error, tries, after


class Clock:
    """Where waits take their time from, so that a test of an hour's throttling takes a millisecond."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def monotonic(self) -> float:
        """Return seconds from any fixed point."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return `seconds` later; `NetworkError` if woken, for whoever sleeps waits for a server."""
        if self.stopped.wait(seconds):
            raise NetworkError("Interrupted while waiting for a server. Run the command again.")

    def wake(self) -> None:
        """End all sleeps, now and later: the work is being interrupted."""
        self.stopped.set()


class Gate:
    """When requests may leave: so many in any period, and none while a server asks all to wait.

    `limits` are pairs of a number of requests and the seconds in which no more may leave.
    """

    def __init__(self, clock: Clock, limits: Sequence[tuple[int, float]] = ()) -> None:
        self.clock, self._lock, self._not_before = clock, threading.Lock(), clock.monotonic()
        # When the newest requests left; the oldest of a full window says when the next one may.
        self._windows = [(deque[float](maxlen=count), period) for count, period in limits]

    def request(self) -> None:
        """Wait until a request may leave, and count it."""
        with self._lock:
            leaves = self.clock.monotonic()
            for times, period in self._windows:
                if len(times) == times.maxlen:
                    leaves = max(leaves, times[0] + period)
            for times, _ in self._windows:
                times.append(leaves)
        self.wait(leaves)

    def wait(self, until: float = 0.0) -> None:
        """Wait `until` a moment, and while any thread was told to come back later."""
        while (wait := max(until, self._not_before) - self.clock.monotonic()) > 0:
            self.clock.sleep(wait)

    def close_for(self, seconds: float) -> None:
        """Let no request leave for `seconds`."""
        with self._lock:
            self._not_before = max(self._not_before, self.clock.monotonic() + seconds)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential back-off with full jitter: requests in all, upper ends of the first and any wait."""

    tries: int = 10
    first: float = 0.25
    most: float = 10.0

    def wait(self, tried: int) -> float:
        """Return how many seconds to wait after the `tried`-th failure in a row."""
        # The exponent is bounded because 2.0 ** 1024 overflows.
        return _random.uniform(0.0, min(self.most, self.first * 2.0 ** min(tried - 1, 60)))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a response asks to wait, or None if it does not say."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    then, now = _date(text), _date(headers.get("Date", ""))
    if then is None:
        return None
    # Held against the server's own date, a clock that is wrong here does no harm.
    return max(0.0, then - (time.time() if now is None else now))


def _date(text: str) -> float | None:
    with suppress(ValueError, TypeError, OverflowError, IndexError):
        return parsedate_to_datetime(text).timestamp()
    return None


def _watched(read: Callable[[Any], int | None], limits: Limits, deadline: float) -> Any:
    """Return `read` of a socket's file with a TimeoutError if too few bytes come, or too late.

    A timeout of a socket limits each wait, so a byte every few seconds would hold its client for
    ever: in a body, in headers, in answers that only announce another, in chunk lines and trailers.
    So all that is read of an answer is counted, from its first byte on.
    """
    begun, waited, came = False, 0.0, 0

    def readinto(buffer: Any) -> int | None:
        nonlocal begun, waited, came
        start = time.monotonic()
        size = read(buffer)
        now = time.monotonic()
        waited, came, begun = waited + (now - start if begun else 0.0), came + (size or 0), True
        if now > deadline:
            raise TimeoutError("not whole by its deadline")
        if waited > limits.window_seconds:
            if came < limits.window_bytes:
                raise TimeoutError(f"{came:,} bytes came in {waited:.0f} s")
            waited, came = 0.0, 0
        return size

    return readinto


def _watching_adapter(limits: Limits, call: threading.local) -> Any:
    """Return an adapter of requests whose answers are watched; `call.deadline` is its thread's."""
    from requests.adapters import HTTPAdapter

    def response_class(*arguments: Any, **options: Any) -> Any:
        response: Any = HTTPResponse(*arguments, **options)
        stream = response.fp.raw
        stream.readinto = _watched(stream.readinto, limits, call.deadline)
        return response

    class Adapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
            # The one place that pools come from, direct ones and those of proxies.
            pool: Any = super().get_connection_with_tls_context(*arguments, **options)
            if "ConnectionCls" not in vars(pool):
                own = {"response_class": staticmethod(response_class)}
                pool.ConnectionCls = type("Connection", (pool.ConnectionCls,), own)
            return pool

    # Retries are ours: urllib3's end with the headers, sleep where nothing wakes them, each thread
    # for itself, and know nothing of what was kept.
    return Adapter(pool_maxsize=_MOST_CONNECTIONS, max_retries=0)


class Http:
    """A session for all threads: which addresses it opens (`named` too), how fast, and how often.

    With `token`, addresses of the API are sent the user's.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        limits: Sequence[tuple[int, float]] = (),
        backoff: Backoff | None = None,
        named: tuple[str, ...] = (),
        token: bool = False,
    ) -> None:
        config.require_network()
        import requests

        self.gate, self._backoff = Gate(clock or Clock(), limits), backoff or Backoff()
        self._limits, self._api = config.limits, f"{config.osf_api}/"
        self._token = config.osf_token if token else None
        self._named = (config.osf_api, config.osf_site, *named)
        self._call, self._environment = threading.local(), requests.Session()
        self._adapter = _watching_adapter(config.limits, self._call)

    def close(self) -> None:
        """Close all connections."""
        self._adapter.close()

    @contextmanager
    def open(
        self, url: str, *, span: str = "", accept: str = "*/*", size: int = 0
    ) -> Iterator[requests.Response]:
        """Follow `url` to its 200 or 206 and give it, its body unread.

        `span` are the bytes that are asked for, such as "5-"; with `size` of them, the deadline is later.
        """
        headers = {**_HEADERS, "Accept": accept}
        if span:
            headers["Range"] = f"bytes={span}"
        # Only an address of the API gets the token, and none that a redirect leads to.
        if self._token and url.startswith(self._api):
            headers["Authorization"] = f"Bearer {self._token}"
        here = url
        for hop in range(_MOST_REDIRECTS + 1):
            # A download counts once, however many hosts it leads over.
            self.gate.wait() if hop else self.gate.request()
            response = self._send(here, headers, size)
            try:
                if not response.is_redirect:
                    _check_status(response, url, redirected=hop > 0)
                    yield response
                    return
                drain(response)
            finally:
                # Puts a connection back if its answer was read to the end, else drops it.
                response.close()
            headers.pop("Authorization", None)
            here = _redirected(here, response.headers["Location"], url)
        raise ServerUnavailable(
            f"{shown(url)}: more than {_MOST_REDIRECTS} redirects. Try again later."
        )

    def _send(self, url: str, headers: Mapping[str, str], size: int) -> requests.Response:
        import requests
        import urllib3

        # Proxies and certificates as the environment names them.
        ways = self._environment.merge_environment_settings(
            url, proxies={}, stream=True, verify=None, cert=None
        )
        proxy = requests.utils.select_proxy(url, ways["proxies"])
        try:
            check_url(url, named=self._named, proxied=proxy is not None)
        except ServerUnavailable as error:
            raise Fault(error, STALLED) from error
        limits = self._limits
        self._call.deadline = time.monotonic() + limits.total + size / limits.slowest
        try:
            # Straight to the adapter: a session would add cookies and credentials of ~/.netrc, and
            # read the bodies of redirects without an end.
            request = requests.Request("GET", url, headers=headers).prepare()
            response: requests.Response = self._adapter.send(
                request, timeout=(limits.connect, limits.idle), **ways
            )
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            # Those of requests are OSErrors.
            raise _unreachable(error, url, proxy) from error
        return response

    def retry(self, once: Callable[[], _Result], *, kept: Callable[[], int] = int) -> _Result:
        """Call `once` until it succeeds or must be given up; counts anew where more bytes are `kept`."""
        alike: Counter[int] = Counter()
        tried = 0
        while True:
            tried, before = tried + 1, kept()
            try:
                return once()
            except Fault as caught:
                fault = caught
            if kept() > before and fault.tries != STALLED:
                alike.clear()
            alike[fault.tries] += 1
            same, after = alike[fault.tries], fault.after
            if tried >= self._backoff.tries or same >= fault.tries or after > LONGEST_WAIT:
                tries = f" Tried {tried} times." if tried > 1 else ""
                raise type(fault.error)(f"{fault.error}{tries}") from fault
            wait = self._backoff.wait(same)
            if after:
                # Every thread of this session waits; the jitter comes on top, never earlier.
                self.gate.close_for(after)
                wait = after + min(wait, 1.0)
            log.info("%s Try %d in %.1f s.", fault.error, tried + 1, wait)
            self.gate.clock.sleep(wait)

    def read_json(self, url: str) -> Any:
        """Return the JSON that `url` gives, with retries."""

        def once() -> Any:
            answer = self.read(url, _MOST_JSON, accept="application/json")
            try:
                return json.loads(answer)
            except (ValueError, RecursionError) as error:
                # A page of the web site, or half an answer under status 200: both were seen to pass.
                text = f"{shown(url)}: not JSON, begins with {answer[:16]!r}. Check the endpoint."
                raise Fault(NotTheFile(text), WRONG) from error

        return self.retry(once)

    def read(self, url: str, most: int, *, accept: str = "*/*") -> bytes:
        """Return the bytes of an address, at most `most`, in one try."""
        answer = bytearray()
        with self.open(url, accept=accept) as response:
            while block := read_some(response, url):
                answer += block
                if len(answer) > most:
                    raise NotTheFile(f"{shown(url)}: more than {most:,} bytes. Nothing was kept.")
        check_length(response, url, len(answer))
        return bytes(answer)


def read_url(url: str, *, config: Config, most: int) -> bytes:
    """Return the bytes of an address that the user typed, at most `most`, with retries."""
    with closing(Http(config, named=(url,))) as http:
        return http.retry(lambda: http.read(url, most))


def _redirected(here: str, target: str, asked: str) -> str:
    """Return where a redirect leads; an error if it is not followed."""
    try:
        url = urljoin(here, target)
        parts = split_url(url)
    except ValueError as error:
        raise UrlRefused(f"{shown(asked)} leads to no address. Nothing was sent.") from error
    if parts.path.rstrip("/").endswith("/login"):
        why = f"leads to a log-in page at {parts.hostname}: it is not public, or not any more"
        raise NotTheFile(f"{shown(asked)} {why}.")
    if parts.scheme == "http" and split_url(here).scheme == "https":
        raise UrlRefused(f"{shown(asked)} leads from https to plain http. Nothing was sent.")
    return url


_GONE: Final = "the server no longer has it. On OSF a deleted file is gone in all its versions"
_HIDDEN: Final = "it is not public, or not any more"
# Error, tries and reason of each status; a fault that has one try is final.
_FAULTS: Final[dict[int, tuple[type[VerseDataError], int, str]]] = {
    401: (SourceChanged, 1, _HIDDEN),
    403: (SourceChanged, 1, _HIDDEN),
    404: (SourceChanged, 1, _GONE),
    410: (SourceChanged, 1, _GONE),
    416: (Truncated, CORRUPT, "no bytes beyond those that are here"),
    429: (RateLimited, UNAVAILABLE, "too many requests"),
    500: (ServerUnavailable, UNAVAILABLE, "a fault of the server, or maintenance"),
}


def _check_status(response: requests.Response, url: str, *, redirected: bool) -> None:
    """Raise the `Fault` of an answer to `url` that does not bring the file."""
    status, after = response.status_code, retry_after(response.headers)
    if status in {200, 206}:
        return
    kind = 500 if status > 500 or status in {408, 425} else status
    other = (NotTheFile, 1, "no answer to a download; check the address")
    error, tries, why = _FAULTS.get(kind, other)
    if redirected and status in {400, 401, 403}:
        # A signed address lives for a minute; the next try is given a new one.
        why = f"from {shown(response.url)}, a signed address ran out"
        error, tries = ServerUnavailable, WRONG
    text = f"{shown(url)}: status {status}: {why}."
    if after is not None:
        text += f" The server asks to come back in {after:,.0f} s. Run the same command again then."
    raise Fault(error(text), tries, after or 0.0)


def _unreachable(error: Exception, url: str, proxy: str | None) -> Fault:
    """Return the fault of a request that got no answer."""
    from requests import exceptions

    where = shown(url) + (f" through the proxy {shown_proxy(proxy)}" if proxy else "")
    if isinstance(error, (exceptions.InvalidURL, exceptions.InvalidSchema)):
        hint = " Check how the proxy is written, such as http://host:3128." if proxy else ""
        return Fault(UrlRefused(f"{where} cannot be opened. Nothing was sent.{hint}"), 1)
    tries, what = UNAVAILABLE, "it cannot be reached, or hung up"
    if isinstance(error, exceptions.SSLError):
        tries, what = 1, "its certificate was not accepted"
    elif isinstance(error, exceptions.Timeout):
        tries, what = STALLED, "no answer in time"
    hint = "Check the network, clock and proxy of this machine"
    return Fault(ServerUnavailable(f"{where}: {what} ({type(error).__name__}). {hint}."), tries)


def read_some(response: requests.Response, url: str, most: int = 256 << 10) -> bytes:
    """Return what has come of a body, as it was sent, and nothing at its end; `Fault` if it broke."""
    import urllib3

    # What has come is kept also when the next piece never does; urllib3 1 lacks read1.
    read = getattr(response.raw, "read1", response.raw.read)
    try:
        return bytes(read(most, decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        late = isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError))
        slow = f"the transfer stood still, or was too slow ({error.__cause__ or error})"
        why = slow if late else f"the connection broke ({type(error).__name__})"
        kind = STALLED if late else UNAVAILABLE
        raise Fault(Truncated(f"{shown(url)}: {why}."), kind) from error


def check_length(response: requests.Response, url: str, size: int) -> None:
    """Raise the `Fault` of an answer that ended before the length that it told."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != size:
        text = f"{shown(url)}: {size:,} of {length} bytes came."
        raise Fault(Truncated(text), UNAVAILABLE)


def drain(response: requests.Response) -> None:
    """Read a short answer, so that its connection can be used again."""
    import urllib3

    with suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
        response.raw.read(_SHORT_BODY, decode_content=False)
