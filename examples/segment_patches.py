"""Segment vertebrae with patches of the training split; measure on whole scans of other patients.

    python examples/segment_patches.py                       # the phantom, under three minutes
    python examples/segment_patches.py --release verse19 --epochs 200

A run may be stopped and started again with the same arguments: it goes on after its last
checkpoint, in the middle of an epoch, with the samples that it would have had.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

import verse_data as vd
from verse_data.training import EpochLoader, ScanDataset
from verse_data.training.tiny import TinyUNet, segmentation_loss, untrained

SPACING = (2.0, 2.0, 2.0)


def train(
    network: TinyUNet,
    loader: EpochLoader,
    checkpoint: Path,
    *,
    epochs: int,
    checkpoint_every: int,
    stop_after: int | None,
) -> list[float]:
    """Train to the end of the last epoch, from the checkpoint if there is one."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    losses: list[float] = []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])
        losses = state["losses"]
        print(f"going on after {len(losses)} steps, from {checkpoint}")
    while loader.sampler.epoch < epochs:
        for batch in loader:
            loss = segmentation_loss(network(batch["image"]), batch["label"][:, 0] > 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % checkpoint_every == 0:
                states = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                save(checkpoint, {**states, "loader": loader.state_dict(), "losses": losses})
                print(f"    step {len(losses):4}  loss {np.mean(losses[-10:]):.3f}", flush=True)
            if len(losses) == stop_after:
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


def main(
    *,
    release: str = "phantom",
    root: Path | None = None,
    epochs: int = 3,
    patches_per_scan: int = 12,
    batch_size: int = 2,
    threads: int = 1,
    seed: int = 0,
    checkpoint_every: int = 10,
    stop_after: int | None = None,
    output: Path = Path("segment_patches"),
) -> dict[str, Any]:
    """Train, measure, and write the report into the folder `output`; stop after so many steps."""
    common = {"release": release, "root": root, "spacing": SPACING}
    patches = vd.load_split(
        "training",
        unit="patch",
        patch_size=(40, 40, 40),
        sampling="level",  # C1 and L6 are drawn as often as T12
        patches_per_scan=patches_per_scan,
        seed=seed,
        **common,
    )
    print(patches)
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)  # this network gains little from more than one
    network = untrained(seed=seed)
    losses = train(
        network,
        patches.loader(batch_size=batch_size),
        output / "checkpoint.pt",
        epochs=epochs,
        checkpoint_every=checkpoint_every,
        stop_after=stop_after,
    )
    said: dict[str, Any] = {"steps": len(losses), "losses": losses}
    if len(losses) != stop_after:
        print("whole scans of the validation split:")
        said["dice"] = measure(network.eval(), vd.load_split("validation", **common))
        said["provenance"] = patches.provenance
        report = output / "report.json"
        report.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        print(f"mean Dice {np.mean(list(said['dice'].values())):.3f}; written: {report}")
    return said


if __name__ == "__main__":
    try:
        typer.run(main)
    except vd.VerseDataError as error:
        raise SystemExit(f"error: {error}") from None
