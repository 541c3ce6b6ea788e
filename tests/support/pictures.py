"""Stores out of arrays, and the colours of a picture, for the tests of what is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.support.scans import PIR, centroid_file, source_file
from verse_data.views.preview import Subject
from verse_data.volumes.nifti import write_nifti
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe, ScanSource
from verse_data.volumes.store import ensure_store

Colour = tuple[int, int, int]


def store(
    folder: Path,
    image: npt.NDArray[Any],
    label: npt.NDArray[Any] | None = None,
    points: Mapping[int, tuple[float, float, float]] | None = None,
    affine: npt.NDArray[np.float64] = PIR,
) -> Path:
    """Write a scan with centroids `points`, and return its store."""
    folder.mkdir(parents=True)
    ct, mask = folder / "ct.nii.gz", folder / "msk.nii.gz"
    write_nifti(ct, image.astype(np.int16), affine)
    if label is not None:
        write_nifti(mask, label.astype(np.uint8), affine)
    source = ScanSource(
        scan_id="verse901",
        image=source_file(ct),
        mask=None if label is None else source_file(mask),
        centroids=centroid_file(points or {}, affine),
        centroids_key="SHA256E-s1--00.json",
        licence="CC0-1.0",
    )
    return ensure_store(source, Recipe(), folder / "stores")


def subject(path: Path, **options: Any) -> Subject:
    """Return what a preview of a store shows; by default of a release that is no phantom."""
    shown = {"source": ScanReader(path), "release": "verse19", "version": "v1", "marks": {}}
    return Subject(**shown | options)


def colours(picture: Image.Image) -> set[Colour]:
    """Return the colours that a picture has."""
    return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
