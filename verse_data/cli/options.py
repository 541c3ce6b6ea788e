"""Arguments and options that several commands take, each with one name, one type and one text."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class TableName(enum.StrEnum):
    """Tables of a release."""

    VERTEBRAE = "vertebrae"
    SCANS = "scans"
    SUBJECTS = "subjects"


Release = Annotated[
    str, typer.Argument(help="Name of the release, such as verse19.", metavar="RELEASE")
]
Version = Annotated[
    str | None,
    typer.Option(
        "--version", help="A version such as v1, or sha256:DIGEST of a lock. Default: the newest."
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="One root of releases and stores. Default: VERSE_DATA_HOME, else the platform's data and cache folders.",
    ),
]
Offline = Annotated[
    bool | None,
    typer.Option(
        "--offline/--online", help="Forbid or allow the network. Default: VERSE_DATA_OFFLINE."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing but JSON, to stdout.")]

Splits = Annotated[
    list[str] | None, typer.Option("--split", help="training, validation or test; may be repeated.")
]
Subjects = Annotated[
    list[str] | None, typer.Option("--subject", help="A subject id; may be repeated.")
]
Scans = Annotated[list[str] | None, typer.Option("--scan", help="A scan id; may be repeated.")]
Roles = Annotated[
    str | None,
    typer.Option("--role", help="Of ct,ct_json,mask,centroids,snapshot,grading; with commas."),
]
