"""Drill 27: a worker's own memory grows neither with the table nor with what it reads.

Pass: once warm, over one epoch of 150,000 vertebrae, the private memory of no forked worker grows by
10 bytes a row, which is less than any Python object takes; nor that of a spawned one with patches.
Controls: the same rows as a list of dictionaries, whose reference counts are written when they are
read, so that each worker ends up with a copy of its own; and a cache that is never emptied.

What a forked worker shares with its parent becomes its own when either of them writes to it. A run
of the garbage collector does, all over the heap, whatever is in it: it rests while rows are read.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DataLoader, get_worker_info

from tests.support import naive
from tests.support import training as support
from verse_data.spine.levels import GRADED_LEVELS, LABEL_OF_LEVEL
from verse_data.training import PatchDataset, ServedScan, VertebraDataset
from verse_data.training.rows import targets
from verse_data.training.samples import Sample

ROWS = 150_000
SCANS = ROWS // len(GRADED_LEVELS) + 1
EVERY = 1500
ROW_BYTES = 10
PATCH = (32, 32, 32)
PATCHES = 1200
PATCH_LIMIT = PATCHES / 2 * 4 * 32**3 / 40
"""Bytes: a fortieth of what the images hold that are read between the measurements compared."""
WARM = 10
"""Measurements after which a worker has imported and allocated what it needs."""

# Python 3.12 and later warn of every fork beside threads, of which libraries have some.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def private_bytes() -> int:
    """Return the memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


class RowsAlone(VertebraDataset):
    """Makes everything of a sample that comes from the table, and reads no voxel."""

    def _make(self, epoch: int, index: int, *_: Any) -> Sample:
        names = self.scans.names(self.scan_number(epoch, index))
        private = private_bytes() if index % EVERY == 0 else 0
        return {"private": private, **names, **targets(self.rows[index], 1)}


class Measures:
    """Replaces every 50th patch by the memory of the process that made it.

    Parameters
    ----------
    hoard : bool
        Whether to keep a copy of each 10th image, as a careless cache does.
    """

    def __init__(self, *, hoard: bool = False) -> None:
        self.calls = 0
        self._hoard = hoard
        self._kept: list[Any] = []

    def __call__(self, sample: Sample) -> Sample:
        self.calls += 1
        if self._hoard and self.calls % 10 == 0:
            self._kept.append(sample["image"].clone())
        return {"private": private_bytes() if self.calls % 50 == 0 else 0}


def large_table() -> pd.DataFrame:
    number = np.arange(ROWS)
    scan = pd.Series([f"verse{n:05}" for n in range(SCANS)]).to_numpy()[
        number // len(GRADED_LEVELS)
    ]
    level = np.array(GRADED_LEVELS)[number % len(GRADED_LEVELS)]
    grade = number % 4
    return support.typed(
        pd.DataFrame(
            {
                "scan_id": scan,
                "subject_id": scan,
                "split": "training",
                "level": level,
                "label": pd.Series(level).map(LABEL_OF_LEVEL),
                "grade": grade,
                "fracture_type": np.array(support.TYPES)[grade],
                "foreign_material": False,
                "grade_status": "graded",
                "has_mask": True,
                "centroid_x": 1.0 * number,
                "centroid_y": 2.0,
                "centroid_z": 3.0,
                "bmd_mg_cm3": 120.0,
            }
        )
    )


def collect(batch: list[dict[str, Any]]) -> tuple[int, int, list[int]]:
    """Return the worker's number, the batch's length, and the memory that was measured in it."""
    worker = get_worker_info()
    assert worker is not None
    return worker.id, len(batch), [s["private"] for s in batch if s["private"]]


@contextmanager
def no_collections() -> Iterator[None]:
    """Keep the garbage collector from running, here and in workers that are forked meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def lasting(values: Sequence[int]) -> int:
    """Return by how many bytes the memory grew, once warm, and stayed grown."""
    return min(values[-WARM:]) - values[WARM]


def growth(dataset: Any) -> int:
    """Run an epoch with 2 forked workers; return by how many bytes one grew at most, once warm."""
    measured: dict[int, list[int]] = {0: [], 1: []}
    served = 0
    with no_collections():
        loader = DataLoader(
            dataset,
            batch_size=EVERY,
            num_workers=2,
            collate_fn=collect,
            multiprocessing_context="fork",
        )
        for worker, length, private in loader:
            measured[worker] += private
            served += length
    assert served == len(dataset)
    return max(lasting(values) for values in measured.values())


def test_a_large_table_does_not_grow_in_workers() -> None:
    """Over an epoch of 150,000 vertebrae, no worker's memory grows by what rows would take."""
    ids = [f"verse{n:05}" for n in range(SCANS)]
    scans = [ServedScan(name, name, "training", Path("/nowhere") / name) for name in ids]
    dataset = RowsAlone(scans, large_table(), label_mode="none")
    assert len(dataset) == ROWS

    assert growth(dataset) < ROWS * ROW_BYTES


@pytest.mark.slow
def test_control_rows_as_objects_grow_in_workers() -> None:
    """The drill sees a list of dictionaries: the workers' memory grows by far more."""
    rows = large_table().head(ROWS // 2).astype(object).to_dict("records")

    assert growth(naive.RowObjects(rows, private_bytes)) > len(rows) * ROW_BYTES


def patch_growth(folder: Path, transform: Measures) -> int:
    """Read patches in a spawned worker; return by how many bytes its memory grew, once warm.

    Spawned, so that nothing in its memory was ever the parent's.
    """
    dataset = PatchDataset(
        support.make(folder).scans,
        patch_size=PATCH,
        patches_per_epoch=PATCHES,
        transform=transform,
    )
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    private = [sample["private"] for sample in loader if sample["private"]]
    assert len(private) == PATCHES // 50
    return lasting(private)


def test_reading_patches_does_not_grow_a_worker(tmp_path: Path) -> None:
    """Once warm, 600 patches cost a worker less than a fortieth of what they hold."""
    assert patch_growth(tmp_path, Measures()) < PATCH_LIMIT


@pytest.mark.slow
def test_control_kept_patches_grow_a_worker(tmp_path: Path) -> None:
    """The drill sees a cache that keeps one patch of ten."""
    assert patch_growth(tmp_path, Measures(hoard=True)) > PATCH_LIMIT


@pytest.fixture(autouse=True)
def _linux() -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("private memory is read from /proc/self/smaps_rollup, which this system lacks")
