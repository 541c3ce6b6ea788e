"""``verse-data export``: a release in the formats that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import Overview, note, open_named, print_json
from verse_data.errors import UsageError

app = typer.Typer()
export = typer.Typer(
    name="export",
    cls=Overview,
    help="Write a release in formats that other programs read.",
    no_args_is_help=True,
)
app.add_typer(export)

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
Number = Annotated[
    Any,
    typer.Option(
        "--id", metavar="N", parser=opt.number(int, 1, 999), help="Number of the dataset."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many bytes would be written, and write nothing.")
]
Copy = Annotated[
    bool,
    typer.Option(
        "--copy",
        help="Copy all files, to hand the folder on. Default: links; in BIDS, of CTs alone.",
    ),
]


@export.command()
def nnunet(
    release: opt.Releases,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder nnUNet_raw.")],
    *,
    number: Number = 400,
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
    overlay: opt.Overlays = None,
    licence: opt.Licences = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
) -> None:
    """Write a raw dataset of nnU-Net v2: masks, patient-grouped splits, and CTs by reference."""
    if copy and link:
        raise UsageError("--copy and --link put the CTs into imagesTr in two ways; give one.")
    where: Any = {"version": version, "root": root, "offline": offline}
    opened = open_named(release, overlays=overlay, licence=licence, **where)
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
    release: opt.Releases,
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
    overlay: opt.Overlays = None,
    licence: opt.Licences = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
) -> None:
    """Write a datalist of MONAI (datalist.json) with folds, masks, and CTs by reference."""
    where: Any = {"version": version, "root": root, "offline": offline}
    opened = open_named(release, overlays=overlay, licence=licence, **where)
    done = vd.export.monai(opened, out, labels=labels, k=k, seed=seed, split=split, dry_run=dry_run)
    note(str(done))


@export.command("prov", help="Write provenance as W3C PROV-JSON.")
@export.command("rocrate", help="Write RO-Crate 1.1 for the root of the dataset.")
@export.command("croissant", help="Write Croissant 1.1 with the fields for responsible AI.")
def export_(
    context: typer.Context,
    release: opt.Release,
    scan: opt.ScanOrAll = None,
    *,
    version: opt.Version = None,
    root: opt.Root = None,
    out: opt.Out = None,
) -> None:
    """Write the description of a release, or of one scan of it, in the format named by the command."""
    from verse_data.export.croissant import croissant
    from verse_data.export.folders import as_json
    from verse_data.export.prov import to_prov, to_rocrate
    from verse_data.files import write_file

    opened = vd.open_release(release, version=version, root=root, make=False)
    if context.info_name == "croissant":
        document = croissant(opened, scan)
    elif context.info_name == "prov":
        document = to_prov(opened.provenance(scan))
    else:
        document = to_rocrate(opened.provenance(scan), date=opened.files.date(opened.version))
    if out is None:
        print_json(document)
    else:
        write_file(out, as_json(document).encode())
        note(f"wrote {out}")


@export.command("bids", help="Write a BIDS derivative: masks as dseg, patients and grades as TSV.")
@export.command("hf", help="Write a folder for Hugging Face's datasets (niftifolder).")
def export_folder(
    context: typer.Context,
    release: opt.Release,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    *,
    copy: Copy = False,
    dry_run: DryRun = False,
    overlay: opt.Overlays = None,
    licence: opt.Licences = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
) -> None:
    """Write a release as a folder, in the format named by the command."""
    where: Any = {"version": version, "root": root, "offline": offline}
    opened = vd.open_release(release, overlays=overlay, licence=licence, **where)
    write = vd.export.bids if context.info_name == "bids" else vd.export.hf
    note(str(write(opened, out, copy=copy, dry_run=dry_run)))
