"""The reader gives back what was written: every codec, order, orientation and box."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from tests.support.scans import LPS, TILTED, make_scan
from tests.support.zarr_stores import write_store
from verse_data.errors import UsageError
from verse_data.spine.geometry import AxisMap, Box, apply_affine
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store

SHAPE = (70, 100, 45)
ORIENTATIONS = ("RAS", "PIR", "LPS", "SAL", "ILP")


def volumes(shape=SHAPE, seed=0):
    """Return a noisy image with a slab of air, and a mask that is empty in most chunks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 2000, shape).astype(np.int16)
    image[:40] = -1000
    label = (rng.random(shape) < 0.1).astype(np.uint8) * 9
    label[:, :64] = 0
    label[64:, 64:96] = 8
    return image, label


@pytest.fixture(scope="module", params=["lz4", "zstd", "none"])
def codec(request):
    """Return each codec in turn."""
    return request.param


@pytest.fixture(scope="module")
def written(codec, tmp_path_factory):
    """Return a store that zarr-python wrote, and the volumes that it holds."""
    image, label = volumes()
    folder = tmp_path_factory.mktemp("stores")
    store = write_store(folder, image, label, codec=codec)
    return ScanReader(store), image, label


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_whole_volume_in_every_orientation(written, orientation):
    """A whole scan reads voxel for voxel, in memory of its own, with the shape that grid() says."""
    reader, image, label = written
    axes = AxisMap.between(reader.affine, orientation)
    shape, _ = reader.grid(orientation)

    found = reader.read(Box.whole(shape), orientation=orientation)

    for array, truth in zip(found, (image, label), strict=True):
        assert np.array_equal(array, axes.apply(truth))
        assert array.dtype == truth.dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.owndata


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_boxes_that_reach_outside_are_padded(written, orientation):
    """Any box, half or wholly outside, equals the same box of the padded volume."""
    reader, image, label = written
    axes = AxisMap.between(reader.affine, orientation)
    rng = np.random.default_rng(1)
    shape = np.array(axes.shape(SHAPE))
    padded = [
        np.pad(axes.apply(image), 60, constant_values=-1024),
        np.pad(axes.apply(label), 60, constant_values=0),
    ]
    for _ in range(40):
        start = rng.integers(-60, shape + 30)
        stop = np.minimum(start + rng.integers(1, 80, 3), shape + 60)
        box = Box(tuple(start.tolist()), tuple(np.maximum(start, stop).tolist()))
        where = tuple(slice(a + 60, b + 60) for a, b in zip(box.start, box.stop, strict=True))

        found = reader.read(box, orientation=orientation)

        assert all(np.array_equal(a, b[where]) for a, b in zip(found, padded, strict=True))


def test_one_of_the_two(written):
    """What is not asked for is not read, and None stands in its place."""
    reader, image, label = written
    box = Box((3, 4, 5), (40, 90, 44))
    where = np.s_[3:40, 4:90, 5:44]

    only_image, nothing = reader.read(box, label=False)
    nothing_again, only_label = reader.read(box, image=False)

    assert nothing is None
    assert nothing_again is None
    assert np.array_equal(only_image, image[where])
    assert np.array_equal(only_label, label[where])


def test_two_reads_share_no_memory(written):
    """Writing into a sample changes neither the next one nor the store."""
    reader, image, _ = written
    box = Box((32, 32, 0), (64, 64, 32))
    first, _ = reader.read(box)
    first[...] = 1

    second, _ = reader.read(box)

    assert np.array_equal(second, image[32:64, 32:64, :32])


def test_a_box_that_ends_before_it_starts_is_refused(written):
    """A box with a negative side is a mistake of the caller, not an empty sample."""
    reader, _, _ = written
    with pytest.raises(UsageError, match="ends before it starts"):
        reader.read(Box((5, 5, 5), (4, 6, 6)))


def test_an_empty_box_is_empty(written):
    """A box without voxels gives arrays without voxels."""
    reader, _, _ = written
    image, label = reader.read(Box((5, 5, 5), (5, 6, 7)))
    assert image.shape == label.shape == (0, 1, 2)


def test_a_scan_without_mask(tmp_path):
    """Asking for the label of a scan that has none is an error that says what to do instead."""
    image, _ = volumes()
    reader = ScanReader(write_store(tmp_path, image, None))
    box = Box.whole(reader.shape)

    found, nothing = reader.read(box, label=False)

    assert nothing is None
    assert np.array_equal(found, image)
    assert not reader.has_label
    assert reader.labels == ()
    with pytest.raises(UsageError, match=r"verse999 has no mask.*label=False"):
        reader.read(box)


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("affine", [TILTED, LPS], ids=["oblique", "LPS"])
def test_stores_of_this_package(tmp_path, codec, affine):
    """A store built from NIfTI reads like its source, by our reader and by zarr-python alike."""
    scan = make_scan(tmp_path / "source", affine=affine)
    store = ensure_store(scan.source, Recipe(codec=codec), tmp_path / "stores")
    reader = ScanReader(store)
    codes = "PIR" if affine is TILTED else "LPS"

    image, label = reader.read(Box.whole(reader.grid(codes)[0]), orientation=codes)
    ours, _ = reader.read(Box.whole(reader.shape))
    group = zarr.open_group(store, mode="r", use_consolidated=False)

    assert np.array_equal(image, scan.image)
    assert np.array_equal(label, scan.mask)
    assert np.array_equal(group["image"][...].transpose(2, 1, 0), ours)
    assert np.allclose(reader.grid(codes)[1], scan.affine, atol=1e-6)


def test_what_a_store_says_of_itself(tmp_path):
    """Labels, their boxes, centroids and affine agree with the source's world positions."""
    scan = make_scan(tmp_path / "source", affine=TILTED)
    reader = ScanReader(ensure_store(scan.source, Recipe(), tmp_path / "stores"))
    _, label = reader.read(Box.whole(reader.shape))

    assert reader.scan_id == "verse901"
    assert reader.fingerprint == reader.path.name == reader.attributes["fingerprint"]
    assert reader.labels == (18, 19, 28, 20, 21)
    for number, box in reader.label_boxes.items():
        where = np.argwhere(label == number)
        assert box == Box(tuple(where.min(0).tolist()), tuple((where.max(0) + 1).tolist()))
    for point in scan.source.centroids.points:
        ours = apply_affine(reader.affine, reader.centroids[point.label])
        assert np.allclose(ours, apply_affine(scan.affine, point.point), atol=1e-4)
