"""Builds the three tables and the list of findings from a release's files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd

from verse_data import markup
from verse_data.errors import FILE_FAULTS
from verse_data.problems import raise_faults
from verse_data.progress import Progress, silent
from verse_data.records.catalog import CatalogEntry, ExpectedSeries
from verse_data.records.lock import ReleaseLock
from verse_data.records.tables import GradingRow, PatientRow
from verse_data.tables.columns import to_frame
from verse_data.tables.findings import (
    Finding,
    broken_finding,
    grading_findings,
    index_findings,
    scan_findings,
)
from verse_data.tables.grading import Grading, check_sheet, read_grading
from verse_data.tables.index import Content, Index, ScanFiles, index_scans
from verse_data.tables.join import (
    BrokenFile,
    ScanSources,
    may_lack_t12,
    read_sources,
    scan_record,
    subject_records,
    vertebra_records,
)
from verse_data.tables.overlays import corrected, overlay_findings
from verse_data.tables.patients import patient_findings, read_own_patients
from verse_data.tables.workbook import choose_sheet, sort_tables


@dataclass(frozen=True)
class Tables:
    """The tables of one version of a release; their columns are in :mod:`verse_data.tables.columns`.

    Attributes
    ----------
    scans : DataFrame
        One row per CT series, sorted by scan id.
    vertebrae : DataFrame
        One row per scan and level; sorted by scan, then from head to foot.
    subjects : DataFrame
        One row per person.
    findings : DataFrame
        One row per disagreement or oddity: rule, message, severity, scan_id, subject_id, level,
        file, place.
    grading : Grading or None
        The grading workbook as read, with its rows of series that the release lacks.
    broken : tuple of BrokenFile
        Files that could not be read; the columns that they fill are missing in their scans' rows.
        A grading workbook among them has an empty scan id.
    """

    scans: pd.DataFrame
    vertebrae: pd.DataFrame
    subjects: pd.DataFrame
    findings: pd.DataFrame
    grading: Grading | None = None
    broken: tuple[BrokenFile, ...] = ()

    def __repr__(self) -> str:
        names = ("scans", "vertebrae", "subjects", "findings")
        return f"<Tables: {', '.join(f'{len(getattr(self, name)):,} {name}' for name in names)}>"

    def _repr_html_(self) -> str:
        """Return the size of each table for a notebook; each table shows itself."""
        names = ("scans", "vertebrae", "subjects", "findings")
        frames = {name: getattr(self, name) for name in names}
        rows = ((name, f"{len(frame):,}", ", ".join(frame)) for name, frame in frames.items())
        return markup.table(("table", "rows", "columns"), rows, caption="Tables", left=[2])

    def sound(
        self,
        scan_ids: Collection[str] | None = None,
        *,
        graded: bool = True,
        listing: str = "Release.findings",
    ) -> Tables:
        """Return these tables, or raise if a file of `scan_ids` (default: all scans) is broken.

        A broken file in one split does not keep the others from being used.
        """
        raise_faults([file.error for file in self.broken if graded and not file.scan_id])
        used = [f for f in self.broken if f.scan_id and (scan_ids is None or f.scan_id in scan_ids)]
        then = (
            "Scans whose files are all sound can be used without these: choose them by split or by "
            f"id. All broken files: {listing}"
        )
        raise_faults([file.error for file in used], then=then)
        return self


def build_tables(
    lock: ReleaseLock,
    content: Content,
    *,
    catalog: CatalogEntry | None,
    derived: Path | None,
    index: Index | None = None,
    progress: Progress = silent,
) -> Tables:
    """Read, check and join the metadata of a release; `index` has overlays laid over it.

    Files that are not on this machine leave their columns missing; nothing is fetched. So do files
    that cannot be read, each of which is a finding; see :meth:`Tables.sound`.
    """
    index = index or index_scans(lock, catalog=catalog)
    # The workbook's own process runs while the other files are read.
    with ThreadPoolExecutor(1) as executor:
        here = [file for file in map(content, index.grading) if file]
        sorting = executor.submit(sort_tables, here)
        sources = read_sources(index.scans, content, derived=derived, progress=progress)
    broken = [file for scan in sources for file in scan.broken]
    grading = None
    fitting, others = sorting.result()
    try:
        if sheet := choose_sheet(fitting):
            unread = {one.scan.series_id for one in index.withheld}
            without = may_lack_t12(sources) | unread
            grading = check_sheet(sheet, index.listed, without_t12=without)
    except FILE_FAULTS as error:
        broken.append(BrokenFile("", "", min(fitting), error))
    rows = grading.by_scan(index) if grading else {}
    shared = index.shared_series
    expected = {
        scan.scan_id: scan.published
        for scan in index.scans
        if scan.published and scan.series_id not in shared
    }
    patients = _patients(index, content, broken)
    sources = [replace(scan, patient=patients.get(scan.scan.own_subject)) for scan in sources]
    joined = [_corrected(scan, rows.get(scan.scan.scan_id), broken) for scan in sources]
    findings = [*map(broken_finding, broken), *index_findings(index), *overlay_findings(index)]
    for path, why in others.items():
        message = f"is not the grading workbook, and left alone: {why}"
        findings.append(Finding(rule="unknown-file", severity="note", file=path, message=message))
    reports = catalog.reported if catalog else ()
    findings += [found for scan, row in joined for found in scan_findings(scan, row, reports)]
    findings += patient_findings(patients, index)
    if grading:
        findings += grading_findings(grading, index)
    elif all(file.scan_id or file.path not in fitting for file in broken):
        findings.append(_no_workbook([f.path for f in index.grading if content(f) is None]))
    made = _tables(joined, grading, findings, expected, patients)
    return replace(made, broken=tuple(broken))


def _corrected(
    sources: ScanSources, row: GradingRow | None, broken: list[BrokenFile]
) -> tuple[ScanSources, GradingRow | None]:
    """Return a scan as overlays correct it; empty, and added to `broken`, if one does not fit."""
    scan = sources.scan
    try:
        return corrected(sources, row)
    except FILE_FAULTS as error:  # no rows rather than rows of the wrong levels
        broken.append(BrokenFile(scan.scan_id, scan.subject_id, "", error))
        return ScanSources(scan), None


def tables_of_workbook(workbook: Path) -> Tables:
    """Return the tables that a grading workbook alone makes: no file of any scan is looked at."""
    grading = read_grading(workbook)
    joined = [(ScanSources(_scan_of(graded.row)), graded.row) for graded in grading.rows]
    joined.sort(key=lambda pair: pair[0].scan.scan_id)
    return _tables(joined, grading, [], {}, {})


def _tables(
    joined: Sequence[tuple[ScanSources, GradingRow | None]],
    grading: Grading | None,
    findings: Iterable[Finding],
    expected: Mapping[str, ExpectedSeries],
    patients: Mapping[str, PatientRow],
) -> Tables:
    """Return the tables of scans, each with its grades."""
    scans = [scan_record(scan, row, expected.get(scan.scan.scan_id)) for scan, row in joined]
    own = ((s.scan.subject_id, patients.get(s.scan.own_subject)) for s, _ in reversed(joined))
    people = {subject: patient for subject, patient in own if patient and patient.sex}
    vertebrae = [record for scan, row in joined for record in vertebra_records(scan, row)]
    return Tables(
        scans=to_frame("scans", scans),
        vertebrae=to_frame("vertebrae", vertebrae),
        subjects=to_frame("subjects", subject_records(scans, vertebrae, people)),
        findings=_findings_frame(findings),
        grading=grading,
    )


def _scan_of(row: GradingRow) -> ScanFiles:
    label = None if row.series_id == row.subject_id else row.series_id
    return ScanFiles(row.scan_id, row.subject_id, label, row.series_id, row.split, files={})


def _patients(index: Index, content: Content, broken: list[BrokenFile]) -> dict[str, PatientRow]:
    """Return the rows of ``patients.csv`` by subject; a broken one is added to `broken`."""
    file = content(index.patients) if index.patients else None
    if file is None:
        return {}
    try:
        return {row.subject_id: row for row in read_own_patients(file, index.listed)}
    except FILE_FAULTS as error:
        broken.append(BrokenFile("", "", file.name, error))
        return {}


def _findings_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return each distinct finding as a row of strings, sorted by scan; those of none come last."""
    rows = [asdict(finding) for finding in dict.fromkeys(findings)]
    rows.sort(key=lambda row: (row["scan_id"] == "", row["scan_id"]))
    return pd.DataFrame(rows, columns=[field.name for field in fields(Finding)], dtype="string")


def _no_workbook(absent: Sequence[str]) -> Finding:
    """Return the finding that there are no grades, and why: tables that are not here may hold them."""
    listed = ", ".join(absent)
    why = "the grading workbook is not on this machine"
    if not listed:
        why = "no grading workbook is listed by the lock"
    return Finding(
        rule="no-workbook",
        severity="warning" if listed else "note",
        file=listed,
        message=f"{why}: grades, foreign material, bone density and ages are missing",
    )
