"""Batching samples: MONAI's tensors with the affine of each, volumes of differing shapes padded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import collate as collate_by
from torch.utils.data._utils.collate import default_collate_fn_map

from verse_data.errors import UsageError
from verse_data.training.samples import PAD_HU, Sample

_SHOWN = 3
_HINT = (
    "They differ in size, and cannot be stacked. Take them one by one (batch_size=None), pad them "
    "(collate_fn=verse_data.training.pad_collate), or serve boxes of one size (unit='patch', or a "
    "transform that crops and pads)."
)


def collate(samples: list[Any]) -> Any:
    """Batch samples as torch does, or as MONAI does where they hold its ``MetaTensor``.

    torch's own stacking keeps the affine of the first sample alone; MONAI's keeps each, and makes
    one batch of the lists of samples that its random crops return.

    Parameters
    ----------
    samples : list
        As the datasets and their transform give them.

    Returns
    -------
    The batch; ``batch["image"].affine`` is (B, 4, 4) where the samples are MONAI's.
    """
    # Where MONAI is not loaded in this process, no sample can be of its kind.
    if "monai.data.meta_tensor" not in sys.modules:
        return default_collate(samples)
    from verse_data.training.monai import collate_tracked

    return collate_tracked(samples)


class UnevenSample(dict[str, Any]):
    """A sample of a dataset whose images differ in size: a dict, that torch's own batching can tell."""


def _stacked(samples: Sequence[UnevenSample], *, collate_fn_map: Any = None) -> Sample:
    """Batch such samples as torch does any dict; say what to do where their sizes differ."""
    shapes = {tuple(sample["image"].shape) for sample in samples if "image" in sample}
    if len(shapes) > 1:
        listed = ", ".join("x".join(map(str, shape[1:])) for shape in sorted(shapes)[:_SHOWN])
        raise UsageError(f"The images of this batch measure {listed} voxels. {_HINT}")
    plain = [dict(sample) for sample in samples]
    batch: Sample = collate_by(plain, collate_fn_map=collate_fn_map)
    return batch


# The way that torch documents for types of one's own; no other type is batched in another way.
default_collate_fn_map[UnevenSample] = _stacked


def pad_collate(samples: Sequence[Sample], *, pad_image: float = PAD_HU) -> Sample:
    """Batch samples, padding ``image`` and ``label`` at the ends to the largest of the batch.

    The voxels keep their indices, so ``affine`` stays true. The batch has one more key: ``shape``,
    int64 (batch, 3), what each image measured before.

    Parameters
    ----------
    samples : sequence of dict
        With the same keys.
    pad_image : float
        Value of the image where it was padded: air in HU. After ``Window`` that is 0, as in
        ``collate_fn=functools.partial(pad_collate, pad_image=0)``.

    Returns
    -------
    dict
        As :func:`collate` gives it. Labels are padded with 0.
    """
    pads = {"image": pad_image, "label": 0}
    shapes = torch.tensor([sample["image"].shape[1:] for sample in samples])
    largest = shapes.max(dim=0).values
    padded = [
        {
            **sample,
            **{
                key: _grown(sample[key], largest, value)
                for key, value in pads.items()
                if key in sample
            },
        }
        for sample in samples
    ]
    batch: Sample = collate(padded)
    return {**batch, "shape": shapes}


def _grown(volume: torch.Tensor, shape: torch.Tensor, value: float) -> torch.Tensor:
    x, y, z = (int(n) - have for n, have in zip(shape, volume.shape[1:], strict=True))
    return pad(volume, (0, z, 0, y, 0, x), value=value) if x or y or z else volume
