"""``verse-data releases``: what is known and what is here."""

from __future__ import annotations

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import print_json, print_table


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("releases")(releases)


def releases(*, root: opt.Root = None, as_json: opt.Json = False) -> None:
    """List the releases that the catalog knows or that are on this machine."""
    from dataclasses import asdict

    from verse_data import api

    known = api.list_releases(root=root)
    if as_json:
        print_json([asdict(release) for release in known])
        return
    rows = [[one.name, ", ".join(one.versions) or "none", one.title] for one in known]
    print_table("release", "versions here", "title", rows=rows, prose=("title",))
