"""Drill 12: kill -9 in the middle of a download, 30 times; the next call ends it right."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin
from osf_standin.server import PIECE

from verse_data.config import Config
from verse_data.records.lock import LockedFile
from verse_data.releases.annex import ObjectStore
from verse_data.releases.fetch import file_urls
from verse_data.releases.osf import walk_node

SIZE = 1_200_000
KILLS = 30

# A process that imports once and forks a child for each line it is given; so a kill costs no
# start-up, and no thread of the test is forked.
NURSERY = """
import json, os, signal, sys, time, urllib.request
from glob import iglob
from contextlib import suppress
from pathlib import Path
from verse_data.config import Config
from verse_data.records.lock import LockedFile
from verse_data.releases.fetch import fetch_each
from verse_data.releases.annex import ObjectStore

def largest(place):
    sizes = [0]
    for path in iglob(place):
        with suppress(FileNotFoundError):
            sizes.append(os.stat(path).st_size)
    return max(sizes)

print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        if "naive" in job:
            urllib.request.urlretrieve(job["url"], job["naive"])
            os._exit(0)
        config = Config(home=Path(job["home"]), offline=False, osf_api=job["api"], osf_site=job["site"])
        file = LockedFile.model_validate_json(job["file"])
        results = []
        store = ObjectStore(Path(job["folder"]))
        fetch_each(store, [file], config=config, jobs=1, on_result=results.append)
        os._exit(0 if results[0].ok else 1)
    if "kill_at" in job:
        until = time.monotonic() + 300
        while largest(job["watch"]) < job["kill_at"]:
            assert time.monotonic() < until, "the child never got so far"
            time.sleep(0.001)
    if "kill_after" in job:
        time.sleep(job["kill_after"])
    if "kill_at" in job or "kill_after" in job:
        os.kill(child, signal.SIGKILL)  # not waited for yet, so the number is still the child's
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Runs downloads in children, and kills them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self, job: dict[str, str], **options: float | str) -> int:
        """Run a job and return how it ended.

        Its child is killed once a file named like `watch` has `kill_at` bytes, or after
        `kill_after` seconds. Where bytes are counted, they say when: a machine that pauses makes
        a number of seconds mean anything.
        """
        assert self._process.stdin is not None
        print(json.dumps({**job, **options}), file=self._process.stdin, flush=True)
        return int(self._line())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    """Give a process that forks children."""
    nursery = Nursery()
    yield nursery
    nursery.close()


def is_right(path: Path, file: LockedFile) -> bool:
    """Whether a file holds the locked content."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


@pytest.fixture
def osf() -> Iterator[OsfStandin]:
    """Serve one file of random bytes."""
    node = Node("jtfa5")
    node.upload("sub-verse004_ct.nii.gz", b"\x1f\x8b" + random.Random(12).randbytes(SIZE - 2))
    with OsfStandin(node) as osf:
        yield osf


@pytest.fixture
def file(osf: OsfStandin, home: Path) -> LockedFile:
    """Lock that file."""
    config = Config(home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"])
    (file,) = walk_node("jtfa5", config=config, release="lab", clock=FakeClock()).files
    return file


def job(osf: OsfStandin, file: LockedFile, home: Path, store: ObjectStore) -> dict[str, str]:
    """Return what the nursery needs to fetch the file into a store."""
    return {
        "api": osf.hosts["api"],
        "site": osf.hosts["site"],
        "home": str(home),
        "file": file.model_dump_json(),
        "folder": str(store.path),
        "watch": str(store.incoming / ".part-*" / "*.part"),
    }


def test_thirty_kills_leave_nothing_wrong_and_cost_little(
    nursery: Nursery, osf: OsfStandin, file: LockedFile, tmp_path: Path, home: Path
):
    """After each kill no wrong file stands at the final name; one more call ends with the right bytes.

    For each kill, at most 1.5 times the file's bytes are sent in all.
    """
    noise = random.Random(12)
    for number in range(KILLS):
        store = ObjectStore(tmp_path / f"lab{number}")
        work = job(osf, file, home, store)
        osf.sent_bytes, come = 0, noise.randrange(SIZE - PIECE)
        osf.hold_at = come
        assert nursery.run(work, kill_at=come) == -signal.SIGKILL
        assert not store.object_path(file).exists()
        osf.hold_at = None
        assert nursery.run(work) == 0
        assert is_right(store.object_path(file), file)
        assert osf.sent_bytes <= 1.5 * SIZE
        assert list(store.incoming.iterdir()) == []


def test_kills_at_any_moment_leave_nothing_wrong(
    nursery: Nursery, osf: OsfStandin, file: LockedFile, tmp_path: Path, home: Path
):
    """Also before the first byte comes, while the digest is checked, and while it is moved."""
    noise, kept = random.Random(15), 0
    for number in range(KILLS):
        store = ObjectStore(tmp_path / f"lab{number}")
        work = job(osf, file, home, store)
        nursery.run(work, kill_after=noise.uniform(0.0, 0.1))
        kept += store.object_path(file).exists()
        assert is_right(store.object_path(file), file) or not store.object_path(file).exists()
        assert nursery.run(work) == 0
        assert is_right(store.object_path(file), file)
        assert list(store.incoming.iterdir()) == []
    assert kept < KILLS


def test_many_kills_of_one_download_still_come_to_an_end(
    nursery: Nursery, osf: OsfStandin, file: LockedFile, tmp_path: Path, home: Path
):
    """Ten kills of the same download: each call goes on with what the one before it kept."""
    store = ObjectStore(tmp_path / "lab")
    work = job(osf, file, home, store)
    for number in range(1, 11):
        osf.hold_at = PIECE  # counted anew in each answer
        assert nursery.run(work, kill_at=number * PIECE) == -signal.SIGKILL
        assert not store.object_path(file).exists()
    osf.hold_at = None
    assert nursery.run(work) == 0
    assert is_right(store.object_path(file), file)
    starts = {seen.headers.get("range") for seen in osf.seen if seen.host == "bucket"}
    assert len(starts) == 11


def test_control_a_plain_download_leaves_half_a_file(
    nursery: Nursery, osf: OsfStandin, file: LockedFile, tmp_path: Path
):
    """The naive way, urlretrieve to the final name, leaves a wrong file after a kill."""
    final = tmp_path / "ct.nii.gz"
    (url,) = file_urls(file, osf_site=osf.hosts["site"])
    osf.hold_at = SIZE // 2

    ended = nursery.run({"url": url, "naive": str(final), "watch": str(final)}, kill_at=SIZE // 4)

    assert ended == -signal.SIGKILL
    assert final.exists()
    assert not is_right(final, file)
