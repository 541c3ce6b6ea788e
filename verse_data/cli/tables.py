"""``verse-data query | table | columns | findings | folds | leaks``: using the tables."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import note, plain_rows, print_json, print_table
from verse_data.errors import UsageError, ValidationFailed, counted, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.collection import ScanCollection

_PRINTED: Final = {
    "vertebrae": ["scan_id", "level", "grade", "fracture_type", "foreign_material", "grade_status"],
    "scans": ["scan_id", "subject_id", "split", "age_years", "bmd_mg_cm3", "n_graded"],
    "subjects": ["subject_id", "split", "age_years", "bmd_mg_cm3"],
    "findings": ["severity", "rule", "scan_id", "level", "message"],
}
"""Columns that are printed by default, besides those in the condition."""

Stratify = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        autocompletion=opt.complete_column,
        help="Column of the vertebrae to balance; may be given several times. "
        "Default: grade, region and foreign_material.",
    ),
]

app = typer.Typer()

# --- rows -----------------------------------------------------------------------------------------


@app.command()
def query(
    release: opt.Releases,
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="CONDITION",
            help="Such as \"grade >= 2 and level in ['T12', 'L1']\"; see docs/queries.md. "
            "Default: all rows.",
            autocompletion=opt.complete_condition,
        ),
    ] = None,
    *,
    table: Annotated[
        Any,
        opt.choice(
            "TABLE",
            opt.ALL_TABLES,
            "Which table to ask: vertebrae, scans, subjects or findings.",
        ),
    ] = "vertebrae",
    columns: opt.Columns = None,
    out: opt.TableFile = None,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, all columns.")] = False,
) -> None:
    """Print the rows of a release's table for which a condition is true."""
    from verse_data.api import open_named
    from verse_data.tables.export import csv_text
    from verse_data.tables.query import check_condition, columns_used, select

    _check_release(release, where)
    if as_json + as_csv + (out is not None) > 1:
        raise UsageError("--json, --csv and --out exclude each other. Give one of them.")
    _check_columns(columns or (), table, several="+" in release)
    if where is not None and table != "findings":
        check_condition(where, table, several="+" in release)
    opened = open_named(release, version=version, overlays=overlay, root=root, offline=offline)
    opened.require_grades(where)
    rows = select(whole := getattr(opened, table), where)
    if where is not None or not (as_json or as_csv or out):
        note(f"{len(rows):,} of {len(whole):,} {table}")
    if not (as_json or as_csv or out):
        used = columns_used(where) if where else ()
        columns = columns or list(dict.fromkeys([*_PRINTED[table], *used]))
    if columns is not None:
        rows = rows[[name for name in columns if name in rows]]
    if out is not None:
        _save(opened, rows, out, table=table, where=where)
    elif as_json:
        print_json(plain_rows(rows))
    elif as_csv:
        sys.stdout.write(csv_text(rows))
    else:
        _print_rows(rows, prose=("message",))


@app.command()
def table(
    release: opt.Releases,
    name: opt.Table = "vertebrae",
    *,
    out: opt.TableFile = None,
    where: opt.Where = None,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Export a whole table: to a Parquet or CSV file, or as CSV or JSON to stdout."""
    where_is: dict[str, Any] = {"version": version, "root": root, "offline": offline}
    where_is["overlay"] = overlay
    as_csv = not as_json and out is None
    query(release, where, table=name, out=out, as_json=as_json, as_csv=as_csv, **where_is)


def _check_release(release: str, where: str | None) -> None:
    """Refuse a condition in the place of a release."""
    from verse_data.records.lock import is_release_name

    if where is None and not all(map(is_release_name, release.split("+"))):
        raise UsageError(
            f"{release!r} is no release. Its name comes first: verse-data query RELEASE {release!r}"
        )


def _check_columns(names: Collection[str], table: str, *, several: bool) -> None:
    """Refuse columns that a table does not have, before any file is read."""
    from verse_data.tables.columns import columns
    from verse_data.tables.findings import Finding

    of_table = fields(Finding) if table == "findings" else columns(table)
    known = [column.name for column in of_table] + ["release"] * (several and table != "subjects")
    for name in names:
        if name not in known:
            raise UsageError(
                f"The table {table} has no column {name!r}.{did_you_mean(name, known)} "
                f"Columns: {', '.join(known)}."
            )


def _save(
    opened: ScanCollection,
    rows: pd.DataFrame,
    out: Path,
    *,
    table: str,
    where: str | None,
) -> None:
    """Write rows to a file, with release, lock and licence if its format has room for them."""
    from verse_data.tables.export import write_table

    about = {"release": opened.name, "version": opened.version, "where": where}
    about["lock"] = opened.pin.removeprefix("sha256:")
    if opened.overlays:
        about["overlays"] = ", ".join(map(str, opened.overlays))
    if entry := opened.catalog:
        about |= {"licence": entry.licence, "attribution": entry.attribution}
    write_table(rows, out, name=table, attributes=about)
    note(f"{counted(len(rows), f'row of {table} is', f'rows of {table} are')} in {out}")


def _print_rows(rows: pd.DataFrame, *, prose: Collection[str] = ()) -> None:
    """Print rows as a table, with missing cells empty."""

    def text(cell: Any) -> str:
        return "" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell)

    cells = (map(text, row.values()) for row in plain_rows(rows))
    print_table(*rows.columns, rows=cells, prose=prose)


# --- columns and findings -------------------------------------------------------------------------


@app.command()
def columns(name: opt.TableOrAll = None, *, as_json: opt.Json = False) -> None:
    """Print what each column of the tables means."""
    from verse_data.tables.columns import describe

    tables: dict[str, Any] = {one: describe(one) for one in opt.TABLES if name in {one, None}}
    if as_json:
        print_json(tables)
        return
    for one, rows in tables.items():
        sys.stdout.write(f"{one}\n")
        heads = ("column", "type", "unit", "meaning", "source")
        cells = ([value or "" for value in row.values()] for row in rows)
        print_table(*heads, rows=cells, prose=("meaning", "source"))
        sys.stdout.write("\n")


@app.command()
def findings(
    release: opt.Releases,
    *,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """List every disagreement between the files of a release, and everything unusual in them.

    To write them to a file: verse-data table RELEASE findings --out FILE.
    """
    from verse_data.api import open_named

    opened = open_named(release, version=version, overlays=overlay, root=root, offline=offline)
    found = opened.findings
    note(counted(len(found), "finding"))
    if as_json:
        print_json(found.to_dict(orient="records"))
    else:
        names = ["severity", "rule", "scan_id", "subject_id", "level", "message", "file", "place"]
        _print_rows(found[names], prose=("message", "file", "place"))


# --- patients in folds and splits -----------------------------------------------------------------


@app.command()
def folds(
    release: opt.Releases,
    *,
    k: Annotated[int, opt.whole("Number of folds.", 2)] = 5,
    seed: Annotated[int, opt.whole("Another seed gives other folds.", 0)] = 0,
    stratify: Stratify = None,
    split: Annotated[
        str | None,
        opt.choice("SPLIT", opt.SPLITS, "Only the scans of one published split."),
    ] = None,
    out: opt.Out = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check these folds, or those of this name."),
    ] = None,
    workbook: opt.Workbook = None,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Divide a release's scans into folds, each patient in one, and print the balance."""
    from verse_data.api import open_named
    from verse_data.tables.folds import STRATIFY, make_folds

    other = "--out writes" if out is not None else workbook and "--workbook makes"
    if check is not None and other:
        raise UsageError(f"--check reads folds and {other} them; give one of the two.")
    if workbook is not None:
        tables = _tables_of(workbook, split)
        made = make_folds(*tables, k=k, seed=seed, stratify=stratify or STRATIFY, release=release)
    else:
        opened = open_named(release, version=version, overlays=overlay, root=root, offline=offline)
        if check is not None:
            made = opened.read_folds(check, split=split)
            note(f"{check}: digest {made.digest[:12]} is right, and the folds fit {release}.")
        else:
            made = opened.folds(k, seed=seed, stratify=stratify or None, split=split)
        tables = opened.tables_of(split)
    if out is not None:
        made.write(out)
        note(f"Wrote {out}, digest {made.digest[:12]}.")
    balance = made.balance(*tables)
    if as_json:
        rows = balance.reset_index().to_dict(orient="records")
        print_json({"digest": made.digest, "folds": made.parts, "balance": rows})
    else:
        sys.stdout.write(f"{balance.to_string()}\n")


def _tables_of(workbook: Path, split: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scans and assessed vertebrae of a grading workbook, in one split or in all."""
    from verse_data.tables.assemble import tables_of_workbook
    from verse_data.tables.splits import of_split

    if not workbook.is_file():
        raise UsageError(f"There is no file {workbook}.")
    read = tables_of_workbook(workbook)
    return of_split(read.scans, split), read.vertebrae


@app.command()
def leaks(
    split: Annotated[
        list[str],
        typer.Argument(
            help="A JSON file with a list for each side (also nnU-Net's splits_final.json, a MONAI "
            "datalist, or folds.json), a CSV file with a column of sides or folds, a folder of lists, "
            "or SIDE=FILE for each side, with an entry on each line.",
            metavar="[SIDE=]FILE...",
        ),
    ],
    *,
    release: Annotated[
        str | None,
        opt.a_release("Also name the entries that this release does not have."),
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Name each patient that is on two sides of a split.

    Entries may be ids or paths, padded or not, of series or subjects, in either layout. The exit
    code is 3 if a patient is on two sides, or an entry could not be placed.
    """
    from verse_data.tables.leaks import find_leaks
    from verse_data.tables.split_files import read_splits

    try:
        splits = read_splits(split)
    except ValidationFailed as error:  # 3 is the exit code of a split that was read
        raise UsageError(str(error)) from None
    scans, reports = None, {}
    if release is not None:
        scans = _named_scans(vd.open_release(release, version=version, root=root, offline=offline))
    for name, sides in splits.items():
        try:
            reports[name] = find_leaks(sides, scans=scans)
        except UsageError as error:
            raise UsageError(f"{', '.join(filter(None, [*split, name]))}: {error}") from None
    if as_json:
        print_json({name or "split": report for name, report in reports.items()})
    else:
        for name, report in reports.items():
            sys.stdout.write((f"{name}\n" if name else "") + f"{report}\n")
    if not all(report.is_clean for report in reports.values()):
        raise typer.Exit(ValidationFailed.exit_code)


def _named_scans(release: ScanCollection) -> pd.DataFrame:
    """Return the columns of the table of scans that follow from file names, without reading files."""
    import pandas as pd

    columns = ["scan_id", "subject_id", "series_id", "series_label"]
    return pd.DataFrame(list(map(vars, release.series.values())), columns=columns)
