"""Drill 13: 25 kills of ``datalad get``; then it comes to its end, and every byte is right."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin
from osf_standin.server import PIECE
from support.calls import call

from verse_data.config import Config
from verse_data.releases.environment import tool_environment
from verse_data.releases.osf import walk_node
from verse_data.releases.repository import Repository
from verse_data.releases.verify import drop_files

KILLS = 25
FILES = 6
SIZE = 400_000
# Imports DataLad once, and forks a get for each line; so a kill costs no start-up. A line tells how
# many bytes shall have come before the get is killed, with all that it started.
NURSERY = """
import os, signal, sys, time
from contextlib import suppress
from pathlib import Path
from datalad.distribution.dataset import Dataset
import datalad.distribution.get
annex = Path(sys.argv[1], ".git", "annex")

def come():
    total = 0
    for path in (*annex.glob("tmp/SHA256E-*"), *annex.glob("objects/*/*/*/SHA256E-*")):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total

for line in sys.stdin:
    until, enough = time.monotonic() + 300, come() + int(line)
    child = os.fork()
    if not child:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        Dataset(sys.argv[1]).get(".", result_renderer="disabled", on_failure="ignore")
        os._exit(0)
    ended = 0
    while not ended and come() <= enough and time.monotonic() < until:
        ended, _ = os.waitpid(child, os.WNOHANG)
        time.sleep(0.002)
    if not ended:
        with suppress(ProcessLookupError):  # not waited for yet, so the number is still the child's
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print("ended", flush=True)
"""
OURS = """
import sys
from pathlib import Path
from verse_data.releases.repository import Repository
dataset = Repository(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
dataset.fetch(dataset.lock().files, jobs=2)
"""
NAIVE = """
import sys, urllib.request
print("ready", flush=True)
sys.stdin.readline()
with urllib.request.urlopen(sys.argv[2]) as response, open(sys.argv[1], "wb") as stream:
    while block := response.read(1 << 14):
        stream.write(block)
"""


@pytest.fixture
def place(home: Path) -> Iterator[tuple[OsfStandin, Repository]]:
    """Serve a node, and build its dataset."""
    node = Node("jtfa5")
    for number in range(FILES):
        content = b"\x1f\x8b" + random.Random(number).randbytes(SIZE)
        node.upload(f"rawdata/sub-verse{number:03}/sub-verse{number:03}_ct.nii.gz", content)
    with OsfStandin(node) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        dataset = Repository(home / "lab", config=config)
        dataset.publish(walk_node("jtfa5", config=config, release="lab", clock=FakeClock()))
        yield osf, dataset


def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a child in a group of its own, up to where it waits for its sign."""
    environment = tool_environment() | {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "annex.security.allowed-ip-addresses",
        "GIT_CONFIG_VALUE_0": "127.0.0.1",
        # Else git-annex has a helper that outlives the kill and holds the lock of its file, and each
        # later get waits seconds for it.
        "GIT_CONFIG_KEY_1": "annex.stalldetection",
        "GIT_CONFIG_VALUE_1": "false",
        "DATALAD_LOG_LEVEL": "error",
    }
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def kill_when(
    child: subprocess.Popen[bytes], reached: Callable[[], bool], *, alone: bool = False
) -> None:
    """Give a child its sign, and kill it once it got so far: with all that it started, or alone."""
    with child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        child.stdin.write(b"go\n")
        child.stdin.flush()
        until = time.monotonic() + 300
        while not reached() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        assert time.monotonic() < until, "the child never got so far"
        with suppress(ProcessLookupError):
            (os.kill if alone else os.killpg)(child.pid, signal.SIGKILL)


def has_begun(dataset: Repository) -> bool:
    """Whether the first bytes of a file have come."""
    return any(path.stat().st_size for path in dataset.store.incoming.rglob("*.part"))


def test_killed_gets_leave_nothing_wrong(place: tuple[OsfStandin, Repository]) -> None:
    """After each kill no object is wrong; our own get ends it, fsck is clean, the bytes are right."""
    osf, dataset = place
    files, dice = dataset.lock().files, random.Random(13)
    partly = 0
    nursery = start(NURSERY, str(dataset.path))
    assert nursery.stdin
    assert nursery.stdout
    for _ in range(KILLS):
        # Answers stand still once they have given so much, so that each kill is in time; of what
        # was sent, git-annex may have a piece that it has not written yet.
        osf.hold_at = dice.randrange(PIECE, SIZE)
        nursery.stdin.write(f"{osf.hold_at - PIECE}\n".encode())
        nursery.stdin.flush()
        assert nursery.stdout.readline() == b"ended\n"
        here = [file for file in files if dataset.has(file)]
        partly += 0 < len(here) < FILES
        for file in here:
            assert hashlib.sha256(dataset.source(file).read()).hexdigest() == file.sha256
        if len(here) == FILES:  # begin again, so that each kill has something to hit
            assert dataset.has(files[0])
            call(dataset.path, "git-annex", "drop", "--force", "--quiet", ".")
    osf.hold_at = None
    nursery.communicate()

    report = dataset.fetch(files)

    assert report.failed == ()
    assert partly
    assert "fail" not in call(dataset.path, "git-annex", "fsck", "--quiet")
    for file in files:
        assert hashlib.sha256(dataset.source(file).read()).hexdigest() == file.sha256


def test_our_own_get_goes_on_after_a_kill_of_it_alone(
    place: tuple[OsfStandin, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call is not locked out, and costs at most half again."""
    osf, dataset = place
    for name, value in osf.environment.items():
        monkeypatch.setenv(name, value)
    files = dataset.lock().files
    for pieces in (1, 3, 5):
        before, osf.hold_at = osf.sent_bytes, pieces * PIECE
        kill_when(start(OURS, str(dataset.path)), lambda: has_begun(dataset), alone=True)
        osf.hold_at = None

        assert dataset.fetch(files).failed == ()
        assert osf.sent_bytes - before <= 1.5 * FILES * SIZE
        for file in files:
            assert hashlib.sha256(dataset.source(file).read()).hexdigest() == file.sha256
        drop_files(dataset, files, unchecked=True)


def test_control_a_killed_plain_download_leaves_a_wrong_file(
    place: tuple[OsfStandin, Repository], tmp_path: Path
) -> None:
    """A download to the final name, killed on its way, leaves a file that is not the locked one."""
    osf, dataset = place
    file = dataset.lock().files[0]
    osf.hold_at = SIZE // 2
    final = tmp_path / "naive.nii.gz"

    def reached() -> bool:
        return final.exists() and final.stat().st_size > 0

    kill_when(start(NAIVE, str(final), dataset.addresses(file)[0]), reached)

    assert reached()
    assert hashlib.sha256(final.read_bytes()).hexdigest() != file.sha256
