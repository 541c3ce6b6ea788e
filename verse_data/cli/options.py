"""Arguments and options of several commands: their names, how they are read, what Tab offers for them.

Completion offers names that are on this machine or in the catalog, and never fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

import verse_data as vd
from verse_data.errors import UsageError, did_you_mean
from verse_data.records.names import SPLITS
from verse_data.records.names import Role as RoleName

TABLES: Final = ("vertebrae", "scans", "subjects")
ROLES: Final = get_args(RoleName)

Complete = Callable[[typer.Context, str], list[str]]

# --- what a shell offers on Tab -------------------------------------------------------------------


def _completer(
    find: Callable[[dict[str, Any]], Iterable[str]], *, listed: bool = False
) -> Complete:
    """Return what offers the words that `find` gives for the arguments typed so far.

    `listed` says that the value is a list with commas, whose last word is completed.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if listed else ("", "", incomplete)
        typed = {name: value for name, value in ctx.params.items() if value is not None}
        # Arguments without a dash are left over where an option lacks its value.
        typed |= zip(("release", "name"), ctx.args, strict=False)
        try:
            known = sorted(set(find(typed)))
        except Exception:  # noqa: BLE001 - a shell shows no error here, and none is needed
            return []
        return [f"{before}{comma}{word}" for word in known if word.startswith(last)]

    return complete


def _versions_by_release(typed: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {one.name: one.versions for one in vd.list_releases(root=typed.get("root"))}


def _versions(typed: dict[str, Any]) -> Iterable[str]:
    return _versions_by_release(typed)[typed["release"]]


def _scans(typed: dict[str, Any]) -> dict[str, Any]:
    """Return the scans of a release by id; of one that is not here, those of the catalog."""
    from verse_data.releases.catalog import load_catalog

    name, version, root = typed["release"], typed.get("version"), typed.get("root")
    try:
        return vd.open_release(name, version=version, root=root, offline=True, make=False).series
    except UsageError:
        return {series.scan_id: series for series in load_catalog(name).expected}


def _subjects(typed: dict[str, Any]) -> Iterable[str]:
    return [scan.subject_id for scan in _scans(typed).values()]


def _columns(typed: dict[str, Any]) -> Iterable[str]:
    from verse_data.records import tables
    from verse_data.records.base import Record

    models: dict[str, type[Record]] = {"scans": tables.ScanRecord, "subjects": tables.SubjectRecord}
    table = typed.get("table") or typed.get("name")
    return models.get(str(table), tables.VertebraRecord).model_fields


def complete_condition(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the columns of the table, and levels within quotes, for the last word of a condition."""
    from verse_data.spine.levels import LEVELS

    before, word = re.fullmatch(r"(.*?)([\w']*)", incomplete, re.DOTALL).groups()  # type: ignore[union-attr]
    if word.startswith("'"):
        known = [f"'{level}'" for level in LEVELS if f"'{level}'".startswith(word)]
    else:
        known = complete_column(ctx, word)
    return [f"{before}{name}" for name in known]


complete_release = _completer(_versions_by_release)
complete_version = _completer(_versions)
complete_scan = _completer(_scans, listed=True)
complete_column = _completer(_columns)

# --- how the text of an option becomes its value ------------------------------------------------------


def listed(text: str) -> list[str]:
    """Return the words of a list with commas, of which there is at least one."""
    parts = [part for part in (part.strip() for part in text.split(",")) if part]
    if not parts:
        raise typer.BadParameter(f"{text!r} names nothing.")
    return parts


def number(
    kind: Callable[[str], float], least: float, most: float = math.inf, what: str = "a whole number"
) -> Callable[[str], float]:
    """Return a parser for a number from `least` to `most`."""
    meant = f"{least} or more" if most == math.inf else f"from {least} to {most}"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise typer.BadParameter(f"{text}: give {what}, {meant}.")
        return value

    return parse


def one_of(*known: str) -> dict[str, Any]:
    """Return how an option takes one of some words."""

    def parse(text: str) -> str:
        if text not in known:
            raise typer.BadParameter(
                f"{text!r} is none of {', '.join(known)}.{did_you_mean(text, known)}"
            )
        return text

    return {"parser": parse, "autocompletion": _completer(lambda _: known)}


def _some_of(*known: str) -> dict[str, Any]:
    """Return how an option takes several of some words, with commas or repeated."""
    parse_one = one_of(*known)["parser"]

    def parse(text: str) -> list[str]:
        return [parse_one(part) for part in listed(text)]

    return {
        "parser": parse,
        "callback": _joined,
        "autocompletion": _completer(lambda _: known, listed=True),
    }


def _joined(given: list[list[str]] | None) -> list[str] | None:
    """Return one list of an option that was repeated, each time with a list."""
    return list(chain.from_iterable(given or ())) or None


def _table_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in {".parquet", ".csv"}:
        raise typer.BadParameter(f"{text!r}: a table is written as .parquet or .csv.")
    return path


# --- the arguments and options ------------------------------------------------------------------------

Release = Annotated[
    str,
    typer.Argument(
        help="Name of the release, such as verse19.",
        metavar="RELEASE",
        autocompletion=complete_release,
    ),
]
Scan = Annotated[
    str,
    typer.Argument(
        help="A scan id, such as verse004.", metavar="SCAN", autocompletion=complete_scan
    ),
]
OptionalScan = Annotated[
    str | None,
    typer.Argument(
        help="A scan id. Default: the whole release.",
        metavar="SCAN",
        autocompletion=complete_scan,
    ),
]
Table = Annotated[
    Any,
    typer.Argument(help="vertebrae, scans or subjects.", metavar="TABLE", **one_of(*TABLES)),
]
Version = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="A version such as v1, or sha256:DIGEST of a lock. Default: the newest.",
        autocompletion=complete_version,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="One root of releases and stores. Default: VERSE_DATA_HOME, else the platform's data "
        "and cache folders.",
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
        metavar="SPLIT",
        help="training, validation or test; may be repeated, or a list with commas.",
        **_some_of(*SPLITS),
    ),
]
Subjects = Annotated[
    list[Any] | None,
    typer.Option(
        metavar="SUBJECT",
        help="A subject id; may be repeated, or a list with commas.",
        parser=listed,
        callback=_joined,
        autocompletion=_completer(_subjects, listed=True),
    ),
]
Scans = Annotated[
    list[Any] | None,
    typer.Option(
        metavar="SCAN",
        help="A scan id; may be repeated, or a list with commas.",
        parser=listed,
        callback=_joined,
        autocompletion=complete_scan,
    ),
]
Roles = Annotated[
    list[Any] | None,
    typer.Option(
        metavar="ROLE",
        help=f"{', '.join(ROLES)}; may be repeated, or a list with commas.",
        **_some_of(*ROLES),
    ),
]
Columns = Annotated[
    list[Any] | None,
    typer.Option(
        metavar="COLUMN,...",
        help="Columns to print, with commas between them.",
        parser=listed,
        callback=_joined,
        autocompletion=_completer(_columns, listed=True),
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="Only what has a vertebra for which this is true, such as 'grade >= 2'.",
        autocompletion=complete_condition,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="File to write. Default: stdout."),
]
TableFile = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="File to write, .parquet or .csv. Default: stdout.",
        parser=_table_file,
    ),
]
