"""``verse-data overlays``: corrections of a release that lie over its files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import Overview, note, print_facts, print_json, print_table
from verse_data.errors import ValidationFailed
from verse_data.problems import shown

if TYPE_CHECKING:
    from verse_data.records.overlay import Layer

app = typer.Typer()
overlays = typer.Typer(
    name="overlays",
    cls=Overview,
    help="Corrections of labels, grades and patients that are laid over a release.",
    no_args_is_help=True,
)
app.add_typer(overlays)

Given = Annotated[
    str,
    typer.Argument(metavar="OVERLAY", help="A name, or a file that ends in .toml."),
]


@overlays.command("list")
def list_overlays(*, as_json: opt.Json = False) -> None:
    """List the overlays that come with the package; none is used unless it is named."""
    from verse_data.tables.overlays import names, read_overlay

    layers = [read_overlay(name) for name in names()]
    if as_json:
        print_json([_facts(layer) for layer in layers])
        return
    rows = [
        (one.name, one.version, ", ".join(one.releases), len(one.scans), one.title)
        for one in (layer.overlay for layer in layers)
    ]
    print_table("name", "version", "releases", "scans", "title", rows=rows, prose=("title",))


def _facts(layer: Layer) -> dict[str, Any]:
    """Return what names an overlay, and what it is of."""
    overlay = layer.overlay
    about = overlay.model_dump(mode="json", exclude={"scans", "aliases"})
    return {**about, "digest": layer.digest, "n_scans": len(overlay.scans)}


@overlays.command()
def show(overlay: Given, *, as_json: opt.Json = False) -> None:
    """Print what an overlay says: its source, and each correction."""
    from verse_data.tables.overlays import read_overlay

    layer = read_overlay(overlay)
    if as_json:
        whole = layer.overlay.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        print_json({**whole, "digest": layer.digest})
        return
    facts = _facts(layer)
    print_facts(facts | {"releases": ", ".join(facts["releases"])})
    sys.stdout.write("\n")
    rows = [(name, str(one), one.why) for name, one in layer.overlay.scans.items()]
    rows += [
        (", ".join(one.subjects), f"one patient, {one.subjects[0]}", one.why)
        for one in layer.overlay.aliases
    ]
    print_table("scan or patient", "correction", "why", rows=rows, prose=("correction", "why"))


@overlays.command()
def check(
    overlay: Annotated[
        list[str], typer.Argument(metavar="OVERLAY...", help="Names, or files that end in .toml.")
    ],
    *,
    release: Annotated[
        str | None,
        opt.a_release(
            "Also check that they fit this release, by the files that are on this machine."
        ),
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
) -> None:
    """Check overlays against their schema and, with --release, each other and the scans."""
    from verse_data.tables.overlays import read_overlay

    for layer in map(read_overlay, overlay):
        note(f"{layer.applied.name} {layer.applied.version} is right: {layer.digest}")
    if release is None:
        return
    where: Any = {"version": version, "root": root, "offline": True, "make": False}
    opened = vd.open_release(release, overlays=overlay, **where)
    found = opened.findings
    wrong = found[(found["severity"] == "error") & found["message"].str.startswith("Overlay ")]
    if len(wrong):
        raise ValidationFailed("\n".join(shown(wrong["message"].tolist())))
    fitting = (found["rule"] == "overlay").sum()
    fit, correct = ("It fits", "corrects") if len(overlay) == 1 else ("They fit", "correct")
    note(f"{fit} {opened.name} {opened.version}, and {correct} {fitting} of its scans.")
