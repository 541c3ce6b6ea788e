"""Small scans with stores and a vertebrae table, for the tests of the training datasets.

The image of a scan is a linear function of the world position (`hu`), so that a test can tell
from the voxels alone whether an affine is true, also after linear resampling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tests.support.scans import centroid_file
from verse_data.files import digest_file
from verse_data.records.source_file import SourceFile
from verse_data.spine.geometry import apply_affine
from verse_data.spine.levels import GRADED_LEVELS, LABEL_OF_LEVEL, LEVELS
from verse_data.training import ServedScan
from verse_data.volumes.nifti import write_nifti
from verse_data.volumes.recipe import Recipe, ScanSource
from verse_data.volumes.store import ensure_store

PIR = np.array([[0, 0, -1.0, 30], [-1.0, 0, 0, 40], [0, -1.0, 0, 60], [0, 0, 0, 1]])
"""1 mm isotropic, axes posterior, inferior, right … as VerSe'19 has them, up to the sign of R."""
LPS_ANISO = np.array([[-0.8, 0, 0, 40], [0, -0.8, 0, 30], [0, 0, 2.5, -60], [0, 0, 0, 1]])
TYPES = ("none", "wedge", "biconcave", "crush")


def oblique(affine: npt.NDArray[np.float64], degrees: float = 5.0) -> npt.NDArray[np.float64]:
    """Return `affine` turned about the superior axis, as verse004's is."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.asarray(turn @ affine)


OBLIQUE_2MM = oblique(PIR @ np.diag([1, 1, 2.000296, 1]))


@dataclass(frozen=True)
class Spec:
    """What one made-up scan is."""

    scan_id: str
    subject_id: str = ""
    split: str = "training"
    levels: tuple[str, ...] = ("T11", "T12", "L1", "L2")
    grades: Mapping[str, int | str] = field(default_factory=dict)
    shape: tuple[int, int, int] = (80, 120, 60)
    affine: Any = field(default_factory=lambda: PIR)
    mask: bool = True
    without_centroid: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return self.subject_id or self.scan_id


def hu(points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the made-up Hounsfield units at world positions, shape (..., 3)."""
    return np.asarray(points, dtype=np.float64) @ [3.0, -5.0, 7.0] + 100.0


def positions(spec: Spec) -> dict[str, npt.NDArray[np.float64]]:
    """Return the world position of each vertebra: a curve through the middle of the volume."""
    middle = apply_affine(spec.affine, (np.asarray(spec.shape) - 1) / 2)
    places = np.arange(len(spec.levels)) - (len(spec.levels) - 1) / 2
    return {
        level: middle + np.array([1.5 * n, 0.8 * n * n, -24.0 * n])
        for level, n in zip(spec.levels, places, strict=True)
    }


def volumes(spec: Spec) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return image and mask of a scan, in its own axes."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in spec.shape), indexing="ij"), axis=-1)
    world = apply_affine(spec.affine, index)
    mask = np.zeros(spec.shape, dtype=np.uint8)
    for level, centre in positions(spec).items():
        inside = (np.abs(world - centre) <= [14, 11, 8]).all(axis=-1)
        mask[inside] = LABEL_OF_LEVEL[level]
    return np.rint(hu(world)).astype(np.int16), mask


def build(folder: Path, spec: Spec, recipe: Recipe | None = None) -> ServedScan:
    """Write the files of a scan and build its store."""
    image, mask = volumes(spec)
    ct, seg = folder / f"{spec.scan_id}_ct.nii", folder / f"{spec.scan_id}_msk.nii"
    write_nifti(ct, image, spec.affine)
    write_nifti(seg, mask, spec.affine)
    inverse = np.linalg.inv(spec.affine)
    points = {
        LABEL_OF_LEVEL[level]: apply_affine(inverse, at)
        for level, at in positions(spec).items()
        if level not in spec.without_centroid
    }
    built = build_files(folder, spec.scan_id, ct, seg if spec.mask else None, points, recipe=recipe)
    return ServedScan(spec.scan_id, spec.subject, spec.split, built.store)


def build_files(
    folder: Path,
    scan_id: str,
    ct: Path,
    mask: Path | None,
    points: Mapping[int, Sequence[float]],
    *,
    recipe: Recipe | None = None,
) -> ServedScan:
    """Build the store of the given files, as a scan of the training split."""
    source = ScanSource(
        scan_id=scan_id,
        image=_file(ct),
        mask=_file(mask) if mask else None,
        centroids=centroid_file(points, nib.load(ct).affine) if points else None,
        centroids_key=f"points-{points}" if points else None,
    )
    store = ensure_store(source, recipe or Recipe(), folder / "stores")
    return ServedScan(scan_id, scan_id, "training", store)


def _file(path: Path) -> SourceFile:
    digests = digest_file(path)
    return SourceFile(path, f"SHA256E-s{digests.size}--{digests.sha256}.nii")


def table(specs: Sequence[Spec]) -> pd.DataFrame:
    """Return the vertebrae table of the scans, with the columns and types of the real one."""
    rows = []
    for spec in specs:
        for level, at in positions(spec).items():
            given = spec.grades.get(level, 0 if level in GRADED_LEVELS else None)
            point = np.full(3, np.nan) if level in spec.without_centroid else at
            rows.append(
                row(spec.scan_id, level, given, point)
                | {"subject_id": spec.subject, "split": spec.split, "has_mask": spec.mask}
            )
    return typed(pd.DataFrame(rows))


def row(
    scan_id: str, level: str, given: int | str | None, at: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Return one row of the table; `given` is what the workbook's cell says."""
    graded = isinstance(given, int)
    status = "graded" if graded else "foreign_material" if given == "x" else "not_assessed"
    return {
        "scan_id": scan_id,
        "subject_id": scan_id,
        "split": "training",
        "level": level,
        "label": LABEL_OF_LEVEL[level],
        "grade": given if graded else pd.NA,
        "fracture_type": TYPES[int(given) and 1] if graded else pd.NA,
        "foreign_material": False if graded else True if given == "x" else pd.NA,
        "grade_status": status,
        "has_mask": True,
        **{f"centroid_{axis}": value for axis, value in zip("xyz", at, strict=True)},
        "bmd_mg_cm3": 120.5,
    }


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the columns the types of the real table."""
    level = pd.Categorical(frame["level"], categories=list(LEVELS), ordered=True)
    return frame.assign(
        level=level,
        split=frame["split"].astype("category"),
        fracture_type=pd.Categorical(frame["fracture_type"], categories=list(TYPES)),
        grade_status=frame["grade_status"].astype("category"),
        label=frame["label"].astype("Int16"),
        grade=frame["grade"].astype("Int8"),
        foreign_material=frame["foreign_material"].astype("boolean"),
        has_mask=frame["has_mask"].astype("boolean"),
        bmd_mg_cm3=frame["bmd_mg_cm3"].astype("Float64"),
        **{f"centroid_{axis}": frame[f"centroid_{axis}"].astype("Float64") for axis in "xyz"},
    )


SPECS = (
    Spec("verse900", grades={"T11": 1, "T12": 3}),
    Spec("verse901", affine=OBLIQUE_2MM, grades={"T12": 2, "L1": "x"}),
    Spec("verse902", affine=LPS_ANISO, levels=("T12", "T13", "L1"), grades={"L1": 2}),
    Spec("verse903_split-verse250", "verse903", levels=("L1", "L2", "L3")),
    Spec("verse903_split-verse251", "verse903", levels=("C6", "C7", "T1"), affine=LPS_ANISO),
)
"""Oblique with 2 mm slices, anisotropic, T13, two series of one patient, x, cervical levels."""


@dataclass(frozen=True)
class Made:
    """Scans with stores, their table, and what they were made from."""

    scans: list[ServedScan]
    table: pd.DataFrame
    specs: tuple[Spec, ...]

    def spec(self, scan_id: str) -> Spec:
        return next(spec for spec in self.specs if spec.scan_id == scan_id)


def make(folder: Path, specs: Sequence[Spec] = SPECS, recipe: Recipe | None = None) -> Made:
    """Build the stores of `specs` below `folder`."""
    return Made([build(folder, spec, recipe) for spec in specs], table(specs), tuple(specs))


def stream_digest(samples: Iterable[Mapping[str, Any]]) -> str:
    """Return a digest over every key and every byte of the samples, in their order."""
    sha256 = hashlib.sha256()
    for sample in samples:
        for key in sorted(sample):
            value = sample[key]
            content = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value)
            sha256.update(key.encode())
            sha256.update(content if isinstance(content, bytes) else content.encode())
    return sha256.hexdigest()
