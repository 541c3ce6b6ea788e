"""How a long step tells the person who waits: one bar a stage, on stderr, only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

Unit = Literal["items", "bytes"]
Advance = Callable[[int], None]
"""Called with the number of items or bytes that have just been done."""

Progress = Callable[[str, int, Unit], AbstractContextManager[Advance]]
"""Called with a stage's name, total and unit; gives a context that yields an `Advance`."""


@contextmanager
def silent(stage: str, total: int, unit: Unit) -> Iterator[Advance]:
    """Show nothing."""
    del stage, total, unit
    yield ignore


@contextmanager
def bars(stage: str, total: int, unit: Unit) -> Iterator[Advance]:
    """Show one bar on stderr with rate and time left."""
    from rich import progress
    from rich.console import Console

    count = progress.DownloadColumn() if unit == "bytes" else progress.MofNCompleteColumn()
    bar = progress.Progress(
        progress.TextColumn("{task.description:<28}"),
        progress.BarColumn(bar_width=30),
        count,
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(stage, total=total)
        yield lambda amount: bar.advance(task, amount)


def ignore(amount: int) -> None:
    """Tell nobody."""
    del amount


def default() -> Progress:
    """Return :func:`bars` if a person looks at stderr, else :func:`silent`."""
    return bars if sys.stderr.isatty() else silent
