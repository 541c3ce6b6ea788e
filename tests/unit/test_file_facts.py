"""Kept facts of volumes: served without reading while the file is unchanged, and never after."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.opened import opened_below
from tests.support.scans import PIR, source_file
from verse_data.errors import IntegrityError, NiftiRefused
from verse_data.records.source_file import SourceFile
from verse_data.volumes.mask_facts import VolumeFacts, image_facts, mask_facts
from verse_data.volumes.nifti import write_nifti


@pytest.fixture
def derived(tmp_path: Path) -> Path:
    """Folder of kept facts."""
    return tmp_path / "derived"


def volume(folder: Path, value: int = 40, name: str = "ct.nii.gz") -> SourceFile:
    """Write a small CT and return it as locked."""
    folder.mkdir(exist_ok=True)
    write_nifti(folder / name, np.full((6, 5, 4), value, np.int16), PIR)
    return source_file(folder / name)


@pytest.fixture
def file(tmp_path: Path) -> SourceFile:
    """A small CT, locked, in a folder of its own."""
    return volume(tmp_path / "objects")


def kept(derived: Path) -> Path:
    """Return the one file of kept facts."""
    (path,) = (path for path in derived.rglob("*") if path.is_file())
    return path


def reads(file: SourceFile, derived: Path) -> tuple[VolumeFacts, int]:
    """Return the facts, and how often the volume was opened for them."""
    with opened_below(file.path.parent) as opened:
        facts = image_facts(file, derived=derived)
    return facts, len(opened)


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file, in place."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_an_unchanged_file_is_read_once(file: SourceFile, derived: Path) -> None:
    """The first call reads the file, and says what its header says; the next one does not."""
    facts, opened = reads(file, derived)

    assert opened == 1
    assert facts.shape == (6, 5, 4)
    assert np.array_equal(facts.affine, np.asarray(PIR))
    assert facts.notes == ()
    assert reads(file, derived) == (facts, 0)


def test_a_flip_that_hides_its_time_is_found(file: SourceFile, derived: Path) -> None:
    """A bit flipped in place, with size and modification time as before, is read and refused."""
    image_facts(file, derived=derived)
    before = file.path.stat()
    flip(file.path, 8 * (before.st_size // 2))
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(IntegrityError, match="is locked"):
        image_facts(file, derived=derived)


def test_every_write_is_seen_however_soon(file: SourceFile, derived: Path) -> None:
    """A flip right after the facts were kept shows in the times of the file: they had settled."""
    for _ in range(20):
        image_facts(file, derived=derived)
        flip(file.path, 77)
        with pytest.raises(IntegrityError):
            image_facts(file, derived=derived)
        flip(file.path, 77)


def test_a_copied_home_is_hashed_once(file: SourceFile, derived: Path, tmp_path: Path) -> None:
    """Copied with all times, the file is another inode: it is read once more, and then not."""
    facts, _ = reads(file, derived)
    shutil.copytree(file.path.parent, tmp_path / "copy")
    copied = replace(file, path=tmp_path / "copy" / file.path.name)

    again, opened = reads(copied, derived)
    assert opened == 1
    assert again.affine == facts.affine
    assert reads(copied, derived) == (again, 0)


def test_a_damaged_copy_is_found_beside_kept_facts(
    file: SourceFile, derived: Path, tmp_path: Path
) -> None:
    """Facts that were measured on one copy are not served for another that is damaged."""
    image_facts(file, derived=derived)
    shutil.copytree(file.path.parent, tmp_path / "copy")
    copied = replace(file, path=tmp_path / "copy" / file.path.name)
    flip(copied.path, 8 * 60)

    with pytest.raises(IntegrityError):
        image_facts(copied, derived=derived)


def test_no_flip_in_kept_facts_is_believed(file: SourceFile, derived: Path) -> None:
    """Each bit of the kept facts, flipped alone: they are measured again, or say the same."""
    facts, _ = reads(file, derived)
    path = kept(derived)
    sound = path.read_bytes()
    for bit in range(0, len(sound) * 8, 3):
        flip(path, bit)
        found = image_facts(file, derived=derived)
        assert (found.shape, found.affine, found.notes) == (facts.shape, facts.affine, facts.notes)
        path.write_bytes(sound)


@pytest.mark.parametrize(
    "change",
    [{"version": 3}, {"version": 5}, {"more": 1}, {"state": {}}, {"digest": ""}],
    ids=str,
)
def test_facts_that_are_not_ours_are_made_again(
    file: SourceFile, derived: Path, change: dict[str, object]
) -> None:
    """Facts of another version, with unknown or changed fields, are replaced by measured ones."""
    facts, _ = reads(file, derived)
    path = kept(derived)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))

    assert reads(file, derived) == (facts, 1)
    assert reads(file, derived) == (facts, 0)


def test_facts_of_another_content_are_not_served(derived: Path, tmp_path: Path) -> None:
    """Sound facts under the name of another key are not that content's."""
    one, two = volume(tmp_path / "objects", 1, "one.nii.gz"), tmp_path / "objects" / "two.nii.gz"
    write_nifti(two, np.ones((3, 3, 3), np.int16), PIR)
    other = source_file(two)
    image_facts(one, derived=derived)
    path = kept(derived)
    path.rename(path.with_name(f"{other.key}.json"))

    assert image_facts(other, derived=derived).shape == (3, 3, 3)


def test_a_folder_that_may_not_be_written_costs_time_alone(file: SourceFile, derived: Path) -> None:
    """The facts are right, the file is read each time, and a change is found."""
    derived.write_text("no folder")
    facts, _ = reads(file, derived)

    assert reads(file, derived) == (facts, 1)
    flip(file.path, 200)
    with pytest.raises(IntegrityError):
        image_facts(file, derived=derived)


def test_a_kill_while_facts_are_written_leaves_none_half(file: SourceFile, derived: Path) -> None:
    """What a killed process left beside the facts, and a cut file of facts, are not believed."""
    facts, _ = reads(file, derived)
    path = kept(derived)
    path.with_name(f".tmp-1@host@00@{path.name}").write_bytes(path.read_bytes()[:99])
    path.write_bytes(path.read_bytes()[:-30])

    assert reads(file, derived) == (facts, 1)
    assert reads(file, derived) == (facts, 0)


def test_the_labels_of_a_large_mask_are_counted_in_bounded_memory(tmp_path: Path) -> None:
    """A byte a voxel and some 100 MB; a label in two arms that meet far away is one piece."""
    mask = np.zeros((400, 320, 200), np.uint8, order="F")
    mask[:, :10] = mask[:, -10:] = mask[-3:] = 20
    mask[:2, 100:102, 100], mask[0, 200, 100] = 20, 21
    write_nifti(tmp_path / "mask.nii.gz", mask, np.eye(4))
    file, voxels = source_file(tmp_path / "mask.nii.gz"), np.count_nonzero(mask == 20)
    del mask

    tracemalloc.start()
    facts = mask_facts(file)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 400 * 320 * 200 + 120e6
    assert (facts.labels[20].voxels, facts.labels[20].crumbs) == (voxels, 4)
    assert (facts.labels[21].voxels, facts.labels[21].start) == (1, (0, 200, 100))


def test_many_at_once_agree(file: SourceFile, derived: Path) -> None:
    """Callers side by side all get the same facts, and leave sound ones."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: image_facts(file, derived=derived), range(32)))

    assert len({facts.affine for facts in found}) == 1
    assert reads(file, derived)[1] == 0


def test_a_header_that_was_locked_unusable_is_still_refused(tmp_path: Path) -> None:
    """Bytes that are the locked ones, and no volume, keep the error that says why."""
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(gzip.compress(bytes(400)))
    with pytest.raises(NiftiRefused):
        image_facts(source_file(path))


@pytest.mark.parametrize("ending", ["ct.nii", "ct.nii.gz"])
def test_no_flip_anywhere_in_a_volume_is_silent(tmp_path: Path, ending: str) -> None:
    """Header, padding, voxels, gzip's own fields: each flip is an error from every reader of facts."""
    file = volume(tmp_path / "objects", name=ending)
    sound = file.path.read_bytes()
    for bit in range(0, len(sound) * 8, 1 if ending.endswith("gz") else 3):
        flip(file.path, bit)
        for read in (image_facts, mask_facts):
            # A flip in a header is named as what it is, and not as a hostile file.
            with pytest.raises(IntegrityError, match="is locked"):
                read(file)
        file.path.write_bytes(sound)
    assert image_facts(file).shape == (6, 5, 4)
