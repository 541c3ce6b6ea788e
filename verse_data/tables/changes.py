"""Compares two versions of a release: files, mask labels, cells of the workbook, centroids."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from verse_data.errors import FILE_FAULTS, IntegrityError, VerseDataError
from verse_data.problems import raise_faults, shown
from verse_data.progress import silent
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role
from verse_data.records.tables import FRACTURE_TYPES, GradingRow
from verse_data.releases.history import ROLE_WORDS, Change, command, diff_locks, unless_newest
from verse_data.releases.repository import Repository
from verse_data.spine.geometry import apply_affine
from verse_data.spine.levels import LEVEL_OF_LABEL, LEVELS
from verse_data.tables.grading import check_sheet
from verse_data.tables.index import index_scans
from verse_data.tables.join import ScanSources, read_sources
from verse_data.tables.workbook import read_locked_sheet

_NO_CELLS: Final = {
    "series_number", "series_count", "grades", "shapes",
    # Counts of the row's own grades, which a workbook writes as formulas and a CSV as numbers.
    "foreign_material", "n_fractures",
}  # fmt: skip
"""Fields of a row that are compared in another way, or not at all."""


_SAME: Final[dict[Role, str]] = {
    "mask": "every label has as many voxels",
    "centroids": "every point is the same",
    "grading": "every cell says the same",
}


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """Levels whose voxels differ between two versions of a mask on this machine, in spine order."""

    scan_id: str
    appeared: tuple[str, ...]
    disappeared: tuple[str, ...]
    resized: tuple[str, ...]

    def __str__(self) -> str:
        """Return one line, with the names of levels."""
        parts = [
            f"{words} {', '.join(levels)}"
            for words, levels in (
                ("now has", self.appeared),
                ("no longer has", self.disappeared),
                ("redrew", self.resized),
            )
            if levels
        ]
        return f"mask of {self.scan_id} {'; '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class CellChange:
    """One cell of the grading workbook, or one whole row of it.

    Attributes
    ----------
    scan_id : str
        Scan of the row.
    level : str
        Level of a grade or fracture type; empty where the cell is of the whole scan.
    column : str
        As in the tables, such as ``grade``; ``row`` for a whole row.
    kind : {"appeared", "changed", "disappeared"}
        ``"changed"`` for a cell, one of the others for a row.
    old, new : object
        Values before and after; None is a blank cell.
    """

    scan_id: str
    level: str
    column: str
    kind: Literal["appeared", "changed", "disappeared"]
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        """Return one line: ``verse123 L1: grade 2 -> 3``."""
        place = f"{self.scan_id} {self.level}".strip()
        if self.kind != "changed":
            return f"{place}: {self.column} of the grading workbook {self.kind}"
        old, new = ("blank" if value is None else value for value in (self.old, self.new))
        return f"{place}: {self.column} {old} -> {new}"


@dataclass(frozen=True, kw_only=True)
class PointChange:
    """One centroid that appeared, moved or disappeared, or a scan whose centroids changed axes.

    Attributes
    ----------
    scan_id, level : str
        Scan and level of the centroid; `level` is empty for ``"axes"``.
    kind : {"appeared", "moved", "disappeared", "axes"}
        ``"axes"`` means that positions cannot be compared: no volume here has the points' axes.
    distance : float or None
        How far it moved.
    unit : {"mm"}
        Of `distance`.
    """

    scan_id: str
    level: str
    kind: Literal["appeared", "moved", "disappeared", "axes"]
    distance: float | None = None
    unit: Literal["mm"] = "mm"

    def __str__(self) -> str:
        """Return one line: ``verse004 T12: centroid moved 3.2 mm``."""
        if self.kind == "axes":
            why = "no volume here has the axes that its centroids are written for"
            return f"{self.scan_id}: {why}; distances are not known"
        place = f"{self.scan_id} {self.level}: centroid {self.kind}"
        if self.distance is None:
            return place
        shown = f"{self.distance:.1f}" if self.distance >= 0.05 else f"{self.distance:.1g}"
        return f"{place} {shown} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class NotCompared:
    """One file that changed, and whose contents could not be compared.

    Attributes
    ----------
    role, scan_id, path : str
        Which file; `scan_id` is empty for the workbook.
    version : str
        The version whose content is not on this machine, or cannot be read.
    reason : str
        Why it cannot be read; empty where it is not on this machine.
    command : str
        Command that gets it; empty where it is on this machine.
    """

    role: Role | None
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
    same : tuple of str
        A line for each file whose bytes changed, but not its labels, points or cells.
    not_compared : tuple of NotCompared
        Masks, centroid files and workbooks that changed and could not be compared.
    overlays : tuple of str
        What overlays over the newer one correct, a line each.
    """

    old: str
    new: str
    files: tuple[Change, ...]
    labels: tuple[LabelChange, ...]
    cells: tuple[CellChange, ...]
    points: tuple[PointChange, ...]
    same: tuple[str, ...]
    not_compared: tuple[NotCompared, ...]
    overlays: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return a line for each change, and then for what was not compared."""
        changes = (*self.files, *self.labels, *self.cells, *self.points, *self.same, *self.overlays)
        return [*map(str, changes), *self._gaps()]

    def _gaps(self) -> Iterator[str]:
        roles = Counter(
            (gap.version, gap.command, ROLE_WORDS[gap.role or "ct"])
            for gap in self.not_compared
            if not gap.reason
        )
        for (version, line, word), count in roles.items():
            what = f"not compared, as the contents of {version} are not here: {word} ({count:,})"
            yield f"{what}. Get them: {line}"
        for gap in self.not_compared:
            if gap.reason:
                yield f"not compared: {gap.path} of {gap.version}: {gap.reason}"

    def __str__(self) -> str:
        """Return :meth:`lines` as one text."""
        return "\n".join(self.lines()) or "no difference"

    def __repr__(self) -> str:
        lines = shown(self.lines() or ["no difference"], indent="  ")
        return "\n".join([f"<VersionDiff {self.old} to {self.new}>", *lines])


def compare(dataset: Repository, old: str, new: str, *, derived: Path | None = None) -> VersionDiff:
    """Return what changed between two versions, as far as their contents are on this machine."""
    files = diff_locks(dataset.lock(old), dataset.lock(new))
    changed = [change for change in files if change.kind == "changed" and change.role in _SAME]
    before, gaps = _contents(dataset, old, changed, derived)
    after, more_gaps = _contents(dataset, new, changed, derived)
    gaps += more_gaps
    missing = {gap.path for gap in gaps}
    found: defaultdict[Role, list[Any]] = defaultdict(list)
    same: list[str] = []
    for change in changed:
        # A second file of a role is not read, and so in neither of the two.
        both_read = change.path in before.keys() & after.keys()
        if change.role and change.path not in missing and both_read:
            contents = before[change.path], after[change.path]
            differences = list(_DIFFERENCES[change.role](change.scan_id, *contents))
            found[change.role] += differences
            if not differences:
                same.append(f"{ROLE_WORDS[change.role]} {change.path}: {_SAME[change.role]}")
    return VersionDiff(
        old=old,
        new=new,
        files=files,
        labels=tuple(found["mask"]),
        cells=tuple(found["grading"]),
        points=tuple(found["centroids"]),
        same=tuple(same),
        not_compared=tuple(gaps),
    )


def _contents(
    dataset: Repository, version: str, changed: Sequence[Change], derived: Path | None
) -> tuple[dict[str, Any], list[NotCompared]]:
    """Return the contents of the changed files of one version, by path, and the unreadable ones."""
    lock, version_option = dataset.lock(version), unless_newest(dataset, version)
    index = index_scans(lock)
    paths = {change.path for change in changed}
    scans = [s for s in index.scans if paths & {file.path for file in s.files.values()}]
    content = partial(dataset.local, version=version_option)
    contents: dict[str, Any] = {}
    faults: dict[str, VerseDataError] = {}
    for sources in read_sources(scans, content, derived=derived, progress=silent):
        contents |= {file.path: sources for file in sources.scan.files.values()}
        faults |= {file.path: file.error for file in sources.broken}
    for file in index.grading:
        if file.path in paths and (book := content(file)):
            try:
                sheet, series = read_locked_sheet(book), {scan.series_id for scan in index.scans}
                grading = check_sheet(sheet, index.scans, without_t12=series)
                contents[file.path] = {graded.scan_id: graded.row for graded in grading.rows}
            except FILE_FAULTS as error:
                faults[file.path] = error
    raise_faults([error for error in faults.values() if isinstance(error, IntegrityError)])
    gaps = []
    for change in changed:
        file, fault = lock.by_path[change.path], faults.get(change.path)
        if fault or not dataset.has(file):
            gaps.append(
                NotCompared(
                    role=change.role,
                    scan_id=change.scan_id,
                    path=file.path,
                    version=version,
                    reason=str(fault) if fault else "",
                    command="" if fault else _get(dataset, file, change.role, version_option),
                )
            )
    return contents, gaps


def _get(dataset: Repository, file: LockedFile, role: Any, version: str | None) -> str:
    """Return the command that gets the content of a file."""
    if dataset.addresses(file) or dataset.siblings():
        return command(dataset, "get", "--role", role, version=version)
    return command(dataset, "adopt", "PATH", version=version)


def _label_changes(scan_id: str, old: ScanSources, new: ScanSources) -> Iterator[LabelChange]:
    before, after = (
        {LEVEL_OF_LABEL.get(label, str(label)): facts.voxels for label, facts in found.items()}
        for found in (side.mask.labels if side.mask else {} for side in (old, new))
    )
    if before != after:
        yield LabelChange(
            scan_id=scan_id,
            appeared=tuple(level for level in after if level not in before),
            disappeared=tuple(level for level in before if level not in after),
            resized=tuple(x for x in before if x in after and before[x] != after[x]),
        )


def _cell_changes(
    _: str, before: dict[str, GradingRow], after: dict[str, GradingRow]
) -> Iterator[CellChange]:
    """Yield the rows and cells that differ between two workbooks, in the order of the newer one."""
    for scan_id in dict.fromkeys([*after, *before]):
        change = partial(CellChange, scan_id=scan_id)
        if scan_id not in before or scan_id not in after:
            came = scan_id in after
            yield change(level="", column="row", kind="appeared" if came else "disappeared")
            continue
        was = _cells(before[scan_id])
        for (level, column), value in _cells(after[scan_id]).items():
            old = was[level, column]
            if value != old:
                yield change(level=level, column=column, kind="changed", old=old, new=value)


def _cells(row: GradingRow) -> dict[tuple[str, str], Any]:
    """Return the value of each cell of a row by level and column."""
    found = {("", name): value for name, value in row if name not in _NO_CELLS}
    if row.series_count:
        found["", "series"] = f"{row.series_number} of {row.series_count}"
    for level in LEVELS:
        shape = row.shapes.get(level)
        found[level, "grade"] = row.grades.get(level)
        found[level, "fracture_type"] = FRACTURE_TYPES[shape] if isinstance(shape, int) else shape
    return found


def _point_changes(scan_id: str, old: ScanSources, new: ScanSources) -> Iterator[PointChange]:
    """Yield what differs between two centroid files of one scan, in spine order."""
    sides = (old, new)
    affines = [side.grid.affine for side in sides if side.grid and side.placed]
    if {side.centroids.direction for side in sides if side.centroids} == {None}:
        affines = [np.eye(4)] * 2  # MICCAI's frame has voxels of 1 mm
    known = len(affines) == len(sides)
    before, after = (
        {level: apply_affine(affine, point.point) for level, point in side.points.items()}
        for side, affine in zip(sides, affines if known else [np.eye(4)] * 2, strict=True)
    )
    change = partial(PointChange, scan_id=scan_id)
    for level in LEVELS:
        if level in before and level in after:
            moved = round(float(np.linalg.norm(after[level] - before[level])), 4)
            if moved and known:
                yield change(level=level, kind="moved", distance=moved)
        elif level in after or level in before:
            yield change(level=level, kind="appeared" if level in after else "disappeared")
    if not known:
        yield change(level="", kind="axes")


_DIFFERENCES: Final[dict[Role, Callable[..., Iterator[Any]]]] = {
    "mask": _label_changes,
    "centroids": _point_changes,
    "grading": _cell_changes,
}
"""Function that yields the differences between two contents, by role."""
