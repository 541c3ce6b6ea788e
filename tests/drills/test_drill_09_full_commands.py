"""Drill 9, for commands: the disk fills up under lock, adopt, get and drop.

Each says so and names the bytes, nothing half-written stands at a final name, and with room the
same command goes through, with nothing to clean up by hand.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from osf_standin import Node, OsfStandin

from tests.support.full_disk import PARTS, RELEASE, command
from tests.support.program import run, small_disk
from verse_data.errors import DiskFull

NUMBERS = re.compile(r"\d (bytes|are) free")


@dataclass
class Place:
    """A node that is served, a tree with its files, and homes to start from."""

    small: Path
    prefix: tuple[str, ...]
    tree: Path
    empty: Path
    locked: Path
    filled: Path
    paths: list[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Serve three files; lock them in one home, and bring them into another."""
    small = tmp_path / "small"
    small.mkdir()
    prefix = small_disk(small, "256m")
    if prefix is None:
        pytest.skip("this user may not mount a tmpfs")
    node, noise, tree = Node("jtfa5"), random.Random(9), tmp_path / "tree"
    paths = [f"dataset-verse19training/rawdata/sub-verse90{n}_ct.nii.gz" for n in range(3)]
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(b"\x1f\x8b" + noise.randbytes(300_000))
    node.upload_tree(tree)
    homes = [tmp_path / name for name in ("empty", "locked", "filled")]
    with OsfStandin(node) as osf:
        for name, value in osf.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("VERSE_DATA_HOME", str(homes[1]))
        done(["lock", RELEASE, "--node", "jtfa5"], tmp_path / "log")
        shutil.copytree(homes[1], homes[2], symlinks=True)
        monkeypatch.setenv("VERSE_DATA_HOME", str(homes[2]))
        done(["adopt", RELEASE, str(tree)], tmp_path / "log")
        yield Place(small, prefix, tree, *homes, paths)


def done(words: list[str], log: Path) -> None:
    """Run a command that must succeed."""
    assert command(words, log) == 0, log.read_text()


@pytest.mark.parametrize(
    "verb",
    [
        "lock",
        pytest.param("adopt", marks=pytest.mark.slow),
        "get",
        pytest.param("drop", marks=pytest.mark.slow),
    ],
)
def test_a_command_on_a_full_disk_says_so_and_later_succeeds(
    place: Place, tmp_path: Path, verb: str
):
    """At each level it is DiskFull with bytes, and whole files only; with room, the usual end."""
    before, words = {
        "lock": (place.empty, ["--node", "jtfa5"]),
        "adopt": (place.locked, [str(place.tree)]),
        "get": (place.locked, []),
        "drop": (place.filled, []),
    }[verb]

    found = run(
        "full_disk", "full", place.small, before, tmp_path / "log", verb, RELEASE, *words,
        prefix=place.prefix,
    )  # fmt: skip

    usual = found["usual"]
    assert usual["code"] == 0, usual["text"]
    assert usual["state"] == {
        "here": place.paths if verb in {"adopt", "get"} else [],
        "wrong": [],
        "left": [],
    }
    assert len(found["rounds"]) >= len(PARTS)
    for one in found["rounds"]:
        # Dropping makes the room that it takes.
        if not (verb == "drop" and one["code"] == 0):
            assert one["code"] == DiskFull.exit_code, one["text"]
            assert NUMBERS.search(one["text"]), one["text"]
            assert "unexpected" not in one["text"]
        assert one["state"]["wrong"] == []
        assert one["later"]["code"] == 0, one["later"]["text"]
        assert one["later"]["state"] == usual["state"]


def test_control_a_copy_to_the_final_name_leaves_half_a_file(place: Place):
    """The naive way, copying to where the file belongs, leaves what this drill calls wrong."""
    found = run("full_disk", "naive", place.small, place.locked, place.tree, prefix=place.prefix)
    assert len(found["wrong"]) == 2
