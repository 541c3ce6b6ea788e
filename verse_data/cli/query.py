"""``verse-data query``: rows of a table for which a condition is true."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verse_data.cli import completion, values
from verse_data.cli import options as opt
from verse_data.cli.common import (
    note,
    plain,
    print_rows,
    print_table,
    refuse_condition,
    rows_of,
    save_table,
)

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
        str | None,
        typer.Argument(
            metavar="CONDITION",
            help="Such as \"grade >= 2 and level in ['T12', 'L1']\"; see docs/queries.md. "
            "Default: all rows.",
            autocompletion=completion.condition,
        ),
    ] = None,
    *,
    table: opt.Table = "vertebrae",
    columns: Annotated[
        Any,
        typer.Option(
            "--columns",
            metavar="COLUMN,...",
            help="Columns to print, with commas between them.",
            parser=values.listed,
            autocompletion=completion.column_list,
        ),
    ] = None,
    out: opt.TableFile = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, all columns.")] = False,
) -> None:
    """Print the rows of a release's table for which a condition is true."""
    from verse_data import api
    from verse_data.errors import UsageError
    from verse_data.records.lock import is_release_name
    from verse_data.tables.query import columns_used

    if where is None and not is_release_name(release):
        raise UsageError(
            f"{release!r} is no release. Its name comes first: verse-data query RELEASE {release!r}"
        )
    if as_json + as_csv + (out is not None) > 1:
        raise UsageError("--json, --csv and --out exclude each other. Give one of them.")
    used = columns_used(where) if where is not None else ()
    refuse_condition(table, where)
    chosen = None if columns is None else _chosen(columns, table)
    opened = api.open_release(release, version=version, root=root, offline=offline)
    opened.require_grades(where)
    whole: pd.DataFrame = getattr(opened, table)
    rows = rows_of(whole, where)
    note(f"{len(rows):,} of {len(whole):,} {table}")
    if chosen is not None:
        rows = rows[chosen]
    elif not (as_json or as_csv or out):
        wanted = dict.fromkeys([*_SHOWN[table], *used])
        rows = rows[[name for name in wanted if name in rows.columns]]
    if out is not None:
        save_table(opened, rows, out, table=table, where=where)
    else:
        _print_rows(rows, as_json=as_json, as_csv=as_csv)


def _chosen(names: list[str], table: str) -> list[str]:
    from verse_data.errors import UsageError, did_you_mean
    from verse_data.tables.columns import columns

    known = [column.name for column in columns(table)]
    for name in names:
        if name not in known:
            raise UsageError(
                f"The table {table} has no column {name!r}.{did_you_mean(name, known)} "
                f"Columns: {', '.join(known)}."
            )
    return names


def _print_rows(rows: pd.DataFrame, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        print_rows(rows)
    elif as_csv:
        from verse_data.tables.export import csv_text

        sys.stdout.write(csv_text(rows))
    else:
        cells = zip(*(rows[name].astype(object).tolist() for name in rows.columns), strict=True)
        print_table(*map(str, rows.columns), rows=(map(_word, row) for row in cells))


def _word(value: Any) -> str:
    found = plain(value)
    return "" if found is None else f"{found:g}" if isinstance(found, float) else str(found)
