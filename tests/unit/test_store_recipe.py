"""Fingerprints: what names a store, and what does not."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from pydantic import ValidationError

from tests.support.headers import nifti
from tests.support.scans import make_scan, source_file
from verse_data.errors import (
    ChunkMissing,
    ContentMissing,
    StorageError,
    UsageError,
    VolumeCorrupt,
)
from verse_data.errors import ValidationFailed as Failed
from verse_data.records.centroids import CentroidFile
from verse_data.records.source_file import SourceFile
from verse_data.volumes.build import build_stores, in_processes
from verse_data.volumes.cache import cache_size, list_stores
from verse_data.volumes.convert import open_conversion
from verse_data.volumes.nifti import write_nifti
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import (
    RECIPE_VERSION,
    Recipe,
    ScanSource,
    StoreKeys,
    fingerprint,
)
from verse_data.volumes.store import ensure_store, store_path

KEY = "SHA256E-s1--" + "0" * 64 + ".nii.gz"


@pytest.fixture
def source(tmp_path):
    """A scan."""
    return make_scan(tmp_path, shape=(20, 20, 20)).source


def test_everything_that_matters_is_in_the_name():
    """A change of any content, id, licence or step of the recipe is another store; no file is needed."""
    keys = StoreKeys(scan_id="verse901", image=KEY, mask=KEY, centroids=KEY, licence="CC0-1.0")
    other = KEY.replace("s1", "s2")
    variants = [
        replace(keys, image=other),
        replace(keys, mask=other),
        replace(keys, mask=None),
        replace(keys, centroids=other),
        replace(keys, centroids=None),
        replace(keys, mask=None, centroids=None),
        replace(keys, scan_id="verse902"),
        replace(keys, licence="other"),
    ]
    recipes = [
        Recipe(codec="zstd"),
        Recipe(codec="none"),
        Recipe(spacing=(1.0, 1.0, 1.0)),
        Recipe(spacing=(1.0, 1.0, 2.0)),
        Recipe(spacing=(1.0, 1.0, 1.0), interpolation="cubic"),
    ]
    names = {fingerprint(keys, Recipe())}
    names |= {fingerprint(variant, Recipe()) for variant in variants}
    names |= {fingerprint(keys, recipe) for recipe in recipes}
    assert len(names) == 1 + len(variants) + len(recipes)


def test_paths_and_parsed_values_are_not(source, tmp_path):
    """The same contents elsewhere, touched later or read otherwise, are the same store."""
    moved = tmp_path / "elsewhere.nii.gz"
    source.image.path.rename(moved)
    same = [
        replace(source, image=SourceFile(moved, source.image.key)),
        replace(source, centroids=None),
    ]
    assert {variant.keys for variant in same} == {source.keys}


def test_a_store_holds_what_its_name_follows_from(source, tmp_path):
    """From the attributes of a store alone its name can be worked out, also for a later layout."""
    recipe = Recipe(spacing=(2.0, 1.0, 1.5), codec="zstd")
    other = CentroidFile(direction="LPS", points=())
    apart = replace(source, centroids=other)  # the points are left out, their key is not
    for scan in (apart, replace(source, mask=None, centroids=None, centroids_key=None)):
        store = ensure_store(scan, recipe, tmp_path / "stores")
        said = ScanReader(store).attributes
        files = {role: said["source"][role] for role in ("image", "mask", "centroids")}
        keys = StoreKeys(scan_id=said["scan_id"], licence=said["licence"], **files)
        again = Recipe.model_validate_json(json.dumps(said["recipe"]))
        assert fingerprint(keys, again) == store.name
        assert said["recipe_version"] == RECIPE_VERSION
        assert said["centroids"] == {}


def test_points_need_the_key_of_their_file(source):
    """Points that no key stands for could differ under one name: they are refused."""
    with pytest.raises(UsageError, match="Give centroids_key"):
        replace(source, centroids_key=None)


def test_a_changed_file_under_an_old_key_is_refused(tmp_path):
    """Bytes that are not those of the key never become a store of that name."""
    scan = make_scan(tmp_path, shape=(20, 20, 20))
    write_nifti(scan.source.image.path, scan.image + 1, scan.affine)
    with pytest.raises(VolumeCorrupt, match=r"SHA-256 [0-9a-f]{12} where [0-9a-f]{12} is locked"):
        ensure_store(scan.source, Recipe(), tmp_path / "stores")
    assert [p for p in (tmp_path / "stores").rglob("*") if p.is_file()] == []


def test_a_missing_file_is_a_named_error(source, tmp_path):
    """A source that is not there is ContentMissing, with the path."""
    source.mask.path.unlink()
    with pytest.raises(ContentMissing, match="mask of scan verse901"):
        ensure_store(source, Recipe(), tmp_path / "stores")


def test_a_pair_that_does_not_fit_is_refused(tmp_path):
    """CT and mask of different shape, or further apart than 0.1 mm, become no store."""
    scan = make_scan(tmp_path, shape=(20, 20, 20))
    path = tmp_path / "other.nii.gz"
    write_nifti(path, scan.mask[:-1], scan.affine)
    with pytest.raises(Failed, match=r"\(20, 20, 20\) and its mask \(19, 20, 20\)"):
        ensure_store(replace(scan.source, mask=source_file(path)), Recipe(), tmp_path / "stores")
    moved = scan.affine.copy()
    moved[0, 3] += 0.2
    write_nifti(path, scan.mask, moved)
    with pytest.raises(Failed, match=r"up to 0\.20 mm apart"):
        ensure_store(replace(scan.source, mask=source_file(path)), Recipe(), tmp_path / "stores")
    moved[0, 3] -= 0.15
    write_nifti(path, scan.mask, moved)
    ensure_store(replace(scan.source, mask=source_file(path)), Recipe(), tmp_path / "stores")
    assert not any(p.is_file() and ".tmp-" in str(p) for p in (tmp_path / "stores").rglob("*"))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "x" * 65, "a b"])
def test_ids_stay_in_their_folder(name):
    """An id that could leave its folder is refused."""
    with pytest.raises(UsageError, match="not a scan id"):
        ScanSource(scan_id=name, image=SourceFile(Path("x"), KEY))


@pytest.mark.parametrize(
    "wrong",
    [
        {"spacing": (0.0, 1.0, 1.0)},
        {"spacing": (1.0, 1.0)},
        {"codec": "gzip"},
        {"spacing": (1.0, 1.0, 99.0)},
    ],
)
def test_recipes_are_checked(wrong):
    """A recipe that means nothing is refused when it is made."""
    with pytest.raises(ValidationError):
        Recipe.model_validate(wrong)


def test_an_existing_store_that_lacks_a_file_is_not_served(source, tmp_path):
    """ensure_store looks at what is there before it hands it out."""
    store = ensure_store(source, Recipe(), tmp_path / "stores")
    (store / "label/c/0/0/0").unlink()
    with pytest.raises(ChunkMissing, match=r"verse901.*label/c/0/0/0"):
        ensure_store(source, Recipe(), tmp_path / "stores")


def test_a_lock_that_nobody_gives_back_costs_time_and_nothing_else(
    source, tmp_path, monkeypatch, caplog
):
    """Whoever waits for a store says so in the log, and builds it after a while all the same."""
    monkeypatch.setattr("verse_data.volumes.store._LOCK_SECONDS", 0.2)
    final = store_path(tmp_path / "stores", fingerprint(source.keys, Recipe()))
    final.parent.mkdir(parents=True)
    caplog.set_level("INFO", "verse_data.volumes.store")

    with FileLock(final.parent / f".lock-{final.name}"):
        assert ensure_store(source, Recipe(), tmp_path / "stores") == final

    assert [record.getMessage().split(" ")[0] for record in caplog.records] == [
        "taking",
        "building",
    ]


def test_a_build_goes_on_where_it_was(tmp_path):
    """A scan that fails leaves all others built; the next run builds the rest."""
    scans = [make_scan(tmp_path / n, scan_id=f"verse{n}", shape=(20, 20, 20)) for n in "123"]
    broken = scans[1].source.image.path
    content = broken.read_bytes()
    broken.write_bytes(content[:-9])
    sources = [scan.source for scan in scans]
    seen = []

    def progress(stage, total, unit):
        @contextmanager
        def bar():
            yield seen.append

        return bar()

    with pytest.raises(VolumeCorrupt, match=r"1 of 3 scans failed \(verse2\).*sub-verse2_ct"):
        build_stores(sources, Recipe(), tmp_path / "stores", progress=progress)
    assert cache_size(tmp_path / "stores")[0] == 2
    broken.write_bytes(content)
    built = build_stores(sources, Recipe(), tmp_path / "stores", workers=2, progress=progress)

    assert list(built) == ["verse1", "verse2", "verse3"]
    assert sum(seen) == 3 + 3


def test_the_conversion_of_one_scan_tells_its_voxels(tmp_path):
    """Somebody waits for it: all bytes of CT and mask are told, in steps."""
    scan = make_scan(tmp_path, shape=(70, 40, 90))
    told = []

    @contextmanager
    def progress(stage, total, unit):
        if unit == "bytes":
            told.append((stage, total))
        yield told.append if unit == "bytes" else str

    for _ in range(2):
        build_stores([scan.source], Recipe(), tmp_path / "stores", progress=progress)

    assert told[0] == ("Converting", 70 * 40 * 90 * 3)
    assert sum(told[1:]) == told[0][1]
    assert len(told) > 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_scan_stops_no_other(tmp_path, workers):
    """Two cut sources and a damaged store: the others are built, and the error counts all three."""
    scans = [make_scan(tmp_path / n, scan_id=f"verse{n}", shape=(9, 9, 9)) for n in "12345"]
    sources, root = [scan.source for scan in scans], tmp_path / "stores"
    (ensure_store(sources[4], Recipe(), root) / "zarr.json").unlink()
    for broken in (sources[0].image.path, sources[2].mask.path):
        broken.write_bytes(broken.read_bytes()[:-9])

    with pytest.raises(VolumeCorrupt, match=r"3 of 5 scans failed \(verse1, verse3, verse5\)"):
        build_stores(sources, Recipe(), root, workers=workers)
    assert {s.scan_id for s in list_stores(root) if not s.error} == {"verse2", "verse4"}


def test_a_killed_worker_is_a_named_error():
    """A process that the kernel ends is an error that speaks of memory and fewer workers."""
    with pytest.raises(StorageError, match=r"killed.*memory.*fewer workers"):
        list(in_processes(die, [1, 2], workers=2))


def die(_task):
    """End this process as the kernel does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_fewer_workers_than_one_are_refused(source, tmp_path):
    """It is a usage error, and nothing is built."""
    with pytest.raises(UsageError, match="workers=-3"):
        build_stores([source], Recipe(), tmp_path / "stores", workers=-3)


def test_a_key_without_a_digest_is_refused():
    """Bytes that could not be checked never become a store."""
    with pytest.raises(UsageError, match=r"MD5E-s1--00.* holds no SHA-256"):
        SourceFile(Path("x.nii.gz"), "MD5E-s1--00.nii.gz")


def test_what_was_noted_of_the_headers_is_kept(tmp_path):
    """Forms that differ, and fields of free text by name alone, stand in the store of that scan."""
    content = bytearray(nifti(qform_code=1, quatern=(0.0, 0, 0.7, 1, 2, 3)))
    content[148:160] = b"Jane Doe 42\0"
    noted, plain = tmp_path / "noted_ct.nii", tmp_path / "plain_ct.nii"
    noted.write_bytes(bytes(content))
    plain.write_bytes(nifti())

    found = {}
    for path in (noted, plain):
        source = ScanSource(scan_id="a", image=source_file(path))
        store = ensure_store(source, Recipe(), tmp_path / "stores")
        found[path] = ScanReader(store).attributes["source"]
        assert b"Jane" not in b"".join(p.read_bytes() for p in store.rglob("*") if p.is_file())

    (forms, text) = found[noted]["notes"]["image"]
    assert forms.startswith("qform and sform differ by ")
    assert text == "free text in descrip, not kept"
    assert "notes" not in found[plain], "a store of a plain header is what it was before"


@pytest.mark.parametrize(("shape", "sizes"), [((500, 4, 4), (20, 1, 1)), ((200,) * 3, (2, 2, 2))])
def test_a_grid_beyond_the_limits_is_refused(tmp_path, shape, sizes):
    """More than 32,767 voxels along an axis, or 2**29 in all, are refused before any is made."""
    path = tmp_path / "x_ct.nii.gz"
    write_nifti(path, np.zeros(shape, np.int16), np.diag([*map(float, sizes), 1.0]))
    source = ScanSource(scan_id="a", image=source_file(path))
    with pytest.raises(UsageError, match=r"spacing=\(0.1, 0.1, 0.1\).*limit"):
        ensure_store(source, Recipe(spacing=(0.1, 0.1, 0.1)), tmp_path / "stores")
    assert [p for p in (tmp_path / "stores").rglob("*") if p.is_file()] == []


def test_a_file_that_is_replaced_under_the_build_changes_nothing(tmp_path):
    """Voxels never end up under the affine of another file: both come from the one that was opened."""
    scan = make_scan(tmp_path, shape=(9, 9, 9))
    source = replace(scan.source, mask=None)
    store = ensure_store(source, Recipe(), tmp_path / "stores")
    with open_conversion(source, Recipe()) as conversion:
        write_nifti(scan.source.image.path, scan.image + 1, np.diag([2.0, 2.0, 2.0, 1.0]))
        conversion.write(tmp_path / "again")

    assert (tmp_path / "again/image/manifest.json").read_bytes() == (
        store / "image/manifest.json"
    ).read_bytes()


def test_a_file_that_is_written_over_under_the_build_is_refused(tmp_path):
    """Bytes that change in place are not those of the key, so nothing of them is used."""
    scan = make_scan(tmp_path, shape=(160, 160, 128))
    assert scan.source.image.size > 1 << 20, "more than is read ahead"
    with open_conversion(scan.source, Recipe()) as conversion:
        content = bytearray(scan.source.image.path.read_bytes())
        content[-9] ^= 1
        scan.source.image.path.write_bytes(content)
        with pytest.raises(VolumeCorrupt, match="CT of scan verse901"):
            conversion.write(tmp_path / "store")
