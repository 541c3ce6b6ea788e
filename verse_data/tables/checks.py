"""What is listed as a finding: where files disagree, or where data break what the paper says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from verse_data.errors import counted
from verse_data.records.names import Role
from verse_data.records.tables import DEVICES, GradingRow
from verse_data.spine.geometry import Grid, apply_affine
from verse_data.spine.levels import GRADED_LEVELS, LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS
from verse_data.tables.anatomy import disorders
from verse_data.tables.findings import Finding, Severity
from verse_data.tables.grading import GradedRow, Grading
from verse_data.tables.join import points_by_level
from verse_data.tables.sources import ScanSources

YOUNGEST_YEARS: Final = 30
"""Löffler et al. 2020 included patients older than this."""

RESOLUTIONS_MM: Final = (1.0, 2.0, 3.0)
"""Sagittal slice spacings that the paper names."""


class _Seen(NamedTuple):
    """What one rule saw in one scan."""

    rule: str
    message: str
    role: Role | None = None
    level: str = ""
    severity: Severity = "warning"


def grading_findings(grading: Grading) -> Iterator[Finding]:
    """Yield what the workbook says that the paper does not, row by row."""
    for graded in grading.rows:
        for heading, rule, message in _odd(graded.row):
            yield Finding(
                rule=rule,
                severity="note",
                scan_id=row_scan_id(graded.row),
                subject_id=graded.row.subject_id,
                file=grading.sheet.file,
                place=place(grading, graded, heading),
                message=message,
            )


def row_scan_id(row: GradingRow) -> str:
    """Return the scan id that a row of the workbook stands for."""
    alone = row.series_count == 1
    return row.series_id if alone else f"{row.subject_id}_split-{row.series_id}"


def place(grading: Grading, graded: GradedRow, heading: str) -> str:
    """Return sheet, row and column as findings show them."""
    sheet = f"sheet {grading.sheet.sheet}, " if grading.sheet.sheet else ""
    return f"{sheet}row {graded.number}, column {grading.sheet.column(heading)}"


def _odd(row: GradingRow) -> Iterator[tuple[str, str, str]]:
    age, filled = row.age_years, len(row.grades)
    if age < YOUNGEST_YEARS:
        message = f"{age:g} years; the paper included patients older than {YOUNGEST_YEARS}"
        yield "age_ct", "age-below-30", message
    if row.bmd_mg_cm3 == 0:
        message = "a density of 0: measured, or a stand-in for missing; the source does not say"
        yield "BMD", "bmd-zero", message
    if row.resolution_mm not in RESOLUTIONS_MM:
        yield "Res", "resolution-unlisted", f"{row.resolution_mm:g} mm; the paper names 1, 2, 3 mm"
    if not filled:
        yield "T1_fx-g", "no-graded-level", "no level of this series was graded"
    if row.n_vertebrae < filled:
        message = f"{counted(row.n_vertebrae, 'vertebra', 'vertebrae')}, and {counted(filled, 'level')} with a grade or x"
        yield "N_vertebrae", "fewer-vertebrae-than-grades", message
    if "L4" in row.grades and "L5" not in row.grades:
        yield "L5_fx-g", "ends-at-l4", "L4 is graded and L5 is blank: not assessed, or not there"


def scan_findings(sources: ScanSources, row: GradingRow | None) -> Iterator[Finding]:
    """Yield every disagreement between the files of one scan and its workbook row."""
    seen = [*_grid_rules(sources), *_centroid_rules(sources), *_mask_rules(sources)]
    seen += _row_rules(sources, row) if row else ()
    for rule, message, role, level, severity in seen:
        file = sources.scan.files.get(role) if role else None
        yield Finding(
            rule=rule,
            severity=severity,
            scan_id=sources.scan.scan_id,
            subject_id=sources.scan.subject_id,
            level=level,
            file=file.path if file else "",
            message=message,
        )


def _in_order(levels: set[str]) -> list[str]:
    return [level for level in LEVELS if level in levels]


def _grid_rules(sources: ScanSources) -> Iterator[_Seen]:
    for note in sources.ct_notes:
        yield _Seen("ct-header", f"the header of the CT: {note}", "ct")
    if sources.mask is None or sources.ct_grid is None:
        return
    mask, ct = Grid.of(sources.mask), sources.ct_grid
    if mask.shape != ct.shape:
        message = f"the mask has shape {mask.shape} and the CT {ct.shape}"
        yield _Seen("mask-shape", message, "mask")
    elif not ct.matches(mask):
        message = f"corners of mask and CT lie up to {ct.distance(mask):.2f} mm apart"
        yield _Seen("mask-affine", message, "mask")


def _centroid_rules(sources: ScanSources) -> Iterator[_Seen]:
    file = sources.centroids
    if file is None:
        return
    for label in file.unplaced:
        message = f"the point of label {label} holds NaN and is left out"
        yield _Seen("centroid-nan", message, "centroids", LEVEL_OF_LABEL.get(label, ""))
    if file.frame == "isotropic":
        message = "no direction entry: MICCAI's own 1 mm frame; positions are left out"
        yield _Seen("centroid-frame", message, "centroids")
    elif not sources.placed and sources.grid:
        message = (
            f"says {file.direction}, the image runs {sources.grid.axcodes}; positions are left out"
        )
        yield _Seen("centroid-direction", message, "centroids")
    else:
        yield from _point_rules(sources)
        yield from _order_rules(sources)


def _order_rules(sources: ScanSources) -> Iterator[_Seen]:
    if sources.grid is None:
        return
    points = points_by_level(sources).items()
    positions = {level: apply_affine(sources.grid.affine, point.point) for level, point in points}
    for level, message in disorders(positions):
        yield _Seen("levels-out-of-order", message, "centroids", level)


def _point_rules(sources: ScanSources) -> Iterator[_Seen]:
    for level, point in points_by_level(sources).items():
        if sources.grid and not sources.grid.holds(point.point):
            message = f"{point.point} lies outside the image of shape {sources.grid.shape}"
            yield _Seen("centroid-outside-image", message, "centroids", level)
        # C1 is a ring, whose centre lies in the hole; a label that the mask lacks has its own rule.
        elif sources.mask and level != "C1" and point.label in sources.mask.labels:
            found = sources.mask.label_at(point.voxel)
            if found != point.label:
                there = LEVEL_OF_LABEL.get(found, "no vertebra")
                message = f"{point.point} lies outside {level}: the mask has {there} there"
                yield _Seen("centroid-outside-mask", message, "centroids", level)


def _mask_rules(sources: ScanSources) -> Iterator[_Seen]:
    mask = sources.mask
    if mask is None:
        return
    masked = sources.mask_levels
    for label in sorted(set(mask.labels) - set(LEVEL_OF_LABEL)):
        yield _Seen("label-unknown", f"label {label} names no vertebra", "mask")
    for level in _in_order(masked):
        facts = mask.labels[LABEL_OF_LEVEL[level]]
        if facts.crumbs:
            message = f"{facts.crumbs} of {facts.voxels:,} voxels lie apart from the vertebra"
            yield _Seen("crumbs", message, "mask", level)
    if sources.centroids is not None:
        pointed = set(points_by_level(sources))
        for level in _in_order(masked - pointed):
            message = f"{level} has a mask and no centroid"
            yield _Seen("mask-without-centroid", message, "mask", level)
        for level in _in_order(pointed - masked):
            message = f"{level} has a centroid and no mask"
            yield _Seen("centroid-without-mask", message, "centroids", level)
    if "T13" in masked:
        message = "a thirteenth thoracic vertebra; its label is 28"
        yield _Seen("t13", message, "mask", "T13", "note")
    if sources.lacks_t12:
        yield _Seen("no-t12", "L1 follows T11", "mask", "T12", "note")


def _row_rules(sources: ScanSources, row: GradingRow) -> Iterator[_Seen]:
    scan, centroids = sources.scan, sources.centroids
    if scan.subject_id != row.subject_id:
        yield _Seen("subject-differs", f"the workbook says subject {row.subject_id}")
    if scan.split and scan.split != row.split:
        yield _Seen("split-differs", f"lies in {scan.split}, and the workbook says {row.split}")
    device = DEVICES[row.ct_device]
    if sources.sidecar and sources.sidecar.device != device:
        message = f"says {sources.sidecar.device}, and the workbook {device}"
        yield _Seen("device-differs", message, "ct_json")
    if centroids and len(centroids.points) + len(centroids.unplaced) != row.n_vertebrae:
        told = counted(row.n_vertebrae, "vertebra", "vertebrae")
        message = f"{counted(len(centroids.points), 'point')}; the workbook says {told}"
        yield _Seen("n-vertebrae-differs", message, "centroids")
    if sources.mask is None:
        return
    masked = sources.mask_levels
    for level in GRADED_LEVELS:
        if level in row.grades and level not in masked:
            message = f"the workbook says {row.grades[level]}, and the mask lacks {level}"
            yield _Seen("grade-without-mask", message, "mask", level)
        if level in masked and level not in row.grades:
            message = f"the mask has {level}, and the workbook leaves it blank: not assessed"
            yield _Seen("mask-without-grade", message, "mask", level, "note")
