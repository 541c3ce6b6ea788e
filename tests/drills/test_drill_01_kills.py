"""Drill 1: two hundred kills during builds: never a wrong reading, and the next build succeeds."""

from __future__ import annotations

from tests.support.program import run


def test_two_hundred_kills(fast_path):
    """Whatever moment a build is killed at, its final name holds the whole store or nothing."""
    found = run("kills", "kills", fast_path, 200)

    assert found["wrong"] == found["without manifest"] == found["leftovers"] == 0
    assert found["rebuilt"] == 200
    assert 50 <= found["finished"] <= 150, "a quarter is killed before the end, a quarter after"


def test_control_a_plain_write_is_read_wrong(fast_path):
    """A plain zarr write under the final name, killed, opens and reads as other voxels."""
    assert run("kills", "naive_kills", fast_path, 20)["wrong"] > 10
