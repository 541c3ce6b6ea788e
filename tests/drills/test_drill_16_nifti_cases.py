"""Drill 16: forty NIfTI files made by hand, each refused for its own reason or read right."""

from __future__ import annotations

import gzip
import signal
import time
import warnings
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.support.headers import AFFINE, SHAPE, nifti, packed, voxels
from verse_data.errors import NiftiRefused, ValidationFailed, VolumeCorrupt
from verse_data.volumes.nifti import read_image, read_mask

NAN, INF = float("nan"), float("inf")
SECONDS = 30
"""Only a guard that goes round in circles takes as long for one small file."""
STORED = voxels()
LONG = nifti(np.zeros((64, 64, 64), np.int16))
BOMB = packed(nifti(STORED, tail=bytes(30 << 20)))
QUARTER = {"quatern": (0.0, 0, 0.70710678, 1, 2, 3), "pixdim": (-1.0, 0.8, 0.8, 2, 0, 0, 0, 0)}
ROTATED = np.array([[0, -0.8, 0, 1], [0.8, 0, 0, 2], [0, 0, -2, 3], [0, 0, 0, 1.0]])


@dataclass(frozen=True)
class Refused:
    """The guard must raise this, and its text must name the reason."""

    error: type[Exception]
    reason: str


@dataclass(frozen=True)
class Read:
    """The file is good: these are its voxels and its affine."""

    values: Any
    affine: Any = None


def no(reason):
    return Refused(NiftiRefused, reason)


def cut(reason):
    return Refused(VolumeCorrupt, reason)


def scaled(slope, inter):
    return np.rint(STORED.astype(np.float64) * np.float32(slope) + np.float32(inter))


IMAGES = {
    # what the header declares
    "dim 32767 cubed": (packed(nifti(dim=(3, 32767, 32767, 32767, 1, 1, 1, 1))), no("35,181,150,961,663 voxels")),
    "dim 700 cubed in 1 kB": (packed(nifti(dim=(3, 700, 700, 700, 1, 1, 1, 1))), cut("cannot hold the 686,000,352 bytes")),
    "dim zero": (packed(nifti(dim=(3, 7, 0, 5, 1, 1, 1, 1))), no("at least 1")),
    "no dimensions": (packed(nifti(dim=(0, 7, 6, 5, 1, 1, 1, 1))), no("0 dimensions")),
    "dim negative": (packed(nifti(dim=(3, 7, -6, 5, 1, 1, 1, 1))), no("at least 1")),
    "a plane": (packed(nifti(STORED[:, :, 0])), no("2 dimensions")),
    "4-D of two": (packed(nifti(dim=(4, 7, 6, 1, 5, 1, 1, 1))), no("more than one volume")),
    "4-D of one": (packed(nifti(dim=(4, 7, 6, 5, 1, 1, 1, 1))), Read(STORED)),
    "offset 0": (packed(nifti(vox_offset=0.0)), no("vox_offset 0.0")),
    "offset NaN": (packed(nifti(vox_offset=NAN)), no("vox_offset nan")),
    "offset not whole": (packed(nifti(vox_offset=352.5)), no("vox_offset 352.5")),
    "offset 2 MiB": (packed(nifti(vox_offset=2097152.0)), no("vox_offset 2097152.0")),
    "slope 0 is none": (packed(nifti(scl_slope=0.0, scl_inter=0.0)), Read(STORED)),
    "slope NaN is none": (packed(nifti(scl_slope=NAN, scl_inter=0.0)), Read(STORED)),
    "slope NaN but intercept": (packed(nifti(scl_slope=NAN, scl_inter=-1024.0)), no("scl_inter -1024")),
    "slope infinite": (packed(nifti(scl_slope=INF)), no("scl_slope inf")),
    "slope negative": (packed(nifti(scl_slope=-1.0, scl_inter=0.0)), no("scl_slope -1.0")),
    "slope 1e-38": (packed(nifti(scl_slope=1e-38, scl_inter=0.0)), no("scl_slope")),
    "uint8 with slope": (packed(nifti(voxels("u1"), scl_slope=16.955, scl_inter=-1125.4)), Read(scaled(16.955, -1125.4))),
    "float32": (packed(nifti(40 * voxels("f4") + np.float32(0.4))), Read(40 * STORED)),
    "big-endian": (packed(nifti(order=">")), Read(STORED)),
    "complex": (packed(nifti(datatype=32, bitpix=64)), no("data type code 32")),
    "colour": (packed(nifti(datatype=128, bitpix=24)), no("data type code 128")),
    "bitpix wrong": (packed(nifti(bitpix=8)), no("bitpix 8")),
    "two-file magic": (packed(nifti(magic=b"ni1\0")), no("magic")),
    "sizeof_hdr wrong": (packed(nifti(sizeof_hdr=999)), no("sizeof_hdr 999")),
    "NIfTI-2": (packed(nifti(sizeof_hdr=540)), no("NIfTI-2")),
    "metres": (packed(nifti(xyzt_units=1)), no("metres")),
    "extension of 0 bytes": (packed(nifti(extension=bytes(16))), no("declares 0 bytes")),
    "extension of -16 bytes": (packed(nifti(extension=b"\xf0\xff\xff\xff" + bytes(12))), no("declares -16 bytes")),
    "extension into the voxels": (packed(nifti(extension=b"\x40\0\0\0\2\0\0\0" + bytes(8))), no("declares 64 bytes")),
    "sound extension": (packed(nifti(extension=b"\x20\0\0\0\2\0\0\0" + bytes(24))), Read(STORED)),
    # orientation
    "no orientation": (packed(nifti(sform_code=0)), no("neither a qform nor an sform")),
    "sform_code unknown": (packed(nifti(sform_code=-1)), no("sform_code -1")),
    "sform NaN": (packed(nifti(srow=(NAN,) * 12)), no("sform with NaN")),
    "sform singular": (packed(nifti(srow=(1.0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0))), no("one plane")),
    "qform alone, left-handed": (packed(nifti(sform_code=0, qform_code=1, **QUARTER)), Read(STORED, ROTATED)),
    "qform no rotation": (packed(nifti(sform_code=0, qform_code=1, quatern=(0.9, 0.9, 0.9, 0, 0, 0))), no("no rotation")),
    "qform of voxels of 0 mm": (packed(nifti(sform_code=0, qform_code=1, pixdim=(1.0, 0, 1, 1, 0, 0, 0, 0))), no("above 0")),
    "qform of unknown handedness": (packed(nifti(sform_code=0, qform_code=1, pixdim=(-3.0, 1, 1, 1, 0, 0, 0, 0))), no("handedness")),
    "sform and qform differ": (packed(nifti(qform_code=1, **QUARTER)), Read(STORED, AFFINE)),
    # the stream
    "voxels cut": (packed(LONG[:-1000]), cut("ends within its 524,288 bytes of voxels")),
    "bytes behind the voxels": (packed(nifti(tail=b"\0" * 64)), cut("goes on after")),
    "bomb behind the voxels": (BOMB, cut("goes on after")),
    "gzip cut in the checksum": (packed(LONG)[:-3], cut("no end")),
    "gzip checksum wrong": (packed(LONG)[:-8] + b"\0\0\0\0" + packed(LONG)[-4:], cut("damaged")),
    "bytes behind the gzip stream": (packed(LONG) + b"PK\3\4", cut("after the end of its gzip")),
    "several gzip members": (packed(LONG[:5000]) + packed(LONG[5000:]), Read(np.zeros((64, 64, 64)))),
    "not compressed": (nifti(), Read(STORED)),
    "not compressed, cut": (nifti()[:-2], cut("cannot hold the 772 bytes")),
    "empty": (b"", cut("ends within its header")),
    "a web page": (b"<!DOCTYPE html>" + b" " * 400, no("sizeof_hdr")),
    # values
    "a voxel of -32768": (packed(nifti(np.where(STORED == 5, -32768, STORED).astype("i2"))), Refused(ValidationFailed, "holds -32768")),
    "a voxel of NaN": (packed(nifti(np.where(STORED == 5, np.nan, STORED).astype("f4"))), Refused(ValidationFailed, "holds nan")),
    "a voxel of 40000": (packed(nifti(np.where(STORED == 5, 40000, STORED.astype("u2")))), Refused(ValidationFailed, "holds 40000")),
}  # fmt: skip

MASKS = {
    "uint8": (packed(nifti(voxels("u1"))), Read(STORED)),
    "float64, as in VerSe": (packed(nifti(voxels("f8"))), Read(STORED)),
    "float64 just below": (packed(nifti(voxels("f8") - 4e-4)), Read(STORED)),
    "scaled by nibabel": (packed(nifti(voxels("i2"), scl_slope=0.5, scl_inter=0.0)), Refused(ValidationFailed, "whole number")),
    "half-way": (packed(nifti(voxels("f8") + 0.5)), Refused(ValidationFailed, "voxel (0, 0, 0)")),
    "label 29": (packed(nifti(np.where(STORED == 5, 29, STORED).astype("u1"))), Refused(ValidationFailed, "holds 29")),
    "int64 beyond labels": (packed(nifti(np.where(STORED == 5, 2**60, STORED.astype("i8")))), Refused(ValidationFailed, "holds 1152921504606846976")),
    "uint64 beyond labels": (packed(nifti(np.where(STORED == 5, 2**63, STORED.astype("u8")))), Refused(ValidationFailed, "holds 9223372036854775808")),
    "label -1": (packed(nifti(np.where(STORED == 5, -1, STORED).astype("i2"))), Refused(ValidationFailed, "holds -1")),
}  # fmt: skip

CASES = [
    *(pytest.param(read_image, *case, id=f"image, {name}") for name, case in IMAGES.items()),
    *(pytest.param(read_mask, *case, id=f"mask, {name}") for name, case in MASKS.items()),
]


def test_there_are_forty():
    """The drill is as long as the scoreboard says."""
    assert len(CASES) >= 40


@pytest.fixture
def no_hang():
    """Fail a test that takes so long, instead of letting it hang the suite."""

    def end(*_):
        pytest.fail(f"the file was still being read after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize(("read", "content", "expected"), CASES)
def test_case(tmp_path, read, content, expected):
    """The file is refused for its own reason, in one line that names it, or read right."""
    path = tmp_path / "case.nii.gz"
    path.write_bytes(content)
    if isinstance(expected, Refused):
        with pytest.raises(expected.error) as raised:
            read(path, name="CT of scan verse901")
        text = str(raised.value)
        assert expected.reason in text
        assert text.startswith("CT of scan verse901")
        return
    volume = read(path, name="CT of scan verse901")
    truth = AFFINE if expected.affine is None else expected.affine
    assert np.array_equal(volume.array, expected.values)
    assert np.abs(volume.affine - truth).max() < 1e-6


def test_the_first_bad_voxel_is_named(tmp_path):
    """The message gives the index of the first bad voxel in the file's order."""
    path = tmp_path / "case.nii.gz"
    values = np.ones(SHAPE, np.uint8)
    values[3, 4, 2] = values[6, 5, 4] = 99
    path.write_bytes(packed(nifti(values)))

    with pytest.raises(ValidationFailed, match=r"voxel \(3, 4, 2\) holds 99"):
        read_mask(path, name="mask")


def test_control_nibabel_reads_a_dozen_of_them_wrong(tmp_path):
    """The naive way, nibabel and a cast, takes at least twelve of the bad files without a word."""
    taken = []
    for name, (content, expected) in {**IMAGES, **MASKS}.items():
        if isinstance(expected, Read) or name.startswith("dim 700"):
            continue
        path = tmp_path / ("case.nii.gz" if content[:2] == b"\x1f\x8b" else "case.nii")
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.asarray(nib.load(path).dataobj).astype(np.int16)
        except Exception:  # noqa: BLE001 - whatever it raises, it noticed
            continue
        taken.append(name)

    assert len(taken) >= 12, taken


def test_the_bomb_is_refused_cheaply(tmp_path):
    """What lies behind the declared voxels is not inflated: one byte of it is enough."""
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(packed(nifti(STORED, tail=bytes(100 << 20))))
    before = time.process_time()
    with pytest.raises(VolumeCorrupt, match="goes on after"):
        read_image(path, name="CT")
    refused = time.process_time()
    gzip.decompress(path.read_bytes())
    inflated = time.process_time()

    assert refused - before < (inflated - refused) / 4
