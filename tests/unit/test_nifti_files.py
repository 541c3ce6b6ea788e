"""Reading and writing NIfTI: values, headers, pairs, and the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support.headers import nifti, packed, read_header, voxels
from tests.support.scans import LPS, PIR, TILTED
from verse_data.errors import (
    ContentMissing,
    NiftiRefused,
    PathRefused,
    StorageError,
    ValidationFailed,
    VolumeCorrupt,
)
from verse_data.spine.geometry import Grid, axcodes
from verse_data.volumes.nifti import (
    VolumeStream,
    check_pair,
    parse_header,
    read_image,
    read_mask,
    write_nifti,
)
from verse_data.volumes.nifti_guard import DTYPES


@pytest.mark.parametrize("affine", [PIR, LPS, TILTED])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_written_is_read(tmp_path, affine, suffix):
    """A volume comes back voxel for voxel, for us and for nibabel, with its affine as float32."""
    path = tmp_path / f"ct{suffix}"
    image = np.random.default_rng(1).normal(0, 500, (11, 7, 5)).astype(np.int16)
    write_nifti(path, image, affine)

    volume, peer = read_image(path, name="CT"), nib.load(path)

    assert np.array_equal(volume.array, image)
    assert np.array_equal(np.asarray(peer.dataobj), image)
    assert np.array_equal(volume.affine, peer.affine)
    assert np.abs(volume.affine - affine).max() < 1e-5
    assert volume.array.flags.f_contiguous
    assert axcodes(volume.affine) == "".join(nib.aff2axcodes(peer.affine))


def test_the_same_input_gives_the_same_bytes(tmp_path):
    """No time, name or memory address is in a written file."""
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, voxels(), PIR)
    one, two = ((tmp_path / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert hashlib.sha256(one).digest() == hashlib.sha256(two).digest()
    assert [path.name for path in sorted(tmp_path.iterdir())[:2]] == ["a.nii.gz", "b.nii.gz"]


@pytest.mark.parametrize(("sform", "qform"), [(2, 0), (0, 1), (1, 1), (2, 4)])
def test_form_codes(tmp_path, sform, qform):
    """Either form alone, or both, gives the affine."""
    rotation = np.diag([-0.5, 0.5, 1.25, 1])
    rotation[:3, 3] = (3, 4, 5)
    image = nib.Nifti1Image(voxels(), rotation)
    image.header.set_sform(rotation, code=sform)
    image.header.set_qform(rotation, code=qform)
    nib.save(image, tmp_path / "a.nii")
    header = read_header(tmp_path / "a.nii", name="a")
    assert np.abs(header.affine - rotation).max() < 1e-6
    assert header.notes == ()


HALF_TURNS = [
    *(tuple(axis) for axis in np.eye(3)),
    *((0.0, 0.6, 0.8), (0.5**0.5, 0.5**0.5, 0.0), (1 / 3, 2 / 3, -2 / 3), (0.1, -0.7, 0.5**0.5)),
]


@pytest.mark.parametrize("handed", [-1.0, 1.0])
@pytest.mark.parametrize("quatern", HALF_TURNS)
def test_a_qform_of_a_half_turn(quatern, handed):
    """A file with a qform alone has nibabel's affine to 1e-6, also where float32 leaves a rest.

    Taken at its word, that rest of 1 - (b² + c² + d²) turns a volume by up to 0.03 degrees.
    """
    fields = {"quatern": (*quatern, 150.0, -200, 300), "pixdim": (handed, 0.8, 0.8, 2, 0, 0, 0, 0)}
    content = nifti(sform_code=0, qform_code=1, **fields)

    affine = parse_header(content, name="CT").affine

    assert np.abs(affine - nib.Nifti1Header(content[:348]).get_best_affine()).max() < 1e-6


@pytest.mark.parametrize("turn", [0.0, 0.3, 3.1415])
def test_qforms_of_any_rotation(turn):
    """Rotations of every size about a slanted axis are nibabel's as well."""
    quatern = np.array([0.36, -0.48, 0.8]) * np.sin(turn / 2)
    content = nifti(sform_code=0, qform_code=1, quatern=(*quatern, 1.0, 2.0, 3.0))
    affine = parse_header(content, name="CT").affine
    assert np.abs(affine - nib.Nifti1Header(content[:348]).get_best_affine()).max() < 1e-6


def test_slope_and_intercept(tmp_path):
    """Values that are stored scaled come back rounded to the nearest unit, as nibabel's do."""
    image = np.random.default_rng(1).uniform(-1000, 3000, (9, 8, 7))
    path = tmp_path / "ct.nii.gz"
    write_nifti(path, image, PIR, on_disk_dtype=np.uint8, slope=16.955, inter=-1125.4)

    found = read_image(path, name="CT")

    assert read_header(path, name="CT").scaled
    assert np.abs(found.array - image).max() <= 16.955 / 2 + 0.5
    assert np.array_equal(found.array, np.rint(np.asarray(nib.load(path).dataobj)))


@pytest.mark.parametrize("dtype", sorted(DTYPES.values(), key=str))
def test_masks_of_any_type(tmp_path, dtype):
    """Labels come back as they were, whatever number type the file has."""
    mask = np.random.default_rng(1).integers(0, 29, (9, 8, 7))
    write_nifti(tmp_path / "m.nii.gz", mask, PIR, on_disk_dtype=dtype)
    assert np.array_equal(read_mask(tmp_path / "m.nii.gz", name="mask").array, mask)


def test_labels_that_nibabel_rescaled(tmp_path):
    """A float mask that nibabel saved as scaled integers is rounded, never truncated."""
    mask = np.random.default_rng(1).integers(0, 29, (9, 8, 7)).astype(np.float64)
    image = nib.Nifti1Image(mask, PIR)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "m.nii.gz")
    stored = np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj)

    assert np.array_equal(read_mask(tmp_path / "m.nii.gz", name="mask").array, mask)
    assert not np.array_equal(stored.astype(int), mask), "control: truncating changes labels"


def test_a_volume_in_pieces(tmp_path):
    """Slabs of any size, put together, are the volume; blocks may split a float64."""
    path = tmp_path / "ct.nii.gz"
    image = np.random.default_rng(1).normal(0, 500, (61, 53, 47)).astype(np.int16)
    write_nifti(path, image, PIR, on_disk_dtype=np.float64)
    out, sizes = np.empty(image.size, np.int16), np.diff([0, 1, 7, 1000, 77777, image.size])
    with VolumeStream(path, kind="image", name="CT") as stream:
        at = 0
        for size in sizes:
            stream.fill(out[at : at + size])
            at += size
        stream.finish()
    assert np.array_equal(out.reshape(image.shape, order="F"), image)


def test_notes_name_what_a_reader_should_know(tmp_path):
    """Disagreeing forms and free text are noted by name, and the text itself is not kept."""
    content = bytearray(nifti(qform_code=1, quatern=(0.0, 0, 0.7, 1, 2, 3)))
    content[148:160] = b"Jane Doe 42\0"
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(packed(bytes(content)))
    header = read_header(path, name="CT")
    assert any("qform and sform differ" in note for note in header.notes)
    assert "free text in descrip, not kept" in header.notes
    assert "Jane" not in repr(header)


ROWS = tuple(np.diag([0.8, 0.8, 2, 1])[:3].reshape(-1).tolist())


@pytest.mark.parametrize(
    ("last", "beyond"),
    [
        ({"dim": (3, 512, 512, 2048, 1, 1, 1, 1)}, {"dim": (3, 512, 512, 2049, 1, 1, 1, 1)}),
        ({"dim": (7, 7, 6, 5, 1, 1, 1, 1)}, {"dim": (8, 7, 6, 5, 1, 1, 1, 1)}),
        ({"dim": (3, 1, 1, 1, 1, 1, 1, 1)}, {"dim": (3, 1, 1, 0, 1, 1, 1, 1)}),
        ({"vox_offset": 2.0**20}, {"vox_offset": 2.0**20 + 16}),
        ({"vox_offset": 352.0}, {"vox_offset": 351.0}),
        ({"scl_slope": 100.0, "scl_inter": 0.0}, {"scl_slope": 101.0, "scl_inter": 0.0}),
        ({"scl_slope": 2e-9, "scl_inter": 0.0}, {"scl_slope": 9e-10, "scl_inter": 0.0}),
        ({"scl_slope": 1.0, "scl_inter": 32767.0}, {"scl_slope": 1.0, "scl_inter": 32768.0}),
        ({"scl_slope": 1.0, "scl_inter": -32767.0}, {"scl_slope": 1.0, "scl_inter": -32768.0}),
        ({"sform_code": 5}, {"sform_code": 6}),
        ({"qform_code": 5}, {"qform_code": 6}),
        ({"srow": (100.0, *ROWS[1:])}, {"srow": (100.1, *ROWS[1:])}),
        ({"srow": (0.011, *ROWS[1:])}, {"srow": (0.009, *ROWS[1:])}),
        ({"srow": (*ROWS[:3], -1e6, *ROWS[4:])}, {"srow": (*ROWS[:3], -1e6 - 1, *ROWS[4:])}),
    ],
)
def test_the_limits_of_headers(last, beyond):
    """The last value that is read, and the first one beyond it."""
    parse_header(nifti(**last), name="CT")
    with pytest.raises(NiftiRefused, match="CT was refused before reading: it "):
        parse_header(nifti(**beyond), name="CT")


@pytest.mark.parametrize(("read", "low", "high"), [(read_image, -32767, 32767), (read_mask, 0, 28)])
@pytest.mark.parametrize("dtype", ["i4", "f8"])
def test_the_limits_of_values(tmp_path, read, low, high, dtype):
    """The lowest and the highest value are read, and the ones beyond are named with their place."""
    values = np.full((3, 2, 2), low, dtype)
    values[1, 1, 1] = high
    (tmp_path / "a.nii").write_bytes(nifti(values))
    assert np.array_equal(read(tmp_path / "a.nii", name="a").array, values)
    for wrong in (low - 1, high + 1):
        values[2, 0, 1] = wrong
        (tmp_path / "a.nii").write_bytes(nifti(values))
        with pytest.raises(ValidationFailed, match=rf"voxel \(2, 0, 1\) holds {wrong}"):
            read(tmp_path / "a.nii", name="a")


def test_pairs():
    """The same grid within 0.1 mm passes; another shape or place is named with numbers."""
    image = Grid((4, 5, 6), PIR)
    near, far = PIR.copy(), PIR.copy()
    near[0, 3] += 0.09
    far[1, 1] += 0.05
    check_pair(image, Grid((4, 5, 6), near), name="verse901")
    with pytest.raises(ValidationFailed, match=r"verse901: .* 0\.20 mm apart"):
        check_pair(image, Grid((4, 5, 6), far), name="verse901")
    with pytest.raises(ValidationFailed, match=r"\(4, 5, 6\) and its mask \(5, 4, 6\)"):
        check_pair(image, Grid((5, 4, 6), PIR), name="verse901")


def test_no_file(tmp_path):
    """A missing file, or a folder in its place, is ContentMissing with the path."""
    for path in (tmp_path / "absent.nii.gz", tmp_path):
        with pytest.raises(ContentMissing, match="CT of verse901"):
            read_image(path, name="CT of verse901")
    assert not issubclass(ContentMissing, (StorageError, PathRefused))


def test_the_real_masks(shared):
    """Every real file comes back voxel for voxel, with nibabel's affine."""
    files = sorted((shared / "data").rglob("*.nii.gz"))
    assert len(files) >= 6
    for path in files:
        read = read_mask if "seg-vert" in path.name else read_image
        volume, peer = read(path, name=path.name), nib.load(path)
        assert np.array_equal(volume.array, np.asarray(peer.dataobj))
        assert np.array_equal(volume.affine, peer.affine)


@pytest.mark.parametrize("extra", [bytes(1), bytes(4), bytes(512), b"xx"])
def test_bytes_after_the_gzip_stream_are_refused(tmp_path: Path, extra: bytes) -> None:
    """Zeros too, which isal ignores; a stream of several members, as bgzip writes it, is read."""
    path = tmp_path / "a_ct.nii.gz"
    write_nifti(path, np.zeros((4, 5, 6), dtype=np.int16), np.eye(4))
    voxels = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(voxels[:400]) + gzip.compress(voxels[400:]) + gzip.compress(b""))
    read_image(path, name="a")

    path.write_bytes(path.read_bytes() + extra)

    with pytest.raises(VolumeCorrupt, match="after the end of its gzip stream"):
        read_image(path, name="a")
