"""The naive ways of serving samples, which the drills of the training datasets must catch.

They stand in a module of their own because workers that are spawned must import them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from verse_data.volumes.reader import opened


class HoldsHandles(Dataset[Any]):
    """Opens its stores when it is made and keeps the handles."""

    def __init__(self, stores: list[Any]) -> None:
        self.opened = [opened(store) for store in stores]

    def __len__(self) -> int:
        return len(self.opened)

    def __getitem__(self, index: int) -> Any:
        out = np.empty((4, 4, 4), np.int16)
        self.opened[index].shards["image"].gather(out, [0, 0, 0], [4, 4, 4], prefilled=None)
        return torch.from_numpy(out)


class SharedCache(Dataset[Any]):
    """Guards one cache with a lock, which a fork copies in whatever state it is."""

    lock = threading.Lock()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        with self.lock:
            return index


class OwnGenerator(Dataset[Any]):
    """Draws from a generator that was made with the dataset."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return {"index": index, "number": float(self.generator.random())}


class CallsTransform(Dataset[Any]):
    """Calls a transform and lets through whatever it raises or returns."""

    def __init__(self, transform: Callable[[Any], Any], count: int = 8) -> None:
        self.transform = transform
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.transform({"scan_id": f"verse90{index}", "number": index})


class RowObjects(Dataset[Any]):
    """Keeps the table as a list of dictionaries."""

    def __init__(self, rows: list[dict[str, Any]], measure: Callable[[], int]) -> None:
        self.rows = rows
        self.measure = measure

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[index]
        return {**row, "private": self.measure() if index % 500 == 0 else 0}
