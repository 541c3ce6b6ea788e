"""Drill 17: single-bit flips and cuts in a NIfTI: never a changed voxel or header without an error."""

from __future__ import annotations

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from tests.support.scans import make_scan, source_file
from verse_data.errors import IntegrityError, VerseDataError
from verse_data.volumes.mask_facts import image_facts, mask_facts
from verse_data.volumes.nifti import read_image, read_mask, write_nifti
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store


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


EXTENSION = 32
HEAD = 352 + EXTENSION
GZIP_HEAD = 10 + len("a name\0")


def with_extension(path, packed):
    """Write a file again with a header extension, plain or gzipped under a name; return its path."""
    content = path.read_bytes()
    data = bytearray(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    data[108:112] = np.float32(HEAD).tobytes()
    data[348:352] = b"\x01\0\0\0"
    note = (EXTENSION).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"a note".ljust(24)
    data = bytes(data[:352]) + note + bytes(data[352:])
    if not packed:
        path.write_bytes(data)
        return path.rename(path.with_suffix(""))
    body = gzip.compress(data, 1, mtime=0)
    path.write_bytes(body[:3] + b"\x08" + body[4:10] + b"a name\0" + body[10:])
    return path


def head_bits(packed, every=1):
    """Return the bits of what CRC does not cover, or of a header with its padding and extension."""
    return range(0, 8 * (GZIP_HEAD if packed else HEAD), every)


def flipped_bit(content, bit):
    """Return `content` with one bit flipped."""
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.fixture(params=[False, True], ids=["nii", "nii.gz"])
def pair(request, tmp_path):
    """A CT and its mask with extensions, plain or gzipped: the source, and whether it is gzipped."""
    source = make_scan(tmp_path / "scan", shape=(9, 8, 7)).source
    image, mask = (
        source_file(with_extension(file.path, request.param))
        for file in (source.image, source.mask)
    )
    return replace(source, image=image, mask=mask), request.param


def test_no_flip_of_a_header_changes_a_fact(pair):
    """Every bit of header, padding, extension and gzip header: facts are refused, never others."""
    source, packed = pair
    for file, read in ((source.image, image_facts), (source.mask, mask_facts)):
        sound, truth, noticed = file.path.read_bytes(), read(file), 0
        for bit in head_bits(packed):
            file.path.write_bytes(flipped_bit(sound, bit))
            with pytest.raises(IntegrityError, match="is locked"):
                read(file)
            noticed += 1
        assert noticed == 8 * (GZIP_HEAD if packed else HEAD)
        file.path.write_bytes(sound)
        assert (read(file).shape, read(file).affine) == (truth.shape, truth.affine)
        assert np.array_equal(truth.affine, nib.load(file.path).affine)


def test_no_flip_of_a_header_becomes_a_store(pair, tmp_path):
    """Flips where no checksum of gzip looks, or no reader: no store of the scan is published."""
    source, packed = pair
    for file in (source.image, source.mask):
        sound = file.path.read_bytes()
        for bit in head_bits(packed, every=1 if packed else 23):
            file.path.write_bytes(flipped_bit(sound, bit))
            with pytest.raises(IntegrityError, match="is locked"):
                ensure_store(source, Recipe(), tmp_path / "stores")
        file.path.write_bytes(sound)
    assert [path for path in (tmp_path / "stores").rglob("*") if path.is_file()] == []
    assert ensure_store(source, Recipe(), tmp_path / "stores").is_dir()


@pytest.mark.filterwarnings("ignore")
def test_control_nibabel_reads_other_headers_silently(pair):
    """The naive way gives another affine for many flips in a plain header, and sees none in gzip's."""
    source, packed = pair
    path = source.image.path
    sound, truth, silent, unseen, count = path.read_bytes(), nib.load(path).affine, 0, 0, 0
    for bit in head_bits(packed, every=5):
        path.write_bytes(flipped_bit(sound, bit))
        count += 1
        try:
            found = nib.load(path).affine
        except Exception:  # noqa: BLE001 - it noticed
            continue
        unseen += 1
        silent += not np.array_equal(found, truth)
    assert unseen > count / 3
    assert packed or silent > 20
