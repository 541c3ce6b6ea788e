"""Drill 33: memory of batches is used again, and never while somebody still refers to it.

Pass: batches that were kept, slices of them, and NumPy arrays of those hold after a pass what they
held when they came; and 500 steps of a run that keeps none use a handful of places in memory.
Control: memory that is used again in turn, whoever refers to it, changes what was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from tests.support import training as support
from verse_data.training import PatchDataset
from verse_data.training.batches import AHEAD, BatchMaker, BatchMemory, made_by_threads

BATCH, THREADS = 2, 2
STEPS = 500
IN_USE = THREADS + AHEAD + 2
"""Batches in the making, waiting, and in the caller's hands."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


def patches(made: support.Made, steps: int) -> PatchDataset:
    return PatchDataset(made.scans, patch_size=16, patches_per_epoch=steps * BATCH)


class Ring(BatchMemory):
    """Memory that is used again in turn, as by a loader that counts on batches being used up."""

    def __init__(self, count: int) -> None:
        super().__init__(count, pinned=False)
        self._ring: list[np.ndarray[Any, Any]] = []
        self._count, self._next = count, 0

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """Return a tensor over the next piece of memory in turn."""
        if len(self._ring) < self._count:
            self._ring.append(np.empty(int(np.prod(shape)) * 4, dtype=np.uint8))
        self._next = (self._next + 1) % len(self._ring)
        memory = self._ring[self._next][: int(np.prod(shape)) * np.dtype(dtype).itemsize]
        return torch.from_numpy(memory.view(dtype).reshape(shape))


def batches(dataset: PatchDataset, memory: BatchMemory) -> Iterator[Any]:
    numbers = [[(0, n), (0, n + 1)] for n in range(0, len(dataset), BATCH)]
    maker = BatchMaker(dataset, memory, default_collate, batched=True, in_threads=True)
    return made_by_threads(maker, iter(numbers), threads=THREADS)


KEPT: dict[str, Callable[[torch.Tensor], Any]] = {
    "batches": lambda image: image,
    "slices": lambda image: image[1, :, 3:5],
    "arrays": lambda image: image.numpy()[0, :, ::2],
    "arrays of slices": lambda image: image[0].numpy()[..., 7][:, 1:],
    "storages": lambda image: image.untyped_storage(),
}


def changed(dataset: PatchDataset, memory: BatchMemory, keep: Callable[[torch.Tensor], Any]) -> int:
    """Keep something of every third batch; return how much of it is another at the end."""
    kept = []
    for number, batch in enumerate(batches(dataset, memory)):
        if number % 3 == 0:
            part = keep(batch["image"])
            kept.append((part, bytes(torch.as_tensor(np.asarray(part)).numpy().tobytes())))
    return sum(np.asarray(part).tobytes() != before for part, before in kept)


@pytest.mark.parametrize("what", KEPT)
def test_what_is_kept_of_a_batch_never_changes(made: support.Made, what: str) -> None:
    """Whatever refers to a batch keeps its memory from being used again."""
    memory = BatchMemory(2 * IN_USE, pinned=False)

    assert changed(patches(made, 60), memory, KEPT[what]) == 0


def test_control_memory_used_in_turn_changes_what_is_kept(made: support.Made) -> None:
    """The drill sees a ring of as many pieces as are in use."""
    assert changed(patches(made, 60), Ring(2 * IN_USE), KEPT["batches"]) > 0


def test_a_long_run_uses_a_handful_of_places_in_memory(made: support.Made) -> None:
    """500 steps: no more places than batches in use, for image and label each."""
    memory = BatchMemory(2 * IN_USE, pinned=False)
    places = {
        key: {batch[key].data_ptr() for batch in batches(patches(made, STEPS), memory)}
        for key in ("image", "label")
    }

    assert 1 <= len(places["image"]) <= IN_USE
    assert 1 <= len(places["label"]) <= IN_USE


def test_control_batches_that_are_kept_take_new_places(made: support.Made) -> None:
    """The drill sees memory that grows: as many places as batches."""
    kept = [b["image"] for b in batches(patches(made, 40), BatchMemory(8, pinned=False))]

    assert len({image.data_ptr() for image in kept}) == 40
