"""What competes in ``loader.py``: each makes an endless stream of batches of float32 patches.

A contestant that can be told which box to read reads the same boxes as this package does, around
vertebrae. MONAI and TorchIO draw their own, anywhere in the scan.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from volume_readers import (
    AFFINE,
    BLOSC2,
    MEMORY_MAP,
    NNUNET,
    NNUNET_INT16,
    WAYS,
    Way,
    store_in,
)

from verse_data.spine.geometry import Box, apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.training import PatchDataset, ServedScan

SIZE = 96
BATCH = 2
ENDLESS = 1_000_000
Batches = Iterator[int]
"""Yields, as each batch arrives, the number of patches in it."""


@dataclass(frozen=True)
class Contestant:
    """A way to feed a training run.

    Attributes
    ----------
    name : str
        For the table.
    start : callable
        Given the folders of the scans and the number of workers, returns the stream.
    files : str
        Name in `WAYS` of the way that writes its files.
    """

    name: str
    start: Callable[[list[Path], int], Batches]
    files: str


def counted(loader: Any) -> Batches:
    """Yield the number of patches of each batch, pass after pass."""
    while True:
        for batch in loader:
            image = batch["image"]
            image = image["data"] if isinstance(image, dict) else image
            assert image.dtype == torch.float32
            assert image.shape[1:] == (1, SIZE, SIZE, SIZE)
            yield len(image)


# ---------------------------------------------------------------------------- verse-data


def vertebrae(folders: list[Path]) -> pd.DataFrame:
    """Return a vertebrae table of the made-up scans, with what sampling by level needs."""
    rows = []
    for folder in folders:
        for number, centre in enumerate(np.load(folder / "centres.npy")):
            level = LEVELS[7 + number]
            x, y, z = apply_affine(AFFINE, centre)
            rows.append((folder.name, level, LABEL_OF_LEVEL[level], x, y, z))
    names = ["scan_id", "level", "label", "centroid_x", "centroid_y", "centroid_z"]
    return pd.DataFrame(rows, columns=names).assign(
        subject_id=lambda table: table["scan_id"],
        grade=0,
        fracture_type="none",
        foreign_material=False,
        has_mask=True,
        grade_status="graded",
        bmd_mg_cm3=100.0,
    )


def patches(folders: list[Path], codec: str) -> PatchDataset:
    """Return this package's dataset over the scans' stores."""
    scans = [ServedScan(f.name, f.name, "training", store_in(f / codec)) for f in folders]
    return PatchDataset(
        scans,
        vertebrae=vertebrae(folders),
        patch_size=(SIZE, SIZE, SIZE),
        sampling="level",
        patches_per_epoch=ENDLESS // 100,
    )


def ours(codec: str, **options: Any) -> Callable[[list[Path], int], Batches]:
    """Return the start of this package, whose own options stand for the number of workers."""

    def start(folders: list[Path], workers: int) -> Batches:
        del workers
        return counted(patches(folders, codec).loader(batch_size=BATCH, **options))

    return start


# ---------------------------------------------------------------------------- files by box


class Boxes(Dataset[Any]):
    """Reads the boxes that this package would, in another way."""

    def __init__(self, way: Way, folders: list[Path]) -> None:
        self.way = way
        self.folders = folders
        self.boxes = patches(folders, "lz4")
        self.pid, self.kept = -1, {}

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        number = self.boxes.scan_number(0, index)
        box = self.boxes._box(self.boxes._open(number), 0, index)  # noqa: SLF001 - the same boxes
        image, label = self.read(self.folders[number] / self.way.files, box)
        shape = (1, SIZE, SIZE, SIZE)
        return {"image": image.to(torch.float32).reshape(shape), "label": label.reshape(shape)}

    def read(self, folder: Path, box: Box) -> tuple[torch.Tensor, torch.Tensor]:
        """Read one box, with a handle that is kept per process where the way keeps it."""
        if not self.way.keeps:
            return self.way.read(self.way.open(folder), box)
        if self.pid != os.getpid():
            self.pid, self.kept = os.getpid(), {}
        if folder not in self.kept:
            self.kept[folder] = self.way.open(folder)
        return self.way.read(self.kept[folder], box)


def by_box(name: str) -> Callable[[list[Path], int], Batches]:
    """Return the start of one of `WAYS` behind torch's own loader."""

    def start(folders: list[Path], workers: int) -> Batches:
        dataset = Boxes(WAYS[name], folders)
        return counted(
            DataLoader(
                dataset,
                batch_size=BATCH,
                shuffle=True,
                num_workers=workers,
                persistent_workers=workers > 0,
            )
        )

    return start


# ---------------------------------------------------------------------------- MONAI


class Over(Sampler[int]):
    """Goes over the volumes again and again, so that passes have no ends."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[int]:
        return iter(n % self.count for n in range(ENDLESS))


def monai(kind: str, samples: int, **options: Any) -> Callable[[list[Path], int], Batches]:
    """Return the start of one of MONAI's datasets, with some patches from each volume it loads."""

    def start(folders: list[Path], workers: int) -> Batches:
        from monai import data, transforms

        keys = ["image", "label"]
        steps = transforms.Compose(
            [
                transforms.LoadImaged(keys),
                transforms.EnsureChannelFirstd(keys),
                transforms.RandSpatialCropSamplesd(
                    keys, (SIZE, SIZE, SIZE), num_samples=samples, random_size=False
                ),
            ]
        )
        files = [
            {"image": str(f / "nii" / "ct.nii.gz"), "label": str(f / "nii" / "mask.nii.gz")}
            for f in folders
        ]
        if kind == "PersistentDataset":
            options["cache_dir"] = folders[0].parent / "monai-persistent"
        if kind == "CacheDataset":
            options["progress"] = False
        dataset = getattr(data, kind)(files, steps, **options)
        if kind == "PersistentDataset":
            for number in range(len(files)):  # writes its files, which is not what is measured
                _ = dataset[number]
        loader = data.DataLoader(
            dataset,
            batch_size=1,
            sampler=Over(len(files)),
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        return counted(loader)

    return start


# ---------------------------------------------------------------------------- TorchIO


def torchio(samples: int, *, held: bool) -> Callable[[list[Path], int], Batches]:
    """Return the start of TorchIO's queue; `held` keeps the volumes in memory."""

    def start(folders: list[Path], workers: int) -> Batches:
        import torchio as tio

        subjects = [
            tio.Subject(
                image=tio.ScalarImage(f / "nii" / "ct.nii.gz"),
                label=tio.LabelMap(f / "nii" / "mask.nii.gz"),
            )
            for f in folders
        ]
        if held:
            for subject in subjects:
                subject.load()
        queue = tio.Queue(
            tio.SubjectsDataset(subjects * 4),
            max_length=4 * samples,
            samples_per_volume=samples,
            sampler=tio.UniformSampler(SIZE),
            num_workers=workers,
        )
        return floats(tio.SubjectsLoader(queue, batch_size=BATCH, num_workers=0))

    return start


def floats(loader: Any) -> Batches:
    """Count batches whose image TorchIO keeps in the type of its file."""
    while True:
        for batch in loader:
            yield len(batch["image"]["data"].to(torch.float32))


OURS, PROCESSES = "verse-data, 2 threads", "verse-data, 2 processes"
HELD = "MONAI CacheDataset, copy_cache=False, all in memory"
PERSISTENT = "MONAI PersistentDataset, 4 patches a volume"

CONTESTANTS = {
    c.name: c
    for c in (
        Contestant(MEMORY_MAP, by_box(MEMORY_MAP), MEMORY_MAP),
        Contestant(OURS, ours("lz4", threads=2), "verse-data"),
        Contestant("verse-data, 1 thread", ours("lz4", threads=1), "verse-data"),
        Contestant("verse-data, neither", ours("lz4", threads=0), "verse-data"),
        Contestant(PROCESSES, ours("lz4", num_workers=2, persistent_workers=True), "verse-data"),
        Contestant(OURS + ", codec none", ours("none", threads=2), "verse-data, codec none"),
        Contestant(NNUNET, by_box(NNUNET), NNUNET),
        Contestant(NNUNET_INT16, by_box(NNUNET_INT16), NNUNET_INT16),
        Contestant(BLOSC2, by_box(BLOSC2), BLOSC2),
        Contestant("MONAI Dataset, 1 patch a volume", monai("Dataset", 1), "nibabel, .nii.gz"),
        Contestant("MONAI Dataset, 4 patches a volume", monai("Dataset", 4), "nibabel, .nii.gz"),
        Contestant("MONAI PersistentDataset, 1 patch a volume", monai("PersistentDataset", 1), "nibabel, .nii.gz"),
        Contestant(PERSISTENT, monai("PersistentDataset", 4), "nibabel, .nii.gz"),
        Contestant("MONAI CacheDataset, 4 patches a volume", monai("CacheDataset", 4), "nibabel, .nii.gz"),
        Contestant(HELD, monai("CacheDataset", 4, copy_cache=False), "nibabel, .nii.gz"),
        Contestant("TorchIO Queue, 8 patches a volume", torchio(8, held=False), "nibabel, .nii.gz"),
        Contestant("TorchIO Queue, 16 patches a volume, held in memory", torchio(16, held=True), "nibabel, .nii.gz"),
    )
}  # fmt: skip
"""Every contestant, by name: this package, and each peer at its default and at its best."""

NEEDS = {"MONAI": "monai", "TorchIO": "torchio"}
"""Modules of the contestants whose names begin so; `WAYS` knows those of the others."""
