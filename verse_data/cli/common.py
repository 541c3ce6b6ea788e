"""Common parts of the commands: help, data to stdout, messages to stderr, choosing scans and files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from typer.core import TyperGroup

from verse_data.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.collection import ScanCollection
    from verse_data.records.lock import LockedFile
    from verse_data.release import Release
    from verse_data.united import UnitedReleases

GROUPS: Final = {
    "Get the data": ("releases", "lock", "get", "adopt", "status", "verify", "diff", "drop"),
    "Ask the tables": ("query", "table", "columns", "findings", "summary", "report", "overlays"),
    "Divide the patients": ("folds", "leaks"),
    "Convert, look, train": ("cache", "preview", "explore", "demo"),
    "Predictions": ("predictions", "evaluate"),
    "Describe and cite": ("provenance", "export", "cite", "schemas"),
    "This machine": ("doctor", "env"),
}
"""All commands, in the order of their use."""

EXIT_CODES: Final = {
    0: "done",
    1: "a fault of verse-data, or a training sample could not be made",
    2: "an argument, option, name or condition is wrong; nothing was done",
    3: "metadata or a volume breaks a rule, a split leaks, or an entry of it cannot be placed",
    4: "bytes are missing, or not those that were promised",
    5: "the network or a server failed, or is forbidden (offline)",
    6: "trouble on this machine: disk, permissions, locks, tools",
    7: "an input was refused before use: hostile, or beyond a limit",
    130: "stopped by Ctrl-C (143: by SIGTERM); run it again, and it goes on",
}
"""The codes of :mod:`verse_data.errors`, one line each."""

_WIDEST: Final = 100
_NARROWEST: Final = 30
_PIPE_WIDTH: Final = 1000
_PROSE_WIDTH: Final = 16
"""Fewest columns of a terminal in which prose is readable."""


class Overview(TyperGroup):
    """A group whose help has each command's full first sentence; that of the top level, exit codes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, section by section."""
        sections = {"Commands": self.list_commands(ctx)} if ctx.parent else GROUPS
        for title, names in sections.items():
            shown = [(name, self.commands[name]) for name in names]
            with formatter.section(title):
                formatter.write_dl(
                    [(name, one.get_short_help_str(limit=500)) for name, one in shown]
                )

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the exit codes, at the top level only."""
        if ctx.parent is None:
            with formatter.section("Exit codes"):
                formatter.write_dl([(str(code), text) for code, text in EXIT_CODES.items()])


def help_width() -> int:
    """Return the columns for help: those of the terminal, within limits."""
    columns = shutil.get_terminal_size().columns - 1
    return max(_NARROWEST, min(columns, _WIDEST))


def note(*lines: str) -> None:
    """Write lines to stderr, so that stdout has only data."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))


def print_json(value: Any) -> None:
    """Print `value` as JSON to stdout; records become objects, dates and paths text."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_as_json, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def _as_json(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(getattr(value, "__name__", value))


def plain_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as values for JSON; missing is None."""
    from verse_data.tables import export

    return export.plain_rows(export.rounded(rows))


def print_facts(facts: Mapping[str, object], *, indent: int = 0) -> None:
    """Print a name and a value per line; values are not wrapped, so that they can be copied."""
    width = max(map(len, facts))
    for name, value in facts.items():
        sys.stdout.write(f"{'':{indent}}{name:{width}}  {value}".rstrip() + "\n")


def print_answer(facts: Mapping[str, object], *, as_json: bool) -> None:
    """Print facts as JSON or as lines."""
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


def print_table(*heads: str, rows: Iterable[Iterable[object]], prose: Collection[str] = ()) -> None:
    """Print a table to stdout. No cell is cut, and only those of `prose` columns are wrapped.

    A terminal that is too narrow gets full lines, like a pipe, and wraps them itself.
    """
    from rich.console import Console
    from rich.table import Column, Table

    cells = [[str(cell) for cell in row] for row in rows]
    columns = (Column(head, no_wrap=head not in prose) for head in heads)
    table = Table(*columns, box=None, pad_edge=False)
    for row in cells:
        table.add_row(*row)
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    least = sum(
        _PROSE_WIDTH if head in prose else 2 + max(map(len, column))
        for head, column in zip(heads, zip(heads, *cells, strict=True), strict=True)
    )
    console.width = max(least, console.width if sys.stdout.isatty() else _PIPE_WIDTH)
    with console.capture() as captured:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def open_named(release: str, **how: Any) -> Release | UnitedReleases:
    """Open one release, or several whose names are joined with ``+``."""
    from verse_data import api

    return api.open_named(release, **how)


def chosen_scans(
    release: ScanCollection,
    split: list[str] | None,
    subject: list[str] | None,
    scan: list[str] | None,
) -> list[str] | None:
    """Return the ids of the scans that the options choose, or None without options."""
    if not (split or subject or scan):
        return None
    wanted = set(release.known_scans(scan))
    known = {found.subject_id for found in release.series.values()}
    subjects = [name.removeprefix("sub-") for name in subject or ()]
    for name in subjects:
        if name not in known:
            raise UsageError(f"{release.name} has no subject {name!r}.{did_you_mean(name, known)}")
    chosen = [
        scan_id
        for scan_id, found in release.series.items()
        if scan_id in wanted
        and (not split or found.split in split)
        and (not subjects or found.subject_id in subjects)
    ]
    if not chosen:
        given = {"--split": split, "--subject": subject, "the named scans": scan}
        fits = " and ".join(name for name, words in given.items() if words)
        raise UsageError(
            f"{release.name} {release.version} has no scan for {fits} as given. Leave one out, or change it."
        )
    return chosen


def check_condition(where: str | None) -> None:
    """Refuse a wrong condition before a release is opened, and perhaps listed."""
    from verse_data.tables import query

    if where is not None:
        query.check_condition(where)


def scans_where(
    release: Release, where: str, scan_ids: list[str] | None, *, jobs: int = 8
) -> list[str]:
    """Return the scans with a vertebra for which `where` is true; what that needs is fetched."""
    note("Fetching the files that --where needs: grades, centroids, masks.")
    rows = release.fetch_and_select(where, scan_ids=scan_ids, jobs=jobs)
    return list(dict.fromkeys(rows["scan_id"]))


def chosen_files(
    release: Release, scan_ids: list[str] | None, roles: list[Any] | None
) -> list[LockedFile]:
    """Return the locked files of these scans and roles; without either, all of the version."""
    if scan_ids is None and roles is None:
        return list(release.lock.files)
    return release.locked(scan_ids, roles)
