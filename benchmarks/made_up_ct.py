"""Made-up CT volumes of real size, with the noise and the masks that set a codec its task.

A reader's speed hangs on how well the voxels compress: bone kernels leave noise of about 45 HU,
most of a mask is background, and a vertebra's brightness varies far more than its surroundings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SHAPES = {"axial": (512, 512, 400), "sagittal": (200, 500, 500), "long": (320, 320, 640)}
"""Voxels along x, y, z of the three volumes that most benchmarks use."""

_NOISE_HU = 45.0
_TILE = 64


@dataclass(frozen=True)
class MadeUpScan:
    """One volume: HU and labels in (x, y, z), and the vertebrae's centres in voxels."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    centres: npt.NDArray[np.float64]


def make_scan(shape: tuple[int, int, int], *, seed: int = 0, vertebrae: int = 17) -> MadeUpScan:
    """Make a volume of `shape` (x, y, z) with a spine of `vertebrae` levels along z.

    The arrays are views of (z, y, x) memory, the order of a NIfTI file.
    """
    x, y, z = shape
    random = np.random.default_rng(seed)
    noise = _correlated(random, (_TILE, y, x), 0.6, _NOISE_HU)
    texture = _correlated(random, (y, x), 8.0, 30.0)
    rows, columns = np.mgrid[:y, :x].astype(np.float32)
    body = ((rows - y / 2) / (y * 0.36)) ** 2 + ((columns - x / 2) / (x * 0.44)) ** 2 < 1
    still = np.where(body, 40 + texture, -1000).astype(np.float32)
    quiet = np.where(body, 1.0, 0.4).astype(np.float32)
    image = np.empty((z, y, x), np.int16)
    label = np.zeros((z, y, x), np.uint8)
    centres = _spine(shape, vertebrae)
    outlines = [_outline(rows, columns, centre, x, y) for centre in centres]
    height = z / vertebrae
    for k in range(z):
        level = min(int(k / height), vertebrae - 1)
        slab = still + np.roll(noise[k % _TILE], k // _TILE * 7, axis=1) * quiet
        if abs(k - centres[level][2]) < 0.42 * height:
            marrow, cortex = outlines[level]
            label[k][marrow | cortex] = level + 8
            slab[marrow] += 110 + 4 * texture[marrow]
            slab[cortex] += 500
        image[k] = np.clip(np.rint(slab), -1024, 3071)
    return MadeUpScan(image.transpose(2, 1, 0), label.transpose(2, 1, 0), centres)


def _correlated(
    random: np.random.Generator, shape: tuple[int, ...], sigma: float, spread: float
) -> npt.NDArray[np.float32]:
    field = ndimage.gaussian_filter(random.standard_normal(shape, dtype=np.float32), sigma)
    scaled: npt.NDArray[np.float32] = field * np.float32(spread / field.std())
    return scaled


def _spine(shape: tuple[int, int, int], vertebrae: int) -> npt.NDArray[np.float64]:
    x, y, z = shape
    along = (np.arange(vertebrae) + 0.5) / vertebrae
    return np.stack(
        [x / 2 + 8 * np.sin(6 * along), y * (0.5 + 0.04 * np.cos(5 * along)), z * along], 1
    )


def _outline(rows: Any, columns: Any, centre: Any, x: int, y: int) -> tuple[Any, Any]:
    """Return marrow and cortex of a vertebra in its plane: a body, and an arch behind it."""
    across, along = columns - centre[0], rows - centre[1]
    body = (along / (y * 0.04 + 6)) ** 2 + (across / (x * 0.05 + 6)) ** 2 < 1
    back = along + y * 0.08
    arch = (back / (y * 0.06)) ** 2 + (across / (x * 0.07)) ** 2 < 1
    arch &= (back / (y * 0.035)) ** 2 + (across / (x * 0.04)) ** 2 > 1
    whole = body | arch
    marrow = ndimage.binary_erosion(whole, iterations=2)
    return marrow, whole & ~marrow
