"""What one conversion takes, in a process of its own: ``python -m tests.support.conversion FOLDER``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.support.scans import LPS, make_scan, source_file
from verse_data.volumes.nifti import write_nifti
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store

SHAPE = (320, 320, 160)


def peak() -> int:
    """Return the highest resident size so far, in bytes.

    ``ru_maxrss`` would begin at the size of the process that started this one, and hide growth.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(folder: Path, how: str) -> None:
    """Convert a scan written by an earlier process, and say what it took."""
    scan = make_scan(folder / "small", shape=(40, 40, 40), affine=LPS)
    ensure_store(scan.source, Recipe(), folder / "warm")  # imports and caches are not the question
    ct, mask = folder / "ct.nii.gz", folder / "mask.nii.gz"
    source = replace(scan.source, image=source_file(ct), mask=source_file(mask))
    before = peak()
    recipe = Recipe(spacing=(0.4, 0.4, 1.0)) if how == "resampled" else Recipe()
    store = ensure_store(source, recipe, folder / "stores")
    seen = {p.stat().st_ino: p.stat().st_size for p in store.rglob("*") if p.is_file()}
    answer = {
        "raw": int(np.prod(SHAPE)) * 3,
        "grown": peak() - before,
        "store": sum(seen.values()),
        "sources": ct.stat().st_size + mask.stat().st_size,
    }
    sys.stdout.write(json.dumps(answer))


def write(folder: Path) -> None:
    """Write a noisy CT, and its mask as float64: the largest that VerSe has."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    image = np.empty(SHAPE, np.int16, order="F")
    for k in range(SHAPE[2]):
        image[:, :, k] = rng.normal(40, 45, SHAPE[:2])
    mask = np.zeros(SHAPE, np.uint8, order="F")
    mask[100:200, 100:200, 20:140] = 20
    write_nifti(folder / "ct.nii.gz", image, LPS)
    write_nifti(folder / "mask.nii.gz", mask, LPS, on_disk_dtype=np.float64)


if __name__ == "__main__":
    if sys.argv[2] == "write":
        write(Path(sys.argv[1]))
        sys.stdout.write("{}")
    else:
        main(Path(sys.argv[1]), sys.argv[2])
