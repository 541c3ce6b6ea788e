"""Drill 32: what safety costs. Limits of the scoreboard, each the best of several runs in turn."""

from __future__ import annotations

import shutil
import time

import pytest
import zarr

from tests.support.scans import make_scan
from verse_data.spine.geometry import Box
from verse_data.volumes.build import ensure_store
from verse_data.volumes.convert import Conversion
from verse_data.volumes.manifest import load_manifest, verify_store
from verse_data.volumes.opened import close_all
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe, fingerprint
from verse_data.volumes.store import store_path


def best_of(rounds, **ways):
    """Run each way in turn, several times over, and return the best time of each."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan large enough that its time is spent on voxels."""
    return make_scan(tmp_path_factory.mktemp("cost"), shape=(160, 160, 128))


def test_a_verified_read_is_no_slower_than_plain_zarr(scan, tmp_path):
    """Reading a whole scan for the first time, every chunk checked, against zarr-python unchecked."""
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")

    def verified():
        close_all()
        reader = ScanReader(store)
        reader.read(Box.whole(reader.shape))

    def plain():
        group = zarr.open_group(store, mode="r", use_consolidated=False)
        for name in ("image", "label"):
            group[name][:]

    best = best_of(4, verified=verified, plain=plain)
    assert best["verified"] < 1.15 * best["plain"]


def test_publishing_costs_less_than_the_build(scan, tmp_path):
    """Temporary folder, flushing, renaming and checking at most double an in-place build."""
    root, place = tmp_path / "stores", tmp_path / "in-place"

    def published():
        shutil.rmtree(root, ignore_errors=True)
        ensure_store(scan.source, Recipe(), root)

    def in_place():
        shutil.rmtree(place, ignore_errors=True)
        final = store_path(place, fingerprint(scan.source, Recipe()))
        final.mkdir(parents=True)
        Conversion.plan(scan.source, Recipe(), final.name).write(final)

    best = best_of(8, published=published, in_place=in_place)
    assert best["published"] < 2.0 * best["in_place"]


def test_control_the_limits_catch_naive_safety(scan, tmp_path):
    """Building twice and comparing breaks the limit of publishing."""
    root, place = tmp_path / "stores", tmp_path / "in-place"
    name = fingerprint(scan.source, Recipe())

    def in_place(folder=place):
        shutil.rmtree(folder, ignore_errors=True)
        final = store_path(folder, name)
        final.mkdir(parents=True)
        Conversion.plan(scan.source, Recipe(), name).write(final)

    def twice():
        in_place(root / "again")
        in_place(root)
        found = [load_manifest(store_path(folder, name)).root for folder in (root, place)]
        assert found[0] == found[1]
        assert verify_store(store_path(root, name)) == []

    in_place()
    best = best_of(4, twice=twice, in_place=in_place)
    assert best["twice"] > 2.0 * best["in_place"]


def test_control_reading_twice_is_too_slow(scan, tmp_path):
    """A reader that checks zarr-python's answer by reading again breaks the limit of reading."""
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")

    def plain():
        group = zarr.open_group(store, mode="r", use_consolidated=False)
        return [group[name][:] for name in ("image", "label")]

    def compared():
        first, second = plain(), plain()
        assert all((a == b).all() for a, b in zip(first, second, strict=True))

    best = best_of(4, compared=compared, plain=plain)
    assert best["compared"] > 1.15 * best["plain"]
