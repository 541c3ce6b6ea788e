"""What a store is made from: the files of one scan, by content, and their licence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from verse_data.errors import UsageError
from verse_data.records.source_file import SourceFile
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.volumes.recipe import StoreKeys

__all__ = ["CentroidPoint", "ScanSource", "SourceFile"]

_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class CentroidPoint:
    """Centre of one vertebral body: label and voxel index in the source grid."""

    label: int
    ijk: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ScanSource:
    """One CT series on its way into a store.

    Attributes
    ----------
    scan_id : str
        Letters, digits, ``_`` and ``-``; it becomes part of messages and metadata.
    image : SourceFile
        The CT.
    mask : SourceFile or None
        The vertebra mask, if there is one.
    centroids : tuple of CentroidPoint
        As in the centroid file; one a label.
    centroids_key : str or None
        Key of that file, also if no point of it is taken; points need one.
    centroids_axes : str or None
        Axis codes of the grid that they are indices of, as that file says: they are left out of a
        store whose CT has others. None means those of the CT.
    licence : str
        Of the data: travels in the store's metadata.
    """

    scan_id: str
    image: SourceFile
    mask: SourceFile | None = None
    centroids: tuple[CentroidPoint, ...] = ()
    centroids_key: str | None = None
    centroids_axes: str | None = None
    licence: str = "unknown"

    def __post_init__(self) -> None:
        """Refuse names that could leave their folder, and points of no level or no place."""
        if not _SAFE_ID.fullmatch(self.scan_id):
            message = f"{self.scan_id!r} is no scan id: use letters, digits, '_' and '-'."
            raise UsageError(message)
        if self.centroids and self.centroids_key is None:
            message = (
                f"{self.scan_id}: centroids are given without the key of their file, which names "
                f"the store. Give centroids_key too."
            )
            raise UsageError(message)
        labels = [point.label for point in self.centroids]
        if len(set(labels)) != len(labels):
            message = f"{self.scan_id}: several centroids have the same label: {sorted(labels)}."
            raise UsageError(message)
        if not all(math.isfinite(value) for point in self.centroids for value in point.ijk):
            message = f"{self.scan_id}: a centroid has a coordinate that is no finite number."
            raise UsageError(message)
        unknown = sorted(set(labels) - LEVEL_OF_LABEL.keys())
        if unknown:
            message = f"{self.scan_id}: centroid labels {unknown} name no vertebral level."
            raise UsageError(message)

    @property
    def keys(self) -> StoreKeys:
        """What the name of the store follows from."""
        return StoreKeys(
            scan_id=self.scan_id,
            image=self.image.key,
            mask=self.mask.key if self.mask else None,
            centroids=self.centroids_key,
            licence=self.licence,
        )

    def describe(self, file: SourceFile) -> str:
        """Return what messages call one of the files."""
        role = "CT" if file is self.image else "mask"
        return f"{role} of scan {self.scan_id} ({file.name})"

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Run a block that reads and hashes the volumes; see :meth:`SourceFile.checked`."""
        with ExitStack() as files:
            for file in (self.image, self.mask):
                if file:
                    files.enter_context(file.checked())
            yield
