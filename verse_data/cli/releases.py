"""``verse-data releases``: what is known and what is here."""

from __future__ import annotations

import sys

import typer

from verse_data.cli.common import JsonOption, RootOption, print_json


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("releases")(releases)


def releases(*, root: RootOption = None, as_json: JsonOption = False) -> None:
    """List the releases that the catalog knows or that are on this machine."""
    from dataclasses import asdict

    from verse_data import api

    known = api.list_releases(root=root)
    if as_json:
        print_json([asdict(release) for release in known])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("release", "versions here", "title", box=None)
    for release in known:
        table.add_row(release.name, ", ".join(release.versions) or "none", release.title)
    Console(file=sys.stdout).print(table)
