"""Arguments and options of several commands: their names, their parsing and their completion.

Completion offers names that are on this machine or in the catalog, and never fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

import verse_data as vd
from verse_data.errors import UsageError, did_you_mean
from verse_data.records.names import SPLITS, Role

TABLES: Final = ("vertebrae", "scans", "subjects")
"""Tables with documented columns."""
ALL_TABLES: Final = (*TABLES, "findings")
ROLES: Final = get_args(Role)

Find = Callable[[dict[str, Any]], Iterable[str]]
"""Returns the possible words, given the arguments typed so far."""

# --- what a shell offers on Tab -------------------------------------------------------------------


def _completer(find: Find, *, listed: bool = False) -> Callable[[typer.Context, str], list[str]]:
    """Return a completion with the words of `find`; if `listed`, for the last word of a list."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if listed else ("", "", incomplete)
        typed = {name: value for name, value in ctx.params.items() if value is not None}
        # Arguments without a dash are left over where an option lacks its value.
        typed |= zip(("release", "name"), ctx.args, strict=False)
        try:
            known = sorted(set(find(typed)))
        except Exception:  # noqa: BLE001 - completion must not fail, and a shell shows no error
            return []
        return [f"{before}{comma}{word}" for word in known if word.startswith(last)]

    return complete


def _versions_by_release(typed: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {one.name: one.versions for one in vd.list_releases(root=typed.get("root"))}


def _scans(typed: dict[str, Any]) -> dict[str, Any]:
    """Return the scans of a release by id, from the catalog if it is not here."""
    from verse_data.releases.catalog import load_catalog

    name, version, root = typed["release"], typed.get("version"), typed.get("root")
    try:
        return vd.open_release(name, version=version, root=root, offline=True, make=False).series
    except UsageError:
        return {series.scan_id: series for series in load_catalog(name).expected}


def _overlay_names() -> Iterable[str]:
    from verse_data.tables.overlays import names

    return names()


def _columns(typed: dict[str, Any]) -> Iterable[str]:
    from verse_data.records import tables
    from verse_data.records.base import Record

    models: dict[str, type[Record]] = {"scans": tables.ScanRecord, "subjects": tables.SubjectRecord}
    table = typed.get("table") or typed.get("name")
    return models.get(str(table), tables.VertebraRecord).model_fields


def complete_condition(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the columns of the table, and levels within quotes, for the last word of a condition."""
    from verse_data.spine.levels import LEVELS

    word = re.split(r"[^\w']", incomplete)[-1]
    levels = [f"'{level}'" for level in LEVELS if f"'{level}'".startswith(word)]
    known = levels if word.startswith("'") else complete_column(ctx, word)
    return [incomplete.removesuffix(word) + name for name in known]


complete_release = _completer(_versions_by_release)
_complete_version = _completer(lambda typed: _versions_by_release(typed)[typed["release"]])
complete_column = _completer(_columns)

# --- how the text of an option becomes its value ------------------------------------------------------


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


def _check_word(word: str, known: Sequence[str]) -> str:
    if known and word not in known:
        near = did_you_mean(word, known)
        raise typer.BadParameter(f"{word!r} is none of {', '.join(known)}.{near}")
    return word


def one_of(*known: str) -> dict[str, Any]:
    """Return parser and completion for an option whose value is one of these words."""
    return {
        "parser": lambda text: _check_word(text, known),
        "autocompletion": _completer(lambda _: known),
    }


def choice(metavar: str, known: Sequence[str], text: str, *flags: str) -> Any:
    """Return an option whose value is one of these words."""
    return typer.Option(*flags, metavar=metavar, help=text, **one_of(*known))


def whole(text: str, least: int, most: float = math.inf, flags: Sequence[str] = ()) -> Any:
    """Return an option whose value is a whole number from `least` to `most`."""
    return typer.Option(*flags, metavar="N", parser=number(int, least, most), help=text)


def _several(metavar: str, text: str, *known: str, find: Find | None = None) -> Any:
    """Return an option whose value is one list, from commas or from repeating the option."""

    def parse(given: str) -> list[str]:
        words = [_check_word(word.strip(), known) for word in given.split(",") if word.strip()]
        if not words:
            raise typer.BadParameter(f"{given!r} names nothing.")
        return words

    return typer.Option(
        metavar=metavar,
        help=f"{text}; may be repeated, or a list with commas.",
        parser=parse,
        callback=_join,
        autocompletion=_completer(find or (lambda _: known), listed=True),
    )


def _join(given: list[list[str]] | None) -> list[str] | None:
    """Join the lists of a repeated option; None if there are none."""
    return list(chain.from_iterable(given or ())) or None


def output(text: str) -> Path:
    """Return the file or folder of an option; unlike a table, a picture or page has no stdout."""
    if text in {"", "-"}:
        raise typer.BadParameter(f"{text!r} is no name of a file or folder; stdout is not written.")
    return Path(text)


def written(metavar: str, text: str, *flags: str) -> Any:
    """Return an option that names the file or folder of a picture or page."""
    return typer.Option(*flags, metavar=metavar, help=text, parser=output)


def _table_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in {".parquet", ".csv"}:
        raise typer.BadParameter(f"{text!r}: a table is written as .parquet or .csv.")
    return path


# --- the arguments and options ------------------------------------------------------------------------

OUT: Final = ("--out", "-o")


def a_release(text: str, kind: Callable[..., Any] = typer.Option) -> Any:
    """Return the option ``--release``, or an argument, with this help."""
    return kind(metavar="RELEASE", help=text, autocompletion=complete_release)


def _named(metavar: str, text: str) -> Any:
    return typer.Argument(metavar=metavar, help=text, autocompletion=_completer(_scans))


Release = Annotated[str, a_release("Name of the release, such as verse19.", typer.Argument)]
Releases = Annotated[
    str,
    a_release(
        "Name of the release, such as verse19; several as one: verse19+verse20.", typer.Argument
    ),
]
SeveralScans = Annotated[list[str] | None, _named("SCAN...", "Scan ids, such as verse004.")]
ScanOrAll = Annotated[str | None, _named("SCAN", "A scan id, such as verse004.")]
Table = Annotated[
    str, typer.Argument(help=f"{', '.join(ALL_TABLES)}.", metavar="TABLE", **one_of(*ALL_TABLES))
]
TableOrAll = Annotated[
    str | None,
    typer.Argument(help="vertebrae, scans or subjects.", metavar="TABLE", **one_of(*TABLES)),
]
Version = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="A version such as v1, or sha256:DIGEST of a lock. Default: the newest.",
        autocompletion=_complete_version,
    ),
]
VersionArgument = Annotated[
    str, typer.Argument(help="A version, such as v1.", autocompletion=_complete_version)
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
Workers = Annotated[int | None, whole("Processes. Default: one a core.", 1)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing but JSON, to stdout.")]
Splits = Annotated[list[Any] | None, _several("SPLIT", "training, validation or test", *SPLITS)]
Subjects = Annotated[
    list[Any] | None,
    _several(
        "SUBJECT",
        "A subject id",
        find=lambda typed: [scan.subject_id for scan in _scans(typed).values()],
    ),
]
Scans = Annotated[list[Any] | None, _several("SCAN", "A scan id", find=_scans)]
Roles = Annotated[list[Any] | None, _several("ROLE", ", ".join(ROLES), *ROLES)]
Columns = Annotated[list[Any] | None, _several("COLUMN", "A column to print", find=_columns)]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="Only what has a vertebra for which this is true, such as 'grade >= 2'.",
        autocompletion=complete_condition,
    ),
]
Overlays = Annotated[
    list[Any] | None,
    _several(
        "OVERLAY",
        "Lay corrections over the files: a name, or a .toml file; see verse-data overlays",
        find=lambda _: _overlay_names(),
    ),
]
Licences = Annotated[
    list[Any] | None,
    _several("LICENCE", "Only scans under these terms, such as CC-BY-SA-4.0"),
]
Workbook = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The grading workbook; no release is opened then."),
]
Out = Annotated[
    Path | None,
    typer.Option(*OUT, metavar="FILE", help="File to write. Default: stdout."),
]
TableFile = Annotated[
    Path | None,
    typer.Option(
        *OUT,
        metavar="FILE",
        help="File to write, .parquet or .csv. Default: stdout.",
        parser=_table_file,
    ),
]
