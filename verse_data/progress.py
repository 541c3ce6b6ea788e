"""Progress of long steps: bars on a terminal and in a notebook, lines in a log."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import copy_context
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from rich.filesize import decimal

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import Task

Unit = Literal["items", "bytes"]
Advance = Callable[[int], None]
"""Called with the number of items or bytes just done."""

Progress = Callable[[str, int, Unit], AbstractContextManager[Advance]]
"""Called with a stage's name, total (0 if unknown) and unit; returns a context with an `Advance`."""

PROGRESS_VARIABLE: Final = "VERSE_DATA_PROGRESS"
"""off shows no progress."""

DELAY: Final = 0.5
"""Seconds that a stage runs before its bar is shown."""

_LINE_SECONDS: Final = 5.0  # between two lines in a log
_WIDE: Final = 70  # columns of a terminal that fit a bar and the rate


@contextmanager
def silent(stage: str, total: int, unit: Unit) -> Iterator[Advance]:
    """Show nothing."""
    del stage, total, unit
    yield ignore


def ignore(amount: int) -> None:
    """Show nothing of an amount that is done."""
    del amount


def default() -> Progress:
    """Return the display for stderr: bars, a notebook's, or lines; `silent` if the user wants that."""
    if os.environ.get(PROGRESS_VARIABLE, "").strip().lower() in {"0", "off", "no", "false"}:
        return silent
    # In a notebook IPython is imported already; elsewhere it is not imported just to ask.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython and hasattr(ipython, "get_ipython") else None
    if getattr(shell, "kernel", None) is not None:
        return NotebookBars()
    return _for_stream(sys.stderr)


def _for_stream(stream: TextIO | None) -> Progress:
    """Return bars for a terminal that can draw, lines for other streams, and nothing for none."""
    if stream is None:
        return silent
    can_draw = os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}
    return TerminalBars() if stream.isatty() and can_draw else LogLines()


def conclude(progress: Progress, line: str) -> None:
    """Print a final line, such as where the files are, if `progress` has shown anything before."""
    if isinstance(progress, (LogLines, TerminalBars)) and progress.has_shown:
        progress.has_shown = False
        progress.write(line)


def spell_bytes(number: float) -> str:
    """Return a readable size, such as ``12.1 GB``; 1 kB is 1000 bytes."""
    return decimal(round(number))


class _Display:
    """Common part of displays: whether a stage was shown, and writing a line."""

    has_shown = False

    def write(self, line: str) -> None:
        """Write and flush a line; a log that cannot be written is no error."""
        with suppress(OSError, ValueError):
            self._stream().write(f"{line}\n")
            self._stream().flush()

    def _stream(self) -> TextIO:
        return sys.stderr


class LogLines(_Display):
    """Writes a line about a stage every few seconds, and one at its end; none for a short stage.

    Parameters
    ----------
    delay : float
        Seconds between two lines.
    clock : callable
        Returns monotonic seconds.
    """

    def __init__(
        self, *, delay: float = _LINE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._delay, self._clock = delay, clock

    @contextmanager
    def __call__(self, stage: str, total: int, unit: Unit) -> Iterator[Advance]:
        """Write lines about one stage, and one when it is done."""
        from rich.progress import Progress as RichProgress

        meter, lock = RichProgress(disable=True, get_time=self._clock), threading.Lock()
        meter.add_task(stage, total=total or None, unit=unit)
        (task,) = meter.tasks
        due = ends = self._clock() + self._delay

        def advance(amount: int) -> None:
            nonlocal due
            meter.advance(task.id, amount)
            with lock:
                if self._clock() >= due and not task.finished:
                    due = self._clock() + self._delay
                    show(task)

        with self._stage() as show:
            yield advance
            if self._clock() >= ends:
                self.has_shown = True
                show(task)

    @contextmanager
    def _stage(self) -> Iterator[Callable[[Task], None]]:
        """Yield a function that shows the state of one stage; a notebook's is cleared at the end."""
        yield lambda task: self.write(_line(task))


class NotebookBars(LogLines):
    """Draws a bar per stage below the cell of a notebook, and removes it at the end.

    It needs no widgets, and so works in JupyterLab, VS Code and Colab alike.

    Parameters
    ----------
    delay : float
        Seconds before the bar of a stage appears, and between two updates.
    """

    def __init__(self, *, delay: float = DELAY) -> None:
        super().__init__(delay=delay)

    @contextmanager
    def _stage(self) -> Iterator[Callable[[Task], None]]:
        from IPython import display

        context = copy_context()  # of the cell, for threads that advance the stage
        handles: list[Any] = []  # of the display below the cell: none yet, or one

        def show(task: Task) -> None:
            value = f'value="{task.completed}" max="{task.total}"' if task.total else ""
            html = f"<progress {value}></progress> {escape(_line(task))}"
            bundle = {"text/plain": _line(task), "text/html": html}
            if handles:
                handles[0].update(bundle, raw=True)
            else:
                draw: Any = display.display  # partly typed
                handles.append(draw(bundle, raw=True, display_id=True))

        try:
            yield lambda task: context.run(show, task)
        finally:
            for drawn in handles:
                drawn.update({"text/plain": ""}, raw=True)

    def _stream(self) -> TextIO:
        return sys.stdout  # notebooks show stderr in red


class TerminalBars(_Display):
    """Draws a bar per stage on stderr with rate and time left, and removes it at the end.

    Parameters
    ----------
    delay : float
        Seconds before the bar of a stage appears.
    """

    def __init__(self, *, delay: float = DELAY) -> None:
        self._delay = delay
        self._bars: RichProgress | None = None

    @contextmanager
    def __call__(self, stage: str, total: int, unit: Unit) -> Iterator[Advance]:
        """Draw the bar of one stage; bars of nested stages are below it."""
        bars = self._bars = self._bars or _rich_bars()
        task = bars.add_task(stage, total=total or None, unit=unit, visible=False)

        def show() -> None:
            self.has_shown = True
            bars.update(task, visible=True)
            bars.start()

        timer = threading.Timer(self._delay, show)
        timer.daemon = True
        timer.start()
        try:
            yield lambda amount: bars.advance(task, amount)
        finally:
            timer.cancel()
            timer.join()
            bars.remove_task(task)
            if not bars.tasks:
                bars.live.stop()
                self._bars = None


def _rich_bars() -> RichProgress:
    """Return bars that vanish when done and do not touch stdout, which may carry data."""
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Amount(progress.ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(", ".join(_amount(task)[: 2 if is_wide else 1]))

    console = Console(stderr=True, force_jupyter=False)
    is_wide = console.width >= _WIDE
    columns: list[Any] = [progress.TextColumn("{task.description}", markup=False)]
    columns += [progress.BarColumn(bar_width=None)] if is_wide else []
    columns += [Amount(), progress.TimeRemainingColumn(compact=True)]
    return progress.Progress(
        *columns, console=console, transient=True, redirect_stdout=False, expand=is_wide
    )


def _amount(task: Task) -> list[str]:
    """Return how much of a stage is done, and of bytes the rate."""
    from rich import progress

    if task.fields["unit"] != "bytes":
        return [str(progress.MofNCompleteColumn().render(task))]
    columns = (progress.DownloadColumn(), progress.TransferSpeedColumn())
    return [str(column.render(task)) for column in columns]


def _line(task: Task) -> str:
    """Return the state of a stage in one line: amount done, rate, and time left or taken."""
    from rich.progress import TimeRemainingColumn

    time = TimeRemainingColumn(compact=True, elapsed_when_finished=True).render(task)
    return f"{task.description}: {', '.join(filter(None, (*_amount(task), str(time))))}"
