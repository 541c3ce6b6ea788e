"""The ``verse-data`` command: wires the parts, and turns errors into texts and exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from verse_data import config
from verse_data.cli.common import note
from verse_data.cli.overview import Overview, help_width
from verse_data.config import __version__
from verse_data.errors import IncompleteTable, StorageError, VerseDataError

_STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM}
_OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}
_PARTS = (
    "releases",
    "dataset",
    "contents",
    "checks",
    "provenance",
    "cite",
    "tables",
    "query",
    "folds",
    "schemas",
    "cache",
    "preview",
    "doctor",
    "demo",
)

app = typer.Typer(
    name="verse-data",
    help="Versioned, validated, patient-grouped access to the VerSe vertebra CT data.",
    cls=Overview,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: it wraps in narrow terminals, where tables cut words
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _part in _PARTS:
    importlib.import_module(f"verse_data.cli.{_part}").register(app)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        sys.stdout.write(f"verse-data {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Versioned, validated, patient-grouped access to the VerSe vertebra CT data."""
    context.with_resource(_incomplete_tables_noted())


@contextmanager
def _incomplete_tables_noted() -> Iterator[None]:
    """Print warnings of incomplete tables as notes."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            (_show_warning if category is IncompleteTable else others)(
                message, category, *place, **more
            )

        warnings.simplefilter("always", IncompleteTable)
        warnings.showwarning = show
        yield


def run() -> None:
    """Run the command line; the exit codes are those of :mod:`verse_data.errors`.

    130 and 143 say that it was stopped, by Ctrl-C or SIGTERM.
    """
    signal.signal(signal.SIGTERM, _end)
    warnings.showwarning = _show_warning
    _open_closed_streams()
    try:
        app(terminal_width=help_width())
    except SystemExit as end:
        if end.code in _STOPPED:
            note("stopped. What was finished is kept: run the same command again, and it goes on.")
        raise
    except VerseDataError as error:
        note(f"error: {error}")
        raise SystemExit(error.exit_code) from None
    except Exception as error:  # noqa: BLE001 - the last stop before a person's terminal
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            place = error.filename or "standard output, or a file that was open"
            note(f"error: {place}: {error.strerror}. Check the disk and run it again.")
            _end_output()
            raise SystemExit(StorageError.exit_code) from None
        note(
            f"error: unexpected {type(error).__name__}: {error}\nThis is a fault of verse-data. {_keep_traceback()}"
        )
        raise SystemExit(1) from None


def _show_warning(
    message: Warning | str, category: type[Warning], *place: object, **more: object
) -> None:
    """Print a warning without file and line: its text is written for whoever typed the command."""
    del category, place, more
    note(f"warning: {message}")


def _open_closed_streams() -> None:
    """Let words and data go nowhere, where the caller closed stdout or stderr (``>&-``)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _end_output() -> None:
    """Write what waits for stdout; if that cannot be, let it go, so that it is not tried again at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End as after Ctrl-C, so that half-built things are cleared away."""
    del frame
    raise SystemExit(128 + number)


def _keep_traceback() -> str:
    """Write the current traceback to a log file and say where, or print it where that fails."""
    try:
        log = config.resolve().home / "logs" / f"error-{datetime.now(tz=UTC):%Y%m%dT%H%M%S}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        Path(log).write_text(traceback.format_exc())
    except (OSError, VerseDataError):
        return traceback.format_exc()
    return f"The details are in {log}; please report them."
