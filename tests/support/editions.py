"""A few scans of both editions with their published names, splits and layout; the phantom's content."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from verse_data.phantom import write as write_phantom

ENDS = {"ct": "_ct.nii.gz", "mask": "_seg-vert_msk.nii.gz", "centroids": "_seg-subreg_ctd.json"}
ROOTS = {
    "verse19": {"training": "dataset-verse19training", "validation": "dataset-verse19validation",
                "test": "dataset-verse19test"},
    "verse20": {"training": "01_training", "validation": "02_validation", "test": "03_test"},
}  # fmt: skip
SCANS = {
    "verse19": {
        "training": ["verse004", "verse401_split-verse201", "verse401_split-verse253", "verse006"],
        "validation": ["verse010"],
        "test": ["verse012"],
    },
    "verse20": {
        "training": ["gl003_dir-ax", "verse500_dir-ax"],
        "validation": ["verse505"],
        "test": ["verse502_dir-iso"],
    },
}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of one scan of a small phantom, by role."""
    tree = write_phantom(folder, n_subjects=4, shape=(32, 64, 24), seed=4)
    return {role: next(tree.rglob(f"sub-verse901{end}")).read_bytes() for role, end in ENDS.items()}


def distinct(files: dict[str, bytes], number: int) -> dict[str, bytes]:
    """Return files with other bytes and the same content, for each `number`."""
    return {
        role: content + b"\n" * number
        if role == "centroids"
        else gzip.compress(gzip.decompress(content), 1, mtime=number)
        for role, content in files.items()
    }


def files_of(release: str, files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file of a release, in its own layout."""
    every = [one for of in SCANS.values() for scans in of.values() for one in scans]
    for split, scans in SCANS[release].items():
        for scan in scans:
            subject = scan.split("_", maxsplit=1)[0]
            for role, content in distinct(files, 1 + every.index(scan)).items():
                room = "rawdata" if role == "ct" else "derivatives"
                path = f"{ROOTS[release][split]}/{room}/sub-{subject}/sub-{scan}{ENDS[role]}"
                yield path, content


def write_edition(folder: Path, release: str, files: dict[str, bytes]) -> Path:
    """Write the files of a release below `folder`."""
    for path, content in files_of(release, files):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder
