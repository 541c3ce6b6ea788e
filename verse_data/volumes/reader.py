"""The reader of the hot path: boxes of image and label, out of a store, in any orientation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.geometry import Affine, Box, Shape
from verse_data.volumes.cut import Cut
from verse_data.volumes.opened import OpenScan, opened
from verse_data.volumes.shard import Shard

Image = npt.NDArray[np.int16]
Label = npt.NDArray[np.uint8]


class ScanReader:
    """Reads one scan's store.

    A reader is a path: it opens nothing until it is asked something, holds no handle of its own,
    and may be pickled, forked and used by several threads. Open stores are kept per process
    (:mod:`verse_data.volumes.opened`); each chunk is checked against the manifest when a process
    first touches it.

    Parameters
    ----------
    path : Path
        Folder of the store, as ``ensure_store`` returned it.
    verify : bool
        Whether chunks are checked. Off only to measure what checking costs.

    Examples
    --------
    >>> reader = ScanReader(store)                                          # doctest: +SKIP
    >>> image, label = reader.read(Box.around((90, 80, 200), (96, 96, 96)))  # doctest: +SKIP
    """

    __slots__ = ("_path", "_verify")

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self._path = Path(path)
        self._verify = verify

    def __repr__(self) -> str:
        return f"ScanReader({str(self._path)!r})"

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return self._path

    @property
    def shape(self) -> Shape:
        """Voxels along x (to the right), y (anteriorly) and z (superiorly)."""
        return self._scan().shape

    @property
    def affine(self) -> Affine:
        """(4, 4), voxel index (x, y, z) of the stored grid to world mm, RAS+."""
        return self._scan().affine.copy()

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels that occur in the mask, in spine order; none where there is no mask."""
        return tuple(self.attributes["labels"] or ())

    @property
    def label_boxes(self) -> dict[int, Box]:
        """Box of each label of the mask in the stored grid (x, y, z); none without a mask."""
        return {
            int(label): Box((a[0], a[1], a[2]), (b[0], b[1], b[2]))
            for label, (a, b) in self.attributes["label_boxes"].items()
        }

    @property
    def centroids(self) -> dict[int, tuple[float, float, float]]:
        """Centroid of each label as voxel index (x, y, z) of the stored grid."""
        return {
            int(label): (float(x), float(y), float(z))
            for label, (x, y, z) in self.attributes["centroids"].items()
        }

    @property
    def attributes(self) -> dict[str, Any]:
        """What the store says of itself: keys of its sources, licence, recipe, and the above."""
        return self._scan().attributes

    @property
    def fingerprint(self) -> str:
        """SHA-256 over keys of the sources, recipe and store format: the name of the store."""
        return self._scan().fingerprint

    @property
    def scan_id(self) -> str:
        """Whose volume it is."""
        return self._scan().scan_id

    @property
    def has_label(self) -> bool:
        """Whether the store holds a mask."""
        return "label" in self._scan().shards

    def grid(self, orientation: str = "RAS") -> tuple[Shape, Affine]:
        """Return shape and affine of the scan in the axes of `orientation`."""
        scan = self._scan()
        axes = scan.axes(orientation)
        return axes.shape(scan.shape), axes.affine(scan.affine, scan.shape)

    @overload
    def read(
        self,
        box: Box,
        *,
        orientation: str = ...,
        image: Literal[True] = ...,
        label: Literal[True] = ...,
        pad_image: int = ...,
        pad_label: int = ...,
    ) -> tuple[Image, Label]: ...

    @overload
    def read(
        self,
        box: Box,
        *,
        orientation: str = ...,
        image: Literal[True] = ...,
        label: bool,
        pad_image: int = ...,
        pad_label: int = ...,
    ) -> tuple[Image, Label | None]: ...

    @overload
    def read(
        self,
        box: Box,
        *,
        orientation: str = ...,
        image: bool,
        label: bool = ...,
        pad_image: int = ...,
        pad_label: int = ...,
    ) -> tuple[Image | None, Label | None]: ...

    def read(
        self,
        box: Box,
        *,
        orientation: str = "RAS",
        image: bool = True,
        label: bool = True,
        pad_image: int = -1024,
        pad_label: int = 0,
    ) -> tuple[Image | None, Label | None]:
        """Read the voxels of `box`.

        Parameters
        ----------
        box : Box
            In voxels of ``grid(orientation)``. What lies outside the volume is padding.
        orientation : str
            Axis codes of what is handed out, exact: axes are permuted and flipped, no more.
        image, label : bool
            Whether to read each; what is not read is None.
        pad_image, pad_label : int
            Values outside the volume: Hounsfield units, label.

        Returns
        -------
        image : (X, Y, Z) int16, C-contiguous
            Hounsfield units.
        label : (X, Y, Z) uint8, C-contiguous
            Labels of the vertebrae; 0 is background.

        Raises
        ------
        UsageError
            If the box ends before it starts, the orientation is none, or there is no mask.
        ChunkMissing, ChunkCorrupt, StoreCorrupt
            If bytes are not those that were written.
        """
        scan = self._scan()
        cut = Cut.of(box, scan.axes(orientation), scan.shape)
        return (
            cut.fill(_shard(scan, "image"), np.empty(box.shape, np.int16), pad_image)
            if image
            else None,
            cut.fill(_shard(scan, "label"), np.empty(box.shape, np.uint8), pad_label)
            if label
            else None,
        )

    def _scan(self) -> OpenScan:
        return opened(self._path, verify=self._verify)


def _shard(scan: OpenScan, name: str) -> Shard:
    try:
        return scan.shards[name]
    except KeyError:
        message = (
            f"Scan {scan.scan_id} has no mask in its store, so no label can be read. "
            f"Read it with label=False, or ask has_label first."
        )
        raise UsageError(message) from None
