"""From the plan of one series to its voxels: CT, mask, affine and centroids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verse_data.phantom import anatomy, paint, shapes
from verse_data.phantom.plan import SeriesPlan
from verse_data.spine import levels
from verse_data.spine.geometry import AxisMap

_UNLABELLED: Final = 255
_OBLIQUE_DEGREES: Final = 4.6
_MARGIN_UP_MM: Final = 14.0
_CRUMBS: Final = 6


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One series, in its own grid.

    Attributes
    ----------
    ct : (I, J, K) int16 array
        HU.
    mask : (I, J, K) uint8 array
        VerSe labels.
    affine : (4, 4) array
        Voxel index to world mm, RAS+.
    centroids : mapping of label to voxel index
        Middle of the body; for C1, which has none, the mask's centre of mass.
    slice_mm : float
        The largest voxel size, which the workbook calls ``Res``.
    """

    ct: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    centroids: Mapping[int, npt.NDArray[np.float64]]
    slice_mm: float


def render(
    plan: SeriesPlan,
    *,
    shape: tuple[int, int, int],
    patient: np.random.Generator,
    rng: np.random.Generator,
    trabecular_hu: float,
) -> Rendered:
    """Build the series of `plan`, at most `shape` voxels along P, I and R.

    `patient` draws the spine, so that two series of a patient show the same one; `rng` draws the
    noise of this series.
    """
    spine = anatomy.build(_visible(plan), findings=plan.findings, rng=patient)
    grid = _field_of_view(spine, plan, shape)
    bones, metal = _voxelise(spine, plan, grid)
    mask = np.where(bones == _UNLABELLED, 0, bones).astype(np.uint8)
    centroids = {
        levels.LABEL_OF_LEVEL[v.level]: grid.index(v.centre)
        for v in spine
        if v.level in plan.annotated
    }
    if 1 in centroids:
        centroids[1] = np.array(ndimage.center_of_mass(mask == 1))
    if plan.crumbs:
        _scatter_crumbs(mask, bones, rng)
    ct = paint.paint(
        bones,
        grid.sizes,
        rng=rng,
        trabecular_hu=trabecular_hu,
        metal=metal if metal.any() else None,
    )
    affine = _affine(grid, oblique=plan.oblique)
    axes = AxisMap.between(affine, plan.axcodes)
    missing = levels.LABEL_OF_LEVEL.get(plan.without_centroid or "")
    return Rendered(
        ct=np.ascontiguousarray(axes.apply(ct)),
        mask=np.ascontiguousarray(axes.apply(mask)),
        affine=axes.affine(affine, grid.shape),
        centroids={
            label: axes.points(point, grid.shape)
            for label, point in sorted(centroids.items())
            if label != missing
        },
        slice_mm=grid.slice_mm,
    )


def _visible(plan: SeriesPlan) -> tuple[str, ...]:
    """Return the annotated levels and their neighbours, which are cut by the field of view."""
    column = (*plan.column, anatomy.SACRUM)
    first, last = column.index(plan.first), column.index(plan.last)
    return column[max(first - 1, 0) : last + 2]


def _field_of_view(
    spine: list[anatomy.Vertebra], plan: SeriesPlan, shape: tuple[int, int, int]
) -> shapes.Grid:
    """Lay a grid around the annotated vertebrae, no finer than asked and within `shape`."""
    shown = [v for v in spine if v.level in plan.annotated]
    top = shown[0].centre[1] + shown[0].height / 2 + _MARGIN_UP_MM
    bottom = min(v.lowest for v in shown)
    front = max(v.centre[0] + v.depth / 2 for v in shown) + 24
    rear = min(v.centre[0] + v.rear for v in shown) - 22
    half = max(42.0, *(v.width / 2 + v.transverse + 5 for v in shown))
    extent = (front - rear, top - bottom, 2 * half)
    in_plane = max(1.0, *(_up(mm / n) for mm, n in zip(extent[:2], shape[:2], strict=True)))
    slice_mm = max(plan.slice_mm, in_plane, _up(extent[2] / shape[2]))
    sizes = (in_plane, in_plane, slice_mm)
    n = [
        min(limit, math.ceil(mm / size))
        for mm, size, limit in zip(extent, sizes, shape, strict=True)
    ]
    return shapes.Grid(
        shape=(n[0], n[1], n[2]),
        origin=(front, top, -(n[2] - 1) / 2 * slice_mm),
        in_plane=in_plane,
        slice_mm=slice_mm,
    )


def _up(size: float) -> float:
    """Round a voxel size up to a twentieth of a millimetre."""
    return math.ceil(size * 20) / 20


def _voxelise(
    spine: list[anatomy.Vertebra], plan: SeriesPlan, grid: shapes.Grid
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return labels (255 for bone that is not annotated) and metal; a voxel goes to the nearest."""
    bones = np.zeros(grid.shape, dtype=np.uint8)
    metal = np.zeros(grid.shape, dtype=bool)
    nearest = np.full(grid.shape, np.inf, dtype=np.float32)
    for vertebra in spine:
        at = shapes.local(vertebra, grid)
        away = shapes.distance(vertebra, at)
        annotated = vertebra.level in plan.annotated
        label = levels.LABEL_OF_LEVEL[vertebra.level] if annotated else _UNLABELLED
        closest = nearest[at.where]
        inside = (away < 0) & (away < closest)
        bones[at.where][inside] = label
        np.minimum(closest, away, out=closest)
        if vertebra.level in plan.foreign:
            thick = max(2.6, 0.6 * grid.in_plane, 0.6 * grid.slice_mm)
            metal[at.where] |= shapes.screws(vertebra, at, radius=thick) < 0
    bones[metal] = 0
    return bones, metal


def _scatter_crumbs(
    mask: npt.NDArray[np.uint8], bones: npt.NDArray[np.uint8], rng: np.random.Generator
) -> None:
    """Set single voxels of a label apart from its vertebra, as painting by hand leaves them."""
    free = ndimage.distance_transform_cdt(bones == 0, metric="chessboard")
    spots = np.argwhere((free >= 3) & (free <= 5))
    for spot in rng.choice(spots, size=_CRUMBS, replace=False):
        around = tuple(slice(max(x - 6, 0), x + 7) for x in spot)
        near = np.unique(mask[around])
        labels = near[near > 0]
        if labels.size:
            mask[tuple(spot)] = labels[0]


def _affine(grid: shapes.Grid, *, oblique: bool) -> npt.NDArray[np.float64]:
    """Voxel (P, I, R) to world; an oblique one is turned about the long axis, like verse004."""
    a, u, r = grid.origin
    affine = np.zeros((4, 4))
    affine[2, 1], affine[1, 0], affine[0, 2] = -grid.in_plane, -grid.in_plane, grid.slice_mm
    affine[:, 3] = (r, a + 40.0, u - 310.0, 1.0)
    if oblique:
        angle = math.radians(_OBLIQUE_DEGREES)
        tilt = np.eye(4)
        tilt[1:3, 1:3] = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        turn = np.eye(4)
        turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        affine = turn @ tilt @ affine
    return affine
