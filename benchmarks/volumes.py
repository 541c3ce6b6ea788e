"""How fast a patch of image and mask is read from disk, beside the peers.

::

    python benchmarks/volumes.py patch --size 96       warm page cache, one thread
    python benchmarks/volumes.py cold                  the files' pages dropped before each read
    python benchmarks/volumes.py verify                what checking chunks costs
    python benchmarks/volumes.py growth                against the size of a scan, and their number
    python benchmarks/volumes.py open                  the first look at a scan
    python benchmarks/volumes.py conversion            from .nii.gz to a store

Each box is read by every way in turn, in a new order each time, so that whatever else the machine
does falls on all of them alike. Only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from made_up_ct import SHAPES, MadeUpScan, make_scan
from volume_readers import (
    EVERY,
    MEMORY_MAP,
    NNUNET,
    OURS,
    WAYS,
    Way,
    source,
    store_in,
)

from verse_data.spine.geometry import Box
from verse_data.volumes.reader import ScanReader, close_all
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store

Shape = tuple[int, int, int]
Times = dict[str, list[float]]


def prepare(folder: Path, shapes: dict[str, Shape], ways: Iterable[Way]) -> None:
    """Write the files of every way, for every made-up scan, that are not there yet."""
    for number, (name, shape) in enumerate(shapes.items()):
        scan: MadeUpScan | None = None
        for way in ways:
            target = folder / name / way.files
            if (target / "done").exists():
                continue
            scan = scan or make_scan(shape, seed=number)
            np.save(_made(folder / name) / "centres.npy", scan.centres)
            shutil.rmtree(target, ignore_errors=True)
            way.prepare(scan, _made(target))
            (target / "done").touch()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def draw(folder: Path, shape: Shape, size: int, count: int) -> Iterator[Box]:
    """Yield boxes around vertebrae, as training draws them; the same ones in each run."""
    random = np.random.default_rng([size, *shape])
    centres = np.load(folder / "centres.npy")
    for _ in range(count):
        middle = centres[random.integers(len(centres))] + random.uniform(-20, 20, 3)
        start = np.clip(np.rint(middle - size / 2), 0, np.array(shape) - size).astype(int)
        x, y, z = start.tolist()
        yield Box((x, y, z), (x + size, y + size, z + size))


_only: list[str] = []


def available(names: Iterable[str]) -> list[Way]:
    """Return the ways of these names whose modules are installed; say which are not."""
    found = []
    for name in names:
        if _only and not any(part in name for part in (*_only, MEMORY_MAP, OURS)):
            continue
        if missing := WAYS[name].missing:
            print(f"left out: {name} (no module {missing}; pip install 'verse-data[bench]')")
        else:
            found.append(WAYS[name])
    return found


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_clock = ["wall"]


def timed(work: Callable[..., object], *arguments: object, repeat: int = 1) -> float:
    """Return the milliseconds that a call takes, the shortest of `repeat`."""
    now, shortest = CLOCKS[_clock[0]], math.inf
    for _ in range(repeat):
        start = now()
        work(*arguments)
        shortest = min(shortest, now() - start)
    return shortest * 1e3


def table(times: Times, *, against: tuple[str, ...], title: str) -> None:
    """Print p50 and p95 of each way, and its p50 as a multiple of others'."""
    against = tuple(name for name in against if times.get(name))  # --only may leave some out
    print(f"\n{title} ({_clock[0]} time)\n")
    print("| way | p50 ms | p95 ms | reads |" + "".join(f" x {name} |" for name in against))
    print("|---|---|---|---|" + "---|" * len(against))
    middle = {name: statistics.median(values) for name, values in times.items() if values}
    for name in sorted(middle, key=lambda name: middle[name]):
        row = f"| {name} | {middle[name]:.2f} | {np.quantile(times[name], 0.95):.2f} "
        row += f"| {len(times[name])} |"
        print(row + "".join(f" {middle[name] / middle[other]:.2f} |" for other in against))


def patch(folder: Path, size: int, count: int) -> None:
    """Warm page cache, cold processor cache: all boxes are read once before any is timed."""
    ways = available(WAYS)
    prepare(folder, SHAPES, ways)
    times: Times = {way.name: [] for way in ways}
    order = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        opened = {way.name: way.open(folder / name / way.files) for way in ways}
        boxes = list(draw(folder / name, shape, size, count))
        for way in ways:
            for box in boxes[:1] if way.name in EVERY else boxes:
                _read(way, opened, folder / name, box)
        for turn, box in enumerate(boxes):
            for number in order.permutation(len(ways)).tolist():
                way = ways[number]
                if turn % EVERY.get(way.name, 1) == 0:
                    once = timed(_read, way, opened, folder / name, box)
                    times[way.name].append(once)
    table(times, against=(MEMORY_MAP, OURS), title=f"{size}³ image + mask, warm, one thread")


def _read(way: Way, opened: dict[str, object], folder: Path, box: Box) -> object:
    return way.read(opened[way.name] if way.keeps else way.open(folder / way.files), box)


def cold(folder: Path, size: int, count: int) -> None:
    """Drop the files' pages, open, read one patch."""
    ways = [way for way in available(WAYS) if way.name not in EVERY and "out" not in way.name]
    ways = [way for way in ways if "kept" not in way.name or way.name == MEMORY_MAP]
    prepare(folder, SHAPES, ways)
    times: Times = {way.name: [] for way in ways}
    order = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        for box in draw(folder / name, shape, size, count):
            for number in order.permutation(len(ways)).tolist():
                way = ways[number]
                close_all()
                gc.collect()
                drop_pages(folder / name / way.files)
                times[way.name].append(timed(_open_and_read, way, folder / name, box))
    table(times, against=(OURS, NNUNET), title=f"{size}³ image + mask, cold, opening included")


def _open_and_read(way: Way, folder: Path, box: Box) -> object:
    return way.read(way.open(folder / way.files), box)


def drop_pages(folder: Path) -> None:
    """Tell the kernel to forget the pages of every file below `folder`."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def verify(folder: Path, size: int, count: int) -> None:
    """Read an epoch's worth of patches in a process that has touched nothing, checked or not."""
    prepare(folder, SHAPES, [WAYS[OURS]])
    times: Times = {"checked": [], "not checked": []}
    whole: Times = {"checked": [], "not checked": []}
    for turn in range(12):
        for name in sorted(times, reverse=turn % 2 == 0):
            close_all()
            before = len(times[name])
            for scan, shape in SHAPES.items():
                reader = ScanReader(
                    store_in(folder / scan / WAYS[OURS].files), verify=name == "checked"
                )
                for box in draw(folder / scan, shape, size, count):
                    times[name].append(timed(reader.read, box))
            whole[name].append(sum(times[name][before:]))
    title = f"{size}³, {count} patches a scan in a fresh process"
    table(times, against=("not checked",), title=f"{title}: a patch")
    table(whole, against=("not checked",), title=f"{title}: all of them, first touches included")


def growth(folder: Path, size: int, count: int) -> None:
    """Read the same voxels out of ever larger volumes, then patches of ever more scans."""
    largest = (512, 512, 1024)
    cuts = {"128³": 128, "256³": 256, "384³": 384, "512x512x1024": 0}
    target = folder / "growth"
    if not (target / "done").exists():
        shutil.rmtree(target, ignore_errors=True)
        _write_cuts(target, largest, cuts)
    times: Times = {name: [] for name in cuts}
    readers = {name: ScanReader(store_in(target / name)) for name in cuts}
    random = np.random.default_rng(0)
    for _ in range(count * 3):
        offset = random.integers(0, 128 - size + 1, 3)
        for name in random.permutation(list(cuts)).tolist():
            start = np.array(_corner(cuts[name], 128, largest)) + offset
            x, y, z = start.tolist()
            box = Box((x, y, z), (x + size, y + size, z + size))
            times[name].append(timed(readers[name].read, box, repeat=3))
    table(times, against=("128³",), title=f"{size}³ of the same voxels, by the scan's size")
    _growth_in_number(target, size, count)


def _corner(inner: int, wanted: int, largest: Shape) -> list[int]:
    """Return where the middle `wanted`³ of the largest volume begins in its cut of `inner`³."""
    extents = [inner or extent for extent in largest]
    return [(extent // 2 - wanted // 2) // 64 * 64 for extent in extents]


def _write_cuts(target: Path, largest: Shape, cuts: dict[str, int]) -> None:
    scan = make_scan(largest)
    at = _corner(0, 128, largest)
    for name, extent in cuts.items():
        start = [a - b for a, b in zip(at, _corner(extent, 128, largest), strict=True)]
        part = tuple(slice(a, a + (extent or n)) for a, n in zip(start, largest, strict=True))
        cut = MadeUpScan(scan.image[part], scan.label[part], scan.centres)
        WAYS[OURS].prepare(cut, _made(target / name))
    small = store_in(target / "128³")
    for number in range(400):
        shutil.copytree(small, target / "many" / str(number) / small.name)
    (target / "done").touch()


def _growth_in_number(target: Path, size: int, count: int) -> None:
    times: Times = {"10 scans": [], "100 scans": [], "400 scans": []}
    name = store_in(target / "128³").name
    readers = [ScanReader(target / "many" / str(number) / name) for number in range(400)]
    random = np.random.default_rng(0)
    boxes = [tuple(random.integers(0, 128 - size + 1, 3).tolist()) for _ in range(count)]
    for reader in readers:  # opened, checked, and in the page cache
        reader.read(Box.whole(reader.shape))
    for turn in range(4):
        for title in random.permutation(list(times)).tolist():
            scans = int(title.split()[0])
            for x, y, z in boxes:
                reader = readers[int(random.integers(scans))]
                box = Box((x, y, z), (x + size, y + size, z + size))
                once = timed(reader.read, box)
                if turn:
                    times[title].append(once)
    table(times, against=("10 scans",), title=f"{size}³ patches, by the number of open scans")


def opening(folder: Path, size: int, count: int) -> None:
    """Open a scan's two arrays without reading a voxel."""
    ways = [way for way in available(WAYS) if way.name != "nibabel, .nii.gz"]
    prepare(folder, SHAPES, ways)
    times: Times = {way.name: [] for way in ways}
    for _ in range(count):
        for name in SHAPES:
            for way in ways:
                close_all()
                times[way.name].append(timed(_look, way, folder / name / way.files))
    del size
    table(times, against=(MEMORY_MAP,), title="Opening both arrays of a scan")


def _look(way: Way, folder: Path) -> object:
    opened = way.open(folder)
    return opened.shape if isinstance(opened, ScanReader) else opened


def conversion(folder: Path, size: int, count: int) -> None:
    """Build a store from .nii.gz, beside inflating the same files and doing nothing with them."""
    from isal import igzip

    del size
    name, shape = "axial", SHAPES["axial"]
    nii = folder / name / "nii"
    prepare(folder, {name: shape}, [WAYS["nibabel, .nii.gz"]])
    files = [nii / "ct.nii.gz", nii / "mask.nii.gz"]

    def inflate() -> None:
        for path in files:
            with igzip.open(path) as stream:
                while stream.read(1 << 20):
                    pass

    times: Times = {"inflate": [], "build the store": []}
    for _ in range(max(3, count // 20)):
        times["inflate"].append(timed(inflate))
        with tempfile.TemporaryDirectory(dir=folder) as target:
            build = timed(ensure_store, source(nii), Recipe(), Path(target))
            times["build the store"].append(build)
            packed = sum(p.stat().st_size for p in Path(target).rglob("*") if p.is_file())
    table(times, against=("inflate",), title=f"Conversion of {shape} with mask")
    print(f"\nsize of the store: {packed / sum(p.stat().st_size for p in files):.2f} x the .nii.gz")


COMMANDS = {
    "patch": patch,
    "cold": cold,
    "verify": verify,
    "growth": growth,
    "open": opening,
    "conversion": conversion,
}


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--size", type=int, default=96, help="voxels along each side of a patch")
    parser.add_argument("--count", type=int, default=60, help="boxes a scan")
    parser.add_argument("--folder", type=Path, help="where the files are kept between runs")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a busy machine")
    parser.add_argument("--only", nargs="+", default=[], help="peers, by a part of their names")
    arguments = parser.parse_args()
    _only.extend(arguments.only)
    _clock[0] = arguments.clock
    torch.set_num_threads(1)
    folder = arguments.folder or Path(tempfile.gettempdir()) / "verse-data-benchmark"
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    COMMANDS[arguments.command](_made(folder), arguments.size, arguments.count)


if __name__ == "__main__":
    main()
