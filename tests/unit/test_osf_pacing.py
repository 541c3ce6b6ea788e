"""When requests may leave."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.utils import formatdate
from pathlib import Path

import pytest
from osf_standin import FakeClock

from verse_data.config import Config
from verse_data.errors import RateLimited
from verse_data.releases.http import UNAVAILABLE, Backoff, Fault, Gate, Http, retry_after


def test_a_window_lets_through_no_more_than_its_limit_in_any_period():
    """Of 20 requests at 3 a second, no four begin within a second."""
    clock = FakeClock()
    gate, begun = Gate(clock, [(3, 1.0)]), []
    for _ in range(20):
        gate.request()
        begun.append(clock.monotonic())
        clock.sleep(0.1)
    assert all(later - earlier >= 1.0 for earlier, later in zip(begun, begun[3:], strict=False))
    assert begun[-1] - begun[0] < 20 / 3 * 1.2


def test_a_window_counts_the_requests_of_all_threads():
    """Eight threads share one window."""
    clock = FakeClock()
    gate, begun = Gate(clock, [(5, 60.0)]), []

    def ask(_: int) -> None:
        gate.request()
        begun.append(clock.monotonic())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(40)))
    begun.sort()
    assert len(begun) == 40
    assert clock.monotonic() - 1000.0 >= 7 * 60.0


def test_a_closed_gate_holds_every_request_back():
    """After one thread is told to wait 30 s, no other asks before."""
    clock = FakeClock()
    gate = Gate(clock)
    gate.close_for(30.0)
    gate.close_for(10.0)
    gate.request()
    assert clock.monotonic() == pytest.approx(1030.0)


class Interrupted(Exception):
    """Somebody would have slept."""


class SleeplessClock(FakeClock):
    """A clock that says when somebody would have to wait."""

    def sleep(self, seconds: float) -> None:
        """Say that somebody would have to wait."""
        raise Interrupted(seconds)


def test_the_wait_that_one_thread_is_told_holds_all(home: Path):
    """After one request is asked to come back in 30 s, any other thread's has to wait too."""
    config = Config(home=home, offline=False, osf_api="https://api.invalid", osf_site="https://a")
    http = Http(config, clock=SleeplessClock())
    http.gate.request()

    def throttled() -> None:
        raise Fault(RateLimited("come back later"), UNAVAILABLE, 30.0)

    with closing(http), pytest.raises(Interrupted):
        http.retry(throttled)
    with pytest.raises(Interrupted):
        http.gate.request()


def test_back_off_grows_is_jittered_and_ends():
    """Waits are drawn from a range that doubles up to its limit."""
    backoff = Backoff(first=0.5, most=8.0)
    tops = [max(backoff.wait(tried) for _ in range(300)) for tried in (1, 2, 3, 4, 5, 50, 5000)]
    assert [top <= limit for top, limit in zip(tops, (0.5, 1, 2, 4, 8, 8, 8), strict=True)] == [
        True
    ] * 7
    assert tops[4] > 4.0
    assert len({backoff.wait(3) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "٣"}, None),
    ],
)
def test_retry_after_in_seconds(headers: dict[str, str], expected: float | None):
    """Whole seconds are read; what is no number says nothing."""
    assert retry_after(headers) == expected


@pytest.mark.parametrize("skew", [0.0, -2 * 86400.0, 2 * 86400.0])
def test_a_date_is_held_against_the_servers_own_clock(skew: float):
    """A date in two minutes is two minutes away, however wrong the clock here is."""
    now = 1.7e9 + skew
    headers = {
        "Retry-After": formatdate(now + 120, usegmt=True),
        "Date": formatdate(now, usegmt=True),
    }
    assert retry_after(headers) == 120.0


def test_a_date_that_has_passed_means_now():
    """A date in the past asks for no wait."""
    headers = {"Retry-After": formatdate(time.time() - 50, usegmt=True)}
    assert retry_after(headers) == 0.0


def test_a_date_without_the_servers_own_is_held_against_the_clock_here():
    """A date in two minutes is two minutes away."""
    headers = {"Retry-After": formatdate(time.time() + 120, usegmt=True)}
    assert 60.0 < retry_after(headers) <= 121.0
