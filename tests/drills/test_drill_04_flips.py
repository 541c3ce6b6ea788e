"""Drill 4: flips, truncations and zeroed blocks anywhere in a store: none is read silently."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from tests.support.damage import replaced, sound_store
from verse_data.errors import ChunkCorrupt, IntegrityError, StoreCorrupt


def damages(files, rng):
    """Yield kind, file and damaged content: 1,000 flips, 200 truncations, 200 zeroed blocks."""
    names = list(files)
    sizes = np.array([len(files[name]) for name in names], dtype=float)
    # Half of them anywhere by size, half in any file: metadata is small, and matters as much.
    weights = sizes / sizes.sum() / 2 + 1 / len(names) / 2
    for kind, count in (("flip", 1000), ("cut", 200), ("zeros", 200)):
        for _ in range(count):
            name = names[rng.choice(len(names), p=weights)]
            content = bytearray(files[name])
            place = int(rng.integers(len(content)))
            if kind == "flip":
                content[place] ^= 1 << int(rng.integers(8))
            elif kind == "cut":
                del content[place:]
            else:
                content[place : place + 512] = bytes(len(content[place : place + 512]))
            if bytes(content) != files[name]:
                yield kind, name, bytes(content)


@pytest.mark.parametrize(("codec", "share"), [("lz4", 1), ("none", 8)])
def test_no_damage_is_silent(tmp_path, codec, share):
    """Every damage is found by verification, and by the reader if it lies in what is read."""
    sound = sound_store(tmp_path, codec=codec, shape=(40, 36, 34))
    # Each content once: the labels for viewers are further names of the same bytes.
    files = {
        key: (sound.store / key).read_bytes()
        for key in sound.files
        if not key.startswith("labels/vertebrae/label")
    }
    count = silent = unseen = 0
    for kind, key, content in list(damages(files, np.random.default_rng(4)))[::share]:
        count += 1
        with replaced(sound.store / key, content):
            found = sound.verify()
            unseen += not found
            if count % 2 and not key.startswith("labels/"):
                answer = sound.view() if count % 10 == 1 else sound.read()
                silent += answer is False
                expected = ChunkCorrupt if key.endswith("c/0/0/0") else StoreCorrupt
                if kind != "zeros" or isinstance(answer, IntegrityError):
                    assert isinstance(answer, expected) or answer is True, (kind, key)
                assert answer is not True or key.endswith("c/0/0/0"), (kind, key)

    assert count >= 1300 // share
    assert (silent, unseen) == (0, 0)
    assert sound.read() is True


def test_control_default_codecs_read_most_flips_silently(tmp_path):
    """zarr-python's default codecs read at least half of the flips as other voxels."""
    rng = np.random.default_rng(4)
    truth = rng.normal(40, 45, (32, 32, 32)).astype(np.int16)
    array = zarr.create_array(tmp_path / "a", shape=truth.shape, chunks=truth.shape, dtype="i2")
    array[...] = truth
    chunk = tmp_path / "a/c/0/0/0"
    sound, silent = chunk.read_bytes(), 0
    for _ in range(60):
        content = bytearray(sound)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        chunk.write_bytes(bytes(content))
        try:
            silent += not np.array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], truth)
        except Exception:  # noqa: BLE001 - it noticed
            continue

    assert silent > 30
