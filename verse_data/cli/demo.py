"""``verse-data demo``: the whole way on made-up data, from a folder of files to a trained network."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from verse_data.cli import demo_text as text
from verse_data.cli import options as opt
from verse_data.cli import values
from verse_data.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from verse_data.progress import Progress
    from verse_data.release import Release

NAME: Final = "phantom"
_PATCH: Final = (40, 40, 40)
_BATCH: Final = 2
_CHECKED_PATCHES: Final = 12


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What a run of the demo did; every number was measured in that run.

    Attributes
    ----------
    tree : Path
        Folder of the made-up files.
    wrote_phantom : bool
        False if the files of an earlier run were used.
    version, commit, digest : str
        Of the release that was locked.
    built_stores : int
        Stores that this run built; the others existed.
    sample : dict
        Key of the first served sample to dtype and shape, or value.
    losses : tuple of float
        Training loss of each step.
    dice_before, dice_after : float
        Overlap on patches of the validation split, before and after training.
    preview : Path
        The picture.
    seconds : float
        Wall-clock time of the run.
    """

    tree: Path
    wrote_phantom: bool
    version: str
    commit: str
    digest: str
    built_stores: int
    sample: dict[str, str]
    losses: tuple[float, ...]
    dice_before: float
    dice_after: float
    preview: Path
    seconds: float


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("demo")(demo)


def demo(
    *,
    root: opt.Root = None,
    steps: Annotated[
        int,
        typer.Option(
            metavar="N", parser=values.whole(10), help="Training steps of the small network."
        ),
    ] = 40,
) -> None:
    """Go the whole way on made-up data: write, lock, check, convert, serve, train, look."""
    from rich.console import Console

    from verse_data import progress

    console = Console(file=sys.stdout, highlight=False)
    run_demo(root, steps=steps, console=console, progress=progress.default())


def run_demo(
    root: Path | None,
    *,
    steps: int = 40,
    n_subjects: int = 12,
    shape: tuple[int, int, int] | None = None,
    console: Console,
    progress: Progress,
) -> DemoReport:
    """Run the demo under `root`; what an earlier run left there is used again."""
    from verse_data import api, config
    from verse_data.progress import silent
    from verse_data.releases.environment import check_annex

    check_annex()
    began, home = time.perf_counter(), config.resolve(root=root).home
    console.print("[bold]verse-data demo[/bold]: made-up data, no patient; nothing is downloaded\n")
    with _stage(console, "1  A release, as files"):
        tree, wrote = _phantom(home, n_subjects, shape, progress)
        text.say_tree(console, tree, wrote=wrote)
    with _stage(console, "2  Every file checked, locked, and held by a DataLad dataset"):
        release = api.lock_tree(NAME, tree, root=home, progress=progress)
        text.say_release(console, release, progress)
    with _stage(console, "3  Metadata validated: masks, centroids and grades in one table"):
        text.say_counts(console, text.counts(release.scans, release.vertebrae))
        text.say_findings(console, release.findings)
    with _stage(console, "4  Volumes in Zarr"):
        built = _stores(console, release, progress)
    with _stage(console, '5  load_split("training", release="phantom")'):
        scans = api.load_split("training", release=NAME, root=home, offline=True, progress=silent)
        first = text.say_first(console, scans)
    with _stage(console, "6  A small 3-D network, trained on patches of the served scans"):
        losses, before, after = _train(console, release, steps, progress)
    with _stage(console, "7  A picture of the first scan"):
        preview = _preview(first, home / "demo" / "preview.png")
        text.say_facts(console, {"written": preview})
    seconds = time.perf_counter() - began
    text.say_places(console, release, seconds)
    return DemoReport(
        tree=tree,
        wrote_phantom=wrote,
        version=release.version,
        commit=release.commit,
        digest=release.lock.digest,
        built_stores=built,
        sample=text.described(first),
        losses=losses,
        dice_before=before,
        dice_after=after,
        preview=preview,
        seconds=seconds,
    )


@contextmanager
def _stage(console: Console, title: str) -> Iterator[None]:
    """Print the title of a stage, and after it how long it took."""
    console.print(f"[bold cyan]{title}[/bold cyan]")
    began = time.perf_counter()
    yield
    console.print(f"   [dim]{time.perf_counter() - began:.1f} s[/dim]\n")


def _phantom(
    home: Path, n_subjects: int, shape: tuple[int, int, int] | None, progress: Progress
) -> tuple[Path, bool]:
    """Return the phantom's folder, and whether it was written now."""
    from verse_data import __version__, phantom

    # What decides the bytes is in the name: the package's version and the arguments.
    size = shape or phantom.DEFAULT_SHAPE
    tree = home / "demo" / f"phantom-{__version__}-{n_subjects}-{'x'.join(map(str, size))}"
    if tree.is_dir():
        return tree, False
    try:
        return phantom.write(tree, n_subjects=n_subjects, shape=size, progress=progress), True
    except UsageError:
        if not tree.is_dir():
            raise
        return tree, False  # another demo was first


def _stores(console: Console, release: Release, progress: Progress) -> int:
    """Build the stores; return how many did not exist."""
    before = set(release.config.stores.glob("*/*"))
    stores = release.build_cache(progress=progress)
    new = len(set(stores.values()) - before)
    files = [path for store in stores.values() for path in store.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    words = f"{len(stores)} stores, {size:.0f} MB: {new} built, {len(stores) - new} there already"
    text.say(console, words)
    return new


def _train(
    console: Console, release: Release, steps: int, progress: Progress
) -> tuple[tuple[float, ...], float, float]:
    """Train on the training split; return losses, and Dice on the validation split before and after."""
    from verse_data.progress import silent
    from verse_data.training import tiny

    def patches(split: str, count: int) -> Any:
        ids = [name for name, scan in release.series.items() if scan.split == split]
        options: dict[str, Any] = {"patch_size": _PATCH, "sampling": "foreground"}
        return release.dataset(
            ids, unit="patch", patches_per_epoch=count, progress=silent, **options
        )

    training = patches("training", steps * _BATCH)
    validation = patches("validation", _CHECKED_PATCHES)
    before = tiny.dice(tiny.untrained(), validation, count=_CHECKED_PATCHES)
    with progress("Training", steps, "items") as advance:
        run = tiny.train(training, steps=steps, batch_size=_BATCH, report=lambda *_: advance(1))
    after = tiny.dice(run.network, validation, count=_CHECKED_PATCHES)
    text.say_losses(console, run.losses)
    words = f"Dice on {_CHECKED_PATCHES} patches of other patients (validation): {before:.2f} before, {after:.2f} after"
    text.say(console, words)
    return run.losses, before, after


def _preview(sample: dict[str, Any], path: Path) -> Path:
    """Draw a sample as it is served."""
    from verse_data.spine.levels import LABEL_OF_LEVEL
    from verse_data.training import centroid_voxels
    from verse_data.views.preview import preview_png

    points = {LABEL_OF_LEVEL[level]: point for level, point in centroid_voxels(sample).items()}
    image, label = sample["image"][0].numpy(), sample["label"][0].numpy()
    affine, scan_id = sample["affine"].numpy(), sample["scan_id"]
    return preview_png(image, label, affine, points, path, scan_id=scan_id, release=NAME)
