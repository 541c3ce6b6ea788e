"""Arguments and options that several commands take, each with one name, one type and one text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

from verse_data.cli import completion, values
from verse_data.records.names import SPLITS
from verse_data.records.names import Role as RoleName

TABLES: Final = ("vertebrae", "scans", "subjects")
ROLES: Final = get_args(RoleName)

Release = Annotated[
    str,
    typer.Argument(
        help="Name of the release, such as verse19.",
        metavar="RELEASE",
        autocompletion=completion.releases,
    ),
]
TableArgument = Annotated[
    str,
    typer.Argument(
        help="vertebrae, scans or subjects.",
        metavar="TABLE",
        parser=values.one_of(*TABLES),
        autocompletion=completion.words(*TABLES),
    ),
]
Table = Annotated[
    str,
    typer.Option(
        "--table",
        metavar="TABLE",
        help="Which table to ask: vertebrae, scans or subjects.",
        parser=values.one_of(*TABLES),
        autocompletion=completion.words(*TABLES),
    ),
]
Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="VERSION",
        help="A version such as v1, or sha256:DIGEST of a lock. Default: the newest.",
        autocompletion=completion.versions,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="FOLDER",
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
    list[Any] | None,
    typer.Option(
        "--split",
        metavar="SPLIT",
        help="training, validation or test; may be repeated, or a list with commas.",
        parser=values.some_of(*SPLITS),
        autocompletion=completion.words(*SPLITS, listed=True),
    ),
]
OneSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="SPLIT",
        help="Only the scans of one published split.",
        parser=values.one_of(*SPLITS),
        autocompletion=completion.words(*SPLITS),
    ),
]
Subjects = Annotated[
    list[Any] | None,
    typer.Option(
        "--subject",
        metavar="SUBJECT",
        help="A subject id; may be repeated, or a list with commas.",
        parser=values.listed,
        autocompletion=completion.subjects,
    ),
]
Scans = Annotated[
    list[Any] | None,
    typer.Option(
        "--scan",
        metavar="SCAN",
        help="A scan id; may be repeated, or a list with commas.",
        parser=values.listed,
        autocompletion=completion.scans,
    ),
]
Scan = Annotated[
    str,
    typer.Argument(
        help="A scan id, such as verse004.", metavar="SCAN", autocompletion=completion.scans
    ),
]
Roles = Annotated[
    list[Any] | None,
    typer.Option(
        "--role",
        metavar="ROLE",
        help=f"{', '.join(ROLES)}; may be repeated, or a list with commas.",
        parser=values.some_of(*ROLES),
        autocompletion=completion.words(*ROLES, listed=True),
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only what has a vertebra for which this is true, such as 'grade >= 2'.",
        autocompletion=completion.condition,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="File to write. Default: stdout."),
]
TableFile = Annotated[
    Any,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="File to write, .parquet or .csv. Default: stdout.",
        parser=values.table_file,
    ),
]
