"""Boxes of a fixed number of voxels, drawn from the scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch

from verse_data.errors import UsageError
from verse_data.spine.geometry import Box, Shape
from verse_data.spine.levels import LEVELS
from verse_data.training.arguments import cube, whole
from verse_data.training.base import ServedDataset, ServedOptions
from verse_data.training.draw import DRAW, DrawPlan, plan_by_class, plan_by_scan, uniforms
from verse_data.training.rows import VertebraColumns
from verse_data.training.samples import Sample, common, volumes
from verse_data.training.scans import OrientedScan, ServedScan

if TYPE_CHECKING:
    import pandas as pd


Sampling = Literal["uniform", "foreground", "level", "grade"]


class PatchDataset(ServedDataset):
    """Patches of one shape, so that they can be batched.

    Beside the keys of :mod:`verse_data.training.samples`, a sample has ``box`` (int64 (2, 3):
    first voxel and the one after the last, in the scan's grid in `orientation`; it reaches
    outside where the scan is smaller than the patch) and, with ``sampling="level"`` or
    ``"grade"``, ``level`` (str) and ``grade`` (int, -1 = not assessed) of the vertebra that it
    was drawn for.

    A patch lies inside its scan. Where the scan is smaller, along any axis, it lies in the middle
    of the patch, and what is outside is -1024 HU and label 0.

    Parameters
    ----------
    scans : sequence of ServedScan
        What is drawn from.
    vertebrae : DataFrame, optional
        Rows of the vertebrae table; needed for ``"level"`` and ``"grade"``.
    patch_size : int or (X, Y, Z)
        Voxels along the axes of `orientation`; one number is a cube.
    sampling : {"uniform", "foreground", "level", "grade"}
        Anywhere; around a voxel drawn evenly from the scan's mask; around a vertebra, whose level
        or grade is drawn first. Scans come equally often in the first two. In the last two the
        centroid lies in the middle half of the patch, or nearer to its end at the scan's border.
    weights : mapping, optional
        How often each level (``{"T12": 2, "L1": 1}``) or grade (``{0: 1, 2: 1, 3: 1}``) is drawn,
        relative to one another; classes that are not named are not drawn. By default each that
        occurs is drawn equally often. Met to within one patch in every epoch.
    patches_per_scan : int
        Length of an epoch, per scan.
    patches_per_epoch : int, optional
        Length of an epoch; overrides `patches_per_scan`.
    label : bool
        Whether samples have ``label``; scans without a mask are then excluded.
    **served
        ``orientation``, ``transform``, ``seed``, ``image_dtype``, ``provenance``, ``left_out``: see
        :class:`verse_data.training.base.ServedDataset`.

    Raises
    ------
    UsageError
        If an option makes no sense, or a class that `weights` names does not occur.
    """

    unit = "patch"

    def __init__(
        self,
        scans: Sequence[ServedScan],
        *,
        vertebrae: pd.DataFrame | None = None,
        patch_size: int | Sequence[int] = 96,
        sampling: Sampling = "uniform",
        weights: Mapping[Any, float] | None = None,
        patches_per_scan: int = 8,
        patches_per_epoch: int | None = None,
        label: bool = True,
        **served: Unpack[ServedOptions],
    ) -> None:
        super().__init__(scans, needs_label=label or sampling == "foreground", **served)
        self.patch_size = cube("patch_size", patch_size)
        self.sampling, self.label = sampling, label
        count = whole("patches_per_scan", patches_per_scan) * len(self.scans)
        if patches_per_epoch is not None:
            count = whole("patches_per_epoch", patches_per_epoch)
        rows = None if vertebrae is None else VertebraColumns.from_table(vertebrae, self.scans)
        self._vertebrae, self._plan = _planned(
            sampling, rows, weights, scans=len(self.scans), count=count, seed=self.seed
        )

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def options(self) -> dict[str, Any]:
        """What, beside the scans, decides the samples."""
        return {
            "patch_size": list(self.patch_size),
            "sampling": self.sampling,
            "weights": self._plan.weights,
            "patches": len(self),
            "label": self.label,
            **super().options,
        }

    @property
    def sampled_scans(self) -> frozenset[str]:
        """Ids of the scans that a patch can be drawn from."""
        rows = self._vertebrae
        return super().sampled_scans if rows is None else frozenset(rows.scan_id.tolist())

    def _rows_digest(self) -> str | None:
        return None if self._vertebrae is None else self._vertebrae.digest()

    def scan_number(self, epoch: int, index: int) -> int:
        """Return the number of the scan that patch `index` of `epoch` is drawn from."""
        item = self._plan.item(epoch, index)
        return item if self._vertebrae is None else int(self._vertebrae.scan[item])

    def _make(self, epoch: int, index: int) -> Sample:
        number = self.scan_number(epoch, index)
        opened = self._open(number)
        box = self._box(opened, epoch, index)
        image, label = opened.reader.read(box, orientation=self.orientation, label=self.label)
        sample = volumes(image, label, self.image_dtype)
        sample |= common(self.scans.names(number), opened, box.affine(opened.affine))
        sample["box"] = torch.tensor([box.start, box.stop], dtype=torch.int64)
        if self._vertebrae is not None:
            row = self._plan.item(epoch, index)
            sample["level"] = LEVELS[self._vertebrae.level[row]]
            sample["grade"] = int(self._vertebrae.grade[row])
        return sample

    def _box(self, opened: OrientedScan, epoch: int, index: int) -> Box:
        key = (self.seed, DRAW, epoch, index)
        if self._vertebrae is not None:
            centroid = self._vertebrae.centroid[self._plan.item(epoch, index)]
            shift = (uniforms(3, *key) - 0.5) * np.asarray(self.patch_size) / 2
            return inside(opened.from_world(centroid) + shift, self.patch_size, opened.shape)
        if self.sampling == "foreground":
            voxel = opened.from_store(opened.foreground.voxel(uniforms(1, *key)[0]))
            return inside(voxel, self.patch_size, opened.shape)
        return anywhere(uniforms(3, *key), self.patch_size, opened.shape)


def inside(centre: Any, size: Shape, shape: Shape) -> Box:
    """Return the box of `size` nearest to `centre` that lies in a volume of `shape`.

    Along an axis where the volume is smaller than the box, the volume lies in its middle.
    """
    wanted = Box.around(centre, size).start
    start = [
        min(max(first, 0), whole - part) if whole >= part else -((part - whole) // 2)
        for first, part, whole in zip(wanted, size, shape, strict=True)
    ]
    return _box(start, size)


def anywhere(fractions: Any, size: Shape, shape: Shape) -> Box:
    """Return the box of `size` in a volume of `shape` that `fractions` in [0, 1) pick evenly."""
    start = [
        int(fraction * (whole - part + 1)) if whole >= part else -((part - whole) // 2)
        for fraction, part, whole in zip(fractions, size, shape, strict=True)
    ]
    return _box(start, size)


def _box(start: Sequence[int], size: Shape) -> Box:
    x, y, z = start
    return Box((x, y, z), (x + size[0], y + size[1], z + size[2]))


def _planned(
    sampling: Sampling,
    rows: VertebraColumns | None,
    weights: Mapping[Any, float] | None,
    *,
    scans: int,
    count: int,
    seed: int,
) -> tuple[VertebraColumns | None, DrawPlan]:
    if sampling in ("uniform", "foreground"):
        if weights is not None:
            raise UsageError(
                f"weights= has no meaning with sampling={sampling!r}; use 'level' or 'grade'."
            )
        return None, plan_by_scan(scans, count, seed)
    if sampling not in ("level", "grade"):
        raise UsageError(f"sampling={sampling!r} is none of uniform, foreground, level, grade.")
    if rows is None:
        raise UsageError(f"sampling={sampling!r} needs vertebrae=, rows of release.vertebrae.")
    return plan_by_class(sampling, rows, weights, count, seed)
