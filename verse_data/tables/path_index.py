"""Which paths belong to which CT series: by name, never by sorting or position."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from verse_data.records.catalog import CatalogEntry, ExpectedSeries
from verse_data.records.names import FileName, Layout, Role, Split, parse_path, split_of
from verse_data.tables.findings import Finding
from verse_data.tables.scan_paths import (
    PathIndex,
    ScanPaths,
    gap_findings,
    shared_findings,
    spelling_findings,
    split_findings,
)

_GRADING_NAME: Final = re.compile(r"appendixe1|grading|scores")
_PLAIN: frozenset[str] = frozenset(
    {
        "readme.txt",
        "readme.md",
        "licence.txt",
        "license.txt",
        "licence",
        "license",
        "dataset_description.json",
        ".gitattributes",
    }
)
"""Files beside the data that need no word."""


@dataclass
class _Group:
    name: FileName
    split: Split | None
    paths: dict[Role, str] = field(default_factory=dict)


def index_paths(paths: Iterable[str], *, catalog: CatalogEntry | None = None) -> PathIndex:
    """Return which of `paths` belong to which scan; see :func:`index_scans`."""
    groups: dict[tuple[Layout, str], _Group] = {}
    roots = (
        {root: split for split, names in catalog.roots.items() for root in names} if catalog else {}
    )
    findings: list[Finding] = []
    grading, unknown = [], []
    placed: list[tuple[str, FileName]] = []
    for path in sorted(paths):
        name = parse_path(path)
        if name is None:
            unknown.append(path)
        elif name.role == "grading":
            grading.append(path)
        else:
            placed.append((path, name))
    # Subject-based names first: a MICCAI file beside them belongs to the scan that they name.
    for path, name in sorted(placed, key=lambda item: item[1].layout == "miccai"):
        _place(groups, name, path, _split(path, roots), findings)
    # Beside a workbook of a known name, others are somebody's notes.
    named = [path for path in grading if _GRADING_NAME.search(path.rsplit("/", 1)[-1].lower())]
    unknown += [path for path in grading if named and path not in named]
    expected = {series.series_id: series for series in catalog.expected} if catalog else {}
    scans = [
        _scan(group, expected.get(group.name.series_id), findings) for group in groups.values()
    ]
    scans.sort(key=lambda scan: scan.scan_id)
    findings += [
        Finding(
            rule="unknown-file",
            severity="note",
            file=path,
            message="the name fits no role of either layout; the file is left alone",
        )
        for path in unknown
        if path.rsplit("/", 1)[-1].lower() not in _PLAIN
    ]
    findings += [*spelling_findings(scans), *split_findings(scans), *shared_findings(scans)]
    findings += gap_findings(scans, catalog)
    return PathIndex(tuple(scans), tuple(named or grading), tuple(unknown), tuple(findings))


def _scan(group: _Group, known: ExpectedSeries | None, findings: list[Finding]) -> ScanPaths:
    """Return a scan; where the catalog knows the series, its person is the published one."""
    name, split, subject = group.name, group.split, group.name.subject_id
    if known and known.subject_id != subject:
        subject = known.subject_id
        message = f"the name says {name.subject_id}; it was published as a series of {subject}, and is grouped so"
        findings.append(
            Finding(
                rule="subject-differs", scan_id=name.scan_id, subject_id=subject, message=message
            )
        )
    if known and split is None:
        split = known.split
    return ScanPaths(name.scan_id, subject, name.series_label, name.series_id, split, group.paths)


def _split(path: str, roots: dict[str, Split]) -> Split | None:
    """Return the split that a root of the catalog, or else the folder's own name, says."""
    folders = path.split("/")[:-1]
    return next((roots[folder] for folder in folders if folder in roots), None) or split_of(path)


def _place(
    groups: dict[tuple[Layout, str], _Group],
    name: FileName,
    path: str,
    split: Split | None,
    findings: list[Finding],
) -> None:
    """Put one file into its scan's group, and note what is odd about it."""
    # MICCAI names of one series may differ in their middle part; the series' own name does not.
    group = groups.get(("subject", name.scan_id))
    if name.layout == "miccai" and group is None:
        group = groups.setdefault(("miccai", name.series_id), _Group(name, split))
    elif group is None:
        group = groups[("subject", name.scan_id)] = _Group(name, split)

    def note(rule: str, message: str) -> None:
        scan_id, subject_id = group.name.scan_id, name.subject_id
        findings.append(
            Finding(rule=rule, message=message, scan_id=scan_id, subject_id=subject_id, file=path)
        )

    if name.role in group.paths:
        # MICCAI snapshots come in pairs; of everything else a scan has one.
        if name.role != "snapshot":
            used = group.paths[name.role]
            note("second-file", f"a second {name.role} of this scan; {used} is used")
        return
    group.paths[name.role] = path
    group.split = group.split or split
    if split not in {group.split, None}:
        note(
            "split-differs", f"lies in a folder of {split}, the scan's other files in {group.split}"
        )
    folder = path.rsplit("/", 2)[-2] if "/" in path else ""
    if folder.startswith("sub-") and folder != f"sub-{name.subject_id}":
        note("wrong-folder", f"is named after {name.subject_id}, but lies in {folder}")
