"""Grade fractures vertebra by vertebra: folds by patient, a small 3-D network, AUC per grade.

    python examples/grade_fractures.py                       # the phantom, under three minutes
    python examples/grade_fractures.py --release verse19 --epochs 60

Vertebrae that were not assessed, and those with foreign material, are not served: they are no
healthy ones. The published test split is left alone. The report says what exactly it was made of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import nn
from torch.nn import functional

import verse_data as vd
from verse_data.tables.folds import make_folds
from verse_data.training import BalancedSampler, VertebraDataset

THRESHOLDS = (1, 2, 3)  # grade at least mild, moderate, severe


class Grader(nn.Module):
    """CT and mask of one vertebra, (B, 2, 32, 32, 32), to three logits: grade >= 1, 2, 3."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        channels = (2, width, 2 * width, 4 * width, 4 * width)
        blocks: list[nn.Module] = []
        for before, after in pairwise(channels):
            blocks += [
                nn.Conv3d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
                nn.InstanceNorm3d(after, affine=True),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*blocks, nn.Flatten())
        self.head = nn.Linear(channels[-1] * 2**3, len(THRESHOLDS))

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the logits for a batch as the loader gives it."""
        ct = batch["image"].clamp(-200, 1000).sub(400).div(600)
        vertebra = batch["label"].to(ct.dtype)
        return self.head(self.features(torch.cat([ct, vertebra], dim=1)))


def mirrored(sample: dict[str, Any]) -> dict[str, Any]:
    """Mirror half of the vertebrae left to right; their grade stays. Drawn per sample and epoch.

    Levels are symmetric, affine and centroids are not: they are dropped, as nothing here uses them.
    """
    kept = {key: sample[key] for key in ("image", "label", "grade", "scan_id", "level")}
    if torch.rand(()) < 0.5:
        kept |= {key: sample[key].flip(1) for key in ("image", "label")}
    return kept


def crops(
    release: vd.Release, scan_ids: Sequence[str], *, training: bool, seed: int
) -> VertebraDataset:
    """Serve cubes of 64 mm in voxels of 2 mm, turned along the spine, with the vertebra's mask."""
    return release.dataset(
        scan_ids,
        unit="vertebra",
        crop_size_mm=64.0,
        voxel_mm=2.0,
        axes="spine",
        transform=mirrored if training else None,
        seed=seed,
    )


def train(dataset: VertebraDataset, *, epochs: int, seed: int) -> Grader:
    """Train on batches in which grades come evenly within each level and no patient dominates."""
    torch.manual_seed(seed)
    network = Grader()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    loader = dataset.loader(sampler=BalancedSampler(dataset), batch_size=8)
    for epoch in range(epochs):
        losses = []
        for batch in loader:
            truth = torch.stack([batch["grade"] >= least for least in THRESHOLDS], dim=1)
            loss = functional.binary_cross_entropy_with_logits(network(batch), truth.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"    epoch {epoch + 1:3}  loss {np.mean(losses):.3f}", flush=True)
    return network.eval()


@torch.inference_mode()
def predict(network: Grader, dataset: VertebraDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return grade and three scores of every vertebra."""
    loader = dataset.loader(sampler=dataset.sampler(shuffle=False), batch_size=8)
    pairs = [(batch["grade"].numpy(), network(batch).sigmoid().numpy()) for batch in loader]
    grades, scores = zip(*pairs, strict=True)
    return np.concatenate(grades), np.concatenate(scores)


def auc(truth: np.ndarray, score: np.ndarray) -> float | None:
    """Return the area under the ROC curve: the chance that a positive scores above a negative."""
    positive, negative = score[truth], score[~truth]
    if not len(positive) or not len(negative):
        return None
    above = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
    return round(float(above), 3)


def report(grades: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Return AUC and number of positives for each threshold, over all folds together."""
    return {
        f"grade >= {least}": {
            "auc": auc(grades >= least, scores[:, column]),
            "positive": int((grades >= least).sum()),
            "vertebrae": len(grades),
        }
        for column, least in enumerate(THRESHOLDS)
    }


def main(
    *,
    release: str = "phantom",
    root: Path | None = None,
    folds: int = 3,
    epochs: int = 12,
    seed: int = 0,
    output: Path = Path("grade_fractures.json"),
) -> dict[str, Any]:
    """Cross-validate by patient; print and write AUC per grade, with its provenance."""
    opened = vd.open_release(release, root=root)
    scans, vertebrae = opened.scans, opened.vertebrae
    own = scans[(scans["split"] != "test") & scans["has_ct"] & scans["has_mask"]]
    parts = make_folds(own, vertebrae, k=folds, seed=seed)

    results, served = [], []
    for fold in range(parts.k):
        ids = parts.split(fold)
        training = crops(opened, ids["training"], training=True, seed=seed)
        held_out = crops(opened, ids["validation"], training=False, seed=seed)
        print(f"fold {fold}: {len(training)} vertebrae to train on, {len(held_out)} held out")
        print(f"    left out: {held_out.excluded['reason'].value_counts().to_dict()}")
        network = train(training, epochs=epochs, seed=seed)
        results.append(predict(network, held_out))
        served.append(held_out.provenance["dataset_fingerprint"])
    grades, scores = (np.concatenate(part) for part in zip(*results, strict=True))

    said = {
        "results": report(grades, scores),
        "folds": {"k": parts.k, "digest": parts.digest, "held_out": served},
        "settings": {"epochs": epochs, "seed": seed},
        "provenance": opened.provenance().model_dump(mode="json"),
    }
    for name, row in said["results"].items():
        print(f"{name}:  AUC {row['auc']}  ({row['positive']} of {row['vertebrae']} vertebrae)")
    output.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    print(f"written: {output}")
    return said


if __name__ == "__main__":
    try:
        typer.run(main)
    except vd.VerseDataError as error:
        raise SystemExit(f"error: {error}") from None
