"""A whole release checked: what is here against the lock, and the lock against the catalog."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from verse_data.errors import ValidationFailed, VolumeCorrupt
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role, parse_path, scan_of
from verse_data.records.source_file import SourceFile
from verse_data.releases.history import command, unless_newest
from verse_data.releases.repository import Repository
from verse_data.releases.verify import FileFinding, Level, Verification, audit, verify_files
from verse_data.tables.index import Index

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"IEND\xaeB`\x82"


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
    """Return everything that is not as it should be; nothing means clean.

    ``"content"`` inflates every volume to its checked end, and reads its labels. With `scan_ids` or
    `roles`, files of no scan and the version as a whole are left out. `index` has the version's
    scans, compared with what the catalog expects; `derived` is the folder of facts measured before.
    """

    def is_chosen(path: str) -> bool:
        name = parse_path(path)
        return (
            name is not None
            and (scan_ids is None or scan_of(path) in scan_ids)
            and (roles is None or name.role in roles)
        )

    def inspect(file: LockedFile) -> None:
        inspect_content(dataset.source(file, version=typed), derived=derived)

    whole, typed = scan_ids is None and roles is None, unless_newest(dataset, version)
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


def _upstream(dataset: Repository, version: str, index: Index) -> list[FileFinding]:
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
        for found in index.findings
        if found.severity == "warning"
    ]


def inspect_content(file: SourceFile, *, derived: Path | None = None) -> None:
    """Raise one of our errors if the content of a file cannot be used for what its name says."""
    name = parse_path(file.name)
    role = name.role if name else None
    if role == "ct":
        from verse_data.volumes.nifti import read_image

        with file.checked():
            read_image(file.path, name=file.name, sha256=file.sha256)
    elif role == "mask":
        if not mask_labels(file, derived=derived):
            raise ValidationFailed(f"{file.name}: the mask holds no label at all.")
    elif role == "centroids":
        from verse_data.records.centroids import parse_centroids

        parse_centroids(file.read(), name=file.name)
    elif role == "ct_json":
        from verse_data.records.tables import parse_ct_sidecar

        parse_ct_sidecar(file.read(), name=file.name)
    elif role == "grading":
        from verse_data.tables.grading import check_sheet
        from verse_data.tables.workbook import read_locked_sheet

        check_sheet(read_locked_sheet(file))
    elif role == "snapshot":
        data = file.read()
        whole = data.startswith(_PNG) and data.rstrip(b"\0").endswith(_PNG_END)
        if file.name.lower().endswith(".png") and not whole:
            raise VolumeCorrupt(f"{file.name}: not a whole PNG image.")


def mask_labels(file: SourceFile, *, derived: Path | None = None) -> dict[int, int]:
    """Return the number of voxels of each label of a mask; measured once on a machine."""
    from verse_data.volumes.mask_facts import mask_facts

    facts = mask_facts(file, derived=derived)
    return {label: fact.voxels for label, fact in facts.labels.items()}
