"""One sample per vertebra, with its fracture grade."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError, one_of
from verse_data.records.tables import STATUSES
from verse_data.spine.levels import LEVELS
from verse_data.training.arguments import Millimetres, finite, lengths, whole
from verse_data.training.base import ServedDataset
from verse_data.training.crops import Region, mask_region, neighbours, read_region, spine_directions
from verse_data.training.rows import Rows, as_table, read_rows, targets
from verse_data.training.samples import Sample
from verse_data.training.scans import OrientedScan, ServedScan
from verse_data.volumes.reader import Empty, fresh

if TYPE_CHECKING:
    import pandas as pd


class VertebraDataset(ServedDataset):
    """Crops of single vertebrae with their grade.

    Beside the keys of :mod:`verse_data.training.samples`, a sample has

    ====================  =======  ==============================================================
    key                   type     meaning
    ====================  =======  ==============================================================
    ``level``             str      ``C1`` … ``L6``
    ``vertebra_label``    int      its label in masks
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
        The scans to crop from.
    vertebrae : DataFrame
        Rows of the vertebrae table: the vertebrae to serve.
    around : {"centroid", "mask"}
        A box of `crop_size_mm` around the centroid (the middle of the vertebral body), or the box
        of the vertebra's mask and `margin_mm` on each side. Boxes of masks differ in shape: use
        ``collate_fn=verse_data.training.pad_collate``.
    crop_size_mm : float or (x, y, z)
        Along the axes of `orientation`.
    margin_mm : float, optional
        With ``around="mask"``, where the default is 10; refused without.
    voxel_mm : float or (x, y, z), or None
        Voxel size of the crop. Scans that have it, to within 0.1 %, are cropped; others are
        resampled (image linear, label nearest). ``None`` never resamples; then crops of scans with
        different voxels differ in shape.
    axes : {"scan", "spine"}
        Axes of the scan, or rotated so that S follows the spine, from the centroid of the
        vertebra below to the one above. Rotated crops are always resampled.
    label_mode : {"vertebra", "all", "binary", "none"}
        ``label`` is 1 on this vertebra only; all labels; 1 on any vertebra; absent.
    fracture_threshold : {1, 2, 3}
        Lowest grade that counts as fractured: 1 any, 2 moderate or severe, 3 severe.
    include : str or collection of str
        Values of ``grade_status`` to serve; vertebrae with others are in :attr:`excluded`.
    **served
        ``orientation``, ``transform``, ``seed``, ``image_dtype``, ``provenance``, ``left_out``: see
        :class:`verse_data.training.base.ServedDataset`.

    Raises
    ------
    UsageError
        If an option is invalid.
    """

    unit = "vertebra"
    rows: Rows

    def __init__(
        self,
        scans: Sequence[ServedScan],
        vertebrae: pd.DataFrame,
        *,
        around: Literal["centroid", "mask"] = "centroid",
        crop_size_mm: Millimetres = 80.0,
        margin_mm: float | None = None,
        voxel_mm: Millimetres | None = 1.0,
        axes: Literal["scan", "spine"] = "scan",
        label_mode: Literal["vertebra", "all", "binary", "none"] = "vertebra",
        fracture_threshold: int = 1,
        include: str | Collection[str] = ("graded",),
        **served: Any,
    ) -> None:
        self.around = one_of("around", around, ("centroid", "mask"))
        self.axes = one_of("axes", axes, ("scan", "spine"))
        modes = ("vertebra", "all", "binary", "none")
        self.label_mode = one_of("label_mode", label_mode, modes)
        self._crop_size = lengths("crop_size_mm", crop_size_mm)
        if margin_mm is not None and around == "centroid":
            raise UsageError(
                f"margin_mm={margin_mm!r} goes with around='mask', which is not given."
            )
        self.margin_mm = finite("margin_mm", 10.0 if margin_mm is None else margin_mm, least=0)
        self._voxel = None if voxel_mm is None else lengths("voxel_mm", voxel_mm)
        self.uneven = around == "mask" or voxel_mm is None
        if not isinstance(include, Collection):
            raise UsageError(f"include={include!r}: give some of {', '.join(STATUSES)}.")
        statuses = (include,) if isinstance(include, str) else include
        self.include = tuple(one_of("include", status, STATUSES) for status in statuses)
        self.fracture_threshold = whole("fracture_threshold", fracture_threshold, least=1, below=4)
        super().__init__(scans, needs_label=label_mode != "none" or around == "mask", **served)
        rows = read_rows(vertebrae, self.scans)
        reasons = self._reasons(rows)
        self.rows = rows[reasons == ""]
        self._dropped, self._drop_reasons = rows[reasons != ""], reasons[reasons != ""]
        requested = set(rows["scan_id"].tolist())
        self._without_rows = {s.scan_id for s in self._left_out if s.scan_id not in requested}

    def _reasons(self, rows: Rows) -> npt.NDArray[np.str_]:
        """Return for each vertebra why it is not served, or ``""`` if it is."""
        included = np.isin(rows["status"], [STATUSES.index(status) for status in self.include])
        no_centroid = ~np.isfinite(rows["centroid"]).all(axis=1)
        no_neighbour = np.zeros(len(rows), dtype=np.bool_)
        if self.axes == "spine":
            for n in np.flatnonzero(included & ~no_centroid & (rows["scan"] >= 0)):
                centroids = self._open(int(rows["scan"][n])).centroids
                above, below = neighbours(centroids, int(rows["level"][n]))
                no_neighbour[n] = above == below
        by_centroid = self.around == "centroid" or self.axes == "spine"
        rules: list[tuple[Any, Any]] = [
            (~included, np.array(STATUSES)[rows["status"]]),
            *((rows["scan_id"] == scan.scan_id, scan.reason) for scan in self._left_out),
            (rows["scan"] < 0, "scan_not_served"),
            (no_centroid & by_centroid, "no_centroid"),
            ((rows["has_mask"] == 0) & (self.around == "mask"), "no_mask"),
            (no_neighbour, "no_neighbour"),
        ]
        reasons = [np.broadcast_to(np.asarray(reason), len(rows)) for _, reason in rules]
        return np.select([condition for condition, _ in rules], reasons, default="")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def options(self) -> dict[str, Any]:
        """All options that the samples depend on."""
        extent: dict[str, Any] = (
            {"crop_size_mm": self._crop_size.tolist()}
            if self.around == "centroid"
            else {"margin_mm": self.margin_mm}
        )
        return {
            "around": self.around,
            **extent,
            "voxel_mm": None if self._voxel is None else self._voxel.tolist(),
            "axes": self.axes,
            "label_mode": self.label_mode,
            "fracture_threshold": self.fracture_threshold,
            "include": list(self.include),
            **super().options,
        }

    @property
    def excluded(self) -> pd.DataFrame:
        """Vertebrae that were requested and are not served, one row each, with their ``reason``.

        Reasons: a ``grade_status`` that is not in `include`; ``no_ct``; ``no_mask``; ``no_centroid``;
        ``no_neighbour`` (with ``axes="spine"``); ``scan_not_served``. A scan without a known
        vertebra has a row without a level: ``no_vertebra``, ``no_ct``, ``no_mask`` or
        ``same_series``.
        """
        import pandas as pd

        rows = as_table(self._dropped).assign(reason=self._drop_reasons)
        scans = super().excluded
        scans = scans[scans["scan_id"].isin(self._without_rows)].reindex(columns=rows.columns)
        if not len(scans):
            return rows
        excluded = pd.concat([rows.astype(object), scans.astype(object)], ignore_index=True)
        return excluded.astype(rows.dtypes.to_dict())

    @property
    def vertebrae(self) -> pd.DataFrame:
        """The vertebrae that are served: one row per sample, in the order of the samples."""
        return as_table(self.rows)

    def _facts(self) -> dict[str, str]:
        """Return the lines of the representation, with the number of vertebrae of each grade."""
        grades, counts = np.unique(self.rows["grade"], return_counts=True)
        names = ["not assessed" if grade < 0 else str(grade) for grade in grades.tolist()]
        pairs = zip(names, counts.tolist(), strict=True)
        return super()._facts() | {"grades": ", ".join(f"{name}: {n:,}" for name, n in pairs)}

    def scan_number(self, epoch: int, index: int) -> int:
        """Return the number of the scan of vertebra `index`."""
        del epoch
        return int(self.rows["scan"][index])

    def name_of(self, epoch: int, index: int) -> str:
        """Return the name of a sample in errors: scan and level."""
        row = self.rows[index]
        return (
            f"{row['scan_id']} {LEVELS[row['level']]}, {self.unit} sample {index} of epoch {epoch}"
        )

    def _make(self, epoch: int, index: int, empty: Empty = fresh) -> Sample:
        number, row = self.scan_number(epoch, index), self.rows[index]
        image, label, affine = self._crop(row, self._in_dtype(empty))
        if label is not None:
            self._choose(label, row)
        return self._sample(number, image, label, affine) | targets(row, self.fracture_threshold)

    def _crop(
        self, row: np.void, empty: Empty
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, npt.NDArray[np.float64]]:
        """Read image, labels and affine of a vertebra's crop."""
        scan = self._open(int(row["scan"]))
        return read_region(
            scan,
            self._region(scan, row),
            self._voxel_of(scan),
            self.orientation,
            aligned=self.axes == "spine",
            label=self.label_mode != "none",
            empty=empty,
        )

    def _choose(self, label: npt.NDArray[Any], row: np.void) -> None:
        """Replace labels, in place, by what `label_mode` says of them."""
        if self.label_mode == "vertebra":
            np.equal(label, row["label"], out=label)
        elif self.label_mode == "binary":
            np.minimum(label, 1, out=label)

    def _voxel_of(self, scan: OrientedScan) -> npt.NDArray[np.float64] | None:
        """Return the voxel size of the crop of a scan; None for the scan's own."""
        del scan
        return self._voxel

    def _region(self, scan: OrientedScan, row: np.void) -> Region:
        """Return the region of a vertebra's crop."""
        directions = scan.directions
        if self.axes == "spine":
            directions = spine_directions(scan.centroids, int(row["level"]), self.orientation)
        if self.around == "centroid":
            return Region(row["centroid"], self._crop_size, directions)
        return mask_region(scan, int(row["label"]), directions, self.margin_mm)
