"""Drill 3: delete each chunk, shard and metadata file in turn: always a named error, never zeros."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from tests.support.damage import FOR_VIEWERS, Shard, replaced, sound_store
from verse_data.errors import ChunkCorrupt, ChunkMissing, IntegrityError, StoreCorrupt
from verse_data.volumes.layout import FILL, MANIFEST_KEY
from verse_data.volumes.reader import close_all
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound store, which each test leaves as it was."""
    return sound_store(tmp_path_factory.mktemp("drill"))


def test_each_file_deleted_in_turn(sound):
    """Reader, xarray view, verification and the next build name the scan and the key that is gone."""
    assert len(sound.files) == 19
    for key in sound.files:
        path = sound.store / key
        aside = path.with_name("aside")
        close_all()
        path.rename(aside)
        for_viewers_only = key.startswith(FOR_VIEWERS)
        answers = [*sound.verify()]
        if not for_viewers_only:
            answers += [sound.read(), sound.view()]
        try:
            ensure_store(sound.scan.source, Recipe(), sound.store.parents[1])
        except IntegrityError as error:
            answers.append(error)
        aside.rename(path)

        assert len(answers) >= (2 if for_viewers_only else 4)
        for answer in answers:
            expected = StoreCorrupt if key == MANIFEST_KEY else (ChunkMissing, StoreCorrupt)
            assert isinstance(answer, expected), (key, answer)
        named = [error for error in answers if "verse901" in str(error) and key in str(error)]
        if key != MANIFEST_KEY:
            assert any(isinstance(error, ChunkMissing) for error in named), key
        assert all("verse-data cache verify --repair" in str(error) for error in answers)
    assert sound.read() is True


@pytest.mark.parametrize("name", ["image", "label"])
def test_each_inner_chunk_marked_absent(sound, name):
    """A chunk that the shard's index calls absent is an error: it does not stand for fill values."""
    for number in range(len(Shard(sound.store, name).chunks)):
        shard = Shard(sound.store, name)
        shard.chunks[number] = b""
        with replaced(shard.path, shard.content()):
            for answer in (sound.read(), sound.view(), *sound.verify()):
                assert isinstance(answer, (ChunkMissing, ChunkCorrupt)), number
                assert "verse901" in str(answer)
                assert shard.array.shard in str(answer)


def test_control_zarr_reads_fill_values(tmp_path):
    """zarr-python, asked for an array whose shard is gone, gives fill values and no error."""
    sound = sound_store(tmp_path)
    (sound.store / "image/c/0/0/0").unlink()

    found = zarr.open_array(sound.store / "image", mode="r")[:]

    assert np.unique(found).tolist() == [FILL["image"]]


def test_control_default_fill_is_zeros(tmp_path):
    """With zarr's defaults the same loss reads as zeros, which is a plausible mask."""
    array = zarr.create_array(tmp_path / "a", shape=(64, 64), chunks=(32, 32), dtype="u1")
    array[...] = 7
    (tmp_path / "a/c/0/1").unlink()

    assert sorted(np.unique(zarr.open_array(tmp_path / "a", mode="r")[:])) == [0, 7]
