"""The scans of a set of paths, and what the set lacks: told from names, folders and the catalog."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from verse_data.records.catalog import CatalogEntry
from verse_data.records.names import Role, Split
from verse_data.tables.findings import Finding

_NEEDED: tuple[Role, ...] = ("ct", "mask", "centroids")
"""What every scan of a release has; ``_ct.json`` came with VerSe'19 alone, snapshots are extras."""


@dataclass(frozen=True)
class ScanNames:
    """What names and folders say of one CT series."""

    scan_id: str
    subject_id: str
    series_label: str | None
    series_id: str
    split: Split | None


@dataclass(frozen=True)
class ScanPaths(ScanNames):
    """One CT series with the paths of its files, by role."""

    paths: dict[Role, str]


@dataclass(frozen=True)
class PathIndex:
    """All scans of a set of paths.

    Attributes
    ----------
    scans : tuple of ScanPaths
        Sorted by scan id.
    grading : tuple of str
        Paths of grading workbooks.
    unknown : tuple of str
        Paths whose names fit no role.
    findings : tuple of Finding
        What is odd about the names.
    """

    scans: tuple[ScanPaths, ...]
    grading: tuple[str, ...]
    unknown: tuple[str, ...]
    findings: tuple[Finding, ...]


def spelling_findings(scans: Iterable[ScanPaths]) -> Iterator[Finding]:
    """Yield a finding for names of subjects that differ in case alone, and so count as two people."""
    spelled: dict[str, dict[str, None]] = defaultdict(dict)
    for scan in scans:
        spelled[scan.subject_id.lower()][scan.subject_id] = None
    for names in spelled.values():
        if len(names) > 1:
            yield Finding(
                rule="subject-spelled-twice",
                subject_id=next(iter(names)),
                message=f"{' and '.join(names)} differ in case alone, and count as different subjects",
            )


def split_findings(scans: Iterable[ScanPaths]) -> Iterator[Finding]:
    """Yield a finding for each subject whose series lie in several splits."""
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    for scan in scans:
        if scan.split:
            splits[scan.subject_id].setdefault(scan.split, scan.scan_id)
    for subject, found in splits.items():
        if len(found) > 1:
            listed = ", ".join(f"{scan_id} in {split}" for split, scan_id in found.items())
            yield Finding(
                rule="subject-in-two-splits",
                subject_id=subject,
                message=f"series of one subject lie in several splits: {listed}",
            )


class _OfSeries(Protocol):
    @property
    def series_id(self) -> str: ...


_Scan = TypeVar("_Scan", bound=_OfSeries)


def by_series(scans: Iterable[_Scan]) -> dict[str, list[_Scan]]:
    """Return the scans of each series: more than one if names differ in ``ses-``, ``ce-``, ``dir-``."""
    groups: dict[str, list[_Scan]] = defaultdict(list)
    for scan in scans:
        groups[scan.series_id].append(scan)
    return dict(groups)


def shared_findings(scans: Iterable[ScanPaths]) -> Iterator[Finding]:
    """Yield a finding for each scan whose series has another scan: a row of it could be of either."""
    for series, found in by_series(scans).items():
        for scan in found if len(found) > 1 else ():
            listed = ", ".join(scan.scan_id for scan in found)
            yield Finding(
                rule="series-shared",
                scan_id=scan.scan_id,
                subject_id=scan.subject_id,
                message=f"{len(found)} scans are of series {series} by name: {listed}; a row of the workbook "
                f"could be of each of them, and is joined to none",
            )


def gap_findings(scans: Iterable[ScanPaths], catalog: CatalogEntry | None) -> Iterator[Finding]:
    """Yield a finding for each file that a scan lacks, and each expected series that is not there."""
    notes = (
        {(gap.scan_id, role): gap.note for gap in catalog.known_gaps for role in gap.roles}
        if catalog
        else {}
    )
    here = by_series(scans)
    for scan in (scan for shared in here.values() for scan in shared):
        for role in _NEEDED:
            if role not in scan.paths:
                note = notes.get((scan.scan_id, role))
                known = f" (known: {note})" if note else ""
                yield Finding(
                    rule="missing-file",
                    scan_id=scan.scan_id,
                    subject_id=scan.subject_id,
                    message=f"the release lists no {role} of this scan{known}",
                )
    for series in catalog.expected if catalog else ():
        found = here.get(series.series_id, [])
        if not found:
            yield Finding(
                rule="missing-scan",
                scan_id=series.scan_id,
                subject_id=series.subject_id,
                message=f"the catalog expects this series in {series.split}, and no file of it is listed",
            )
        for scan in found:
            if scan.split != series.split:
                yield Finding(
                    rule="split-differs",
                    scan_id=scan.scan_id,
                    subject_id=series.subject_id,
                    message=f"lies in {scan.split}, and was published in {series.split}",
                )
