"""Two versions of a release compared: files, labels of masks, cells of the workbook, centroids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from verse_data.errors import UnsafeInput, ValidationFailed
from verse_data.records.centroids import CentroidFile
from verse_data.records.grading import FRACTURE_TYPES, GradingRow
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role
from verse_data.releases.commands import command, unless_newest
from verse_data.releases.dataset import ReleaseDataset
from verse_data.releases.diff import ROLE_WORDS, Change, diff_locks
from verse_data.spine.geometry import Grid, apply_affine
from verse_data.spine.levels import GRADED_LEVELS, LEVEL_OF_LABEL, LEVELS
from verse_data.tables.findings import row_scan_id
from verse_data.tables.grading import check_sheet
from verse_data.tables.index import Index, index_scans, read_centroids
from verse_data.tables.workbook import read_locked_sheet

_SHOWN: Final = 5
_NO_CELLS: Final = {
    "series_number", "series_count", "grades", "shapes",
    # Counts of the row's own grades, which a workbook writes as formulas and a CSV as numbers.
    "foreign_material", "n_fractures",
}  # fmt: skip
"""Fields of a row that are compared in another way, or not at all."""


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """Levels whose voxels changed in a mask that both versions have here, in spine order."""

    scan_id: str
    appeared: tuple[str, ...]
    disappeared: tuple[str, ...]
    resized: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in one line, in names of levels."""
        parts = [
            f"{words} {', '.join(levels)}"
            for words, levels in (
                ("now has", self.appeared),
                ("no longer has", self.disappeared),
                ("redrew", self.resized),
            )
            if levels
        ]
        return f"mask of {self.scan_id} {'; '.join(parts) or 'has the same voxel counts'}"


@dataclass(frozen=True, kw_only=True)
class CellChange:
    """One cell of the grading workbook, or one whole row of it.

    Attributes
    ----------
    scan_id : str
        The scan that the row is of.
    level : str
        Level of a grade or fracture type; empty where the cell is of the whole scan.
    column : str
        As in the tables, such as ``grade``; ``row`` where a row came or went.
    kind : {"appeared", "changed", "disappeared"}
        ``"changed"`` but for rows.
    old, new : object
        What stood there, and what stands there; None is a blank.
    """

    scan_id: str
    level: str
    column: str
    kind: Literal["appeared", "changed", "disappeared"]
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        """Say it in one line: ``verse123 L1: grade 2 -> 3``."""
        place = f"{self.scan_id} {self.level}".strip()
        if self.kind != "changed":
            return f"{place}: {self.column} of the grading workbook {self.kind}"
        old, new = ("blank" if value is None else value for value in (self.old, self.new))
        return f"{place}: {self.column} {old} -> {new}"


@dataclass(frozen=True, kw_only=True)
class PointChange:
    """One centroid that came, went or moved, or all of a scan whose axes are others now.

    Attributes
    ----------
    scan_id, level : str
        Whose it is; `level` is empty for ``"axes"``.
    kind : {"appeared", "moved", "disappeared", "axes"}
        ``"axes"`` says that the points were written for other axes, and cannot be compared here.
    distance : float or None
        How far it moved.
    unit : {"mm", "voxels"}
        Of `distance`: voxels where no volume on this machine tells their size.
    """

    scan_id: str
    level: str
    kind: Literal["appeared", "moved", "disappeared", "axes"]
    distance: float | None = None
    unit: Literal["mm", "voxels"] = "mm"

    def __str__(self) -> str:
        """Say it in one line: ``verse004 T12: centroid moved 3.2 mm``."""
        if self.kind == "axes":
            return f"{self.scan_id}: centroids are written for other axes; distances are not known"
        place = f"{self.scan_id} {self.level}: centroid {self.kind}"
        if self.distance is None:
            return place
        shown = f"{self.distance:.1f}" if self.distance >= 0.05 else f"{self.distance:.1g}"
        return f"{place} {shown} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class NotCompared:
    """One file that changed, and could not be looked into.

    Attributes
    ----------
    role, scan_id, path
        Which file; `scan_id` is empty for the workbook.
    version : str
        The version whose content is not here, or not readable.
    reason : str
        Why it is not readable; empty where it is not here.
    command : str
        What brings it; empty where it is here.
    """

    role: Role
    scan_id: str
    path: str
    version: str
    reason: str = ""
    command: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class VersionDiff:
    """What changed from one version to another.

    Attributes
    ----------
    old, new : str
        The two versions.
    files : tuple of Change
        Every file that is not the same.
    labels : tuple of LabelChange
        Masks that changed, of those that are here in both versions.
    cells : tuple of CellChange
        Cells of the grading workbook, if it is here in both versions.
    points : tuple of PointChange
        Points of centroid files that changed, of those that are here in both versions.
    not_compared : tuple of NotCompared
        Masks, centroid files and workbooks that changed and could not be looked into.
    """

    old: str
    new: str
    files: tuple[Change, ...]
    labels: tuple[LabelChange, ...]
    cells: tuple[CellChange, ...]
    points: tuple[PointChange, ...]
    not_compared: tuple[NotCompared, ...]

    def lines(self) -> list[str]:
        """Return every change in one line, and last what was not compared."""
        changes = (*self.files, *self.labels, *self.cells, *self.points)
        return [*map(str, changes), *self._same(), *self._gaps()]

    def _same(self) -> Iterator[str]:
        """Yield the files of which only the bytes changed, and nothing that they say."""
        gaps = {gap.path for gap in self.not_compared}
        moved = {point.scan_id for point in self.points}
        for change in self.files:
            if change.kind != "changed" or change.path in gaps:
                continue
            if change.role == "grading" and not self.cells:
                yield f"grading workbook {change.path}: every cell says the same"
            if change.role == "centroids" and change.scan_id not in moved:
                yield f"centroids of {change.scan_id}: every point is the same"

    def _gaps(self) -> Iterator[str]:
        roles = Counter(
            (gap.version, gap.command, ROLE_WORDS[gap.role])
            for gap in self.not_compared
            if not gap.reason
        )
        for (version, line, word), count in roles.items():
            what = f"not compared, for want of the contents of {version}: {word} ({count:,})"
            yield f"{what}. Bring them: {line}"
        for gap in self.not_compared:
            if gap.reason:
                yield f"not compared: {gap.path} of {gap.version}: {gap.reason}"

    def __str__(self) -> str:
        """Say everything, a line each."""
        return "\n".join(self.lines()) or "no difference"

    def __repr__(self) -> str:
        lines = self.lines()
        more = [f"  and {len(lines) - _SHOWN:,} more; print() shows all"] * (len(lines) > _SHOWN)
        shown = [f"  {line}" for line in lines[:_SHOWN]] or ["  no difference"]
        return "\n".join([f"<VersionDiff {self.old} to {self.new}>", *shown, *more])


def compare(
    dataset: ReleaseDataset, old: str, new: str, *, derived: Path | None = None
) -> VersionDiff:
    """Return what changed between two versions, as deep as the contents that are here allow.

    Compared is what was published: the locked files themselves.
    """
    versions = (old, new)
    locks = [dataset.lock(version) for version in versions]
    indexes = [index_scans(lock) for lock in locks]
    files = diff_locks(*locks)
    pairs: list[tuple[Role, str, list[LockedFile]]] = [
        (change.role, change.scan_id, [file for file in (change.old, change.new) if file])
        for change in files
        if change.kind == "changed" and change.role in ("mask", "centroids")
    ]
    books = [file for index in indexes for file in index.grading[:1]]
    if len({book.sha256 for book in books}) > 1:
        pairs.append(("grading", "", books))
    readers = [
        _readers(dataset, version, index, derived)
        for version, index in zip(versions, indexes, strict=True)
    ]
    found: list[Any] = []
    gaps: list[NotCompared] = []
    for role, scan_id, pair in pairs:
        said = []
        for file, version, read in zip(pair, versions, readers, strict=True):
            gap = partial(NotCompared, role=role, scan_id=scan_id, path=file.path, version=version)
            if not dataset.has(file):
                gaps.append(gap(command=_bring(dataset, file, role, version)))
                continue
            try:
                said.append(read[role](file))
            except (ValidationFailed, UnsafeInput) as error:
                gaps.append(gap(reason=str(error)))
        if len(said) == len(pair):
            found += _DIFFERENCES[role](scan_id, *said)
    return VersionDiff(
        old=old,
        new=new,
        files=files,
        labels=tuple(change for change in found if isinstance(change, LabelChange)),
        cells=tuple(change for change in found if isinstance(change, CellChange)),
        points=tuple(change for change in found if isinstance(change, PointChange)),
        not_compared=tuple(gaps),
    )


def _bring(dataset: ReleaseDataset, file: LockedFile, role: Role, version: str) -> str:
    typed = unless_newest(dataset, version)
    if dataset.addresses(file) or dataset.siblings():
        return command(dataset, "get", "--role", role, version=typed)
    return command(dataset, "adopt", "PATH", version=typed)


def _readers(
    dataset: ReleaseDataset, version: str, index: Index, derived: Path | None
) -> dict[Role, Callable[[LockedFile], Any]]:
    """Return what reads a file of one version, by role."""
    from verse_data.volumes.mask_facts import header_facts, mask_facts

    source = partial(dataset.source, version=unless_newest(dataset, version))

    def voxels(file: LockedFile) -> dict[str, int]:
        labels = mask_facts(source(file), derived=derived).labels
        return {LEVEL_OF_LABEL.get(n, str(n)): labels[n].voxels for n in sorted(labels)}

    def placed(file: LockedFile) -> tuple[CentroidFile, Grid | None]:
        scan = next((s for s in index.scans if s.files.get("centroids") == file), None)
        volumes = [scan.files.get(role) for role in ("mask", "ct")] if scan else []
        here = next((volume for volume in volumes if volume and dataset.has(volume)), None)
        grid = Grid.of(header_facts(source(here), derived=derived)) if here else None
        return read_centroids(source(file)), grid

    def rows(file: LockedFile) -> dict[str, GradingRow]:
        series = {scan.series_id for scan in index.scans}
        grading = check_sheet(read_locked_sheet(source(file)), without_t12=series)
        return {graded.row.series_id: graded.row for graded in grading.rows}

    return {"mask": voxels, "centroids": placed, "grading": rows}


def _label_changes(
    scan_id: str, before: dict[str, int], after: dict[str, int]
) -> Iterator[LabelChange]:
    yield LabelChange(
        scan_id=scan_id,
        appeared=tuple(level for level in after if level not in before),
        disappeared=tuple(level for level in before if level not in after),
        resized=tuple(x for x in before if x in after and before[x] != after[x]),
    )


def _cell_changes(
    _: str, before: dict[str, GradingRow], after: dict[str, GradingRow]
) -> Iterator[CellChange]:
    """Yield what differs between two workbooks by scan and cell, in the order of the newer one."""
    for series in dict.fromkeys([*after, *before]):
        scan_id = row_scan_id(after.get(series) or before[series])
        change = partial(CellChange, scan_id=scan_id)
        if series not in before or series not in after:
            came = series in after
            yield change(level="", column="row", kind="appeared" if came else "disappeared")
            continue
        was = _cells(before[series])
        for (level, column), value in _cells(after[series]).items():
            old = was[level, column]
            if value != old:
                yield change(level=level, column=column, kind="changed", old=old, new=value)


def _cells(row: GradingRow) -> dict[tuple[str, str], Any]:
    """Return the value of each cell of a row by level and column."""
    found = {("", name): value for name, value in row if name not in _NO_CELLS}
    found["", "series"] = f"{row.series_number} of {row.series_count}"
    for level in GRADED_LEVELS:
        shape = row.shapes.get(level)
        found[level, "grade"] = row.grades.get(level)
        found[level, "fracture_type"] = FRACTURE_TYPES[shape] if isinstance(shape, int) else shape
    return found


_Placed = tuple[CentroidFile, Grid | None]


def _point_changes(scan_id: str, old: _Placed, new: _Placed) -> Iterator[PointChange]:
    """Yield what differs between two centroid files of one scan, in spine order."""
    sides = (old, new)
    before, after = ({p.level: np.array(p.point) for p in file.points} for file, _ in sides)
    directions = {file.direction for file, _ in sides}
    unit: Literal["mm", "voxels"] | None = "voxels" if len(directions) == 1 else None
    if directions == {None}:
        unit = "mm"  # MICCAI's frame has voxels of 1 mm
    elif all(grid and grid.axcodes == file.direction for file, grid in sides):
        before, after = (
            {level: apply_affine(grid.affine, point) for level, point in points.items()}
            for points, (_, grid) in zip((before, after), sides, strict=True)
            if grid
        )
        unit = "mm"
    change = partial(PointChange, scan_id=scan_id)
    for level in LEVELS:
        if level in before and level in after:
            moved = round(float(np.linalg.norm(after[level] - before[level])), 4)
            if moved and unit:
                yield change(level=level, kind="moved", distance=moved, unit=unit)
        elif level in after or level in before:
            yield change(level=level, kind="appeared" if level in after else "disappeared")
    if unit is None:
        yield change(level="", kind="axes")


_DIFFERENCES: Final[dict[Role, Callable[..., Iterator[Any]]]] = {
    "mask": _label_changes,
    "centroids": _point_changes,
    "grading": _cell_changes,
}
"""Yields what differs between two contents, by role."""
