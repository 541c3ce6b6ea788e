"""``verse-data get | status | drop``: the contents of a release on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from verse_data.cli.common import (
    JsonOption,
    OfflineOption,
    ReleaseArgument,
    RootOption,
    VersionOption,
    note,
    print_json,
)

if TYPE_CHECKING:
    from verse_data.records.lock import LockedFile
    from verse_data.records.names import Role
    from verse_data.release import Release
    from verse_data.releases.dataset import ReleaseDataset

SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="training, validation or test; may be repeated.")
]
SubjectOption = Annotated[
    list[str] | None, typer.Option("--subject", help="A subject id; may be repeated.")
]
ScanOption = Annotated[list[str] | None, typer.Option("--scan", help="A scan id; may be repeated.")]
RoleOption = Annotated[
    str | None,
    typer.Option("--role", help="Of ct,ct_json,mask,centroids,snapshot,grading; with commas."),
]
WhereOption = Annotated[
    str | None, typer.Option("--where", help="Only scans with a vertebra for which this is true.")
]
_ASKED: Final[tuple[Role, ...]] = ("grading", "centroids", "ct_json", "mask")
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("get")(get)
    app.command("status")(status)
    app.command("drop")(drop)


def chosen_scans(
    release: Release,
    *,
    splits: list[str] | None,
    subjects: list[str] | None,
    scans: list[str] | None,
    where: str | None,
) -> list[str] | None:
    """Return the ids of the scans that the options mean, or None if there are no options."""
    from verse_data.errors import UsageError
    from verse_data.records.names import SPLITS

    if not (splits or subjects or scans or where):
        return None
    for word, known in ((splits, set(SPLITS)), (scans, set(release.series))):
        wrong = [name for name in word or [] if name not in known]
        if wrong:
            raise UsageError(f"{wrong[0]!r} is none of {', '.join(sorted(known)[:_SHOWN])}.")
    people = {scan.subject_id for scan in release.series.values()}
    wrong = [name for name in subjects or [] if name.removeprefix("sub-") not in people]
    if wrong:
        raise UsageError(f"{release.name} has no subject {wrong[0]!r}.")
    wanted = {name.removeprefix("sub-") for name in subjects or []}
    chosen = [
        scan_id
        for scan_id, scan in release.series.items()
        if (not splits or scan.split in splits)
        and (not wanted or scan.subject_id in wanted)
        and (not scans or scan_id in scans)
    ]
    if not where:
        return chosen
    matching = set(release.select(where, scan_ids=chosen)["scan_id"])
    return [scan_id for scan_id in chosen if scan_id in matching]


def chosen_roles(text: str | None) -> list[Any] | None:
    """Return the roles in a list with commas, or None."""
    from typing import get_args

    from verse_data.errors import UsageError
    from verse_data.records.names import Role

    if text is None:
        return None
    roles = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [role for role in roles if role not in get_args(Role)]
    if wrong:
        raise UsageError(f"{wrong[0]!r} is no role; roles are {', '.join(get_args(Role))}.")
    return roles


def _files(
    release: Release,
    *,
    splits: list[str] | None,
    subjects: list[str] | None,
    scans: list[str] | None,
    where: str | None,
    role: str | None,
) -> list[LockedFile]:
    scan_ids = chosen_scans(release, splits=splits, subjects=subjects, scans=scans, where=where)
    roles = chosen_roles(role)
    if scan_ids is None and roles is None:
        return list(release.lock.files)
    return release.locked(scan_ids, roles)


def get(
    release: ReleaseArgument,
    *,
    split: SplitOption = None,
    subject: SubjectOption = None,
    scan: ScanOption = None,
    where: WhereOption = None,
    role: RoleOption = None,
    engine: Annotated[str, typer.Option(help="annex (git-annex) or http (our own).")] = "annex",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=32, help="Files at a time.")] = 8,
    version: VersionOption = None,
    root: RootOption = None,
    offline: OfflineOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring files of a release to this machine, verified; what is here is not fetched again."""
    from verse_data import api, progress

    opened = api.open_release(release, version=version, root=root, offline=offline)
    if where and not opened.config.offline:
        note("Fetching what --where looks at: grades, centroids, masks.")
        opened.files.fetch(opened.locked(roles=_ASKED), engine=engine, jobs=jobs)
    files = _files(opened, splits=split, subjects=subject, scans=scan, where=where, role=role)
    missing = [file for file in files if not opened.files.has(file)]
    if dry_run:
        _plan(files, missing, as_json=as_json)
        return
    report = opened.files.fetch(files, engine=engine, jobs=jobs, progress=progress.default())
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
        name_unserved(
            opened.files, opened.version, [result.file.path for result in report.to_adopt]
        )
    chosen = (split, subject, scan, where)
    report.raise_for_failures(
        needed=opened.needed(files, [] if any(chosen) else None, chosen_roles(role))
    )


def name_unserved(dataset: ReleaseDataset, version: str, paths: Sequence[str]) -> None:
    """Say which files have no address, and how they come."""
    if paths:
        from verse_data.releases.commands import command, unless_newest

        shown = ", ".join(paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
        way = command(dataset, "adopt", "PATH", version=unless_newest(dataset, version))
        note(f"{len(paths):,} to adopt, since they have no address ({shown}): {way}")


def _plan(files: list[LockedFile], missing: list[LockedFile], *, as_json: bool) -> None:
    total = sum(file.size for file in {file.annex_key: file for file in missing}.values())
    if as_json:
        names = [file.path for file in missing]
        print_json({"files": len(missing), "bytes": total, "missing": names})
        return
    sys.stdout.write(f"{len(missing):,} of {len(files):,} files would come, {total:,} bytes\n")


def status(
    release: ReleaseArgument,
    *,
    version: VersionOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which versions there are, and what of one is on this machine."""
    from verse_data.cli.dataset import open_dataset
    from verse_data.releases.commands import command, unless_newest
    from verse_data.releases.status import status as count

    opened = open_dataset(release, root)
    found = count(opened, version)
    if as_json:
        totals = {"files": found.files, "here": found.here, "bytes_missing": found.bytes_missing}
        print_json({**asdict(found), **totals})
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(f"{found.release} {found.version} (versions: {', '.join(found.versions)})")
    console.print(f"commit {found.commit}\nlock   {found.lock}\nat     {found.path}")
    table = Table("split", "role", "files", "here", "bytes missing", box=None)
    for share in found.shares:
        missing = share.bytes - share.bytes_here
        table.add_row(
            share.split, share.role, f"{share.files:,}", f"{share.here:,}", f"{missing:,}"
        )
    console.print(table)
    console.print(
        f"{found.here:,} of {found.files:,} files here, {found.bytes_missing:,} bytes missing"
    )
    if found.here + len(found.to_adopt) < found.files:
        note(
            f"Fetch the rest with: {command(opened, 'get', version=unless_newest(opened, found.version))}"
        )
    name_unserved(opened, found.version, found.to_adopt)


def drop(
    release: ReleaseArgument,
    *,
    split: SplitOption = None,
    subject: SubjectOption = None,
    scan: ScanOption = None,
    role: RoleOption = None,
    version: VersionOption = None,
    root: RootOption = None,
    offline: OfflineOption = None,
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

    opened = api.open_release(release, version=version, root=root, offline=offline)
    files = _files(opened, splits=split, subjects=subject, scans=scan, where=None, role=role)
    if corrupt:
        found = verify_files(opened.files, files, level="hash", progress=progress.default())
        wrong = {finding.path for finding in found if finding.rule != "missing"}
        files = [file for file in files if file.path in wrong]
    report = drop_files(opened.files, files, unchecked=unchecked or corrupt)
    sys.stdout.write(f"{len(report.dropped):,} removed ({report.bytes:,} bytes)\n")
    for file, why in report.kept[:_SHOWN]:
        note(f"kept {file.path}: {why}")
    if report.kept:
        note(f"{len(report.kept)} kept, since git-annex could not see another copy of them.")
        raise typer.Exit(4)
