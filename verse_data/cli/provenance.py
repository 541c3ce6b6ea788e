"""``verse-data provenance | export prov, rocrate, croissant``: what exactly a release is, for others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verse_data.cli import completion
from verse_data.cli import options as opt
from verse_data.cli.common import note, print_json
from verse_data.cli.overview import Summaries

if TYPE_CHECKING:
    from verse_data.records.provenance import FetchedFrom, Provenance

ScanArgument = Annotated[
    str | None,
    typer.Argument(
        help="A scan id. Default: the whole release.",
        metavar="SCAN",
        autocompletion=completion.scans,
    ),
]


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("provenance")(provenance)
    group = typer.Typer(
        cls=Summaries, help="Describe a release in formats that others read.", no_args_is_help=True
    )
    for name, say, text in (
        ("prov", _prov, "Write provenance as W3C PROV-JSON."),
        (
            "rocrate",
            _rocrate,
            "Write ro-crate-metadata.json (RO-Crate 1.1) for the root of the dataset.",
        ),
        (
            "croissant",
            _croissant,
            "Write the release as Croissant 1.1 with the fields for responsible AI.",
        ),
    ):
        group.command(name, help=text)(_exporter(say))
    app.add_typer(group, name="export")


def _describe(release: str, scan: str | None, version: str | None, root: Path | None) -> Provenance:
    from verse_data import api

    return api.open_release(release, version=version, root=root, make=False).provenance(scan)


def provenance(
    release: opt.Release,
    scan: ScanArgument = None,
    *,
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Say what exactly a release, or one scan of it, is: lock, commit, keys, addresses, packages."""
    found = _describe(release, scan, version, root)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    here = sum(file.here for file in found.files)
    lines = {
        "release": f"{found.release} {found.version}",
        "lock": found.lock,
        "commit": found.commit,
        "dataset": found.dataset_id,
        "source": f"{found.source.kind} {found.source.node or ''}".strip(),
        "licence": found.licence or "unknown",
        "files": f"{len(found.files):,}, {here:,} of them here",
        "packages": ", ".join(f"{name} {number}" for name, number in found.packages.items()),
    }
    sys.stdout.write("".join(f"{name:9}{value}\n" for name, value in lines.items()))
    if scan is not None:
        for file in found.files:
            came = file.fetched
            how = _told(came) if came else ("here" if file.here else "-")
            sys.stdout.write(
                f"{file.role or 'file':10}{file.path}\n{'':10}{file.key}\n{'':10}{how}\n"
            )


def _told(came: FetchedFrom) -> str:
    """Say when and from where a content came, and no more than is known."""
    if came.url:
        place = came.url
    elif came.source == "web":
        place = "one of its addresses"
    elif came.source:
        place = f"the sibling {came.source!r}"
    else:
        place = "a sibling or an unknown address"
    return f"fetched {came.time} from {place}"


def _exporter(say: Callable[[Provenance], dict[str, Any]]) -> Callable[..., None]:
    """Return the command that writes what `say` makes of a release's provenance."""

    def export(
        release: opt.Release,
        scan: ScanArgument = None,
        *,
        version: opt.Version = None,
        root: opt.Root = None,
        out: opt.Out = None,
    ) -> None:
        _write(say(_describe(release, scan, version, root)), out)

    return export


def _prov(found: Provenance) -> dict[str, Any]:
    from verse_data.export.prov import to_prov

    return to_prov(found)


def _rocrate(found: Provenance) -> dict[str, Any]:
    from verse_data.export.rocrate import to_rocrate

    return to_rocrate(found, date=_today())


def _croissant(found: Provenance) -> dict[str, Any]:
    from verse_data.export.croissant import load_rai, to_croissant

    return to_croissant(found, date=_today(), rai=load_rai(found.release))


def _today() -> str:
    from datetime import UTC, datetime

    return datetime.now(tz=UTC).date().isoformat()


def _write(document: dict[str, Any], out: Path | None) -> None:
    if out is None:
        print_json(document)
        return
    import json

    from verse_data.files import write_file

    write_file(out, json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
    note(f"wrote {out}")
