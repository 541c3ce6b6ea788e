"""What a mask says of each label: size, box, centre, crumbs; kept as JSON, named by content."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from verse_data.records.base import Record
from verse_data.records.source_file import SourceFile
from verse_data.spine.geometry import Box
from verse_data.volumes.file_facts import FileFacts, kept_facts
from verse_data.volumes.nifti import Volume, VolumeStream, read_volume

_EVERY_NEIGHBOUR: Final = np.ones((3, 3, 3), dtype=bool)

Triple = tuple[int, int, int]


class LabelFacts(Record):
    """One label of a mask.

    Attributes
    ----------
    voxels : int
        Number of voxels.
    start, stop : (int, int, int)
        Half-open box around them, in the mask's own axes.
    centre_ijk : (float, float, float)
        Mean voxel index.
    crumbs : int
        Voxels outside the largest connected component (26 neighbours). Real masks have some.
    """

    voxels: Annotated[int, Field(ge=1)]
    start: Triple
    stop: Triple
    centre_ijk: tuple[float, float, float]
    crumbs: Annotated[int, Field(ge=0)]

    @property
    def box(self) -> Box:
        """The box around the label."""
        return Box(self.start, self.stop)


class MaskFacts(FileFacts):
    """Geometry of a mask, and facts of each label in it.

    Attributes
    ----------
    shape : (int, int, int)
        Voxels along the file's own axes.
    affine : 4 rows of 4 floats
        Voxel index to world mm, RAS+.
    dtype : str
        As stored in the file.
    labels : dict
        Facts of each label that occurs, without the background.
    at : dict
        Label at each point that was asked for, by ``"i,j,k"``; 0 is background or outside.
    """

    shape: Triple
    affine: tuple[tuple[float, float, float, float], ...]
    dtype: str
    labels: dict[int, LabelFacts]
    at: dict[str, int] = Field(default_factory=dict)

    def label_at(self, point: Triple) -> int:
        """Return the label at a voxel that was among the `points` of :func:`mask_facts`."""
        return self.at[_named(point)]


def mask_facts(
    file: SourceFile, *, derived: Path | None = None, points: Collection[Triple] = ()
) -> MaskFacts:
    """Return the facts of a mask, measured in the pass that hashes it.

    Parameters
    ----------
    file : SourceFile
        The mask.
    derived : Path, optional
        Folder of derived facts. With it they are read from and kept in
        ``derived/mask-facts/<key>.json``, so an unchanged mask is read once on a machine.
    points : collection of (int, int, int)
        Voxels whose label is wanted, such as centroids; kept with the facts.

    Raises
    ------
    ContentCorrupt, ContentMissing
        If the file is not the locked one.
    NiftiRefused, VolumeCorrupt, ValidationFailed
        If the locked bytes are no mask, as :func:`verse_data.volumes.nifti.read_mask`.
    """
    return kept_facts(
        MaskFacts,
        file,
        lambda: _measure(file, points),
        folder=derived and derived / "mask-facts",
        enough=lambda facts: all(_named(point) in facts.at for point in points),
    )


def _named(point: Triple) -> str:
    return ",".join(map(str, point))


def _measure(file: SourceFile, points: Collection[Triple]) -> MaskFacts:
    stream = VolumeStream(file.path, kind="mask", name=file.name, sha256=file.sha256)
    mask = read_volume(stream)
    boxes = ndimage.find_objects(mask.array)
    return MaskFacts(
        key=file.key,
        shape=mask.shape,
        affine=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in mask.affine),
        dtype=stream.header.dtype.name,
        labels={
            label: _label_facts(mask.array[box] == label, box)
            for label, box in enumerate(boxes, start=1)
            if box is not None
        },
        at={_named(point): _label_at(mask, point) for point in points},
    )


def _label_at(mask: Volume, point: Triple) -> int:
    inside = all(0 <= index < size for index, size in zip(point, mask.shape, strict=True))
    return int(mask.array[point]) if inside else 0


def _label_facts(inside: npt.NDArray[np.bool_], box: tuple[slice, ...]) -> LabelFacts:
    start = (box[0].start, box[1].start, box[2].start)
    voxels = int(np.count_nonzero(inside))
    centre = [
        float(np.arange(size) @ inside.sum(axis=tuple({0, 1, 2} - {axis}))) / voxels + start[axis]
        for axis, size in enumerate(inside.shape)
    ]
    parts, _ = ndimage.label(inside, structure=_EVERY_NEIGHBOUR)
    largest = int(np.bincount(parts.reshape(-1))[1:].max())
    return LabelFacts(
        voxels=voxels,
        start=start,
        stop=(box[0].stop, box[1].stop, box[2].stop),
        centre_ijk=(centre[0], centre[1], centre[2]),
        crumbs=voxels - largest,
    )
