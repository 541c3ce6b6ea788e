"""``verse-data predictions import``: what a model predicted, back on the grids of its scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import Overview, note, open_named, print_json, print_table
from verse_data.errors import UsageError, counted
from verse_data.problems import shown
from verse_data.progress import spell_bytes
from verse_data.spine.levels import LEVEL_OF_LABEL


def _parse_pair(text: str) -> tuple[int, int]:
    """Return the value and the label of ``26=28``."""
    value, _, label = text.partition("=")
    if not value.isdecimal() or not label.isdecimal() or int(label) not in {0, *LEVEL_OF_LABEL}:
        raise UsageError(
            f"--inverse {text}: give VALUE=LABEL with a label of VerSe, as 26=28, or 0 for none."
        )
    return int(value), int(label)


def _as_map(pairs: list[tuple[int, int]] | None) -> dict[int, int] | None:
    """Return the label of each value, which may have one only."""
    labels = dict(pairs or ())
    for value, label in pairs or ():
        if labels[value] != label:
            raise UsageError(f"--inverse gives {value} two labels, {label} and {labels[value]}.")
    return labels or None


DatasetJson = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The export's dataset.json. Default: nnU-Net's copy in DIR, or one or two above.",
    ),
]
Inverse = Annotated[
    list[Any] | None,
    typer.Option(
        metavar="VALUE=LABEL",
        parser=_parse_pair,
        help="With folder: VerSe's label of a value that differs, such as 26=28 for T13 of the "
        "export for MONAI, or 26=0 to leave out a sacrum; may be given several times.",
    ),
]

app = typer.Typer()
group = typer.Typer(
    name="predictions",
    cls=Overview,
    help="Bring predictions back to the grids of their scans, with VerSe's labels.",
    no_args_is_help=True,
)
app.add_typer(group)


@group.command("import")
def import_(
    form: Annotated[
        str,
        typer.Argument(
            help="nnunet: by nnU-Net, with the labels of its export. folder: any files named by "
            "scan, with VerSe's labels.",
            metavar="FORM",
            **opt.one_of("nnunet", "folder"),
        ),
    ],
    release: opt.Releases,
    folder: Annotated[Path, typer.Argument(help="The folder of predictions.", metavar="DIR")],
    out: Annotated[Path, typer.Argument(help="A new folder for the result.", metavar="OUT")],
    *,
    dataset_json: DatasetJson = None,
    inverse: Inverse = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written, by names and headers.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Write predictions as SCAN.nii.gz on the grid of each scan, for evaluation or a viewer."""
    opened = open_named(release, version=version, root=root, offline=offline)
    found = vd.predictions.import_predictions(
        form,  # type: ignore[arg-type]  # one of the two, as parsed
        opened,
        folder,
        out,
        dataset_json=dataset_json,
        inverse=_as_map(inverse),
        dry_run=dry_run,
    )
    for scan in found.scans:
        if scan.outside:
            note(
                f"{scan.file}: {counted(scan.outside, 'labelled voxel')} outside of {scan.scan_id} lost"
            )
    if found.missing:
        what = counted(len(found.missing), "scan")
        note(f"no prediction of {what} of the same splits:", *shown(found.missing, indent="  "))
    if as_json:
        print_json(found)
    else:
        rows = [
            (scan.scan_id, scan.file, "copied" if scan.exact else "resampled", len(scan.levels))
            for scan in found.scans
        ]
        heads = ("scan_id", "file", "voxels", "levels")
        print_table(
            *heads[: 3 if dry_run else 4], rows=[row[: 3 if dry_run else 4] for row in rows]
        )
    there = "is" if len(found.scans) == 1 else "are"
    done = f"would be written to {out}, at most" if dry_run else f"{there} in {out},"
    note(f"{counted(len(found.scans), 'prediction')} {done} {spell_bytes(found.nbytes)}")
