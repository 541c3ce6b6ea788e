"""The ways into a chunk agree, and only what is wanted is asked of the disk."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

import numpy as np
import pytest
from numcodecs import blosc as numcodecs_blosc

from tests.support.scans import make_scan
from verse_data.spine.geometry import Box
from verse_data.volumes import blosc, mapped
from verse_data.volumes.build import ensure_store
from verse_data.volumes.opened import close_all, opened
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe

DECODERS = {
    "library": blosc.decoder(),
    "numcodecs": blosc.Decoder(blosc.whole_with_numcodecs, blosc.part_with_numcodecs),
}


def chunk(seed=0):
    """Return 32³ voxels of noise."""
    return np.random.default_rng(seed).normal(40, 45, (32, 32, 32)).astype(np.int16)


def block_size(content: bytes) -> int:
    """Return the block size that a Blosc chunk declares."""
    size: int = struct.unpack_from("<I", content, 8)[0]
    return size


def test_the_library_is_found_here():
    """On this platform the fast way is taken, not the fallback."""
    assert blosc.decoder().whole is not blosc.whole_with_numcodecs


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("cname", [b"lz4", b"zstd"])
@pytest.mark.parametrize("blocksize", [0, 8192])
def test_whole_and_parts(name, cname, blocksize):
    """Every run of slices decodes to the same voxels as the whole chunk does."""
    truth, decoder = chunk(), DECODERS[name]
    with blosc.small_blocks():
        content = numcodecs_blosc.compress(
            truth, cname, 5, numcodecs_blosc.BITSHUFFLE, blocksize=blocksize
        )
    source = np.frombuffer(content, np.uint8)
    found = np.zeros_like(truth)
    assert decoder.whole(source.ctypes.data, found.ctypes.data, truth.nbytes, 1) == truth.nbytes
    assert np.array_equal(found, truth)
    for first, count in ((0, 1), (3, 7), (31, 1), (0, 32), (8, 16)):
        part = np.zeros((count, 32, 32), np.int16)
        done = decoder.part(source.ctypes.data, first * 1024, count * 1024, part.ctypes.data)
        assert done == part.nbytes
        assert np.array_equal(part, truth[first : first + count])


@pytest.mark.parametrize("name", DECODERS)
def test_rubbish_is_no_chunk(name):
    """A chunk whose body is rubbish gives less than was asked for, not an exception."""
    content = bytearray(numcodecs_blosc.compress(chunk(), b"lz4", 5, 2))
    content[16:] = b"\xff" * (len(content) - 16)
    source = np.frombuffer(bytes(content), np.uint8)
    room = np.zeros(32**3, np.int16)
    decoder = DECODERS[name]
    assert decoder.whole(source.ctypes.data, room.ctypes.data, room.nbytes, 1) != room.nbytes


def test_small_blocks_are_small_and_leave_no_trace():
    """Inside the block LZ4 obeys the block size; outside, and afterwards, it does as before."""
    usual = numcodecs_blosc.compress(chunk(), b"lz4", 5, 2, blocksize=8192)
    with blosc.small_blocks():
        with blosc.small_blocks():
            inner = numcodecs_blosc.compress(chunk(), b"lz4", 5, 2, blocksize=8192)
        still = numcodecs_blosc.compress(chunk(), b"lz4", 5, 2, blocksize=8192)
    after = numcodecs_blosc.compress(chunk(), b"lz4", 5, 2, blocksize=8192)

    assert block_size(usual) == block_size(after) == 65536
    assert block_size(inner) == block_size(still) == 8192
    assert inner == still
    assert usual == after
    assert np.array_equal(np.frombuffer(numcodecs_blosc.decompress(inner), "<i2"), chunk().ravel())


def test_stores_hold_small_blocks(tmp_path):
    """The image of a store is written in blocks of four slices along x, the label in one."""
    scan = make_scan(tmp_path / "source", shape=(70, 50, 40))
    store = ensure_store(scan.source, Recipe(), tmp_path / "stores")
    for name, expected in (("image", 8192), ("label", 32768)):
        shard = opened(store).shards[name]
        offset, length = shard._file.index[0, 0, 0].tolist()
        assert block_size(shard._file.content[offset : offset + length].tobytes()) == expected


@pytest.mark.parametrize("name", ["library", "numcodecs"])
def test_a_platform_that_hides_the_library_reads_the_same(tmp_path, monkeypatch, name):
    """Without the library at hand a store is written and read all the same."""
    scan = make_scan(tmp_path / "source")
    if name == "numcodecs":

        def hidden(*_):
            message = "no library here"
            raise OSError(message)

        monkeypatch.setattr(ctypes, "CDLL", hidden)
    blosc.decoder.cache_clear()
    close_all()
    try:
        reader = ScanReader(ensure_store(scan.source, Recipe(), tmp_path / "stores"))
        image, label = reader.read(Box.whole(reader.grid("PIR")[0]), orientation="PIR")
        some, _ = reader.read(Box((3, 3, 3), (20, 30, 34)), orientation="PIR")
    finally:
        monkeypatch.undo()
        blosc.decoder.cache_clear()
    assert np.array_equal(image, scan.image)
    assert np.array_equal(label, scan.mask)
    assert np.array_equal(some, scan.image[3:20, 3:30, 3:34])


def test_pages_that_went_are_asked_for(tmp_path):
    """Once pages turn out to be gone, the next reads ask for theirs in advance, for a while."""
    scan = make_scan(tmp_path / "source", shape=(200, 200, 128))
    store = ensure_store(scan.source, Recipe(codec="none"), tmp_path / "stores")
    reader = ScanReader(store)
    whole = Box.whole(reader.shape)
    close_all()
    mapped._eviction.watchful = 0
    image, _ = reader.read(whole)

    shard = opened(store).shards["image"]
    shard._file.advise(0, shard._file.content.size, mmap.MADV_DONTNEED)
    descriptor = os.open(shard._file.path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    before = mapped.faults()
    again, _ = reader.read(whole)
    waited = mapped.faults() - before

    assert np.array_equal(image, again)
    if waited <= mapped._FEW_FAULTS:
        pytest.skip("this file system keeps its pages: there is nothing to ask for")
    assert mapped.pages_may_be_gone()
    for _ in range(mapped._WATCHFUL):
        reader.read(Box((0, 0, 0), (1, 1, 1)), label=False)
    assert not mapped.pages_may_be_gone()
