"""How long a GPU waits for data: a 3-D U-Net in bf16 at 128³, batch 2, fed by this package.

::

    python benchmarks/gpu.py                    says so and stops where there is no GPU
    python benchmarks/gpu.py --threads 4 --steps 200 --codec none
    python benchmarks/gpu.py --cpu --size 32 --steps 6     only to see that it runs

The same network takes the same number of steps from batches that already lie in the GPU's memory.
What the step takes longer when it is fed from disk is what the GPU waits.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_contestants import vertebrae
from made_up_ct import make_scan
from torch import nn
from volume_readers import WAYS, store_in

from verse_data.training import PatchDataset, ServedScan

SHAPE = (320, 320, 400)
VOLUMES = 4
BATCH = 2
WARM_UP = 10


class Block(nn.Sequential):
    """Two 3³ convolutions, each normalised."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, 3, stride, 1),
            nn.InstanceNorm3d(outputs, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv3d(outputs, outputs, 3, 1, 1),
            nn.InstanceNorm3d(outputs, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )


class UNet(nn.Module):
    """Five scales of 32 to 320 channels, as nnU-Net plans at 128³."""

    def __init__(
        self, classes: int = 27, widths: tuple[int, ...] = (32, 64, 128, 256, 320)
    ) -> None:
        super().__init__()
        inputs = (1, *widths[:-1])
        strides = (1, *[2] * (len(widths) - 1))
        self.down = nn.ModuleList(map(Block, inputs, widths, strides))
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, 2) for a, b in pairs)
        self.join = nn.ModuleList(Block(2 * b, b) for _, b in pairs)
        self.head = nn.Conv3d(widths[0], classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, X, Y, Z)."""
        kept = []
        for down in self.down:
            image = down(image)
            kept.append(image)
        image = kept.pop()
        for up, join in zip(self.up, self.join, strict=True):
            image = join(torch.cat([up(image), kept.pop()], dim=1))
        return self.head(image)


def dataset(folder: Path, codec: str, size: int) -> PatchDataset:
    """Return patches of made-up scans, whose stores are written once."""
    way = next(way for way in WAYS.values() if way.files == codec)
    scans = []
    for number in range(VOLUMES):
        home = folder / f"gpu-{number}"
        target = home / way.files
        if not (target / "done").exists():
            target.mkdir(parents=True, exist_ok=True)
            scan = make_scan(SHAPE, seed=number)
            np.save(home / "centres.npy", scan.centres)
            way.prepare(scan, target)
            (target / "done").touch()
        scans.append(ServedScan(home.name, home.name, "training", store_in(target)))
    return PatchDataset(
        scans,
        vertebrae=vertebrae([folder / scan.scan_id for scan in scans]),
        patch_size=(size, size, size),
        sampling="level",
        image_dtype="int16",
        patches_per_epoch=100_000,
    )


class Trainer:
    """Takes training steps and times them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.network = UNet().to(device)
        self.optimiser = torch.optim.SGD(self.network.parameters(), 1e-3, momentum=0.99)

    def moved(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Send a batch to the device, and scale it there."""
        image = batch["image"].to(self.device, non_blocking=True).float().div_(1000)
        label = batch["label"].to(self.device, non_blocking=True).long().squeeze(1)
        return image, label.clamp_(max=26)

    def step(self, image: torch.Tensor, label: torch.Tensor) -> None:
        """Take one step, in bf16 on a GPU."""
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on_gpu):
            loss = nn.functional.cross_entropy(self.network(image), label)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def seconds(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], steps: int) -> float:
        """Return the seconds a step takes, over `steps` of them after a warm-up."""
        for image, label in islice(batches, WARM_UP):
            self.step(image, label)
        self._wait()
        start = time.perf_counter()
        for image, label in islice(batches, steps):
            self.step(image, label)
        self._wait()
        return (time.perf_counter() - start) / steps

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> int:
    """Measure, or say that there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, help="that read; by default the loader's own number")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--codec", choices=("lz4", "none"), default="lz4")
    parser.add_argument("--folder", type=Path, help="where the files are kept between runs")
    parser.add_argument("--cpu", action="store_true", help="only to see that it runs")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.cpu:
        print("There is no GPU here, so nothing was measured. Run this on a machine that has one.")
        return 0
    device = torch.device("cpu" if arguments.cpu else "cuda")
    name = "CPU" if arguments.cpu else torch.cuda.get_device_name()
    print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, {platform.platform()}")
    torch.backends.cudnn.benchmark = True
    folder = arguments.folder or Path(tempfile.gettempdir()) / "verse-data-benchmark"
    served = dataset(folder, arguments.codec, arguments.size)
    loader = served.loader(
        batch_size=BATCH,
        threads=arguments.threads,
        pin_memory=device.type == "cuda",
    )
    trainer = Trainer(device)
    held = [trainer.moved(batch) for batch in islice(loader, 4)]

    def from_memory() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from held

    def from_disk() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from map(trainer.moved, loader)

    sources = {"disk": from_disk(), "memory": from_memory()}
    times: dict[str, list[float]] = {"disk": [], "memory": []}
    for _ in range(arguments.rounds):
        for source, batches in sources.items():
            times[source].append(trainer.seconds(batches, arguments.steps))
    slow, fast = (statistics.median(times[source]) for source in sources)
    print(f"a step from this package: {slow * 1e3:.1f} ms; from memory: {fast * 1e3:.1f} ms")
    print(f"the GPU waits for data {max(0.0, 1 - fast / slow):.1%} of the time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
