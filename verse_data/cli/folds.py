"""``verse-data folds`` and ``verse-data leaks``: patient-grouped folds, and whether a split leaks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verse_data.cli import completion, values
from verse_data.cli import options as opt
from verse_data.cli.common import note, print_json

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.release import Release
    from verse_data.tables.folds import Folds
    from verse_data.tables.leaks import LeakReport


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("folds")(folds)
    app.command("leaks")(leaks)


def folds(
    release: opt.Release,
    *,
    k: Annotated[
        int, typer.Option("--k", metavar="N", parser=values.whole(2), help="Number of folds.")
    ] = 5,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", parser=values.whole(0), help="Another seed gives other folds."
        ),
    ] = 0,
    stratify: Annotated[
        list[str] | None,
        typer.Option(
            "--stratify",
            metavar="COLUMN",
            autocompletion=completion.columns,
            help="Column of the vertebrae to balance; may be given several times. "
            "Default: grade, region and foreign_material.",
        ),
    ] = None,
    split: opt.OneSplit = None,
    out: opt.Out = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="Check these folds instead of making some."),
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Divide a release's scans into folds, each patient in one, and print the balance."""
    from verse_data import api
    from verse_data.errors import UsageError

    if check is not None and out is not None:
        raise UsageError("--check reads folds and --out writes them; give one of the two.")
    opened = api.open_release(release, version=version, root=root, offline=offline)
    if check is not None:
        made = opened.read_folds(check, split=split)
        note(f"{check}: digest {made.digest[:12]} is right, and the folds fit {release}.")
    else:
        made = opened.folds(k, seed=seed, stratify=stratify or None, split=split)
    if out is not None:
        made.write(out)
        note(f"Wrote {out}, digest {made.digest[:12]}.")
    _print_folds(made, made.balance(*opened.tables_of(split)), as_json=as_json)


def _print_folds(made: Folds, balance: pd.DataFrame, *, as_json: bool) -> None:
    if as_json:
        rows: list[dict[Any, Any]] = balance.reset_index().to_dict(orient="records")
        parts = [part.model_dump(mode="json") for part in made.parts]
        print_json({"digest": made.digest, "folds": parts, "balance": rows})
        return
    sys.stdout.write(balance.to_string() + "\n")


def leaks(
    split: Annotated[
        list[str],
        typer.Argument(
            help="A JSON file with a list for each side (also nnU-Net's splits_final.json, a MONAI "
            "datalist, or folds.json), or SIDE=FILE for each side, with an entry on each line.",
            metavar="[SIDE=]FILE...",
        ),
    ],
    *,
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            metavar="RELEASE",
            help="Also name the entries that this release does not have.",
            autocompletion=completion.releases,
        ),
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Name each patient that sits on two sides of a split; exit with 3 if there is one.

    Entries may be ids or paths, padded or not, of series or subjects, in either layout.
    """
    from verse_data import api
    from verse_data.tables.leaks import find_leaks, read_splits

    splits = read_splits(split)
    scans = None
    if release is not None:
        scans = _names_of(api.open_release(release, version=version, root=root, offline=offline))
    reports = {name: find_leaks(sides, scans=scans) for name, sides in splits.items()}
    _print_reports(reports, as_json=as_json)
    if not all(report.is_clean for report in reports.values()):
        raise typer.Exit(3)


def _names_of(release: Release) -> pd.DataFrame:
    """Return the columns of the table of scans that are told by names; no file is read for them."""
    import pandas as pd

    columns = ["scan_id", "subject_id", "series_id", "series_label"]
    rows = [[getattr(scan, name) for name in columns] for scan in release.series.values()]
    return pd.DataFrame(rows, columns=columns)


def _print_reports(reports: dict[str, LeakReport], *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json({name or "split": asdict(report) for name, report in reports.items()})
        return
    for name, report in reports.items():
        heading = f"{name}\n" if name else ""
        sys.stdout.write(f"{heading}{report}\n")
