"""Why a vertebra that was asked for is not served."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt

from verse_data.training.crop_spec import CropSpec
from verse_data.training.crops import neighbours
from verse_data.training.oriented import OrientedScan
from verse_data.training.vertebrae import STATUSES, VertebraColumns

Flags = npt.NDArray[np.bool_]


def reasons(
    rows: VertebraColumns,
    spec: CropSpec,
    *,
    include: Collection[str],
    left_out: Mapping[str, str],
    open_scan: Callable[[int], OrientedScan],
) -> npt.NDArray[np.str_]:
    """Return for each vertebra why it is not served, or an empty text if it is.

    Parameters
    ----------
    rows : VertebraColumns
        What was asked for.
    spec : CropSpec
        What is to be cut.
    include : collection of str
        Values of ``grade_status`` that are served.
    left_out : mapping
        Why each scan that is left out is: ``no_ct`` or ``no_mask``.
    open_scan : callable
        Opens a scan by its number; called only for crops along the spine.

    Returns
    -------
    str array
        A ``grade_status``, ``no_ct``, ``no_mask``, ``scan_not_served``, ``no_centroid``, ``no_neighbour``, or
        empty. Of several reasons the first in this order.
    """
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
