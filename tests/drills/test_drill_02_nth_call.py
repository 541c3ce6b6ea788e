"""Drill 2: each file call of a build fails in turn, in five ways, or is the last before a kill."""

from __future__ import annotations

import pytest

from tests.support.kills import ERRNOS
from tests.support.program import run

# Which error it is makes no difference to the file: one of them and a kill stand for all.
RARE = [
    pytest.param(how, marks=pytest.mark.slow) for how in ("SIGKILL", *ERRNOS) if how != "ENOSPC"
]


@pytest.mark.parametrize("how", ["ENOSPC", *RARE])
def test_each_call_fails_in_turn(fast_path, how):
    """The error is ours, the target is whole or absent, and the next build succeeds."""
    found = run("kills", "nth_call", fast_path, how)

    assert found["foreign"] == []
    assert found["wrong"] == found["half"] == 0
    assert found["steps"] > (25 if how == "SIGKILL" else 80), "the drill must reach the end"
    if how != "SIGKILL":
        expected = {"ENOSPC": "DiskFull", "EACCES": "PermissionDenied", "EROFS": "PermissionDenied"}
        assert sum(found["errors"].values()) > 60
        assert set(found["errors"]) <= {expected.get(how, "StorageError")}


def test_control_a_build_in_place_leaves_halves(fast_path):
    """A build under the final name lets the system's errors out, and leaves half a store there."""
    found = run("kills", "naive_nth_call", fast_path, "ENOSPC")
    assert found["foreign"] + found["half"] > 3
    assert found["half"] > 0
