"""Batching samples whose volumes differ in shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad
from torch.utils.data import default_collate

from verse_data.training.samples import PAD_HU, Sample

_PADDING = {"image": PAD_HU, "label": 0}


def pad_collate(samples: Sequence[Sample]) -> Sample:
    """Batch samples, padding ``image`` and ``label`` at the ends to the largest of the batch.

    The voxels keep their indices, so ``affine`` stays true. The batch has one more key: ``shape``,
    int64 (batch, 3), what each image measured before.

    Parameters
    ----------
    samples : sequence of dict
        With the same keys.

    Returns
    -------
    dict
        As torch's ``default_collate`` gives it. Images are padded with -1024, labels with 0.
    """
    shapes = torch.tensor([sample["image"].shape[1:] for sample in samples])
    largest = shapes.max(dim=0).values
    padded = [
        {
            **sample,
            **{
                key: _grown(sample[key], largest, value)
                for key, value in _PADDING.items()
                if key in sample
            },
        }
        for sample in samples
    ]
    batch: Sample = default_collate(padded)
    return {**batch, "shape": shapes}


def _grown(volume: torch.Tensor, shape: torch.Tensor, value: int) -> torch.Tensor:
    x, y, z = (int(n) - have for n, have in zip(shape, volume.shape[1:], strict=True))
    return pad(volume, (0, z, 0, y, 0, x), value=value) if x or y or z else volume
