"""Drill 32: what safety costs, in bytes moved, bytes checked, and time of the processor.

Time is that of the processor, the best of several runs in turn, and the limits are those of the
scoreboard: a busy machine changes neither. What a control does in its place breaks each limit.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr

from tests.support.damage import Shard
from tests.support.scans import make_scan
from verse_data.errors import ChunkCorrupt
from verse_data.spine.geometry import Box
from verse_data.volumes.convert import open_conversion
from verse_data.volumes.reader import ScanReader, close_all
from verse_data.volumes.recipe import Recipe, fingerprint
from verse_data.volumes.store import ensure_store, store_path, verify_store

PATCHES = [Box.around(at, (48, 48, 48)) for at in np.random.default_rng(3).uniform(30, 90, (12, 3))]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan large enough that its time is spent on voxels."""
    return make_scan(tmp_path_factory.mktemp("cost"), shape=(160, 160, 128))


@pytest.fixture(scope="module")
def store(scan, tmp_path_factory):
    """Its store."""
    return ensure_store(scan.source, Recipe(), tmp_path_factory.mktemp("stores"))


def best_of(rounds, **ways):
    """Run each way in turn, several times over, and return the processor's best time of each."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            best[name] = min(best[name], time.process_time() - begin)
    return best


def moved(way):
    """Return the bytes that this process read and wrote, from and to files, while it ran `way`."""
    counters = Path("/proc/self/io")
    if not counters.is_file():
        pytest.skip("this kernel does not count what a process reads and writes")

    def now():
        lines = dict(line.split(": ") for line in counters.read_text().splitlines())
        return np.array([int(lines["rchar"]), int(lines["wchar"])])

    before = now()
    way()
    return now() - before


def by_zarr(store, box):
    """Read a patch with zarr-python, unchecked."""
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    part = tuple(slice(a, b) for a, b in zip(box.start[::-1], box.stop[::-1], strict=True))
    return [group[name][part] for name in ("image", "label")]


def verified(store):
    """Read all patches for the first time, every chunk checked."""
    close_all()
    return [ScanReader(store).read(box) for box in PATCHES]


def plain(store):
    """Read all patches with zarr-python alone."""
    return [by_zarr(store, box) for box in PATCHES]


def test_verified_reads_are_no_slower_than_plain_zarr(store):
    """Patches out of a scan, every chunk checked, against zarr-python unchecked."""
    best = best_of(4, verified=lambda: verified(store), plain=lambda: plain(store))
    assert best["verified"] < 1.15 * best["plain"]


def test_control_checking_the_store_at_each_read_is_too_slow(store):
    """A reader that holds the files against the manifest at every read breaks that limit."""

    def careful():
        for box in PATCHES:
            assert verify_store(store) == []
            by_zarr(store, box)

    best = best_of(4, careful=careful, plain=lambda: plain(store))
    assert best["careful"] > 1.15 * best["plain"]


def checked_bytes(monkeypatch, way):
    """Return how many bytes `way` computes checksums of."""
    counted, value = [], google_crc32c.value
    with monkeypatch.context() as patch:
        patch.setattr(google_crc32c, "value", lambda data: counted.append(len(data)) or value(data))
        way()
    return sum(counted)


def test_no_byte_is_checked_twice(store, monkeypatch):
    """However often patches overlap, and are read again, each chunk is checked at its first touch."""
    first = checked_bytes(monkeypatch, lambda: verified(store))
    again = checked_bytes(monkeypatch, lambda: [ScanReader(store).read(box) for box in PATCHES])

    size = sum((store / f"{name}/c/0/0/0").stat().st_size for name in ("image", "label"))
    assert size / 4 < first <= size
    assert again == 0


def test_control_a_reader_that_forgets_checks_again(store, monkeypatch):
    """One that opens the store for every patch checks several times the bytes of the store."""

    def forgetful():
        for box in PATCHES:
            close_all()
            ScanReader(store).read(box)

    size = sum((store / f"{name}/c/0/0/0").stat().st_size for name in ("image", "label"))
    assert checked_bytes(monkeypatch, forgetful) > 2 * size


def test_what_is_timed_is_the_check(scan, tmp_path):
    """The reader whose time is taken finds a flipped bit, and without its check reads it silently."""
    store = ensure_store(scan.source, Recipe(codec="none"), tmp_path)
    shard = Shard(store, "image")
    at = bytearray(shard.path.read_bytes())
    at[int(shard.index[0][0]) + 2 * 70_000] ^= 16
    shard.path.write_bytes(at)

    with pytest.raises(ChunkCorrupt, match="verse901"):
        verified(store)
    reader = ScanReader(store, verify=False)
    found, _ = reader.read(Box.whole(reader.shape))
    truth, _ = ScanReader(ensure_store(scan.source, Recipe(), tmp_path)).read(
        Box.whole(reader.shape)
    )
    assert np.count_nonzero(found != truth) == 1


def in_place(scan, root):
    """Build a store under its final name, unflushed and unchecked."""
    shutil.rmtree(root, ignore_errors=True)
    final = store_path(root, fingerprint(scan.source.keys, Recipe()))
    final.mkdir(parents=True)
    with open_conversion(scan.source, Recipe()) as conversion:
        conversion.write(final)
    return final


def test_publishing_costs_less_than_the_build(scan, tmp_path):
    """Temporary folder, flushing, renaming and checking: no byte twice, and at most double the time."""

    def published():
        shutil.rmtree(tmp_path / "stores", ignore_errors=True)
        ensure_store(scan.source, Recipe(), tmp_path / "stores")

    def naive():
        in_place(scan, tmp_path / "naive")

    best = best_of(6, published=published, naive=naive)
    assert best["published"] < 2.0 * best["naive"]
    assert (moved(published) < 1.1 * moved(naive)).all()


def test_control_building_twice_moves_too_much(scan, tmp_path):
    """Building twice and comparing, the other way to be sure, breaks the limit on bytes."""

    def twice():
        one, other = (in_place(scan, tmp_path / name) for name in ("one", "other"))
        assert (one / "image/c/0/0/0").read_bytes() == (other / "image/c/0/0/0").read_bytes()

    def naive():
        in_place(scan, tmp_path / "naive")

    assert (moved(twice) > 1.1 * moved(naive)).all()
