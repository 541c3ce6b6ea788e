"""``verse-data schemas``: the JSON Schemas of the records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from verse_data.cli.common import note
from verse_data.cli.overview import Summaries

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder", metavar="FOLDER", help="The schemas folder. Default: the package's own."
    ),
]


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    schemas = typer.Typer(
        cls=Summaries,
        help="JSON Schemas of the records, generated from the models.",
        no_args_is_help=True,
    )
    schemas.command("list")(list_)
    schemas.command("show")(show)
    schemas.command("write")(write)
    schemas.command("check")(check)
    schemas.command("publish")(publish)
    app.add_typer(schemas, name="schemas")


def list_() -> None:
    """List the schemas by name."""
    from verse_data.tables.schemas import MODELS

    sys.stdout.write("".join(f"{name}\n" for name in MODELS))


def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a schema, such as vertebra.")
    ],
) -> None:
    """Print one schema."""
    from verse_data.tables import schemas

    sys.stdout.write(schemas.render(name).decode())


def write(folder: Folder = None) -> None:
    """Generate the schemas of this version from the models."""
    from verse_data.files import locate
    from verse_data.tables import schemas

    changed = schemas.write(folder or locate("schemas"))
    for path in changed:
        sys.stdout.write(f"{path}\n")
    note(
        f"{len(changed)} of {len(schemas.MODELS)} schemas were written; the others were up to date."
    )


def check(folder: Folder = None) -> None:
    """Check that schemas are what the models give, and that published ones never changed."""
    from verse_data.errors import ValidationFailed
    from verse_data.tables import schemas

    problems = schemas.check(folder)
    if problems:
        raise ValidationFailed("\n  ".join([f"{len(problems)} schemas are not right:", *problems]))
    note(f"All {len(schemas.MODELS)} schemas of {schemas.SCHEMA_VERSION} are right.")


def publish(folder: Folder = None) -> None:
    """Note the digests of this version's schemas; from then on they never change."""
    from verse_data.files import locate
    from verse_data.tables import schemas

    target = folder or locate("schemas")
    schemas.publish(target)
    note(f"{len(schemas.MODELS)} schemas of {schemas.SCHEMA_VERSION} are published in {target}.")
