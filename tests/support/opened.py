"""Which files this process opens, as Python's own audit events tell: no clock, no mock."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_running: list[list[str]] = []


@contextmanager
def opened_below(folder: Path) -> Iterator[list[str]]:
    """Give a list that grows by the path, relative to `folder`, of each file opened there."""
    _hook()
    every: list[str] = []
    below: list[str] = []
    _running.append(every)
    try:
        yield below
    finally:
        _running.remove(every)
        start = f"{folder.absolute()}{os.sep}"
        below += [path.removeprefix(start) for path in every if path.startswith(start)]


@cache
def _hook() -> None:
    """Listen from now on: a hook cannot be taken away again."""
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _running and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - no calls that audit again
        for paths in _running:
            paths.append(path)
