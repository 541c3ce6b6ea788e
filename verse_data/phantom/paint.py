"""Paints a CT in Hounsfield units around a vertebra mask: bone, discs, muscle, fat, lung, air."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verse_data.errors import UsageError
from verse_data.spine.geometry import AxisMap, voxel_sizes

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]
Sizes = tuple[float, float, float]

AIR_HU: Final = -1024
METAL_HU: Final = 2900
_CORTICAL_HU: Final = 720
_DISC_HU: Final = 110
_MUSCLE_HU: Final = 55
_FAT_HU: Final = -105
_LUNG_HU: Final = -840
_NOISE_HU: Final = 45  # about that of a bone kernel at 1 mm
_CORTEX_MM: Final = 1.2
_BLUR: Final = (0.14, 0.72, 0.14)  # written out: an exponential's last bits differ by processor
_THORACIC_LABELS: Final = (8, 18)


def paint_ct(
    mask: npt.NDArray[np.generic], affine: npt.ArrayLike, *, seed: int, trabecular_hu: float = 170.0
) -> npt.NDArray[np.int16]:
    """Paint a CT around a given vertebra mask, such as a released one without its CT.

    Parameters
    ----------
    mask : (I, J, K) array
        VerSe labels, in any orientation.
    affine : (4, 4) array
        Voxel index to world mm, RAS+.
    seed : int
        Same mask, affine and seed: same voxels.
    trabecular_hu : float
        Mean HU of the trabecular bone.

    Returns
    -------
    (I, J, K) int16 array
        HU, in the grid of `mask`; exactly -1024 outside the body.

    Raises
    ------
    UsageError
        If `mask` is not three-dimensional.
    """
    if mask.ndim != 3:
        raise UsageError(f"paint_ct takes a mask with three axes; this one has shape {mask.shape}.")
    axes = AxisMap.between(affine, "PIR")
    sizes = voxel_sizes(axes.affine(affine, mask.shape))
    labels = np.rint(axes.apply(mask)).astype(np.uint8)
    rng = np.random.default_rng([seed, 1])
    painted = np.empty(mask.shape, dtype=np.int16)
    axes.apply(painted)[...] = paint(labels, sizes, rng=rng, trabecular_hu=trabecular_hu)
    return painted


def trabecular_hu(bmd_mg_cm3: float) -> float:
    """Return the mean of the spongy bone in HU, from the patient's bone mineral density."""
    return 90 + 0.9 * bmd_mg_cm3


def paint(
    bones: npt.NDArray[np.uint8],
    sizes: Sizes,
    *,
    rng: np.random.Generator,
    trabecular_hu: float,
    metal: Mask | None = None,
) -> npt.NDArray[np.int16]:
    """Paint around `bones`, axes (P, I, R), voxel `sizes` in mm; every non-zero voxel is bone."""
    bone = bones > 0
    if metal is not None:
        bone |= metal
    texture = _smooth_field(rng, bones.shape, sizes, cell_mm=9.0)
    ct = np.where(texture < -1.0, np.float32(_FAT_HU + 20), _MUSCLE_HU + 14 * texture)
    outside = _surroundings(ct, bone, bones, sizes)
    _skeleton(ct, bone, sizes, trabecular_hu + 30 * texture)
    for axis in range(3):  # partial volume
        ndimage.correlate1d(ct, _BLUR, axis=axis, output=ct)
    if metal is not None:
        ct[metal] = METAL_HU
    ct += _NOISE_HU * rng.standard_normal(ct.shape, dtype=np.float32)
    ct[outside] = AIR_HU
    return np.clip(np.rint(ct), AIR_HU, 3071).astype(np.int16)


def _skeleton(ct: Field, bone: Mask, sizes: Sizes, trabecular: Field) -> None:
    """Paint discs and ligaments between the bones, trabecular bone inside, and a cortical shell."""
    gap = 2 * max(1, round(8 / sizes[1])) + 1
    wide = ndimage.maximum_filter1d(bone.view(np.uint8), gap, axis=1, mode="constant")
    filled = ndimage.minimum_filter1d(wide, gap, axis=1, mode="nearest")
    np.copyto(ct, np.float32(_DISC_HU), where=filled.view(bool))
    np.copyto(ct, trabecular, where=bone)
    core = bone
    for axis, size in enumerate(sizes):
        # What has bone up to `steps` away on both sides along the axis.
        steps = max(1, round(_CORTEX_MM / size))
        low = ndimage.minimum_filter1d(
            bone.view(np.uint8), 2 * steps + 1, axis=axis, mode="nearest"
        )
        core = core & low.view(bool)
    shell = bone & ~core
    # A voxel that is thicker than the cortex contains trabecular bone as well.
    part = min(1.0, round(_CORTEX_MM / float(np.cbrt(np.prod(sizes))), 6))
    cortical = part * _CORTICAL_HU + (1 - part) * trabecular
    np.copyto(ct, cortical.astype(np.float32), where=shell)


def _surroundings(ct: Field, bone: Mask, bones: npt.NDArray[np.uint8], sizes: Sizes) -> Mask:
    """Put lungs beside the thoracic spine and fat under the skin; return what is outside."""
    posterior, inferior, right = (
        np.arange(n, dtype=np.float32) * np.float32(size)
        for n, size in zip(bone.shape, sizes, strict=True)
    )
    front, back = _extent_along_spine(bone, sizes)
    lateral = right - right.mean()
    thoracic = np.flatnonzero(
        ((bones >= _THORACIC_LABELS[0]) & (bones <= _THORACIC_LABELS[1])).any(axis=(0, 2))
    )
    if thoracic.size:
        top, bottom = inferior[thoracic[0]], inferior[thoracic[-1]]
        domes = np.clip((bottom - inferior) / 45, 0, 1) * np.clip((inferior - top) / 45 + 1, 0, 1)
        # A circle beside the spine, its middle 68 mm off the midline.
        off = ((np.abs(lateral) - 68) / 40)[None, None, :] ** 2
        deep = ((posterior[:, None] - (front[None, :] + 22)) / 48)[:, :, None] ** 2
        tapered = np.sqrt(domes)[None, :, None]
        lung = np.asarray(off + deep < tapered)
        np.copyto(ct, np.float32(_LUNG_HU), where=lung & ~bone)
    skin = (back + 13)[:, None] - (lateral[None, :] / 24) ** 2
    depth = posterior[:, None, None] - skin[None, :, :]
    np.copyto(ct, np.float32(_FAT_HU), where=(depth > -9) & ~bone)
    return np.asarray((depth > 0) & ~bone)


def _extent_along_spine(bone: Mask, sizes: Sizes) -> tuple[Field, Field]:
    """Return front and back of the bones in mm behind the first voxel, smoothed along the spine."""
    seen = np.asarray(bone.any(axis=2))
    rows = np.flatnonzero(seen.any(axis=0))
    if rows.size == 0:
        middle = np.full(bone.shape[1], bone.shape[0] * sizes[0] / 2, dtype=np.float32)
        return middle, middle + np.float32(30)
    first = seen.argmax(axis=0)[rows]
    last = bone.shape[0] - 1 - seen[::-1].argmax(axis=0)[rows]
    every = np.arange(bone.shape[1])
    window = max(1, round(45 / sizes[1]))
    front = ndimage.minimum_filter1d(np.interp(every, rows, first), window, mode="nearest")
    back = ndimage.maximum_filter1d(np.interp(every, rows, last), window, mode="nearest")
    sigma = 18 / sizes[1]
    smooth = [
        np.round(ndimage.gaussian_filter1d(line, sigma, mode="nearest") * sizes[0], 3)
        for line in (front, back)
    ]
    return smooth[0].astype(np.float32), smooth[1].astype(np.float32)


def _smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes, *, cell_mm: float
) -> Field:
    """Draw normal noise on a coarse grid and interpolate it linearly to `shape`."""
    coarse = tuple(max(2, round(n * size / cell_mm)) for n, size in zip(shape, sizes, strict=True))
    field = rng.standard_normal(coarse, dtype=np.float32)
    for axis, n in enumerate(shape):
        place = np.linspace(0, coarse[axis] - 1, n)
        low = np.minimum(place.astype(int), coarse[axis] - 2)
        part = (place - low).astype(np.float32)
        part = part.reshape([-1 if other == axis else 1 for other in range(3)])
        field = field.take(low, axis) * (1 - part) + field.take(low + 1, axis) * part
    return field
