"""``verse-data verify | diff``: is a release what it should be, and what changed in it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from verse_data.cli import completion, values
from verse_data.cli import options as opt
from verse_data.cli.choosing import chosen_roles, chosen_scans
from verse_data.cli.common import SHOWN, print_json

_LEVELS: Final = ("presence", "size", "hash", "content")


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("verify")(verify)
    app.command("diff")(diff)


def verify(
    release: opt.Release,
    *,
    level: Annotated[
        Any,
        typer.Option(
            help="presence, size, hash or content: how closely to look.",
            metavar="LEVEL",
            parser=values.one_of(*_LEVELS),
            autocompletion=completion.words(*_LEVELS),
        ),
    ] = "hash",
    split: opt.Splits = None,
    subject: opt.Subjects = None,
    scan: opt.Scans = None,
    role: opt.Roles = None,
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Check what is here against the lock, and the lock against what the catalog expects.

    Exits with 4 if something here is missing or damaged; gaps of the lock itself are only told.
    """
    from verse_data import api, progress
    from verse_data.tables.check import verify as check

    opened = api.open_release(release, version=version, root=root, offline=True, make=False)
    scan_ids = chosen_scans(opened, splits=split, subjects=subject, scans=scan)
    found = check(
        opened.files,
        opened.version,
        opened.index,
        level=level,
        scan_ids=scan_ids,
        roles=chosen_roles(role),
        derived=opened.config.derived,
        progress=progress.default(),
    )
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        _print_findings(found)
    if any(not finding.upstream for finding in found):
        raise typer.Exit(4)


def _print_findings(found: tuple[Any, ...]) -> None:
    from collections import Counter

    if not found:
        sys.stdout.write("clean: of what was looked at, everything is here as it was locked\n")
        return
    for rule, count in Counter(finding.rule for finding in found).items():
        sys.stdout.write(f"{rule}: {count:,}\n")
        same = [finding for finding in found if finding.rule == rule]
        for finding in same[:SHOWN]:
            sys.stdout.write(f"  {finding.path or finding.scan_id}: {finding.message}\n")
        if count > SHOWN:
            sys.stdout.write(f"  and {count - SHOWN:,} more\n")
        for command in dict.fromkeys(finding.command for finding in same):
            sys.stdout.write(f"  mend: {command}\n")


def diff(
    release: opt.Release,
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD", help="The older version, such as v1.", autocompletion=completion.versions
        ),
    ],
    new: Annotated[
        str,
        typer.Argument(
            metavar="NEW", help="The newer version, such as v2.", autocompletion=completion.versions
        ),
    ],
    *,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Say what changed between two versions: files, and what is in those that are here.

    Labels of masks, cells of the grading workbook and points of centroid files are compared where
    both versions of the file are on this machine; the others are named.
    """
    from verse_data.cli.dataset import open_dataset
    from verse_data.config import resolve
    from verse_data.tables.changes import compare

    dataset = open_dataset(release, root)
    found = compare(
        dataset, dataset.resolve(old), dataset.resolve(new), derived=resolve(root=root).derived
    )
    if not as_json:
        sys.stdout.write(f"{found}\n")
        return
    rows = [
        {
            "kind": change.kind,
            "scan_id": change.scan_id,
            "role": change.role,
            "path": change.path,
            "old_key": change.old.annex_key if change.old else None,
            "new_key": change.new.annex_key if change.new else None,
        }
        for change in found.files
    ]
    print_json(
        {
            "files": rows,
            "labels": [str(change) for change in found.labels],
            "cells": [asdict(change) for change in found.cells],
            "points": [asdict(change) for change in found.points],
            "not_compared": [asdict(gap) for gap in found.not_compared],
        }
    )
