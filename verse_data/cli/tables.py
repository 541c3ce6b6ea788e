"""``verse-data table``, ``findings``, ``columns`` and ``report``: what the metadata say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verse_data.cli import completion, values
from verse_data.cli import options as opt
from verse_data.cli.common import (
    note,
    print_json,
    print_rows,
    print_table,
    refuse_condition,
    rows_of,
    save_table,
)
from verse_data.errors import counted

if TYPE_CHECKING:
    from verse_data.tables.figures import FigureReport
    from verse_data.tables.grading import Grading


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("table")(table)
    app.command("columns")(columns)
    app.command("findings")(findings)
    app.command("report")(report)


def table(
    release: opt.Release,
    name: opt.TableArgument = "vertebrae",
    *,
    out: opt.TableFile = None,
    where: opt.Where = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Export a whole table: to a Parquet or CSV file, or as CSV or JSON to stdout."""
    from verse_data import api
    from verse_data.errors import UsageError
    from verse_data.tables.export import csv_text

    if as_json and out is not None:
        raise UsageError("--json and --out exclude each other. Give one of them.")
    refuse_condition(name, where)
    opened = api.open_release(release, version=version, root=root, offline=offline)
    opened.require_grades(where)
    rows = rows_of(getattr(opened, name), where)
    if out is not None:
        save_table(opened, rows, out, table=name, where=where)
    elif as_json:
        print_rows(rows)
    else:
        sys.stdout.write(csv_text(rows))


def columns(
    name: Annotated[
        str | None,
        typer.Argument(
            help="vertebrae, scans or subjects. Default: all three.",
            metavar="TABLE",
            parser=values.one_of(*opt.TABLES),
            autocompletion=completion.words(*opt.TABLES),
        ),
    ] = None,
    *,
    as_json: opt.Json = False,
) -> None:
    """Say what each column of the tables means."""
    from verse_data.tables.columns import describe

    names: list[Any] = [name] if name else list(opt.TABLES)
    if as_json:
        print_json({one: describe(one) for one in names})
        return
    for one in names:
        sys.stdout.write(f"{one}\n")
        rows = [[str(value or "") for value in row.values()] for row in describe(one)]
        heads = ("column", "type", "unit", "meaning", "source")
        print_table(*heads, rows=rows, prose=("meaning", "source"))
        sys.stdout.write("\n")


def findings(
    release: opt.Release,
    *,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """List every disagreement between the files of a release, and every oddity."""
    from verse_data import api

    opened = api.open_release(release, version=version, root=root, offline=offline)
    found = opened.findings
    rows = found.to_dict(orient="records")
    note(counted(len(rows), "finding"))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        about = " ".join(
            word for word in (row["scan_id"] or row["subject_id"], row["level"]) if word
        )
        where = ", ".join(word for word in (row["file"], row["place"]) if word)
        line = f"{row['severity']:<8} {row['rule']:<28} {about:<28} {row['message']}"
        sys.stdout.write(line + (f" [{where}]" if where else "") + "\n")


def report(
    release: opt.Release,
    *,
    workbook: Annotated[
        Path | None,
        typer.Option(
            "--workbook", metavar="FILE", help="The grading workbook; no release is opened then."
        ),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(
            "--patients", metavar="FILE", help="CSV with subject_id, sex (F, M) and contrast."
        ),
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Compare the published figures of a release with what the data at hand give."""
    from verse_data.errors import ValidationFailed
    from verse_data.releases.catalog import load_catalog
    from verse_data.tables import figures
    from verse_data.tables.grading import read_grading

    entry = load_catalog(release)
    if not entry.figures:
        note(f"The catalog holds no published figures of {release}.")
    grading: Grading | None
    vertebrae = None
    if workbook is not None:
        grading = read_grading(_file(workbook))
    else:
        from verse_data import api

        opened = api.open_release(release, version=version, root=root, offline=offline)
        tables = opened.tables
        grading, vertebrae = tables.grading, tables.vertebrae
    known = figures.read_patients(_file(patients)) if patients else ()
    made = figures.report(entry, grading=grading, vertebrae=vertebrae, patients=known)
    if as_json:
        print_json(made.as_json())
    else:
        _print_report(made)
    if made.count("differs"):
        raise ValidationFailed(
            f"{made.count('differs')} of {len(made.cells)} published figures of {release} differ "
            f"from the data at hand. Check that the workbook is the published one: "
            f"verse-data verify {release}"
        )


def _file(path: Path) -> Path:
    from verse_data.errors import UsageError

    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    return path


def _print_report(made: FigureReport) -> None:
    if made.cells:
        _print_cells(made)
    for line in made.notes:
        note(f"Note: {line}.")


def _print_cells(made: FigureReport) -> None:
    groups = list(dict.fromkeys(cell.group for cell in made.cells))
    signs = {"agrees": "=", "differs": "≠", "needs": "?"}
    rows: dict[str, list[str]] = {}
    for cell in made.cells:
        text = f"{cell.expected} {signs[cell.verdict]} {cell.found or ''}"
        rows.setdefault(cell.title, []).append(text.strip())
    lines = [[title, *texts] for title, texts in rows.items()]
    print_table(made.release, *groups, rows=lines, prose=(made.release,))
    words = [f"{made.count('agrees')} agree", f"{made.count('differs')} differ"]
    note("Each cell: published = found.")
    lacking = [cell for cell in made.cells if cell.needs]
    # What all need together says what the splits need.
    whole = [cell for cell in lacking if cell.group == "all"]
    needs = list(dict.fromkeys(cell.needs for cell in whole or lacking))
    then = ". They need:" if needs else "."
    note(f"{', '.join(words)}, {made.count('needs')} cannot be computed here (?){then}")
    for line in needs:
        note(f"  {line}")
