"""Which locked files belong to which CT series."""

from __future__ import annotations

from dataclasses import dataclass

from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import Role
from verse_data.tables.findings import Finding
from verse_data.tables.path_index import index_paths
from verse_data.tables.scan_paths import ScanNames


@dataclass(frozen=True)
class ScanFiles(ScanNames):
    """One CT series with its locked files, by role."""

    files: dict[Role, LockedFile]


@dataclass(frozen=True)
class Index:
    """All scans of a lock; as :class:`PathIndex`, with the locked files in place of paths."""

    scans: tuple[ScanFiles, ...]
    grading: tuple[LockedFile, ...]
    unknown: tuple[LockedFile, ...]
    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        return f"<Index: {len(self.scans):,} scans, {len(self.findings):,} findings>"


def index_scans(lock: ReleaseLock, *, catalog: CatalogEntry | None = None) -> Index:
    """Return which files of `lock` belong to which scan."""
    by_path = lock.by_path
    found = index_paths(by_path, catalog=catalog)
    scans = tuple(
        ScanFiles(
            scan.scan_id,
            scan.subject_id,
            scan.series_label,
            scan.series_id,
            scan.split,
            {role: by_path[path] for role, path in scan.paths.items()},
        )
        for scan in found.scans
    )
    grading = tuple(by_path[path] for path in found.grading)
    return Index(scans, grading, tuple(by_path[path] for path in found.unknown), found.findings)
