"""``verse-data explore``: tables and scans in the browser, served here or written to disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import note, print_json
from verse_data.errors import UsageError
from verse_data.progress import spell_bytes

app = typer.Typer()


@app.command()
def explore(
    release: opt.Release = "verse19",
    *,
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Open the browser, or only print the address."),
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            parser=opt.output,
            help="Write the page to this new folder instead; it opens from disk, offline.",
        ),
    ] = None,
    single_file: Annotated[
        bool,
        typer.Option("--single-file", help="With --out: one .html, with previews of many scans."),
    ] = False,
    where: opt.Where = None,
    split: opt.Splits = None,
    scan: opt.Scans = None,
    spacing: Annotated[
        float | None,
        typer.Option(
            metavar="MM",
            parser=opt.number(float, 0.2, 20, what="a voxel size in mm"),
            help="With --out: voxel size of its volumes. Default: 2.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --out: only say how large it would be.")
    ] = False,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Look at tables, filters and scans side by side in the browser; Ctrl-C ends it."""
    common: dict[str, Any] = {"version": version, "root": root, "offline": offline}
    common["overlays"] = overlay
    chosen: dict[str, Any] = {"where": where, "split": split, "scan_ids": scan, "spacing": spacing}
    if out is None:
        given = [*filter(chosen.get, chosen), *["single_file"] * single_file]
        given += ["dry_run"] * dry_run + ["json"] * as_json
        if given:
            name = {"scan_ids": "scan"}.get(given[0], given[0].replace("_", "-"))
            raise UsageError(f"--{name} goes with --out PATH, which writes a page to disk.")
        vd.open_release(release, **common).explore(browser=browser, announce=_announce)
        return
    _check(where)
    page = vd.open_release(release, **common).save_explorer(
        out, single_file=single_file, dry_run=dry_run, tell=note, **chosen
    )
    if as_json:
        print_json(page)
    elif not dry_run:
        sys.stdout.write(f"{page.path / 'index.html' if page.path.is_dir() else page.path}\n")
        note(f"{spell_bytes(page.nbytes)} written; a double click opens it.")


def _check(where: str | None) -> None:
    """Refuse a wrong condition before a release is opened, and perhaps listed."""
    from verse_data.tables.query import check_condition

    if where is not None:
        check_condition(where)


def _announce(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    note("The address works once, for one browser. Ctrl-C ends the explorer.")
