"""Where words and data go: data to stdout, words to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import counted

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from verse_data.release import Release

SHOWN: Final = 20
"""Of a long list, so many are told; the rest are counted."""

_PIPE_WIDTH: Final = 1000
_PROSE_WIDTH: Final = 16
"""Columns of a terminal that prose can still be read in."""


def print_json(value: Any) -> None:
    """Print `value` as JSON to stdout; dates and paths become text."""
    sys.stdout.write(
        json.dumps(value, indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n"
    )


def note(text: str) -> None:
    """Say something to the person, on stderr, so that stdout stays data."""
    sys.stderr.write(text + "\n")


def rows_of(table: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Return the rows of a table for which a condition is true, or all."""
    from verse_data.tables.query import select

    return table if where is None else select(table, where)


def refuse_condition(table: str, where: str | None) -> None:
    """Raise `QueryRefused` if a condition does not fit a table, before any file is read."""
    if where is not None:
        from verse_data.tables.query import check_condition

        check_condition(where, table)  # type: ignore[arg-type]


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


def print_rows(rows: pd.DataFrame) -> None:
    """Print rows of a table as JSON, a record each; missing is null."""
    cells = zip(*(rows[name].astype(object).tolist() for name in rows.columns), strict=True)
    print_json([dict(zip(rows.columns, map(plain, row), strict=True)) for row in cells])


def plain(value: Any) -> Any:
    """Return a cell as JSON can say it; missing is None."""
    import pandas as pd

    from verse_data.tables.export import DECIMALS

    if pd.isna(value):
        return None
    found = value.item() if hasattr(value, "item") else value
    return round(found, DECIMALS) + 0.0 if isinstance(found, float) else found


def print_table(*heads: str, rows: Iterable[Iterable[str]], prose: Collection[str] = ()) -> None:
    """Print a table to stdout. No cell is cut, and only those of `prose` columns are wrapped.

    A terminal that is too narrow gets whole lines, as a pipe does, and wraps them itself.
    """
    from rich.console import Console
    from rich.table import Column, Table

    cells = [list(row) for row in rows]
    table = Table(*(Column(head, no_wrap=head not in prose) for head in heads), box=None)
    for row in cells:
        table.add_row(*row)
    table.pad_edge = False
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    least = sum(
        min(width, _PROSE_WIDTH) if head in prose else width
        for head, width in zip(heads, widths, strict=True)
    )
    if not sys.stdout.isatty() or least + 2 * len(heads) > console.width:
        console.width = max(_PIPE_WIDTH, sum(widths) + 2 * len(heads))
    with console.capture() as captured:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
