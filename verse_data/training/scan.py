"""Whole CT series, one a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from verse_data.spine.geometry import Box
from verse_data.training.base import ServedDataset, Transform
from verse_data.training.samples import Sample, common, volumes
from verse_data.training.scans import LeftOut, ServedScan

if TYPE_CHECKING:
    import pandas as pd


class ScanDataset(ServedDataset):
    """One sample a CT series, in the given orientation.

    A sample has the keys of :mod:`verse_data.training.samples`. Scans differ in shape, so a
    ``DataLoader`` takes ``batch_size=None`` or 1, or a transform that crops and pads.

    Parameters
    ----------
    scans : sequence of ServedScan
        What is served, in this order.
    label : bool
        Whether samples have ``label``. Scans without a mask are then excluded, with the reason
        ``no_mask``; with ``label=False`` they are served.
    left_out : sequence of LeftOut
        What cannot be served for another reason, so that :attr:`excluded` is complete.
    orientation, transform, seed, image_dtype, provenance
        See :class:`verse_data.training.base.ServedDataset`.

    Raises
    ------
    UsageError
        If a scan was given twice, a subject lies in two splits, or an option is unknown.
    """

    unit = "scan"

    def __init__(
        self,
        scans: Sequence[ServedScan],
        *,
        label: bool = True,
        orientation: str = "RAS",
        transform: Transform | None = None,
        seed: int = 0,
        image_dtype: str = "float32",
        provenance: Mapping[str, Any] | None = None,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        served, self._left_out = part_served(scans, label=label, left_out=left_out)
        super().__init__(
            served,
            orientation=orientation,
            transform=transform,
            seed=seed,
            image_dtype=image_dtype,
            provenance=provenance,
        )
        self.label = label

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def options(self) -> dict[str, Any]:
        """What, beside the scans, decides the samples."""
        return {
            "orientation": self.orientation,
            "label": self.label,
            "image_dtype": self.image_dtype,
            "seed": self.seed,
        }

    @property
    def excluded(self) -> pd.DataFrame:
        """Scans that were given and are not served: ``scan_id``, ``subject_id``, ``reason``."""
        return left_out_table(self._left_out)

    def scan_number(self, epoch: int, index: int) -> int:
        """Return `index`: sample and scan are the same."""
        del epoch
        return index

    def _make(self, epoch: int, index: int) -> Sample:
        del epoch
        opened = self._open(index)
        image, label = opened.reader.read(
            Box.whole(opened.shape), orientation=self.orientation, label=self.label
        )
        names = self.scans.names(index)
        return volumes(image, label, self.image_dtype) | common(names, opened, opened.affine)


def part_served(
    scans: Sequence[ServedScan], *, label: bool, left_out: Sequence[LeftOut]
) -> tuple[list[ServedScan], tuple[LeftOut, ...]]:
    """Return the scans that can be served, and the others: those without a mask that is needed."""
    without = [scan for scan in scans if label and not scan.has_label]
    lacking = (LeftOut(scan.scan_id, scan.subject_id, "no_mask") for scan in without)
    return [scan for scan in scans if scan not in without], (*left_out, *lacking)


def left_out_table(left_out: Sequence[LeftOut]) -> pd.DataFrame:
    """Return one row for each scan that is left out."""
    import pandas as pd

    rows = [(scan.scan_id, scan.subject_id, scan.reason) for scan in left_out]
    return pd.DataFrame(rows, columns=["scan_id", "subject_id", "reason"])
