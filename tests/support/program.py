"""Running a test's helper as a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: object, timeout: float = 900, prefix: tuple[str, ...] = ()) -> Any:
    """Run ``python -m tests.support.<module>`` and return the JSON that it prints."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", f"tests.support.{module}", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def small_disk(folder: Path, size: str) -> tuple[str, ...] | None:
    """Return a prefix for `run` under which a disk of `size` lies at `folder`, in memory.

    None if this user may not mount one in a namespace of its own.
    """
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    prefix = ("unshare", "-Urm", "sh", "-c", mount, str(folder))
    try:
        done = subprocess.run([*prefix, "true"], check=False, capture_output=True)
    except FileNotFoundError:
        return None
    return None if done.returncode else prefix
