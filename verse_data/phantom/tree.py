"""Write the phantom as files: the real subject-based layout, under one folder."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from verse_data.errors import UsageError
from verse_data.files import publish_folder, staging
from verse_data.phantom import patients, workbook
from verse_data.phantom.plan import SeriesPlan, SubjectPlan
from verse_data.phantom.render import Rendered, render
from verse_data.progress import Progress, silent
from verse_data.records.grading import DEVICES
from verse_data.spine.geometry import AxisMap, axcodes, voxel_sizes
from verse_data.volumes.nifti import write_nifti

DEFAULT_SHAPE: Final = (156, 320, 104)
_SMALLEST: Final = (24, 64, 16)  # keeps the voxels of the longest spine under 10 mm
_THREADS: Final = 2  # the arrays of a series take some 150 MB
# As in uint8 CTs of the group that released VerSe: HU = 16.955 * stored - 1125.4.
_UINT8_SLOPE, _UINT8_INTER = 16.955, -1125.4
_SNAPSHOT_HEIGHT: Final = 160


def write(
    folder: str | os.PathLike[str],
    *,
    n_subjects: int = patients.DEFAULT_SUBJECTS,
    shape: tuple[int, int, int] = DEFAULT_SHAPE,
    seed: int = 0,
    progress: Progress = silent,
) -> Path:
    """Write a made-up release with the real layout, all or nothing.

    The same arguments give the same bytes (with the same versions of NumPy and SciPy).

    Parameters
    ----------
    folder : path
        Root of the tree; must not exist yet, or be empty.
    n_subjects : int
        4 to 50. The first twelve carry the awkward cases (`phantom.CASES`), the rest none.
    shape : (int, int, int)
        Most voxels of a series along P, I and R. Where a spine needs more at 1 mm, its voxels grow.
    seed : int
        Draws sizes, curves, height losses within their grade, texture and noise.
    progress : Progress
        Told of every series.

    Returns
    -------
    Path
        The root: ``dataset-phantom{training,validation,test}`` and ``phantom_grading.xlsx``.

    Raises
    ------
    UsageError
        If `folder` is not empty, or `n_subjects`, `shape` or `seed` is out of range.
    StorageError
        If the disk is full or may not be written. Nothing half-written is left.
    """
    root = Path(folder)
    if seed < 0:
        raise UsageError(f"seed={seed}: a seed is a whole number from 0 on.")
    subjects = patients.subjects(n_subjects, seed=seed)
    if len(shape) != 3 or any(n < least for n, least in zip(shape, _SMALLEST, strict=True)):
        raise UsageError(
            f"shape={shape}: a phantom needs three sizes of at least {_SMALLEST} voxels."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} exists and is not an empty folder. Name a new one, or remove it.")
    series = [(subject, one) for subject in subjects for one in subject.series]

    def work(job: tuple[SubjectPlan, SeriesPlan]) -> workbook.Row:
        return _write_series(staged, *job, shape=shape, seed=seed)

    with staging(root) as staged, progress("Writing the phantom", len(series), "items") as advance:
        rows = []
        with ThreadPoolExecutor(_THREADS) as pool:
            for row in pool.map(work, series):
                rows.append(row)
                advance(1)
        (staged / workbook.NAME).write_bytes(workbook.workbook_bytes(rows))
        if not publish_folder(staged, root):
            raise UsageError(f"{root} was filled by another process meanwhile. Name a new folder.")
    return root


def _write_series(
    root: Path, subject: SubjectPlan, series: SeriesPlan, *, shape: tuple[int, int, int], seed: int
) -> workbook.Row:
    number = int((series.series_label or subject.subject_id).removeprefix("verse"))
    drawn = render(
        series,
        shape=shape,
        patient=np.random.default_rng([seed, subject.number]),
        rng=np.random.default_rng([seed, number, 1]),
        trabecular_hu=90 + 0.9 * subject.bmd,
    )
    top = root / f"dataset-phantom{subject.split}"
    raw = top / "rawdata" / f"sub-{subject.subject_id}"
    derived = top / "derivatives" / f"sub-{subject.subject_id}"
    stem = f"sub-{subject.scan_id(series)}"
    raw.mkdir(parents=True, exist_ok=True)
    _write_ct(raw / f"{stem}_ct.nii.gz", drawn, uint8=series.uint8_ct)
    _write_json(raw / f"{stem}_ct.json", _scanner(subject))
    if series.derivatives:
        derived.mkdir(parents=True, exist_ok=True)
        mask = drawn.mask.astype(np.float64) if series.float64_mask else drawn.mask
        write_nifti(derived / f"{stem}_seg-vert_msk.nii.gz", mask, drawn.affine)
        _write_json(derived / f"{stem}_seg-subreg_ctd.json", list(_centroids(drawn)))
        (derived / f"{stem}_seg-vert_snp.png").write_bytes(_snapshot(drawn))
    return workbook.Row(subject=subject, series=series, resolution_mm=drawn.slice_mm)


def _write_ct(path: Path, drawn: Rendered, *, uint8: bool) -> None:
    if not uint8:
        write_nifti(path, drawn.ct, drawn.affine)
        return
    write_nifti(
        path, drawn.ct, drawn.affine, on_disk_dtype=np.uint8, slope=_UINT8_SLOPE, inter=_UINT8_INTER
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


def _scanner(subject: SubjectPlan) -> dict[str, str]:
    model = DEVICES[subject.device]
    return {
        "dataset": "PHANTOM - made up by verse-data, not a patient",
        "KVP": "120",
        "Manufacturer": "SIEMENS" if model.startswith("SOMATOM") else "Philips",
        "ManufacturerModelName": model,
    }


def _centroids(drawn: Rendered) -> Iterator[dict[str, Any]]:
    yield {"direction": list(axcodes(drawn.affine))}
    for label, point in drawn.centroids.items():
        x, y, z = (round(float(value), 1) for value in point)
        yield {"label": label, "X": x, "Y": y, "Z": z}


def _snapshot(drawn: Rendered) -> bytes:
    """Return a small grey sagittal projection as PNG; stored, so that no zlib version matters."""
    axes = AxisMap.between(drawn.affine, "PIR")
    sizes = voxel_sizes(axes.affine(drawn.affine, drawn.ct.shape))
    seen = np.where(axes.apply(drawn.mask) > 0, axes.apply(drawn.ct), -200).max(axis=2).T
    grey = (np.clip((seen.astype(np.float32) + 200) / 1200, 0, 1) * 255).astype(np.uint8)
    width = max(1, round(_SNAPSHOT_HEIGHT * grey.shape[1] * sizes[0] / (grey.shape[0] * sizes[1])))
    stream = io.BytesIO()
    small = Image.fromarray(grey).resize((width, _SNAPSHOT_HEIGHT), Image.Resampling.BILINEAR)
    small.save(stream, format="PNG", compress_level=0)
    return stream.getvalue()
