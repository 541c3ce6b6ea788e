"""Segment vertebrae with patches of the training split; measure on whole scans of other patients.

    python examples/segment_patches.py                       # the phantom, under three minutes
    python examples/segment_patches.py --release verse19 --epochs 200 --workers 4

A run may be stopped and started again with the same arguments: it goes on after its last
checkpoint, in the middle of an epoch, with the samples that it would have had.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import verse_data as vd
from verse_data.training import PatchDataset, ScanDataset
from verse_data.training.tiny import TinyUNet, segmentation_loss, untrained

SPACING = (2.0, 2.0, 2.0)


def train(
    network: TinyUNet,
    patches: PatchDataset,
    asked: argparse.Namespace,
    checkpoint: Path,
) -> list[float]:
    """Train to the end of the last epoch, from the checkpoint if there is one."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    loader = patches.loader(batch_size=asked.batch_size, num_workers=asked.workers)
    losses: list[float] = []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])
        losses = state["losses"]
        print(f"going on after {len(losses)} steps, from {checkpoint}")
    while loader.sampler.epoch < asked.epochs:
        for batch in loader:
            loss = segmentation_loss(network(batch["image"]), batch["label"][:, 0] > 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % asked.checkpoint_every == 0:
                states = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                save(checkpoint, {**states, "loader": loader.state_dict(), "losses": losses})
                print(f"    step {len(losses):4}  loss {np.mean(losses[-10:]):.3f}", flush=True)
            if len(losses) == asked.stop_after:
                return losses
    return losses


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint under another name first, so that a kill leaves the old one or the new."""
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@torch.inference_mode()
def measure(network: TinyUNet, scans: ScanDataset) -> dict[str, float]:
    """Return the Dice overlap of vertebra on each whole scan."""
    found = {}
    for number in range(len(scans)):
        sample = scans[number]
        truth = sample["label"][0] > 0
        predicted = network(sample["image"][None]).argmax(dim=1)[0] == 1
        overlap = 2 * int((truth & predicted).sum())
        found[sample["scan_id"]] = round(overlap / (int(truth.sum()) + int(predicted.sum())), 3)
        print(f"    {sample['scan_id']:28} Dice {found[sample['scan_id']]:.3f}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, measure, write the report, and return it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--release", default="phantom")
    parser.add_argument("--root", type=Path, help="root of releases and caches")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--patches-per-scan", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="this network gains little from more"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-every", type=int, default=10, help="steps")
    parser.add_argument("--stop-after", type=int, help="stop after so many steps, to go on later")
    parser.add_argument("--output", type=Path, default=Path("segment_patches"), help="a folder")
    asked = parser.parse_args(arguments)

    common = {"release": asked.release, "root": asked.root, "spacing": SPACING}
    patches = vd.load_split(
        "training",
        unit="patch",
        patch_size=(40, 40, 40),
        sampling="level",  # C1 and L6 are drawn as often as T12
        patches_per_scan=asked.patches_per_scan,
        seed=asked.seed,
        **common,
    )
    print(patches)
    asked.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(asked.threads)
    network = untrained(seed=asked.seed)
    losses = train(network, patches, asked, asked.output / "checkpoint.pt")
    said: dict[str, Any] = {"steps": len(losses), "losses": losses}
    if len(losses) != asked.stop_after:
        print("whole scans of the validation split:")
        said["dice"] = measure(network.eval(), vd.load_split("validation", **common))
        said["provenance"] = patches.provenance
        report = asked.output / "report.json"
        report.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        print(f"mean Dice {np.mean(list(said['dice'].values())):.3f}; written: {report}")
    return said


if __name__ == "__main__":
    try:
        main()
    except vd.VerseDataError as error:
        raise SystemExit(f"error: {error}") from None
