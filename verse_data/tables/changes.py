"""What changed from one grading workbook to another, cell by cell, and in centroid files, point by point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from verse_data.records.centroids import CentroidFile
from verse_data.records.tables import FRACTURE_TYPES
from verse_data.spine.geometry import Grid, apply_affine
from verse_data.spine.levels import GRADED_LEVELS, LEVEL_OF_LABEL, LEVELS
from verse_data.tables.checks import row_scan_id
from verse_data.tables.grading import FIELDS, GradedRow, read_cells
from verse_data.tables.workbook import Sheet

Kind = Literal["appeared", "changed", "disappeared"]

_COUNTS: Final = {"foreign_material", "N_Fx"}
"""Counts of the row's own grades, which a workbook writes as formulas and a CSV export as numbers."""


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
    kind: Kind
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


def cell_changes(old: Sheet, new: Sheet) -> Iterator[CellChange]:
    """Yield what differs between two workbooks by scan and cell, in the order of the newer one."""
    before, after = _rows(old), _rows(new)
    for series in [*after, *(series for series in before if series not in after)]:
        if series in before and series in after:
            yield from _row_changes(before[series], after[series])
            continue
        kind: Kind = "appeared" if series in after else "disappeared"
        row = after.get(series) or before[series]
        yield CellChange(scan_id=_scan_id(row), level="", column="row", kind=kind)


def _rows(sheet: Sheet) -> dict[str, GradedRow]:
    """Return the rows of a sheet by series; one whose series is no number, or a second one, by its place."""
    rows: dict[str, GradedRow] = {}
    for source in sheet.rows:
        taken = read_cells(sheet, source, [])
        name = f"row {taken.number}" if "verse_ID" in taken.bad else taken.row.series_id
        rows[f"{name}, row {taken.number}" if name in rows else name] = taken
    return rows


def _scan_id(taken: GradedRow) -> str:
    if "verse_ID" in taken.bad:
        return f"row {taken.number}"
    unsure = {"subject_ID", "CT_image_series"} & taken.bad
    return taken.row.series_id if unsure else row_scan_id(taken.row)


def _row_changes(old: GradedRow, new: GradedRow) -> Iterator[CellChange]:
    before, after = _cells(old), _cells(new)
    for level, column in before:
        values = before[level, column], after[level, column]
        if values[0] != values[1]:
            yield CellChange(
                scan_id=_scan_id(new),
                level=level,
                column=column,
                kind="changed",
                old=values[0],
                new=values[1],
            )


def _cells(taken: GradedRow) -> dict[tuple[str, str], Any]:
    """Return the value of each cell of a row by level and column; of a bad cell what stands there."""
    row, found = taken.row, dict[tuple[str, str], tuple[str, Any]]()
    for field, heading, _ in FIELDS:
        if heading not in _COUNTS:
            found["", field] = heading, getattr(row, field)
    found["", "series"] = "CT_image_series", f"{row.series_number} of {row.series_count}"
    for level in GRADED_LEVELS:
        found[level, "grade"] = f"{level}_fx-g", row.grades.get(level)
        found[level, "fracture_type"] = f"{level}_fx-s", _shape(row.shapes.get(level))
    return {
        place: taken.source.cells.get(heading) if heading in taken.bad else value
        for place, (heading, value) in found.items()
    }


def _shape(code: Any) -> Any:
    return FRACTURE_TYPES[code] if isinstance(code, int) else code


def point_changes(
    scan_id: str,
    old: CentroidFile,
    new: CentroidFile,
    *,
    grids: tuple[Grid | None, Grid | None] = (None, None),
) -> Iterator[PointChange]:
    """Yield what differs between two centroid files of one scan, in spine order."""
    before, after, unit = _positions(old, new, grids)
    for level in LEVELS:
        if level in before and level in after:
            if unit is None:
                continue
            moved = round(float(np.linalg.norm(np.subtract(after[level], before[level]))), 4)
            if moved:
                yield PointChange(
                    scan_id=scan_id, level=level, kind="moved", distance=moved, unit=unit
                )
        elif level in after:
            yield PointChange(scan_id=scan_id, level=level, kind="appeared")
        elif level in before:
            yield PointChange(scan_id=scan_id, level=level, kind="disappeared")
    if unit is None:
        yield PointChange(scan_id=scan_id, level="", kind="axes")


_Points = Mapping[str, tuple[float, float, float]]


def _positions(
    old: CentroidFile, new: CentroidFile, grids: tuple[Grid | None, Grid | None]
) -> tuple[_Points, _Points, Literal["mm", "voxels"] | None]:
    """Return the points of both by level, and their common unit; None if they have none."""
    files = (old, new)
    before, after = ({LEVEL_OF_LABEL[p.label]: p.point for p in file.points} for file in files)
    if old.direction is None and new.direction is None:
        return before, after, "mm"  # MICCAI's frame has voxels of 1 mm
    if None in {old.direction, new.direction}:
        return before, after, None
    if all(
        grid is not None and grid.axcodes == file.direction
        for file, grid in zip(files, grids, strict=True)
    ):
        placed = [
            {level: _world(grid, point) for level, point in points.items()}
            for points, grid in zip((before, after), grids, strict=True)
            if grid is not None
        ]
        return placed[0], placed[1], "mm"
    return before, after, "voxels" if old.direction == new.direction else None


def _world(grid: Grid, point: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = apply_affine(grid.affine, point).tolist()
    return (x, y, z)
