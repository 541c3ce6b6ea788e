"""Facts of a locked volume: what its header says, and of a mask each label's size, box and crumbs.

They are measured in the pass that hashes the file, kept as JSON by annex key, and served without
reading the file as long as its inode, size and times are those that it had then.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from scipy import ndimage

from verse_data.errors import StorageError
from verse_data.files import canonical_json, sha256_of_json, write_file
from verse_data.records.base import Record
from verse_data.records.source_file import SourceFile
from verse_data.spine.geometry import Box, Grid
from verse_data.volumes.nifti import VolumeStream, read_header, read_volume

_log = logging.getLogger(__name__)
_SAFE_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,160}")
_STATES: Final = 4
"""Copies of one content that are remembered, such as those of two releases."""
_TICK_NS: Final = 20_000_000
"""Longer than a tick of the clock that file systems take their times from."""
_EVERY_NEIGHBOUR: Final = np.ones((3, 3, 3), dtype=bool)

Triple = tuple[int, int, int]
Row = tuple[float, float, float, float]
Facts = TypeVar("Facts", bound="VolumeFacts")


class VolumeFacts(Record):
    """Geometry of one content, and the files that it was found in."""

    version: Literal[2] = 2
    """Of this layout; facts of another version are measured again."""
    key: str = ""
    states: tuple[dict[str, int], ...] = ()
    """Inode, size and times of files whose digest was that of the key, the newest first."""
    digest: str = ""
    """SHA-256 (hex) of all other fields in canonical JSON."""
    shape: Triple
    affine: tuple[Row, ...]

    def sealed(self) -> Self:
        """Return the facts with the digest that they should have."""
        digest = sha256_of_json(self.model_dump(mode="json", exclude={"digest"}))
        return self.model_copy(update={"digest": digest})


class HeaderFacts(VolumeFacts):
    """What the header of a volume says, once the whole file has been hashed."""

    notes: tuple[str, ...]


class LabelFacts(Record):
    """One label of a mask: its voxels, and the half-open box around them in the mask's own axes."""

    voxels: Annotated[int, Field(ge=1)]
    start: Triple
    stop: Triple
    centre_ijk: tuple[float, float, float]
    """Mean voxel index."""
    crumbs: Annotated[int, Field(ge=0)]
    """Voxels outside the largest connected component (26 neighbours). Real masks have some."""

    @property
    def box(self) -> Box:
        """The box around the label."""
        return Box(self.start, self.stop)


class MaskFacts(VolumeFacts):
    """Geometry of a mask, and facts of each label in it but the background."""

    dtype: str
    """As stored in the file."""
    labels: dict[int, LabelFacts]
    at: dict[str, int] = Field(default_factory=dict)
    """Label at each point that was asked for, by ``"i,j,k"``; 0 is background or outside."""

    def label_at(self, point: Triple) -> int:
        """Return the label at a voxel that was among the `points` of :func:`mask_facts`."""
        return self.at[_text(point)]


def header_facts(file: SourceFile, *, derived: Path | None = None) -> HeaderFacts:
    """Return what the header of a volume says; the file is hashed, and not inflated."""

    def measure() -> HeaderFacts:
        header = read_header(file.path, name=file.name, sha256=file.sha256)
        return HeaderFacts(**_geometry(file, header), notes=header.notes)

    return _kept(HeaderFacts, file, measure, derived and derived / "header-facts")


def mask_facts(
    file: SourceFile, *, derived: Path | None = None, points: Collection[Triple] = ()
) -> MaskFacts:
    """Return the facts of a mask, with the labels at `points`; kept below `derived`, if it is given."""

    def enough(facts: MaskFacts) -> bool:
        return all(_text(point) in facts.at for point in points)

    def measure() -> MaskFacts:
        return _measure(file, points)

    return _kept(MaskFacts, file, measure, derived and derived / "mask-facts", enough)


def _kept(
    kind: type[Facts],
    file: SourceFile,
    measure: Callable[[], Facts],
    folder: Path | None,
    enough: Callable[[Facts], bool] = lambda _: True,
) -> Facts:
    """Return the facts of `file` that are kept in `folder` if they are `enough`, or `measure` them."""
    place = folder / f"{file.key}.json" if folder and _SAFE_KEY.fullmatch(file.key) else None
    state = _state(file)
    facts = _read(kind, place, file.key)
    states = facts.states if facts else ()
    if facts and state in states and enough(facts):
        return facts
    if place and time.time_ns() - state["ctime_ns"] < _TICK_NS:
        time.sleep(_TICK_NS / 1e9)  # two changes within one tick have the same times
    # Kept facts of a file that was not seen here may be anybody's: they are measured again.
    with file.checked():
        facts = measure()
    others = [other for other in states if other["inode"] != state["inode"]]
    facts = facts.model_copy(update={"states": (state, *others)[:_STATES]}).sealed()
    if place and _state(file) == state:
        # A cache that may not be written, such as a colleague's, costs time and nothing else.
        try:
            write_file(place, canonical_json(facts.model_dump(mode="json")))
        except StorageError as error:
            _log.info("facts of %s are not kept, and measured again each time: %s", file, error)
    return facts


def _state(file: SourceFile) -> dict[str, int]:
    """Return what is another after any change of a file: inode, size and times."""
    now = file.stat()
    times = {"mtime_ns": now.st_mtime_ns, "ctime_ns": now.st_ctime_ns}
    return {"inode": now.st_ino, "size": now.st_size, **times}


def _read(kind: type[Facts], place: Path | None, key: str) -> Facts | None:
    """Return kept facts of `key`; None if there are none, or they are damaged or of another version."""
    if place is None:
        return None
    try:
        facts = kind.model_validate_json(place.read_bytes())
    except (OSError, ValidationError):
        return None
    return facts if facts.key == key and facts == facts.sealed() else None


def _measure(file: SourceFile, points: Collection[Triple]) -> MaskFacts:
    stream = VolumeStream(file.path, kind="mask", name=file.name, sha256=file.sha256)
    mask = read_volume(stream)

    def label_at(point: Triple) -> int:
        inside = all(0 <= index < size for index, size in zip(point, mask.shape, strict=True))
        return int(mask.array[point]) if inside else 0

    return MaskFacts(
        **_geometry(file, stream.header),
        dtype=stream.header.dtype.name,
        labels={
            label: _label_facts(mask.array[box] == label, box)
            for label, box in enumerate(ndimage.find_objects(mask.array), start=1)
            if box is not None
        },
        at={_text(point): label_at(point) for point in points},
    )


def _label_facts(inside: npt.NDArray[np.bool_], box: tuple[slice, ...]) -> LabelFacts:
    start = (box[0].start, box[1].start, box[2].start)
    voxels = int(np.count_nonzero(inside))
    i, j, k = (
        float(np.arange(size) @ inside.sum(axis=tuple({0, 1, 2} - {axis}))) / voxels + start[axis]
        for axis, size in enumerate(inside.shape)
    )
    parts, _ = ndimage.label(inside, structure=_EVERY_NEIGHBOUR)
    largest = int(np.bincount(parts.reshape(-1))[1:].max())
    return LabelFacts(
        voxels=voxels,
        start=start,
        stop=(box[0].stop, box[1].stop, box[2].stop),
        centre_ijk=(i, j, k),
        crumbs=voxels - largest,
    )


def _geometry(file: SourceFile, grid: Grid) -> dict[str, Any]:
    """Return the fields that all facts have."""
    rows = tuple(tuple(row) for row in grid.affine.tolist())
    return {"key": file.key, "shape": grid.shape, "affine": rows}


def _text(point: Triple) -> str:
    return ",".join(map(str, point))
