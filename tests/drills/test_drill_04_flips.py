"""Drill 4: flips, truncations and zeroed blocks anywhere in a store: none is read silently.

So it is with every bit of the small files of a release: centroids, sidecars, grading workbook.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import zarr

from tests.support import workbooks
from tests.support.damage import FOR_VIEWERS, replaced, sound_store
from tests.support.releases import write_scan
from tests.support.scans import source_file
from verse_data.api import lock_tree, open_release
from verse_data.errors import (
    ChunkCorrupt,
    ContentCorrupt,
    IntegrityError,
    StoreCorrupt,
    VerseDataError,
)
from verse_data.records.centroids import parse_centroids
from verse_data.records.tables import parse_ct_sidecar
from verse_data.tables.grading import check_sheet
from verse_data.tables.workbook import read_locked_sheet


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


@pytest.mark.parametrize(
    ("codec", "share"),
    [("lz4", 4), ("none", 16), pytest.param("lz4", 1, marks=pytest.mark.slow)],
)
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
            if count % 2 and not key.startswith(FOR_VIEWERS):
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


def flipped(content, every=1):
    """Yield copies of `content` with one bit flipped: each bit, or only some."""
    for bit in range(0, len(content) * 8, every):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


PARSERS = {
    "ctd.json": lambda data: parse_centroids(data, name="x"),
    "_ct.json": lambda data: parse_ct_sidecar(data, name="x"),
    "grading.csv": lambda data: (
        check_sheet(
            read_locked_sheet(SimpleNamespace(size=len(data), read=lambda: data, name="x.csv"))
        ).rows
    ),
}


def small_files(root):
    """Yield the small files below `root`, each with its parser."""
    for path in sorted(root.rglob("*")):
        for ending, parse in PARSERS.items():
            if path.name.endswith(ending):
                yield path, parse


@pytest.fixture
def tree(tmp_path):
    """The files of a scan, and a workbook with its grades."""
    write_scan(tmp_path / "tree", "verse004", [17, 18, 19, 20, 21, 22, 23])
    workbooks.write_csv(tmp_path / "tree/grading.csv", [workbooks.row(4)])
    return tmp_path / "tree"


def silent_flips(path, parse, read, every=1):
    """Count the flips of `path` that `read` gives another value for, and those it refuses."""
    sound = path.read_bytes()
    truth, silent, refused = parse(sound), 0, 0
    for content in flipped(sound, every):
        path.write_bytes(content)
        try:
            silent += parse(read()) != truth
        except VerseDataError as error:
            refused += isinstance(error, ContentCorrupt)
    path.write_bytes(sound)
    return silent, refused


def hold(root, every):
    """Check that flips of each small file below `root` are refused, and the file itself read."""
    kinds = set()
    for path, parse in small_files(root):
        file = source_file(path)
        count = len(range(0, path.stat().st_size * 8, every))
        assert silent_flips(path, parse, file.read, every) == (0, count)
        assert parse(file.read()) == parse(path.read_bytes())
        kinds.add(parse)
    return len(kinds)


some_or_every_bit = pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])


@some_or_every_bit
def test_no_flip_of_a_small_file_is_silent(tree, every):
    """Bits of centroids, sidecar and workbook: refused as not the locked bytes."""
    assert hold(tree, every) == 3


@some_or_every_bit
def test_no_flip_of_a_real_small_file_is_silent(shared, tmp_path, every):
    """Bits of the real centroid files and sidecars: refused as not the locked bytes."""
    for path, _ in small_files(shared / "data/verse19"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert hold(tmp_path, every) == 2


@pytest.mark.parametrize("ending", PARSERS)
def test_control_parsing_alone_misses_flips(tree, ending):
    """The naive way, a strict parser on whatever lies there, gives other values for some flips."""
    ((path, parse),) = [found for found in small_files(tree) if found[0].name.endswith(ending)]
    silent, _ = silent_flips(path, parse, path.read_bytes, every=3)
    assert silent >= 5


def test_no_flip_of_the_real_workbook_is_silent(shared, tmp_path):
    """Bits all over the real workbook, also where zip keeps no checksum: none reaches a parser."""
    (real,) = (shared / "data/verse19").glob("*.xlsx")
    path = tmp_path / "grades.xlsx"
    path.write_bytes(real.read_bytes())
    file = source_file(path)
    rows = check_sheet(read_locked_sheet(file)).rows
    assert len(rows) == 160
    for content in flipped(real.read_bytes(), every=2001):
        with replaced(path, content), pytest.raises(ContentCorrupt, match="is locked"):
            read_locked_sheet(file)


def test_no_flip_reaches_the_tables(tree, tmp_path):
    """A flip in any file of a release is an error of its tables that names it; sound files give the truth."""
    home = tmp_path / "home"
    release = lock_tree("lab", tree, root=home, check=False)
    scans, vertebrae = release.scans, release.vertebrae
    for path, file in release.lock.by_path.items():
        content = release.files.object_path(file)
        content.chmod(0o644)
        sound = content.read_bytes()
        for damaged in flipped(sound, every=max(1, len(sound) * 8 // 4)):
            with replaced(content, damaged):
                again = open_release("lab", root=home)
                with pytest.raises(IntegrityError, match="is locked") as caught:
                    _ = again.vertebrae
                for part in (path, "release lab", "verse-data drop lab --corrupt"):
                    assert part in str(caught.value)
                if not path.endswith("grading.csv"):
                    assert list(again.findings["file"]).count(path) == 1
    found = open_release("lab", root=home)
    pd.testing.assert_frame_equal(found.scans, scans)
    pd.testing.assert_frame_equal(found.vertebrae, vertebrae)
