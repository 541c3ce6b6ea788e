"""Findings: disagreements between files, and between the data and the paper; kept and listed.

The rules of one scan are generators that yield rule name, role of the file, level and message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from verse_data.errors import counted
from verse_data.records.catalog import Reported
from verse_data.records.names import Role, parse_path
from verse_data.records.tables import DEVICES, GradingRow
from verse_data.spine.geometry import Grid, apply_affine
from verse_data.spine.levels import GRADED_LEVELS, LEVEL_OF_LABEL, LEVELS
from verse_data.tables.anatomy import Seen, disorders, level_rules
from verse_data.tables.grading import Grading
from verse_data.tables.index import Index, ScanFiles, base_name, folder_split, grouped
from verse_data.tables.join import BrokenFile, ScanSources
from verse_data.volumes.nifti_guard import range_doubt

if TYPE_CHECKING:
    from verse_data.volumes.mask_facts import VolumeFacts

Severity = Literal["error", "warning", "note"]

YOUNGEST_YEARS: Final = 30
"""Löffler et al. 2020 included patients older than this."""

RESOLUTIONS_MM: Final = (1.0, 2.0, 3.0)
"""Sagittal slice spacings that the paper names."""

_LEAST_HU, _MOST_HU = -1500, 4095
"""No scanner measures less; more than a 12-bit scale holds. Interpolation overshoots by far less."""
_ITK_TOLERANCE: Final = 1e-4
"""Of axes times their transpose: itkNiftiImageIO.cxx refuses an sform that is farther from identity."""
_OF_MASK: Final = {"t13", "l6", "no-t12", "no-l5", "label-unknown"}
"""Rules that a report names and the CT is not needed for."""

_NEEDED: Final[tuple[Role, ...]] = ("ct", "mask", "centroids")
"""Files that every scan has; only VerSe'19 came with ``_ct.json``, and snapshots are extras."""

_EXPECTED_EXTRAS: Final = {
    "readme.txt", "readme.md", "licence.txt", "license.txt", "licence", "license",
    "dataset_description.json", ".gitattributes",
}  # fmt: skip
"""Files beside the data that are no finding."""

_NOTES: Final = {
    "t13", "l6", "no-t12", "no-l5", "mask-without-grade", "ct-padding", "ct-metal", "reported", "terms",
}  # fmt: skip
"""Rules whose findings are unusual but no disagreement."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One disagreement or oddity that a reader of the tables should know, with its place.

    Attributes
    ----------
    rule : str
        Short name of the kind, such as ``"bmd-zero"``.
    message : str
        What was seen.
    severity : str
        ``"error"`` where a file cannot be read, ``"warning"`` where data disagree or are missing,
        ``"note"`` where they are merely odd.
    scan_id, subject_id, level : str
        What it is about; empty where it is about more.
    file, place : str
        Path in the release, and the place in the file.
    """

    rule: str
    message: str
    severity: Severity = "warning"
    scan_id: str = ""
    subject_id: str = ""
    level: str = ""
    file: str = ""
    place: str = ""


def broken_finding(file: BrokenFile) -> Finding:
    """Return a file that cannot be read as a finding, in one line."""
    return Finding(
        rule="broken-file",
        severity="error",
        scan_id=file.scan_id,
        subject_id=file.subject_id,
        file=file.path,
        message=" ".join(str(file.error).split()),
    )


def _of(scan: ScanFiles, rule: str, message: str, **more: Any) -> Finding:
    severity: Severity = "note" if rule in _NOTES else "warning"
    about = {"scan_id": scan.scan_id, "subject_id": scan.subject_id, **more}
    return Finding(rule=rule, message=message, severity=severity, **about)


# --- names, folders and the catalog ---------------------------------------------------------------


def index_findings(index: Index) -> Iterator[Finding]:
    """Yield unusual names in a lock, and the files and series that it lacks."""
    for scan in index.scans:
        yield from _name_findings(scan, index)
    for file in index.unknown:
        if base_name(file.path) not in _EXPECTED_EXTRAS:
            message = "the name fits no role of either layout; the file is left alone"
            yield Finding(rule="unknown-file", severity="note", file=file.path, message=message)
    yield from _subject_findings(index)
    yield from _gaps(index)


def _name_findings(scan: ScanFiles, index: Index) -> Iterator[Finding]:
    """Yield where name and folder of a scan's files contradict each other, or the catalog."""
    for file in scan.files.values():
        name, split = parse_path(file.path), folder_split(file.path, index.catalog)
        if split not in {scan.split, None}:
            message = f"lies in a folder of {split}, the scan's other files in {scan.split}"
            yield _of(scan, "split-differs", message, file=file.path)
        folder = file.path.rsplit("/", 2)[-2] if "/" in file.path else ""
        if name and folder.startswith("sub-") and folder != f"sub-{name.subject_id}":
            message = f"is named after {name.subject_id}, but lies in {folder}"
            yield _of(scan, "wrong-folder", message, file=file.path)
    for role, file in scan.spare:
        message = f"a second {role} of this scan; {scan.files[role].path} is used"
        yield _of(scan, "second-file", message, file=file.path)
    named = scan.scan_id.partition("_")[0]
    if named != scan.own_subject:
        message = (
            f"the name says {named}; it was published as a series of {scan.own_subject}, and is "
            f"grouped so"
        )
        yield _of(scan, "subject-differs", message)


def _subject_findings(index: Index) -> Iterator[Finding]:
    """Yield names of subjects that differ only in case, and subjects in several splits."""
    for same in grouped(index.scans, lambda scan: scan.subject_id.lower()).values():
        names = list(dict.fromkeys(scan.subject_id for scan in same))
        if len(names) > 1:
            message = f"{' and '.join(names)} differ in case alone, and count as different subjects"
            yield Finding(rule="subject-spelled-twice", subject_id=names[0], message=message)
    with_ct = [scan for scan in index.scans if "ct" in scan.files]
    for same in grouped(with_ct, lambda scan: scan.files["ct"].sha256).values():
        if len(same) > 1:
            message = (
                f"the CTs of {', '.join(scan.scan_id for scan in same)} are one file, byte by byte"
            )
            yield _of(same[0], "same-ct", message)
    for subject, own in grouped(index.scans, lambda scan: scan.subject_id).items():
        first: dict[str, str] = {}
        for scan in own:
            if scan.split:
                first.setdefault(scan.split, scan.scan_id)
        if len(first) > 1:
            listed = ", ".join(f"{scan_id} in {split}" for split, scan_id in first.items())
            message = f"series of one subject lie in several splits: {listed}"
            yield Finding(rule="subject-in-two-splits", subject_id=subject, message=message)


def _gaps(index: Index) -> Iterator[Finding]:
    """Yield each file that a scan lacks, and each expected series that the lock lacks."""
    catalog, by_series = index.catalog, grouped(index.listed, lambda scan: scan.series_id)
    known = catalog.known_gaps if catalog else ()
    notes = {(gap.scan_id, role): f" (known: {gap.note})" for gap in known for role in gap.roles}
    for scan in index.scans:
        for role in _NEEDED:
            if role not in scan.files:
                note = notes.get((scan.scan_id, role), "")
                yield _of(scan, "missing-file", f"the release lists no {role} of this scan{note}")
        if scan.published and scan.split != scan.published.split:
            message = f"lies in {scan.split}, and was published in {scan.published.split}"
            yield _of(scan, "split-differs", message)
        if scan.published and (terms := scan.published.terms):
            message = f"the terms of this imaging are {terms}, whatever the licence of the release"
            yield _of(scan, "terms", message)
    for series in catalog.expected if catalog else ():
        if series.series_id not in by_series:
            message = (
                f"the catalog expects this series in {series.split}, and no file of it is listed"
            )
            yield Finding(
                rule="missing-scan",
                message=message,
                scan_id=series.scan_id,
                subject_id=series.subject_id,
            )


# --- the workbook ---------------------------------------------------------------------------------


def grading_findings(grading: Grading, index: Index) -> Iterator[Finding]:
    """Yield workbook values that the paper excludes, rows without scan, and scans without row."""
    sheet, series = grading.sheet, {scan.series_id for scan in index.listed}
    if sheet.is_list:
        yield from _list_findings(grading, index)
        return
    name = f"sheet {sheet.sheet}, " if sheet.sheet else ""
    expected = index.catalog.expected if index.catalog else ()
    missing = {known.scan_id for known in expected if known.series_id not in series}
    for graded in grading.rows:
        row, scan_id = graded.row, graded.scan_id
        seen = partial(Finding, scan_id=scan_id, subject_id=row.subject_id, file=sheet.file)
        for rule, heading, message in _unusual_values(row):
            place = f"{name}row {graded.number}, column {sheet.column(heading)}"
            yield seen(rule=rule, severity="note", place=place, message=message)
        if row.series_id not in series and scan_id not in missing:
            message = "the workbook has a row of this series, and the release no file"
            place = f"row {graded.number}"
            yield seen(rule="grading-without-scan", place=place, message=message)
    rows = {graded.row.series_id for graded in grading.rows}
    for scan in index.scans:
        if scan.series_id not in rows:
            message = "the workbook has no row of this series"
            yield _of(scan, "scan-without-grading", message, file=sheet.file)
        elif scan.series_id in index.shared_series:
            same = [one.scan_id for one in index.scans if one.series_id == scan.series_id]
            message = (
                f"{len(same)} scans are of series {scan.series_id} by name: {', '.join(same)}; its row "
                f"could be of each of them, and is joined to none"
            )
            yield _of(scan, "series-shared", message, file=sheet.file)


def _list_findings(grading: Grading, index: Index) -> Iterator[Finding]:
    """Yield scans of a list of grades without a file, and scans of the release that it lacks."""
    scans = {scan.scan_id: scan for scan in index.listed}
    rows, file = {graded.scan_id: graded for graded in grading.rows}, grading.sheet.file
    for name, graded in rows.items():
        if name not in scans:
            message = "the list of grades names this scan, and the release has no file of it"
            at: Any = {"scan_id": name, "subject_id": graded.row.subject_id, "file": file}
            place = f"row {graded.number}"
            yield Finding(rule="grading-without-scan", message=message, place=place, **at)
    for scan in index.scans:
        if scan.scan_id not in rows:
            message = "the list of grades has no line of this scan"
            yield _of(scan, "scan-without-grading", message, file=file)


def _unusual_values(row: Any) -> Iterator[tuple[str, str, str]]:
    """Yield rule, heading and message of values that the paper excludes or does not mention."""
    age, filled = row.age_years, len(row.grades)
    if age < YOUNGEST_YEARS:
        message = f"{age:g} years; the paper included patients older than {YOUNGEST_YEARS}"
        yield "age-below-30", "age_ct", message
    if row.bmd_mg_cm3 == 0:
        message = "a density of 0: measured, or a stand-in for missing; the source does not say"
        yield "bmd-zero", "BMD", message
    if row.resolution_mm not in RESOLUTIONS_MM:
        message = f"{row.resolution_mm:g} mm; the paper names 1, 2, 3 mm"
        yield "resolution-unlisted", "Res", message
    if not filled:
        yield "no-graded-level", "T1_fx-g", "no level of this series was graded"
    if row.n_vertebrae < filled:
        vertebrae = counted(row.n_vertebrae, "vertebra", "vertebrae")
        message = f"{vertebrae}, and {counted(filled, 'level')} with a grade or x"
        yield "fewer-vertebrae-than-grades", "N_vertebrae", message
    if "L4" in row.grades and "L5" not in row.grades:
        message = "L4 is graded and L5 is blank: not assessed, or not there"
        yield "ends-at-l4", "L5_fx-g", message


# --- the files of one scan ------------------------------------------------------------------------


def scan_findings(
    sources: ScanSources, row: GradingRow | None, reports: Iterable[Reported] = ()
) -> Iterator[Finding]:
    """Yield every disagreement between the files of one scan, its workbook row, and what others report."""
    seen = [*_grid_rules(sources), *_centroid_rules(sources), *level_rules(sources)]
    seen += _row_rules(sources, row) if row else ()
    seen += _reported(sources, {rule for rule, *_ in seen}, reports)
    for rule, role, level, message in seen:
        file = sources.scan.files.get(role) if role else None
        yield _of(sources.scan, rule, message, level=level, file=file.path if file else "")


def _grid_rules(sources: ScanSources) -> Seen:
    for note in sources.mask.notes if sources.mask else ():
        yield "mask-header", "mask", "", f"the header of the mask: {note}"
    yield from _skew_rules(sources)
    if sources.header is None:
        return
    for note in sources.header.notes:
        yield "ct-header", "ct", "", f"the header of the CT: {note}"
    yield from _range_rules(sources.header.low, sources.header.high)
    if sources.mask is None:
        return
    mask, ct = Grid.of(sources.mask), Grid.of(sources.header)
    if mask.shape != ct.shape:
        message = f"the mask has shape {mask.shape} and the CT {ct.shape}"
        yield "mask-shape", "mask", "", message
    elif not ct.matches(mask):
        message = f"corners of mask and CT lie up to {ct.distance(mask):.2f} mm apart"
        yield "mask-affine", "mask", "", message


def _skew_rules(sources: ScanSources) -> Seen:
    volumes: tuple[tuple[Role, VolumeFacts | None], ...] = (
        ("ct", sources.header),
        ("mask", sources.mask),
    )
    for role, volume in volumes:
        if volume and (angle := skew(np.array(volume.affine))):
            message = (
                f"its axes are not perpendicular (by {angle:.2g} degrees): ITK, and so SimpleITK and "
                f"nnU-Net, refuse it unless it has a qform"
            )
            yield "not-orthonormal", role, "", message


def _range_rules(low: int, high: int) -> Seen:
    if doubt := range_doubt(low, high):
        yield "ct-range", "ct", "", doubt
    if low < _LEAST_HU:
        message = f"values down to {low} HU: padding, as air is -1000; clip at -1024"
        yield "ct-padding", "ct", "", message
    if high > _MOST_HU:
        message = f"values up to {high} HU: metal, beyond a 12-bit scale"
        yield "ct-metal", "ct", "", message


def skew(affine: npt.NDArray[np.float64]) -> float:
    """Return by how many degrees axes are not perpendicular; 0 if ITK takes them for perpendicular."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(axes @ axes.T - np.eye(3)).max() <= _ITK_TOLERANCE:
        return 0.0
    return float(np.degrees(np.arcsin(np.abs(np.triu(axes.T @ axes, 1)).max())))


def _reported(sources: ScanSources, found: set[str], reports: Iterable[Reported]) -> Seen:
    """Yield what others say of this scan, and whether its files show it, once they are here."""
    for report in reports:
        needed = [sources.mask, *[sources.header] * (not _OF_MASK.issuperset(report.rules))]
        if sources.scan.scan_id in report.scan_ids and None not in needed:
            shown = [rule for rule in report.rules if rule in found]
            verdict = f"its files show it ({', '.join(shown)})"
            if not shown:
                verdict = f"its files show nothing of the kind ({', '.join(report.rules)})"
            yield "reported", None, "", f"others say: {report.says} [{report.source}]; {verdict}"


def _centroid_rules(sources: ScanSources) -> Seen:
    file, grid = sources.centroids, sources.grid
    if file is None:
        return
    for label in file.unplaced:
        message = f"the point of label {label} holds NaN and is left out"
        yield "centroid-nan", "centroids", LEVEL_OF_LABEL.get(label, ""), message
    for label in file.others:
        yield "label-unknown", "centroids", "", f"label {label} names no vertebra"
    if file.direction is None:
        message = "no direction entry: MICCAI's own 1 mm frame; positions are left out"
        yield "centroid-frame", "centroids", "", message
    elif grid and not sources.placed:
        rule, message = "direction", f"says {file.direction}, the image runs {grid.axcodes}"
        if file.direction == grid.axcodes:
            rule = "frame"
            message = (
                f"says {file.shape or file.zoom}, the image has shape {grid.shape} and voxels of "
            )
            message += f"{grid.spacing} mm"
        yield f"centroid-{rule}", "centroids", "", f"{message}; positions are left out"
    elif grid:
        yield from _point_rules(sources, grid)
        positions = {x: apply_affine(grid.affine, at.point) for x, at in sources.points.items()}
        for level, message in disorders(positions):
            yield "levels-out-of-order", "centroids", level, message


def _point_rules(sources: ScanSources, grid: Grid) -> Seen:
    for level, point in sources.points.items():
        if not grid.holds(point.point):
            message = f"{point.point} lies outside the image of shape {grid.shape}"
            yield "centroid-outside-image", "centroids", level, message
        # C1 is a ring, whose centre lies in the hole; a label that the mask lacks has its own rule.
        elif sources.mask and level != "C1" and point.label in sources.mask.labels:
            found = sources.mask.label_at(point.voxel)
            if found != point.label:
                there = LEVEL_OF_LABEL.get(found, "no vertebra")
                message = f"{point.point} lies outside {level}: the mask has {there} there"
                yield "centroid-outside-mask", "centroids", level, message


def _row_rules(sources: ScanSources, row: GradingRow) -> Seen:
    scan, centroids, sidecar = sources.scan, sources.centroids, sources.sidecar
    if scan.own_subject != row.subject_id:
        yield "subject-differs", None, "", f"the workbook says subject {row.subject_id}"
    if scan.split and row.split and scan.split != row.split:
        message = f"lies in {scan.split}, and the workbook says {row.split}"
        yield "split-differs", None, "", message
    device = DEVICES[row.ct_device] if row.ct_device else None
    if sidecar and device and sidecar.device != device:
        yield "device-differs", "ct_json", "", f"says {sidecar.device}, and the workbook {device}"
    points = len(centroids.points) + len(centroids.unplaced) if centroids else 0
    if centroids and row.n_vertebrae and points != row.n_vertebrae:
        vertebrae = counted(row.n_vertebrae, "vertebra", "vertebrae")
        message = f"{counted(points, 'point')}; the workbook says {vertebrae}"
        yield "n-vertebrae-differs", "centroids", "", message
    for level in LEVELS if sources.mask else ():
        if level in row.grades and level not in sources.mask_levels:
            message = f"the workbook says {row.grades[level]}, and the mask lacks {level}"
            yield "grade-without-mask", "mask", level, message
        if level in {*GRADED_LEVELS} & sources.mask_levels and level not in row.grades:
            message = f"the mask has {level}, and no grade is given: not assessed"
            yield "mask-without-grade", "mask", level, message
