"""Which scans a dataset serves, as plain columns that workers share without copying."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ServedScan:
    """One CT series whose store is ready to be read.

    Attributes
    ----------
    scan_id, subject_id : str
        Such as ``"verse401_split-verse253"`` and ``"verse401"``.
    split : str
        Published membership: ``"training"``, ``"validation"`` or ``"test"``.
    store : Path
        Folder of the scan's Zarr store; its name is the store's fingerprint.
    """

    scan_id: str
    subject_id: str
    split: str
    store: Path

    @property
    def has_label(self) -> bool:
        """Whether the store holds a vertebra mask."""
        return (self.store / "label").is_dir()


@dataclass(frozen=True)
class LeftOut:
    """One CT series that was asked for and is not served.

    Attributes
    ----------
    scan_id, subject_id : str
    reason : str
        ``not_in_lock`` where it was published and the lock lists no file of it; ``no_ct``; ``no_mask`` where the mask is needed; ``no_vertebra`` where vertebrae are served and
        none is known; ``same_series`` where it is served under another id, from another release.
    """

    scan_id: str
    subject_id: str
    reason: str


def part_served(
    scans: Sequence[ServedScan], *, label: bool
) -> tuple[list[ServedScan], list[LeftOut]]:
    """Return the scans that can be served, and the others: those without a mask that is needed."""
    served: list[ServedScan] = []
    without: list[LeftOut] = []
    for scan in scans:
        if label and not scan.has_label:
            without.append(LeftOut(scan.scan_id, scan.subject_id, "no_mask"))
        else:
            served.append(scan)
    return served, without


def left_out_table(left_out: Sequence[LeftOut]) -> pd.DataFrame:
    """Return one row for each scan that is left out."""
    import pandas as pd

    rows = [(scan.scan_id, scan.subject_id, scan.reason) for scan in left_out]
    return pd.DataFrame(rows, columns=["scan_id", "subject_id", "reason"])


class ScanColumns:
    """The scans of a dataset as NumPy columns.

    A Python list of objects grows in every forked worker, because reading an object writes its
    reference count; an array of fixed-width strings does not.

    Parameters
    ----------
    scans : sequence of ServedScan

    Raises
    ------
    UsageError
        If a scan occurs twice, or a subject lies in two splits.
    """

    def __init__(self, scans: Sequence[ServedScan]) -> None:
        self.scan_id = _strings(scan.scan_id for scan in scans)
        self.subject_id = _strings(scan.subject_id for scan in scans)
        self.split = _strings(scan.split for scan in scans)
        self.store = _strings(os.fspath(scan.store) for scan in scans)
        self._check()

    def _check(self) -> None:
        names, counts = np.unique(self.scan_id, return_counts=True)
        if (counts > 1).any():
            twice = ", ".join(names[counts > 1][:5])
            message = (
                f"These scans were given twice: {twice}. Give each scan once; scans of two "
                f"releases that hold the same series must be deduplicated first."
            )
            raise UsageError(message)
        pairs = set(zip(self.subject_id.tolist(), self.split.tolist(), strict=True))
        counted = Counter(subject for subject, _ in pairs)
        torn = sorted(subject for subject, count in counted.items() if count > 1)
        if torn:
            message = (
                f"These subjects lie in more than one split, which leaks patients: "
                f"{', '.join(torn[:5])}. Serve each split as a dataset of its own."
            )
            raise UsageError(message)

    def __len__(self) -> int:
        return len(self.scan_id)

    def __iter__(self) -> Iterator[ServedScan]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ServedScan:
        """Return scan number `index`."""
        return ServedScan(
            str(self.scan_id[index]),
            str(self.subject_id[index]),
            str(self.split[index]),
            Path(str(self.store[index])),
        )

    def names(self, index: int) -> dict[str, str]:
        """Return ``scan_id``, ``subject_id`` and ``split`` of scan number `index`.

        For samples: making a `ServedScan` makes a `Path`, whose parts Python interns, and that
        writes all over a table which forked workers share with their parent.
        """
        return {
            "scan_id": str(self.scan_id[index]),
            "subject_id": str(self.subject_id[index]),
            "split": str(self.split[index]),
        }

    def positions(self, scan_ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return for each of `scan_ids` its number here, or -1 if it is not served."""
        order = np.argsort(self.scan_id, kind="stable")
        if not len(order):
            return np.full(len(scan_ids), -1, dtype=np.int64)
        wanted = np.asarray(scan_ids, dtype=np.str_)
        place = np.searchsorted(self.scan_id, wanted, sorter=order).clip(max=len(order) - 1)
        found = order[place]
        return np.where(self.scan_id[found] == wanted, found, -1).astype(np.int64)


def _strings(values: Iterator[str]) -> npt.NDArray[np.str_]:
    return np.array(list(values), dtype=np.str_)
