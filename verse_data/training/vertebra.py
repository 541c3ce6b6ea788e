"""One sample a vertebra, with its fracture grade."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.levels import LEVELS
from verse_data.training.arguments import finite, whole
from verse_data.training.base import ServedDataset, ServedOptions
from verse_data.training.crops import (
    Around,
    Axes,
    CropSpec,
    LabelMode,
    Millimetres,
    lengths,
    neighbours,
    one_of,
)
from verse_data.training.rows import STATUSES, VertebraColumns
from verse_data.training.samples import Sample, common, volumes
from verse_data.training.scans import OrientedScan, ServedScan, left_out_table

if TYPE_CHECKING:
    import pandas as pd


class VertebraDataset(ServedDataset):
    """Crops of single vertebrae with their grade.

    Beside the keys of :mod:`verse_data.training.samples`, a sample has

    ====================  =======  ==============================================================
    key                   type     meaning
    ====================  =======  ==============================================================
    ``level``             str      ``C1`` … ``L6``
    ``vertebra_label``    int      its number in masks
    ``grade``             int      Genant 0 to 3; -1 = not assessed
    ``fractured``         int      1 if the grade is at least `fracture_threshold`, else 0; -1 =
                                   not assessed
    ``fracture_type``     int      0 none, 1 wedge, 2 biconcave, 3 crush; -1 = not assessed
    ``foreign_material``  int      1 yes, 0 no, -1 unknown
    ``bmd_mg_cm3``        float    lumbar bone density of the patient; NaN = missing
    ====================  =======  ==============================================================

    Parameters
    ----------
    scans : sequence of ServedScan
        What is cut from.
    vertebrae : DataFrame
        Rows of the vertebrae table: what is asked for.
    around : {"centroid", "mask"}
        A box of `crop_size_mm` around the centroid (the middle of the vertebral body), or the box
        of the vertebra's mask and `margin_mm` on each side. Boxes of masks differ in shape: use
        ``collate_fn=verse_data.training.pad_collate``.
    crop_size_mm : float or (x, y, z)
        Along the axes of `orientation`.
    margin_mm : float
        With ``around="mask"``.
    voxel_mm : float or (x, y, z), or None
        Voxel size of the crop. A scan that has it, to a part in a thousand, is handed out voxel
        by voxel; another is resampled (image linear, label nearest). ``None`` never resamples;
        then crops of scans with different voxels differ in shape.
    axes : {"scan", "spine"}
        Axes of the scan, or turned so that S follows the spine, from the centroid of the
        vertebra below to the one above. Turned crops are always resampled.
    label_mode : {"vertebra", "all", "binary", "none"}
        ``label`` is 1 on this vertebra alone; all labels; 1 on any vertebra; absent.
    fracture_threshold : {1, 2, 3}
        Lowest grade that counts as fractured: 1 any, 2 moderate or severe, 3 severe.
    include : str or collection of str
        Values of ``grade_status`` that are served; the others are in :attr:`excluded`.
    **served
        ``orientation``, ``transform``, ``seed``, ``image_dtype``, ``provenance``, ``left_out``: see
        :class:`verse_data.training.base.ServedDataset`.

    Raises
    ------
    UsageError
        If an option makes no sense.
    """

    unit = "vertebra"

    def __init__(
        self,
        scans: Sequence[ServedScan],
        vertebrae: pd.DataFrame,
        *,
        around: Around = "centroid",
        crop_size_mm: Millimetres = 80.0,
        margin_mm: float = 10.0,
        voxel_mm: Millimetres | None = 1.0,
        axes: Axes = "scan",
        label_mode: LabelMode = "vertebra",
        fracture_threshold: int = 1,
        include: str | Collection[str] = ("graded",),
        **served: Unpack[ServedOptions],
    ) -> None:
        self.spec = CropSpec(
            around=around,
            crop_size_mm=lengths("crop_size_mm", crop_size_mm),
            margin_mm=finite("margin_mm", margin_mm),
            voxel_mm=None if voxel_mm is None else lengths("voxel_mm", voxel_mm),
            axes=axes,
            label_mode=label_mode,
        )
        self.uneven = around == "mask" or voxel_mm is None
        words: Collection[str] = (include,) if isinstance(include, str) else include
        if not isinstance(words, Collection):
            raise UsageError(f"include={include!r}: give some of {', '.join(STATUSES)}.")
        self.include = tuple(one_of("include", word, STATUSES) for word in words)
        self.fracture_threshold = whole("fracture_threshold", fracture_threshold, least=1, below=4)
        super().__init__(scans, needs_label=self.spec.needs_mask, **served)
        self._sort(VertebraColumns.from_table(vertebrae, self.scans))

    def _sort(self, every: VertebraColumns) -> None:
        """Part what is served from what is not, with the reason."""
        found = reasons(
            every,
            self.spec,
            include=self.include,
            left_out={scan.scan_id: scan.reason for scan in self._left_out},
            open_scan=self._open,
        )
        self._rows, self._dropped = every.take(found == ""), every.take(found != "")
        self._dropped_for = found[found != ""]
        asked = set(every.scan_id.tolist())
        self._bare = [scan for scan in self._left_out if scan.scan_id not in asked]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def options(self) -> dict[str, Any]:
        """What, beside the scans, decides the samples."""
        return {
            **self.spec.options,
            "fracture_threshold": self.fracture_threshold,
            "include": list(self.include),
            **super().options,
        }

    @property
    def excluded(self) -> pd.DataFrame:
        """Vertebrae that were asked for and are not served, a row each, with their ``reason``.

        Reasons: a ``grade_status`` that is not in `include`; ``no_ct``; ``no_mask``; ``no_centroid``;
        ``no_neighbour`` (with ``axes="spine"``); ``scan_not_served``. A scan of which no vertebra is
        known has a row without a level: ``no_vertebra``, ``no_ct``, ``no_mask`` or ``same_series``.
        """
        import pandas as pd

        rows = self._dropped.table(self._dropped_for)
        if not self._bare:
            return rows
        bare = left_out_table(self._bare).reindex(columns=rows.columns)
        every = pd.concat([rows.astype(object), bare.astype(object)], ignore_index=True)
        return every.astype(rows.dtypes.to_dict())

    @property
    def vertebrae(self) -> pd.DataFrame:
        """The vertebrae that are served, a row a sample, in the order of the samples."""
        return self._rows.table(np.full(len(self), "")).drop(columns="reason")

    @property
    def rows(self) -> VertebraColumns:
        """The same as NumPy columns."""
        return self._rows

    @property
    def sampled_scans(self) -> frozenset[str]:
        """Ids of the scans that a vertebra is served of."""
        return frozenset(self._rows.scan_id.tolist())

    def _rows_digest(self) -> str:
        return self._rows.digest()

    def details(self) -> list[tuple[str, str]]:
        """Return how many vertebrae of each grade are served."""
        grades, counts = np.unique(self._rows.grade, return_counts=True)
        words = {grade: "not assessed" if grade < 0 else str(grade) for grade in grades.tolist()}
        pairs = zip(words.values(), counts.tolist(), strict=True)
        return [("grades", ", ".join(f"{word}: {count:,}" for word, count in pairs))]

    def scan_number(self, epoch: int, index: int) -> int:
        """Return the number of the scan that vertebra `index` lies in."""
        del epoch
        return int(self._rows.scan[index])

    def place(self, epoch: int, index: int) -> str:
        """Return the words by which errors name a sample: scan and level."""
        level = LEVELS[self._rows.level[index]]
        scan_id = self.scans.scan_id[self.scan_number(epoch, index)]
        return f"{scan_id} {level}, vertebra sample {index} of epoch {epoch}"

    def _make(self, epoch: int, index: int) -> Sample:
        del epoch
        number = int(self._rows.scan[index])
        opened = self._open(number)
        image, label, affine = self.spec.cut(opened, self._rows, index, self.orientation)
        return (
            volumes(image, label, self.image_dtype)
            | common(self.scans.names(number), opened, affine)
            | self._rows.targets(index, self.fracture_threshold)
        )


Flags = npt.NDArray[np.bool_]


def reasons(
    rows: VertebraColumns,
    spec: CropSpec,
    *,
    include: Collection[str],
    left_out: Mapping[str, str],
    open_scan: Callable[[int], OrientedScan],
) -> npt.NDArray[np.str_]:
    """Return for each vertebra why it is not served, or an empty text if it is."""
    included = np.isin(rows.status, [STATUSES.index(word) for word in include])
    lost = ~np.isfinite(rows.centroid).all(axis=1)
    candidates = included & ~lost & (rows.scan >= 0)
    alone = _alone(rows, candidates, open_scan) if spec.axes == "spine" else np.zeros_like(included)
    choices: list[tuple[Flags, npt.ArrayLike]] = [
        (~included, np.array(STATUSES)[rows.status]),
        *((rows.scan_id == scan_id, reason) for scan_id, reason in left_out.items()),
        (rows.scan < 0, "scan_not_served"),
        (np.asarray(lost & spec.needs_centroid), "no_centroid"),
        (np.asarray((rows.has_mask == 0) & (spec.around == "mask")), "no_mask"),
        (alone, "no_neighbour"),
    ]
    words = [np.broadcast_to(np.asarray(word), len(rows)) for _, word in choices]
    return np.select([condition for condition, _ in choices], words, default="")


def _alone(rows: VertebraColumns, asked: Flags, open_scan: Callable[[int], OrientedScan]) -> Flags:
    """Return which of the vertebrae that are `asked` for have no neighbour with a centroid."""
    alone = np.zeros(len(rows), dtype=np.bool_)
    for row in np.flatnonzero(asked):
        opened = open_scan(int(rows.scan[row]))
        alone[row] = neighbours(opened.centroids, int(rows.level[row])) is None
    return alone
