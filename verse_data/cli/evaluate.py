"""``verse-data evaluate``: scores of predicted masks, centroids and fracture grades."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import (
    chosen_scans,
    note,
    open_named,
    plain_rows,
    print_json,
    print_table,
)
from verse_data.errors import UsageError, counted

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.metrics.fractures import GradingScores
    from verse_data.metrics.scores import Evaluation

_TABLES: Final = ("vertebrae", "scans", "summary", "groups")
_OF_FOLDERS: Final = (
    "split",
    "scan",
    "hit",
    "missing",
    "additional",
    "official_code",
    "table",
    "html",
)
_OF_CSV: Final = ("threshold",)

Predictions = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS",
        help="Folder with SCAN.nii.gz (mask on the scan's own grid), SCAN.json (centroids), or both, "
        "for each scan; or a CSV of fractures: scan_id, level, and score or grade.",
    ),
]
HitRule = Annotated[
    Any,
    typer.Option(
        metavar="RULE",
        help="lt20: a centroid closer than 20 mm is right; le20: at 20 mm too.",
        **opt.one_of("lt20", "le20"),
    ),
]
Missing = Annotated[
    Any,
    typer.Option(
        metavar="RULE",
        help="zero: a vertebra that was not predicted has Dice 0; skip: it is left out.",
        **opt.one_of("zero", "skip"),
    ),
]
Additional = Annotated[
    Any,
    typer.Option(
        metavar="RULE",
        help="skip: a predicted vertebra that the truth lacks is left out; zero: it has Dice 0.",
        **opt.one_of("skip", "zero"),
    ),
]
OfficialCode = Annotated[
    bool,
    typer.Option(
        "--official-code",
        help="Also print what the challenge's published notebook gives, with its errors.",
    ),
]
Thresholds = Annotated[
    list[float] | None,
    typer.Option(
        metavar="SCORE",
        help="Of a CSV: fractured from this score on; may be repeated. Default: 0.5.",
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", parser=opt.number(int, 0), help="Of the bootstrap's draws.")
]
Table = Annotated[
    Any,
    typer.Option(
        metavar="TABLE",
        help=f"Which one --csv and --out write: {', '.join(_TABLES)}.",
        **opt.one_of(*_TABLES),
    ),
]

app = typer.Typer()


@app.command()
def evaluate(
    context: typer.Context,
    release: opt.Releases,
    predictions: Predictions,
    *,
    split: opt.Splits = None,
    scan: opt.Scans = None,
    hit: HitRule = "lt20",
    missing: Missing = "zero",
    additional: Additional = "skip",
    official_code: OfficialCode = False,
    threshold: Thresholds = None,
    seed: Seed = 0,
    table: Table = "vertebrae",
    out: opt.TableFile = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=opt.output,
            help="Also write a page of the worst scans with pictures, such as worst.html; their CTs "
            "are fetched and converted if needed.",
        ),
    ] = None,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one table as CSV.")] = False,
) -> None:
    """Score predicted masks, centroids or fracture grades against a release.

    Intervals are of 95 %, from a bootstrap over patients. Nothing is resampled.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other. Give one of them.")
    is_csv = predictions.suffix.lower() == ".csv"
    _refuse_options(context, predictions, is_csv=is_csv)
    if _is_given(context, "table") and not as_csv and out is None:
        raise UsageError("--table says which table --csv or --out writes. Give one of these too.")
    if html is not None:
        from verse_data.views.report import check_page

        check_page(html)
    opened = open_named(
        release, overlays=overlay, version=version, root=root, make=release == "phantom"
    )
    if is_csv:
        scores = opened.evaluate_grades(predictions, thresholds=threshold or (0.5,), seed=seed)
        _deliver(scores, "figures", out, _print_figures, as_json=as_json, as_csv=as_csv)
        return
    made = opened.evaluate(
        predictions,
        scan_ids=chosen_scans(opened, split, None, scan),
        hit=hit,
        missing=missing,
        additional=additional,
        official_code=official_code,
        seed=seed,
    )
    _deliver(made, table, out, _print_summary, as_json=as_json, as_csv=as_csv)
    if html is not None:
        opened.write_worst(made, predictions, html)
        note(f"Wrote {html}.")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _refuse_options(context: typer.Context, predictions: Path, *, is_csv: bool) -> None:
    """Raise UsageError if an option was given that these predictions have no use for."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in (_OF_FOLDERS if is_csv else _OF_CSV)
        if _is_given(context, name)
    ]
    if given:
        other = "a folder of masks or centroids" if is_csv else "a CSV of fractures"
        raise UsageError(f"{predictions} is not {other}. Leave out {', '.join(given)}.")


def _deliver(
    made: Evaluation | GradingScores,
    table: str,
    out: Path | None,
    show: Callable[[Any], None],
    *,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print scores, and write one of their tables to a file."""
    from verse_data.tables.export import csv_text, write_table

    rows: pd.DataFrame = getattr(made, table)
    if out is not None:
        write_table(rows, out, name="evaluation", attributes=made.about)
        note(f"{counted(len(rows), 'row')} of {table} in {out}")
    if as_json:
        names = _TABLES if table in _TABLES else (table,)
        frames = {name: plain_rows(getattr(made, name)) for name in names}
        print_json({**made.about, "notes": made.notes, **frames})
    elif as_csv:
        sys.stdout.write(csv_text(rows))
    else:
        show(made)
    note(*(f"note: {line}" for line in made.notes))


def _print_figures(made: GradingScores) -> None:
    """Print figures of fracture grading."""
    from verse_data.metrics.scores import interval_text

    names = ["by", "target", "threshold", "figure", "n", "positives", "patients"]
    cells = [
        [*("" if row[name] is None else row[name] for name in names[:4]), interval_text(row)]
        + ["" if row[name] is None else f"{row[name]:g}" for name in names[4:]]
        for row in plain_rows(made.figures)
    ]
    print_table(*names[:4], "value", *names[4:], rows=cells)


def _print_summary(made: Evaluation) -> None:
    """Print the means over scans and vertebrae, then those of each region and grade."""
    from verse_data.metrics.scores import FIGURES, STATUSES, interval_text, mean_rows

    status = made.vertebrae["mask_status"].fillna(made.vertebrae["point_status"])
    counts = ", ".join(f"{(status == word).sum()} {word}" for word in STATUSES)
    patients = counted(made.scans["subject_id"].nunique(), "patient")
    sys.stdout.write(f"{counted(len(made.scans), 'scan')} of {patients}; vertebrae: {counts}\n\n")
    print_table("figure", "mean of scans", "mean of vertebrae", rows=mean_rows(made))
    groups = made.groups
    figures = [name for name in FIGURES if name in set(groups["figure"])]
    rows = []
    for key, part in groups.groupby(["by", "value"], sort=False):
        by, value = map(str, key)
        found = {row["figure"]: row for row in part.to_dict(orient="records")}
        number = max(row["n"] for row in found.values())
        named = f"grade {value}" if by == "grade" and len(value) == 1 else value
        cells_of = [interval_text(found[name]) if name in found else "" for name in figures]
        rows.append([named, number, *cells_of])
    sys.stdout.write("\n")
    print_table("vertebrae", "n", *(FIGURES[name] for name in figures), rows=rows)
