"""Checks that files are what their names say, in a local tree before locking and in a release."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from verse_data.errors import (
    FILE_FAULTS,
    ValidationFailed,
    VerseDataError,
    VolumeCorrupt,
    counted,
    warn,
)
from verse_data.problems import listed, raise_faults
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import Role, role_of
from verse_data.records.source_file import SourceFile
from verse_data.releases.history import command, unless_newest
from verse_data.releases.repository import Repository
from verse_data.releases.verify import LEVELS, FileFinding, Level, Verification, audit, verify_files
from verse_data.spine.geometry import Grid
from verse_data.tables.findings import index_findings
from verse_data.tables.grading import Grading, check_sheet
from verse_data.tables.index import Content, Index, ScanFiles, index_scans, read_centroids
from verse_data.tables.join import may_lack_t12, read_sidecar, read_sources
from verse_data.tables.patients import read_own_patients
from verse_data.tables.workbook import Sheet, choose_sheet, sort_tables

_THREADS: Final = 4
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"IEND\xaeB`\x82"
_FATAL: Final = {"wrong-folder", "subject-in-two-splits", "subject-spelled-twice"}
"""Findings that keep a tree from being locked."""


def check_tree(lock: ReleaseLock, folder: Path, *, progress: Progress = silent) -> None:
    """Check every file of a local tree, and raise one error for all that is wrong.

    Checked are names, JSON files, the grading workbook, and each volume: its header, its whole
    stream with its checksum, and that mask and CT have the same grid.
    """

    def content(file: LockedFile) -> SourceFile:
        return SourceFile(folder / file.path, file.annex_key, name=file.path)

    index = index_scans(lock)
    faults: list[VerseDataError] = [
        ValidationFailed(f"{found.file or found.subject_id}: {found.message}.")
        for found in index_findings(index)
        if found.rule in _FATAL
    ]
    if not index.scans:
        why = "No file of the tree has a name of VerSe's layouts, such as"
        faults.append(ValidationFailed(f"{why} rawdata/sub-verse004/sub-verse004_ct.nii.gz."))
    # Decompressing releases the GIL; few threads, since each holds a whole volume.
    threads = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    with threads, progress("Checking files", len(index.scans), "items") as advance:
        for found in threads.map(lambda scan: _faults(scan, content), index.scans):
            faults += found
            advance(1)
    try:
        if sheet := choose_sheet(sort_tables(map(content, index.grading))[0]):
            grading = check_workbook(sheet, index.scans, content)
            if (
                sheet.is_list
            ):  # the published workbook has rows of all series, also for a part of them
                named = {graded.scan_id for graded in grading.rows}
                _warn_of_strangers(sheet.file, "scan", named, {s.scan_id for s in index.scans})
    except FILE_FAULTS as error:
        faults.append(error)
    if index.patients:
        try:
            rows = read_own_patients(content(index.patients), index.scans)
            named = {row.subject_id for row in rows}
            known = {scan.subject_id for scan in index.scans}
            _warn_of_strangers(index.patients.path, "patient", named, known)
        except FILE_FAULTS as error:
            faults.append(error)
    head = f"{len(faults)} problems in the tree; nothing was written:" if len(faults) > 1 else ""
    raise_faults(faults, head=head)


def _warn_of_strangers(file: str, what: str, named: set[str], known: set[str]) -> None:
    """Warn of rows of a lab's own table that fill nothing."""
    if unknown := sorted(named - known):
        warn(
            UserWarning(
                f"{file} has {counted(len(unknown), what)} that the tree has not: "
                f"{listed(unknown)}. What it says of them is not used. The tree has "
                f"{listed(sorted(known))}."
            )
        )


def _faults(scan: ScanFiles, content: Callable[[LockedFile], SourceFile]) -> list[VerseDataError]:
    """Return what is wrong with the files of one scan."""
    from verse_data.volumes.nifti import check_pair, read_image, read_mask

    faults: list[VerseDataError] = []
    grids: dict[str, Grid] = {}
    for role, file in scan.files.items():
        source = content(file)
        try:
            if role in {"ct", "mask"}:
                read = read_image if role == "ct" else read_mask
                with source.checked():
                    volume = read(source.path, name=source.name, sha256=source.sha256)
                grids[role] = Grid.of(volume)
            elif role != "snapshot":
                inspect_content(source)
        except FILE_FAULTS as error:
            faults.append(error)
    if len(grids) > 1:
        try:
            check_pair(grids["ct"], grids["mask"], name=scan.files["mask"].path)
        except FILE_FAULTS as error:
            faults.append(error)
    return faults


def check_workbook(
    sheet: Sheet, scans: Sequence[ScanFiles], content: Content, *, derived: Path | None = None
) -> Grading:
    """Return the rows of a workbook of `scans`, or raise ValidationFailed for all that is wrong.

    A blank T12 is allowed where a spine has none; masks and centroids are read only for that.
    """
    check_sheet(sheet, scans, without_t12={scan.series_id for scan in scans})
    try:
        return check_sheet(sheet, scans)
    except ValidationFailed:
        sources = read_sources(scans, content, derived=derived, progress=silent)
        return check_sheet(sheet, scans, without_t12=may_lack_t12(sources))


def inspect_content(
    file: SourceFile, *, derived: Path | None = None, scans: Sequence[ScanFiles] = ()
) -> None:
    """Raise one of our errors if the content of a file cannot be used for what its name says.

    A series of `scans` may have a blank T12 between graded levels of the workbook.
    """
    role = role_of(file.name)
    if role == "ct":
        from verse_data.volumes.nifti import read_image

        with file.checked():
            read_image(file.path, name=file.name, sha256=file.sha256)
    elif role == "mask":
        from verse_data.volumes.mask_facts import mask_facts

        if not mask_facts(file, derived=derived).labels:
            raise ValidationFailed(f"{file.name}: the mask holds no label at all.")
    elif role == "centroids":
        read_centroids(file)
    elif role == "ct_json":
        read_sidecar(file)
    elif role == "grading":
        if sheet := choose_sheet(sort_tables([file])[0]):
            check_sheet(sheet, scans, without_t12={scan.series_id for scan in scans})
    elif role == "snapshot" and file.name.lower().endswith(".png"):
        data = file.read()
        if not (data.startswith(_PNG) and data.rstrip(b"\0").endswith(_PNG_END)):
            raise VolumeCorrupt(f"{file.name}: not a whole PNG image.")


def verify(
    dataset: Repository,
    version: str,
    index: Index,
    *,
    level: Level = "hash",
    scan_ids: Collection[str] | None = None,
    roles: Collection[Role] | None = None,
    derived: Path | None = None,
    progress: Progress = silent,
) -> Verification:
    """Return every problem of a version's files; an empty result means that there is none.

    ``"content"`` decompresses every volume to its checksum, and reads its labels. With `scan_ids`
    or `roles`, files of no scan and the version as a whole are left out. `index` has the version's
    scans and the catalog to compare them with; `derived` is the folder of facts measured before.
    """
    whole, version_option = scan_ids is None and roles is None, unless_newest(dataset, version)

    def is_chosen(path: str) -> bool:
        role = role_of(path)
        by_role = role in roles if roles is not None else role is not None
        return by_role and (scan_ids is None or index.scan_ids.get(path) in scan_ids)

    def inspect(file: LockedFile) -> None:
        source = dataset.source(file, version=version_option)
        if file == index.patients:
            read_own_patients(source, index.scans)
        else:
            inspect_content(source, derived=derived, scans=index.scans)

    files = [file for file in dataset.lock(version).files if whole or is_chosen(file.path)]
    found = verify_files(
        dataset, files, level=level, inspect=inspect, version=version, progress=progress
    )
    upstream = () if roles is not None else _upstream(dataset, version, index)
    verified = Verification(
        (
            *(audit(dataset, version) if whole else ()),
            *(replace(one, scan_id=index.scan_ids.get(one.path, one.scan_id)) for one in found),
            *(gap for gap in upstream if scan_ids is None or gap.scan_id in scan_ids),
        )
    )
    good = len(files) - len(found)
    verified.summary = f"{good:,} of {len(files):,} files {LEVELS[level]}"
    return verified


def _upstream(dataset: Repository, version: str, index: Index) -> list[FileFinding]:
    """Return where the lock itself differs from what the catalog expects."""
    if dataset.lock(version).source.kind == "tree":
        line = command(dataset, "lock", "--from-tree", "FOLDER", note="once the files are there")
    else:
        line = command(dataset, "lock", note="a later walk finds what has come back")
    # What was made without these files has no source that they could come back from.
    entry = index.catalog
    meant = {gap.scan_id for gap in entry.known_gaps if not entry.osf_node} if entry else set()
    return [
        FileFinding(
            rule=found.rule,
            path=found.file,
            scan_id=found.scan_id,
            message=found.message,
            command="" if found.rule == "missing-file" and found.scan_id in meant else line,
            upstream=True,
        )
        for found in index_findings(index)
        if found.severity == "warning"
    ]
