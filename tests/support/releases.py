"""A tiny release with real volumes, made in milliseconds: blocks for vertebrae, each with a centroid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from verse_data.phantom.paint import paint_ct
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.source_file import SourceFile
from verse_data.releases.tree import lock_tree
from verse_data.tables.assemble import Tables, build_tables
from verse_data.volumes.nifti import write_nifti

SHAPE = (12, 60, 6)
PIR = np.array([[0, 0, 2.0, -5], [-1.0, 0, 0, 10], [0, -1.0, 0, 20], [0, 0, 0, 1]])
SIDECAR = {
    "dataset": "VERSE  - DOI 10.17605/OSF.IO/NQJYW",
    "KVP": "120",
    "Manufacturer": "Philips",
    "ManufacturerModelName": "Brilliance 64",
}


def centre(place: int) -> list[float]:
    """Return the middle of the block at `place`, in voxels."""
    return [5.5, 5 * place + 2.5, 2.5]


def write_scan(
    root: Path,
    stem: str,
    labels: Sequence[int],
    *,
    split: str = "training",
    points: Sequence[dict[str, Any]] | None = None,
    direction: Sequence[str] | None = ("P", "I", "R"),
    mask_shape: tuple[int, int, int] = SHAPE,
) -> None:
    """Write the files of one scan: a block of 4 x 4 x 4 voxels for each label, head to foot."""
    subject = stem.split("_", maxsplit=1)[0]
    raw = root / f"dataset-verse19{split}" / "rawdata" / f"sub-{subject}"
    derived = root / f"dataset-verse19{split}" / "derivatives" / f"sub-{subject}"
    mask = np.zeros(mask_shape, dtype=np.uint8)
    for place, label in enumerate(labels):
        mask[4:8, 5 * place + 1 : 5 * place + 5, 1:5] = label
    write_nifti(derived / f"sub-{stem}_seg-vert_msk.nii.gz", mask, PIR)
    # Contents of their own: git-annex keeps equal ones as one file.
    image = np.full(SHAPE, -1000 + sum(labels), dtype=np.int16)
    image[0, 0, :2] = -1024, 700  # air and bone
    write_nifti(raw / f"sub-{stem}_ct.nii.gz", image, PIR)
    (raw / f"sub-{stem}_ct.json").write_text(json.dumps(SIDECAR))
    own = [
        {"label": label, **dict(zip("XYZ", centre(place), strict=True))}
        for place, label in enumerate(labels)
    ]
    head = [{"direction": list(direction)}] if direction else []
    entries = [*head, *(own if points is None else points)]
    (derived / f"sub-{stem}_seg-subreg_ctd.json").write_text(json.dumps(entries))


def tables(
    root: Path,
    *,
    catalog: CatalogEntry | None = None,
    without: str = "nothing",
    derived: Path | None = None,
) -> Tables:
    """Lock the tree at `root` and build its tables; files whose path holds `without` are not here."""
    lock = locked(root)
    return build_tables(
        lock,
        lambda file: None if without in file.path else source_of(root, file),
        catalog=catalog,
        derived=derived or root.parent / "derived",
    )


def source_of(root: Path, file: LockedFile) -> SourceFile:
    """Return a locked file as it lies in the tree at `root`."""
    return SourceFile(root / file.path, file.annex_key, name=file.path)


def locked(root: Path) -> ReleaseLock:
    """Return the lock of the tree at `root`."""
    return lock_tree(root, release="verse19")


def real_release(shared: Path, folder: Path) -> Path:
    """Lay out the real scans of VerSe'19 in `folder`, with a CT painted around each mask."""
    shutil.copytree(shared / "data" / "verse19", folder)
    for mask_path in sorted(folder.rglob("*_seg-vert_msk.nii.gz")):
        mask = nib.load(mask_path)
        labels = np.rint(np.asarray(mask.dataobj)).astype(np.uint8)
        image = paint_ct(labels, mask.affine, seed=4)
        subject = mask_path.parent.name
        raw = mask_path.parents[2] / "rawdata" / subject
        write_nifti(raw / f"{subject}_ct.nii.gz", image, mask.affine)
    return folder
