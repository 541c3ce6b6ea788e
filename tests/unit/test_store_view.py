"""A store as xarray: lazy, verified, in every orientation, with world coordinates."""

from __future__ import annotations

import json
import pickle
from itertools import permutations, product

import numpy as np
import pytest
import xarray as xr

from tests.support.scans import LPS, PIR, TILTED, make_scan
from verse_data.errors import ChunkCorrupt, UsageError
from verse_data.spine.geometry import AxisMap, apply_affine
from verse_data.volumes.reader import close_all
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store
from verse_data.volumes.view import open_xarray

ORIENTATIONS = [
    "".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)
]


@pytest.fixture(scope="module", params=["LPS", "tilted"])
def scan(request, tmp_path_factory):
    """A scan and its store."""
    affine = {"LPS": LPS, "tilted": TILTED}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    made = make_scan(folder, affine=affine, shape=(34, 40, 36))
    return made, ensure_store(made.source, Recipe(), folder / "stores")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation(scan, orientation):
    """In all 48 orientations voxels, affine, coordinates and points say the same."""
    made, store = scan
    found = open_xarray(store, orientation=orientation)
    axes = AxisMap.between(made.affine, orientation)

    assert np.array_equal(found["image"].values, axes.apply(made.image))
    assert np.array_equal(found["label"].values, axes.apply(made.mask))
    affine = np.array(json.loads(found.attrs["affine"]))
    assert np.abs(affine - axes.affine(made.affine, made.image.shape)).max() < 1e-6
    index = (5, 7, 11)
    world = apply_affine(affine, index)
    named = [float(found[f"world_{axis}"][index]) for axis in "xyz"]
    assert np.allclose(named, world)
    points = json.loads(found.attrs["centroids"])
    assert set(points) == {str(p.label) for p in made.source.centroids.points}
    for p in made.source.centroids.points:
        here = apply_affine(affine, points[str(p.label)])
        assert np.allclose(here, apply_affine(made.affine, p.point))


def test_dimensions_have_coordinates_where_that_is_true(scan):
    """A straight scan has x, y, z in mm along its dimensions; an oblique one only where exact."""
    made, store = scan
    found = open_xarray(store)
    oblique = np.abs(made.affine[:3, :3]).astype(bool).sum() > 3
    assert found["image"].dims == ("x", "y", "z")
    assert ("x" in found.indexes) != oblique
    if not oblique:
        middle = float(found["y"].mean())
        near = found["image"].sel(x=0.0, y=middle, z=0.0, method="nearest")
        assert abs(float(near["world_y"]) - middle) <= 0.25
        assert np.array_equal(found["x"].values, found["world_x"].values[:, 0, 0])


def test_any_index_reads_what_numpy_would(scan):
    """Slices with steps, backwards, single indices, lists and empty ones are those of NumPy."""
    made, store = scan
    truth = AxisMap.between(made.affine, "RAS").apply(made.image)
    image = open_xarray(store)["image"]
    for key in (
        (slice(3, 20, 4), slice(None, None, -1), slice(30, 2, -7)),
        (5, slice(None), -1),
        (slice(4, 4), 3, slice(None)),
        (0, 0, 0),
        (slice(-5, None), slice(0, 1), slice(33, None)),
    ):
        assert np.array_equal(image[key].values, truth[key])
    rows = [7, 3, 3, 20]
    assert np.array_equal(image[rows, :, 4].values, truth[rows, :, 4])


def test_it_is_lazy_and_may_be_pickled(scan):
    """Opening reads no voxel, and a dataset travels to another process."""
    made, store = scan
    found = pickle.loads(pickle.dumps(open_xarray(store)))  # noqa: TID251 - our own bytes
    shown = repr(found)
    assert "world_x" in shown
    truth = AxisMap.between(made.affine, "RAS").apply(made.image)
    assert np.array_equal(found["image"][3:5].values, truth[3:5])


def test_what_is_opened_can_be_saved_as_it_is(scan, tmp_path):
    """A netCDF file gives back voxels, coordinates and every attribute."""
    opened = open_xarray(scan[1], orientation="PIR")
    opened.to_netcdf(tmp_path / "scan.nc")

    with xr.open_dataset(tmp_path / "scan.nc") as saved:
        xr.testing.assert_equal(saved, opened)
        for name, value in opened.attrs.items():
            assert np.array_equal(saved.attrs[name], value), name


def test_damage_is_found_when_looked_at(tmp_path):
    """A flipped bit is an error where its chunk is read, and not before."""
    made = make_scan(tmp_path, affine=PIR, shape=(34, 40, 36))
    store = ensure_store(made.source, Recipe(), tmp_path / "stores")
    shard = store / "image/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[40] ^= 1
    shard.write_bytes(content)
    close_all()
    image = open_xarray(store)["image"]
    with pytest.raises(ChunkCorrupt, match="verse901"):
        image.load()


def test_a_wrong_orientation_is_a_usage_error(scan):
    """Codes that name no three axes are refused before anything is read."""
    with pytest.raises(UsageError, match="three axis codes"):
        open_xarray(scan[1], orientation="RAX")


def test_licence_travels(scan):
    """Licence, scan and labels are attributes of what people get into their hands."""
    found = open_xarray(scan[1]).attrs
    assert found["licence"] == "CC0-1.0"
    assert found["scan_id"] == "verse901"
    assert found["labels"] == (18, 19, 28, 20, 21)
