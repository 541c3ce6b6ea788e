"""Drill 7: eight processes want the same stores out of a cold cache, with locks and without."""

from __future__ import annotations

import pytest

from tests.support.program import run


def test_one_build_a_volume(fast_path):
    """With locks that work, each volume is built once and all eight read the truth."""
    found = run("kills", "race", fast_path, "sound")

    assert found["builds"] == [1, 1]
    assert (found["failed"], found["damaged"], found["stores"]) == (0, 0, 2)
    assert found["leftovers"] == []


@pytest.mark.parametrize("flock", ["a no-op", "ENOLCK", "ENOSYS"])
def test_dead_locks_cost_work_and_nothing_else(fast_path, flock):
    """Where locks do nothing or fail, several build, one wins, and all eight read the truth."""
    found = run("kills", "race", fast_path, flock)

    assert max(found["builds"]) <= 8
    assert (found["failed"], found["damaged"], found["stores"]) == (0, 0, 2)
    assert found["leftovers"] == []


def test_control_the_lock_saves_work(fast_path):
    """Without a lock more than one process builds, so that the first test can see."""
    assert sum(run("kills", "race", fast_path, "a no-op")["builds"]) >= 4
