"""What a process that was killed leaves; and processes to kill: ``python -m tests.support.left``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from verse_data.files import staging
from verse_data.locks import machine
from verse_data.volumes.build import in_processes


def leave_temporary(parent: Path, stem: str = ".tmp-") -> Path:
    """Make in `parent` what a killed process of this machine leaves, and return it."""
    folder = parent / f"{stem}{machine()}-{'0' * 8}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wait(pids: Path) -> None:
    """Leave the id of this process in a folder, and do nothing for ever."""
    (pids / str(os.getpid())).touch()
    signal.pause()


if __name__ == "__main__":
    from tests.support import left  # by its own name, which workers can import

    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "workers":
        list(in_processes(left.wait, [where] * 2, workers=2))
    else:
        with staging(where) as staged:
            staged.mkdir()
            print("ready", flush=True)  # noqa: T201 - to the test that started this
            sys.stdin.read()
