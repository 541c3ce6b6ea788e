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
from verse_data.errors import StoreCorrupt
from verse_data.files import canonical_json, sha256_of_json
from verse_data.spine.geometry import AxisMap, Box
from verse_data.volumes.cache import list_stores, prune, verify_stores
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe, StoreKeys, fingerprint
from verse_data.volumes.store import ensure_store, load_manifest, verify_store
from verse_data.volumes.write import slabs_of, write_array

GOLDEN = Path(__file__).parents[1] / "data/stores"
FORMAT_1 = GOLDEN / "format-1/b2/b2c8925627b9363e052d2bf4004166ddd52622f23e29a63c0eb3df52132fa38f"
FORMAT_2 = GOLDEN / "format-2/51/512d7e66b35915c1c723f59cd7ca336ad4db51dbba30c7fdb43015fd57fa4a0b"
VOXELS = {
    "image": "1a07c3465b96bd5a649499efb9bfd4535fe57d8c10224ebe33ae4839cd249011",
    "label": "516f175f18d5192c5d9f9e2ea5f11e4eb0a12c1376f8d0e09a6b51fafa6b6c0f",
}
LEVELS = {
    "coarse/2": "73e9abbc27484b2a840f7e30fd194c879a99be95c41f0a5d90045fd8211d1932",
    "coarse/4": "44bc5a386cf180ff488cdb10060b6b04cc03a92a4be79e212768f3e07d0ca93b",
    "labels/vertebrae/2": "c77f879398dec4f4192a1e35b98a9720255d9105fb463030d9000918e373dcc3",
    "labels/vertebrae/4": "04805f71002f60dfe79d796c32bc4a28de7e713361a776a695e20500f51ed63d",
}


def digest(array):
    """Digest of voxels in x, y, z order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_format_2_is_read_right():
    """The store of layout 2 verifies, and reads as the voxels, affine and points it was made of."""
    reader = ScanReader(FORMAT_2)
    image, label = reader.read(Box.whole(reader.shape))

    assert verify_store(FORMAT_2) == []
    assert {"image": digest(image), "label": digest(label)} == VOXELS
    assert reader.centroids == {20: (20.0, 5.5, 14.0), 28: (20.0, 6.0, 19.0)}
    assert reader.labels == (18, 19, 28, 20, 21)
    stored = TILTED.astype(np.float32).astype(np.float64)
    expected = AxisMap.between(stored, "RAS").affine(stored, (37, 40, 33))
    assert np.abs(reader.affine - expected).max() < 1e-9


def test_format_2_is_read_right_by_zarr():
    """zarr-python alone reads it as well, coarser levels too."""
    for name, expected in (VOXELS | LEVELS).items():
        array = zarr.open_array(FORMAT_2 / name, mode="r")[:]
        assert digest(array.transpose(2, 1, 0)) == expected


def test_the_same_scan_still_has_this_name(tmp_path):
    """A scan built today has the same fingerprint: what lies on people's disks is found again."""
    scan = make_scan(tmp_path, shape=(37, 40, 33), affine=TILTED, seed=31)
    # The gzip bytes of a source may differ between zlib builds; the name follows from its key.
    source = ScanReader(FORMAT_2).attributes["source"]
    if (source["image"], source["mask"]) != (scan.source.image.key, scan.source.mask.key):
        pytest.skip("this zlib compresses otherwise")
    assert fingerprint(scan.source.keys, Recipe()) == FORMAT_2.name
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    reader = ScanReader(store)
    assert digest(reader.read(Box.whole(reader.shape))[0]) == VOXELS["image"]
    assert verify_store(store) == []
    assert load_manifest(store).keys.keys() == load_manifest(FORMAT_2).keys.keys()


def test_a_later_layout_can_be_made_of_format_2(tmp_path):
    """Its own files are enough to write every array of it again, and to work out its name."""
    manifest, reader = load_manifest(FORMAT_2), ScanReader(FORMAT_2)
    said = reader.attributes
    image, label = reader.read(Box.whole(reader.shape))

    for name, voxels in (("image", image), ("label", label)):
        array = manifest.arrays[name]
        slabs = slabs_of(voxels.transpose(2, 1, 0), array.codec)
        again = write_array(
            tmp_path,
            name,
            array.shape,
            slabs,
            codec=array.codec,
            affine=reader.affine,
            attributes={},
        )
        assert again.stored == array
    for path, expected in LEVELS.items():
        level = zarr.open_array(tmp_path / path, mode="r")[:]
        assert digest(level.transpose(2, 1, 0)) == expected
    files = {role: said["source"][role] for role in ("image", "mask", "centroids")}
    keys = StoreKeys(scan_id=said["scan_id"], licence=said["licence"], **files)
    assert fingerprint(keys, Recipe.model_validate(said["recipe"])) == FORMAT_2.name


def test_format_1_is_refused_and_goes_if_asked(tmp_path):
    """A store of layout 1 is not served: the command that removes it, and no other, is named."""
    stores = tmp_path / "stores"
    for store in (FORMAT_1, FORMAT_2):
        shutil.copytree(store, stores / store.name[:2] / store.name)
    old, new = (stores / store.name[:2] / store.name for store in (FORMAT_1, FORMAT_2))

    with pytest.raises(StoreCorrupt, match="verse-data cache prune --earlier-formats"):
        ScanReader(old).shape  # noqa: B018 - looked at for its error
    assert {s.path: s.state for s in list_stores(stores)} == {old: "earlier_format", new: "sound"}
    assert verify_stores(stores, repair=True) == {}
    assert prune(stores).stores == prune(stores, images=[]).stores == ()
    assert prune(stores, earlier_formats=True).stores == (old,)
    assert new.is_dir()


def test_a_later_format_is_refused_with_the_command(tmp_path):
    """A store of a layout that this version does not know is refused, listed as such, and goes if asked."""
    store = later_layout(tmp_path / "stores/ab")

    with pytest.raises(StoreCorrupt, match="verse-data cache prune --all") as raised:
        ScanReader(store).shape  # noqa: B018 - looked at for its error
    assert "store_format" in str(raised.value)
    (listed,) = list_stores(tmp_path / "stores")
    assert "a later layout" in listed.error
    assert prune(tmp_path / "stores", earlier_formats=True).stores == ()
    assert prune(tmp_path / "stores", everything=True).stores == (store,)
    assert not store.exists()


@pytest.mark.parametrize(("store", "layout"), [(FORMAT_1, 1), (FORMAT_2, 2)], ids=["1", "2"])
def test_the_files_are_what_they_were(store, layout):
    """The golden files themselves have not changed: their manifest has its old root digest."""
    document = json.loads((store / "image/manifest.json").read_bytes())
    root = document.pop("root")
    assert root == sha256_of_json(document)
    assert document["store_format"] == layout


def later_layout(parent):
    """Write a store of a made-up layout 3: sound to its last byte, but each row of voxels reversed."""
    reader = ScanReader(FORMAT_2)
    image, label = reader.read(Box.whole(reader.shape))
    store = write_store(parent, image[::-1], label[::-1])
    path = store / MANIFEST_KEY
    document = json.loads(path.read_bytes()) | {"store_format": 3}
    document.pop("root")
    path.write_bytes(canonical_json(document | {"root": sha256_of_json(document)}))
    return store


def outcome(read, store):
    """Return what reading a store comes to: "right", "refused", or "wrong" without a word."""
    try:
        image, label = read(store)
    except StoreCorrupt as error:
        return "refused" if "verse-data cache prune --" in str(error) else f"damaged: {error}"
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
    """Every layout there has been is read right or refused, and one to come is refused."""
    layouts = [path for path in GOLDEN.glob("format-*/*/*") if path.is_dir()]
    found = {store: outcome(read_by_layout, store) for store in layouts}
    assert found == {FORMAT_1: "refused", FORMAT_2: "right"}
    assert outcome(read_by_layout, later_layout(tmp_path)) == "refused"


def test_control_a_reader_that_asks_for_no_layout_reads_other_voxels(tmp_path):
    """The naive way is right today, and wrong without a word once the layout has changed."""
    assert outcome(read_whatever_is_there, FORMAT_2) == "right"
    assert outcome(read_whatever_is_there, later_layout(tmp_path)) == "wrong"
