"""Small scans on disk, as sources of stores, for the tests of volumes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verse_data.files import digest_file
from verse_data.records.centroids import Centroid, CentroidFile
from verse_data.records.source_file import SourceFile
from verse_data.spine.geometry import axcodes
from verse_data.volumes.nifti import write_nifti
from verse_data.volumes.recipe import ScanSource

PIR = np.array([[0, 0, 1.0, -30], [-1.0, 0, 0, 40], [0, -1.0, 0, 60], [0, 0, 0, 1]])
LPS = np.array([[-0.5, 0, 0, 20], [0, -0.5, 0, 30], [0, 0, 1.25, -60], [0, 0, 0, 1]])
TILTED = np.array(
    [[0.08, 0, 1.98, -30], [-0.997, 0.01, 0.16, 40], [0, -1.0, 0, 60], [0, 0, 0, 1.0]]
)
"""Nearly PIR, oblique, with 2 mm sagittal slices: the kind of verse004."""


@dataclass(frozen=True)
class MadeScan:
    """A scan on disk, and what it holds in its own axes."""

    source: ScanSource
    image: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8] | None
    affine: npt.NDArray[np.float64]


def volumes(
    shape: tuple[int, int, int], seed: int = 0
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return a noisy CT with air around it, and a mask of a few vertebrae, T13 among them."""
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 45, shape).astype(np.int16)
    image[: shape[0] // 5] = -1024
    mask = np.zeros(shape, np.uint8)
    lengths = np.linspace(0, shape[1], 6).astype(int).tolist()
    for label, (a, b) in zip((18, 19, 28, 20, 21), itertools.pairwise(lengths), strict=True):
        i, k = shape[0] // 3, shape[2] // 4
        mask[i : 2 * i, a : b - 1, k : 3 * k] = label
    image[mask > 0] += 300
    return image, mask


def make_scan(
    folder: Path,
    *,
    scan_id: str = "verse901",
    shape: tuple[int, int, int] = (70, 50, 40),
    affine: npt.NDArray[Any] = PIR,
    seed: int = 0,
    with_mask: bool = True,
) -> MadeScan:
    """Write a scan below `folder` and return it as a source with true annex keys."""
    folder.mkdir(parents=True, exist_ok=True)
    image, mask = volumes(shape, seed)
    ct, msk = folder / f"sub-{scan_id}_ct.nii.gz", folder / f"sub-{scan_id}_seg-vert_msk.nii.gz"
    write_nifti(ct, image, affine)
    if with_mask:
        write_nifti(msk, mask, affine)
    source = ScanSource(
        scan_id=scan_id,
        image=source_file(ct),
        mask=source_file(msk) if with_mask else None,
        centroids=centroid_file({20: (30.5, 25.0, 20.0), 28: (30.0, 20.0, 20.0)}, affine),
        centroids_key="SHA256E-s1--00.json",
        licence="CC0-1.0",
    )
    stored = np.asarray(affine, dtype=np.float32).astype(np.float64)
    return MadeScan(source, image, mask if with_mask else None, stored)


def centroid_file(points: Mapping[int, Sequence[float]], affine: npt.ArrayLike) -> CentroidFile:
    """Return a centroid file with voxel indices of a grid, by label."""
    axes = [dict(zip("XYZ", map(float, at), strict=True)) for at in points.values()]
    made = [Centroid(label=label, **at) for label, at in zip(points, axes, strict=True)]
    return CentroidFile(direction=axcodes(affine), points=tuple(made))


def source_file(path: Path) -> SourceFile:
    """Return a file with the annex key of its content."""
    found = digest_file(path)
    return SourceFile(path, f"SHA256E-s{found.size}--{found.sha256}.nii.gz")
