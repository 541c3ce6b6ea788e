"""README and docs as tests: every block runs, in order, on a phantom in a cache root of its own."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

_WILDCARD = "..."


def run_console(example: Example) -> None:
    """Run each ``$ command`` of a block; what is printed must be what stands below it.

    ``...`` stands for anything, within a line or, on a line of its own, for any lines.
    """
    for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        done = subprocess.run(
            command,
            check=False,
            shell=True,
            cwd=example.namespace["folder"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=example.namespace["environment"],
        )
        if not re.fullmatch(_pattern(expected), _tidy(done.stdout), flags=re.DOTALL):
            message = (
                f"$ {command}\nexpected:\n{expected}\ngot (exit {done.returncode}):\n{done.stdout}"
            )
            raise AssertionError(message)


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _pattern(expected: str) -> str:
    if not expected.strip():
        return ".*"
    return ".*".join(re.escape(part) for part in _tidy(expected).split(_WILDCARD))


@functools.cache
def phantom_home() -> tempfile.TemporaryDirectory[str]:
    """Return a folder with the phantom's files and a home with it, locked and converted; made once."""
    from verse_data.api import lock_tree, open_release
    from verse_data.phantom import write

    kept = tempfile.TemporaryDirectory(prefix="verse-docs-")
    folder = Path(kept.name)
    lock_tree("phantom", write(folder / "tree", shape=(48, 96, 36)), root=folder / "home")
    open_release("phantom", root=folder / "home").build_cache(workers=1)
    return kept


def set_up(namespace: dict[str, Any]) -> None:
    """Give a page a folder of its own with the phantom, and its home to the library and commands."""
    kept = tempfile.TemporaryDirectory(prefix="verse-docs-")
    folder = Path(kept.name)
    shutil.copytree(phantom_home().name, folder, symlinks=True, dirs_exist_ok=True)
    programs = str(Path(sys.executable).parent)
    patch = pytest.MonkeyPatch()
    patch.setenv("VERSE_DATA_HOME", str(folder / "home"))
    patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("COLUMNS", "100")
    patch.setenv("VERSE_DATA_PROGRESS", "off")  # a busy machine would add lines
    patch.chdir(folder)
    namespace |= {"folder": folder, "environment": dict(os.environ), "kept": kept, "patch": patch}
    namespace["installed"] = lambda name: importlib.util.find_spec(name) is not None  # for skip


def tear_down(namespace: dict[str, Any]) -> None:
    """Undo :func:`set_up`."""
    namespace["patch"].undo()
    namespace["kept"].cleanup()


pytest_collect_file = Sybil(
    parsers=[
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser(language="console", evaluator=run_console),
    ],
    patterns=["README.md", "docs/*.md"],
    setup=set_up,
    teardown=tear_down,
).pytest()
