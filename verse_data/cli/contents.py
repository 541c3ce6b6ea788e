"""``verse-data get | status | drop``: the contents of a release on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from verse_data.cli import options as opt
from verse_data.cli import values
from verse_data.cli.choosing import chosen_files, chosen_roles, chosen_scans
from verse_data.cli.common import SHOWN, note, print_json, print_table, refuse_condition

if TYPE_CHECKING:
    from verse_data.records.lock import LockedFile
    from verse_data.release import Release
    from verse_data.releases.repository import Repository


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("get")(get)
    app.command("status")(status)
    app.command("drop")(drop)


def get(
    release: opt.Release,
    *,
    split: opt.Splits = None,
    subject: opt.Subjects = None,
    scan: opt.Scans = None,
    where: opt.Where = None,
    role: opt.Roles = None,
    engine: Annotated[str | None, typer.Option(hidden=True)] = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", metavar="N", parser=values.whole(1, 32), help="Files at a time."
        ),
    ] = 8,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Bring files of a release to this machine, verified; what is here is not fetched again."""
    from verse_data import api

    if engine is not None:
        note(
            f"--engine {engine} has no effect: contents come over HTTP, and from siblings in folders."
        )
    refuse_condition("vertebrae", where)
    opened = api.open_release(release, version=version, root=root, offline=offline)
    scan_ids = chosen_scans(opened, splits=split, subjects=subject, scans=scan)
    if where is not None:
        note("Fetching what --where looks at: grades, centroids, masks.")
        rows = opened.fetch_and_select(where, scan_ids=scan_ids, jobs=jobs)
        scan_ids = list(dict.fromkeys(rows["scan_id"]))
    files = chosen_files(opened, scan_ids, chosen_roles(role))
    if dry_run:
        _plan(opened, files, as_json=as_json)
        return
    report = opened.fetch_files(files, jobs=jobs)
    chosen = (split, subject, scan, where)
    needed = opened.needed(files, [] if any(chosen) else None, chosen_roles(role))
    facts = {
        "fetched": len(report.fetched),
        "present": len(report.present),
        "failed": len(report.failed),
        "to_adopt": [result.file.path for result in report.to_adopt],
        "bytes": report.bytes,
        "sibling_bytes": report.sibling_bytes,
        "failures": [
            {
                "path": r.file.path,
                "error": r.error,
                "class": r.error_class and r.error_class.__name__,
            }
            for r in report.failed
        ],
    }
    if as_json:
        print_json(facts)
    else:
        siblings = f", {report.sibling_bytes:,} from siblings" if report.sibling_bytes else ""
        sys.stdout.write(
            f"{len(report.fetched):,} fetched ({report.bytes:,} bytes over the network{siblings}), "
            f"{len(report.present):,} here before, {len(report.failed):,} failed\n"
        )
        # Those that are needed are named by the error.
        unserved = [r.file.path for r in report.to_adopt if r.file.path not in needed]
        name_unserved(opened.files, opened.version, unserved)
    report.raise_for_failures(needed=needed)


def name_unserved(dataset: Repository, version: str, paths: Sequence[str]) -> None:
    """Say which files have no address, and how they come."""
    if paths:
        from verse_data.releases.history import command, unless_newest

        shown = ", ".join(paths[:SHOWN]) + (", ..." if len(paths) > SHOWN else "")
        way = command(dataset, "adopt", "PATH", version=unless_newest(dataset, version))
        note(f"{len(paths):,} to adopt, for want of an address ({shown}): {way}")


def _plan(opened: Release, files: list[LockedFile], *, as_json: bool) -> None:
    absent = [file for file in files if not opened.files.has(file)]
    siblings = opened.files.siblings()
    missing = [file for file in absent if siblings or opened.files.addresses(file)]
    unserved = [file.path for file in absent if file not in missing]
    total = sum(file.size for file in {file.annex_key: file for file in missing}.values())
    if as_json:
        names = [file.path for file in missing]
        facts = {"files": len(missing), "bytes": total, "missing": names, "to_adopt": unserved}
        print_json(facts)
        return
    sys.stdout.write(f"{len(missing):,} of {len(files):,} files would come, {total:,} bytes\n")
    name_unserved(opened.files, opened.version, unserved)


def status(
    release: opt.Release,
    *,
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Say which versions there are, and what of one is on this machine."""
    from verse_data import api
    from verse_data.releases.history import command, unless_newest
    from verse_data.releases.repository import status as count

    opened = api.open_release(release, version=version, root=root, make=False).files
    found = count(opened, version)
    if as_json:
        totals = {"files": found.files, "here": found.here, "bytes_missing": found.bytes_missing}
        print_json({**asdict(found), **totals})
        return
    sys.stdout.write(
        f"{found.release} {found.version} (versions: {', '.join(found.versions)})\n"
        f"commit {found.commit}\nlock   {found.lock}\nat     {found.path}\n"
    )
    rows = [
        [
            one.split,
            one.role,
            *(f"{n:,}" for n in (one.files, one.here, one.bytes - one.bytes_here)),
        ]
        for one in found.shares
    ]
    print_table("split", "role", "files", "here", "bytes missing", rows=rows)
    sys.stdout.write(
        f"{found.here:,} of {found.files:,} files here, {found.bytes_missing:,} bytes missing\n"
    )
    if found.here + len(found.to_adopt) < found.files:
        note(
            f"Fetch the rest with: {command(opened, 'get', version=unless_newest(opened, found.version))}"
        )
    name_unserved(opened, found.version, found.to_adopt)


def drop(
    release: opt.Release,
    *,
    split: opt.Splits = None,
    subject: opt.Subjects = None,
    scan: opt.Scans = None,
    role: opt.Roles = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    corrupt: Annotated[
        bool, typer.Option("--corrupt", help="Only contents whose digest is wrong.")
    ] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Do not ask whether they can be had again.")
    ] = False,
) -> None:
    """Remove contents from this machine that can be had again; the lock keeps them in mind."""
    from verse_data import api, progress
    from verse_data.releases.drop import drop_files
    from verse_data.releases.verify import verify_files

    opened = api.open_release(release, version=version, root=root, offline=offline, make=False)
    scan_ids = chosen_scans(opened, splits=split, subjects=subject, scans=scan)
    roles = chosen_roles(role)
    files = chosen_files(opened, scan_ids, roles)
    if roles is None and any((split, subject, scan)):
        # Files of all scans, such as the workbook, were not named.
        shared = {file.path for file in opened.index.grading}
        files = [file for file in files if file.path not in shared]
    if corrupt:
        found = verify_files(opened.files, files, level="hash", progress=progress.default())
        wrong = {finding.path for finding in found if finding.rule != "missing"}
        files = [file for file in files if file.path in wrong]
    report = drop_files(
        opened.files, files, version=opened.version, unchecked=unchecked, damaged=corrupt
    )
    sys.stdout.write(f"{len(report.dropped):,} removed ({report.bytes:,} bytes)\n")
    for kept, what in ((report.shared, "other files have too"), (report.kept, "nobody else has")):
        for file, why in kept[:SHOWN]:
            note(f"kept {file.path}: {why}")
        if kept:
            note(f"{len(kept)} kept, which {what}.")
    if report.kept:
        raise typer.Exit(4)
