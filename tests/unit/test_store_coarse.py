"""The coarser levels of a store: which voxels they are made of, and where those lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr

from tests.support.opened import opened_below
from tests.support.scans import LPS, PIR, TILTED, make_scan, source_file
from verse_data.errors import ChunkCorrupt, ChunkMissing
from verse_data.spine.geometry import Box, apply_affine
from verse_data.volumes.layout import ATTRIBUTES
from verse_data.volumes.nifti import write_nifti
from verse_data.volumes.reader import ScanReader, close_all
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.shard import read_level
from verse_data.volumes.store import (
    ensure_store,
    load_manifest,
    read_metadata,
    verify_store,
)

AFFINES = {"PIR": PIR, "LPS": LPS, "tilted": TILTED}
SHAPES = {
    "odd": (39, 41, 37),
    "one slice": (33, 64, 1),
    "one voxel": (1, 1, 1),
    "whole chunks": (64, 32, 96),
    "many slabs": (5, 139, 6),
    "a voxel more": (129, 3, 65),
}
RECIPES = {
    "lz4": Recipe(),
    "none": Recipe(codec="none"),
    "resampled": Recipe(spacing=(1.1, 0.8, 1.3)),
}
PATHS = {"image": "coarse", "label": "labels/vertebrae"}


def made(folder, image, mask, affine, recipe=None):
    """Build the store of these voxels; return its folder."""
    ct, msk = folder / "new_ct.nii.gz", folder / "new_msk.nii.gz"
    scan = make_scan(folder, shape=(4, 4, 4)).source
    write_nifti(ct, image, affine)
    write_nifti(msk, mask, affine)
    source = replace(scan, image=source_file(ct), mask=source_file(msk))
    return ensure_store(source, recipe or Recipe(), folder / "stores")


def unlike(shape, seed=0):
    """Return a CT whose voxels all differ, as far as int16 reaches, and a mask of all labels, at random."""
    rng = np.random.default_rng(seed)
    values = np.resize(np.arange(-32767, 32768, dtype=np.int16), int(np.prod(shape)))
    labels = np.resize(np.array([*range(26), 28], np.uint8), values.size)
    return rng.permutation(values).reshape(shape), rng.permutation(labels).reshape(shape)


def levels(store, name):
    """Return array, affine and OME-Zarr placement of a level by factor; 1 is the array itself."""
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    owner = group if name == "image" else group["labels/vertebrae"]
    (scales,) = owner.attrs["ome"]["multiscales"]
    own = group.attrs[ATTRIBUTES]["affine"]
    found = {}
    for factor, level in zip((1, 2, 4), scales["datasets"], strict=True):
        array = owner[level["path"]]
        placed = [t[t["type"]] for t in level["coordinateTransformations"]]
        affine = own if factor == 1 else array.attrs["affine"]
        found[factor] = array[:], np.array(affine), np.array(placed)
    return found


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("axes", AFFINES)
def test_each_coarse_voxel_is_of_its_block(tmp_path, axes, shape, recipe):
    """A CT's is the rounded mean of 2³ or 4³ voxels, fewer at the border; a label's the one nearest."""
    store = made(tmp_path, *unlike(shape), AFFINES[axes], recipe)

    for name in ("image", "label"):
        whole = zarr.open_array(store / name, mode="r")[:]
        for factor in (2, 4):
            found = zarr.open_array(store / PATHS[name] / str(factor), mode="r")[:]
            blocks = tuple(-(-n // factor) for n in whole.shape)
            expected = np.empty(blocks, whole.dtype)
            for place in np.ndindex(blocks):
                block = whole[tuple(slice(factor * p, factor * (p + 1)) for p in place)]
                middle = tuple(min((factor - 1) // 2, n - 1) for n in block.shape)
                mean = np.rint(block.sum(dtype=np.int64) / block.size)
                expected[place] = mean if name == "image" else block[middle]
            assert np.array_equal(found, expected), (name, factor)
    assert verify_store(store) == []


def test_halves_go_to_the_even(tmp_path):
    """Means of 0.5, 1.5, -0.5 and -1.5 are 0, 2, 0 and -2, as everywhere in a store."""
    image = np.array([0, 1, 1, 2, 0, -1, -1, -2], np.int16).reshape(8, 1, 1)
    store = made(tmp_path, image, np.zeros(image.shape, np.uint8), np.eye(4))
    found = zarr.open_array(store / "coarse/2", mode="r")[:]
    assert found.ravel().tolist() == [0, 2, 0, -2]


@pytest.mark.parametrize("axes", AFFINES)
def test_each_coarse_voxel_lies_where_it_is_said_to(tmp_path, axes):
    """A CT that grows evenly in space has, at each level's place, the value that belongs there."""
    shape, affine = (40, 24, 33), AFFINES[axes].astype(np.float32).astype(np.float64)
    slope = np.array([40, -64, 24]) @ np.linalg.inv(affine[:3, :3])  # whole steps of 8 a voxel
    index = np.moveaxis(np.indices(shape), 0, -1)
    image = np.rint((apply_affine(affine, index) - affine[:3, 3]) @ slope).astype(np.int16)
    mask = np.array([*range(26), 28], np.uint8)[image // 8 % 27]
    store = made(tmp_path, image, mask, affine)

    for name in ("image", "label"):
        for factor, (voxels, to_world, _) in levels(store, name).items():
            inner = voxels[tuple(slice(n // factor) for n in ScanReader(store).shape[::-1])]
            places = np.moveaxis(np.indices(inner.shape), 0, -1)[..., ::-1]
            expected = (apply_affine(to_world, places) - affine[:3, 3]) @ slope
            if name == "image":
                assert np.abs(inner - expected).max() < 0.01, factor
            else:
                truth = np.array([*range(26), 28])[np.rint(expected).astype(int) // 8 % 27]
                assert np.array_equal(inner, truth), factor


@pytest.mark.parametrize("axes", ["PIR", "LPS"])
def test_viewers_place_levels_as_their_affines_do(tmp_path, axes):
    """Where a scan is not oblique, scale and translation of OME-Zarr say the same as the affine."""
    store = made(tmp_path, *unlike((9, 10, 11)), AFFINES[axes])
    for name in ("image", "label"):
        for _, affine, (scale, translation) in levels(store, name).values():
            assert np.allclose(np.diag(affine)[2::-1], scale)
            assert np.allclose(affine[2::-1, 3], translation)


@pytest.mark.parametrize("how", ["flip", "remove"])
def test_damage_of_a_level_is_found_and_disturbs_no_training(tmp_path, how):
    """`cache verify` names the file; the reader never opens it, and reads the scan as before."""
    scan = make_scan(tmp_path)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    close_all()
    for key in ("coarse/2/c/0/0/0", "labels/vertebrae/4/c/0/0/0"):
        content = bytearray((store / key).read_bytes())
        content[-30] ^= 1
        (store / key).unlink()
        if how == "flip":
            (store / key).write_bytes(content)

    with opened_below(store) as opened:
        reader = ScanReader(store)
        image, _ = reader.read(Box.whole(reader.grid("PIR")[0]), orientation="PIR")
    found = verify_store(store)
    expected = ChunkCorrupt if how == "flip" else ChunkMissing

    assert np.array_equal(image, scan.image)
    assert not [name for name in opened if "coarse" in name or "labels" in name]
    assert [type(error) for error in found] == [expected] * 2
    assert "coarse/2/c/0/0/0" in str(found[0])
    assert "labels/vertebrae/4/c/0/0/0" in str(found[1])


def test_a_scan_without_mask_has_levels_of_its_ct(tmp_path):
    """It has those two and no others, and its metadata lists no more."""
    scan = make_scan(tmp_path, with_mask=False)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    listed = {key for key in load_manifest(store).keys if "coarse" in key}
    assert listed == {"coarse/zarr.json"} | {
        f"coarse/{factor}/{file}" for factor in (2, 4) for file in ("zarr.json", "c/0/0/0")
    }
    assert read_metadata(store, load_manifest(store), "coarse/2/zarr.json")["shape"] == [25, 35, 20]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_level_is_read_as_zarr_reads_it(tmp_path, shape, recipe):
    """Voxels and affine of each level are those that zarr-python gives, as (x, y, z)."""
    store = made(tmp_path, *unlike(shape), TILTED, recipe)

    for name in PATHS:
        for factor in (2, 4):
            voxels, affine = read_level(store, name, factor)
            expected, placed, _ = levels(store, name)[factor]
            assert (voxels == expected.transpose()).all()
            assert np.array_equal(affine, placed)


@pytest.mark.parametrize("name", PATHS)
def test_a_changed_level_is_not_shown(tmp_path, name):
    """One flipped bit is an error that names the file; so is an absent one."""
    store = made(tmp_path, *unlike((39, 41, 37)), PIR)
    shard = store / PATHS[name] / "2" / "c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)

    with pytest.raises(ChunkCorrupt, match="c/0/0/0"):
        read_level(store, name, 2)
    shard.unlink()
    with pytest.raises(ChunkMissing, match="c/0/0/0"):
        read_level(store, name, 2)
