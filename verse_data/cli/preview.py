"""``verse-data preview``: one scan as a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import print_json

if TYPE_CHECKING:
    from verse_data.release import Release


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("preview")(preview)


def preview(
    release: opt.Release,
    scan_id: opt.Scan,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The PNG. Default: SCAN.png here."),
    ] = None,
    *,
    output: Annotated[Path | None, typer.Option("--output", hidden=True)] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Draw a scan: sagittal and coronal slice along the spine, with mask and centroids."""
    from verse_data import api

    opened = api.open_release(release, version=version, root=root, offline=offline)
    path = draw(opened, scan_id, out or output or Path(f"{scan_id}.png"))
    if as_json:
        print_json(
            {"release": release, "version": opened.version, "scan_id": scan_id, "path": path}
        )
    else:
        sys.stdout.write(f"{path}\n")


def draw(release: Release, scan_id: str, path: Path) -> Path:
    """Fetch and convert a scan if need be, draw it as it is stored, and return `path`."""
    from verse_data.spine.geometry import Box
    from verse_data.views.preview import preview_png
    from verse_data.volumes.reader import ScanReader

    release.fetch([scan_id], roles=("ct", "mask", "centroids"))
    reader = ScanReader(release.build_cache([scan_id])[scan_id])
    image, label = reader.read(Box.whole(reader.shape), label=reader.has_label)
    return preview_png(
        image, label, reader.affine, reader.centroids, path, scan_id=scan_id, release=release.name
    )
