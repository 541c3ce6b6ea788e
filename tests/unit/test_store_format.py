"""The store as others see it: zarr-python, xarray, tensorstore, OME-Zarr readers, and our reader."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import zarr

from tests.support.scans import LPS, PIR, TILTED, make_scan
from tests.support.zarr_stores import reseal
from verse_data.errors import StoreCorrupt
from verse_data.records.manifest import StoreManifest
from verse_data.spine.geometry import AxisMap, Box
from verse_data.volumes.layout import ATTRIBUTES, FILL
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store, load_manifest, read_metadata, verify_store
from verse_data.volumes.view import open_xarray

AFFINES = {"PIR": PIR, "LPS": LPS, "tilted": TILTED}
CODECS = ("lz4", "zstd", "none")
SHAPES = {"odd": (70, 50, 40), "one slice": (33, 64, 1), "whole chunks": (64, 32, 96)}


def in_ras(volume, affine):
    """Return a volume in the stored order, z, y, x."""
    return AxisMap.between(affine, "RAS").apply(volume).transpose(2, 1, 0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("axes", AFFINES)
def test_zarr_python_reads_what_was_written(tmp_path, axes, codec, shape):
    """Each codec, orientation and border gives zarr-python, which knows nothing of us, the voxels."""
    scan = make_scan(tmp_path, affine=AFFINES[axes], shape=shape)
    store = ensure_store(scan.source, Recipe(codec=codec), tmp_path / "stores")

    group = zarr.open_group(store, mode="r", use_consolidated=False)

    assert {name for name, _ in group.arrays()} == {"image", "label"}
    for name, truth in (("image", scan.image), ("label", scan.mask)):
        assert np.array_equal(group[name][:], in_ras(truth, scan.affine))
        assert group[name].metadata.dimension_names == ("z", "y", "x")
        assert group[name].fill_value == FILL[name]
    assert verify_store(store) == []


@pytest.mark.parametrize("axes", AFFINES)
def test_our_reader_reads_what_was_written(tmp_path, axes):
    """The reader gives back the file's own voxels, affine and points in the file's own axes."""
    scan = make_scan(tmp_path, affine=AFFINES[axes])
    reader = ScanReader(ensure_store(scan.source, Recipe(), tmp_path / "stores"))
    codes = reader.attributes["source"]["axcodes"]

    shape, affine = reader.grid(codes)
    image, label = reader.read(Box.whole(shape), orientation=codes)

    assert np.array_equal(image, scan.image)
    assert np.array_equal(label, scan.mask)
    assert np.abs(affine - scan.affine).max() < 1e-9
    back = AxisMap.between(reader.affine, codes).points(reader.centroids[20], reader.shape)
    assert np.allclose(back, (30.5, 25.0, 20.0))


def test_plain_xarray_opens_it(tmp_path):
    """Xarray opens a store without this package and without a warning."""
    scan = make_scan(tmp_path)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")

    found = xr.open_zarr(store, consolidated=False, mask_and_scale=False)

    assert np.array_equal(found["image"].values, in_ras(scan.image, scan.affine))
    assert found["label"].dims == ("z", "y", "x")


TENSORSTORE = """
import sys, numpy as np, tensorstore as ts
for store, name, out in zip(*[iter(sys.argv[1:])] * 3):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store}/{name}/"}}
    np.save(out, ts.open(spec, read=True).result().read().result())
"""


@pytest.mark.skipif(importlib.util.find_spec("tensorstore") is None, reason="no tensorstore here")
def test_tensorstore_reads_what_was_written(tmp_path):
    """tensorstore, an independent implementation of Zarr v3, reads the same voxels."""
    scan = make_scan(tmp_path)
    stores = {c: ensure_store(scan.source, Recipe(codec=c), tmp_path / "stores") for c in CODECS}
    wanted = [(c, name) for c in CODECS for name in ("image", "label", "coarse/2")]
    out = {(c, name): tmp_path / f"{c}-{name.replace('/', '')}.npy" for c, name in wanted}
    arguments = [str(a) for c, name in wanted for a in (stores[c], name, out[c, name])]

    # In a process of its own: once used, tensorstore breaks every fork of the process.
    subprocess.run([sys.executable, "-c", TENSORSTORE, *arguments], check=True, timeout=600)

    truth = {"image": in_ras(scan.image, scan.affine), "label": in_ras(scan.mask, scan.affine)}
    truth["coarse/2"] = zarr.open_array(stores["lz4"] / "coarse/2", mode="r")[:]
    for (_, name), path in out.items():
        assert np.array_equal(np.load(path), truth[name])


def test_ome_zarr_metadata(tmp_path):
    """Image and label are OME-Zarr 0.5: axes, true voxel sizes, origins, and labels with levels."""
    scan = make_scan(tmp_path, affine=LPS)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    origin = np.array(group.attrs[ATTRIBUTES]["affine"])[[2, 1, 0], 3]
    size = np.array([1.25, 0.5, 0.5])

    image = group.attrs["ome"]
    labels = group["labels"].attrs["ome"]
    label = group["labels/vertebrae"].attrs["ome"]

    assert labels["labels"] == ["vertebrae"]
    for metadata, paths, begins in (
        (image, ["image", "coarse/2", "coarse/4"], (0, 0.5, 1.5)),
        (label, ["label", "2", "4"], (0, 0, 1)),
    ):
        assert metadata["version"] == "0.5"
        (scales,) = metadata["multiscales"]
        assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"]
        assert [level["path"] for level in scales["datasets"]] == paths
        for level, factor, begin in zip(scales["datasets"], (1, 2, 4), begins, strict=True):
            scale, translation = level["coordinateTransformations"]
            assert scale == {"type": "scale", "scale": (size * factor).tolist()}
            assert np.allclose(translation["translation"], origin + begin * size)
    assert {"label-value": 28, "level": "T13"} in label["image-label"]["properties"]
    shown = group["labels/vertebrae/label"][:]
    assert np.array_equal(shown, in_ras(scan.mask, scan.affine))


def test_viewers_are_told_of_a_bone_window(tmp_path):
    """The omero block names scan, window in HU and the slice in the middle, which viewers show first."""
    scan = make_scan(tmp_path)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    group = zarr.open_group(store, mode="r", use_consolidated=False)

    omero = group.attrs["ome"]["omero"]

    (channel,) = omero["channels"]
    assert omero["name"] == "verse901"
    assert channel["label"] == "CT, HU"
    assert channel["color"] == "FFFFFF"
    assert channel["window"] == {"min": -1024, "start": -500, "end": 1300, "max": 3071}
    middle = group["image"].shape[0] // 2
    assert omero["rdefs"] == {"defaultT": 0, "defaultZ": middle, "model": "greyscale"}


OME_MODELS = pytest.mark.skipif(
    importlib.util.find_spec("ome_zarr_models") is None, reason="no ome-zarr-models here"
)


@OME_MODELS
def test_ome_zarr_models_find_nothing_wrong(tmp_path):
    """The models of the specification accept image and labels, with every level they list."""
    from ome_zarr_models.v05 import Image
    from ome_zarr_models.v05.image_label import ImageLabel

    scan = make_scan(tmp_path)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")

    image = Image.from_zarr(zarr.open_group(store, mode="r", use_consolidated=False))
    label = ImageLabel.from_zarr(
        zarr.open_group(store / "labels/vertebrae", mode="r", use_consolidated=False)
    )

    paths = [level.path for level in image.ome_attributes.multiscales[0].datasets]
    assert paths == ["image", "coarse/2", "coarse/4"]
    assert [len(i.ome_attributes.multiscales[0].datasets) for i in (image, label)] == [3, 3]


def test_metadata_says_where_the_store_comes_from(tmp_path):
    """Scan, keys, recipe, licence, labels in spine order, and boxes of labels are attributes."""
    scan = make_scan(tmp_path, affine=TILTED)
    recipe = Recipe(codec="zstd")
    store = ensure_store(scan.source, recipe, tmp_path / "stores")

    found = read_metadata(store, load_manifest(store))["attributes"][ATTRIBUTES]

    assert found["scan_id"] == "verse901"
    assert "subject_id" not in found, "a corrected patient id must not rename stores"
    assert found["source"]["image"] == scan.source.image.key
    assert found["source"]["mask"] == scan.source.mask.key
    assert found["licence"] == "CC0-1.0"
    assert "authors" in found["notice"]
    assert found["recipe"] == recipe.model_dump(mode="json")
    assert found["labels"] == [18, 19, 28, 20, 21], "T13 lies between T12 and L1"
    ras = in_ras(scan.mask, scan.affine).transpose(2, 1, 0)
    for label, (start, stop) in found["label_boxes"].items():
        inside = np.argwhere(ras == int(label))
        assert (inside.min(0).tolist(), (inside.max(0) + 1).tolist()) == (start, stop)


def test_a_scan_without_mask_has_no_label(tmp_path):
    """A missing mask is a store without labels, never a store of zeros."""
    scan = make_scan(tmp_path, with_mask=False)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")

    assert not ScanReader(store).has_label
    assert list(open_xarray(store).data_vars) == ["image"]
    assert not (store / "label").exists()
    assert not (store / "labels").exists()
    assert ScanReader(store).attributes["labels"] is None


def test_same_input_same_bytes(tmp_path):
    """Two builds of one scan are the same, file by file."""
    scan = make_scan(tmp_path)
    one, two = (ensure_store(scan.source, Recipe(), tmp_path / name) for name in "ab")

    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]

    assert len(files) == 19
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_every_chunk_is_there_and_bound_to_its_place(tmp_path):
    """The manifest has one checksum and one constant a chunk, and they are those of the shard."""
    import base64

    import google_crc32c

    scan = make_scan(tmp_path)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    for name, array in load_manifest(store).arrays.items():
        shard = (store / array.shard).read_bytes()
        count = int(np.prod(array.grid))
        index = np.frombuffer(shard[-16 * count - 4 : -4], "<u8").reshape(*array.grid, 2)
        assert google_crc32c.value(shard[-16 * count - 4 : -4]).to_bytes(4, "little") == shard[-4:]
        sums = np.frombuffer(base64.b64decode(array.crc32c), "<u4").reshape(array.grid)
        same = np.frombuffer(base64.b64decode(array.constant), array.dtype).reshape(array.grid)
        voxels = zarr.open_array(store / name, mode="r")[:]
        for place in np.ndindex(array.grid):
            offset, size = (int(n) for n in index[place])
            chunk = shard[offset : offset + size]
            assert google_crc32c.value(chunk[:-4]) == sums[place]
            assert int.from_bytes(chunk[-4:], "little") == sums[place]
            part = voxels[tuple(slice(p * 32, p * 32 + 32) for p in place)]
            if part.min() == part.max():
                assert same[place] == part.flat[0]
            else:
                assert same[place] == FILL[name]


def test_privacy_canaries_do_not_travel(tmp_path):
    """Text planted in every free field and in an extension of the NIfTI is nowhere in the store."""
    import gzip
    from dataclasses import replace

    from tests.support.scans import source_file

    scan = make_scan(tmp_path)
    raw = bytearray(gzip.decompress(scan.source.image.path.read_bytes()))
    canary = b"CANARY^JOHN"
    for start, size in ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16)):
        raw[start : start + size] = canary.ljust(size, b"\0")[:size]
    extension = (32).to_bytes(4, "little") + (6).to_bytes(4, "little") + canary.ljust(24, b"\0")
    raw[108:112] = np.float32(352 + 32).tobytes()
    raw[348:352] = b"\1\0\0\0"
    path = tmp_path / "canary.nii.gz"
    path.write_bytes(gzip.compress(bytes(raw[:352]) + extension + bytes(raw[352:])))
    source = replace(scan.source, image=source_file(path))

    store = ensure_store(source, Recipe(), tmp_path / "stores")

    assert np.array_equal(open_xarray(store, orientation="PIR")["image"].values, scan.image)
    for file in store.rglob("*"):
        assert file.is_dir() or b"CANARY" not in file.read_bytes()


def test_documents_are_canonical_json(tmp_path):
    """The manifest is canonical JSON whose root digest covers everything else in it."""
    scan = make_scan(tmp_path)
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    content = (store / "image/manifest.json").read_bytes()
    document = json.loads(content)
    root = document.pop("root")

    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"

    assert hashlib.sha256(text.encode()).hexdigest() == root
    assert set(document["keys"]) == {
        path.relative_to(store).as_posix()
        for path in store.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("image/zarr.json", "dimension_names", ["z"]),
        ("image/zarr.json", "codecs", [{"name": "nosuch"}]),
        ("coarse/2/zarr.json", "shape", [1, 1]),
        ("labels/zarr.json", "zarr_format", 4),
        ("zarr.json", "node_type", "tree"),
    ],
)
def test_metadata_that_zarr_python_refuses_is_a_finding(tmp_path, key, field, value):
    """`cache verify` names a document that zarr-python does not read, though the manifest lists its digest."""
    store = ensure_store(make_scan(tmp_path, shape=(8, 8, 8)).source, Recipe(), tmp_path / "stores")
    document = json.loads((store / key).read_bytes()) | {field: value}
    (store / key).write_text(json.dumps(document))
    reseal(store)

    (found,) = verify_store(store)
    assert isinstance(found, StoreCorrupt)
    assert re.search(rf"{store}/{key} is no metadata that zarr-python reads .*--repair", str(found))


def test_a_store_that_zarr_python_refuses_is_never_published(tmp_path, monkeypatch):
    """A metadata document that this package wrote wrong is an error of the build, and leaves nothing."""
    monkeypatch.setattr("verse_data.volumes.layout.DIMENSIONS", ("z", "y"))
    source = make_scan(tmp_path, shape=(8, 8, 8)).source
    with pytest.raises(StoreCorrupt, match=r"Scan verse901: .*zarr\.json is no metadata that zarr"):
        ensure_store(source, Recipe(), tmp_path / "stores")
    assert [path for path in (tmp_path / "stores").rglob("*") if path.is_file()] == []


BUILD_AND_READ = """
import sys, threading
from pathlib import Path
from tests.support.scans import make_scan
from verse_data.spine.geometry import Box
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store, verify_store
folder = Path(sys.argv[1])
scan = make_scan(folder, shape=(8, 8, 8))
store = ensure_store(scan.source, Recipe(), folder / "stores")
reader = ScanReader(store)
reader.read(Box.whole(reader.shape))
assert verify_store(store) == []
assert threading.active_count() == 1, threading.enumerate()
"""


def test_building_and_verifying_start_no_thread_of_zarr(tmp_path):
    """A process that built and verified may fork: zarr-python's event loop was not started in it."""
    subprocess.run([sys.executable, "-c", BUILD_AND_READ, str(tmp_path)], check=True, timeout=600)


@pytest.mark.parametrize("key", ["../image/zarr.json", "/etc/hostname", "image//c", "image/\0"])
def test_a_manifest_lists_no_key_outside_its_store(tmp_path, key):
    """A manifest is another's word where a store comes from a URL: such a key is refused."""
    store = ensure_store(make_scan(tmp_path).source, Recipe(), tmp_path / "stores")
    document = json.loads((store / "image/manifest.json").read_bytes())
    document["keys"][key] = document["keys"]["zarr.json"]

    with pytest.raises(ValueError, match="is not a key of a store"):
        StoreManifest.model_validate(document)
