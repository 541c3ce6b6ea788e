"""The two slices of a preview: sagittal and coronal, cut along the curve of the spine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.spine.geometry import AxisMap, voxel_sizes


@dataclass(frozen=True)
class Panel:
    """A slice, upright.

    Attributes
    ----------
    grey, label : (rows, columns) array
        HU and labels; rows run from head to foot.
    points : mapping of label to (column, row)
        Centroids, in pixels.
    pixel_mm : (float, float)
        Width and height of a pixel.
    sides : (str, str)
        What lies at the left and at the right edge.
    """

    grey: npt.NDArray[np.float32]
    label: npt.NDArray[np.uint8]
    points: Mapping[int, tuple[float, float]]
    pixel_mm: tuple[float, float]
    sides: tuple[str, str]

    @property
    def width_mm(self) -> float:
        """Extent from left to right."""
        return float(self.grey.shape[1] * self.pixel_mm[0])

    @property
    def height_mm(self) -> float:
        """Extent from head to foot."""
        return float(self.grey.shape[0] * self.pixel_mm[1])


def panels(
    image: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    affine: npt.ArrayLike,
    centroids: Mapping[int, npt.ArrayLike],
) -> tuple[Panel, Panel]:
    """Cut both slices along the curve through the centroids.

    Parameters
    ----------
    image, mask : (X, Y, Z) array
        HU and VerSe labels on one grid, in any orientation.
    affine : (4, 4) array
        Voxel index to world mm, RAS+.
    centroids : mapping of label to voxel index
        Where empty, the slices follow the mask, or lie in the middle of the volume.

    Returns
    -------
    (Panel, Panel)
        Sagittal, seen from the left, and coronal, seen from the front.
    """
    axes = AxisMap.between(affine, "LAI")  # right to left, back to front, head to foot
    shape = (image.shape[0], image.shape[1], image.shape[2])
    volume, labels = axes.apply(image), axes.apply(mask)
    size_x, size_y, size_z = voxel_sizes(axes.affine(affine, shape))
    points = {label: axes.points(point, shape) for label, point in centroids.items()}
    points = {label: point for label, point in points.items() if np.isfinite(point).all()}
    rows = np.arange(volume.shape[2])
    x, y = _curve(list(points.values()) or _bodies(labels, size_y), volume.shape)
    sagittal = Panel(
        grey=volume[x, :, rows].astype(np.float32),
        label=labels[x, :, rows].astype(np.uint8),
        points={label: (point[1], point[2]) for label, point in points.items()},
        pixel_mm=(size_y, size_z),
        sides=("P", "A"),
    )
    coronal = Panel(
        grey=volume[:, y, rows].T.astype(np.float32),
        label=labels[:, y, rows].T.astype(np.uint8),
        points={label: (point[0], point[2]) for label, point in points.items()},
        pixel_mm=(size_x, size_z),
        sides=("R", "L"),
    )
    return sagittal, coronal


def _bodies(labels: npt.NDArray[Any], size_y: float) -> list[npt.NDArray[np.float64]]:
    """Guess where the bodies lie: 10 mm in front of each label's centre of mass.

    That is how far VerSe's centroids, which mark the body, lie in front of it on average.
    """
    coarse = labels[::2, ::2, ::2]
    front = np.array([0.0, 10 / size_y, 0.0])
    return [
        np.argwhere(coarse == label).mean(axis=0) * 2 + front
        for label in np.unique(coarse[coarse > 0])
    ]


def _curve(
    points: list[npt.NDArray[np.float64]], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return for each row, head to foot, the column (x, y) of the spine."""
    path = np.array(sorted(points or [np.array(shape) / 2], key=lambda point: float(point[2])))
    rows = np.arange(shape[2])
    x, y = (
        np.clip(np.rint(np.interp(rows, path[:, 2], path[:, axis])), 0, shape[axis] - 1)
        for axis in (0, 1)
    )
    return x.astype(np.intp), y.astype(np.intp)
