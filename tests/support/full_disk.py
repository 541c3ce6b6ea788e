"""Commands on a disk that is full, in a process of its own: ``python -m tests.support.full_disk``.

It runs where a small disk has been mounted, and prints JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from verse_data import config
from verse_data.cli.main import run
from verse_data.config import HOME_VARIABLE
from verse_data.releases.repository import Repository

RELEASE = "lab"
PARTS = (0.0, 0.4, 0.95)
"""How much of the room that a command takes is there."""
_LITTLE = 64 << 10


def command(words: list[str], log: Path, *, unforeseen: bool = False) -> int:
    """Run the command line in a process of its own, and return its exit code; it speaks to `log`.

    `unforeseen` lets it find room when it asks: another process takes it right afterwards.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code: object = 70
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    if unforeseen:
        usage = shutil.disk_usage
        shutil.disk_usage = lambda _: usage("/")
    try:
        sys.argv = ["verse-data", *words]
        run()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 70)


def state() -> dict[str, Any]:
    """Return which files of the release are here, what is wrong, and what was left on its way in."""
    dataset = Repository(config.resolve().releases / RELEASE)
    beside = [path.name for path in dataset.path.parent.glob(".*")]
    if not dataset.path.exists():
        return {"here": [], "wrong": beside, "left": []}
    files = {dataset.object_path(file): file for file in dataset.lock().files}
    found = [path for path in dataset.path.glob(".git/annex/objects/**/*") if path.is_file()]
    wrong = [
        path.name for path in found if path not in files or _digest(path) != files[path].sha256
    ]
    return {
        "here": sorted(file.path for path, file in files.items() if path in found),
        "wrong": wrong + beside,
        "left": sorted(path.name for path in dataset.store.incoming.glob("*")),
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def resize(small: Path, room: int | None) -> None:
    """Leave so many bytes free on the disk; None is plenty."""
    used = shutil.disk_usage(small).used
    # A size of 0 would mean no limit.
    size = 256 << 20 if room is None else max(used + room // 4096 * 4096, 4096)
    subprocess.run(["mount", "-o", f"remount,size={size}", str(small)], check=True)


def start_from(before: Path, home: Path) -> None:
    """Make `home` what `before` is; nothing, if that does not exist."""
    shutil.rmtree(home, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, home, symlinks=True)


def full(small: Path, before: Path, log: Path, words: list[str]) -> dict[str, Any]:
    """Run a command with plenty of room, then with parts of what it took, each time from `before`.

    After each time the disk is given room, and the same command is run once more.
    """
    home = small / "home"
    os.environ[HOME_VARIABLE] = str(home)
    start_from(before, home)
    begin = shutil.disk_usage(small).used
    usual = {"code": command(words, log), "text": log.read_text(), "state": state()}
    taken = max(shutil.disk_usage(small).used - begin, _LITTLE)
    rounds = []
    for part, unforeseen in ((part, flag) for part in PARTS for flag in (False, True)):
        if unforeseen and (words[0] != "get" or not part):
            continue  # the others ask for no room beforehand
        start_from(before, home)
        resize(small, int(taken * part))
        code = command(words, log, unforeseen=unforeseen)
        first = {"part": part, "code": code, "text": log.read_text(), "state": state()}
        resize(small, None)
        later = {"code": command(words, log), "text": log.read_text(), "state": state()}
        rounds.append({**first, "later": later})
    return {"usual": usual, "rounds": rounds}


def naive(small: Path, before: Path, sources: Path) -> dict[str, Any]:
    """Copy files to their final names on a disk that holds one and a half of them."""
    home = small / "home"
    os.environ[HOME_VARIABLE] = str(home)
    start_from(before, home)
    dataset = Repository(config.resolve().releases / RELEASE)
    files = dataset.lock().files
    resize(small, files[0].size * 3 // 2)
    for file in files:
        target = dataset.object_path(file)
        with contextlib.suppress(OSError):
            target.parent.mkdir(parents=True)
            shutil.copyfile(sources / file.path, target)
    return state()


if __name__ == "__main__":
    mode, disk, *rest = sys.argv[1:]
    if mode == "naive":
        answer = naive(Path(disk), *map(Path, rest))
    else:
        answer = full(Path(disk), Path(rest[0]), Path(rest[1]), rest[2:])
    sys.stdout.write(json.dumps(answer))
