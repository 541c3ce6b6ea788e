"""``verse-data lock | adopt | env``: make a release, fill it, and work on it with DataLad."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import SHOWN, note, print_json
from verse_data.errors import counted

if TYPE_CHECKING:
    from verse_data.records.lock import ReleaseLock
    from verse_data.releases.adopt import AdoptReport
    from verse_data.releases.dataset import ReleaseDataset

_MOST_LOCK_BYTES = 64 << 20


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("lock")(lock)
    app.command("adopt")(adopt)
    app.command("env")(env)


def open_dataset(release: str, root: Path | None) -> ReleaseDataset:
    """Return the dataset of a release, which need not exist yet."""
    from verse_data import config
    from verse_data.api import dataset_of

    return dataset_of(release, config.resolve(root=root))


def lock(
    release: opt.Release,
    *,
    from_tree: Annotated[
        Path | None,
        typer.Option(help="Hash this local tree, and adopt its files.", metavar="FOLDER"),
    ] = None,
    from_lock: Annotated[
        str | None,
        typer.Option(help="Use the lock in this file or at this address.", metavar="FILE|URL"),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(help="OSF node to list. Default: the catalog's.", metavar="ID"),
    ] = None,
    via: Annotated[str | None, typer.Option(hidden=True)] = None,
    root: opt.Root = None,
    check: Annotated[
        bool, typer.Option(help="Read every file of the tree first, and refuse broken ones.")
    ] = True,
    as_json: opt.Json = False,
) -> None:
    """Make a version of a release: a list of its files with digests, as a DataLad dataset."""
    from verse_data import api
    from verse_data.errors import UsageError
    from verse_data.releases.commands import command

    if via is not None:
        note(f"--via {via} has no effect: folders are listed by WaterButler.")
    if sum(source is not None for source in (from_tree, from_lock, node)) > 1:
        raise UsageError(
            "--from-tree, --from-lock and --node exclude each other. Give one of them."
        )
    dataset = open_dataset(release, root)
    before = dataset.versions()
    if from_tree is not None:
        opened = api.lock_tree(release, from_tree, root=root, check=check)
        made, version = opened.lock, opened.version
    elif release == api.PHANTOM and not (from_lock or node):
        opened = api.open_release(release, root=root)
        made, version = opened.lock, opened.version
    else:
        made = _read(from_lock, dataset) if from_lock else _walk(dataset, node=node)
        version = dataset.publish(made)
    facts = {
        "release": release,
        "version": version,
        "commit": dataset.commit(version),
        "digest": f"sha256:{made.digest}",
        "files": len(made.files),
        "bytes": made.total_bytes,
        "path": str(dataset.path),
    }
    if as_json:
        print_json(facts)
    else:
        sys.stdout.write("".join(f"{name:8} {value}\n" for name, value in facts.items()))
    for path in _lost_workbook(dataset, before, version):
        note(
            f"{before[-1]} lists the grading workbook {path}, and {version}, which was made now, lists none. "
            f"Adopt it again: {command(dataset, 'adopt', shlex.quote(path.rpartition('/')[2]))}"
        )
    gaps = api.open_release(release, version=version, root=root).gaps
    if gaps:
        told = counted(
            gaps,
            "thing that a release of this kind should have is",
            "things that a release of this kind should have are",
        )
        note(
            f"{told} not listed (files of a scan, or whole scans). See which: {command(dataset, 'verify', '--level', 'presence')}"
        )


def _lost_workbook(dataset: ReleaseDataset, before: Sequence[str], version: str) -> list[str]:
    """Return the workbook of the newest version of `before`, if `version` is new and lists none."""
    from verse_data.tables.index import index_scans

    if not before or version in before or index_scans(dataset.lock(version)).grading:
        return []
    return [file.path for file in index_scans(dataset.lock(before[-1])).grading[:1]]


def _read(place: str, dataset: ReleaseDataset) -> ReleaseLock:
    """Read a lock from a file or an address."""
    from verse_data.errors import UsageError
    from verse_data.records.lock import ReleaseLock

    if place.startswith(("http://", "https://")):
        from verse_data.releases.http import read_url

        data = read_url(place, config=dataset.config, most=_MOST_LOCK_BYTES)
    else:
        try:
            data = Path(place).read_bytes()
        except OSError as error:
            raise UsageError(
                f"{place}: {error.strerror}. Give a lock file that can be read."
            ) from error
    return ReleaseLock.parse(data, name=place)


def _walk(dataset: ReleaseDataset, *, node: str | None) -> ReleaseLock:
    """List the OSF node of a release."""
    from verse_data import progress
    from verse_data.errors import UsageError, did_you_mean
    from verse_data.releases.catalog import load_catalog, names
    from verse_data.releases.osf import TRUST_ON_FIRST_USE, walk_node

    known = load_catalog(dataset.name).osf_node if dataset.name in names() else None
    chosen = node or known
    if chosen is None:
        raise UsageError(
            f"Release {dataset.name!r} has no OSF node in the catalog.{did_you_mean(dataset.name, names())} "
            f"Say where it comes from: "
            f"--from-tree FOLDER, --from-lock FILE, or --node ID"
        )
    if not dataset.versions():
        note(TRUST_ON_FIRST_USE)
    return walk_node(
        chosen, config=dataset.config, release=dataset.name, progress=progress.default()
    )


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
    """Copy files that lie on disk already into a release, by their digests.

    A grading workbook that no version lists yet becomes part of the next version.
    """
    from verse_data import progress
    from verse_data.grades import adopt as take_over

    dataset = open_dataset(release, root)
    done = take_over(dataset, sources, version, progress=progress.default())
    report = done.report
    if not (report.new or report.known):
        note(f"Nothing of what was given belongs to {release} {done.version}.")
    if as_json:
        new = {"path": done.workbook, "version": done.version} if done.workbook else None
        print_json({**_adopted(report), "new_workbook": new})
        return
    for name, found in _adopted(report).items():
        sys.stdout.write(f"{name:10} {len(found):6,}\n")
    for name in ("different", "unknown", "missing"):
        for value in _adopted(report)[name][:SHOWN]:
            note(f"{name}: {value}")
    for why in list(done.refused.values())[:SHOWN]:
        note(f"not taken as the grading workbook: {' '.join(why.split()[:60])}")
    if done.workbook:
        digest = dataset.lock(done.version).digest
        note(
            f"No version listed the grading workbook {done.workbook}: it is part of {done.version}, which "
            f"was made now (lock sha256:{digest})."
        )


def _adopted(report: AdoptReport) -> dict[str, list[str]]:
    different = [
        f"{item.found} holds sha256 {item.sha256} ({item.size:,} bytes), and {item.file.path} is locked "
        f"with sha256 {item.file.sha256} ({item.file.size:,} bytes)"
        for item in report.different
    ]
    return {
        "new": [file.path for file in report.new],
        "known": [file.path for file in report.known],
        "different": different,
        "unknown": report.unknown,
        "missing": [file.path for file in report.missing],
    }


def env() -> None:
    """Print what a shell needs for plain datalad and git annex: eval "$(verse-data env)"."""
    import os

    from verse_data.releases.environment import shell_settings

    sys.stdout.write(shell_settings(os.environ))
