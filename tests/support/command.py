"""The ``verse-data`` command, from its entry point to its exit code, in this process.

A process of its own would take a second to import what this one has imported.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from verse_data.cli.main import run
from verse_data.config import HOME_VARIABLE

_UNHEARD = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""What Python itself does not show of a program."""


def verse_data(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these variables beside those of the test."""
    handler = signal.getsignal(signal.SIGTERM)
    code: object = None
    with (
        pytest.MonkeyPatch.context() as patch,
        _heard(1, "stdout", patch) as out,
        _heard(2, "stderr", patch) as err,
        warnings.catch_warnings(),
    ):
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["verse-data", *words])
        # As of the installed script, which is no module of a package.
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        warnings.resetwarnings()
        for category in _UNHEARD:
            warnings.simplefilter("ignore", category)
        try:
            run()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, handler)
        printed, said = out(), err()
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(words, code or 0, printed, said)


def platform_folders(folder: Path, patch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Let the data and cache folders of Linux lie in `folder`; return ours of both."""
    patch.delenv(HOME_VARIABLE, raising=False)
    for name in ("data", "cache"):
        patch.setenv(f"XDG_{name.upper()}_HOME", str(folder / name))
    return folder / "data" / "verse-data", folder / "cache" / "verse-data"


@contextmanager
def _heard(number: int, name: str, patch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Give what reads all that is written to a stream, by the programs that are started too."""
    before = os.dup(number)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), number)
        try:
            with open(number, "w", encoding="utf-8", closefd=False) as stream:
                patch.setattr(sys, name, stream)

                def read() -> str:
                    stream.flush()
                    kept.seek(0)
                    return kept.read().decode()

                yield read
        finally:
            os.dup2(before, number)
            os.close(before)
