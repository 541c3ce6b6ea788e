"""Fixtures of the drills."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is one.

    Drills that flush thousands of files take minutes on a slow disk, and a kill looks the same.
    """
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 1 << 28:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix=f"verse-drill-{os.getpid()}-", dir=memory))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
