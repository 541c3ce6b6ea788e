"""Drill 11: a storm of refusals. Few requests, none early, done when the server is well again."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin

from verse_data.config import Config
from verse_data.errors import ServerUnavailable
from verse_data.releases.fetch import FetchResult, fetch_each
from verse_data.releases.osf import walk_node
from verse_data.releases.annex import ObjectStore


def node_of(count: int) -> Node:
    """Return a node with `count` small files."""
    node = Node("jtfa5")
    for number in range(count):
        node.upload(f"sub-verse{number:03}_ctd.json", f'["{number}"]'.encode())
    return node


def requests_by_file(osf: OsfStandin) -> dict[str, list[float]]:
    """Return when each file was asked for at its registered address."""
    times: dict[str, list[float]] = {}
    for seen in osf.seen:
        if seen.host == "site" and (match := re.search(r"/download/(\w+)/", seen.path)):
            times.setdefault(match[1], []).append(seen.at)
    return times


@pytest.mark.parametrize("jobs", [1, 8])
@pytest.mark.parametrize("mode", ["unavailable", "throttle", "throttle_date"])
def test_a_storm_is_sat_out(tmp_path: Path, home: Path, mode: str, jobs: int):
    """30 times 503, or 20 times 429 with Retry-After: at most 10 requests a file, none early."""
    clock = FakeClock()
    with OsfStandin(node_of(8)) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        lock = walk_node("jtfa5", config=config, release="lab", clock=clock)
        osf.now = clock.monotonic
        osf.play(mode, times=30 if mode == "unavailable" else 20, host="site", seconds=40)
        results: list[FetchResult] = []
        fetch_each(
            ObjectStore(tmp_path / "lab"),
            lock.files,
            config=config,
            jobs=jobs,
            on_result=results.append,
            clock=clock,
        )
        times = requests_by_file(osf)
    assert len(times) == 8
    assert max(map(len, times.values())) <= 10
    if mode == "unavailable":
        # Where one thread works, three files take the 30 refusals, ten each; the others come.
        assert sum(result.ok for result in results) >= 5
        assert {result.error_class for result in results} <= {None, ServerUnavailable}
    else:
        assert sum(result.ok for result in results) >= 6
        for asked in times.values():
            gaps = [later - earlier for earlier, later in pairwise(asked)]
            assert all(gap >= 40.0 for gap in gaps)


def test_everything_comes_once_the_server_is_well(tmp_path: Path, home: Path):
    """A second call after the storm fetches what the first could not."""
    clock = FakeClock()
    with OsfStandin(node_of(8)) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        lock = walk_node("jtfa5", config=config, release="lab", clock=clock)
        store = ObjectStore(tmp_path / "lab")
        osf.play("unavailable", times=30, host="site")
        for _ in range(2):
            results: list[FetchResult] = []
            fetch_each(
                store, lock.files, config=config, jobs=1, on_result=results.append, clock=clock
            )
    assert all(result.ok for result in results)
    assert all(store.has(file) for file in lock.files)


@pytest.mark.parametrize("host", ["site", "storage", "bucket"])
def test_one_thread_that_is_throttled_stops_all(tmp_path: Path, home: Path, host: str):
    """While one file waits for its Retry-After, no other is asked for either, at no host."""
    clock = FakeClock()
    with OsfStandin(node_of(12)) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        lock = walk_node("jtfa5", config=config, release="lab", clock=clock)
        osf.now = clock.monotonic
        walked = len(osf.seen)
        osf.play("throttle", times=1, host=host, seconds=40)
        results: list[FetchResult] = []
        fetch_each(
            ObjectStore(tmp_path / "lab"),
            lock.files,
            config=config,
            jobs=4,
            on_result=results.append,
            clock=clock,
        )
        first = min(seen.at for seen in osf.seen[walked:] if seen.host == host)
        early = [seen for seen in osf.seen[walked:] if first < seen.at < first + 40]
    assert all(result.ok for result in results)
    assert early == []


def test_control_asking_again_at_once_is_early_and_often():
    """The naive way, a loop without waiting, asks far more often and never waits."""
    with OsfStandin(node_of(1)) as osf:
        file = osf.nodes["jtfa5"].find("sub-verse000_ctd.json")
        osf.play("throttle", times=20, host="site", seconds=40)
        for _ in range(30):
            try:
                urllib.request.urlopen(f"{osf.hosts['site']}/download/{file.id}/?version=1").read()
                break
            except urllib.error.HTTPError:
                continue
        asked = [seen.at for seen in osf.seen if seen.host == "site"]
    assert Counter(seen.host for seen in osf.seen)["site"] > 10
    assert max(asked) - min(asked) < 40
