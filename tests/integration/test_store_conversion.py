"""Conversion of whole scans: memory, size, and the real files in every orientation."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from tests.support.program import run
from tests.support.scans import source_file
from verse_data.spine.geometry import Box
from verse_data.volumes.nifti import write_nifti
from verse_data.volumes.reader import ScanReader
from verse_data.volumes.recipe import Recipe, ScanSource
from verse_data.volumes.store import ensure_store, verify_store

ORIENTATIONS = [
    "".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)
]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder with a CT of 33 MB and its mask as float64 (131 MB), both noise-hard to compress."""
    folder = tmp_path_factory.mktemp("conversion")
    run("conversion", folder, "write")
    return folder


def test_memory_and_size(large):
    """On its own grid a scan costs less than its raw size to convert, and no more disk than before."""
    took = run("conversion", large, "native")
    assert took["grown"] < 1.0 * took["raw"]
    assert took["store"] <= took["sources"]


def test_memory_of_resampling(large):
    """Resampling holds the volume before and after: less than 2.5 times both together."""
    took = run("conversion", large, "resampled")
    after = took["raw"] * (0.5 * 0.5 * 1.25) / (0.4 * 0.4 * 1.0)
    assert took["grown"] < 2.5 * (took["raw"] + after) / 2


def reoriented(image, codes):
    """Reorient as nibabel does."""
    start = nib.io_orientation(image.affine)
    return image.as_reoriented(
        nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))
    )


def check_every_orientation(source, tmp_path):
    """Hold a store against nibabel's own reorientation of its files, in all 48 orientations."""
    store = ensure_store(source, Recipe(), tmp_path / "stores")
    reader = ScanReader(store)
    files = nib.load(source.image.path), nib.load(source.mask.path)
    for codes in ORIENTATIONS:
        shape, affine = reader.grid(codes)
        found = reader.read(Box.whole(shape), orientation=codes)
        for array, file in zip(found, files, strict=True):
            peer = reoriented(file, codes)
            assert np.array_equal(array, np.asarray(peer.dataobj)), codes
            assert np.abs(affine - peer.affine).max() < 1e-6, codes
    assert verify_store(store) == []


def test_the_real_ct_in_every_orientation(shared, tmp_path):
    """The real CT of TPTBox and its mask come back voxel for voxel, affine to 1e-6."""
    folder = shared / "data/tptbox"
    source = ScanSource(
        scan_id="tptbox",
        image=source_file(folder / "sub-ct_label-22_ct.nii.gz"),
        mask=source_file(folder / "sub-ct_seg-vert_label-22_msk.nii.gz"),
    )
    check_every_orientation(source, tmp_path)


@pytest.mark.parametrize("which", ["sub-verse004", "sub-verse010", "float64"])
def test_the_real_masks_in_every_orientation(shared, tmp_path, which):
    """The real masks, the float64 state of verse004 among them, with a CT on their own grid."""
    root = shared / ("data/verse004_float64" if which == "float64" else "data/verse19")
    mask = min(p for p in root.rglob("*_msk.nii.gz") if which in p.name or which == "float64")
    image = nib.load(mask)
    values = (np.asarray(image.dataobj) * 50 - 200).astype(np.int16)
    ct = tmp_path / "ct.nii.gz"
    write_nifti(ct, values, image.affine)
    source = ScanSource(scan_id="verse004", image=source_file(ct), mask=source_file(mask))
    check_every_orientation(source, tmp_path)
