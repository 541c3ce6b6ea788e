"""Drill 5: sound bytes in the wrong place: swapped, stale, another scan's. Always a named error."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr

from tests.support.damage import Shard, Sound, replaced, sound_store
from verse_data.errors import ChunkCorrupt, IntegrityError, StoreCorrupt


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Stores of two scans of the same shape."""
    folder = tmp_path_factory.mktemp("drill")
    return sound_store(folder, seed=0), sound_store(folder, seed=1, scan_id="verse902")


def noticed(sound: Sound) -> None:
    """Each door gives a ChunkCorrupt that names scan and shard."""
    for answer in (sound.read(), sound.view(), *sound.verify()):
        assert isinstance(answer, ChunkCorrupt)
        assert "verse901" in str(answer)
        assert "c/0/0/0" in str(answer)
    assert sound.verify()


@pytest.mark.parametrize("name", ["image", "label"])
def test_two_chunks_swapped(pair, name):
    """Two chunks that changed places, with a right index, are found: each is bound to its place."""
    shard = Shard(pair[0].store, name)
    a = 0
    b = next(n for n, chunk in enumerate(shard.chunks) if chunk != shard.chunks[a])
    shard.chunks[a], shard.chunks[b] = shard.chunks[b], shard.chunks[a]
    with replaced(shard.path, shard.content()):
        noticed(pair[0])


def test_two_index_entries_swapped(pair):
    """The same by the index alone: every byte of every chunk lies where it lay."""
    shard = Shard(pair[0].store, "image")
    shard.index[[0, 1]] = shard.index[[1, 0]]
    index = shard.index.tobytes()
    import google_crc32c

    content = shard.path.read_bytes()[: -len(index) - 4] + index
    content += int(google_crc32c.value(index)).to_bytes(4, "little")
    with replaced(shard.path, content):
        noticed(pair[0])


def test_a_chunk_of_another_scan(pair):
    """A sound chunk of another scan, or of an older build, in its very place, is found."""
    shard, other = Shard(pair[0].store, "image"), Shard(pair[1].store, "image")
    shard.chunks[1] = other.chunks[1]
    assert shard.chunks[1] != Shard(pair[0].store, "image").chunks[1]
    with replaced(shard.path, shard.content()):
        noticed(pair[0])


def test_a_shard_of_another_scan(pair):
    """A whole shard of another scan is found."""
    with replaced(pair[0].store / "image/c/0/0/0", (pair[1].store / "image/c/0/0/0").read_bytes()):
        noticed(pair[0])


def test_a_store_of_another_scan(pair, tmp_path):
    """A whole store under another store's name is found: its name is part of its manifest."""
    wrong = tmp_path / pair[0].store.name
    shutil.copytree(pair[1].store, wrong)
    sound = Sound(wrong, pair[0].scan)
    for answer in (sound.read(), sound.view(), *sound.verify()):
        assert isinstance(answer, StoreCorrupt)
        assert "verse902" in str(answer)


def test_a_link_in_place_of_a_file(pair, tmp_path):
    """A link, even to the same bytes, is refused: a store holds plain files alone."""
    sound = pair[0]
    for key in ("image/c/0/0/0", "image/zarr.json", "image/manifest.json"):
        path = sound.store / key
        aside = tmp_path / "aside"
        path.rename(aside)
        path.symlink_to(aside)
        answers = [*sound.verify(), sound.read()]
        path.unlink()
        aside.rename(path)
        assert isinstance(answers[0], IntegrityError), key
        assert isinstance(answers[-1], IntegrityError), key
    assert sound.read() is True


def test_control_zarr_reads_swapped_chunks(pair):
    """zarr-python, whose checksums know no place, reads swapped chunks without an error."""
    shard = Shard(pair[0].store, "image")
    before = zarr.open_array(pair[0].store / "image", mode="r")[:]
    shard.chunks[0], shard.chunks[1] = shard.chunks[1], shard.chunks[0]
    with replaced(shard.path, shard.content()):
        found = zarr.open_array(pair[0].store / "image", mode="r")[:]
    assert not np.array_equal(found, before)
