"""Reads what each scan's small files and its mask say, before anything is joined."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verse_data.errors import FILE_FAULTS, ValidationFailed
from verse_data.progress import Progress
from verse_data.records.base import LIMIT_BYTES
from verse_data.records.centroids import CentroidFile, parse_centroids
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role
from verse_data.records.source_file import SourceFile
from verse_data.records.tables import CtSidecar, parse_ct_sidecar
from verse_data.spine.geometry import Grid
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.tables.broken import BrokenFile
from verse_data.tables.index import ScanFiles

Content = Callable[[LockedFile], SourceFile | None]
"""Gives a locked file as it lies on this machine, or None if it does not."""

_THREADS = 4


@dataclass(frozen=True)
class ScanSources:
    """What the files of one scan say; None where a file is not listed, not here, or `broken`."""

    scan: ScanFiles
    centroids: CentroidFile | None
    sidecar: CtSidecar | None
    mask: Any | None
    grid: Grid | None
    ct_grid: Grid | None
    ct_notes: tuple[str, ...] = ()
    broken: tuple[BrokenFile, ...] = ()

    @property
    def placed(self) -> bool:
        """Whether the centroids are indices of this scan's own grid, as far as can be told.

        MICCAI files lie in a frame of their own; a `direction` that is not the image's means that
        the points were written for another orientation of it.
        """
        if self.centroids is None or self.centroids.direction is None:
            return False
        return self.grid is None or self.centroids.direction == self.grid.axcodes

    @property
    def lacks_t12(self) -> bool | None:
        """Whether mask or centroids show T11 and L1, and no T12 between them; None if neither is read."""
        if self.centroids is None and self.mask is None:
            return None
        points = self.centroids.points if self.centroids else ()
        return skips_t12({point.level for point in points} | self.mask_levels)

    @property
    def mask_levels(self) -> set[str]:
        """Levels whose label the mask has; none if it is not read."""
        return levels_of(self.mask.labels) if self.mask else set()


def levels_of(labels: Iterable[int]) -> set[str]:
    """Return the levels of those `labels` that name one."""
    return {LEVEL_OF_LABEL[label] for label in labels if label in LEVEL_OF_LABEL}


def skips_t12(levels: set[str]) -> bool:
    """Tell whether `levels` hold T11 and L1, and no T12 between them."""
    return {"T11", "L1"} <= levels and "T12" not in levels


def read_sources(
    scans: Sequence[ScanFiles], content: Content, *, derived: Path, progress: Progress
) -> list[ScanSources]:
    """Read centroid files, ``_ct.json`` files, mask facts and CT headers of all `scans`."""

    def read(scan: ScanFiles) -> ScanSources:
        return _read_scan(scan, content, derived)

    found: list[ScanSources] = []
    # Inflating and counting a mask leave the interpreter free, so threads are enough; a few of
    # them, since each holds a whole mask.
    threads = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    with threads, progress("Reading metadata", len(scans), "items") as advance:
        for sources in threads.map(read, scans):
            found.append(sources)
            advance(1)
    return found


def _read_scan(scan: ScanFiles, content: Content, derived: Path) -> ScanSources:
    broken: list[BrokenFile] = []

    def take(role: Role, read: Callable[[SourceFile], Any]) -> Any:
        locked = scan.files.get(role)
        if locked is None:
            return None
        try:
            file = content(locked)
            return read(file) if file else None
        except FILE_FAULTS as error:
            broken.append(BrokenFile(scan.scan_id, scan.subject_id, locked.path, error))
            return None

    centroids = take("centroids", _centroids)
    sidecar = take("ct_json", _sidecar)
    points = [p.voxel for p in centroids.points] if centroids and centroids.direction else []
    mask = take("mask", lambda file: _mask(file, derived, points))
    header = take("ct", lambda file: _header(file, derived))
    ct_grid = Grid.of(header) if header else None
    grid = ct_grid or (Grid.of(mask) if mask else None)
    notes = tuple(header.notes) if header else ()
    return ScanSources(scan, centroids, sidecar, mask, grid, ct_grid, notes, tuple(broken))


def check_json_size(size: int, *, name: str) -> None:
    """Raise ValidationFailed if a JSON file is too large to be one of VerSe's, before it is read."""
    if size > LIMIT_BYTES:
        raise ValidationFailed(
            f"{name}: {size:,} bytes of JSON are over the limit of {LIMIT_BYTES:,}."
        )


def _centroids(file: SourceFile) -> CentroidFile:
    check_json_size(file.size, name=file.name)
    return parse_centroids(file.read(), name=file.name)


def _sidecar(file: SourceFile) -> CtSidecar:
    check_json_size(file.size, name=file.name)
    return parse_ct_sidecar(file.read(), name=file.name)


def _mask(file: SourceFile, derived: Path, points: list[tuple[int, int, int]]) -> Any:
    from verse_data.volumes.mask_facts import mask_facts

    return mask_facts(file, derived=derived, points=points)


def _header(file: SourceFile, derived: Path) -> Any:
    from verse_data.volumes.mask_facts import header_facts

    return header_facts(file, derived=derived)
