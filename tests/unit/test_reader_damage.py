"""The reader names what is damaged, and never hands it out."""

from __future__ import annotations

import json
import os
import shutil

import google_crc32c
import numpy as np
import pytest

from tests.support.zarr_stores import reseal, write_store
from verse_data.errors import ChunkCorrupt, ChunkMissing, StoreCorrupt
from verse_data.spine.geometry import Box
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.reader import ScanReader, close_all
from verse_data.volumes.store import verify_store

SHAPE = (64, 64, 64)
SHARD = "image/c/0/0/0"
CHUNKS = 8


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Return a store of eight chunks of noise, none of them constant, and its volumes."""
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 2000, SHAPE).astype(np.int16)
    label = rng.integers(0, 26, SHAPE).astype(np.uint8)
    folder = tmp_path_factory.mktemp("sound")
    return write_store(folder, image, label), image, label


@pytest.fixture
def store(sound, tmp_path):
    """Return a copy of the store that may be damaged."""
    close_all()
    copy = tmp_path / sound[0].name
    shutil.copytree(sound[0], copy)
    yield copy
    close_all()


def index_of(content: bytes):
    """Return offset and length of each chunk of a shard."""
    return np.frombuffer(content[-CHUNKS * 16 - 4 : -4], "<u8").reshape(CHUNKS, 2)


def with_index(content: bytes, index) -> bytes:
    """Return the shard with another index, its checksum right."""
    raw = np.ascontiguousarray(index, "<u8").tobytes()
    return content[: -len(raw) - 4] + raw + google_crc32c.value(raw).to_bytes(4, "little")


def read_all(store):
    """Read the whole scan."""
    reader = ScanReader(store)
    return reader.read(Box.whole(reader.shape))


@pytest.mark.parametrize("number", range(CHUNKS))
def test_a_flipped_bit_is_named(store, number):
    """One bit of a chunk: the error names scan, file and place, and the other chunks read on."""
    shard = store / SHARD
    content = bytearray(shard.read_bytes())
    offset, length = index_of(content)[number].tolist()
    content[offset + length // 2] ^= 4
    shard.write_bytes(content)
    z, y, x = np.unravel_index(number, (2, 2, 2))

    with pytest.raises(ChunkCorrupt, match=rf"verse999.*{SHARD}.*\({z}, {y}, {x}\).*CRC-32C"):
        read_all(store)

    other = [0 if n else 32 for n in (x, y, z)]
    box = Box(tuple(other), tuple(n + 32 for n in other))
    image, _ = ScanReader(store).read(box)
    assert image.shape == (32, 32, 32)


def test_a_damaged_chunk_is_refused_at_every_reading(store):
    """A chunk that failed once is not taken as known afterwards."""
    shard = store / SHARD
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    for _ in range(3):
        with pytest.raises(ChunkCorrupt):
            read_all(store)


def test_a_chunk_that_was_read_does_not_vouch_for_others(store):
    """Each chunk is checked when it is first touched, also where others were read before it."""
    shard = store / SHARD
    content = bytearray(shard.read_bytes())
    offset, length = index_of(content)[CHUNKS - 1].tolist()
    content[offset + length // 2] ^= 4
    shard.write_bytes(content)
    reader = ScanReader(store)
    reader.read(Box((0, 0, 0), (32, 32, 32)))
    with pytest.raises(ChunkCorrupt, match=r"\(1, 1, 1\).*CRC-32C"):
        reader.read(Box((32, 32, 32), (64, 64, 64)))


def test_a_flipped_bit_of_the_checksum_behind_a_chunk_is_named(store):
    """The voxels are right, but zarr-python would refuse them, and the file is not what was written."""
    shard = store / SHARD
    content = bytearray(shard.read_bytes())
    offset, length = index_of(content)[0].tolist()
    content[offset + length - 1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ChunkCorrupt, match=r"\(0, 0, 0\).*CRC-32C"):
        read_all(store)


def test_swapped_chunks_are_named(store):
    """Two sound chunks in each other's place carry sound checksums, and are refused."""
    shard = store / SHARD
    content = shard.read_bytes()
    index = index_of(content).copy()
    index[[2, 5]] = index[[5, 2]]
    shard.write_bytes(with_index(content, index))
    with pytest.raises(ChunkCorrupt, match="something else than was written"):
        read_all(store)


def test_a_missing_chunk_is_missing(store):
    """An empty entry of the index, which zarr-python reads as fill value, is ChunkMissing."""
    shard = store / SHARD
    content = shard.read_bytes()
    index = index_of(content).copy()
    index[3] = 2**64 - 1
    shard.write_bytes(with_index(content, index))
    with pytest.raises(ChunkMissing, match=r"verse999.*\(0, 1, 1\)"):
        read_all(store)


@pytest.mark.parametrize("entry", [(2**40, 100), (0, 3), (0, 2**50), (2**63, 2**63)])
def test_an_index_that_points_elsewhere_is_refused(store, entry):
    """Offsets and lengths beyond the chunks are refused before anything is read there."""
    shard = store / SHARD
    content = shard.read_bytes()
    index = index_of(content).copy()
    index[0] = entry
    shard.write_bytes(with_index(content, index))
    with pytest.raises(ChunkCorrupt, match="the index lists it at"):
        read_all(store)


def test_an_index_that_points_elsewhere_is_refused_whatever_the_manifest_says(store):
    """Nor is a manifest believed that gives the checksum of no bytes at all."""
    shard = store / SHARD
    content = shard.read_bytes()
    index = index_of(content).copy()
    index[0] = (2**40, 100)
    shard.write_bytes(with_index(content, index))
    _set_checksum(store, google_crc32c.value(b"").to_bytes(4, "little"))
    reseal(store)
    with pytest.raises(ChunkCorrupt, match="the index lists it at"):
        read_all(store)


def test_a_damaged_index_is_refused(store):
    """A bit of the index is found when the store is opened."""
    shard = store / SHARD
    content = bytearray(shard.read_bytes())
    content[-20] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ChunkCorrupt, match="damaged index"):
        _ = ScanReader(store).shape


@pytest.mark.parametrize("size", [0, 10, 5000, -1])
def test_a_cut_or_grown_shard_is_refused(store, size):
    """A shard of another size than the manifest's is refused when the store is opened."""
    shard = store / SHARD
    content = shard.read_bytes()
    shard.write_bytes(content + b"\0" if size < 0 else content[:size])
    with pytest.raises(ChunkCorrupt, match="the manifest lists"):
        _ = ScanReader(store).shape


def test_a_shard_that_is_gone(store):
    """A shard that was deleted is ChunkMissing with its name and size."""
    (store / SHARD).unlink()
    with pytest.raises(ChunkMissing, match=rf"verse999.*{SHARD} does not exist"):
        read_all(store)


def test_a_shard_that_is_a_link(store, tmp_path):
    """A link in a store is never followed."""
    outside = tmp_path / "outside"
    shutil.move(store / SHARD, outside)
    (store / SHARD).symlink_to(outside)
    with pytest.raises(ChunkCorrupt, match="is a link"):
        read_all(store)


@pytest.mark.parametrize("key", ["zarr.json", "image/zarr.json", "label/zarr.json", MANIFEST_KEY])
def test_damaged_metadata_is_refused(store, key):
    """A digit of any document is found before it is believed."""
    path = store / key
    text = path.read_bytes()
    path.write_bytes(text.replace(b"64", b"32", 1) if b"64" in text else text[:-2])
    with pytest.raises(StoreCorrupt):
        read_all(store)


@pytest.mark.parametrize(
    "chain",
    [
        [{"name": "bytes"}, {"name": "pickle"}, {"name": "crc32c"}],
        [{"name": "transpose", "configuration": {"order": [1, 0, 2]}}, {"name": "bytes"}],
    ],
)
def test_codecs_that_are_not_known_are_refused(store, chain):
    """A store whose manifest agrees, but with codecs of another kind, is refused by name."""
    path = store / "image/zarr.json"
    document = json.loads(path.read_bytes())
    document["codecs"][0]["configuration"]["codecs"] = chain
    path.write_text(json.dumps(document))
    reseal(store)
    with pytest.raises(StoreCorrupt, match="codecs that this version does not read"):
        read_all(store)


@pytest.mark.parametrize("field", [4, 12])
def test_a_chunk_that_lies_about_its_size_is_refused(store, field):
    """A Blosc header that asks for more memory, or more input, never reaches the decoder."""
    shard = store / SHARD
    content = bytearray(shard.read_bytes())
    offset, length = index_of(content)[0].tolist()
    content[offset + field : offset + field + 4] = (1 << 30).to_bytes(4, "little")
    payload = bytes(content[offset : offset + length - 4])
    checksum = google_crc32c.value(payload).to_bytes(4, "little")
    content[offset + length - 4 : offset + length] = checksum
    shard.write_bytes(content)
    _set_checksum(store, checksum)
    reseal(store)
    with pytest.raises(ChunkCorrupt, match=r"bytes declare to be .* that decode to"):
        read_all(store)


def _set_checksum(store, checksum: bytes) -> None:
    import base64

    path = store / MANIFEST_KEY
    document = json.loads(path.read_bytes())
    array = document["arrays"]["image"]
    every = base64.b64decode(array["crc32c"])
    array["crc32c"] = base64.b64encode(checksum + every[4:]).decode()
    path.write_text(json.dumps(document))


def test_a_renamed_store_is_refused(store, tmp_path):
    """A store under another fingerprint than its own is stale or swapped, and refused."""
    other = tmp_path / ("cd" * 32)
    store.rename(other)
    with pytest.raises(StoreCorrupt, match="renamed or swapped"):
        read_all(other)


@pytest.mark.parametrize("key", ["zarr.json", "image/zarr.json", "image/manifest.json", SHARD])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_named(store, key, kind):
    """A pipe in place of a file does not hang the reader, nor is a folder a foreign error."""
    (store / key).unlink()
    if kind == "pipe":
        os.mkfifo(store / key)
    else:
        (store / key).mkdir()
    with pytest.raises((StoreCorrupt, ChunkCorrupt), match="folder or a special file") as raised:
        read_all(store)
    assert key == MANIFEST_KEY or str(raised.value).startswith("Scan ")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_a_finding(store, tmp_path, kind):
    """Checking a whole store follows no link, even to the right bytes, and waits for no pipe."""
    shutil.move(store / SHARD, tmp_path / "outside")
    if kind == "link":
        (store / SHARD).symlink_to(tmp_path / "outside")
    else:
        os.mkfifo(store / SHARD)
    (found,) = verify_store(store)
    assert isinstance(found, ChunkCorrupt)
    assert "is a link or a special file" in str(found)


@pytest.mark.parametrize("key", ["zarr.json", MANIFEST_KEY])
def test_metadata_that_would_fill_the_memory_is_refused(store, key):
    """A document of more than 64 MB is not looked into."""
    os.truncate(store / key, (64 << 20) + 1)
    with pytest.raises(StoreCorrupt, match="too many for metadata"):
        read_all(store)
