"""``verse-data cache build | list | verify | prune | size``: the Zarr stores on this machine."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

import verse_data as vd
from verse_data import config, progress
from verse_data.cli import options as opt
from verse_data.cli.common import (
    Overview,
    chosen_scans,
    note,
    print_answer,
    print_json,
    print_table,
)
from verse_data.errors import IntegrityError, StorageError, UsageError, counted, did_you_mean
from verse_data.problems import shown

app = typer.Typer()
group = typer.Typer(
    name="cache",
    cls=Overview,
    help="Build and look after the Zarr stores that training reads.",
    no_args_is_help=True,
)
app.add_typer(group)


def _spacing(text: str) -> float | list[float]:
    """Return one voxel size in mm, or three."""
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in {1, 3}:
        raise typer.BadParameter(
            f"{text!r}: give one size in mm, such as 1, or three, such as 1,1,3."
        )
    return sizes if len(sizes) == 3 else sizes[0]


Spacing = Annotated[
    Any,
    typer.Option(
        metavar="MM",
        parser=_spacing,
        help="Resample to voxels of this size in mm: 1 for all axes, or 1,1,3. Default: the scan's own grid.",
    ),
]


@group.command()
def build(
    release: opt.Release,
    *,
    split: opt.Splits = None,
    subject: opt.Subjects = None,
    scan: opt.Scans = None,
    spacing: Spacing = None,
    interpolation: Annotated[
        str,
        opt.choice("NAME", ("linear", "cubic"), "Of the CT, if it is resampled: linear or cubic."),
    ] = "linear",
    codec: Annotated[
        str,
        opt.choice(
            "NAME",
            ("lz4", "zstd", "none"),
            "lz4, zstd (smaller, slower), or none (fastest, largest).",
        ),
    ] = "lz4",
    workers: opt.Workers = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Build on this Dask scheduler, such as tcp://host:8786."
        ),
    ] = None,
    version: opt.Version = None,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Convert a release's scans into stores; existing stores are kept."""
    from verse_data.stores import make_recipe
    from verse_data.volumes.build import connect

    try:
        recipe = make_recipe(spacing, interpolation, codec)
    except UsageError as error:  # its text begins with the option's name in Python
        raise UsageError(f"--{error}") from None
    opened = vd.open_release(release, version=version, root=root, offline=offline)
    scan_ids = chosen_scans(opened, split, subject, scan)
    if scan_ids is not None:  # a scan without a CT has no store
        scan_ids = [name for name in scan_ids if "ct" in opened.series[name].files]
    with nullcontext() if dask is None else connect(dask) as client:
        built = opened.build_cache(scan_ids, recipe=recipe, workers=workers, client=client)
    if as_json:
        print_json(built)
    else:
        what = f"{release} {opened.version}"
        note(f"{counted(len(built), f'scan of {what} is', f'scans of {what} are')} in the cache.")


@group.command("list")
def list_(*, root: opt.Root = None, as_json: opt.Json = False) -> None:
    """List the stores on this machine; only their metadata is read."""
    from verse_data.api import list_stores

    stores = list_stores(root=root)
    if as_json:
        print_json(stores)
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


def _describe(recipe: dict[str, Any]) -> str:
    """Return what distinguishes a store from others of its scan."""
    spacing = recipe.get("spacing")
    grid = "own grid" if spacing is None else "x".join(f"{mm:g}" for mm in spacing) + " mm"
    return f"{grid}, {recipe.get('codec')}"


@group.command()
def verify(
    *,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove damaged stores; they are built again when used."),
    ] = False,
    root: opt.Root = None,
    as_json: opt.Json = False,
) -> None:
    """Compare every byte of every store with its manifest; exit code 4 if one differs."""
    from verse_data.volumes.cache import verify_stores

    damaged = verify_stores(_stores(root), repair=repair, progress=progress.default())
    texts = [str(error) for found in damaged.values() for error in found]
    if as_json:
        print_json({"damaged": list(damaged), "findings": texts})
    note(*shown(texts))
    if damaged and not repair:
        stores = counted(len(damaged), "store is damaged", "stores are damaged")
        raise IntegrityError(f"{stores}; remove what is damaged with --repair.")
    if left := [path for path in damaged if path.exists()]:
        raise StorageError(
            f"{counted(len(left), 'store')} cannot be read or removed: {left[0]} is the first."
        )
    note(
        f"{counted(len(damaged), 'damaged store')} removed." if damaged else "All stores are sound."
    )


@group.command()
def prune(
    *,
    release: Annotated[
        str | None,
        opt.a_release("Only stores of CTs that this release lists."),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS",
            parser=opt.number(float, 0, what="a number of days"),
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed.")] = False,
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
        print_json({"stores": gone.stores, "leftovers": gone.leftovers, "bytes": gone.nbytes})
    done = "would be removed" if dry_run else "removed"
    note(f"{counted(len(gone.stores), 'store')} ({gone.nbytes:,} bytes) {done}.")
    if gone.leftovers:
        note(f"{counted(len(gone.leftovers), 'leftover')} of dead processes {done}.")


@group.command()
def size(*, root: opt.Root = None, as_json: opt.Json = False) -> None:
    """Print number and bytes of the stores on this machine, and of leftovers of dead processes."""
    from verse_data.volumes.cache import cache_size, leftover_size

    folder = _stores(root)
    count, nbytes = cache_size(folder)
    leftovers, leftover_bytes = leftover_size(folder)
    facts = {
        "path": folder,
        "stores": count,
        "bytes": nbytes,
        "leftovers": leftovers,
        "leftover_bytes": leftover_bytes,
    }
    print_answer(facts, as_json=as_json)


def _stores(root: Path | None) -> Path:
    return config.resolve(root=root).stores
