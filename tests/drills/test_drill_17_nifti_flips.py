"""Drill 17: single-bit flips and cuts in a ``.nii.gz``: never a changed voxel without an error."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from verse_data.errors import VerseDataError
from verse_data.volumes.nifti import read_image, read_mask, write_nifti


def ct(folder):
    """Write a CT-like volume; return its path and voxels."""
    rng = np.random.default_rng(17)
    image = rng.normal(40, 45, (64, 64, 40)).astype(np.int16)
    image[:10] = -1024
    path = folder / "ct.nii.gz"
    write_nifti(path, image, np.diag([1.0, 1, 1, 1]))
    return path, image


def flips(content, count, seed):
    """Yield `count` copies of `content`, each with one bit flipped."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        yield bytes(damaged)


def cuts(content):
    """Yield twenty copies that end too early: by 1 to 8 bytes, and anywhere."""
    yield from (content[:-n] for n in range(1, 9))
    yield from (content[: len(content) * n // 13] for n in range(1, 13))


def silent_and_noticed(path, truth, damaged, read):
    """Count the files that read as other voxels, and those that raise."""
    silent = noticed = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            found = read(path)
        except VerseDataError as error:
            noticed += "CT of scan verse901" in str(error)
            continue
        except Exception:
            if read is not naive:
                raise
            noticed += 1
            continue
        silent += not np.array_equal(found, truth)
    return silent, noticed


def guarded(path):
    """Read as this package does."""
    return read_image(path, name="CT of scan verse901").array


def naive(path):
    """Read as everybody does."""
    return np.asarray(nib.load(path).dataobj)


def test_no_flip_changes_a_voxel_silently(tmp_path):
    """Three hundred flips: each is noticed, or changes no voxel."""
    path, truth = ct(tmp_path)
    silent, noticed = silent_and_noticed(path, truth, flips(path.read_bytes(), 300, 1), guarded)
    assert silent == 0
    assert noticed > 280


def test_every_cut_is_noticed(tmp_path):
    """A file that ends too early is an error, also if only its checksum is cut."""
    path, truth = ct(tmp_path)
    assert silent_and_noticed(path, truth, list(cuts(path.read_bytes())), guarded) == (0, 20)


@pytest.mark.filterwarnings("ignore")
def test_control_nibabel_changes_voxels_silently(tmp_path):
    """The naive way reads most damaged files as other voxels, and does not miss the checksum."""
    path, truth = ct(tmp_path)
    content = path.read_bytes()
    silent, _ = silent_and_noticed(path, truth, flips(content, 60, 1), naive)
    assert silent > 30
    _, noticed = silent_and_noticed(path, truth, list(cuts(content))[:8], naive)
    assert noticed < 8


def test_flips_in_the_real_mask(tmp_path, shared):
    """Flips in the real mask of verse004 change no label silently."""
    (real,) = (shared / "data/verse19").rglob("sub-verse004_seg-vert_msk.nii.gz")
    truth = read_mask(real, name="mask").array
    path = tmp_path / "mask.nii.gz"
    for content in flips(real.read_bytes(), 60, 2):
        path.write_bytes(content)
        try:
            found = read_mask(path, name="mask of scan verse004").array
        except VerseDataError:
            continue
        assert np.array_equal(found, truth)
