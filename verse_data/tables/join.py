"""Reads the metadata of each scan's files, and outer-joins it with the workbook.

Nothing here assumes that grades, mask and centroids agree; their disagreements become findings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import FILE_FAULTS, VerseDataError
from verse_data.progress import Progress
from verse_data.records.catalog import ExpectedSeries
from verse_data.records.centroids import Centroid, CentroidFile
from verse_data.records.names import Role
from verse_data.records.source_file import SourceFile
from verse_data.records.tables import (
    DEVICES,
    FRACTURE_TYPES,
    CtSidecar,
    GradingRow,
    PatientRow,
    ScanRecord,
    SubjectRecord,
    VertebraRecord,
    parse_ct_sidecar,
)
from verse_data.spine.geometry import Grid, apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS, region
from verse_data.tables.index import (
    Content,
    ScanFiles,
    grouped,
    read_centroids,
    read_small,
    scan_file,
)

if TYPE_CHECKING:
    from verse_data.volumes.mask_facts import VolumeFacts

_THREADS: Final = 4
_OF_ROW: Final = ("resolution_mm", "n_vertebrae")
_OF_PATIENT: Final = ("age_years", "bmd_mg_cm3", "t_score")
_OF_SUBJECT: Final = ("split", "age_years", "ct_device", "bmd_mg_cm3", "t_score")


@dataclass(frozen=True)
class BrokenFile:
    """One file that is here but cannot be read, and why; the grading workbook has no ids."""

    scan_id: str
    subject_id: str
    path: str
    error: VerseDataError


def _levels(labels: Iterable[int]) -> set[str]:
    return {LEVEL_OF_LABEL[label] for label in labels if label in LEVEL_OF_LABEL}


@dataclass(frozen=True)
class ScanSources:
    """The contents of one scan's files; None where a file is not listed, not here, or `broken`."""

    scan: ScanFiles
    centroids: CentroidFile | None = None
    sidecar: CtSidecar | None = None
    mask: VolumeFacts | None = None
    header: VolumeFacts | None = None
    broken: tuple[BrokenFile, ...] = ()
    patient: PatientRow | None = None

    @cached_property
    def grid(self) -> Grid | None:
        """The voxel grid of the CT, or else of the mask."""
        volume = self.header or self.mask
        return Grid.of(volume) if volume else None

    @property
    def placed(self) -> bool:
        """Whether the centroids are indices of this scan's own grid, as far as is known."""
        file, grid = self.centroids, self.grid
        return bool(file and file.direction and (grid is None or file.fits(grid)))

    @cached_property
    def points(self) -> dict[str, Centroid]:
        """The centroid of each level."""
        return {p.level: p for p in self.centroids.points} if self.centroids else {}

    @cached_property
    def mask_levels(self) -> set[str]:
        """Levels whose label the mask has; empty if it was not read."""
        return _levels(self.mask.labels) if self.mask else set()

    @cached_property
    def levels(self) -> set[str]:
        """Levels that mask or centroids have."""
        unplaced = _levels(self.centroids.unplaced) if self.centroids else set()
        return self.mask_levels | self.points.keys() | unplaced

    @property
    def lacks_t12(self) -> bool | None:
        """Whether mask or centroids skip T12; None if neither was read."""
        if self.centroids is None and self.mask is None:
            return None
        return {"T11", "L1"} <= self.levels and "T12" not in self.levels


def read_sources(
    scans: Sequence[ScanFiles], content: Content, *, derived: Path | None, progress: Progress
) -> list[ScanSources]:
    """Read centroid files, ``_ct.json`` files, mask facts and CT headers of all `scans`."""
    found: list[ScanSources] = []
    # Decompressing and counting a mask release the GIL, so threads are enough; a few of them,
    # since each holds a whole mask.
    threads = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    with threads, progress("Reading metadata", len(scans), "items") as advance:
        for sources in threads.map(lambda scan: _read_scan(scan, content, derived), scans):
            found.append(sources)
            advance(1)
    return found


def _read_scan(scan: ScanFiles, content: Content, derived: Path | None) -> ScanSources:
    from verse_data.volumes.mask_facts import image_facts, mask_facts

    found: dict[str, Any] = {}
    broken: list[BrokenFile] = []

    def take(role: Role, name: str, read: Callable[[SourceFile], Any]) -> None:
        try:
            file = scan_file(scan, role, content)
            found[name] = read(file) if file else None
        except FILE_FAULTS as error:
            path = scan.files[role].path
            broken.append(BrokenFile(scan.scan_id, scan.subject_id, path, error))

    take("centroids", "centroids", read_centroids)
    take("ct_json", "sidecar", read_sidecar)
    centroids = found.get("centroids")
    points = [p.voxel for p in centroids.points] if centroids and centroids.direction else []
    take("mask", "mask", partial(mask_facts, derived=derived, points=points))
    take("ct", "header", partial(image_facts, derived=derived))
    return ScanSources(scan, **found, broken=tuple(broken))


def read_sidecar(file: SourceFile) -> CtSidecar | None:
    """Return what VerSe says in a ``_ct.json`` file; None if another tool wrote it."""
    return parse_ct_sidecar(read_small(file), name=file.name)


def _split(sources: ScanSources, row: GradingRow | None) -> Any:
    """Return the published split: that of the folder, else of the workbook."""
    return sources.scan.split or (row.split if row else None)


def _of_series(scan: ScanFiles) -> dict[str, Any]:
    """Return the editions of a series, and its direction, which a MICCAI name may have otherwise."""
    direction = re.search(r"_dir-([A-Za-z0-9]+)", scan.scan_id)
    return {
        "edition": scan.published.edition if scan.published else None,
        "direction": direction[1] if direction else None,
    }


def vertebra_records(sources: ScanSources, row: GradingRow | None) -> list[VertebraRecord]:
    """Return one record for each level in mask, centroids or workbook, in spine order."""
    known = sources.levels | (row.grades.keys() if row else set())
    return [_vertebra(sources, row, level) for level in LEVELS if level in known]


def _vertebra(sources: ScanSources, row: GradingRow | None, level: str) -> VertebraRecord:
    scan, grid, point = sources.scan, sources.grid, sources.points.get(level)
    known: dict[str, Any] = dict.fromkeys(VertebraRecord.model_fields)
    known |= {"scan_id": scan.scan_id, "subject_id": scan.subject_id}
    known |= {"level": level, "label": LABEL_OF_LEVEL[level], "region": region(level)}
    known |= {"split": _split(sources, row), **_of_series(sources.scan)}
    has_mask = None
    if sources.mask:
        facts = sources.mask.labels.get(known["label"])
        has_mask = known["has_mask"] = facts is not None
        if facts and grid:
            known |= {"voxels": facts.voxels, "volume_mm3": facts.voxels * grid.voxel_mm3}
    if sources.centroids:
        known["has_centroid"] = point is not None
    if point and sources.placed:
        known |= _by_axis("centroid", "ijk", point.point)
        if grid:
            world = apply_affine(grid.affine, point.point).tolist()
            known |= _by_axis("centroid", "xyz", world)
    known |= _of_person(sources, row, ("bmd_mg_cm3", "age_years"))
    return VertebraRecord(**known | _assessment(row, level, has_mask=has_mask))


def _of_person(
    sources: ScanSources, row: GradingRow | None, names: Iterable[str]
) -> dict[str, Any]:
    """Return values of the person: of the workbook, and of the patient table where it has none."""
    found = {name: getattr(row, name, None) for name in names}
    return {
        name: getattr(sources.patient, name, None) if value is None else value
        for name, value in found.items()
    }


def _by_axis(name: str, axes: str, values: Iterable[float]) -> dict[str, float]:
    return {f"{name}_{axis}": value for axis, value in zip(axes, values, strict=True)}


def _assessment(row: GradingRow | None, level: str, *, has_mask: bool | None) -> dict[str, Any]:
    """Return the assessment of one vertebra in the workbook; x is foreign material."""
    mark = row.grades.get(level) if row else None
    if row is None or mark is None:
        return {"grade_status": "not_assessed"}
    is_foreign = mark == "x"
    status = "foreign_material" if is_foreign else "graded"
    found = {"foreign_material": is_foreign, "grade_status": status}
    if has_mask is False:
        found["grade_status"] = "no_mask"
    if not is_foreign:
        shape = row.shapes.get(level)  # a list of grades may lack it
        found |= {
            "grade": mark,
            "fracture_type": None if shape is None else FRACTURE_TYPES[int(shape)],
        }
    return found


def scan_record(
    sources: ScanSources, row: GradingRow | None, expected: ExpectedSeries | None
) -> ScanRecord:
    """Return the record of one scan."""
    scan, grid, sidecar = sources.scan, sources.grid, sources.sidecar
    known: dict[str, Any] = dict.fromkeys(ScanRecord.model_fields)
    known |= {name: getattr(scan, name) for name in known.keys() & vars(scan).keys()}
    known |= {f"has_{role}": role in scan.files for role in ("ct", "ct_json", "mask", "centroids")}
    known |= {"split": _split(sources, row), "has_grading": row is not None}
    known |= _of_series(scan)
    if expected:
        known["series"] = expected.series
    if sidecar:
        known |= {"ct_device": sidecar.device, "ct_manufacturer": sidecar.manufacturer}
        known["kvp"] = float(sidecar.kvp)
    if grid:
        known |= _by_axis("shape", "ijk", grid.shape) | _by_axis("spacing", "ijk", grid.spacing)
        known["axcodes"] = grid.axcodes
    if sources.mask:
        known |= {"mask_dtype": sources.mask.dtype, "n_mask_labels": len(sources.mask.labels)}
    if sources.centroids:
        known["n_centroids"] = len(sources.centroids.points)
    if row:
        known |= {name: getattr(row, name) for name in _OF_ROW}
        known |= _counts([*row.grades.values()])
        if row.ct_device:
            known["ct_device"] = DEVICES[row.ct_device]
        if row.series_count:
            known["series"] = f"{row.series_number} of {row.series_count}"
    return ScanRecord(**known | _of_person(sources, row, _OF_PATIENT))


def _counts(marks: Sequence[Any]) -> dict[str, Any]:
    """Return the counts of grades, of fractures and of x among `marks`, and the highest grade."""
    grades = [mark for mark in marks if mark != "x"]
    return {
        "n_graded": len(grades),
        "n_fractured": sum(grade > 0 for grade in grades),
        "n_foreign_material": len(marks) - len(grades),
        "max_grade": max(grades, default=None),
    }


def subject_records(
    scans: Iterable[ScanRecord],
    vertebrae: Iterable[VertebraRecord],
    patients: Mapping[str, PatientRow],
) -> list[SubjectRecord]:
    """Return one record for each subject, by name."""
    series = grouped(scans, lambda scan: scan.subject_id)
    seen = grouped(vertebrae, lambda vertebra: vertebra.subject_id)
    return [
        _subject(name, own, seen.get(name, []), patients.get(name))
        for name, own in sorted(series.items())
    ]


def _subject(
    subject: str,
    scans: list[ScanRecord],
    vertebrae: list[VertebraRecord],
    patient: PatientRow | None,
) -> SubjectRecord:
    known: dict[str, Any] = {"subject_id": subject, "n_scans": len(scans)}
    known["sex"] = patient.sex if patient else None
    for name in _OF_SUBJECT:
        values = (getattr(scan, name) for scan in scans)
        known[name] = next((value for value in values if value is not None), None)
    # A level that several series show counts once, with its highest grade.
    grades: dict[str, int] = {}
    for vertebra in vertebrae:
        if vertebra.grade is not None:
            grades[vertebra.level] = max(vertebra.grade, grades.get(vertebra.level, 0))
    foreign = {vertebra.level for vertebra in vertebrae if vertebra.foreign_material}
    known |= _counts([*grades.values(), *("x" for _ in foreign)])
    known["n_levels"] = len({vertebra.level for vertebra in vertebrae})
    return SubjectRecord(**known, has_foreign_material=bool(foreign))


def may_lack_t12(sources: Iterable[ScanSources]) -> set[str]:
    """Return the series without T12, and those whose labels are not known and which may lack it."""
    return {scan.scan.series_id for scan in sources if scan.lacks_t12 is not False}
