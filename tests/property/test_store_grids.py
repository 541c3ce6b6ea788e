"""Stores on any grid, held against nibabel's affine and scipy's interpolation alone.

Neither the plan of the resampling nor any arithmetic of this package is part of the reference: it
asks where each voxel of the store lies in the world, and what the file has there.
"""

from __future__ import annotations

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tests.support.scans import centroid_file, source_file
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe, ScanSource
from verse_data.volumes.store import ensure_store
from verse_data.volumes.view import open_xarray

SHAPES = [(1, 33, 7), (17, 1, 65), (31, 40, 1), (20, 33, 12)]
SPACINGS = [None, (1.0, 1.0, 1.0), (0.4, 2.5, 0.9), (5.0, 0.5, 1.3)]
CASES = list(itertools.product(range(len(SHAPES)), range(len(SPACINGS))))


def affine(rng):
    """Return any grid: anisotropic, in any order of axes, either hand, oblique two times in three."""
    turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    slant = rng.choice([0.0, 0.1, 0.6])
    rotation, _ = np.linalg.qr(np.eye(3) + slant * rng.normal(size=(3, 3)))
    made = np.eye(4)
    made[:3, :3] = rotation @ turn * rng.choice([0.3, 0.8, 1.0, 2.0003, 3.0], 3)
    made[:3, 3] = rng.normal(0, 100, 3)
    return made


def write(folder, rng, shape, name, kind):
    """Write a volume of noise with nibabel, by sform or by qform alone; return file and values."""
    values = (
        rng.integers(-1024, 3000, shape).astype(np.int16)
        if name == "ct"
        else rng.choice([0, 0, 0, 1, 20, 28], shape).astype(np.uint8)
    )
    image = nib.Nifti1Image(values, kind[0])
    image.set_sform(kind[0] if kind[1] else None, code=2 if kind[1] else 0)
    image.set_qform(None if kind[1] else kind[0], code=0 if kind[1] else 1)
    path = folder / f"{name}.nii.gz"
    nib.save(image, path)
    return path, values


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_each_voxel_is_what_the_file_has_there(tmp_path, shape, spacing):
    """Image, labels, points and world coordinates are right on grids of every kind."""
    rng = np.random.default_rng([shape, spacing])
    shape, spacing = SHAPES[shape], SPACINGS[spacing]
    kind = affine(rng), bool(rng.integers(2))
    (ct, image), (msk, mask) = (write(tmp_path, rng, shape, name, kind) for name in ("ct", "msk"))
    points = {label: rng.uniform(-1, shape) for label in (1, 20, 28)}
    source = ScanSource(
        scan_id="a",
        image=source_file(ct),
        mask=source_file(msk),
        centroids=centroid_file(points, nib.load(ct).affine),
        centroids_key="SHA256E-s1--00.json",
    )
    store = ensure_store(source, Recipe(spacing=spacing), tmp_path / "stores")
    codes = "".join(rng.permutation([rng.choice(list(pair)) for pair in ("RL", "AP", "SI")]))

    seen = open_xarray(store, orientation=codes)
    grid, truth = np.array(json.loads(seen.attrs["affine"])), nib.load(ct).affine
    centroids = json.loads(seen.attrs["centroids"])

    assert "".join(nib.aff2axcodes(grid)) == codes
    world = np.stack([seen[f"world_{axis}"].values for axis in "xyz"], axis=-1)
    index = np.moveaxis(np.indices(seen["image"].shape), 0, -1)
    assert np.allclose(world, nib.affines.apply_affine(grid, index), atol=1e-9)
    for label, at in points.items():
        found = nib.affines.apply_affine(grid, centroids[str(label)])
        assert np.allclose(found, nib.affines.apply_affine(truth, at), atol=1e-9)

    place = np.moveaxis(nib.affines.apply_affine(np.linalg.inv(truth), world), -1, 0)
    last = np.array(shape).reshape(3, 1, 1, 1) - 1
    assert np.all((place > -0.5) & (place < last + 0.5)), "no voxel is made up beyond the border"
    place = np.clip(place, 0, last)
    expected = ndimage.map_coordinates(image.astype(np.float64), place, order=1, mode="nearest")
    assert np.abs(seen["image"].values - expected).max() <= (0.501 if spacing else 0.01)
    clear = (np.abs(place % 1 - 0.5) > 1e-4).all(axis=0)
    nearest = mask[tuple(np.rint(place).astype(int))]
    assert np.array_equal(seen["label"].values[clear], nearest[clear])
    if spacing:
        voxels = nib.affines.voxel_sizes(ScanReader(store).affine)
        assert np.allclose(voxels, spacing, rtol=1e-6)
