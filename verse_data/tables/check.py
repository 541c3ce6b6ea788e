"""Checks a local tree before it becomes a release: metadata and volumes, all problems at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.errors import (
    FILE_FAULTS,
    IntegrityError,
    UnsafeInput,
    ValidationFailed,
    VerseDataError,
    VolumeCorrupt,
)
from verse_data.problems import shown
from verse_data.progress import Progress, silent
from verse_data.records.centroids import parse_centroids
from verse_data.records.names import Role
from verse_data.records.tables import parse_ct_sidecar
from verse_data.tables.grading import read_grading
from verse_data.tables.path_index import index_paths
from verse_data.tables.scan_paths import PathIndex, ScanPaths
from verse_data.tables.sources import check_json_size, levels_of, skips_t12

_THREADS = 4


def check_tree(files: Mapping[str, Path], *, progress: Progress = silent) -> PathIndex:
    """Check every file of a local tree, and return which file belongs to which scan.

    Checked are names, JSON files, the grading workbook, and each volume: its header, its stream
    to the checked end, its labels, and that mask and CT lie on one grid.
    """
    index = index_paths(files)
    problems: list[VerseDataError] = []
    _check_names(index, problems)
    without_t12: set[str] = set()
    # Inflating leaves the interpreter free; few threads, since each holds a whole volume.
    threads = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    with threads, progress("Checking files", len(index.scans), "items") as advance:
        checked = threads.map(lambda scan: _check_scan(scan, files), index.scans)
        for scan, (labels, broken) in zip(index.scans, checked, strict=True):
            problems += broken
            if skips_t12(levels_of(labels)):
                without_t12.add(scan.series_id)
            advance(1)
    for path in index.grading:
        try:
            read_grading(files[path], name=path, without_t12=without_t12)
        except FILE_FAULTS as error:
            problems.append(error)
    _raise(problems)
    return index


def _check_names(index: PathIndex, problems: list[VerseDataError]) -> None:
    fatal = {"wrong-folder", "subject-in-two-splits", "subject-spelled-twice"}
    problems += [
        ValidationFailed(f"{finding.file or finding.subject_id}: {finding.message}.")
        for finding in index.findings
        if finding.rule in fatal
    ]
    if not index.scans:
        problems.append(
            ValidationFailed(
                "No file of the tree has a name of VerSe's layouts, such as rawdata/sub-verse004/sub-verse004_ct.nii.gz."
            )
        )


def _check_scan(
    scan: ScanPaths, files: Mapping[str, Path]
) -> tuple[set[int], list[VerseDataError]]:
    """Check the files of one scan; return the labels that it shows, and what is wrong."""
    from verse_data.volumes.nifti import check_pair, read_header, read_image, read_mask

    headers: dict[str, Any] = {}
    labels: set[int] = set()
    problems: list[VerseDataError] = []
    for role, path in scan.paths.items():
        try:
            if role in {"ct", "mask"}:
                headers[role] = read_header(files[path], name=path)
            if role == "ct":
                read_image(files[path], name=path)
            elif role == "mask":
                labels |= _labels(read_mask(files[path], name=path).array)
            else:
                labels |= _check_json(role, path, files[path])
        except FILE_FAULTS as error:
            problems.append(error)
    if "ct" in headers and "mask" in headers:
        try:
            check_pair(headers["ct"], headers["mask"], name=scan.paths["mask"])
        except FILE_FAULTS as error:
            problems.append(error)
    return labels, problems


def _labels(mask: npt.NDArray[np.uint8]) -> set[int]:
    """Return the labels in a mask; plane by plane, since counting widens each voxel to 8 bytes."""
    counts = np.zeros(256, dtype=np.int64)
    for k in range(mask.shape[2]):
        counts += np.bincount(mask[:, :, k].ravel(order="K"), minlength=256)
    return {int(label) for label in np.flatnonzero(counts) if label}


def _check_json(role: Role, path: str, file: Path) -> set[int]:
    if role not in {"centroids", "ct_json"}:
        return set()
    check_json_size(file.stat().st_size, name=path)
    data = file.read_bytes()
    if role == "ct_json":
        parse_ct_sidecar(data, name=path)
        return set()
    return {point.label for point in parse_centroids(data, name=path).points}


def _raise(problems: list[VerseDataError]) -> None:
    """Raise one error for all problems, of the class that weighs most."""
    if not problems:
        return
    branches = (VolumeCorrupt, IntegrityError, UnsafeInput, ValidationFailed)
    kind = next(k for k in branches if any(isinstance(problem, k) for problem in problems))
    if len(problems) == 1:
        raise problems[0]
    head = f"{len(problems)} problems in the tree; nothing was written:"
    raise kind("\n".join([head, *shown(problems)]))
