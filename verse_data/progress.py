"""How a long step tells the person who waits: bars on a terminal and in a notebook, lines in a log."""

from __future__ import annotations

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Unit = Literal["items", "bytes"]
Advance = Callable[[int], None]
"""Called with the number of items or bytes that have just been done."""

Progress = Callable[[str, int, Unit], AbstractContextManager[Advance]]
"""Called with a stage's name, total (0 if unknown) and unit; gives a context that yields an `Advance`."""

PROGRESS_VARIABLE = "VERSE_DATA_PROGRESS"

DELAY: Final = 0.5
"""Seconds that a stage may take before anything is shown of it."""

_EVERY: Final = 5.0  # seconds between two lines in a log
_REFRESH: Final = 0.5  # seconds between two states of a bar in a notebook
_WINDOW: Final = 30.0  # seconds over which the rate is measured
_WIDE: Final = 70  # columns of a terminal that have room for a bar and the rate


@contextmanager
def silent(stage: str, total: int, unit: Unit) -> Iterator[Advance]:
    """Show nothing."""
    del stage, total, unit
    yield ignore


def ignore(amount: int) -> None:
    """Tell nobody."""
    del amount


def default() -> Progress:
    """Return what fits stderr: bars, those of a notebook, or lines; `silent` where the user wants that."""
    if os.environ.get(PROGRESS_VARIABLE, "").strip().lower() in {"0", "off", "no", "false"}:
        return silent
    if _in_notebook():
        return NotebookBars()
    return _for_stream(sys.stderr)


def _for_stream(stream: TextIO | None) -> Progress:
    """Return bars for a terminal that can draw, and lines for other streams; a program may have none."""
    if stream is None:
        return silent
    drawing = stream.isatty() and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}
    return TerminalBars() if drawing else LogLines()


def conclude(progress: Progress, line: str) -> None:
    """Leave one line behind, such as where the files lie, if `progress` has shown what came before.

    Short steps leave nothing, and a callable of the user's own is told of stages alone.
    """
    if isinstance(progress, _Display):
        progress.conclude(line)


def spell_bytes(number: float) -> str:
    """Return a size as people read it, such as ``12.1 GB``; 1 kB is 1000 bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(number) < 999.5 or unit == "GB":
            break
        number /= 1000
    digits = 1 if unit in {"MB", "GB"} and abs(number) < 99.5 else 0
    return f"{number:,.{digits}f} {unit}"


def spell_seconds(seconds: float) -> str:
    """Return a duration as people read it, such as ``3 min 20 s``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


class _Meter:
    """Counts what is done of one stage, and says it with rate and time left."""

    def __init__(self, stage: str, total: int, unit: Unit, clock: Callable[[], float]) -> None:
        self.stage, self.total, self.unit, self.done = stage, total, unit, 0
        self._clock, self._began, self._lock = clock, clock(), threading.Lock()
        self._seen = deque([(self._began, 0)])

    def advance(self, amount: int) -> None:
        """Count `amount` more; any thread may."""
        with self._lock:
            self.done += amount

    def line(self) -> str:
        """Return one line about where the stage is, measured now."""
        now = self._clock()
        while len(self._seen) > 1 and now - self._seen[1][0] >= _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        self._seen.append((now, self.done))
        rate = (self.done - before) / (now - since) if now > since else 0.0
        words = [self._amount()]
        if rate > 0 and self.unit == "bytes":
            words.append(f"{spell_bytes(rate)}/s")
        if rate > 0 and self.total > self.done:
            words.append(f"{spell_seconds((self.total - self.done) / rate)} left")
        return f"{self.stage}: {', '.join(words)}"

    def last_line(self) -> str:
        """Return the line for the end: what was done, in what time."""
        return f"{self.stage}: {self._amount()} in {spell_seconds(self._clock() - self._began)}"

    def _amount(self) -> str:
        spell = spell_bytes if self.unit == "bytes" else "{:,}".format
        if self.total <= 0:
            return spell(self.done)
        share = f" ({100 * self.done // self.total}%)" if self.done < self.total else ""
        return f"{spell(self.done)} of {spell(self.total)}{share}"


class _Display(ABC):
    """What the three displays share: whether something was shown, and the line that is left."""

    _shown = False

    @abstractmethod
    def __call__(self, stage: str, total: int, unit: Unit) -> AbstractContextManager[Advance]:
        """Show one stage."""

    def conclude(self, line: str) -> None:
        """Write `line` if a stage has been shown since the last time."""
        if self._shown:
            self._shown = False
            self._write(line)

    def _write(self, line: str) -> None:
        _write(sys.stderr, line)


class LogLines(_Display):
    """Writes a line every few seconds, for logs and pipes; nothing for a stage that is done before.

    Parameters
    ----------
    stream : TextIO, optional
        Default: stderr.
    every : float
        Seconds between two lines.
    clock : callable
        Gives seconds that only grow.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        every: float = _EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._every, self._clock = stream, every, clock

    @contextmanager
    def __call__(self, stage: str, total: int, unit: Unit) -> Iterator[Advance]:
        """Write lines about one stage, and one when it is done."""
        meter, writing = _Meter(stage, total, unit, self._clock), threading.Lock()
        due = ends = self._clock() + self._every

        def advance(amount: int) -> None:
            nonlocal due
            meter.advance(amount)
            with writing:
                if self._clock() >= due and meter.done != total:
                    due = self._clock() + self._every
                    self._write(meter.line())

        yield advance
        if self._clock() >= ends:
            self._shown = True
            self._write(meter.last_line())

    def _write(self, line: str) -> None:
        _write(self._stream or sys.stderr, line)


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
        self._stages = 0

    @contextmanager
    def __call__(self, stage: str, total: int, unit: Unit) -> Iterator[Advance]:
        """Draw the bar of one stage; those of stages within it stand below."""
        if self._bars is None:
            self._bars = _rich_bars()
        bars = self._bars
        task = bars.add_task(stage, total=total or None, unit=unit, visible=False)

        def show() -> None:
            self._shown = True
            bars.update(task, visible=True)
            bars.start()

        self._stages += 1
        try:
            with _ticking(show, delay=self._delay, every=None):
                yield lambda amount: bars.advance(task, amount)
        finally:
            self._stages -= 1
            bars.remove_task(task)
            if not self._stages:
                bars.live.stop()
                self._bars = None


def _rich_bars() -> RichProgress:
    """Return bars that leave nothing behind, and stdout alone: it may be data, on its way elsewhere."""
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Count(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            column = progress.DownloadColumn() if _is_bytes(task) else progress.MofNCompleteColumn()
            return column.render(task)

    class Rate(progress.TransferSpeedColumn):
        def render(self, task: progress.Task) -> Text:
            return super().render(task) if _is_bytes(task) else Text("")

    console = Console(stderr=True, force_jupyter=False)
    columns: list[Any] = [progress.TextColumn("{task.description}", markup=False), Count()]
    if console.width >= _WIDE:
        columns[1:1] = [progress.BarColumn(bar_width=None)]
        columns += [Rate()]
    columns += [progress.TimeRemainingColumn(compact=True)]
    return progress.Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        expand=console.width >= _WIDE,
    )


def _is_bytes(task: Any) -> bool:
    return bool(task.fields["unit"] == "bytes")


class NotebookBars(_Display):
    """Draws a bar a stage below the cell of a notebook, and takes it away at the end.

    It needs no widgets, and so shows in JupyterLab, VS Code and Colab alike.

    Parameters
    ----------
    delay : float
        Seconds that a stage may take before its bar appears.
    clock : callable
        Gives seconds that only grow.
    """

    def __init__(
        self, *, delay: float = DELAY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._delay, self._clock = delay, clock

    @contextmanager
    def __call__(self, stage: str, total: int, unit: Unit) -> Iterator[Advance]:
        """Draw the bar of one stage."""
        meter = _Meter(stage, total, unit, self._clock)
        handles: list[Any] = []  # of what is below the cell: none yet, or one

        def draw() -> None:
            bundle = _bar_for_notebook(meter)
            for drawn in handles:
                drawn.update(bundle, raw=True)
            if not handles:
                handles.append(_display(bundle))
                self._shown = True

        try:
            with _ticking(draw, delay=self._delay, every=_REFRESH):
                yield meter.advance
        finally:
            for drawn in handles:
                drawn.update({"text/plain": ""}, raw=True)

    def _write(self, line: str) -> None:
        _write(sys.stdout, line)


def _display(bundle: dict[str, str]) -> Any:
    """Show something below the cell that can be replaced later; only a notebook calls this."""
    from IPython import display

    show: Any = display.display  # partly typed
    return show(bundle, raw=True, display_id=True)


def _bar_for_notebook(meter: _Meter) -> dict[str, str]:
    """Return the state of a stage as a bar of HTML, and as plain text."""
    from html import escape

    line = meter.line()
    value = f'value="{meter.done}" max="{meter.total}"' if meter.total > 0 else ""
    return {"text/plain": line, "text/html": f"<progress {value}></progress> {escape(line)}"}


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython is not imported for the question."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def _ticking(tick: Callable[[], None], *, delay: float, every: float | None) -> Iterator[None]:
    """Call `tick` in a thread after `delay` seconds, then `every` so many, until the context ends."""
    ended, context = threading.Event(), copy_context()  # the context knows the notebook's cell

    def run() -> None:
        wait: float | None = delay
        while wait is not None and not ended.wait(wait):
            context.run(tick)
            wait = every

    thread = threading.Thread(target=run, name="verse-data progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write(stream: TextIO | None, line: str) -> None:
    """Write a line at once; a log that cannot be written stops no work."""
    if stream is not None:
        with suppress(OSError, ValueError):
            stream.write(line + "\n")
            stream.flush()
