"""``verse-data preview | explore``: scans and vertebrae as pictures, and in the browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import (
    check_condition,
    chosen_scans,
    note,
    print_answer,
    print_json,
    scans_where,
)
from verse_data.errors import UsageError, counted
from verse_data.progress import spell_bytes

app = typer.Typer()


@app.command()
def preview(
    release: opt.Release,
    scan_ids: opt.SeveralScans = None,
    out: Annotated[
        Path | None,
        opt.written(
            "FILE|FOLDER",
            "The picture of one scan, or a folder. Default: SCAN.png here.",
            *opt.OUT,
        ),
    ] = None,
    *,
    split: opt.Splits = None,
    subject: opt.Subjects = None,
    where: opt.Where = None,
    sheet: Annotated[
        Path | None, opt.written("FILE", "Draw the vertebrae of --where on one picture instead.")
    ] = None,
    kind: Annotated[
        Any,
        opt.choice(
            "FORMAT",
            ("png", "jpg", "webp", "pdf"),
            "png, jpg, webp or pdf, of pictures in a folder. Default: png.",
            "--format",
        ),
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Fill vertebrae with their colour.")] = False,
    workers: opt.Workers = None,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Draw scans along the spine, with outlines and grades; or all vertebrae of a condition."""
    _check_options(scan_ids or split or subject or where, out, sheet, kind, where, fill=fill)
    check_condition(where)
    opened = vd.open_release(release, overlays=overlay, version=version, root=root, offline=offline)
    facts: dict[str, Any] = {"release": release, "version": opened.version}
    chosen = chosen_scans(opened, split, subject, scan_ids)
    if sheet is not None and where is not None:
        opened.sheet(where, scan_ids=chosen, path=sheet, workers=workers)
        print_answer({**facts, "where": where, "path": sheet}, as_json=as_json)
        return
    names = _with_ct(opened, chosen, where, scan_ids)
    paths = opened.previews(_files(names, out, kind), fill=fill, workers=workers)
    if as_json:
        print_json({**facts, "paths": paths})
    else:
        sys.stdout.write("".join(f"{path}\n" for path in paths.values()))


def _check_options(
    chosen: object,
    out: Path | None,
    sheet: Path | None,
    kind: str | None,
    where: str | None,
    *,
    fill: bool,
) -> None:
    """Refuse options that mean nothing together, and formats that are not written."""
    from verse_data.files import check_output
    from verse_data.views.drawing import check_picture

    if sheet is not None:
        check_picture(sheet)
        if where is None:
            raise UsageError(
                "--sheet draws the vertebrae of a condition. Say which: --where 'grade == 3'; or "
                "--where \"level >= 'C1'\" for all of some scans."
            )
        if out is not None or kind is not None or fill:
            raise UsageError("--out, --format and --fill cannot be combined with --sheet.")
        return
    if not chosen:
        raise UsageError(
            "Nothing says which scans to draw. Name some, or choose them by --split, --subject or "
            "--where."
        )
    if out is not None and _is_folder(out):
        check_output(out)
    elif out is not None:
        check_picture(out)
        if kind is not None:
            raise UsageError(f"{out} has its format in its name: leave --format out.")


def _is_folder(out: Path) -> bool:
    from verse_data.views.drawing import FORMATS

    return out.is_dir() or not (out.suffix or out.name.lower() in FORMATS)


def _with_ct(
    opened: vd.Release, chosen: list[str] | None, where: str | None, named: list[str] | None
) -> list[str]:
    """Return the scans to draw; those without a CT are left out unless they were named."""
    if where is not None:
        chosen = scans_where(opened, where, chosen)
    known = opened.known_scans(chosen)
    names = [name for name in known if "ct" in opened.series[name].files or name in (named or ())]
    if lost := len(known) - len(names):
        note(f"{counted(lost, 'scan')} without CT left out.")
    if not names:
        raise UsageError(f"{opened.name} {opened.version} has no scan to draw for these options.")
    return names


def _files(names: list[str], out: Path | None, kind: str | None) -> dict[str, Path]:
    """Return the file of each scan."""
    if out is None or _is_folder(out):
        return {name: (out or Path()) / f"{name}.{kind or 'png'}" for name in names}
    if len(names) > 1:
        raise UsageError(f"--out {out} is one file, for {len(names)} scans. Name a folder.")
    return {names[0]: out}


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
        opt.written(
            "PATH",
            "Write the page to this new folder instead; it opens from disk, offline.",
            *opt.OUT,
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
    where_is: dict[str, Any] = {"version": version, "root": root, "offline": offline}
    chosen: dict[str, Any] = {"where": where, "split": split, "scan": scan, "spacing": spacing}
    how = {"single-file": single_file, "dry-run": dry_run, "json": as_json}
    if out is None:
        for name, value in {**chosen, **how}.items():
            if value:
                raise UsageError(f"--{name} goes with --out PATH, which writes a page to disk.")
    check_condition(where)
    opened = vd.open_release(release, overlays=overlay, **where_is)
    if out is None:
        opened.explore(browser=browser, announce=_announce)
        return
    chosen["scan_ids"] = chosen.pop("scan")
    page = opened.save_explorer(out, single_file=single_file, dry_run=dry_run, tell=note, **chosen)
    if as_json:
        print_json(page)
    elif not dry_run:
        sys.stdout.write(f"{page.path / 'index.html' if page.path.is_dir() else page.path}\n")
        note(f"{spell_bytes(page.nbytes)} written; a double click opens it.")


def _announce(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    note("The address works once, for one browser. Ctrl-C ends the explorer.")
