"""Where words and data go: data to stdout, words to stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import counted

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.table import Table

    from verse_data.records.names import Role
    from verse_data.release import Release

SHOWN: Final = 20
"""Of a long list, so many are told; the rest are counted."""

_PIPE_WIDTH: Final = 1000


def print_json(value: Any) -> None:
    """Print `value` as JSON to stdout; dates and paths become text."""
    sys.stdout.write(
        json.dumps(value, indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n"
    )


def note(text: str) -> None:
    """Say something to the person, on stderr, so that stdout stays data."""
    sys.stderr.write(text + "\n")


def note_absent(release: Release, *, headers: bool = False) -> None:
    """Say so if files that the tables are made of are not on this machine: nothing is fetched for them.

    `headers` says that the headers of all CTs count, and not only of those without a mask.
    """
    from verse_data.release.contents import TABLE_ROLES, needs_ct

    _note_absent(release, None, (*TABLE_ROLES, "ct") if headers else TABLE_ROLES)
    alone = [name for name, scan in release.series.items() if needs_ct(scan)]
    if alone and not headers:
        _note_absent(release, alone, ("ct",))


def _note_absent(release: Release, scan_ids: list[str] | None, roles: tuple[Role, ...]) -> None:
    from verse_data.releases.commands import command, unless_newest

    files = release.locked(scan_ids, roles)
    away = sum(not release.files.has(file) for file in files)
    if away:
        version = unless_newest(release.files, release.version)
        words = [word for name in scan_ids or () for word in ("--scan", name)]
        way = command(release.files, "get", *words, "--role", ",".join(roles), version=version)
        note(
            f"{away:,} of {len(files):,} files that the tables are made of are not here, and what they "
            f"say is missing: {way}"
        )


def rows_of(table: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Return the rows of a table for which a condition is true, or all."""
    from verse_data.tables.query import select

    return table if where is None else select(table, where)


def save_table(
    release: Release, rows: pd.DataFrame, out: Path, *, table: str, where: str | None
) -> None:
    """Write rows of a table to a file, which says what they are if it can."""
    from verse_data.tables.export import write_table

    about: dict[str, Any] = {"release": release.name, "version": release.version}
    about |= {"lock": release.lock.digest, "where": where}
    if release.catalog:
        about |= {"licence": release.catalog.licence, "attribution": release.catalog.attribution}
    write_table(rows, out, name=table, attributes=about)
    note(f"{counted(len(rows), f'row of {table} is', f'rows of {table} are')} in {out}")


def print_table(table: Table) -> None:
    """Print a table to stdout: in a terminal as wide as it is, in a pipe uncut."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False).print(table)
