"""Every way into a chunk gives the same voxels, and only what is wanted is asked of the disk."""

from __future__ import annotations

import base64
import ctypes
import json
import mmap
import os
import resource
import struct

import google_crc32c
import numpy as np
import pytest
from numcodecs import blosc

from tests.support.damage import Shard
from tests.support.scans import make_scan
from tests.support.zarr_stores import reseal
from verse_data.errors import ChunkCorrupt, ToolMissing
from verse_data.spine.geometry import Box
from verse_data.volumes import shard as shards
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.reader import ScanReader, close_all, opened
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store
from verse_data.volumes.write import small_blocks


def chunk(seed=0):
    """Return 32³ voxels of noise."""
    return np.random.default_rng(seed).normal(40, 45, (32, 32, 32)).astype(np.int16)


def block_size(content: bytes) -> int:
    """Return the block size that a Blosc chunk declares."""
    size: int = struct.unpack_from("<I", content, 8)[0]
    return size


def test_a_platform_that_hides_blosc_is_told_what_to_install(tmp_path, monkeypatch):
    """Where numcodecs does not give its C functions away, reading is one error with the remedy."""

    def hidden(*_):
        raise OSError

    store = ensure_store(make_scan(tmp_path / "source").source, Recipe(), tmp_path / "stores")
    _ = ScanReader(store).shape
    shards._decoders.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", hidden)
    with pytest.raises(ToolMissing, match=r"pip install .* numcodecs"):
        ScanReader(store).read(Box((0, 0, 0), (4, 4, 4)))


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_whole_and_parts(tmp_path, codec):
    """Every run of slices decodes to the voxels that were written."""
    scan = make_scan(tmp_path / "source")
    store = ensure_store(scan.source, Recipe(codec=codec), tmp_path / "stores")
    reader = ScanReader(store)
    image, label = reader.read(Box.whole(reader.grid("PIR")[0]), orientation="PIR")
    assert np.array_equal(image, scan.image)
    assert np.array_equal(label, scan.mask)
    truth, masked = reader.read(Box.whole(reader.shape))
    for first, count in ((0, 1), (3, 7), (31, 1), (8, 16), (32, 5), (20, 20)):
        box = Box((first, 3, 3), (first + count, 60, 34))
        some, few = reader.read(box)
        assert np.array_equal(some, truth[first : first + count, 3:60, 3:34])
        assert np.array_equal(few, masked[first : first + count, 3:60, 3:34])


@pytest.mark.parametrize("wide", [32, 4])
def test_rubbish_is_no_chunk(tmp_path, wide):
    """A chunk whose body is rubbish, all checksums right, is named; it does not decode, whole or in part."""
    scan = make_scan(tmp_path / "source")
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    shard = Shard(store, "image")
    content = shard.chunks[0][:16] + b"\xff" * (len(shard.chunks[0]) - 20)
    shard.chunks[0] = content + google_crc32c.value(content).to_bytes(4, "little")
    shard.path.write_bytes(shard.content())
    document = json.loads((store / MANIFEST_KEY).read_bytes())
    entry = document["arrays"]["image"]
    sums = np.frombuffer(base64.b64decode(entry["crc32c"]), "<u4").copy()
    sums[0] = google_crc32c.value(content)
    entry["crc32c"] = base64.b64encode(sums.tobytes()).decode()
    (store / MANIFEST_KEY).write_text(json.dumps(document))
    reseal(store)

    with pytest.raises(ChunkCorrupt, match=r"image/c/0/0/0 has a chunk at byte 0 that does not"):
        ScanReader(store).read(Box((0, 0, 0), (wide, 32, 32)), label=False)


def test_small_blocks_are_small_and_leave_no_trace():
    """Inside the block LZ4 obeys the block size; outside, and afterwards, it does as before."""
    usual = blosc.compress(chunk(), b"lz4", 5, 2, blocksize=8192)
    with small_blocks():
        with small_blocks():
            inner = blosc.compress(chunk(), b"lz4", 5, 2, blocksize=8192)
        still = blosc.compress(chunk(), b"lz4", 5, 2, blocksize=8192)
    after = blosc.compress(chunk(), b"lz4", 5, 2, blocksize=8192)

    assert block_size(usual) == block_size(after) == 65536
    assert block_size(inner) == block_size(still) == 8192
    assert inner == still
    assert usual == after
    assert np.array_equal(np.frombuffer(blosc.decompress(inner), "<i2"), chunk().ravel())


def test_stores_hold_small_blocks(tmp_path):
    """The image of a store is written in blocks of four slices along x, the label in one."""
    scan = make_scan(tmp_path / "source", shape=(70, 50, 40))
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    for name, expected in (("image", 8192), ("label", 32768)):
        assert block_size(Shard(store, name).chunks[0]) == expected


def faults_of_a_read(reader: ScanReader, box: Box, *, gone: bool) -> int:
    """Read a box, after the pages of the image were dropped where `gone`; return the waits for the disk."""
    if gone:
        shard, path = opened(reader.path).shards["image"], reader.path / "image/c/0/0/0"
        shard._advise(0, path.stat().st_size, mmap.MADV_DONTNEED)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    reader.read(box, label=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before


def test_pages_that_went_are_asked_for_at_once(tmp_path):
    """Once a read had to wait for pages that the kernel dropped, the next ones ask for theirs in advance."""
    scan = make_scan(tmp_path / "source", shape=(200, 200, 128))
    store = ensure_store(scan.source, Recipe(codec="none"), tmp_path / "stores")
    reader = ScanReader(store)
    whole, voxel = Box.whole(reader.shape), Box((0, 0, 0), (1, 1, 1))
    close_all()
    for _ in range(shards._PREFETCHED_READS + 1):
        reader.read(voxel)
    reader.read(whole)
    faults_of_a_read(reader, voxel, gone=False)  # whatever was waited for until now is no reason

    waits = faults_of_a_read(reader, whole, gone=True)
    if waits < 100:
        pytest.skip("this file system keeps its pages: there is nothing to ask for")
    assert faults_of_a_read(reader, whole, gone=True) < waits / 10
    for _ in range(shards._PREFETCHED_READS + 1):
        reader.read(voxel)
    assert not shards._pages_may_be_evicted()
