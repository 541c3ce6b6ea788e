"""``verse-data export nnunet | monai``: a release as what other training code reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import note
from verse_data.cli.provenance import export
from verse_data.errors import UsageError

app = typer.Typer()

Folds = Annotated[
    Any,
    typer.Option(
        metavar="N",
        parser=opt.number(int, 2),
        help="Divide the patients into N folds, as verse-data folds does. Default: the published split.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(metavar="N", parser=opt.number(int, 0), help="Another seed gives other folds."),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT",
        help="Divide only this published split into folds. Default: all scans, those for testing too.",
        **opt.one_of(*opt.SPLITS),
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many bytes would be written, and write nothing.")
]


@export.command()
def nnunet(
    release: opt.Release,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder nnUNet_raw.")],
    *,
    number: Annotated[
        Any,
        typer.Option(
            "--id", metavar="N", parser=opt.number(int, 1, 999), help="Number of the dataset."
        ),
    ] = 400,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Rest of the dataset's name. Default: the release's."),
    ] = None,
    labels: Annotated[
        Any,
        typer.Option(
            metavar="LABELS",
            help="consecutive (T13 becomes 26), binary (one class), or regions (whole spine, "
            "cervical, thoracic, lumbar).",
            **opt.one_of("consecutive", "binary", "regions"),
        ),
    ] = "consecutive",
    k: Folds = None,
    seed: Seed = 0,
    split: Split = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the CTs into imagesTr.")] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Put symbolic links to the CTs into imagesTr.")
    ] = False,
    variable: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Begin the paths of CTs with $NAME, for the release's folder on another machine.",
        ),
    ] = None,
    dry_run: DryRun = False,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
) -> None:
    """Write a raw dataset of nnU-Net v2: masks, patient-grouped splits, and CTs by reference."""
    if copy and link:
        raise UsageError("--copy and --link put the CTs into imagesTr in two ways; give one.")
    opened = vd.open_release(release, version=version, root=root, offline=offline)
    done = vd.export.nnunet(
        opened,
        out,
        dataset_id=number,
        name=name,
        labels=labels,
        k=k,
        seed=seed,
        split=split,
        ct="copy" if copy else "link" if link else "reference",
        variable=variable,
        dry_run=dry_run,
    )
    note(str(done))


@export.command()
def monai(
    release: opt.Release,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    *,
    labels: Annotated[
        Any,
        typer.Option(
            metavar="LABELS",
            help="consecutive (T13 becomes 26), binary (one class), or verse (as published; the "
            "masks are referenced too).",
            **opt.one_of("consecutive", "binary", "verse"),
        ),
    ] = "consecutive",
    k: Folds = None,
    seed: Seed = 0,
    split: Split = None,
    dry_run: DryRun = False,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
) -> None:
    """Write a datalist of MONAI (datalist.json) with folds, masks, and CTs by reference."""
    opened = vd.open_release(release, version=version, root=root, offline=offline)
    done = vd.export.monai(opened, out, labels=labels, k=k, seed=seed, split=split, dry_run=dry_run)
    note(str(done))
