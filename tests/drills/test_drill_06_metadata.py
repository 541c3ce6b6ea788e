"""Drill 6: every field of every metadata document changed in turn: always a named error."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import zarr

from tests.support.damage import FOR_VIEWERS, replaced, sound_store
from verse_data.errors import StoreCorrupt
from verse_data.files import canonical_json


def mutations(value, place=()):
    """Yield (place, other value) for each field of a JSON document, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from mutations(inner, (*place, key))
            yield (*place, key), None
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from mutations(inner, (*place, number))
    elif isinstance(value, bool) or value is None:
        yield place, 1
    elif isinstance(value, int | float):
        yield place, value * 2 if value else 1
    else:
        yield place, value[:-1] + ("a" if value[-1:] != "a" else "b")


def changed(document, place, value):
    """Return a copy of a document with one field changed, or without it if `value` is None."""
    copied = copy.deepcopy(document)
    inner = copied
    for step in place[:-1]:
        inner = inner[step]
    if value is None:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return copied


@pytest.mark.parametrize("share", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_every_field_changed_in_turn(tmp_path, share):
    """Reader, view and verification refuse a store of which any field says something else."""
    sound = sound_store(tmp_path, shape=(40, 36, 34))
    count = 0
    documents = [key for key in sound.files if key.endswith(".json")]
    # One file has two names; under the second it was just changed.
    documents.remove("labels/vertebrae/label/zarr.json")
    for key in documents:
        document = json.loads((sound.store / key).read_bytes())
        for place, value in list(mutations(document))[::share]:
            count += 1
            content = canonical_json(changed(document, place, value))
            with replaced(sound.store / key, content):
                answers = sound.verify()
                assert answers, (key, place)
                if not key.startswith(FOR_VIEWERS):
                    answers += [sound.read(), *([sound.view()] if count % 5 == 0 else [])]
            for answer in answers:
                assert isinstance(answer, StoreCorrupt), (key, place, answer)
                assert key in str(answer)
    assert count > 150 / share
    assert sound.read() is True


def test_other_damage_to_metadata(tmp_path):
    """Empty, truncated, reformatted and duplicated documents are refused; so are foreign ones."""
    sound = sound_store(tmp_path, shape=(40, 36, 34))
    for key in ("zarr.json", "image/zarr.json", "image/manifest.json"):
        content = (sound.store / key).read_bytes()
        loose = json.dumps(json.loads(content), indent=1).encode()
        twice = content.replace(b'{"', b'{"zarr_format":3,"', 1)
        for other in (b"", content[:-2], loose, twice, b"[]\n", b"\xff\xfe"):
            with replaced(sound.store / key, other):
                assert isinstance(sound.read(), StoreCorrupt), (key, other[:40])
                assert sound.verify()
    (sound.store / "image/.zarray").write_text("{}")
    assert any(".zarray" in str(error) for error in sound.verify())


def test_control_zarr_reads_changed_metadata(tmp_path):
    """zarr-python reads a store whose shape, or whose codecs' order, was changed, as other voxels."""
    sound = sound_store(tmp_path, shape=(40, 36, 34))
    path = sound.store / "image/zarr.json"
    truth = zarr.open_array(path.parent, mode="r")[:]
    order = ("codecs", 0, "configuration", "codecs", 0, "configuration", "order")
    silent = 0
    for field, value in ((("shape",), [30, 30, 30]), (order, [0, 1, 2])):
        document = changed(json.loads(path.read_bytes()), field, value)
        with replaced(path, canonical_json(document)):
            silent += not np.array_equal(zarr.open_array(path.parent, mode="r")[:], truth)
    assert silent == 2
