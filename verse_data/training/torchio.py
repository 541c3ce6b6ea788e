"""Bridge to TorchIO: samples as ``Subject``. Needs ``verse-data[torchio]``."""

from __future__ import annotations

from typing import Any

import numpy as np

from verse_data.errors import needed
from verse_data.training.samples import Sample, position

with needed(by=__name__):
    import torchio

_MOVING = {"Flip", "Affine", "ElasticDeformation", "AffineElasticDeformation"}
"""Transforms that move voxels and leave the affine as it was."""
_KINDS = {"image": torchio.ScalarImage, "label": torchio.LabelMap, "heatmaps": torchio.ScalarImage}
_IN_IMAGES = ("affine", "spacing")


def to_subject(sample: Sample) -> Any:
    """Return the sample as ``torchio.Subject``.

    ``image`` becomes a ``ScalarImage`` and ``label`` a ``LabelMap``, both with the affine (RAS+,
    mm), and so do ``heatmaps`` where there are some: give intensity transforms
    ``exclude=["heatmaps"]``. The keys ``affine`` and ``spacing`` are removed, and the others stay. Use it as
    ``transform=``, alone or before TorchIO's transforms.

    Examples
    --------
    >>> from verse_data.training.transforms import Compose                   # doctest: +SKIP
    >>> PatchDataset(scans, transform=Compose([to_subject, tio.RandomFlip()]))  # doctest: +SKIP
    """
    affine = np.asarray(sample["affine"], dtype=np.float64)
    parts = {key: value for key, value in sample.items() if key not in _IN_IMAGES}
    for key, kind in _KINDS.items():
        if key in sample:
            parts[key] = kind(tensor=sample[key], affine=affine)
    return torchio.Subject(**parts)


def from_subject(subject: Any) -> Sample:
    """Return a subject as a sample: a plain ``dict`` of tensors that torch can batch.

    The inverse of :func:`to_subject`, for use after TorchIO's transforms; ``affine`` and
    ``spacing`` are those of the image. TorchIO's flips, affine and elastic transforms move voxels
    and leave the affine, so that nothing tells where the centroids are now: after one of them
    ``centroids`` are NaN. Make heatmaps before.
    """
    made: Sample = {**subject, **{key: subject[key].data for key in _KINDS if key in subject}}
    if "centroids" in made and _MOVING & {name for name, _ in subject.applied_transforms}:
        made["centroids"] = made["centroids"] * float("nan")
    return made | position(subject["image"].affine)
