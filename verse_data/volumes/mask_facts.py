"""Facts of a locked volume: its header, range of a CT, size, box and crumbs of each label of a mask.

They are measured in the pass that hashes the file and cached as JSON by annex key; the cache is
used as long as inode, size and times of the file are unchanged.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, ValidationError
from scipy import ndimage

from verse_data.errors import StorageError
from verse_data.files import canonical_json, sha256_of_json, write_file
from verse_data.records.base import Record
from verse_data.records.source_file import SourceFile
from verse_data.spine.geometry import Array, Box
from verse_data.volumes.nifti import ImageHeader, VolumeStream, read_volume

_log = logging.getLogger(__name__)
_SAFE_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,160}")
_TICK_NS: Final = 20_000_000
"""Longer than a tick of the clock that file systems use for times."""
_EVERY_NEIGHBOUR: Final = np.ones((3, 3, 3), dtype=bool)

Triple = tuple[int, int, int]
Row = tuple[float, float, float, float]


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


class VolumeFacts(Record):
    """Header of one volume; range of a CT; facts of each label of a mask but the background."""

    key: str = ""
    shape: Triple
    affine: tuple[Row, ...]
    dtype: str
    """As stored in the file."""
    notes: tuple[str, ...] = ()
    """Oddities of the header; of a mask those of its affine alone."""
    low: int = 0
    high: int = 0
    """Smallest and largest value of a CT."""
    labels: dict[int, LabelFacts] = Field(default_factory=dict)
    at: dict[str, int] = Field(default_factory=dict)
    """Label at each requested point, by ``"i,j,k"``; 0 is background or outside."""

    def label_at(self, point: Triple) -> int:
        """Return the label at a voxel that was among the `points` of :func:`mask_facts`."""
        return self.at[_text(point)]


class _CachedFacts(Record):
    """A cache file: facts, the state of their file, and a digest against damage."""

    version: Literal[4] = 4
    """Version of this layout; facts of another version are measured again."""
    state: dict[str, int]
    """Inode, size and times of the file when its digest was verified."""
    facts: VolumeFacts
    digest: str
    """SHA-256 (hex) of the facts in canonical JSON."""


def image_facts(file: SourceFile, *, derived: Path | None = None) -> VolumeFacts:
    """Return the facts of a CT, cached below `derived`, if given; its voxels are not kept."""

    def measure() -> VolumeFacts:
        with VolumeStream(file.path, kind="image", name=file.name, sha256=file.sha256) as ct:
            ct.skip_rest()
        return VolumeFacts(**_of_header(file, ct.header), low=ct.low, high=ct.high)

    return _cached(file, measure, derived and derived / "image-facts")


def mask_facts(
    file: SourceFile, *, derived: Path | None = None, points: Collection[Triple] = ()
) -> VolumeFacts:
    """Return the facts of a mask, with the labels at `points`; cached below `derived`, if given."""
    return _cached(file, lambda: _measure(file, points), derived and derived / "mask-facts", points)


def _cached(
    file: SourceFile,
    measure: Callable[[], VolumeFacts],
    folder: Path | None,
    points: Collection[Triple] = (),
) -> VolumeFacts:
    """Return the facts of `file` cached in `folder` if they cover `points`, or `measure` them."""
    path = folder / f"{file.key}.json" if folder and _SAFE_KEY.fullmatch(file.key) else None
    state = _state(file)
    cached = _read(path) if path else None
    is_current = cached and (cached.state, cached.facts.key) == (state, file.key)
    if cached and is_current and cached.facts.at.keys() >= set(map(_text, points)):
        return cached.facts
    if path and time.time_ns() - state["ctime_ns"] < _TICK_NS:
        time.sleep(_TICK_NS / 1e9)  # two changes within one tick have the same times
    with file.checked():
        facts = measure()
    if path and _state(file) == state:
        cached = _CachedFacts(state=state, facts=facts, digest=_digest(facts))
        # A cache that cannot be written, such as a colleague's, only costs time.
        try:
            write_file(path, canonical_json(cached.model_dump(mode="json")))
        except StorageError as error:
            _log.info("facts of %s are not cached, and measured again each time: %s", file, error)
    return facts


def _state(file: SourceFile) -> dict[str, int]:
    """Return inode, size and times of a file, one of which differs after any change."""
    now = file.stat()
    times = {"mtime_ns": now.st_mtime_ns, "ctime_ns": now.st_ctime_ns}
    return {"inode": now.st_ino, "size": now.st_size, **times}


def _read(path: Path) -> _CachedFacts | None:
    """Return cached facts; None if there are none, or they are damaged or of another version."""
    try:
        cached = _CachedFacts.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return cached if cached.digest == _digest(cached.facts) else None


def _digest(facts: VolumeFacts) -> str:
    return sha256_of_json(facts.model_dump(mode="json"))


def _measure(file: SourceFile, points: Collection[Triple]) -> VolumeFacts:
    stream = VolumeStream(file.path, kind="mask", name=file.name, sha256=file.sha256)
    mask = read_volume(stream).array

    def label_at(point: Triple) -> int:
        inside = all(0 <= index < size for index, size in zip(point, mask.shape, strict=True))
        return int(mask[point]) if inside else 0

    return VolumeFacts(
        **_of_header(file, stream.header) | {"notes": stream.header.form_notes},
        labels={
            label: _label_facts(mask[box] == label, box)
            for label, box in enumerate(ndimage.find_objects(mask), start=1)
            if box is not None
        },
        at={_text(point): label_at(point) for point in points},
    )


def _label_facts(inside: Array, box: tuple[slice, ...]) -> LabelFacts:
    (i, i1), (j, j1), (k, k1) = ((part.start, part.stop) for part in box)
    voxels = int(np.count_nonzero(inside))
    x, y, z = (
        float(np.arange(size) @ inside.sum(axis=tuple({0, 1, 2} - {axis}))) / voxels
        for axis, size in enumerate(inside.shape)
    )
    parts, _ = ndimage.label(inside, structure=_EVERY_NEIGHBOUR)
    largest = int(np.bincount(parts.reshape(-1))[1:].max())
    return LabelFacts(
        voxels=voxels,
        start=(i, j, k),
        stop=(i1, j1, k1),
        centre_ijk=(x + i, y + j, z + k),
        crumbs=voxels - largest,
    )


def _of_header(file: SourceFile, header: ImageHeader) -> dict[str, Any]:
    rows = tuple(tuple(row) for row in header.affine.tolist())
    grid = {"shape": header.shape, "affine": rows}
    return {"key": file.key, **grid, "dtype": header.dtype.name, "notes": header.notes}


def _text(point: Triple) -> str:
    return ",".join(map(str, point))
