"""What all commands share: options, and where words and data go."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

ReleaseArgument = Annotated[
    str, typer.Argument(help="Name of the release, such as verse19.", metavar="RELEASE")
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--version", help="A version such as v1, or sha256:DIGEST of a lock. Default: the newest."
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="Root of releases and caches. Default: VERSE_DATA_HOME, else the platform's cache folder.",
    ),
]
OfflineOption = Annotated[
    bool | None,
    typer.Option(
        "--offline/--online", help="Forbid or allow the network. Default: VERSE_DATA_OFFLINE."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing but JSON, to stdout.")
]


def print_json(value: Any) -> None:
    """Print `value` as JSON to stdout; dates and paths become text."""
    sys.stdout.write(
        json.dumps(value, indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n"
    )


def note(text: str) -> None:
    """Say something to the person, on stderr, so that stdout stays data."""
    sys.stderr.write(text + "\n")
