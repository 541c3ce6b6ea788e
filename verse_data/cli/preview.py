"""``verse-data preview``: scans as pictures, or the vertebrae of a condition on one sheet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import chosen_scans, note, print_answer, print_json
from verse_data.errors import UsageError, counted

if TYPE_CHECKING:
    from verse_data.release import Release

_Format = Annotated[
    Any,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="png, jpg, webp or pdf, of pictures in a folder. Default: png.",
        **opt.one_of("png", "jpg", "webp", "pdf"),
    ),
]

app = typer.Typer()


@app.command()
def preview(
    release: opt.Release,
    scan_ids: opt.SeveralScans = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|FOLDER",
            parser=opt.output,
            help="The picture of one scan, or a folder. Default: SCAN.png here.",
        ),
    ] = None,
    *,
    split: opt.Splits = None,
    subject: opt.Subjects = None,
    where: opt.Where = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=opt.output,
            help="Draw the vertebrae of --where on one picture instead.",
        ),
    ] = None,
    kind: _Format = None,
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
    if where is not None:
        from verse_data.tables.query import check_condition

        check_condition(where)  # before a release is opened, and perhaps listed
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
    opened: Release, chosen: list[str] | None, where: str | None, named: list[str] | None
) -> list[str]:
    """Return the scans to draw; those without a CT are left out unless they were named."""
    if where is not None:
        note("Fetching the files that --where needs: grades, centroids, masks.")
        rows = opened.fetch_and_select(where, scan_ids=chosen)
        chosen = list(dict.fromkeys(rows["scan_id"]))
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
