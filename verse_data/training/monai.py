"""Bridge to MONAI: samples whose image and label are ``MetaTensor``. Needs ``verse-data[monai]``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys, SpaceKeys

from verse_data.spine.geometry import voxel_sizes
from verse_data.training.samples import Sample

_VOLUMES = ("image", "label")
_CARRIED = ("affine", "spacing")


def to_monai(sample: Sample) -> Sample:
    """Return the sample with ``image`` and ``label`` as ``MetaTensor``.

    ``affine`` and ``spacing`` leave the dictionary: the tensors carry the affine, and MONAI's
    spatial transforms keep it true there. The other keys stay. To be used as ``transform=``, alone
    or as the first step of ``monai.transforms.Compose``.

    Parameters
    ----------
    sample : dict
        As the datasets give it.

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
    kept = {key: value for key, value in sample.items() if key not in _CARRIED}
    for key in _VOLUMES:
        if key in sample:
            kept[key] = _meta_tensor(sample[key], sample["affine"], sample["scan_id"])
    return kept


def from_monai(sample: Sample) -> Sample:
    """Return a sample with plain tensors, and ``affine`` and ``spacing`` taken from the image.

    The inverse of :func:`to_monai`, after MONAI's transforms: so that
    :func:`verse_data.training.centroid_voxels` can be asked where the centroids now lie.
    """
    affine = sample["image"].affine.to(torch.float64).cpu()
    plain: Sample = {**sample, "affine": affine}
    plain["spacing"] = torch.tensor(voxel_sizes(np.asarray(affine)), dtype=torch.float64)
    for key in _VOLUMES:
        if key in sample:
            plain[key] = sample[key].as_tensor()
    return plain


def _meta_tensor(volume: torch.Tensor, affine: torch.Tensor, name: str) -> Any:
    meta = {
        MetaKeys.ORIGINAL_AFFINE: affine.clone(),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.array(volume.shape[1:]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        "filename_or_obj": name,
    }
    return MetaTensor(volume, affine=affine, meta=meta)
