"""HTTP: pace, retries, and answers that must come at a rate and end by a deadline.

requests and urllib3 open a socket when they are imported (they look whether there is IPv6), so they
are imported where a session is made: whoever needs no network can import this module.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from queue import SimpleQueue
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
FINAL, CORRUPT, WRONG, STALLED, UNAVAILABLE = 1, 2, 3, 3, 10
# Seconds. A server that asks for more gets its wish: we stop, and say when to come back.
LONGEST_WAIT: Final = 900.0
_MOST_REDIRECTS, _SHORT_BODY, _MOST_JSON = 5, 64 << 10, 32 << 20
_WANTS_JSON: Final = {"Accept": "application/json"}
_HEADERS: Final = {"User-Agent": f"verse-data/{__version__}", "Accept-Encoding": "identity"}
_random: Final = random.SystemRandom()  # not the shared one, which training may have seeded
_Result = TypeVar("_Result")


class Fault(Exception):
    """One request failed: the error if no further try helps, the tries it has, the wait asked for."""

    def __init__(self, error: VerseDataError, tries: int = FINAL, after: float = 0.0) -> None:
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


SystemClock = Clock


class Window:
    """At most `limit` requests in any `period`, counted as the server counts them."""

    def __init__(self, limit: int, period: float, clock: Clock) -> None:
        self._clock, self._period = clock, period
        self._free_at: SimpleQueue[float] = SimpleQueue()
        for _ in range(limit):
            self._free_at.put(clock.monotonic())

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for a free place, and hold it for the time of the request."""
        free_at = self._free_at.get()
        try:
            if (wait := free_at - self._clock.monotonic()) > 0:
                self._clock.sleep(wait)
            yield
        finally:
            # From the end on: the server saw this request earlier, and sees the next one later.
            self._free_at.put(self._clock.monotonic() + self._period)


class Gate:
    """The shared brake: when one thread is told to come back later, all threads wait."""

    def __init__(self, clock: Clock, windows: Sequence[Window] = ()) -> None:
        self.clock, self._windows = clock, windows
        self._not_before, self._lock = clock.monotonic(), threading.Lock()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Wait until a request may leave, and count it."""
        with ExitStack() as places:
            for window in self._windows:
                places.enter_context(window.place())
            self.wait()
            yield

    def wait(self) -> None:
        """Wait while the brake is on."""
        while (wait := self._not_before - self.clock.monotonic()) > 0:
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


def _watching_adapter(limits: Limits, call: threading.local, connections: int) -> Any:
    """Return an adapter of requests whose answers are watched; `call.deadline` is its thread's."""
    from requests.adapters import HTTPAdapter

    def response_class(*arguments: Any, **options: Any) -> Any:
        response: Any = HTTPResponse(*arguments, **options)
        socket = response.fp.raw
        socket.readinto = _watched(socket.readinto, limits, call.deadline)
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
    return Adapter(pool_connections=8, pool_maxsize=connections, max_retries=0)


class Http:
    """A session for all threads: addresses that may be opened, those `named` too, and the pace."""

    def __init__(
        self, config: Config, *, gate: Gate, named: tuple[str, ...] = (), connections: int = 16
    ) -> None:
        config.require_network()
        import requests

        self.config, self.gate = config, gate
        self._named = (config.osf_api, config.osf_site, *named)
        self._call, self._environment = threading.local(), requests.Session()
        self._ways: dict[str, dict[str, Any]] = {}
        self._adapter = _watching_adapter(config.limits, self._call, connections)

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
        """Follow `url` to its 200 or 206 and give it, its body of `size` unread; `Fault` if none."""
        sent = {**_HEADERS, **(headers or {})}
        # Only an address of the API gets the token, and none that a redirect leads to.
        if token and self.config.osf_token and url.startswith(f"{self.config.osf_api}/"):
            sent["Authorization"] = f"Bearer {self.config.osf_token}"
        here = url
        for hop in range(_MOST_REDIRECTS + 1):
            self.gate.wait()
            # A download counts once, however many hosts it leads over.
            with ExitStack() if hop else self.gate.request():
                response = self._send(here, sent, size)
            try:
                target = response.headers.get("Location") if response.is_redirect else None
                if target is None:
                    _check_status(response, url, redirected=hop > 0)
                    yield response
                    return
                drain(response)
            finally:
                # Puts a connection back if its answer was read to the end, else drops it.
                response.close()
            sent.pop("Authorization", None)
            here = _redirected(here, target, url)
        text = f"{shown(url)}: more than {_MOST_REDIRECTS} redirects. Try again later."
        raise Fault(ServerUnavailable(text))

    def _send(self, url: str, headers: Mapping[str, str], size: int) -> requests.Response:
        import requests
        import urllib3

        limits, proxy = self.config.limits, None
        try:
            host = split_url(url).netloc
            if host not in self._ways:
                # Proxies and certificates as the environment names them.
                named = self._environment.merge_environment_settings(url, {}, None, None, None)
                self._ways[host] = {**named, "stream": True}
            ways = self._ways[host]
            proxy = requests.utils.select_proxy(url, ways["proxies"])
            check_url(url, named=self._named, proxied=proxy is not None)
            self._call.deadline = time.monotonic() + limits.total + size / limits.slowest
            # Straight to the adapter: a session would add cookies and credentials of ~/.netrc, and
            # read the bodies of redirects without an end.
            request = requests.Request("GET", url, headers=headers).prepare()
            response: requests.Response = self._adapter.send(
                request, timeout=(limits.connect, limits.idle), **ways
            )
        except (UrlRefused, ServerUnavailable) as error:
            raise Fault(error, FINAL if isinstance(error, UrlRefused) else STALLED) from error
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            # Those of requests are OSErrors.
            raise _unreachable(error, url, proxy) from error
        return response


def _redirected(here: str, target: str, asked: str) -> str:
    """Return where a redirect leads, or raise the `Fault` of one that is not followed."""
    where = shown(asked)
    try:
        url = urljoin(here, target)
        parts = split_url(url)
    except ValueError as error:
        raise Fault(UrlRefused(f"{where} leads to no address. Nothing was sent.")) from error
    if parts.path.rstrip("/").endswith("/login"):
        why = f"leads to a log-in page at {parts.hostname}: it is not public, or not any more"
        raise Fault(NotTheFile(f"{where} {why}."))
    if parts.scheme == "http" and split_url(here).scheme == "https":
        raise Fault(UrlRefused(f"{where} leads from https to plain http. Nothing was sent."))
    return url


def _check_status(response: requests.Response, url: str, *, redirected: bool) -> None:
    """Raise the `Fault` of an answer to `url` that does not bring the file."""
    status, after = response.status_code, retry_after(response.headers)
    where = f"{shown(url)}: status {status}"
    when = "" if after is None else f" The server asks to come back in {after:,.0f} s."
    if status == 429:
        text = f"{where}, too many requests.{when} Run the same command again then."
        raise Fault(RateLimited(text), UNAVAILABLE, after or 0.0)
    if status >= 500 or status in {408, 425}:
        calm = b"maintenance_mode" in drain(response)
        why = "OSF is under maintenance" if calm else "a fault of the server"
        text = f"{where}, {why}.{when} Run the same command again later."
        raise Fault(ServerUnavailable(text), UNAVAILABLE, after or 0.0)
    if redirected and status in {400, 401, 403}:
        # A signed address lives for a minute; the next try is given a new one.
        why = f"from {shown(response.url)}; a signed address ran out"
        raise Fault(ServerUnavailable(f"{where} {why}."), WRONG)
    if status == 416:
        raise Fault(Truncated(f"{where}: no bytes beyond those that are here."), CORRUPT)
    if status in {401, 403, 404, 410}:
        gone = "the server no longer has it. On OSF a deleted file is gone in all its versions"
        why = gone if status >= 404 else "it is not public, or not any more"
        raise Fault(SourceChanged(f"{where}: {why}."))
    if status not in {200, 206}:
        raise Fault(NotTheFile(f"{where}, which is no answer to a download. Check the address."))


def _unreachable(error: Exception, url: str, proxy: str | None) -> Fault:
    """Return the fault of a request that got no answer."""
    from requests import exceptions

    where = shown(url) + (f" through the proxy {shown_proxy(proxy)}" if proxy else "")
    if isinstance(error, exceptions.SSLError):
        hint = "Check this machine's clock and proxy"
        return Fault(ServerUnavailable(f"{where}: the certificate was not accepted. {hint}."))
    if isinstance(error, (exceptions.InvalidURL, exceptions.InvalidSchema)):
        hint = " Check how the proxy is written, such as http://host:3128." if proxy else ""
        return Fault(UrlRefused(f"{where} cannot be opened. Nothing was sent.{hint}"))
    late, name = isinstance(error, exceptions.Timeout), type(error).__name__
    what = "no answer in time" if late else "it cannot be reached, or hung up"
    text = f"{where}: {what} ({name}). Check the network, or try later."
    return Fault(ServerUnavailable(text), STALLED if late else UNAVAILABLE)


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


def drain(response: requests.Response) -> bytes:
    """Read a short answer, so that its connection can be used again."""
    import urllib3

    with suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
        return bytes(response.raw.read(_SHORT_BODY, decode_content=False))
    return b""


def retried(
    http: Http, once: Callable[[], _Result], *, backoff: Backoff, kept: Callable[[], int] = int
) -> _Result:
    """Call `once` until it succeeds or must be given up; counts anew where more bytes are `kept`."""
    alike: Counter[int] = Counter()
    tried = 0
    while True:
        tried, before = tried + 1, kept()
        try:
            return once()
        except Fault as fault:
            if kept() > before and fault.tries != STALLED:
                alike.clear()
            alike[fault.tries] += 1
            pause(http, fault, tried, backoff, alike=alike[fault.tries])


def pause(http: Http, fault: Fault, tried: int, backoff: Backoff, *, alike: int = 0) -> None:
    """Wait before the next try, or raise the error if there is none after `tried` and `alike` ones."""
    alike, after = alike or tried, fault.after
    if tried >= backoff.tries or alike >= fault.tries or after > LONGEST_WAIT:
        raise type(fault.error)(
            f"{fault.error} Tried {tried} times." if tried > 1 else str(fault.error)
        ) from fault
    wait = backoff.wait(alike)
    if after:
        # Every thread of this session waits; the jitter comes on top, never earlier.
        http.gate.close_for(after)
        wait = after + min(wait, 1.0)
    log.info("%s Try %d in %.1f s.", fault.error, tried + 1, wait)
    http.gate.clock.sleep(wait)


def read_json(http: Http, url: str, *, backoff: Backoff, token: bool = False) -> Any:
    """Return the JSON that `url` gives, with retries."""

    def once() -> Any:
        answer = _read_once(http, url, _MOST_JSON, token=token, headers=_WANTS_JSON)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            # A page of the web site, or half an answer under status 200: both were seen to pass.
            text = f"{shown(url)}: not JSON, begins with {answer[:16]!r}. Check the endpoint."
            raise Fault(NotTheFile(text), WRONG) from error

    return retried(http, once, backoff=backoff)


def read_url(url: str, *, config: Config, most: int) -> bytes:
    """Return the bytes of an address that the user typed, at most `most`, with retries."""
    with closing(Http(config, gate=Gate(Clock()), named=(url,))) as http:
        return retried(http, lambda: _read_once(http, url, most), backoff=Backoff())


def _read_once(http: Http, url: str, most: int, **options: Any) -> bytes:
    answer = bytearray()
    with http.open(url, **options) as response:
        while block := read_some(response, url):
            answer += block
            if len(answer) > most:
                why = f"more than {most:,} bytes. Nothing was kept"
                raise Fault(NotTheFile(f"{shown(url)}: {why}."))
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != len(answer):
        raise Fault(Truncated(f"{shown(url)}: {len(answer)} of {length} bytes came."), UNAVAILABLE)
    return bytes(answer)
