"""How a long step shows itself: bars on a terminal and in a notebook, lines in a log."""

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
"""Called with the number of items or bytes that have just been done."""

Progress = Callable[[str, int, Unit], AbstractContextManager[Advance]]
"""Called with a stage's name, total (0 if unknown) and unit; gives a context that yields an `Advance`."""

PROGRESS_VARIABLE: Final = "VERSE_DATA_PROGRESS"

DELAY: Final = 0.5
"""Seconds that a stage may take before a bar is shown of it."""

_EVERY: Final = 5.0  # seconds between two lines in a log
_WIDE: Final = 70  # columns of a terminal that have room for a bar and the rate


@contextmanager
def silent(stage: str, total: int, unit: Unit) -> Iterator[Advance]:
    """Show nothing."""
    del stage, total, unit
    yield ignore


def ignore(amount: int) -> None:
    """Do nothing with an amount that is done."""
    del amount


def default() -> Progress:
    """Return what fits stderr: bars, those of a notebook, or lines; `silent` where the user wants that."""
    if os.environ.get(PROGRESS_VARIABLE, "").strip().lower() in {"0", "off", "no", "false"}:
        return silent
    # IPython is not imported for the question whether this is the kernel of a notebook.
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
    """Leave one line behind, such as where the files lie, if `progress` has shown what came before."""
    if isinstance(progress, (LogLines, TerminalBars)) and progress.has_shown:
        progress.has_shown = False
        progress.write(line)


def spell_bytes(number: float) -> str:
    """Return a size as people read it, such as ``12.1 GB``; 1 kB is 1000 bytes."""
    return decimal(round(number))


class _Display:
    """What displays share: whether a stage was shown, and how a line is written."""

    has_shown = False

    def write(self, line: str) -> None:
        """Write a line at once; a log that cannot be written stops no work."""
        with suppress(OSError, ValueError):
            self._stream().write(f"{line}\n")
            self._stream().flush()

    def _stream(self) -> TextIO:
        return sys.stderr


class LogLines(_Display):
    """Writes a line about a stage every few seconds, and one at its end; none of a short stage.

    Parameters
    ----------
    delay : float
        Seconds between two lines.
    clock : callable
        Gives seconds that only grow.
    """

    def __init__(
        self, *, delay: float = _EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._delay, self._clock = delay, clock

    @contextmanager
    def __call__(self, stage: str, total: int, unit: Unit) -> Iterator[Advance]:
        """Write lines about one stage, and one when it is done."""
        from rich.progress import Progress as RichProgress

        meter, turn = RichProgress(disable=True, get_time=self._clock), threading.Lock()
        meter.add_task(stage, total=total or None, unit=unit)
        (task,) = meter.tasks
        due = ends = self._clock() + self._delay

        def advance(amount: int) -> None:
            nonlocal due
            meter.advance(task.id, amount)
            with turn:
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
        """Give what shows the state of one stage, and take it away at the end if it is not to stay."""
        yield lambda task: self.write(_line(task))


class NotebookBars(LogLines):
    """Draws a bar a stage below the cell of a notebook, and takes it away at the end.

    It needs no widgets, and so shows in JupyterLab, VS Code and Colab alike.

    Parameters
    ----------
    delay : float
        Seconds that a stage may take before its bar appears, and between two states of it.
    """

    def __init__(self, *, delay: float = DELAY) -> None:
        super().__init__(delay=delay)

    @contextmanager
    def _stage(self) -> Iterator[Callable[[Task], None]]:
        from IPython import display

        context = copy_context()  # it knows the cell, also where another thread advances the stage
        handles: list[Any] = []  # of what is below the cell: none yet, or one

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
        return sys.stdout  # which is not red


class TerminalBars(_Display):
    """Draws a bar a stage on stderr with rate and time left, and takes it away at the end.

    Parameters
    ----------
    delay : float
        Seconds that a stage may take before its bar appears.
    """

    def __init__(self, *, delay: float = DELAY) -> None:
        self._delay = delay
        self._bars: RichProgress | None = None

    @contextmanager
    def __call__(self, stage: str, total: int, unit: Unit) -> Iterator[Advance]:
        """Draw the bar of one stage; those of stages within it stand below."""
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
    """Return bars that leave nothing behind, and stdout alone: it may be data, on its way elsewhere."""
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
    """Return where a stage is in one line: what is done, the rate, and the time left or taken."""
    from rich.progress import TimeRemainingColumn

    time = TimeRemainingColumn(compact=True, elapsed_when_finished=True).render(task)
    return f"{task.description}: {', '.join(filter(None, (*_amount(task), str(time))))}"
