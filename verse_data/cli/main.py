"""The ``verse-data`` command: its parts, and how errors become messages and exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
import warnings
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from verse_data.cli import (
    cache,
    demo,
    doctor,
    evaluate,
    export,
    look,
    overlays,
    predictions,
    provenance,
    release,
    report,
    tables,
)
from verse_data.cli.common import Overview, help_width, note
from verse_data.config import __version__
from verse_data.errors import IncompleteTable, StorageError, VerseDataError

_STOP_CODES = {128 + signal.SIGINT, 128 + signal.SIGTERM}
_NO_TEMPORARY = "No usable temporary directory"

app = typer.Typer(
    name="verse-data",
    help="Versioned, validated, patient-grouped access to the VerSe vertebra CT data.",
    cls=Overview,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: it wraps in narrow terminals, where tables cut words
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _part in (
    release,
    tables,
    report,
    cache,
    look,
    demo,
    predictions,
    evaluate,
    overlays,
    provenance,
    export,
    doctor,
):
    app.add_typer(_part.app)


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
    context.with_resource(warnings.catch_warnings())
    warnings.simplefilter("always", IncompleteTable)
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str, category: type[Warning], *place: object, **more: object
) -> None:
    """Print a warning without file and line, which mean nothing to whoever typed the command."""
    del category, place, more
    note(f"warning: {message}")


def run() -> None:
    """Run the command line; the exit codes are those of :mod:`verse_data.errors`.

    130 and 143 mean that it was stopped, by Ctrl-C or SIGTERM.
    """
    signal.signal(signal.SIGTERM, _stop)
    _open_closed_streams()
    try:
        app(terminal_width=help_width())
    except SystemExit as end:
        if end.code in _STOP_CODES:
            note("stopped. Run the same command again: finished files and stores are used again.")
        raise
    except VerseDataError as error:
        note(f"error: {error}")
        raise SystemExit(error.exit_code) from None
    except Exception as error:  # noqa: BLE001 - every error gets a message and an exit code
        if isinstance(error, OSError) and error.errno is not None:
            place, remedy = error.filename or _unnamed(error), "Check it"
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                remedy = "The disk is full: free some room"
            note(f"error: {place}: {error.strerror}. {remedy} and run this again.")
            _flush_stdout()
            raise SystemExit(StorageError.exit_code) from None
        note(
            traceback.format_exc(),
            f"error: unexpected {type(error).__name__}: {error}",
            "This is a fault of verse-data; please report it with the lines above.",
        )
        raise SystemExit(VerseDataError.exit_code) from None


def _unnamed(error: OSError) -> str:
    """Return what an error without a file name is most likely about."""
    if _NO_TEMPORARY in str(error):
        return "TMPDIR, /tmp and others, which are full or may not be written"
    if error.errno == errno.ENOENT:
        return "the folder in which this was started"  # it was removed
    return "standard output, or a file that was open"


def _open_closed_streams() -> None:
    """Discard output if the caller closed stdout or stderr (``>&-``); print any name, escaped at need."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush_stdout() -> None:
    """Flush stdout; if that fails, discard its buffer, so that Python does not try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End as after Ctrl-C, so that unfinished files are removed."""
    del frame
    raise SystemExit(128 + number)
