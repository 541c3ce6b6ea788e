"""A small 3-D network and a short training run, which show that samples can be learned from.

Used by ``verse-data demo`` and the examples; not a baseline for research.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice, repeat
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset

Patches = Dataset[dict[str, torch.Tensor]]
"""Samples with ``image`` (1, X, Y, Z) in HU and ``label`` (1, X, Y, Z), all of one shape."""


class TrainingRun(NamedTuple):
    """A trained network, in evaluation mode, and the loss of each step, in order."""

    network: nn.Module
    losses: tuple[float, ...]


class TinyUNet(nn.Module):
    """Two scales, one skip connection; (B, 1, X, Y, Z) HU to (B, classes, X, Y, Z) logits.

    Parameters
    ----------
    classes : int
        Classes, background included.
    width : int
        Channels at full resolution.
    """

    def __init__(self, classes: int = 2, width: int = 8) -> None:
        super().__init__()
        self.fine = _block(1, width)
        self.down = _block(width, 2 * width, stride=2)
        self.coarse = _block(2 * width, 2 * width)
        self.narrow = nn.Conv3d(2 * width, width, kernel_size=1)
        self.joint = _block(2 * width, width)
        self.head = nn.Conv3d(width, classes, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits; the network itself scales -200 to 1000 HU to -1 to 1."""
        fine = self.fine((image.float().clamp(-200, 1000) - 400) / 600)
        coarse = self.narrow(self.coarse(self.down(fine)))
        wide = functional.interpolate(coarse, size=fine.shape[2:], mode="trilinear")
        logits: torch.Tensor = self.head(self.joint(torch.cat([fine, wide], dim=1)))
        return logits


def untrained(*, seed: int = 0) -> TinyUNet:
    """Return a network with initial weights from `seed`; torch's generator is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TinyUNet()
    # Channels last makes the convolutions of a CPU half as fast again.
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network


@contextmanager
def _one_thread() -> Iterator[None]:
    """Make torch compute in one thread."""
    # In a network this small, threads mostly wait for one another: with another busy process on two
    # cores, two threads took seven times as long as one.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def train(
    patches: Patches,
    *,
    steps: int = 40,
    batch_size: int = 2,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> TrainingRun:
    """Train a :class:`TinyUNet` to tell vertebra from background on the CPU, in passes over `patches`.

    `seed` determines the initial weights; `report` is called with number and loss of each step.
    """
    network = untrained(seed=seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.015)
    # A generator of its own: otherwise the loader uses torch's, even without shuffling.
    own = torch.Generator().manual_seed(seed)
    loader = DataLoader(patches, batch_size=batch_size, drop_last=True, generator=own)
    losses: list[float] = []
    for batch in islice(chain.from_iterable(repeat(loader)), steps):
        loss = segmentation_loss(network(batch["image"]), batch["label"][:, 0] > 0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        if report:
            report(len(losses), losses[-1])
    return TrainingRun(network.eval(), tuple(losses))


def segmentation_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy plus soft Dice loss.

    Parameters
    ----------
    logits : (B, 2, X, Y, Z) tensor
        Of background and vertebra.
    truth : (B, X, Y, Z) bool tensor
        Whether a voxel is vertebra.
    """
    vertebra = logits.softmax(dim=1)[:, 1]
    overlap = (vertebra * truth).sum()
    soft_dice = (2 * overlap + 1) / (vertebra.sum() + truth.sum() + 1)
    return functional.cross_entropy(logits, truth.long()) + 1 - soft_dice


@torch.inference_mode()
@_one_thread()
def dice(network: nn.Module, patches: Patches, *, count: int) -> float:
    """Return the Dice overlap of prediction and mask over the first `count` patches together."""
    overlap = total = 0
    loader = DataLoader(Subset(patches, range(count)), batch_size=2, generator=torch.Generator())
    for batch in loader:
        truth = batch["label"][:, 0] > 0
        predicted = network(batch["image"]).argmax(dim=1) == 1
        overlap += int((truth & predicted).sum())
        total += int(truth.sum()) + int(predicted.sum())
    return 2 * overlap / total if total else 0.0


def _block(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.InstanceNorm3d(channels_out, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
    )
