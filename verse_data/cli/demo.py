"""``verse-data demo``: every step on made-up data."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import verse_data as vd
from verse_data import config, progress
from verse_data.cli import options as opt
from verse_data.cli.common import print_facts, print_table
from verse_data.errors import counted

if TYPE_CHECKING:
    from verse_data.release import Release

_PATCH: Final = (40, 40, 40)
_BATCH: Final = 2
_CHECKED: Final = 12
"""Number of patches that the network is evaluated on."""

app = typer.Typer()


@app.command()
def demo(
    *,
    root: opt.Root = None,
    steps: Annotated[
        int,
        typer.Option(
            metavar="N", parser=opt.number(int, 10), help="Training steps of the small network."
        ),
    ] = 40,
) -> None:
    """Run every step on made-up data: write, lock, check, convert, serve, train, draw."""
    run_demo(root, steps=steps)


def run_demo(root: Path | None, *, steps: int = 40, **phantom: Any) -> None:
    """Run the demo under `root`; what an earlier run left there is used again."""
    from verse_data.releases.environment import check_annex

    check_annex()
    start, folder = time.perf_counter(), config.resolve(root=root).home / "demo"
    _say("verse-data demo: made-up data, no patient; nothing is downloaded")
    _say("1  A release, as files")
    tree = _write_files(folder, **phantom)
    _say("2  Every file checked, locked, and held by a DataLad dataset")
    release = vd.lock_tree("phantom", tree, root=root)
    _identify(release)
    _say("3  Metadata validated: masks, centroids and grades in one table")
    _count(release)
    _say("4  Volumes in Zarr")
    before = set(release.config.stores.glob("*/*"))
    stores = set(release.build_cache().values())
    built = len(stores - before)
    _say(f"   {len(stores)} stores: {built} built, {len(stores) - built} there already")
    _say('5  load_split("training", release="phantom")')
    scans = vd.load_split("training", release="phantom", root=root, offline=True)
    sample = scans[0]
    _say(f"   {len(scans)} scans of {scans.counts()['subjects']} patients; the first sample:")
    # The shape of tensors, and the value of everything else.
    shapes = {name: tuple(getattr(value, "shape", ())) or value for name, value in sample.items()}
    print_facts(shapes, indent=3)
    _say("6  A small 3-D network, trained on patches of the served scans")
    _train(root, steps)
    _say("7  A picture of the first scan")
    picture = folder / "preview.png"
    release.previews({sample["scan_id"]: picture})
    _say(f"Done in {time.perf_counter() - start:.0f} s. Where everything is:")
    places = {
        "picture": picture,
        "made-up files": tree,
        "DataLad dataset": release.files.path,
        "Zarr stores": release.config.stores,
    }
    print_facts(places, indent=3)
    elsewhere = "" if release.config == config.resolve() else f', root="{release.config.home}"'
    _say(
        "Next, in Python:",
        "   import verse_data as vd",
        f'   vd.load_split("training", release="phantom"{elsewhere})[0]',
    )


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()  # the next stage may take long


def _write_files(folder: Path, **options: Any) -> Path:
    """Return the folder of the phantom's files, which are written unless they are there."""
    from verse_data import phantom

    # The bytes depend on the package's version and the arguments, so the name has both.
    tree = folder / "-".join(map(str, ("phantom", vd.__version__, *options.values())))
    verb = "there already" if tree.is_dir() else "written"
    if not tree.is_dir():
        phantom.write(tree, **options)
    files = [path.name for path in tree.rglob("*") if path.is_file()]
    scans = sum(name.endswith("_ct.nii.gz") for name in files)
    _say(f"   {verb}  {scans} CT series, {len(files)} files")
    return tree


def _identify(release: Release) -> None:
    """Hash the files again; print what identifies the release, and how many are as locked."""
    facts = {
        "release": f"{release.name} {release.version}",
        "commit": release.commit,
        "lock": release.lock.pin,
        "contents": release.verify().summary,
    }
    print_facts(facts, indent=3)


def _count(release: Release) -> None:
    """Print the counts of each split, and of all together."""
    rows = release.vertebrae
    rows = rows.assign(fractured=rows["grade"] > 0, metal=rows["foreign_material"])
    counts = rows.groupby("split", observed=True).agg(
        patients=("subject_id", "nunique"),
        series=("scan_id", "nunique"),
        masks=("has_mask", "sum"),
        graded=("grade", "count"),
        fractured=("fractured", "sum"),
        metal=("metal", "sum"),
    )
    table = counts.T.assign(all=counts.sum()).T.reset_index(names="split")
    print_table(*table.columns, rows=table.itertuples(index=False))
    _say(f"   {counted(len(release.findings), 'finding')}")


def _train(root: Path | None, steps: int) -> None:
    """Train on the training split; print the loss, and Dice on the validation split before and after."""
    import numpy as np

    from verse_data.training import tiny

    load: Any = vd.load_split
    options = {
        "unit": "patch",
        "patch_size": _PATCH,
        "sampling": "foreground",
        "release": "phantom",
    }
    training, validation = (
        load(split, patches_per_epoch=count, root=root, **options)
        for split, count in (("training", steps * _BATCH), ("validation", _CHECKED))
    )
    before = tiny.dice(tiny.untrained(), validation, count=_CHECKED)
    with progress.default()("Training", steps, "items") as advance:
        run = tiny.train(training, steps=steps, batch_size=_BATCH, report=lambda *_: advance(1))
    after = tiny.dice(run.network, validation, count=_CHECKED)
    for part in np.array_split(np.arange(steps), 8):
        loss = np.take(run.losses, part).mean()
        _say(
            f"   steps {part[0] + 1:3} to {part[-1] + 1:3}  loss {loss:.3f}  {'█' * round(20 * loss)}"
        )
    _say(f"   Dice on patches of other patients: {before:.2f} before, {after:.2f} after")
