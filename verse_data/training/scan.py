"""Whole CT series, one a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from verse_data.spine.geometry import Box
from verse_data.training.base import ServedDataset, ServedOptions
from verse_data.training.samples import Sample, common, volumes
from verse_data.training.scans import ServedScan


class ScanDataset(ServedDataset):
    """One sample a CT series, in the given orientation.

    A sample has the keys of :mod:`verse_data.training.samples`. Scans differ in shape, so a
    ``DataLoader`` takes ``batch_size=None`` or 1, ``collate_fn=verse_data.training.pad_collate``, or a
    transform that crops and pads; torch's own batching of scans that differ is a `UsageError`.

    Parameters
    ----------
    scans : sequence of ServedScan
        What is served, in this order.
    label : bool
        Whether samples have ``label``. Scans without a mask are then excluded, with the reason
        ``no_mask``; with ``label=False`` they are served.
    **served
        ``orientation``, ``transform``, ``seed``, ``image_dtype``, ``provenance``, ``left_out``: see
        :class:`verse_data.training.base.ServedDataset`.

    Raises
    ------
    UsageError
        If a scan was given twice, a subject lies in two splits, or an option is unknown.
    """

    unit = "scan"
    uneven = True

    def __init__(
        self,
        scans: Sequence[ServedScan],
        *,
        label: bool = True,
        **served: Unpack[ServedOptions],
    ) -> None:
        super().__init__(scans, needs_label=label, **served)
        self.label = label

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def options(self) -> dict[str, Any]:
        """What, beside the scans, decides the samples."""
        return {"label": self.label, **super().options}

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
