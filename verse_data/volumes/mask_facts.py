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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
_SLAB_VOXELS: Final = 1 << 22
"""Of a label, counted at a time: memory is a byte a voxel of the mask, and some 100 MB."""
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
            label: _label_facts(mask[box], label, box)
            for label, box in enumerate(ndimage.find_objects(mask), start=1)
            if box is not None
        },
        at={_text(point): label_at(point) for point in points},
    )


def _label_facts(part: Array, label: int, box: tuple[slice, ...]) -> LabelFacts:
    """Count the voxels of a label in its box, a slab of its longest axis at a time."""
    (i, i1), (j, j1), (k, k1) = ((side.start, side.stop) for side in box)
    order = np.argsort(part.shape)
    part = part.transpose(order)
    rows, columns, planes = counts = [np.zeros(size, np.int64) for size in part.shape]
    step, largest = max(1, _SLAB_VOXELS // part[:, :, 0].size), 0
    # Of the last plane so far: the connected component of each voxel (26 neighbours), and its size.
    edge, sizes = np.zeros(part.shape[:2], np.int64), np.zeros(1, np.int64)
    for first in range(0, len(planes), step):
        inside = part[:, :, first : first + step] == label
        rows += np.count_nonzero(inside, axis=(1, 2))
        columns += np.count_nonzero(inside, axis=(0, 2))
        planes[first : first + step] = np.count_nonzero(inside, axis=(0, 1))
        edge, sizes, most = _joined(edge, sizes, inside)
        largest = max(largest, most)
    voxels = int(planes.sum())
    centre = [float(np.arange(len(count)) @ count) / voxels for count in counts]
    x, y, z = (centre[place] for place in np.argsort(order))
    return LabelFacts(
        voxels=voxels,
        start=(i, j, k),
        stop=(i1, j1, k1),
        centre_ijk=(x + i, y + j, z + k),
        crumbs=voxels - largest,
    )


def _joined(edge: Array, sizes: Array, inside: Array) -> tuple[Array, Array, int]:
    """Join components of a plane to the next slab's; return those of its end, and the most voxels."""
    overlapping = np.concatenate([edge[:, :, None] > 0, inside], axis=2)
    parts, count = ndimage.label(overlapping, structure=_EVERY_NEIGHBOUR)
    own = np.bincount(parts[:, :, 1:].reshape(-1), minlength=count + 1)
    own[0] = 0
    known, same = len(sizes), edge > 0
    ends = edge[same], parts[:, :, 0][same] + known
    links = coo_array((np.ones(len(ends[0])), ends), shape=(known + count + 1,) * 2)
    _, group = connected_components(links, directed=False)
    totals = np.bincount(group, np.concatenate([sizes, own])).astype(np.int64)
    last = np.where(parts[:, :, -1] > 0, group[parts[:, :, -1] + known] + 1, 0)
    kept, numbers = np.unique(np.append(0, last), return_inverse=True)
    reached = np.append(0, totals)[kept]
    return numbers[1:].reshape(last.shape), reached, int(totals.max())


def _of_header(file: SourceFile, header: ImageHeader) -> dict[str, Any]:
    rows = tuple(tuple(row) for row in header.affine.tolist())
    grid = {"shape": header.shape, "affine": rows}
    return {"key": file.key, **grid, "dtype": header.dtype.name, "notes": header.notes}


def _text(point: Triple) -> str:
    return ",".join(map(str, point))
