"""``verse-data lock | get | adopt | status | verify | drop``: a release and its files."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import verse_data as vd
from verse_data import config, progress
from verse_data.cli import options as opt
from verse_data.cli.common import (
    check_condition,
    chosen_files,
    chosen_scans,
    note,
    print_answer,
    print_facts,
    print_json,
    print_table,
    scans_where,
)
from verse_data.errors import IntegrityError, UsageError, counted
from verse_data.problems import shown

if TYPE_CHECKING:
    from verse_data.records.lock import LockedFile, ReleaseLock
    from verse_data.releases.repository import Repository

app = typer.Typer()

# --- the list of files ----------------------------------------------------------------------------

_Tree = Annotated[
    Path | None,
    typer.Option(help="Hash this local tree, and adopt its files.", metavar="FOLDER"),
]
_About = Annotated[
    Path | None,
    typer.Option(
        help="TOML with title, licence, attribution and citations of your own data.",
        metavar="FILE",
    ),
]
_Digest = Annotated[str | None, typer.Option(help="Refuse any other lock.", metavar="sha256:HEX")]


@app.command()
def lock(
    release: opt.Release,
    *,
    from_tree: _Tree = None,
    about: _About = None,
    from_lock: Annotated[
        str | None,
        typer.Option(help="Use the lock in this file or at this address.", metavar="FILE|URL"),
    ] = None,
    from_sibling: Annotated[
        str | None,
        typer.Option(help="Clone a lab's RIA store, folder or server.", metavar="URL"),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(help="OSF node to list. Default: the catalog's.", metavar="ID"),
    ] = None,
    digest: _Digest = None,
    root: opt.Root = None,
    check: Annotated[
        bool, typer.Option(help="Read every file of the tree first, and refuse broken ones.")
    ] = True,
    as_json: opt.Json = False,
) -> None:
    """Make a version of a release: a list of its files with digests, as a DataLad dataset."""
    from verse_data.api import dataset_of
    from verse_data.releases.import_lock import read_lock
    from verse_data.tables.splits import unsplit

    _check_sources(from_tree, from_lock, from_sibling, node, pinned=digest is not None)
    if about is not None and from_tree is None:
        raise UsageError("--about describes the files of a folder: it goes with --from-tree.")
    dataset = dataset_of(release, config.resolve(root=root))
    before, version = dataset.versions(), None
    if from_tree is not None:
        version = vd.lock_tree(release, from_tree, about=about, root=root, check=check).version
    elif from_sibling is not None:
        version = vd.lock_sibling(release, from_sibling, root=root).version
    elif from_lock is not None:
        version = dataset.publish(read_lock(from_lock, dataset.config, digest=digest))
    elif node is not None or (before and release != "phantom"):
        version = dataset.publish(_list_node(dataset, node))
    made = vd.open_release(release, version=version, root=root)
    facts = {
        "release": release,
        "version": made.version,
        "commit": made.commit,
        "digest": made.lock.pin,
        "files": len(made.lock.files),
        "bytes": made.lock.total_bytes,
        "path": str(dataset.path),
    }
    print_answer(facts, as_json=as_json)
    if made.version not in before[:-1] and not made.workbook.is_listed:
        last = before[-1] if before else made.version
        _note_no_grades(made, vd.open_release(release, version=last, root=root))
    if from_tree is not None:
        note(*unsplit(made.series.values()))
    _note_gaps(made)


def _check_sources(*sources: object, pinned: bool) -> None:
    """Refuse two sources of a version, and a digest without the second of them, a lock."""
    if sum(source is not None for source in sources) > 1 or (pinned and not sources[1]):
        raise UsageError(
            "--from-tree, --from-lock, --from-sibling and --node exclude each other, and --digest "
            "goes with --from-lock alone. Give one of them."
        )


def _note_gaps(made: vd.Release) -> None:
    if made.gaps:
        what = counted(made.gaps, "file or scan", "files or scans")
        which = _command(made, "verify", "--level", "presence")
        note(f"{made.name} {made.version} lacks {what}. See which: {which}")


def _note_no_grades(made: vd.Release, before: vd.Release) -> None:
    """Say that a version lists no workbook, what gives it one, and which tables are none."""
    note(*shown([f"not the grading workbook: {why}" for why in made.workbook.others.values()]))
    lost = before.workbook.listed
    for path in (file.path for file in lost):
        again = _command(made, "adopt", shlex.quote(path.rpartition("/")[2]))
        note(
            f"{before.version} lists the grading workbook {path}, and {made.version}, which was made "
            f"now, lists none. Adopt it again: {again}"
        )
    if not lost:
        note(made.workbook.absence())


def _command(opened: vd.Release, *words: str) -> str:
    """Return what to type next about a release."""
    from verse_data.releases.history import command, unless_newest

    return command(opened.files, *words, version=unless_newest(opened.files, opened.version))


def _list_node(dataset: Repository, node: str | None) -> ReleaseLock:
    """List the OSF node of a release."""
    from verse_data.releases.catalog import load_catalog, names
    from verse_data.releases.osf import TRUST_ON_FIRST_USE, walk_node

    if node is None and dataset.name in names():
        node = load_catalog(dataset.name).osf_node
    if node is None:
        raise UsageError(
            f"The catalog has no OSF node of {dataset.name!r}. Say where it comes from: "
            f"--from-tree FOLDER, --from-lock FILE, or --node ID"
        )
    if not dataset.versions():
        note(TRUST_ON_FIRST_USE)
    return walk_node(node, config=dataset.config, release=dataset.name, progress=progress.default())


# --- contents -------------------------------------------------------------------------------------


@app.command()
def get(
    release: opt.Release,
    *,
    split: opt.Splits = None,
    subject: opt.Subjects = None,
    scan: opt.Scans = None,
    where: opt.Where = None,
    role: opt.Roles = None,
    jobs: Annotated[int, opt.whole("Files at a time.", 1, 32, ("--jobs", "-j"))] = 8,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be fetched.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Fetch files of a release, and verify them; files that are here are not fetched again."""
    check_condition(where)
    opened = vd.open_release(release, version=version, root=root, offline=offline)
    scan_ids = chosen_scans(opened, split, subject, scan)
    if where is not None:
        scan_ids = scans_where(opened, where, scan_ids, jobs=jobs)
    files = chosen_files(opened, scan_ids, role)
    if dry_run:
        _print_plan(opened, files, as_json=as_json)
        return
    report = opened.fetch_files(files, jobs=jobs)
    needed = opened.needed(files, scan_ids, role)
    to_adopt = [result.file.path for result in report.to_adopt]
    if as_json:
        counts = {name: len(getattr(report, name)) for name in ("fetched", "present", "failed")}
        failures = [
            {"path": one.file.path, "error": one.error, "class": one.error_class}
            for one in report.failed
        ]
        volume = {"bytes": report.bytes, "sibling_bytes": report.sibling_bytes}
        print_json({**counts, **volume, "to_adopt": to_adopt, "failures": failures})
    else:
        sys.stdout.write(
            f"{len(report.fetched):,} fetched ({report.bytes:,} bytes over the network), "
            f"{len(report.present):,} here before, {len(report.failed):,} failed\n"
        )
        # Needed files are named by the error below.
        _note_to_adopt(opened, [path for path in to_adopt if path not in needed])
    report.raise_for_failures(needed=needed)


def _print_plan(opened: vd.Release, files: list[LockedFile], *, as_json: bool) -> None:
    """Print which of `files` would be fetched, and which have no source."""
    held, near, offline = opened.files, opened.files.siblings(), opened.config.offline
    lacking = [file for file in files if not held.has(file)]
    to_adopt = [file.path for file in lacking if not held.has_source(file, near)]
    planned = {f.path: f for f in lacking if held.has_source(f, near, offline=offline)}
    total = sum({file.annex_key: file.size for file in planned.values()}.values())
    if as_json:
        facts = {"files": len(planned), "bytes": total}
        print_json({**facts, "missing": list(planned), "to_adopt": to_adopt})
        return
    sys.stdout.write(f"{len(planned):,} of {len(files):,} files would come, {total:,} bytes\n")
    if remote := len(lacking) - len(planned) - len(to_adopt):
        note(f"{remote:,} need the network, which is forbidden (offline)")
    _note_to_adopt(opened, to_adopt)


def _note_to_adopt(opened: vd.Release, paths: Sequence[str]) -> None:
    """Print which files have no address, and the command to adopt them."""
    if paths:
        listed, way = ", ".join(shown(paths)), _command(opened, "adopt", "PATH")
        note(f"{len(paths):,} to adopt, as they have no address ({listed}): {way}")


@app.command()
def adopt(
    release: opt.Release,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, files and zips, or addresses of zips.", metavar="PATH|URL..."
        ),
    ],
    *,
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Copy files that you have already into a release, recognised by their digests.

    A grading workbook that no version lists yet becomes part of the next version.
    """
    from verse_data import grades
    from verse_data.api import dataset_of

    dataset = dataset_of(release, config.resolve(root=root))
    done = grades.adopt(dataset, sources, version, progress=progress.default())
    report = done.report
    found = {
        name: [file.path for file in getattr(report, name)] for name in ("new", "known", "missing")
    }
    found["unknown"] = report.unknown
    found["different"] = [
        f"{one.found} holds sha256 {one.sha256} ({one.size:,} bytes), and {one.file.path} is locked "
        f"with sha256 {one.file.sha256} ({one.file.size:,} bytes)"
        for one in report.different
    ]
    if not (report.new or report.known):
        note(f"Nothing of what was given belongs to {release} {done.version}.")
    if as_json:
        new = {"path": done.workbook, "version": done.version} if done.workbook else None
        print_json({**found, "new_workbook": new})
        return
    print_facts({name: len(values) for name, values in found.items()})
    for name in ("different", "unknown", "missing"):
        note(*shown([f"{name}: {value}" for value in found[name]]))
    note(*(f"not taken as the grading workbook: {reason}" for reason in done.refused.values()))
    if done.workbook:
        note(
            f"No version listed the grading workbook {done.workbook}: it is part of {done.version}, which "
            f"was made now (lock {dataset.lock(done.version).pin})."
        )


@app.command()
def status(
    release: opt.Release,
    *,
    version: opt.Version = None,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Show the versions of a release, and which files of one are on this machine."""
    from verse_data.releases.repository import status as status_of

    opened = vd.open_release(release, version=version, root=root, make=False)
    found = status_of(opened.files, opened.version)
    if as_json:
        print_json(found)
        return
    sys.stdout.write(f"{found.release} {found.version} (versions: {', '.join(found.versions)})\n")
    print_facts({"commit": found.commit, "lock": found.lock, "at": found.path})
    rows = [
        [one.split, one.role, f"{one.files:,}", f"{one.here:,}", f"{one.bytes - one.bytes_here:,}"]
        for one in found.shares
    ]
    print_table("split", "role", "files", "here", "bytes missing", rows=rows)
    sys.stdout.write(
        f"{found.here:,} of {found.files:,} files here, {found.bytes_missing:,} bytes missing\n"
    )
    if found.here + len(found.to_adopt) < found.files:
        note(f"Fetch the rest with: {_command(opened, 'get')}")
    _note_to_adopt(opened, found.to_adopt)


@app.command()
def verify(
    release: opt.Release,
    *,
    level: Annotated[
        Any,
        opt.choice(
            "LEVEL",
            ("presence", "size", "hash", "content"),
            "presence, size, hash or content: how closely to look.",
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

    Exits with 4 if something here is missing or damaged; gaps of the lock itself are only reported.
    """
    from verse_data.tables import check

    opened = vd.open_release(release, version=version, root=root, offline=True, make=False)
    found = check.verify(
        opened.files,
        opened.version,
        opened.index,
        level=level,
        scan_ids=chosen_scans(opened, split, subject, scan),
        roles=role,
        derived=opened.config.derived,
        progress=opened.progress,
    )
    if as_json:
        print_json(found)
    else:
        sys.stdout.write(f"{found.summary}\n")
        _print_findings(found)
    if any(not finding.upstream for finding in found):
        raise typer.Exit(IntegrityError.exit_code)


def _print_findings(found: Sequence[Any]) -> None:
    """Print findings by their rule, with the commands that fix them."""
    for rule, count in Counter(finding.rule for finding in found).items():
        same = [finding for finding in found if finding.rule == rule]
        lines = shown([f"{one.path or one.scan_id}: {one.message}" for one in same])
        lines += [f"mend: {line}" for line in dict.fromkeys(one.command for one in same) if line]
        sys.stdout.write(f"{rule}: {count:,}\n" + "".join(f"  {line}\n" for line in lines))


@app.command()
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
        bool, typer.Option("--unchecked", help="Do not check that they can be fetched again.")
    ] = False,
) -> None:
    """Remove files from this machine that can be fetched again; the lock still lists them."""
    from verse_data.releases.verify import drop_files, verify_files

    opened = vd.open_release(release, version=version, root=root, offline=offline, make=False)
    scan_ids = chosen_scans(opened, split, subject, scan)
    files = chosen_files(opened, scan_ids, role)
    if role is None and scan_ids is not None:
        # What belongs to all scans, such as the workbook, was not named.
        files = [file for file in files if file not in opened.index.of_all]
    if corrupt:
        found = verify_files(opened.files, files, level="hash", progress=opened.progress)
        wrong = {finding.path for finding in found if finding.rule != "missing"}
        files = [file for file in files if file.path in wrong]
    report = drop_files(
        opened.files, files, version=opened.version, unchecked=unchecked, damaged=corrupt
    )
    sys.stdout.write(f"{len(report.dropped):,} removed ({report.bytes:,} bytes)\n")
    for kept, what in ((report.shared, "other files have too"), (report.kept, "nobody else has")):
        if kept:
            note(*shown([f"kept {file.path}: {reason}" for file, reason in kept]))
            note(f"{len(kept)} kept, which {what}.")
    if report.kept:
        raise typer.Exit(IntegrityError.exit_code)
