"""Each command that needs no network, in a fresh process in which a socket is death."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.trees import write_tree

DEADLY = 99
# Comes before everything else, also before what libraries do while they are imported.
FORBID = f"""
import os, socket, traceback

def refuse(*args, **options):
    traceback.print_stack()
    os._exit({DEADLY})

class Refused(socket.socket):
    def __init__(self, *args, **options):
        refuse()

socket.socket = Refused
socket.create_connection = socket.getaddrinfo = refuse
"""


def offline(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python with `words` where no socket can be opened."""
    environment = {
        **os.environ,
        "VERSE_DATA_HOME": str(folder / "home"),
        "VERSE_DATA_OFFLINE": "1",
        "PYTHONPATH": str(folder / "forbid"),
    }
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lock a small tree, without the network as well."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "forbid").mkdir()
    (folder / "forbid" / "sitecustomize.py").write_text(FORBID)
    write_tree(folder / "tree")
    shutil.make_archive(str(folder / "tree"), "zip", folder / "tree")
    words = ("lock", "phantom", "--from-tree", "tree", "--no-check")
    locked = offline(folder, "-m", "verse_data", *words)
    assert locked.returncode == 0, locked.stderr
    return folder


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("status phantom", 0),
        ("verify phantom", 0),
        ("provenance phantom", 0),
        ("export prov phantom", 0),
        ("diff phantom v1 v1", 0),
        ("get phantom", 0),
        ("adopt phantom tree", 0),
        ("adopt phantom tree.zip", 0),
        ("drop phantom", 5),
        ("drop phantom --unchecked --scan verse900", 0),
        ("lock verse19", 5),
    ],
)
def test_no_command_opens_a_socket_offline(place: Path, words: str, code: int) -> None:
    """Not even the look for IPv6 that requests takes when it is imported."""
    done = offline(place, "-m", "verse_data", *words.split())

    assert done.returncode == code, done.stderr


def test_control_the_import_of_requests_opens_one(place: Path) -> None:
    """What the commands must not do dies here."""
    assert offline(place, "-c", "import requests").returncode == DEADLY
