"""Are files what their names say: those of a local tree before it is locked, and those of a release."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from verse_data.errors import FILE_FAULTS, ValidationFailed, VerseDataError, VolumeCorrupt
from verse_data.problems import shown
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import Role, parse_path, scan_of
from verse_data.records.source_file import SourceFile
from verse_data.releases.commands import command, unless_newest
from verse_data.releases.dataset import ReleaseDataset
from verse_data.releases.verify import FileFinding, Level, Verification, audit, verify_files
from verse_data.spine.geometry import Grid
from verse_data.tables.findings import index_findings
from verse_data.tables.grading import check_sheet
from verse_data.tables.index import Index, ScanFiles, index_scans, read_centroids
from verse_data.tables.join import levels_of, read_sidecar, skips_t12
from verse_data.tables.workbook import read_locked_sheet

_THREADS: Final = 4
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"IEND\xaeB`\x82"
_FATAL: Final = {"wrong-folder", "subject-in-two-splits", "subject-spelled-twice"}

Labels = Collection[int]


def check_content(
    file: SourceFile,
    *,
    labels_of_mask: Callable[[SourceFile], Labels],
    without_t12: Collection[str],
) -> Labels:
    """Return the labels that a file shows, or raise one of our errors if it cannot be used.

    Series in `without_t12` may have a blank T12 between graded levels of the workbook.
    """
    name = parse_path(file.name)
    role = name.role if name else None
    if role == "ct":
        from verse_data.volumes.nifti import read_image

        with file.checked():
            read_image(file.path, name=file.name, sha256=file.sha256)
    elif role == "mask":
        return labels_of_mask(file)
    elif role == "centroids":
        return {point.label for point in read_centroids(file).points}
    elif role == "ct_json":
        read_sidecar(file)
    elif role == "grading":
        check_sheet(read_locked_sheet(file), without_t12=without_t12)
    elif role == "snapshot" and file.name.lower().endswith(".png"):
        data = file.read()
        if not (data.startswith(_PNG) and data.rstrip(b"\0").endswith(_PNG_END)):
            raise VolumeCorrupt(f"{file.name}: not a whole PNG image.")
    return ()


# --- a local tree ---------------------------------------------------------------------------------


def check_tree(lock: ReleaseLock, folder: Path, *, progress: Progress = silent) -> None:
    """Check every file of a local tree, and raise one error for all that is wrong.

    Checked are names, JSON files, the grading workbook, and each volume: its header, its stream
    to the checked end, its labels, and that mask and CT lie on one grid.
    """
    index = index_scans(lock)
    problems: list[VerseDataError] = [
        ValidationFailed(f"{finding.file or finding.subject_id}: {finding.message}.")
        for finding in index_findings(index)
        if finding.rule in _FATAL
    ]
    if not index.scans:
        named = "rawdata/sub-verse004/sub-verse004_ct.nii.gz"
        why = f"No file of the tree has a name of VerSe's layouts, such as {named}."
        problems.append(ValidationFailed(why))
    without_t12: set[str] = set()
    # Inflating leaves the interpreter free; few threads, since each holds a whole volume.
    threads = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    with threads, progress("Checking files", len(index.scans), "items") as advance:
        checked = threads.map(lambda scan: _check_scan(scan, folder), index.scans)
        for scan, (labels, broken) in zip(index.scans, checked, strict=True):
            problems += broken
            if skips_t12(levels_of(labels)):
                without_t12.add(scan.series_id)
            advance(1)
    for file in index.grading:
        try:
            check_sheet(read_locked_sheet(_in_tree(file, folder)), without_t12=without_t12)
        except FILE_FAULTS as error:
            problems.append(error)
    if len(problems) > 1:
        # FILE_FAULTS has the gravest first; a corrupt volume weighs more than all.
        gravest = next(
            kind
            for kind in (VolumeCorrupt, *FILE_FAULTS)
            if any(isinstance(problem, kind) for problem in problems)
        )
        head = f"{len(problems)} problems in the tree; nothing was written:"
        raise gravest("\n".join([head, *shown(problems)]))
    if problems:
        raise problems[0]


def _in_tree(file: LockedFile, folder: Path) -> SourceFile:
    return SourceFile(folder / file.path, file.annex_key, name=file.path)


def _check_scan(scan: ScanFiles, folder: Path) -> tuple[set[int], list[VerseDataError]]:
    """Check the files of one scan; return the labels that it shows, and what is wrong."""
    from verse_data.volumes.nifti import check_pair, read_header

    labels: set[int] = set()
    problems: list[VerseDataError] = []
    grids: dict[Role, Grid] = {}
    files = {r: _in_tree(file, folder) for r, file in scan.files.items() if r != "snapshot"}
    for role, file in files.items():
        try:
            if role in {"ct", "mask"}:
                grids[role] = read_header(file.path, name=file.name)
            labels |= {*check_content(file, labels_of_mask=_labels, without_t12=())}
        except FILE_FAULTS as error:
            problems.append(error)
    if len(grids) > 1:
        try:
            check_pair(grids["ct"], grids["mask"], name=files["mask"].name)
        except FILE_FAULTS as error:
            problems.append(error)
    return labels, problems


def _labels(file: SourceFile) -> Labels:
    """Return the labels in a mask, without what costs time: whether they are in one piece."""
    from scipy import ndimage

    from verse_data.volumes.nifti import read_mask

    with file.checked():
        mask = read_mask(file.path, name=file.name, sha256=file.sha256).array
    return [label for label, box in enumerate(ndimage.find_objects(mask), start=1) if box]


# --- a release ------------------------------------------------------------------------------------


def verify(
    dataset: ReleaseDataset,
    version: str,
    index: Index,
    *,
    level: Level = "hash",
    scan_ids: Collection[str] | None = None,
    roles: Collection[Role] | None = None,
    derived: Path | None = None,
    progress: Progress = silent,
) -> Verification:
    """Return everything that is not as it should be; nothing means clean.

    ``"content"`` inflates every volume to its checked end, and reads its labels. With `scan_ids` or
    `roles`, files of no scan and the version as a whole are left out. `index` has the version's
    scans, compared with what the catalog expects; `derived` is the folder of facts measured before.
    """
    whole, typed = scan_ids is None and roles is None, unless_newest(dataset, version)
    series = {scan.series_id for scan in index.scans}

    def is_chosen(path: str) -> bool:
        name = parse_path(path)
        return (
            name is not None
            and (scan_ids is None or scan_of(path) in scan_ids)
            and (roles is None or name.role in roles)
        )

    def labels_of_mask(file: SourceFile) -> Labels:
        from verse_data.volumes.mask_facts import mask_facts

        labels = mask_facts(file, derived=derived).labels
        if not labels:
            raise ValidationFailed(f"{file.name}: the mask holds no label at all.")
        return labels

    def inspect(file: LockedFile) -> None:
        source = dataset.source(file, version=typed)
        check_content(source, labels_of_mask=labels_of_mask, without_t12=series)

    files = [file for file in dataset.lock(version).files if whole or is_chosen(file.path)]
    found = verify_files(
        dataset, files, level=level, inspect=inspect, version=version, progress=progress
    )
    upstream = () if roles is not None else _upstream(dataset, version, index)
    return Verification(
        (
            *(audit(dataset, version) if whole else ()),
            *found,
            *(gap for gap in upstream if scan_ids is None or gap.scan_id in scan_ids),
        )
    )


def _upstream(dataset: ReleaseDataset, version: str, index: Index) -> list[FileFinding]:
    """Return where the lock itself is not what the catalog expects."""
    if dataset.lock(version).source.kind == "tree":
        line = command(dataset, "lock", "--from-tree", "FOLDER", note="once the files are there")
    else:
        line = command(dataset, "lock", note="a later walk finds what has come back")
    return [
        FileFinding(
            rule=found.rule,
            path=found.file,
            scan_id=found.scan_id,
            message=found.message,
            command=line,
            upstream=True,
        )
        for found in index_findings(index)
        if found.severity == "warning"
    ]
