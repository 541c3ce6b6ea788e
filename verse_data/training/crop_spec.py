"""What the crop of a vertebra is: the options of `VertebraDataset`, checked, and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.geometry import Affine
from verse_data.training.crops import (
    Region,
    mask_region,
    read_region,
    scan_directions,
    spine_directions,
)
from verse_data.training.oriented import OrientedScan
from verse_data.training.vertebrae import VertebraColumns

Around = Literal["centroid", "mask"]
Axes = Literal["scan", "spine"]
LabelMode = Literal["vertebra", "all", "binary", "none"]
Millimetres = float | Sequence[float]
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class CropSpec:
    """Where a crop lies, in which axes and voxels, and what its label says.

    The attributes are the options of :class:`verse_data.training.VertebraDataset`.

    Raises
    ------
    UsageError
        If an option makes no sense.
    """

    around: Around
    crop_size_mm: Triple
    margin_mm: float
    voxel_mm: Triple | None
    axes: Axes
    label_mode: LabelMode

    def __post_init__(self) -> None:
        one_of("around", self.around, ("centroid", "mask"))
        one_of("axes", self.axes, ("scan", "spine"))
        one_of("label_mode", self.label_mode, ("vertebra", "all", "binary", "none"))
        if not 0 <= self.margin_mm < np.inf:
            message = f"margin_mm={self.margin_mm!r} is not a length of 0 mm or more."
            raise UsageError(message)

    @property
    def needs_mask(self) -> bool:
        """Whether a scan without a mask cannot be served."""
        return self.label_mode != "none" or self.around == "mask"

    @property
    def needs_centroid(self) -> bool:
        """Whether a vertebra without a centroid cannot be served."""
        return self.around == "centroid" or self.axes == "spine"

    @property
    def options(self) -> dict[str, Any]:
        """What decides a crop, as plain JSON."""
        extent: dict[str, Any] = (
            {"crop_size_mm": list(self.crop_size_mm)}
            if self.around == "centroid"
            else {"margin_mm": self.margin_mm}
        )
        return {
            "around": self.around,
            **extent,
            "voxel_mm": None if self.voxel_mm is None else list(self.voxel_mm),
            "axes": self.axes,
            "label_mode": self.label_mode,
        }

    def cut(
        self, opened: OrientedScan, rows: VertebraColumns, index: int, orientation: str
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, Affine]:
        """Return image, label (or None) and affine of the crop of vertebra `index`."""
        number = int(rows.label[index])
        image, mask, affine = read_region(
            opened,
            self._region(opened, rows, index, orientation),
            None if self.voxel_mm is None else np.asarray(self.voxel_mm),
            orientation=orientation,
            aligned=self.axes == "spine",
            label=self.label_mode != "none",
        )
        return image, None if mask is None else self._label(mask, number), affine

    def _region(
        self, opened: OrientedScan, rows: VertebraColumns, index: int, orientation: str
    ) -> Region:
        directions = (
            spine_directions(opened.centroids, int(rows.level[index]), orientation)
            if self.axes == "spine"
            else scan_directions(opened.affine)
        )
        if self.around == "centroid":
            return Region(rows.centroid[index], np.asarray(self.crop_size_mm), directions)
        return mask_region(opened, int(rows.label[index]), directions, self.margin_mm)

    def _label(self, mask: npt.NDArray[np.uint8], number: int) -> npt.NDArray[Any]:
        if self.label_mode == "vertebra":
            return np.asarray(mask == number)
        return mask > 0 if self.label_mode == "binary" else mask


def one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return `value` if it is `allowed`.

    Raises
    ------
    UsageError
        If not.
    """
    if value in allowed:
        return value
    message = f"{option}={value!r} is none of {', '.join(allowed)}."
    raise UsageError(message)


def lengths(option: str, value: Millimetres) -> Triple:
    """Return one length in mm, or three, as three.

    Raises
    ------
    UsageError
        If they are not positive.
    """
    try:
        sizes = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        sizes = np.zeros(())
    if sizes.shape not in {(), (3,)} or not (np.isfinite(sizes) & (sizes > 0)).all():
        message = f"{option}={value!r} is not a positive length in mm, or three of them."
        raise UsageError(message)
    x, y, z = np.broadcast_to(sizes, 3).tolist()
    return (x, y, z)
