"""Joins workbook, mask and centroids into records: outer, with a status, never by assuming they agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from verse_data.records.catalog import ExpectedSeries
from verse_data.records.centroids import Centroid
from verse_data.records.tables import (
    DEVICES,
    FRACTURE_TYPES,
    GradeStatus,
    GradingRow,
    ScanRecord,
    SubjectRecord,
    VertebraRecord,
)
from verse_data.spine.geometry import apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS, region
from verse_data.tables.sources import ScanSources, levels_of

_NO_POINT: Final = (None, None, None)


def scan_split(sources: ScanSources, row: GradingRow | None) -> Any:
    """Return the published split: the folder's word, else the workbook's."""
    return sources.scan.split or (row.split if row else None)


def vertebra_records(sources: ScanSources, row: GradingRow | None) -> list[VertebraRecord]:
    """Return one record for each level of a scan that anything speaks of, in spine order."""
    points = points_by_level(sources)
    graded = set(row.grades) if row else set()
    unplaced = levels_of(sources.centroids.unplaced) if sources.centroids else set()
    known = graded | sources.mask_levels | unplaced | set(points)
    return [_vertebra(sources, row, level, points.get(level)) for level in LEVELS if level in known]


def points_by_level(sources: ScanSources) -> dict[str, Centroid]:
    """Return the centroid of each level."""
    return {point.level: point for point in sources.centroids.points} if sources.centroids else {}


def _vertebra(
    sources: ScanSources, row: GradingRow | None, level: str, point: Centroid | None
) -> VertebraRecord:
    label = LABEL_OF_LEVEL[level]
    facts = sources.mask.labels.get(label) if sources.mask else None
    has_mask = None if sources.mask is None else facts is not None
    mark = row.grades.get(level) if row else None
    grade = None if mark == "x" else mark
    shape = row.shapes.get(level) if row else None
    ijk: Sequence[float | None] = point.point if point and sources.placed else _NO_POINT
    xyz: Sequence[float | None] = _NO_POINT
    if point and sources.placed and sources.grid:
        xyz = [float(value) for value in apply_affine(sources.grid.affine, point.point)]
    return VertebraRecord(
        scan_id=sources.scan.scan_id,
        subject_id=sources.scan.subject_id,
        split=scan_split(sources, row),
        level=level,  # type: ignore[arg-type]
        label=label,
        region=region(level),
        grade=grade,
        fracture_type=None if grade is None else FRACTURE_TYPES[int(shape)],  # type: ignore[arg-type]
        foreign_material=None if mark is None else mark == "x",
        grade_status=_status(mark, has_mask=has_mask),
        has_mask=has_mask,
        has_centroid=None if sources.centroids is None else point is not None,
        centroid_i=ijk[0],
        centroid_j=ijk[1],
        centroid_k=ijk[2],
        centroid_x=xyz[0],
        centroid_y=xyz[1],
        centroid_z=xyz[2],
        voxels=facts.voxels if facts else None,
        volume_mm3=facts.voxels * sources.grid.voxel_mm3 if facts and sources.grid else None,
        bmd_mg_cm3=row.bmd_mg_cm3 if row else None,
        age_years=row.age_years if row else None,
    )


def _status(mark: Any, *, has_mask: bool | None) -> GradeStatus:
    if mark is None:
        return "not_assessed"
    if has_mask is False:
        return "no_mask"
    return "foreign_material" if mark == "x" else "graded"


def scan_record(
    sources: ScanSources, row: GradingRow | None, expected: ExpectedSeries | None
) -> ScanRecord:
    """Return the record of one scan."""
    scan, grid, sidecar = sources.scan, sources.grid, sources.sidecar
    marks = list(row.grades.values()) if row else []
    grades = [mark for mark in marks if mark != "x"]
    shape: Sequence[int | None] = grid.shape if grid else _NO_POINT
    spacing: Sequence[float | None] = grid.spacing if grid else _NO_POINT
    device = DEVICES[row.ct_device] if row else (sidecar.device if sidecar else None)
    return ScanRecord(
        scan_id=scan.scan_id,
        subject_id=scan.subject_id,
        series_id=scan.series_id,
        series_label=scan.series_label,
        series=f"{row.series_number} of {row.series_count}"
        if row
        else (expected.series if expected else None),
        split=scan_split(sources, row),
        age_years=row.age_years if row else None,
        ct_device=device,
        ct_manufacturer=sidecar.manufacturer if sidecar else None,
        kvp=float(sidecar.kvp) if sidecar else None,
        resolution_mm=row.resolution_mm if row else None,
        bmd_mg_cm3=row.bmd_mg_cm3 if row else None,
        t_score=row.t_score if row else None,
        shape_i=shape[0],
        shape_j=shape[1],
        shape_k=shape[2],
        spacing_i=spacing[0],
        spacing_j=spacing[1],
        spacing_k=spacing[2],
        axcodes=grid.axcodes if grid else None,
        mask_dtype=str(sources.mask.dtype) if sources.mask else None,
        n_vertebrae=row.n_vertebrae if row else None,
        n_mask_labels=len(sources.mask.labels) if sources.mask else None,
        n_centroids=len(sources.centroids.points) if sources.centroids else None,
        n_graded=len(grades) if row else None,
        n_fractured=sum(grade > 0 for grade in grades) if row else None,
        n_foreign_material=marks.count("x") if row else None,
        max_grade=max(grades, default=None),
        has_ct="ct" in scan.files,
        has_ct_json="ct_json" in scan.files,
        has_mask="mask" in scan.files,
        has_centroids="centroids" in scan.files,
        has_grading=row is not None,
    )


def subject_records(
    scans: Iterable[ScanRecord], vertebrae: Iterable[VertebraRecord]
) -> list[SubjectRecord]:
    """Return one record for each subject; a level that several series show counts once."""
    series: dict[str, list[ScanRecord]] = defaultdict(list)
    for scan in scans:
        series[scan.subject_id].append(scan)
    seen: dict[str, list[VertebraRecord]] = defaultdict(list)
    for vertebra in vertebrae:
        seen[vertebra.subject_id].append(vertebra)
    return [_subject(subject, series[subject], seen[subject]) for subject in sorted(series)]


def _subject(
    subject: str, scans: list[ScanRecord], vertebrae: list[VertebraRecord]
) -> SubjectRecord:
    def first(name: str) -> Any:
        return next((value for scan in scans if (value := getattr(scan, name)) is not None), None)

    graded = {
        v.level: v.grade
        for v in sorted(vertebrae, key=lambda v: v.grade or 0)
        if v.grade is not None
    }
    foreign = {v.level for v in vertebrae if v.foreign_material}
    return SubjectRecord(
        subject_id=subject,
        split=first("split"),
        n_scans=len(scans),
        age_years=first("age_years"),
        ct_device=first("ct_device"),
        bmd_mg_cm3=first("bmd_mg_cm3"),
        t_score=first("t_score"),
        n_levels=len({v.level for v in vertebrae}),
        n_graded=len(graded),
        n_fractured=sum(grade > 0 for grade in graded.values()),
        n_foreign_material=len(foreign),
        max_grade=max(graded.values(), default=None),
        has_foreign_material=bool(foreign),
    )
