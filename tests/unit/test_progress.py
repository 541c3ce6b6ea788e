"""What long steps show on a terminal, in a log, and where nobody wants to see anything."""

from __future__ import annotations

import copy
import io
import os
import pty
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from verse_data.progress import (
    LogLines,
    NotebookBars,
    TerminalBars,
    conclude,
    default,
    silent,
    spell_bytes,
)


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_every_few_seconds_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lines name the stage, what is done of what, the rate and the time left."""
    clock = Clock()

    with LogLines(clock=clock)("Fetching files", 12_000_000_000, "bytes") as advance:
        for _ in range(120):
            clock.now += 1
            advance(100_000_000)
    lines = capsys.readouterr().err.splitlines()

    assert lines[0] == "Fetching files: 0.5/12.0 GB, 100.0 MB/s, 01:55"
    assert lines[-2] == "Fetching files: 11.5/12.0 GB, 100.0 MB/s, 00:05"
    assert lines[-1] == "Fetching files: 12.0/12.0 GB, 100.0 MB/s, 02:00"
    assert len(lines) == 24


def test_items_are_counted_and_an_unknown_total_is_not_guessed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A total of 0 means that nobody knows it."""
    clock = Clock()
    show = LogLines(clock=clock)

    with show("Building the cache", 4, "items") as advance:
        advance(1)
        clock.now += 8
        advance(1)
    with show("Downloading the archive", 0, "bytes") as advance:
        advance(8_000)
        clock.now += 8
        advance(8_000)

    assert capsys.readouterr().err.splitlines() == [
        *["Building the cache: 2/4, 00:16"] * 2,
        *["Downloading the archive: 16.0/? kB, 1.0 kB/s"] * 2,
    ]


def test_a_short_step_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither of the stage, nor of where its result lies; after a long one, that is said once."""
    clock = Clock()
    show = LogLines(clock=clock)

    with show("Fetching files", 10, "bytes") as advance:
        clock.now += 4
        advance(10)
    conclude(show, "10 bytes in 1 file at /data")
    assert capsys.readouterr().err == ""
    with show("Fetching files", 10, "bytes") as advance:
        clock.now += 6
        advance(10)
    conclude(show, "10 bytes in 1 file at /data")
    conclude(show, "nothing more")

    assert capsys.readouterr().err.splitlines()[1:] == ["10 bytes in 1 file at /data"]


def test_an_error_gets_no_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A step that failed is not said to be done."""
    clock = Clock()

    def work() -> None:
        with LogLines(clock=clock)("Hashing files", 10, "bytes") as advance:
            clock.now += 6
            advance(5)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()

    assert len(capsys.readouterr().err.splitlines()) == 1


def test_threads_may_advance_one_stage_together(capsys: pytest.CaptureFixture[str]) -> None:
    """No amount is lost."""
    clock = Clock()

    with LogLines(clock=clock)("Fetching files", 4_001, "items") as advance:
        workers = [
            threading.Thread(target=lambda: [advance(1) for _ in range(1000)]) for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        clock.now += 6

    assert capsys.readouterr().err.startswith("Fetching files: 4000/4001")


def test_a_log_that_cannot_be_written_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the log may be full, or its reader gone."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    sys.stderr.close()

    with LogLines(delay=0)("Fetching files", 2, "bytes") as advance:
        advance(1)


class Screen:
    """What was written to a terminal."""

    def __init__(self, descriptor: int) -> None:
        self.text, self._descriptor = "", descriptor
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other end was closed
            while piece := os.read(self._descriptor, 4096):
                with self._more:
                    self.text += piece.decode()
                    self._more.notify_all()

    def wait_for(self, words: str) -> None:
        with self._more:
            assert self._more.wait_for(lambda: words in self.text, timeout=60)

    def close(self) -> None:
        self._reader.join()
        os.close(self._descriptor)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[Screen]:
    """Make stderr a terminal of so many columns."""
    master, slave = pty.openpty()
    screen = Screen(master)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with open(slave, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stderr", stream)
        yield screen
        monkeypatch.undo()
    screen.close()


@pytest.mark.parametrize("columns", [40, 100])
def test_a_terminal_gets_a_bar_that_goes_away_and_one_line_that_stays(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """The last thing on the screen is the line; the bar before it was erased."""
    with terminal(monkeypatch, columns) as screen:
        show = TerminalBars(delay=0)
        with show("Fetching files", 2_000_000, "bytes") as advance:
            advance(1_000_000)
            screen.wait_for("1.0/2.0 MB")
        conclude(show, "2.0 MB in 1 file at /data")

    assert screen.text.rindex("\x1b[2K") > screen.text.rindex("Fetching files")
    assert screen.text.endswith("2.0 MB in 1 file at /data\r\n")


def test_a_short_step_shows_nothing_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not where one stage runs within another, or an error ends it."""
    with terminal(monkeypatch, 80) as screen:
        show = TerminalBars(delay=1e6)

        def work() -> None:
            with show("Downloading", 0, "bytes"), show("Adopting", 3, "items") as advance:
                advance(1)
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            work()
        conclude(show, "3 files at /data")

    assert screen.text == ""


def test_what_fits_stderr_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars on a terminal, lines where it cannot draw or is a pipe, and nothing where that is wanted."""
    with terminal(monkeypatch, 80):
        monkeypatch.delenv("VERSE_DATA_PROGRESS")
        assert isinstance(default(), TerminalBars)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(default(), LogLines)
    monkeypatch.delenv("VERSE_DATA_PROGRESS", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(default(), LogLines)
    monkeypatch.setenv("VERSE_DATA_PROGRESS", "off")
    assert default() is silent
    monkeypatch.delenv("VERSE_DATA_PROGRESS")
    monkeypatch.setattr(sys, "stderr", None)
    assert default() is silent


@pytest.mark.parametrize("show", [LogLines(), TerminalBars(), NotebookBars(), silent])
def test_displays_can_be_copied(show: object) -> None:
    """An opened release holds one, and may be copied, or sent to another process."""
    assert type(copy.deepcopy(show)) is type(show)


def test_sizes_are_spelt_as_people_read_them() -> None:
    """1 kB is 1000 bytes."""
    sizes = [0, 999, 1000, 12_345_678, 12_110_000_000]

    assert [spell_bytes(size) for size in sizes] == [
        *("0 bytes", "999 bytes", "1.0 kB", "12.3 MB", "12.1 GB")
    ]
