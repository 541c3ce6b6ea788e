"""Drill 10: everything a server does wrong, fresh and resumed, over HTTP.

No wrong file ever stands at a final name, each fault ends in its own error class, nothing is left
behind, and once the server is well the same call succeeds.
"""

from __future__ import annotations

import hashlib
import random
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from osf_standin import MODES, FakeClock, Node, OsfStandin

from verse_data.config import Config, Limits
from verse_data.errors import (
    DownloadCorrupt,
    NotTheFile,
    RateLimited,
    ServerUnavailable,
    SourceChanged,
    Truncated,
    UrlRefused,
    VerseDataError,
)
from verse_data.records.lock import LockedFile
from verse_data.releases.annex import ObjectStore
from verse_data.releases.fetch import FetchResult, fetch_each
from verse_data.releases.http import Backoff, read_url
from verse_data.releases.osf import walk_node

# What the fault is, the class it ends in (None: it is got over), and the exit code.
TABLE: dict[str, tuple[type[VerseDataError] | None, int]] = {
    "cut_length": (Truncated, 5),
    "cut_no_length": (Truncated, 5),
    "cut_chunked": (Truncated, 5),
    "reset": (Truncated, 5),
    "stall": (Truncated, 5),
    "drip": (Truncated, 5),
    "drip_headers": (ServerUnavailable, 5),
    "endless_continue": (ServerUnavailable, 5),
    "endless_headers": (ServerUnavailable, 5),
    "endless_trailers": (Truncated, 5),
    "html": (NotTheFile, 5),
    "html_as_bytes": (NotTheFile, 5),
    "gzip": (NotTheFile, 5),
    "throttle": (RateLimited, 5),
    "throttle_date": (RateLimited, 5),
    "unavailable": (ServerUnavailable, 5),
    "forbidden": (ServerUnavailable, 5),
    "redirect_loop": (ServerUnavailable, 5),
    "redirect_file": (UrlRefused, 7),
    "redirect_private": (UrlRefused, 7),
    "gone": (SourceChanged, 4),
    "extra": (DownloadCorrupt, 4),
    "extra_chunked": (DownloadCorrupt, 4),
    "flip": (DownloadCorrupt, 4),
    "changed": (DownloadCorrupt, 4),
    "negative_length": (None, 0),
    "ignore_range": (None, 0),
    "wrong_range": (None, 0),
    "wrong_total": (None, 0),
    "unsatisfiable": (None, 0),
}

# A machine that pauses may meet these before it has read the headers, which then never come.
ALSO: Final = {
    "reset": ServerUnavailable,
    "stall": ServerUnavailable,
    "endless_trailers": DownloadCorrupt,
}
PATIENT: Final = Limits(connect=60.0, idle=60.0, window_seconds=60.0)
"""Limits that no well server meets, on any machine."""
HASTY: Final = {
    "stall": replace(PATIENT, idle=0.3),
    "drip": replace(PATIENT, window_seconds=0.2),
    "drip_headers": replace(PATIENT, window_seconds=0.2),
    "endless_continue": replace(PATIENT, total=0.3, slowest=1e9),
    "endless_headers": replace(PATIENT, total=0.3, slowest=1e9),
    "endless_trailers": replace(PATIENT, total=0.3, slowest=1e9),
}
"""Limits that a fault is sure to meet."""

LARGE, SMALL = "rawdata/sub-verse004_ct.nii.gz", "derivatives/sub-verse004_ctd.json"


@pytest.fixture(scope="module")
def standin(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[OsfStandin, Config, dict[str, LockedFile]]]:
    """Serve a CT-sized file and a centroid file that is smaller than a web page."""
    node = Node("jtfa5")
    node.upload(LARGE, b"\x1f\x8b" + random.Random(10).randbytes(700_000))
    node.upload(SMALL, b'[{"direction": ["P", "I", "R"]}, {"label": 20, "X": 1.5}]')
    with OsfStandin(node) as osf:
        home = tmp_path_factory.mktemp("home")
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
        yield osf, config, lock.by_path


def get(
    config: Config,
    store: ObjectStore,
    file: LockedFile,
    limits: Limits = PATIENT,
) -> FetchResult:
    """Fetch one file."""
    results: list[FetchResult] = []
    fetch_each(
        store,
        [file],
        config=replace(config, limits=limits),
        jobs=1,
        on_result=results.append,
        clock=FakeClock(),
        backoff=Backoff(first=0.001, most=0.01),
    )
    return results[0]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_table_covers_all_modes():
    """Every fault that the stand-in can play has a row, and they are more than thirteen."""
    assert set(TABLE) == set(MODES)
    assert len(TABLE) >= 13


@pytest.mark.parametrize("start", ["fresh", "resumed"])
@pytest.mark.parametrize("mode", TABLE)
def test_no_fault_puts_a_wrong_file_in_place(
    standin: tuple[OsfStandin, Config, dict[str, LockedFile]], tmp_path: Path, mode: str, start: str
):
    """A fault that stays is its named error and leaves nothing wrong; then the file comes."""
    osf, config, files = standin
    error, code = TABLE[mode]
    for path in (LARGE, SMALL):
        store, file = ObjectStore(tmp_path / path.replace("/", "_")), files[path]
        osf.faults.clear()
        if start == "resumed":
            osf.play("cut_length", times=1)
            osf.play("gone", times=1)
            assert get(config, store, file).error_class is SourceChanged
            assert [part.stat().st_size > 0 for part in store.incoming.glob("*.part")] == [True]
        # Of a small file, a drip that begins in the middle would bring the rest in three tries.
        osf.play(mode, seconds=60 if mode in HASTY else 1, after=0 if mode == "drip" else -1)
        result = get(config, store, file, HASTY.get(mode, PATIENT))
        assert result.error_class in {error, ALSO.get(mode, error)}, result.error
        assert result.ok is (error is None)
        if error is None:
            assert digest(store.object_path(file)) == file.sha256
        else:
            assert error.exit_code == code
            assert path in str(result.error)
            assert "Signature" not in str(result.error)
            assert not store.object_path(file).exists()
            assert result.tries <= 10
        osf.faults.clear()
        assert get(config, store, file).ok
        assert digest(store.object_path(file)) == file.sha256
        assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize(
    "mode",
    [
        mode
        for mode in TABLE
        if mode not in {"redirect_file", "redirect_private", "redirect_loop", "gone"}
    ],
)
def test_a_fault_that_passes_is_got_over_in_the_same_call(
    standin: tuple[OsfStandin, Config, dict[str, LockedFile]], tmp_path: Path, mode: str
):
    """What happens once does not fail a file."""
    osf, config, files = standin
    osf.faults.clear()
    # A stall is far shorter than every limit; throttles tell whole seconds, which nobody waits for.
    osf.play(mode, times=1, seconds=0.2 if mode in HASTY else 1)
    store, file = ObjectStore(tmp_path / "lab"), files[LARGE]
    # Such a stall ends here as a transfer that was cut; how stalls end is told above.
    assert get(config, store, file).ok
    assert digest(store.object_path(file)) == file.sha256


@pytest.mark.parametrize("mode", ["drip", "drip_headers", "endless_continue", "endless_trailers"])
@pytest.mark.parametrize("host", ["api", "storage"])
def test_a_walk_gives_up_on_a_server_that_drips(
    standin: tuple[OsfStandin, Config, dict[str, LockedFile]], host: str, mode: str
):
    """A listing that comes byte by byte is given up after few tries, and the walk says so."""
    osf, config, _ = standin
    osf.faults.clear()
    osf.play(mode, host=host, seconds=60, after=0)
    osf.seen.clear()
    hasty = replace(config, limits=HASTY[mode])
    with pytest.raises((Truncated, ServerUnavailable), match="Tried 3 times"):
        walk_node("jtfa5", config=hasty, release="lab", clock=FakeClock())
    osf.faults.clear()
    assert osf.count(host) <= 4


@pytest.mark.parametrize("mode", ["drip", "drip_headers", "endless_continue", "endless_trailers"])
def test_a_lock_at_an_address_that_drips_is_given_up(
    standin: tuple[OsfStandin, Config, dict[str, LockedFile]], mode: str
):
    """What ``lock --from-lock URL`` reads has to come at a rate too."""
    osf, config, _ = standin
    osf.mirror["/lock.json"] = b"{" + b" " * 100_000 + b"}"
    osf.faults.clear()
    osf.play(mode, host="mirror", seconds=60)
    url = f"{osf.hosts['mirror']}/lock.json"
    with pytest.raises((Truncated, ServerUnavailable), match="Tried 3 times"):
        read_url(url, config=replace(config, limits=HASTY[mode]), most=1 << 20)
    osf.faults.clear()
    assert read_url(url, config=config, most=1 << 20) == osf.mirror["/lock.json"]


def test_what_comes_too_slowly_as_a_whole_is_given_up(
    standin: tuple[OsfStandin, Config, dict[str, LockedFile]], tmp_path: Path
):
    """A server that keeps to every single limit has one for the whole: of a file by size, of a lock in all."""
    osf, config, files = standin
    osf.faults.clear()
    osf.mirror["/lock.json"] = b" " * 300_000
    brief = replace(PATIENT, total=0.1, slowest=1e9)
    url = f"{osf.hosts['mirror']}/lock.json"
    osf.trickle = 0.1
    try:
        result = get(config, ObjectStore(tmp_path / "lab"), files[LARGE], brief)
        with pytest.raises(Truncated, match="not complete by its deadline"):
            read_url(url, config=replace(config, limits=brief), most=1 << 20)
    finally:
        osf.trickle = 0.0
    assert (result.error_class, "not complete by its deadline" in str(result.error)) == (
        Truncated,
        True,
    )
    assert get(config, ObjectStore(tmp_path / "lab"), files[LARGE]).ok


def test_servers_that_drip_are_not_asked_for_every_file(tmp_path: Path, home: Path):
    """After files in a row have failed so, the rest is not asked for."""
    node = Node("jtfa5")
    for number in range(30):
        node.upload(f"{number:02}.json", str(number).encode() * 50)
    with OsfStandin(node) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"],
            limits=HASTY["drip"],
        )  # fmt: skip
        lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
        osf.play("drip", seconds=60, after=0)
        results: list[FetchResult] = []
        fetch_each(
            ObjectStore(tmp_path / "lab"),
            lock.files,
            config=config,
            jobs=4,
            on_result=results.append,
            clock=FakeClock(),
            backoff=Backoff(first=0.001),
        )
        assert osf.count("bucket") <= 36
    assert not any(result.ok for result in results)
    assert sum("not asked for" in str(result.error) for result in results) >= 18


def test_control_a_timeout_of_the_socket_alone_waits_on(
    standin: tuple[OsfStandin, Config, dict[str, LockedFile]],
):
    """A plain client with the same limit between two pieces reads a dripping answer to its end."""
    osf, _, files = standin
    osf.faults.clear()
    osf.play("drip", seconds=60, after=0)
    url = f"{osf.hosts['site']}/download/{files[SMALL].file_id}/?version=1"
    with urllib.request.urlopen(url, timeout=60) as response:
        assert len(response.read()) == files[SMALL].size
    osf.faults.clear()


def test_control_a_plain_download_keeps_wrong_files(
    standin: tuple[OsfStandin, Config, dict[str, LockedFile]], tmp_path: Path
):
    """The naive way, urllib to the final name, stores wrong bytes under several of the faults."""
    osf, _, files = standin
    file, wrong = files[LARGE], []
    url = f"{osf.hosts['site']}/download/{file.file_id}/?version=1"
    for mode in ("html", "gzip", "flip", "extra", "cut_no_length", "changed"):
        osf.faults.clear()
        osf.play(mode)
        final = tmp_path / mode
        with urllib.request.urlopen(url, timeout=60) as response, final.open("wb") as stream:
            while block := response.read(1 << 16):
                stream.write(block)
        if digest(final) != file.sha256:
            wrong.append(mode)
    osf.faults.clear()
    assert wrong == ["html", "gzip", "flip", "extra", "cut_no_length", "changed"]
