"""Every unit against the source files, read by nibabel and cut, turned and resampled by NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from nibabel.affines import apply_affine, voxel_sizes
from scipy.ndimage import map_coordinates

from tests.support import training as support
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.training import PatchDataset, ScanDataset, ServedScan, VertebraDataset

Volume = npt.NDArray[Any]
AIR = -1024
EXACT = 1e-3
PAD = 3
ORIENTATIONS = ("RAS", "PIR", "LSA")
SPECS = (
    support.Spec("verse900", grades={"T11": 1, "L1": "x"}, affine=support.OBLIQUE_2MM),
    support.Spec(
        "verse901",
        levels=("T12", "T13", "L1"),
        grades={"T12": 3},
        affine=support.oblique(support.LPS_ANISO, -9),
        shape=(90, 110, 40),
    ),
)


@dataclass(frozen=True)
class Files:
    """Scans with stores, their table, and the folder of the files they were made from."""

    folder: Path
    scans: list[ServedScan]
    table: Any

    def read(self, scan_id: str, kind: str, codes: str) -> tuple[Volume, Volume]:
        """Return voxels and affine of a file, turned to `codes` by nibabel."""
        image: Any = nib.load(self.folder / f"{scan_id}_{kind}.nii")
        wanted = nib.orientations.axcodes2ornt(codes)
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
        turned = image.as_reoriented(turn)
        return np.asanyarray(turned.dataobj), turned.affine


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Write noise as image, so that no voxel is like another, and masks with holes."""
    folder = tmp_path_factory.mktemp("files")
    scans = []
    for number, spec in enumerate(SPECS):
        drawn = np.random.default_rng(number)
        _, mask = support.volumes(spec)
        image = drawn.integers(-1000, 2000, spec.shape).astype(np.int16)
        mask = np.where(drawn.random(spec.shape) < 0.8, mask, 0).astype(np.uint8)
        ct, seg = (folder / f"{spec.scan_id}_{kind}.nii" for kind in ("ct", "msk"))
        nib.save(nib.Nifti1Image(image, spec.affine), ct)
        nib.save(nib.Nifti1Image(mask, spec.affine), seg)
        inverse = np.linalg.inv(spec.affine)
        points = {
            LABEL_OF_LEVEL[level]: apply_affine(inverse, at)
            for level, at in support.positions(spec).items()
        }
        scans.append(support.build_files(folder, spec.scan_id, ct, seg, points))
    return Files(folder, scans, support.table(SPECS))


def cut(volume: Volume, start: Any, shape: Any, pad: int) -> Volume:
    """Return a box of `volume`, padded where it reaches outside."""
    out = np.full(shape, pad, volume.dtype)
    inside = [
        slice(max(a, 0), min(a + n, m)) for a, n, m in zip(start, shape, volume.shape, strict=True)
    ]
    target = [slice(s.start - a, s.stop - a) for s, a in zip(inside, start, strict=True)]
    out[tuple(target)] = volume[tuple(inside)]
    return out


def assert_cut(files: Files, codes: str, sample: dict[str, Any]) -> None:
    """Check image, label and affine of a sample of whole voxels against the files."""
    image, affine = files.read(sample["scan_id"], "ct", codes)
    mask, _ = files.read(sample["scan_id"], "msk", codes)
    shape = sample["image"].shape[1:]
    first = apply_affine(np.linalg.inv(affine), sample["affine"][:3, 3].numpy())
    start = np.rint(first).astype(int)

    assert np.abs(first - start).max() < EXACT
    assert np.abs(sample["affine"].numpy()[:3, :3] - affine[:3, :3]).max() < EXACT
    assert (sample["image"][0].numpy() == cut(image, start, shape, AIR)).all()
    assert (sample["label"][0].numpy() == cut(mask, start, shape, 0)).all()
    assert_centroids(sample)


def assert_centroids(sample: dict[str, Any]) -> None:
    """Check that the centroids are those of the scan, and of no other level."""
    spec = next(spec for spec in SPECS if spec.scan_id == sample["scan_id"])
    known = support.positions(spec)
    for row, level in zip(sample["centroids"].numpy(), LEVELS, strict=True):
        expected = known.get(level, np.full(3, np.nan))
        assert np.allclose(row, expected, atol=EXACT, equal_nan=True)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_scans_are_the_files(files: Files, codes: str) -> None:
    """Turned to any axes, image, label, affine and centroids are the files'."""
    for sample in ScanDataset(files.scans, orientation=codes):
        image, _ = files.read(sample["scan_id"], "ct", codes)
        assert sample["image"].shape[1:] == image.shape
        assert_cut(files, codes, sample)


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("sampling", ["uniform", "foreground", "level", "grade"])
@pytest.mark.parametrize("size", [(20, 30, 24), (150, 20, 160)], ids=str)
def test_patches_are_boxes_of_the_files(
    files: Files, codes: str, sampling: Any, size: tuple[int, int, int]
) -> None:
    """A patch is the box that it names, padded with air and background."""
    table = files.table if sampling in {"level", "grade"} else None
    for sample in PatchDataset(
        files.scans, vertebrae=table, orientation=codes, patch_size=size, sampling=sampling
    ):
        _, affine = files.read(sample["scan_id"], "ct", codes)
        first, last = sample["box"].numpy()
        assert np.allclose(apply_affine(affine, first), sample["affine"][:3, 3], atol=EXACT)
        assert tuple(last - first) == size == sample["image"].shape[1:]
        assert_cut(files, codes, sample)
        assert sampling != "foreground" or (sample["label"] > 0).any()


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("around", ["centroid", "mask"])
def test_crops_are_boxes_of_the_files(files: Files, codes: str, around: Any) -> None:
    """A crop in the scan's voxels lies about the centroid to half a voxel, or holds the mask."""
    size, margin = np.array([30.0, 50.0, 44.0]), 3.0
    for sample in VertebraDataset(
        files.scans,
        files.table,
        orientation=codes,
        around=around,
        crop_size_mm=size.tolist(),
        margin_mm=margin if around == "mask" else None,
        voxel_mm=None,
        label_mode="all",
        include=("graded", "foreign_material"),
    ):
        mask, affine = files.read(sample["scan_id"], "msk", codes)
        shape, voxel = np.array(sample["image"].shape[1:]), voxel_sizes(affine)
        assert_cut(files, codes, sample)
        if around == "centroid":
            row = sample["centroids"][LEVELS.index(sample["level"])].numpy()
            at = apply_affine(np.linalg.inv(sample["affine"].numpy()), row)
            assert tuple(shape) == tuple(np.rint(size / voxel).astype(int))
            assert np.abs(at - (shape - 1) / 2).max() < 0.5 + EXACT
        else:
            voxels = np.argwhere(mask == sample["vertebra_label"])
            whole = voxels.max(axis=0) - voxels.min(axis=0) + 1
            assert tuple(shape) == tuple(np.rint(whole + 2 * margin / voxel).astype(int))
            assert (sample["label"] == sample["vertebra_label"]).sum() == len(voxels)


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("around", ["centroid", "mask"])
@pytest.mark.parametrize("axes", ["scan", "spine"])
def test_resampled_crops_are_the_files_resampled(
    files: Files, codes: str, around: Any, axes: Any
) -> None:
    """Image linearly, this vertebra's label by the nearest voxel, in voxels of the asked size."""
    voxel = (1.5, 1.2, 2.1)
    for sample in VertebraDataset(
        files.scans,
        files.table,
        orientation=codes,
        around=around,
        axes=axes,
        crop_size_mm=36,
        margin_mm=4 if around == "mask" else None,
        voxel_mm=voxel,
    ):
        image, affine = files.read(sample["scan_id"], "ct", codes)
        mask, _ = files.read(sample["scan_id"], "msk", codes)
        shape = sample["image"].shape[1:]
        index = np.indices(shape).reshape(3, -1).T
        at = apply_affine(np.linalg.inv(affine) @ sample["affine"].numpy(), index).T
        wide = np.pad(image.astype(float), PAD, constant_values=AIR)
        expected = map_coordinates(wide, at + PAD, order=1, mode="nearest").reshape(shape)
        this = np.pad(mask == sample["vertebra_label"], PAD)
        nearest = map_coordinates(this, np.rint(at) + PAD, order=0, mode="nearest").reshape(shape)
        sure = (np.abs(at - np.floor(at) - 0.5) > EXACT).all(axis=0).reshape(shape)

        assert np.allclose(voxel_sizes(sample["affine"].numpy()), voxel)
        assert np.abs(sample["image"][0].numpy() - expected).max() < 0.1
        assert (sample["label"][0].numpy() == nearest)[sure].all()
        assert_centroids(sample)
