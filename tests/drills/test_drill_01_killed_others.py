"""Drill 1, from outside: who lives is told right, and what the dead leave is swept.

Whatever the clock says, in containers with process ids of their own, and for workers whose parent
was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.program import ROOT
from verse_data.volumes.cache import prune

CONTAINER = ("unshare", "-Urp", "--fork", "--kill-child")
PATIENCE = 60.0


def start(*words: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a process that the test kills."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.support.left", *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def soon(is_so: object) -> bool:
    """Wait until something is so; False if it does not come."""
    end = time.monotonic() + PATIENCE
    while not is_so() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.05)
    return bool(is_so())  # type: ignore[operator]


@pytest.mark.parametrize("prefix", [(), CONTAINER], ids=["here", "in another container"])
def test_only_what_the_dead_left_is_swept(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    """A live build stays though the clock has jumped by years; killed, what it left goes at once."""
    if prefix and (
        not shutil.which(prefix[0]) or subprocess.run([*prefix, "true"], check=False).returncode
    ):
        pytest.skip("this user may not make a namespace of process ids")
    building = start("staging", tmp_path / "ab" / "store", prefix=prefix)
    assert building.stdout
    assert building.stdout.readline() == "ready\n"
    (folder,) = (tmp_path / "ab").iterdir()
    for year in (1e9, 4e9):
        for path in (folder / "store", folder):
            os.utime(path, (year, year))
        assert prune(tmp_path).leftovers == ()

    building.kill()
    building.communicate()

    assert soon(lambda: prune(tmp_path).leftovers or not folder.exists())
    assert not folder.exists()


def test_workers_end_after_their_parent_was_killed(tmp_path: Path) -> None:
    """Not one is left to wait for tasks that nobody gives."""
    parent = start("workers", tmp_path)
    assert soon(lambda: len(list(tmp_path.iterdir())) == 2)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    def lives(number: int) -> bool:
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return False
        state = Path(f"/proc/{number}/stat")
        return not state.exists() or " Z " not in state.read_text()  # else nobody has waited for it

    ended = soon(lambda: not any(map(lives, workers)))
    for number in filter(lives, workers):
        os.kill(number, signal.SIGKILL)
    assert ended
