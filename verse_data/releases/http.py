"""HTTP with paced requests, retries, and responses that must arrive at a rate and by a deadline.

requests and urllib3 open a socket when they are imported (to test for IPv6), so they are imported
only where a session is made: this module can be imported without touching the network.
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
from verse_data.releases.urls import check_url, redacted, redacted_proxy, split_url, wrong_setting

if TYPE_CHECKING:
    import requests

_log = logging.getLogger(__name__)

# How often a kind of fault may happen before it is final. Corrupt: new bytes do not fit the kept
# ones, so all are discarded and requested again, once. Wrong: another page in place of the file, from
# a captive portal or a temporary fault of the site. Stalled: a slow server tends to stay slow.
CORRUPT, WRONG, STALLED, UNAVAILABLE = 2, 3, 3, 10
# Seconds. If a server asks for a longer wait, we stop, and the error says when to come back.
LONGEST_WAIT: Final = 900.0
HOURLY: Final = (3600, 3600.0)  # requests, seconds: OSF's limit for downloads
_MOST_REDIRECTS, _MOST_CONNECTIONS, _SHORT_BODY, _MOST_JSON = 5, 32, 64 << 10, 32 << 20
_HEADERS: Final = {"User-Agent": f"verse-data/{__version__}", "Accept-Encoding": "identity"}
_random: Final = random.SystemRandom()  # not the shared one, which training may have seeded
_Result = TypeVar("_Result")


class Fault(Exception):
    """A failed request that may be retried: its error, tries allowed, and seconds to wait first."""

    def __init__(self, error: VerseDataError, tries: int, after: float = 0.0) -> None:
        super().__init__(str(error))
        self.error, self.tries, self.after = error, tries, after


class Clock:
    """The time and the sleeps of all waits, replaceable so that tests of throttling run at once."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep; `NetworkError` if woken, since every sleep waits for a server."""
        if self.stopped.wait(seconds):
            raise NetworkError("Interrupted while waiting for a server. Run the command again.")

    def wake(self) -> None:
        """End all current and later sleeps, because the work is interrupted."""
        self.stopped.set()


class Gate:
    """Rate limiter: so many requests in any period, and none while a server asks clients to wait.

    `limits` are pairs of a number of requests and the seconds in which no more may be sent.
    """

    def __init__(self, clock: Clock, limits: Sequence[tuple[int, float]] = ()) -> None:
        self.clock, self._lock, self._not_before = clock, threading.Lock(), clock.monotonic()
        # Times of the newest requests; the oldest of a full window decides when the next may be sent.
        self._windows = [(deque[float](maxlen=count), period) for count, period in limits]

    def request(self) -> None:
        """Wait until a request may be sent, and count it."""
        with self._lock:
            start = self.clock.monotonic()
            for times, period in self._windows:
                if len(times) == times.maxlen:
                    start = max(start, times[0] + period)
            for times, _ in self._windows:
                times.append(start)
        self.wait(start)

    def wait(self, until: float = 0.0) -> None:
        """Wait for the time `until`, and for the end of any wait that a server asked for."""
        while (wait := max(until, self._not_before) - self.clock.monotonic()) > 0:
            self.clock.sleep(wait)

    def close_for(self, seconds: float) -> None:
        """Send no request for `seconds`."""
        with self._lock:
            self._not_before = max(self._not_before, self.clock.monotonic() + seconds)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential back-off with full jitter: number of tries, and limits of the first and any wait."""

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
    # Relative to the server's own date, so that a wrong local clock does no harm.
    return max(0.0, then - (time.time() if now is None else now))


def _date(text: str) -> float | None:
    with suppress(ValueError, TypeError, OverflowError, IndexError):
        return parsedate_to_datetime(text).timestamp()
    return None


def _watched(read: Callable[[Any], int | None], limits: Limits, deadline: float) -> Any:
    """Return `read` of a socket's file, with a TimeoutError if bytes arrive too slowly or too late."""
    # A socket's timeout limits single waits, so a server that sends a byte every few seconds could
    # hold its client for ever: in a body, headers, interim responses, chunk lines or trailers. So
    # everything that is read of a response is counted, from its first byte on.
    begun, waited, received = False, 0.0, 0

    def readinto(buffer: Any) -> int | None:
        nonlocal begun, waited, received
        start = time.monotonic()
        size = read(buffer)
        now = time.monotonic()
        waited, received = waited + (now - start if begun else 0.0), received + (size or 0)
        begun = True
        if now > deadline:
            raise TimeoutError("not complete by its deadline")
        if waited > limits.window_seconds:
            if received < limits.window_bytes:
                raise TimeoutError(f"{received:,} bytes came in {waited:.0f} s")
            waited, received = 0.0, 0
        return size

    return readinto


def _watching_adapter(limits: Limits, call: threading.local) -> Any:
    """Return a requests adapter with watched responses; `call.deadline` is that of the thread."""
    from requests.adapters import HTTPAdapter

    def response_class(*arguments: Any, **options: Any) -> Any:
        response: Any = HTTPResponse(*arguments, **options)
        stream = response.fp.raw
        stream.readinto = _watched(stream.readinto, limits, call.deadline)
        return response

    class Adapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
            # All connection pools are made here, direct ones and those of proxies.
            pool: Any = super().get_connection_with_tls_context(*arguments, **options)
            if "ConnectionCls" not in vars(pool):
                own = {"response_class": staticmethod(response_class)}
                pool.ConnectionCls = type("Connection", (pool.ConnectionCls,), own)
            return pool

    # Retries are ours: those of urllib3 cover only the headers, sleep without a way to wake them, are
    # not shared by threads, and do not know which bytes were kept.
    return Adapter(pool_maxsize=_MOST_CONNECTIONS, max_retries=0)


class Http:
    """A session for all threads that paces, checks and retries requests.

    `named` are addresses that the user typed, besides those of OSF. With `token`, requests to the API
    carry the user's.
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
        """Follow `url` and its redirects; yield the response with status 200 or 206, body unread.

        `span` is the range of bytes to request, such as "5-"; their number `size` extends the deadline.
        """
        headers = {**_HEADERS, "Accept": accept}
        if span:
            headers["Range"] = f"bytes={span}"
        # The token is sent only to the API, and never after a redirect.
        if self._token and url.startswith(self._api):
            headers["Authorization"] = f"Bearer {self._token}"
        here = url
        for hop in range(_MOST_REDIRECTS + 1):
            # A download counts once, however many redirects it has.
            self.gate.wait() if hop else self.gate.request()
            response = self._send(here, headers, size)
            try:
                if not response.is_redirect:
                    _check_status(response, url, redirected=hop > 0)
                    yield response
                    return
                drain(response)
            finally:
                # Keeps the connection if its response was read to the end, else closes it.
                response.close()
            headers.pop("Authorization", None)
            here = _redirected(here, response.headers["Location"], url)
        raise ServerUnavailable(
            f"{redacted(url)}: more than {_MOST_REDIRECTS} redirects. Try again later."
        )

    def _send(self, url: str, headers: Mapping[str, str], size: int) -> requests.Response:
        import requests
        import urllib3

        # Proxies and certificates from the environment.
        settings = self._environment.merge_environment_settings(
            url, proxies={}, stream=True, verify=None, cert=None
        )
        proxy = requests.utils.select_proxy(url, settings["proxies"])
        try:
            check_url(url, named=self._named, proxied=proxy is not None)
        except ServerUnavailable as error:
            raise Fault(error, STALLED) from error
        limits = self._limits
        self._call.deadline = time.monotonic() + limits.total + size / limits.slowest
        try:
            # Directly to the adapter: a session would add cookies and credentials of ~/.netrc, and
            # read the bodies of redirects without a limit.
            request = requests.Request("GET", url, headers=headers).prepare()
            response: requests.Response = self._adapter.send(
                request, timeout=(limits.connect, limits.idle), **settings
            )
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            # Errors of requests are OSErrors.
            raise _unreachable(error, url, proxy, settings["verify"]) from error
        return response

    def retry(self, once: Callable[[], _Result], *, kept: Callable[[], int] = int) -> _Result:
        """Call `once` until it succeeds or the tries are used up; progress in `kept` resets the count."""
        faults: Counter[int] = Counter()
        tried = 0
        while True:
            tried, before = tried + 1, kept()
            try:
                return once()
            except Fault as caught:
                fault = caught
            if kept() > before and fault.tries != STALLED:
                faults.clear()
            faults[fault.tries] += 1
            same, after = faults[fault.tries], fault.after
            if tried >= self._backoff.tries or same >= fault.tries or after > LONGEST_WAIT:
                tries = f" Tried {tried} times." if tried > 1 else ""
                raise type(fault.error)(f"{fault.error}{tries}") from fault
            wait = self._backoff.wait(same)
            if after:
                # All threads of this session wait; the jitter is added, so that none is early.
                self.gate.close_for(after)
                wait = after + min(wait, 1.0)
            _log.info("%s Try %d in %.1f s.", fault.error, tried + 1, wait)
            self.gate.clock.sleep(wait)

    def read_json(self, url: str) -> Any:
        """Return the JSON at `url`, with retries."""

        def once() -> Any:
            answer = self.read(url, _MOST_JSON, accept="application/json")
            try:
                return json.loads(answer)
            except (ValueError, RecursionError) as error:
                # A web page, or half a response with status 200: temporary faults that do occur.
                text = (
                    f"{redacted(url)}: not JSON, begins with {answer[:16]!r}. Check the endpoint."
                )
                raise Fault(NotTheFile(text), WRONG) from error

        return self.retry(once)

    def read(self, url: str, most: int, *, accept: str = "*/*") -> bytes:
        """Return the bytes at an address, at most `most`, in one try."""
        answer = bytearray()
        with self.open(url, accept=accept) as response:
            while block := read_some(response, url):
                answer += block
                if len(answer) > most:
                    raise NotTheFile(
                        f"{redacted(url)}: more than {most:,} bytes. Nothing was kept."
                    )
        check_length(response, url, len(answer))
        return bytes(answer)


def read_url(url: str, *, config: Config, most: int) -> bytes:
    """Return the bytes at an address that the user typed, at most `most`, with retries."""
    with closing(Http(config, named=(url,))) as http:
        return http.retry(lambda: http.read(url, most))


def _redirected(here: str, target: str, asked: str) -> str:
    """Return the target of a redirect; an error if it must not be followed."""
    try:
        url = urljoin(here, target)
        parts = split_url(url)
    except ValueError as error:
        raise UrlRefused(
            f"{redacted(asked)} redirects to no valid address. Nothing was sent."
        ) from error
    if parts.path.rstrip("/").endswith("/login"):
        why = f"redirects to a log-in page at {parts.hostname}: it is not public, or not any more"
        raise NotTheFile(f"{redacted(asked)} {why}.")
    if parts.scheme == "http" and split_url(here).scheme == "https":
        raise UrlRefused(f"{redacted(asked)} redirects from https to plain http. Nothing was sent.")
    return url


_GONE: Final = "the server no longer has it. On OSF a deleted file is gone in all its versions"
_HIDDEN: Final = "it is not public, or not any more"
# Error, tries and reason of each status; with one try a fault is final.
_FAULTS: Final[dict[int, tuple[type[VerseDataError], int, str]]] = {
    401: (SourceChanged, 1, _HIDDEN),
    403: (SourceChanged, 1, _HIDDEN),
    404: (SourceChanged, 1, _GONE),
    410: (SourceChanged, 1, _GONE),
    407: (ServerUnavailable, 1, "the proxy wants a user and a password in HTTP_PROXY"),
    416: (Truncated, CORRUPT, "no bytes beyond those that are here"),
    429: (RateLimited, UNAVAILABLE, "too many requests"),
    500: (ServerUnavailable, UNAVAILABLE, "a fault of the server, or maintenance"),
}


def _check_status(response: requests.Response, url: str, *, redirected: bool) -> None:
    """Raise the `Fault` of a response to `url` with another status than 200 or 206."""
    status, after = response.status_code, retry_after(response.headers)
    if status in {200, 206}:
        return
    kind = 500 if status > 500 or status in {408, 425} else status
    other = (NotTheFile, 1, "not a response to a download; check the address")
    error, tries, why = _FAULTS.get(kind, other)
    if redirected and status in {400, 401, 403}:
        # A signed address is valid for a minute; the next try gets a new one.
        why = f"from {redacted(response.url)}, a signed address expired"
        error, tries = ServerUnavailable, WRONG
    text = f"{redacted(url)}: status {status}: {why}."
    if after is not None:
        text += f" The server asks to come back in {after:,.0f} s. Run the same command again then."
    raise Fault(error(text), tries, after or 0.0)


def _unreachable(error: Exception, url: str, proxy: str | None, bundle: object) -> Fault:
    """Return the fault of a request without a response."""
    from requests import exceptions

    where = redacted(url) + (f" through the proxy {redacted_proxy(proxy)}" if proxy else "")
    if why := wrong_setting(error, url, proxy, bundle):
        if isinstance(error, ValueError):
            return Fault(UrlRefused(f"{where} cannot be opened. Nothing was sent. {why}"), 1)
        return Fault(ServerUnavailable(f"{where}: it cannot be reached. {why}"), 1)
    tries, what = UNAVAILABLE, "it cannot be reached, or closed the connection"
    if isinstance(error, exceptions.SSLError):
        tries, what = 1, "no secure connection"
    elif isinstance(error, exceptions.Timeout):
        tries, what = STALLED, "no answer in time"
    hint = "Check the network, clock and proxy of this machine"
    return Fault(ServerUnavailable(f"{where}: {what} ({type(error).__name__}). {hint}."), tries)


def read_some(response: requests.Response, url: str, most: int = 256 << 10) -> bytes:
    """Return the next bytes of a body, as sent, and none at its end; `Fault` if it breaks off."""
    import urllib3

    # read1 returns what has arrived, without waiting for more; urllib3 1 lacks it.
    read = getattr(response.raw, "read1", response.raw.read)
    try:
        return bytes(read(most, decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        late = isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError))
        slow = f"the transfer stalled, or was too slow ({error.__cause__ or error})"
        why = slow if late else f"the connection broke ({type(error).__name__})"
        kind = STALLED if late else UNAVAILABLE
        raise Fault(Truncated(f"{redacted(url)}: {why}."), kind) from error


def check_length(response: requests.Response, url: str, size: int) -> None:
    """Raise the `Fault` of a response that is not as long as it declared."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != size:
        text = f"{redacted(url)}: {size:,} of {length} bytes came."
        raise Fault(Truncated(text), UNAVAILABLE)


def drain(response: requests.Response) -> None:
    """Read a short response to its end, so that its connection can be used again."""
    import urllib3

    with suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
        response.raw.read(_SHORT_BODY, decode_content=False)
