"""Drill 1: kills during builds: never a wrong reading, and the next build succeeds."""

from __future__ import annotations

import pytest

from tests.support.program import run


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_at_any_moment(fast_path, count):
    """Whatever moment a build is killed at, its final name holds the whole store or nothing."""
    found = run("kills", "kills", fast_path, count)

    assert found["wrong"] == found["without manifest"] == found["leftovers"] == 0
    assert found["rebuilt"] == count
    assert count / 4 <= found["finished"] <= count * 3 / 4, (
        "a quarter is killed before the end, a quarter after"
    )


def test_control_a_plain_write_is_read_wrong(fast_path):
    """A plain zarr write under the final name, killed, opens and reads as other voxels."""
    assert run("kills", "naive_kills", fast_path, 20)["wrong"] > 10
