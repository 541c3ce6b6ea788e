"""Small trees with the layout of a release, whose contents are text: fast, and enough for files."""

from __future__ import annotations

from pathlib import Path

FILES = (
    ("rawdata", "ct.nii.gz"),
    ("rawdata", "ct.json"),
    ("derivatives", "seg-vert_msk.nii.gz"),
    ("derivatives", "seg-subreg_ctd.json"),
    ("derivatives", "seg-vert_snp.png"),
)
SIGNATURES = {".gz": b"\x1f\x8b", ".json": b"[]", ".png": b"\x89PNG"}


def write_tree(folder: Path, *, subjects: int = 3, repeat: int = 50) -> Path:
    """Write five files a subject under `folder`, and return it."""
    for number in range(subjects):
        name = f"sub-verse{900 + number}"
        for kind, suffix in FILES:
            path = folder / "dataset-phantomtraining" / kind / name / f"{name}_{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(SIGNATURES[path.suffix] + f"{name} {suffix}\n".encode() * repeat)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return bytes and mode of every file under `folder`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in files
    }
