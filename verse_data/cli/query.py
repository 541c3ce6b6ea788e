"""``verse-data query``: rows of a table for which a condition is true."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import note, note_absent, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = {
    "vertebrae": ["scan_id", "level", "grade", "fracture_type", "foreign_material", "grade_status"],
    "scans": ["scan_id", "subject_id", "split", "age_years", "bmd_mg_cm3", "n_graded"],
    "subjects": ["subject_id", "split", "age_years", "bmd_mg_cm3"],
}


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("query")(query)


def query(
    release: opt.Release,
    where: Annotated[
        str,
        typer.Argument(
            help="Condition, such as \"grade >= 2 and level in ['T12', 'L1']\"; see docs/queries.md."
        ),
    ],
    *,
    table: Annotated[
        opt.TableName, typer.Option("--table", help="Which table to ask.")
    ] = opt.TableName.VERTEBRAE,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Columns to print, with commas between them.")
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, all columns.")] = False,
) -> None:
    """Print the rows of a release's table for which a condition is true."""
    from verse_data import api
    from verse_data.errors import UsageError
    from verse_data.tables.query import columns_used, select

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other.")
    used = columns_used(where)
    opened = api.open_release(release, version=version, root=root, offline=offline)
    note_absent(opened)
    whole: pd.DataFrame = getattr(opened, table.value)
    rows = select(whole, where)
    note(f"{len(rows):,} of {len(whole):,} {table.value}")
    if columns is not None:
        rows = rows[_chosen(rows, columns)]
    elif not (as_json or as_csv):
        wanted = dict.fromkeys([*_SHOWN[table.value], *used])
        rows = rows[[name for name in wanted if name in rows.columns]]
    _print_rows(rows, as_json=as_json, as_csv=as_csv)


def _chosen(rows: pd.DataFrame, columns: str) -> list[str]:
    from verse_data.errors import UsageError

    names = [name.strip() for name in columns.split(",") if name.strip()]
    unknown = [name for name in names if name not in rows.columns]
    if unknown or not names:
        known = ", ".join(map(str, rows.columns))
        raise UsageError(f"There is no column {', '.join(unknown) or columns!r}. Columns: {known}.")
    return names


def _print_rows(rows: pd.DataFrame, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        cells = zip(*(rows[name].astype(object).tolist() for name in rows.columns), strict=True)
        print_json([dict(zip(rows.columns, map(_plain, row), strict=True)) for row in cells])
    elif as_csv:
        from verse_data.tables.export import csv_text

        sys.stdout.write(csv_text(rows))
    else:
        from rich.table import Table

        shown = Table(*map(str, rows.columns), box=None)
        for row in zip(*(rows[name].astype(object).tolist() for name in rows.columns), strict=True):
            shown.add_row(*map(_word, row))
        print_table(shown)


def _plain(value: Any) -> Any:
    """Return a cell as JSON can say it; missing is null."""
    import pandas as pd

    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _word(value: Any) -> str:
    plain = _plain(value)
    return "" if plain is None else f"{plain:g}" if isinstance(plain, float) else str(plain)
