"""Whole answers: small ones, read at once, with retries."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, TypeVar

from verse_data.config import Config
from verse_data.errors import NotTheFile, Truncated, VerseDataError
from verse_data.releases.answers import UNAVAILABLE, WRONG, Fault, read_some
from verse_data.releases.http import Http
from verse_data.releases.pacing import LONGEST_WAIT, Backoff, Gate, SystemClock
from verse_data.releases.reach import shown

_JSON: Final = "application/json"
_Result = TypeVar("_Result")


def read_json(
    http: Http, url: str, *, backoff: Backoff, token: bool = False, most: int = 32 << 20
) -> Any:
    """Return the JSON that `url` gives, with retries.

    Raises
    ------
    VerseDataError
        The error that was left when no further try was allowed.
    """

    def once() -> Any:
        return _json(_read_once(http, url, token=token, most=most, accept=_JSON), url)

    return retried(http, once, backoff=backoff)


def read_url(url: str, *, config: Config, most: int) -> bytes:
    """Return the bytes of an address that the user typed, at most `most`.

    Raises
    ------
    Offline
        If the configuration forbids sockets.
    UrlRefused
        If it is neither https nor a host of this machine or a private network.
    NetworkError
        If it cannot be had.
    """
    http = Http(config, gate=Gate(SystemClock()), named=(url,))

    def once() -> bytes:
        return _read_once(http, url, token=False, most=most, accept="*/*")

    with closing(http):
        return retried(http, once, backoff=Backoff())


def retried(http: Http, once: Callable[[], _Result], *, backoff: Backoff) -> _Result:
    """Call `once` until it succeeds, or no further try is allowed; the error that is left then."""
    tried = 0
    while True:
        tried += 1
        try:
            return once()
        except Fault as fault:
            pause(http, fault, tried, backoff)


def pause(http: Http, fault: Fault, tried: int, backoff: Backoff) -> None:
    """Wait before the next try, or raise the error if there shall be none.

    Raises
    ------
    VerseDataError
        The fault's own, if this was the last try or the server asks for a wait beyond
        `LONGEST_WAIT`.
    """
    if tried >= min(fault.traits.tries, backoff.tries) or (fault.after or 0.0) > LONGEST_WAIT:
        raise with_tries(fault.error, tried) from fault
    wait(http, fault, backoff.wait(tried))


def wait(http: Http, fault: Fault, jittered: float) -> None:
    """Wait as long as the fault's kind or the server asks."""
    if fault.after is not None:
        # Every thread of this session waits; the jitter comes on top, never earlier.
        http.gate.close_for(fault.after)
        http.gate.clock.sleep(fault.after + min(jittered, 1.0))
    elif fault.traits.waits:
        http.gate.clock.sleep(jittered)


def with_tries(error: VerseDataError, tried: int) -> VerseDataError:
    """Return `error` with the number of tries in its text."""
    return type(error)(f"{error} Tried {tried} times.") if tried > 1 else error


def _json(answer: bytes, url: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        # A page of the web site, or half an answer under status 200: both have been seen to pass.
        text = f"{shown(url)}: not JSON, begins with {answer[:16]!r}. Check the endpoint, or try later."
        raise Fault(NotTheFile(text), WRONG) from error


def _read_once(http: Http, url: str, *, token: bool, most: int, accept: str) -> bytes:
    with http.open(url, headers={"Accept": accept}, token=token) as response:
        blocks, size = [], 0
        while block := read_some(response, url):
            size += len(block)
            if size > most:
                raise Fault(
                    NotTheFile(f"{shown(url)}: more than {most:,} bytes. Nothing was kept.")
                )
            blocks.append(block)
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != size:
        raise Fault(Truncated(f"{shown(url)}: {size} of {length} bytes came."), UNAVAILABLE)
    return b"".join(blocks)
