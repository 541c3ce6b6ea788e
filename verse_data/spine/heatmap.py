"""Gaussians around points, exact in mm on any grid. Pure NumPy."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from verse_data.spine.geometry import Affine, apply_affine

_REACH: Final = 6.0
"""Standard deviations beyond which a Gaussian is 0: there it is less than float32 resolves at 1."""


def gaussian(
    shape: tuple[int, ...], affine: Affine, points: npt.NDArray[np.float64], sigma_mm: float
) -> npt.NDArray[np.float32]:
    """Return one Gaussian per point in world mm, (points, *shape); zeros for a point of NaN.

    A `shape` of two axes is a slice, whose third voxel axis is its thickness: a point within it is at
    no distance along that axis.
    """
    maps = np.zeros((len(points), *shape), dtype=np.float32)
    to_mm, inverse = affine[:3, :3], np.linalg.inv(affine)
    metric = to_mm.T @ to_mm / (2 * sigma_mm**2)
    # How far the ellipsoid of one standard deviation reaches along each voxel axis.
    reach = _REACH * sigma_mm * np.linalg.norm(inverse[:3, :3], axis=1)
    sizes = np.array([*shape, 1][:3])
    for target, centre in zip(maps, apply_affine(inverse, points), strict=True):
        if not np.isfinite(centre).all():
            continue
        if len(shape) == 2:
            centre[2] -= centre[2].clip(-0.5, 0.5)
        start = np.ceil(centre - reach).clip(0, sizes).astype(int)
        stop = (np.floor(centre + reach) + 1).clip(start, sizes).astype(int)
        x, y, z = np.ix_(
            *(np.arange(a, b) - c for a, b, c in zip(start, stop, centre, strict=True))
        )
        near = metric[0, 0] * x * x + metric[1, 1] * y * y + metric[2, 2] * z * z
        near = near + 2 * (metric[0, 1] * x * y + metric[0, 2] * x * z + metric[1, 2] * y * z)
        inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        target.reshape(tuple(sizes))[inside] = np.exp(-near)
    return maps
