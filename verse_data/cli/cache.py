"""``verse-data cache build | list | verify | prune | size``: the Zarr stores on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verse_data.cli import completion, values
from verse_data.cli import options as opt
from verse_data.cli.choosing import chosen_scans
from verse_data.cli.common import SHOWN, note, print_json, print_table
from verse_data.cli.overview import Summaries
from verse_data.errors import counted, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

SpacingOption = Annotated[
    Any,
    typer.Option(
        "--spacing",
        metavar="MM",
        parser=values.spacing,
        help="Resample to voxels of this size in mm: 1 for all axes, or 1,1,3. Default: the scan's own grid.",
    ),
]
InterpolationOption = Annotated[
    str,
    typer.Option(
        "--interpolation",
        metavar="NAME",
        parser=values.one_of("linear", "cubic"),
        autocompletion=completion.words("linear", "cubic"),
        help="Of the CT, if it is resampled: linear or cubic.",
    ),
]
CodecOption = Annotated[
    str,
    typer.Option(
        "--codec",
        metavar="NAME",
        parser=values.one_of("lz4", "zstd", "none"),
        autocompletion=completion.words("lz4", "zstd", "none"),
        help="lz4, zstd (smaller, slower), or none (fastest, largest).",
    ),
]


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    group = typer.Typer(
        cls=Summaries,
        help="Build and look after the Zarr stores that training reads.",
        no_args_is_help=True,
    )
    group.command("build")(build)
    group.command("list")(list_)
    group.command("verify")(verify)
    group.command("prune")(prune)
    group.command("size")(size)
    app.add_typer(group, name="cache")


def build(
    release: opt.Release,
    *,
    split: opt.Splits = None,
    subject: opt.Subjects = None,
    scan: opt.Scans = None,
    spacing: SpacingOption = None,
    interpolation: InterpolationOption = "linear",
    codec: CodecOption = "lz4",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            parser=values.whole(1),
            help="Processes. Default: one a core.",
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask",
            metavar="ADDRESS",
            help="Build on this Dask scheduler, such as tcp://host:8786.",
        ),
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Convert a release's scans into stores; what is there already is kept."""
    from verse_data import api
    from verse_data.errors import UsageError
    from verse_data.stores import make_recipe

    try:
        recipe = make_recipe(spacing, interpolation, codec)
    except UsageError as error:  # it begins with the option's name in Python
        raise UsageError(f"--{error}") from None
    opened = api.open_release(release, version=version, root=root, offline=offline)
    scan_ids = chosen_scans(opened, splits=split, subjects=subject, scans=scan)
    if scan_ids is not None:  # a scan without a CT has no store
        scan_ids = [name for name in scan_ids if "ct" in opened.series[name].files]
    client = None
    if dask is not None:
        from verse_data.volumes.build import connect

        client = connect(dask)
    try:
        built = opened.build_cache(scan_ids, recipe=recipe, workers=workers, client=client)
    finally:
        if client is not None:
            client.close()
    if as_json:
        print_json({scan_id: str(path) for scan_id, path in built.items()})
    else:
        what = f"{release} {opened.version}"
        note(f"{counted(len(built), f'scan of {what} is', f'scans of {what} are')} in the cache.")


def list_(*, root: opt.Root = None, as_json: opt.Json = False) -> None:
    """List the stores on this machine; only their metadata is read."""
    from verse_data.api import list_stores

    stores = list_stores(root=root)
    if as_json:
        print_json([vars(store) for store in stores])
        return
    rows = [
        [
            store.fingerprint[:12],
            "+".join(store.releases) or "-",
            store.scan_id or "-",
            f"{store.nbytes:,}",
            store.error or _describe(store.recipe),
        ]
        for store in stores
    ]
    print_table("fingerprint", "release", "scan", "bytes", "recipe", rows=rows, prose=("recipe",))


def verify(
    *,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove damaged stores; they are built again when used."),
    ] = False,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Read every byte of every store and hold it against its manifest; exit code 4 if one differs."""
    from verse_data.errors import IntegrityError, StorageError
    from verse_data.progress import default
    from verse_data.volumes.cache import verify_stores

    damaged = verify_stores(_stores(root), repair=repair, progress=default())
    texts = [str(error) for found in damaged.values() for error in found]
    if as_json:
        print_json({"damaged": [str(path) for path in damaged], "findings": texts})
    for text in texts[:SHOWN]:
        note(text)
    if len(texts) > SHOWN:
        note(f"and {len(texts) - SHOWN} more")
    if damaged and not repair:
        told = counted(
            len(damaged), "store is damaged; remove it", "stores are damaged; remove them"
        )
        raise IntegrityError(f"{told} with --repair.")
    if left := [path for path in damaged if path.exists()]:
        told = counted(
            len(left), "store cannot be read, and stays", "stores cannot be read, and stay"
        )
        raise StorageError(f"{told}: {left[0]} is the first.")
    removed = counted(len(damaged), "damaged store was", "damaged stores were")
    note(f"{removed} removed." if damaged else "All stores are sound.")


def prune(
    *,
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            metavar="RELEASE",
            help="Only stores of CTs that this release lists.",
            autocompletion=completion.releases,
        ),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            metavar="DAYS",
            parser=values.days,
            help="Only stores built before that.",
        ),
    ] = None,
    earlier_formats: Annotated[
        bool,
        typer.Option(
            "--earlier-formats",
            help="Stores that an earlier version of this package wrote, and this one does not serve.",
        ),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All stores.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Remove leftovers of dead processes, damaged stores, and the stores that you name."""
    from verse_data.api import list_stores, prune_stores

    here = {name for store in list_stores(root=root) for name in store.releases}
    if release is not None and release not in here:
        note(f"No store here is of a release {release!r}.{did_you_mean(release, here)}")
    gone = prune_stores(
        root=root,
        release=release,
        older_than_days=older_than,
        earlier_formats=earlier_formats,
        everything=everything,
        dry_run=dry_run,
    )
    if as_json:
        print_json(
            {
                "stores": [str(path) for path in gone.stores],
                "leftovers": [str(path) for path in gone.leftovers],
                "bytes": gone.nbytes,
            }
        )
    done = "would be removed" if dry_run else "removed"
    note(f"{counted(len(gone.stores), 'store')} ({gone.nbytes:,} bytes) {done}.")
    if gone.leftovers:
        note(f"{counted(len(gone.leftovers), 'leftover')} of dead processes {done}.")


def size(*, root: opt.Root = None, as_json: opt.Json = False) -> None:
    """Print number and bytes of the stores on this machine."""
    from verse_data.volumes.cache import cache_size, leftover_size

    folder = _stores(root)
    count, nbytes = cache_size(folder)
    stale, stale_bytes = leftover_size(folder)
    if as_json:
        print_json(
            {
                "path": str(folder),
                "stores": count,
                "bytes": nbytes,
                "leftovers": stale,
                "leftover_bytes": stale_bytes,
            }
        )
        return
    sys.stdout.write(f"{counted(count, 'store')}, {nbytes:,} bytes in {folder}\n")
    if stale:
        note(
            f"{counted(stale, 'leftover')} of dead processes, {stale_bytes:,} bytes: verse-data cache prune"
        )


def _stores(root: Path | None) -> Path:
    from verse_data import config

    return config.resolve(root=root).stores


def _describe(recipe: dict[str, Any]) -> str:
    spacing = recipe.get("spacing")
    grid = "own grid" if spacing is None else "x".join(f"{mm:g}" for mm in spacing) + " mm"
    return f"{grid}, {recipe.get('codec')}"
