"""Drill 31: stores of every layout version are read right, or refused with the rebuild command."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support.scans import TILTED, make_scan
from tests.support.zarr_stores import write_store
from verse_data.digests import canonical_json, sha256_of_json
from verse_data.errors import StoreCorrupt
from verse_data.spine.geometry import AxisMap, Box
from verse_data.volumes.build import ensure_store
from verse_data.volumes.cache import list_stores, prune
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.manifest import verify_store
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe, fingerprint

GOLDEN = Path(__file__).parents[1] / "data/stores"
NAME = "b2c8925627b9363e052d2bf4004166ddd52622f23e29a63c0eb3df52132fa38f"
FORMAT_1 = GOLDEN / "format-1/b2" / NAME
VOXELS = {
    "image": "1a07c3465b96bd5a649499efb9bfd4535fe57d8c10224ebe33ae4839cd249011",
    "label": "516f175f18d5192c5d9f9e2ea5f11e4eb0a12c1376f8d0e09a6b51fafa6b6c0f",
}


def digest(array):
    """Digest of voxels in x, y, z order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_format_1_is_read_right():
    """The store of layout 1 verifies, and reads as the voxels, affine and points it was made of."""
    reader = ScanReader(FORMAT_1)
    image, label = reader.read(Box.whole(reader.shape))

    assert verify_store(FORMAT_1) == []
    assert {"image": digest(image), "label": digest(label)} == VOXELS
    assert reader.centroids == {20: (20.0, 5.5, 14.0), 28: (20.0, 6.0, 19.0)}
    assert reader.labels == (18, 19, 28, 20, 21)
    stored = TILTED.astype(np.float32).astype(np.float64)
    expected = AxisMap.between(stored, "RAS").affine(stored, (37, 40, 33))
    assert np.abs(reader.affine - expected).max() < 1e-9


def test_format_1_is_read_right_by_zarr():
    """zarr-python alone reads it as well."""
    for name, expected in VOXELS.items():
        array = zarr.open_array(FORMAT_1 / name, mode="r")[:]
        assert digest(array.transpose(2, 1, 0)) == expected


def test_the_same_scan_still_has_this_name(tmp_path):
    """A scan built today has the same fingerprint: what lies on people's disks is found again."""
    scan = make_scan(tmp_path, shape=(37, 40, 33), affine=TILTED, seed=31)
    written = json.loads((FORMAT_1 / "zarr.json").read_bytes())["attributes"]["verse_data"]
    # The gzip bytes of a source may differ between zlib builds; the name follows from its key.
    source = written["source"]
    if (source["image"], source["mask"]) != (scan.source.image.key, scan.source.mask.key):
        pytest.skip("this zlib compresses otherwise")
    assert fingerprint(scan.source, Recipe()) == NAME
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    reader = ScanReader(store)
    assert digest(reader.read(Box.whole(reader.shape))[0]) == VOXELS["image"]


def test_a_later_format_is_refused_with_the_command(tmp_path):
    """A store of a layout that this version does not know is refused, listed as such, and goes if asked."""
    store = tmp_path / "stores/b2" / NAME
    shutil.copytree(FORMAT_1, store)
    path = store / "image/manifest.json"
    document = json.loads(path.read_bytes()) | {"store_format": 2}
    document.pop("root")
    path.write_bytes(canonical_json(document | {"root": sha256_of_json(document)}))

    with pytest.raises(StoreCorrupt, match="verse-data cache prune --all") as raised:
        ScanReader(store).shape  # noqa: B018 - looked at for its error
    assert "store_format" in str(raised.value)
    (listed,) = list_stores(tmp_path / "stores")
    assert "another layout" in listed.error
    assert prune(tmp_path / "stores").stores == ()
    assert prune(tmp_path / "stores", everything=True).stores == (store,)
    assert not store.exists()


def test_the_files_are_what_they_were():
    """The golden files themselves have not changed: their manifest has its old root digest."""
    document = json.loads((FORMAT_1 / "image/manifest.json").read_bytes())
    root = document.pop("root")
    assert root == sha256_of_json(document)
    assert document["store_format"] == 1


def later_layout(parent):
    """Write a store of a made-up layout 2: sound to its last byte, but each row of voxels reversed."""
    reader = ScanReader(FORMAT_1)
    image, label = reader.read(Box.whole(reader.shape))
    store = write_store(parent, image[::-1], label[::-1])
    path = store / MANIFEST_KEY
    document = json.loads(path.read_bytes()) | {"store_format": 2}
    document.pop("root")
    path.write_bytes(canonical_json(document | {"root": sha256_of_json(document)}))
    return store


def outcome(read, store):
    """Return what reading a store comes to: "right", "refused", or "wrong" without a word."""
    try:
        image, label = read(store)
    except StoreCorrupt as error:
        return "refused" if "verse-data cache prune --all" in str(error) else f"damaged: {error}"
    return "right" if {"image": digest(image), "label": digest(label)} == VOXELS else "wrong"


def read_by_layout(store):
    """Read a store as this package does."""
    reader = ScanReader(store)
    return reader.read(Box.whole(reader.shape))


def read_whatever_is_there(store):
    """Read a store as its arrays describe themselves, whichever layout it is of."""
    arrays = (zarr.open_array(store / name, mode="r")[:] for name in VOXELS)
    return [array.transpose(2, 1, 0) for array in arrays]


def test_no_layout_is_read_wrongly(tmp_path):
    """Every layout there has been is read right, and one to come is refused."""
    layouts = [path for path in GOLDEN.glob("format-*/*/*") if path.is_dir()]
    assert FORMAT_1 in layouts
    assert {outcome(read_by_layout, store) for store in layouts} == {"right"}
    assert outcome(read_by_layout, later_layout(tmp_path)) == "refused"


def test_control_a_reader_that_asks_for_no_layout_reads_other_voxels(tmp_path):
    """The naive way is right today, and wrong without a word once the layout has changed."""
    assert outcome(read_whatever_is_there, FORMAT_1) == "right"
    assert outcome(read_whatever_is_there, later_layout(tmp_path)) == "wrong"
