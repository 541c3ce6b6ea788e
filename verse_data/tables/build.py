"""From a release's files to its three tables and its list of findings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from verse_data.errors import FILE_FAULTS, ValidationFailed
from verse_data.progress import Progress, silent
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.tables.broken import BrokenFile, raise_broken
from verse_data.tables.checks import grading_findings, row_scan_id, scan_findings
from verse_data.tables.columns import to_frame
from verse_data.tables.findings import FINDING_COLUMNS, Finding, as_rows
from verse_data.tables.grading import GradedRow, Grading, check_sheet
from verse_data.tables.index import Index, index_scans
from verse_data.tables.join import scan_record, subject_records, vertebra_records
from verse_data.tables.scan_paths import by_series
from verse_data.tables.sources import Content, ScanSources, read_sources
from verse_data.tables.workbook import Sheet, read_locked_sheet


@dataclass(frozen=True)
class Tables:
    """The tables of one version of a release; their columns are in :mod:`verse_data.tables.columns`.

    Attributes
    ----------
    scans : DataFrame
        One row a CT series, sorted by scan id.
    vertebrae : DataFrame
        One row a scan and level; sorted by scan, then from head to foot.
    subjects : DataFrame
        One row a person.
    findings : DataFrame
        One row a disagreement or oddity: rule, message, severity, scan_id, subject_id, level, file,
        place.
    grading : Grading or None
        The grading workbook as read, with its rows of series that the release lacks.
    broken : tuple of BrokenFile
        Files that could not be read; what their scans' rows say of them is missing. The grading
        workbook, which is of no scan, is among them without a scan id.
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

    def sound(
        self,
        scan_ids: Collection[str] | None = None,
        *,
        graded: bool = True,
        listing: str = "Release.findings",
    ) -> Tables:
        """Return these tables, if every file of `scan_ids` (default: of all scans) could be read.

        A broken file of one split is no reason not to use another; what is used must be whole.
        """
        for file in self.broken:
            if graded and not file.scan_id:
                raise type(file.error)(str(file.error))
        of_scans = [file for file in self.broken if file.scan_id]
        here = [file for file in of_scans if scan_ids is None or file.scan_id in scan_ids]
        raise_broken(here, listing=listing)
        return self


def build_tables(
    lock: ReleaseLock,
    content: Content,
    *,
    catalog: CatalogEntry | None,
    derived: Path,
    progress: Progress = silent,
) -> Tables:
    """Read, check and join the metadata of a release.

    Files that are not on this machine leave their columns missing; nothing is fetched. So do files
    that cannot be read, each of which is a finding; see :meth:`Tables.sound`.
    """
    index = index_scans(lock, catalog=catalog)
    # The workbook's own process runs while the other files are read.
    with ThreadPoolExecutor(1) as beside:
        sheet = beside.submit(_sheet, index.grading, content)
        sources = read_sources(index.scans, content, derived=derived, progress=progress)
    broken = [file for scan in sources for file in scan.broken]
    grading = None
    try:
        grading = _grading(sheet.result(), sources)
    except FILE_FAULTS as error:
        broken.append(BrokenFile("", "", index.grading[0].path, error))
    rows = {graded.row.series_id: graded for graded in grading.rows} if grading else {}
    expected = {series.series_id: series for series in catalog.expected} if catalog else {}
    # What is said of a series is said of no scan, where names do not tell which of several is meant.
    several = by_series(index.scans)
    shared = {series for series, found in several.items() if len(found) > 1}
    rows = {series: graded for series, graded in rows.items() if series not in shared}
    expected = {series: known for series, known in expected.items() if series not in shared}
    scans, vertebrae = [], []
    for scan in sources:
        graded = rows.get(scan.scan.series_id)
        row = graded.row if graded else None
        scans.append(scan_record(scan, row, expected.get(scan.scan.series_id)))
        vertebrae += vertebra_records(scan, row)
    findings = [file.finding() for file in broken]
    findings += [*index.findings, *_findings(sources, grading, rows, index)]
    if grading is None and all(file.scan_id for file in broken):
        findings.append(_no_workbook(index))
    return Tables(
        scans=to_frame("scans", scans),
        vertebrae=to_frame("vertebrae", vertebrae),
        subjects=to_frame("subjects", subject_records(scans, vertebrae)),
        findings=findings_frame(findings),
        grading=grading,
        broken=tuple(broken),
    )


def findings_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """Return findings as a DataFrame of texts."""
    return pd.DataFrame(as_rows(findings), columns=list(FINDING_COLUMNS), dtype="string")


def _sheet(files: Sequence[LockedFile], content: Content) -> Sheet | None:
    """Read the one grading workbook of the release, if it is here."""
    distinct = {file.sha256: file for file in files}
    if len(distinct) > 1:
        listed = ", ".join(file.path for file in distinct.values())
        raise ValidationFailed(
            f"The release has {len(distinct)} different grading workbooks: {listed}. "
            f"Keep the one that holds, and lock again."
        )
    here = (content(file) for file in distinct.values())
    return next((read_locked_sheet(file) for file in here if file), None)


def _grading(sheet: Sheet | None, sources: Sequence[ScanSources]) -> Grading | None:
    return None if sheet is None else check_sheet(sheet, without_t12=may_lack_t12(sources))


def may_lack_t12(sources: Sequence[ScanSources]) -> set[str]:
    """Return the series without T12, and those whose labels nobody knows here: they may lack it too."""
    return {scan.scan.series_id for scan in sources if scan.lacks_t12 is not False}


def _findings(
    sources: Sequence[ScanSources],
    grading: Grading | None,
    rows: dict[str, GradedRow],
    index: Index,
) -> Iterator[Finding]:
    for scan in sources:
        graded = rows.get(scan.scan.series_id)
        yield from scan_findings(scan, graded.row if graded else None)
    if grading is None:
        return
    yield from grading_findings(grading)
    series = {scan.scan.series_id for scan in sources}
    graded_series = {graded.row.series_id for graded in grading.rows}
    missing = {finding.scan_id for finding in index.findings if finding.rule == "missing-scan"}
    for graded in grading.rows:
        scan_id = row_scan_id(graded.row)
        if graded.row.series_id not in series and scan_id not in missing:
            yield Finding(
                rule="grading-without-scan",
                scan_id=scan_id,
                subject_id=graded.row.subject_id,
                file=grading.sheet.file,
                place=f"row {graded.number}",
                message="the workbook has a row of this series, and the release no file",
            )
    for scan in sources:
        if scan.scan.series_id not in graded_series:
            yield Finding(
                rule="scan-without-grading",
                scan_id=scan.scan.scan_id,
                subject_id=scan.scan.subject_id,
                file=grading.sheet.file,
                message="the workbook has no row of this series",
            )


def _no_workbook(index: Index) -> Finding:
    """Return the finding that nothing here is graded, and why."""
    listed = ", ".join(file.path for file in index.grading)
    why = "is not on this machine" if listed else "is listed by the lock"
    return Finding(
        rule="no-workbook",
        severity="warning" if listed else "note",
        file=listed,
        message=f"{'the' if listed else 'no'} grading workbook {why}: grades, foreign material, bone "
        f"density and ages are missing",
    )
