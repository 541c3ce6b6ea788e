"""Bridge to MONAI: samples whose image and label are ``MetaTensor``. Needs ``verse-data[monai]``."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from verse_data.errors import needed

with needed(by=__name__):
    from monai.data import MetaTensor, list_data_collate
    from monai.data.utils import collate_meta_tensor_fn
    from monai.utils import MetaKeys, SpaceKeys

Sample = dict[str, Any]
"""As in :mod:`verse_data.training.samples`, which imports this module if MONAI is in use."""

_VOLUMES = ("image", "label", "heatmaps")
_IN_TENSOR = ("affine", "spacing")


def to_monai(sample: Sample) -> Sample:
    """Return the sample with ``image``, ``label`` and ``heatmaps`` as ``MetaTensor``.

    ``affine`` and ``spacing`` are removed from the dictionary: the tensors hold the affine, and
    MONAI's spatial transforms update it there. The other keys stay. Use it as ``transform=``, alone
    or as the first step of ``monai.transforms.Compose``. In batches of ``dataset.loader``, of a
    plain ``DataLoader`` and of MONAI's, ``image.affine`` is (B, 4, 4), and
    ``monai.data.decollate_batch`` returns each sample with its own.

    Parameters
    ----------
    sample : dict
        A sample of one of the datasets.

    Returns
    -------
    dict
        ``image.affine`` is (4, 4) in RAS+; ``image.meta["filename_or_obj"]`` is the scan's id.

    Examples
    --------
    >>> from monai.transforms import Compose, RandFlipd                      # doctest: +SKIP
    >>> steps = Compose([to_monai, RandFlipd(["image", "label"], prob=0.5)])  # doctest: +SKIP
    >>> PatchDataset(scans, transform=steps)                                 # doctest: +SKIP
    """
    image = sample["image"]
    meta = {
        MetaKeys.ORIGINAL_AFFINE: sample["affine"],
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.array(image.shape[1:]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        "filename_or_obj": sample["scan_id"],
    }
    tracked = {
        key: MetaTensor(sample[key], affine=sample["affine"], meta=deepcopy(meta))
        for key in _VOLUMES
        if key in sample
    }
    _keep_every_affine()
    return {key: value for key, value in sample.items() if key not in _IN_TENSOR} | tracked


def from_monai(sample: Sample) -> Sample:
    """Return a sample, or a batch, of plain tensors, with ``affine`` and ``spacing`` of the image.

    The inverse of :func:`to_monai`, for use after MONAI's transforms, for instance before
    :func:`verse_data.training.centroid_voxels`.
    """
    affine = sample["image"].affine.to(torch.float64).cpu()
    found = {key: sample[key] for key in _VOLUMES if isinstance(sample.get(key), MetaTensor)}
    plain = {key: volume.as_tensor() for key, volume in found.items()}
    spacing = torch.linalg.vector_norm(affine[..., :3, :3], dim=-2)
    return {**sample, **plain, "affine": affine, "spacing": spacing}


def collate_tracked(samples: list[Any]) -> Any:
    """Batch samples as MONAI's own loader does if they hold a ``MetaTensor``, else as torch does."""
    _keep_every_affine()
    first = samples[0][0] if isinstance(samples[0], list) else samples[0]
    values = first.values() if isinstance(first, Mapping) else ()
    tracked = any(isinstance(value, MetaTensor) for value in values)
    return list_data_collate(samples) if tracked else default_collate(samples)


def _keep_every_affine() -> None:
    """Make torch's ``default_collate`` keep the affine of each sample, as MONAI's loader does."""
    default_collate_fn_map.setdefault(MetaTensor, collate_meta_tensor_fn)
