"""``verse-data releases | diff | provenance | cite | schemas``: describing a release to others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import verse_data as vd
from verse_data.cli import options as opt
from verse_data.cli.common import Overview, note, print_facts, print_json, print_table
from verse_data.errors import ValidationFailed

if TYPE_CHECKING:
    from verse_data.records.provenance import FetchedFrom

app = typer.Typer()
schemas = typer.Typer(
    name="schemas",
    cls=Overview,
    help="JSON Schemas of the records, generated from the models.",
    no_args_is_help=True,
)
app.add_typer(schemas)
group = typer.Typer(name="releases", cls=Overview, invoke_without_command=True)
app.add_typer(group)


# --- a release ------------------------------------------------------------------------------------


@group.callback()
def releases(ctx: typer.Context, *, root: opt.Root = None, as_json: opt.Json = False) -> None:
    """List the releases that the catalog knows or that are on this machine."""
    if ctx.invoked_subcommand:
        return
    known = vd.list_releases(root=root)
    if as_json:
        print_json(known)
        return
    rows = [[one.name, ", ".join(one.versions) or "none", one.title] for one in known]
    print_table("release", "versions here", "title", rows=rows, prose=("title",))


@group.command("show")
def show_release(release: opt.Release, *, root: opt.Root = None, as_json: opt.Json = False) -> None:
    """Print what the catalog knows of a release, and where the series of its edition lie."""
    found = vd.describe_release(release, root=root)
    if as_json:
        print_json(found)
    else:
        sys.stdout.write(f"{found}\n")


@app.command()
def diff(
    release: opt.Release,
    old: opt.VersionArgument,
    new: opt.VersionArgument,
    *,
    overlay: opt.Overlays = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Print what changed between two versions: files, and the contents of those that are here.

    Labels of masks, cells of the grading workbook and points of centroid files are compared where
    both versions of the file are on this machine; the others are named. With --overlay, NEW has the
    overlay and OLD has not: diff RELEASE v1 v1 --overlay NAME says what it corrects.
    """
    opened = vd.open_release(release, version=new, overlays=overlay, root=root, make=False)
    found = opened.diff(old)
    if not as_json:
        sys.stdout.write(f"{found}\n")
        return
    files = [
        {
            **{name: getattr(change, name) for name in ("kind", "scan_id", "role", "path")},
            "old_key": change.old and change.old.annex_key,
            "new_key": change.new and change.new.annex_key,
        }
        for change in found.files
    ]
    labels = [str(change) for change in found.labels]
    others = {name: getattr(found, name) for name in ("cells", "points", "not_compared")}
    overlays = {"overlays": found.overlays} if overlay else {}
    print_json({"files": files, "labels": labels, **others, **overlays})


@app.command()
def provenance(
    release: opt.Release,
    scan: opt.ScanOrAll = None,
    *,
    overlay: opt.Overlays = None,
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Print exactly what a release, or one scan of it, is: lock, commit, files, keys, origins."""
    opened = vd.open_release(release, overlays=overlay, version=version, root=root, make=False)
    found = opened.provenance(scan)
    if as_json:
        print_json(found)
        return
    here = sum(file.here for file in found.files)
    print_facts(
        {
            "release": f"{found.release} {found.version}",
            "lock": found.lock,
            "commit": found.commit,
            **({"overlays": ", ".join(map(str, found.overlays))} if found.overlays else {}),
            "source": f"{found.source.kind} {found.source.node or ''}",
            "licence": found.licence or "unknown",
            "files": f"{len(found.files):,}, {here:,} of them here",
        }
    )
    for file in found.files if scan is not None else ():
        came = f"fetched {file.fetched.time} from {_origin(file.fetched)}" if file.fetched else ""
        print_facts(
            {
                file.role or "file": file.path,
                "key": file.key,
                "here": came or ("yes" if file.here else "no"),
            }
        )


def _origin(found: FetchedFrom) -> str:
    """Return the known origin of a file."""
    if found.url or found.source == "web":
        return found.url or "one of its addresses"
    return f"the sibling {found.source!r}" if found.source else "a sibling or an unknown address"


@app.command()
def cite(
    release: Annotated[
        str | None,
        opt.a_release(
            "Name of the release, such as verse19. Without one, the software is cited.",
            typer.Argument,
        ),
    ] = None,
    *,
    style: Annotated[
        Any,
        opt.choice("FORMAT", ("text", "bibtex", "ris"), "text, bibtex or ris.", "--format"),
    ] = "text",
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Print how to cite a release: publications, licence, attribution, version and lock."""
    style = "json" if as_json else style
    sys.stdout.write(vd.cite(release, style=style, version=version, root=root))
    here = {one.name for one in vd.list_releases(root=root) if one.versions}
    if style in {"bibtex", "ris"} and release and release not in here:
        note(f"{release} is not on this machine, so no version and no lock of it is named.")


# --- the models -----------------------------------------------------------------------------------

Folder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="The schemas folder. Default: the package's own."),
]


@schemas.command("list")
def list_schemas() -> None:
    """List the schemas by name."""
    from verse_data.tables.schemas import MODELS

    sys.stdout.write("".join(f"{name}\n" for name in MODELS))


@schemas.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a schema, such as vertebra.")
    ],
) -> None:
    """Print one schema."""
    from verse_data.tables.schemas import render

    sys.stdout.write(render(name).decode())


@schemas.command()
def write(folder: Folder = None) -> None:
    """Generate the schemas of this version from the models."""
    from verse_data.files import locate
    from verse_data.tables.schemas import MODELS, write

    changed = write(folder or locate("schemas"))
    sys.stdout.write("".join(f"{path}\n" for path in changed))
    note(f"{len(changed)} of {len(MODELS)} schemas were written; the others were up to date.")


@schemas.command()
def check(folder: Folder = None) -> None:
    """Check that schemas are what the models give, and that published ones never changed."""
    from verse_data.tables.schemas import MODELS, SCHEMA_VERSION, check

    if problems := check(folder):
        raise ValidationFailed("\n  ".join([f"{len(problems)} schemas are not right:", *problems]))
    note(f"All {len(MODELS)} schemas of {SCHEMA_VERSION} are right.")
