"""Drill 22: pickle payloads in every kind of file that volumes read, and a lint of the source."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import pytest
import zarr

from tests.support.bans import banned_in
from tests.support.damage import FOR_VIEWERS, replaced, sound_store
from verse_data.errors import IntegrityError, VerseDataError
from verse_data.volumes.cache import list_stores
from verse_data.volumes.mask_facts import mask_facts
from verse_data.volumes.nifti import read_image, read_mask

PACKAGE = Path(__file__).parents[2] / "verse_data"


class Canary:
    """Writes a marker when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path):
    """A file that must never appear."""
    return tmp_path / "executed"


def test_no_file_of_a_store_is_unpickled(tmp_path, marker):
    """A payload in place of any file of a store is damage, and is never run."""
    sound = sound_store(tmp_path, shape=(40, 36, 34))
    for key in sound.files:
        with replaced(sound.store / key, pickle.dumps(Canary(marker))):
            assert sound.verify()
            assert key.startswith(FOR_VIEWERS) or isinstance(sound.read(), IntegrityError)
            list_stores(tmp_path / "stores")
    assert not marker.exists()


def test_a_pickle_codec_is_refused(tmp_path, marker):
    """A store whose metadata asks for a pickling codec is refused before a chunk is touched."""
    sound = sound_store(tmp_path, shape=(40, 36, 34))
    document = json.loads((sound.store / "image/zarr.json").read_bytes())
    codecs = document["codecs"][0]["configuration"]["codecs"]
    codecs[1] = {"name": "numcodecs.pickle", "configuration": {"protocol": 5}}
    with replaced(sound.store / "image/zarr.json", json.dumps(document).encode()):
        assert isinstance(sound.read(), IntegrityError)
        assert sound.verify()
    assert not marker.exists()


def test_no_source_and_no_derived_fact_is_unpickled(tmp_path, marker):
    """A payload as volume or as derived fact is refused, or made again, and is never run."""
    payload = pickle.dumps(Canary(marker))
    path = tmp_path / "sub-verse901_ct.nii.gz"
    path.write_bytes(payload)
    for read in (read_image, read_mask):
        with pytest.raises(VerseDataError):
            read(path, name="CT")
    sound = sound_store(tmp_path)
    mask = sound.scan.source.mask
    kept = tmp_path / "derived/mask-facts" / f"{mask.key}.json"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(payload)
    facts = mask_facts(mask, derived=tmp_path / "derived")
    assert set(facts.labels) == {18, 19, 28, 20, 21}
    assert json.loads(kept.read_bytes())["version"] == 4
    assert not marker.exists()


def test_the_source_unpickles_nothing():
    """No module of the package calls a function that runs code out of a file."""
    assert banned_in(PACKAGE) == []


def test_control_the_payload_runs_where_it_is_unpickled(marker):
    """The canary does run when somebody unpickles it."""
    pickle.load(io.BytesIO(pickle.dumps(Canary(marker))))  # noqa: TID251 - on purpose
    assert marker.exists()


def test_zarr_here_refuses_pickles_too(tmp_path):
    """zarr-python, as installed, does not decode a pickling codec by default."""
    array = zarr.create_array(tmp_path / "a", shape=(8,), chunks=(8,), dtype="i2")
    array[...] = 1
    path = tmp_path / "a/zarr.json"
    document = json.loads(path.read_bytes())
    document["codecs"] = [{"name": "numcodecs.pickle", "configuration": {"protocol": 5}}]
    path.write_text(json.dumps(document))
    with pytest.raises(Exception, match="pickle|codec|Codec"):  # noqa: RUF043
        zarr.open_array(tmp_path / "a", mode="r")[:]
