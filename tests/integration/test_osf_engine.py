"""Files from the stand-in into a dataset's object store, over plain HTTP."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin
from osf_standin.server import forbidden_sockets

from tests.support.left import leave_temporary
from verse_data.config import Config
from verse_data.errors import (
    ContentMissing,
    DiskFull,
    DownloadCorrupt,
    NotTheFile,
    Offline,
    RateLimited,
    ServerUnavailable,
    SourceChanged,
    Truncated,
    UrlRefused,
)
from verse_data.files import claimed
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.releases.annex import ObjectStore
from verse_data.releases.fetch import FetchResult, fetch_each
from verse_data.releases.http import Backoff
from verse_data.releases.osf import walk_node

QUICK = Backoff(first=0.001, most=0.01)


@dataclass
class Place:
    """A stand-in with one node, its lock, and a store to fetch into."""

    osf: OsfStandin
    config: Config
    lock: ReleaseLock
    store: ObjectStore

    def fetch(self, paths: Sequence[str] = (), **options: object) -> dict[str, FetchResult]:
        """Fetch files by path, all of them if none is named; return the results by path."""
        files = [self.lock.by_path[path] for path in paths] or list(self.lock.files)
        return fetch(self.config, self.store, files, **options)

    def right(self, path: str) -> bool:
        """Whether the content at the final name is the locked one."""
        file = self.lock.by_path[path]
        content = self.store.object_path(file).read_bytes()
        return hashlib.sha256(content).hexdigest() == file.sha256


def fetch(
    config: Config, store: ObjectStore, files: Sequence[LockedFile], **options: object
) -> dict[str, FetchResult]:
    """Fetch `files` and return the results by path."""
    options = {"backoff": QUICK} | options
    jobs = int(str(options.pop("jobs", 4)))
    results: list[FetchResult] = []
    fetch_each(
        store,
        files,
        config=config,
        jobs=jobs,
        on_result=results.append,
        **options,  # type: ignore[arg-type]
    )
    assert len(results) == len(files)
    return {result.file.path: result for result in results}


@pytest.fixture
def place(tmp_path: Path, home: Path) -> Iterator[Place]:
    """Serve one large file, one small file and a third with two versions."""
    node = Node("jtfa5")
    noise = random.Random(4)
    node.upload("rawdata/sub-verse004_ct.nii.gz", b"\x1f\x8b" + noise.randbytes(1_500_000))
    node.upload("derivatives/sub-verse004_ctd.json", b'[{"direction": ["P", "I", "R"]}]')
    node.upload("readme.txt", b"first")
    node.upload("empty.txt", b"")
    with OsfStandin(node) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
        yield Place(osf, config, lock, ObjectStore(tmp_path / "lab"))


CT = "rawdata/sub-verse004_ct.nii.gz"
CTD = "derivatives/sub-verse004_ctd.json"


def test_files_arrive_verified_read_only_and_are_not_asked_for_twice(place: Place):
    """All files come over three hops; the second call makes no request."""
    results = place.fetch()
    assert all(result.ok and place.right(path) for path, result in results.items())
    assert {place.store.object_path(file).stat().st_mode & 0o777 for file in place.lock.files} == {
        0o444
    }
    assert results[CT].bytes == 1_500_002
    assert results[CT].url.endswith("/?version=1")
    assert place.osf.count("bucket") == 3  # the empty file needs no request
    assert not list(place.store.incoming.iterdir())
    place.osf.seen.clear()
    again = place.fetch()
    assert all(result.ok and result.bytes == 0 for result in again.values())
    assert place.osf.seen == []


def test_a_lock_gives_its_own_version_also_when_there_is_a_newer_one(place: Place):
    """The pin is to the version: a file that was replaced upstream still comes as it was locked."""
    place.osf.nodes["jtfa5"].upload("readme.txt", b"second, and longer")
    assert place.fetch(["readme.txt"])["readme.txt"].ok
    assert place.right("readme.txt")


def test_no_request_of_a_download_carries_the_token_or_asks_for_compression(place: Place):
    """The token stays with the API; bodies are asked for as they are."""
    place.config = replace(place.config, osf_token="s3cret")
    place.fetch()
    downloads = [seen for seen in place.osf.seen if seen.host not in {"api", "storage"}]
    assert downloads
    assert {seen.token for seen in place.osf.seen} == {None}
    assert {seen.headers["accept-encoding"] for seen in downloads} == {"identity"}


def test_a_netrc_of_the_user_is_not_used(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Credentials that lie around for a host are sent to nobody."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert place.fetch(["readme.txt"])["readme.txt"].ok
    assert {seen.token for seen in place.osf.seen} == {None}


def test_every_retry_starts_at_the_registered_address(place: Place):
    """A signed address that ran out is not asked again; a new one is fetched and used."""
    place.osf.play("cut_length", times=1)
    place.osf.clock_offset = 0.0
    assert place.fetch([CT])[CT].ok
    bucket = [seen.path for seen in place.osf.seen if seen.host == "bucket"]
    assert len(bucket) == 2
    assert place.osf.count("site") == 2
    expired = place.osf.signed(b"x")
    place.osf.clock_offset = 120.0
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(expired)


def test_a_resume_asks_for_the_rest_only(place: Place):
    """A Range is sent, and all in all the file comes about once."""
    place.osf.play("cut_length", times=1)
    result = place.fetch([CT])[CT]
    ranges = [seen.headers.get("range") for seen in place.osf.seen if seen.host == "bucket"]
    assert ranges[0] is None
    assert 600_000 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 750_002
    assert result.tries == 2
    assert result.bytes <= 1_500_002 * 1.1


def test_the_next_call_goes_on_with_what_the_last_one_kept(place: Place):
    """A call that fails for good keeps its partial; another engine resumes it."""
    place.osf.play("cut_length", times=1)
    place.osf.play("gone")
    failed = place.fetch([CT])[CT]
    assert (failed.ok, failed.error_class) == (False, SourceChanged)
    assert "bytes are kept" in failed.error
    place.osf.faults.clear()
    result = place.fetch([CT])[CT]
    assert result.ok
    assert result.bytes <= 800_000


@pytest.mark.parametrize("mode", ["html", "html_as_bytes", "gzip", "extra", "unavailable", "stall"])
def test_a_bad_answer_to_a_resume_does_not_cost_what_is_here(place: Place, mode: str):
    """What had come before a portal's page, or another wrong answer, is still there after it."""
    place.osf.play("cut_length", times=1)
    place.osf.play("gone", times=1)
    place.fetch([CT])
    (kept,) = place.store.incoming.glob("*.part")
    before = kept.stat().st_size
    fault = place.osf.play(mode, times=3, seconds=1, after=0)
    place.fetch([CT], backoff=Backoff(tries=1))
    assert kept.stat().st_size == before
    fault.times = 0
    result = place.fetch([CT])[CT]
    assert result.ok
    assert result.bytes <= 1_500_002 - before


def test_a_partial_that_was_spoilt_is_thrown_away(place: Place):
    """Wrong bytes from before do not count against the server: one clean restart mends it."""
    place.osf.play("cut_length", times=1)
    place.osf.play("gone", times=1)
    place.fetch([CT])
    (kept,) = place.store.incoming.glob("*.part")
    spoilt = bytearray(kept.read_bytes())
    spoilt[1000] ^= 1
    kept.write_bytes(spoilt)
    assert place.fetch([CT])[CT].ok
    assert place.right(CT)


@pytest.mark.parametrize("mode", ["wrong_range", "wrong_total"])
def test_a_piece_of_another_place_or_file_is_not_put_behind_what_is_here(place: Place, mode: str):
    """Its bytes are not taken, also where they would have been the right ones."""
    leave_half(place)
    place.osf.play(mode)
    result = place.fetch([CT], backoff=Backoff(tries=1))[CT]
    assert (result.ok, result.error_class, result.bytes) == (False, Truncated, 0)
    assert "was sent" in result.error
    assert not list(place.store.incoming.glob("*.part"))


def test_a_partial_that_is_longer_than_the_file_is_begun_anew(place: Place):
    """It can only be wrong, and costs no try."""
    leave_half(place)
    (kept,) = place.store.incoming.glob("*.part")
    kept.write_bytes(bytes(1_500_003))
    result = place.fetch([CT])[CT]
    assert (result.ok, result.tries, result.bytes) == (True, 1, 1_500_002)


def test_no_byte_beyond_the_locked_size_is_written(place: Place):
    """A server that does not end fills no disk: at the first byte too many, all of it is dropped."""
    place.osf.play("extra_chunked")
    result = place.fetch([CT])[CT]
    assert (result.ok, result.error_class, result.tries) == (False, DownloadCorrupt, 2)
    assert "more bytes came than the 1,500,002 that are locked" in result.error
    assert not list(place.store.incoming.iterdir())


def leave_half(place: Place) -> None:
    """Let a call fail half-way through the large file, so that its partial is kept."""
    place.osf.play("cut_length", times=1)
    place.osf.play("gone", times=1)
    assert not place.fetch([CT])[CT].ok
    assert [path.stat().st_size > 0 for path in place.store.incoming.glob("*.part")] == [True]


def test_what_dead_processes_and_old_calls_left_is_swept(place: Place):
    """A partial of a process that is gone is taken up; one of a month ago is removed."""
    incoming = place.store.incoming
    incoming.mkdir(parents=True)
    content = place.osf.nodes["jtfa5"].find(CT).newest
    digest = place.lock.by_path[CT].sha256
    dead = leave_temporary(incoming, f".part-{digest}-")
    (dead / f"{digest}.part").write_bytes(content[:1_400_000])
    old = [leave_temporary(incoming, f".part-{'0' * 64}-"), incoming / f"{'1' * 64}.part"]
    old[1].write_bytes(b"x")
    for path in old:
        os.utime(path, (1e9, 1e9))
    result = place.fetch([CT])[CT]
    assert result.ok
    assert result.bytes < 200_000
    assert list(incoming.iterdir()) == []


def test_a_partial_of_a_process_that_lives_is_left_alone(place: Place):
    """Nobody writes to a file that another process has open."""
    incoming = place.store.incoming
    incoming.mkdir(parents=True)
    digest = place.lock.by_path[CT].sha256
    with claimed(incoming / f".part-{digest}-") as folder:
        theirs = folder / f"{digest}.part"
        theirs.write_bytes(b"theirs")
        for path in (theirs, folder):
            os.utime(path, (1e9, 1e9))  # as after a jump of the clock
        assert place.fetch([CT])[CT].bytes == 1_500_002
        assert theirs.read_bytes() == b"theirs"


def test_a_partial_of_another_machine_is_left_alone(place: Place):
    """Whether its process lives cannot be told from here; a day later it counts as gone."""
    incoming = place.store.incoming
    incoming.mkdir(parents=True)
    digest = place.lock.by_path[CT].sha256
    theirs = incoming / f".part-{digest}-00000000-00000000" / f"{digest}.part"
    theirs.parent.mkdir()
    theirs.write_bytes(place.osf.nodes["jtfa5"].find(CT).newest[:1_000_000])
    assert place.fetch([CT])[CT].bytes == 1_500_002
    assert theirs.stat().st_size == 1_000_000
    for path in (theirs, theirs.parent):
        os.utime(path, (1.7e9, 1.7e9))
    place.store.object_path(place.lock.by_path[CT]).parent.chmod(0o755)
    place.store.object_path(place.lock.by_path[CT]).unlink()
    place.fetch([CT])
    assert not theirs.exists()


def test_content_of_another_size_is_not_put_in_place(place: Place):
    """The store itself counts the bytes of whatever is handed to it."""
    file = place.lock.by_path[CTD]
    with place.store.staging("short") as staged:
        staged.write_bytes(b"[")
        with pytest.raises(DownloadCorrupt, match="1 bytes came, and 32 are locked"):
            place.store.ingest(file, staged)
    assert not place.store.object_path(file).exists()


def test_a_link_in_the_place_of_a_content_is_not_the_content(place: Place):
    """Not even one whose own size happens to be right."""
    file = place.lock.by_path[CTD]
    target = place.store.object_path(file)
    target.parent.mkdir(parents=True)
    target.symlink_to("x" * file.size)
    assert target.lstat().st_size == file.size
    assert not place.store.has(file)


def test_a_small_file_is_not_poisoned_by_a_page(place: Place, caplog: pytest.LogCaptureFixture):
    """A page in place of a centroid file, twice, is followed by the file itself; the log says so."""
    place.osf.play("html", times=2)
    with caplog.at_level("INFO", logger="verse_data"):
        result = place.fetch([CTD])[CTD]
    assert ["another page was sent" in text for text in caplog.messages] == [True, True]
    assert ["Try 2 in" in caplog.messages[0], "Try 3 in" in caplog.messages[1]] == [True, True]
    assert result.ok
    assert place.right(CTD)


def test_the_other_address_is_tried_where_the_first_fails(place: Place):
    """A file that OSF has lost comes from the mirror that the lock names."""
    content = place.osf.nodes["jtfa5"].find(CTD).newest
    place.osf.mirror["/ctd.json"] = content
    place.osf.nodes["jtfa5"].delete(CTD)
    file = place.lock.by_path[CTD]
    mirrored = file.model_copy(update={"urls": (f"{place.osf.hosts['mirror']}/ctd.json",)})
    result = fetch(place.config, place.store, [mirrored])[CTD]
    assert (result.ok, result.tries) == (True, 2)
    assert result.url.endswith("/ctd.json")


def test_a_deleted_file_is_named(place: Place):
    """OSF deletes all versions at once: one request, no retry."""
    place.osf.nodes["jtfa5"].delete("readme.txt")
    result = place.fetch(["readme.txt"])["readme.txt"]
    assert (result.ok, result.error_class, result.tries) == (False, SourceChanged, 1)
    assert "readme.txt" in result.error
    assert "gone in all its versions" in result.error


def test_a_file_that_was_made_private_is_named(place: Place):
    """The log-in page is recognised by its address and never kept."""
    place.osf.nodes["jtfa5"].public = False
    result = place.fetch([CT])[CT]
    assert (result.ok, result.error_class, result.tries) == (False, NotTheFile, 1)
    assert "log-in page" in result.error


def test_a_file_without_any_address_is_named(place: Place):
    """Nobody is asked for the grading workbook, which can only be adopted."""
    file = LockedFile(path="grades.xlsx", size=3, sha256="0" * 64)
    result = fetch(place.config, place.store, [file])["grades.xlsx"]
    assert (result.ok, result.error_class, result.tries) == (False, ContentMissing, 0)
    assert "no address" in result.error


def test_an_address_of_a_private_network_in_a_lock_is_not_opened(place: Place):
    """A lock from somewhere cannot make this machine ask its own network."""
    file = LockedFile(path="a", size=3, sha256="0" * 64, urls=("http://169.254.169.254/x",))
    result = fetch(place.config, place.store, [file])["a"]
    assert (result.ok, result.error_class) == (False, UrlRefused)


def test_two_names_of_one_content_cost_one_download(place: Place):
    """Equal files with equal endings share a key, and each gets its result."""
    file = place.lock.by_path[CT]
    twin = file.model_copy(update={"path": "copy_ct.nii.gz"})
    twin.__dict__.pop("annex_key", None)
    results = fetch(place.config, place.store, [file, twin])
    assert [result.ok for result in results.values()] == [True, True]
    assert place.osf.count("bucket") == 1


def test_eight_callers_of_one_file_make_one_download(place: Place):
    """Threads with engines of their own wait for one another; none fails."""
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: place.fetch(), range(8)))
    assert all(result.ok for results in rounds for result in results.values())
    assert place.osf.count("bucket") == 3


def test_without_locks_the_result_is_right_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """Where every caller believes to hold the lock, files are whole and nothing is left."""
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    with ThreadPoolExecutor(6) as pool:
        rounds = list(pool.map(lambda _: place.fetch(), range(6)))
    assert all(result.ok for results in rounds for result in results.values())
    assert all(place.right(file.path) for file in place.lock.files)
    assert not list(place.store.incoming.iterdir())


def test_a_file_system_without_locks_is_said_once_and_does_no_harm(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """ENOSYS from flock becomes a warning, and the files come."""

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(RuntimeWarning, match="has no locks"):
        results = place.fetch(["readme.txt"])
    assert results["readme.txt"].ok


def test_progress_ends_at_the_size_of_the_files_whatever_happens_on_the_way(place: Place):
    """Bytes that are thrown away are taken back; resumed and present ones are counted."""
    counted: list[int] = []
    place.osf.play("flip", times=1)
    place.osf.play("cut_length", times=1)
    place.fetch([CT], advance=counted.append)
    assert sum(counted) == 1_500_002


def test_a_server_that_is_down_is_not_asked_for_every_file(tmp_path: Path, home: Path):
    """After files in a row have failed for good, others only probe, and the rest is not begun."""
    node = Node("jtfa5")
    for number in range(40):
        node.upload(f"{number:02}.json", str(number).encode())
    with OsfStandin(node) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
        osf.play("unavailable", host="site")
        results = fetch(config, ObjectStore(tmp_path / "lab"), lock.files, jobs=2)
        assert osf.count("site") <= 60
    assert {result.error_class for result in results.values()} == {ServerUnavailable}
    assert sum("not asked for" in str(result.error) for result in results.values()) >= 25


def test_a_wait_of_an_hour_is_left_to_the_user(place: Place):
    """A Retry-After beyond 15 minutes fails at once and says when to come back."""
    place.osf.play("throttle", host="site", seconds=3600)
    result = place.fetch(["readme.txt"], clock=FakeClock())["readme.txt"]
    assert (result.error_class, result.tries) == (RateLimited, 1)
    assert "3,600 s" in result.error


def test_a_full_disk_is_said_before_the_first_byte(place: Place, monkeypatch: pytest.MonkeyPatch):
    """Free and needed bytes are named, and no request is made."""
    usage = shutil.disk_usage(place.store.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    place.osf.seen.clear()
    with pytest.raises(DiskFull, match="1,000,000 are free"):
        place.fetch()
    assert place.osf.seen == []


def test_a_disk_that_fills_up_midway_keeps_what_can_be_resumed(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """ENOSPC on the way is DiskFull for that file; with room again the rest alone is fetched."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, hard))
        result = place.fetch([CT])[CT]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert not result.ok
    assert not place.store.has(place.lock.by_path[CT])
    again = place.fetch([CT])[CT]
    assert again.ok
    assert again.bytes < 1_200_000


def test_an_interruption_ends_all_waits_and_keeps_what_came(place: Place):
    """Whoever stops the call does not wait for a server's Retry-After."""
    for path in (CT, CTD):
        match = f"/{place.lock.by_path[path].file_id}/"
        place.osf.play("throttle", host="site", seconds=600, match=match)
    unserved = LockedFile(path="grades.xlsx", size=3, sha256="0" * 64)

    def stop(result: FetchResult) -> None:
        assert result.file == unserved
        while not place.osf.count("site"):
            time.sleep(0.01)
        raise KeyboardInterrupt

    timer = threading.Timer(300.0, os._exit, (99,))
    timer.start()
    files = [place.lock.by_path[CT], place.lock.by_path[CTD], unserved]
    with pytest.raises(KeyboardInterrupt):
        fetch_each(place.store, files, config=place.config, jobs=6, on_result=stop)
    timer.cancel()


def test_offline_no_socket_is_opened(place: Place, monkeypatch: pytest.MonkeyPatch):
    """With offline set, every file fails so before anything is looked up, and nothing is written."""
    place.config = replace(place.config, offline=True)
    with forbidden_sockets(monkeypatch) as tried:
        results = place.fetch()
    assert {result.error_class for result in results.values()} == {Offline}
    assert tried == []
    assert not place.store.path.exists()
