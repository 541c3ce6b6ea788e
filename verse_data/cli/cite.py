"""``verse-data cite``: how a release, or this package, is cited."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from verse_data.cli import completion, values
from verse_data.cli import options as opt

if TYPE_CHECKING:
    from verse_data.export.citation import Style


_FORMATS: Final = ("text", "bibtex", "ris")


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("cite")(cite)


def cite(
    release: Annotated[
        str | None,
        typer.Argument(
            help="Name of the release, such as verse19. Without one, the software is cited.",
            metavar="RELEASE",
            autocompletion=completion.releases,
        ),
    ] = None,
    *,
    style: Annotated[
        Any,
        typer.Option(
            "--format",
            help="text, bibtex or ris.",
            metavar="FORMAT",
            parser=values.one_of(*_FORMATS),
            autocompletion=completion.words(*_FORMATS),
        ),
    ] = "text",
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Say how to cite a release: publications, licence, attribution, version and lock."""
    from verse_data import api

    chosen: Style = "json" if as_json else style
    sys.stdout.write(api.cite(release, style=chosen, version=version, root=root))
