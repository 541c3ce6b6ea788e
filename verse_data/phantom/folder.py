"""Writes the phantom: renders each series, in the real subject-based layout; and publishes it."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from verse_data.errors import UsageError
from verse_data.files import publish_folder, staging
from verse_data.phantom import paint, sheet
from verse_data.phantom.shapes import SACRUM, Grid, Vertebra, distance, local, place, screws
from verse_data.phantom.spec import DEFAULT_SUBJECTS, SeriesSpec, SubjectSpec, subjects
from verse_data.progress import Progress, silent
from verse_data.records.lock import ReleaseLock
from verse_data.records.tables import DEVICES
from verse_data.releases.catalog import PHANTOM
from verse_data.releases.repository import Repository
from verse_data.releases.tree import lock_tree
from verse_data.spine.geometry import AxisMap, axcodes, voxel_sizes
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.volumes.nifti import write_nifti

DEFAULT_SHAPE: Final = (156, 320, 104)
_MIN_SHAPE: Final = (24, 64, 16)  # keeps the voxels of the longest spine under 10 mm
_THREADS: Final = 2  # the arrays of a series take some 150 MB
# As in uint8 CTs of the group that released VerSe: HU = 16.955 * stored - 1125.4.
_AS_UINT8: Final[dict[str, Any]] = {"on_disk_dtype": np.uint8, "slope": 16.955, "inter": -1125.4}
_SNAPSHOT_HEIGHT: Final = 160
_UNLABELLED: Final = 255
_OBLIQUE_DEGREES: Final = 4.6
_MARGIN_UP_MM: Final = 14.0
_CRUMBS: Final = 6


def write(
    folder: str | os.PathLike[str],
    *,
    n_subjects: int = DEFAULT_SUBJECTS,
    shape: tuple[int, int, int] = DEFAULT_SHAPE,
    seed: int = 0,
    progress: Progress = silent,
) -> Path:
    """Write a synthetic release with the real layout, atomically.

    The same arguments give the same bytes (with the same versions of NumPy and SciPy).

    Parameters
    ----------
    folder : path
        Root of the tree; must not exist yet, or be empty.
    n_subjects : int
        4 to 50. The first twelve have the awkward cases (`phantom.CASES`), the rest none.
    shape : (int, int, int)
        Maximum of voxels of a series along P, I and R. A spine that needs more at 1 mm gets larger
        voxels.
    seed : int
        Seed of sizes, curves, height losses within their grade, texture and noise.
    progress : Progress
        Called for every series.

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
        raise UsageError(f"seed={seed}: a seed is a whole number of 0 or more.")
    patients = subjects(n_subjects, seed=seed)
    if len(shape) != 3 or any(n < least for n, least in zip(shape, _MIN_SHAPE, strict=True)):
        raise UsageError(
            f"shape={shape}: a phantom needs three sizes of at least {_MIN_SHAPE} voxels."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} exists and is not an empty folder. Name a new one, or remove it.")
    series = [(subject, one) for subject in patients for one in subject.series]

    def work(job: tuple[SubjectSpec, SeriesSpec]) -> sheet.Row:
        return _write_series(staged, *job, shape=shape, seed=seed)

    with staging(root) as staged, progress("Writing the phantom", len(series), "items") as advance:
        rows = []
        with ThreadPoolExecutor(_THREADS) as pool:
            for row in pool.map(work, series):
                rows.append(row)
                advance(1)
        (staged / sheet.NAME).write_bytes(sheet.workbook_bytes(rows))
        if not publish_folder(staged, root):
            raise UsageError(f"{root} was filled by another process meanwhile. Name a new folder.")
    return root


def _write_series(
    root: Path, subject: SubjectSpec, series: SeriesSpec, *, shape: tuple[int, int, int], seed: int
) -> sheet.Row:
    number = int((series.series_label or subject.subject_id).removeprefix("verse"))
    drawn = render(
        series,
        shape=shape,
        patient=np.random.default_rng([seed, subject.number]),
        rng=np.random.default_rng([seed, number, 1]),
        trabecular_hu=paint.trabecular_hu(subject.bmd),
    )
    top = root / f"dataset-phantom{subject.split}"
    raw = top / "rawdata" / f"sub-{subject.subject_id}"
    derived = top / "derivatives" / f"sub-{subject.subject_id}"
    stem = f"sub-{subject.scan_id(series)}"
    raw.mkdir(parents=True, exist_ok=True)
    stored = _AS_UINT8 if series.uint8_ct else {}
    write_nifti(raw / f"{stem}_ct.nii.gz", drawn.ct, drawn.affine, **stored)
    _write_json(raw / f"{stem}_ct.json", _scanner(subject))
    if series.derivatives:
        derived.mkdir(parents=True, exist_ok=True)
        mask = drawn.mask.astype(np.float64) if series.float64_mask else drawn.mask
        write_nifti(derived / f"{stem}_seg-vert_msk.nii.gz", mask, drawn.affine)
        _write_json(derived / f"{stem}_seg-subreg_ctd.json", list(_centroids(drawn)))
        (derived / f"{stem}_seg-vert_snp.png").write_bytes(_snapshot(drawn))
    return sheet.Row(subject=subject, series=series, resolution_mm=drawn.slice_mm)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


def _scanner(subject: SubjectSpec) -> dict[str, str]:
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
    """Return a small grey sagittal projection as PNG; uncompressed: zlib does not matter."""
    axes = AxisMap.between(drawn.affine, "PIR")
    sizes = voxel_sizes(axes.affine(drawn.affine, drawn.ct.shape))
    seen = np.where(axes.apply(drawn.mask) > 0, axes.apply(drawn.ct), -200).max(axis=2).T
    grey = (np.clip((seen.astype(np.float32) + 200) / 1200, 0, 1) * 255).astype(np.uint8)
    width = max(1, round(_SNAPSHOT_HEIGHT * grey.shape[1] * sizes[0] / (grey.shape[0] * sizes[1])))
    stream = io.BytesIO()
    small = Image.fromarray(grey).resize((width, _SNAPSHOT_HEIGHT), Image.Resampling.BILINEAR)
    small.save(stream, format="PNG", compress_level=0)
    return stream.getvalue()


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One series, in its own grid (I, J, K)."""

    ct: npt.NDArray[np.int16]  # HU
    mask: npt.NDArray[np.uint8]  # VerSe labels
    affine: npt.NDArray[np.float64]  # (4, 4), voxel index to world mm, RAS+
    centroids: Mapping[int, npt.NDArray[np.float64]]
    """Voxel index by label: middle of the body; of C1, which has none, the mask's centre of mass."""
    slice_mm: float  # the largest voxel size; Res in the workbook


def render(
    spec: SeriesSpec,
    *,
    shape: tuple[int, int, int],
    patient: np.random.Generator,
    rng: np.random.Generator,
    trabecular_hu: float,
) -> Rendered:
    """Build the series of `spec`, at most `shape` voxels along P, I and R."""
    # `patient` generates the spine, so that two series of a patient show the same one; `rng`
    # generates the noise of this series.
    spine = place(_visible(spec), fractures=spec.fractures, rng=patient)
    grid = _field_of_view(spine, spec, shape)
    bones, metal = _voxelise(spine, spec, grid)
    mask = np.where(bones == _UNLABELLED, 0, bones).astype(np.uint8)
    centroids = {
        LABEL_OF_LEVEL[v.level]: grid.index(v.centre) for v in spine if v.level in spec.annotated
    }
    if 1 in centroids:
        centroids[1] = np.array(ndimage.center_of_mass(mask == 1))
    if spec.crumbs:
        _scatter_crumbs(mask, bones, rng)
    ct = paint.paint(
        bones,
        grid.sizes,
        rng=rng,
        trabecular_hu=trabecular_hu,
        metal=metal if metal.any() else None,
    )
    affine = _affine(grid, oblique=spec.oblique)
    axes = AxisMap.between(affine, spec.axcodes)
    missing = LABEL_OF_LEVEL.get(spec.without_centroid or "")
    return Rendered(
        ct=np.ascontiguousarray(axes.apply(ct)),
        mask=np.ascontiguousarray(axes.apply(mask)),
        affine=axes.affine(affine, grid.shape),
        centroids={
            label: axes.points(point, grid.shape)
            for label, point in sorted(centroids.items())
            if label != missing
        },
        slice_mm=grid.slice_mm,
    )


def _visible(spec: SeriesSpec) -> tuple[str, ...]:
    """Return the annotated levels and their neighbours, which the field of view truncates."""
    column = (*spec.column, SACRUM)
    first, last = (column.index(level) for level in spec.levels)
    return column[max(first - 1, 0) : last + 2]


def _field_of_view(spine: list[Vertebra], spec: SeriesSpec, shape: tuple[int, int, int]) -> Grid:
    """Return a grid around the annotated vertebrae, no finer than `spec` and at most `shape`."""
    shown = [v for v in spine if v.level in spec.annotated]
    top = shown[0].centre[1] + shown[0].height / 2 + _MARGIN_UP_MM
    bottom = min(v.lowest for v in shown)
    front = max(v.centre[0] + v.depth / 2 for v in shown) + 24
    rear = min(v.centre[0] + v.rear for v in shown) - 22
    half = max(42.0, *(v.width / 2 + v.transverse + 5 for v in shown))
    extent = (front - rear, top - bottom, 2 * half)
    in_plane = max(1.0, *(_rounded_up(mm / n) for mm, n in zip(extent[:2], shape[:2], strict=True)))
    slice_mm = max(spec.slice_mm, in_plane, _rounded_up(extent[2] / shape[2]))
    sizes = (in_plane, in_plane, slice_mm)
    n = [
        min(limit, math.ceil(mm / size))
        for mm, size, limit in zip(extent, sizes, shape, strict=True)
    ]
    return Grid(
        shape=(n[0], n[1], n[2]),
        origin=(front, top, -(n[2] - 1) / 2 * slice_mm),
        in_plane=in_plane,
        slice_mm=slice_mm,
    )


def _rounded_up(size: float) -> float:
    """Round a voxel size up to a twentieth of a millimetre."""
    return math.ceil(size * 20) / 20


def _voxelise(
    spine: list[Vertebra], spec: SeriesSpec, grid: Grid
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return labels (255: unannotated bone) and metal; a voxel is that of the nearest vertebra."""
    bones = np.zeros(grid.shape, dtype=np.uint8)
    metal = np.zeros(grid.shape, dtype=bool)
    nearest = np.full(grid.shape, np.inf, dtype=np.float32)
    for vertebra in spine:
        at = local(vertebra, grid)
        distances = distance(vertebra, at)
        annotated = vertebra.level in spec.annotated
        label = LABEL_OF_LEVEL[vertebra.level] if annotated else _UNLABELLED
        closest = nearest[at.where]
        inside = (distances < 0) & (distances < closest)
        bones[at.where][inside] = label
        np.minimum(closest, distances, out=closest)
        if vertebra.level in spec.foreign:
            radius = max(2.6, 0.6 * grid.in_plane, 0.6 * grid.slice_mm)
            metal[at.where] |= screws(vertebra, at, radius=radius) < 0
    bones[metal] = 0
    return bones, metal


def _scatter_crumbs(
    mask: npt.NDArray[np.uint8], bones: npt.NDArray[np.uint8], rng: np.random.Generator
) -> None:
    """Set single voxels of a label away from its vertebra, as in manually corrected masks."""
    free = ndimage.distance_transform_cdt(bones == 0, metric="chessboard")
    spots = np.argwhere((free >= 3) & (free <= 5))
    for spot in rng.choice(spots, size=_CRUMBS, replace=False):
        around = tuple(slice(max(x - 6, 0), x + 7) for x in spot)
        near = np.unique(mask[around])
        labels = near[near > 0]
        if labels.size:
            mask[tuple(spot)] = labels[0]


def _affine(grid: Grid, *, oblique: bool) -> npt.NDArray[np.float64]:
    """Return the affine of voxels (P, I, R) to world mm; oblique ones are rotated."""
    a, u, r = grid.origin
    affine = np.zeros((4, 4))
    affine[2, 1], affine[1, 0], affine[0, 2] = -grid.in_plane, -grid.in_plane, grid.slice_mm
    affine[:, 3] = (r, a + 40.0, u - 310.0, 1.0)
    if oblique:
        angle = math.radians(_OBLIQUE_DEGREES)
        tilt = np.eye(4)
        tilt[1:3, 1:3] = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        turn = np.eye(4)
        turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        affine = turn @ tilt @ affine
    return affine


# --- the phantom as a release ---------------------------------------------------------------------


def publish(dataset: Repository, progress: Progress) -> None:
    """Write the phantom's files, lock them if there is no lock, and adopt the missing ones."""
    with staging(dataset.path.with_name("phantom-tree")) as tree:
        write(tree, progress=progress)
        if not dataset.exists():
            dataset.publish(lock_tree(tree, release=PHANTOM, progress=progress))
        # Another version of NumPy may write other bytes; files that are not locked are not adopted.
        dataset.adopt([tree], progress=progress)


def restore(dataset: Repository, lock: ReleaseLock, progress: Progress) -> None:
    """Write missing files of the phantom again, since they have no address to be fetched from."""
    written = {
        f"sub-{subject.scan_id(series)}_ct.nii.gz"
        for subject in subjects(DEFAULT_SUBJECTS, seed=0)
        for series in subject.series
    }
    locked = {path.rpartition("/")[2] for path in lock.by_path if path.endswith("_ct.nii.gz")}
    if written == locked:  # else another tree was locked under this name
        publish(dataset, progress)
