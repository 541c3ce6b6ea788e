"""Painting a CT around a mask, real or made up."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from verse_data import phantom
from verse_data.errors import UsageError
from verse_data.spine.geometry import AxisMap
from verse_data.volumes.nifti import read_mask

PIR = np.array([[0, 0, 1.0, -50], [-1, 0, 0, 60], [0, -1, 0, -300], [0, 0, 0, 1]])


def block() -> np.ndarray:
    mask = np.zeros((80, 60, 70), dtype=np.uint8)
    mask[20:50, 8:28, 20:50] = 21
    mask[20:50, 36:56, 20:50] = 22
    return mask


def test_tissues_have_plausible_values():
    """Bone is brighter than disc, its shell brighter than its core, and outside is exactly -1024."""
    mask = block()
    ct = phantom.paint_ct(mask, PIR, seed=0)
    assert ct.dtype == np.int16
    assert ct.shape == mask.shape
    core = ndimage.binary_erosion(mask > 0, iterations=4)
    shell = (mask > 0) & ~ndimage.binary_erosion(mask > 0)
    disc = ct[25:45, 30:34, 25:45]
    assert 120 < ct[core].mean() < 220
    assert ct[shell].mean() > 350
    assert 60 < disc.mean() < 150
    assert (ct[-1] == -1024).all()
    assert ct.min() == -1024
    assert 30 < ct[core].std() < 80


def test_same_seed_same_voxels_and_another_seed_others():
    """The painting is a function of mask, affine and seed."""
    first, again, other = (phantom.paint_ct(block(), PIR, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR"])
def test_orientation_does_not_matter(codes):
    """A reoriented mask gets the reoriented CT, voxel for voxel."""
    mask = block()
    axes = AxisMap.between(PIR, codes)
    turned = phantom.paint_ct(axes.apply(mask), axes.affine(PIR, mask.shape), seed=1)
    assert np.array_equal(turned, axes.apply(phantom.paint_ct(mask, PIR, seed=1)))


def test_float_labels_are_rounded_like_the_reader_does():
    """A float64 mask gives the CT of the same mask in uint8."""
    mask = block()
    assert np.array_equal(
        phantom.paint_ct(mask.astype(np.float64), PIR, seed=1), phantom.paint_ct(mask, PIR, seed=1)
    )


def test_an_empty_mask_is_painted_too():
    """Without a bone there is soft tissue in front, fat and air behind, and no error."""
    ct = phantom.paint_ct(np.zeros((100, 40, 40), dtype=np.uint8), PIR, seed=0)
    assert -100 < np.median(ct[:40]) < 120
    assert (ct[-1] == -1024).all()


def test_a_mask_without_three_axes_is_refused():
    """Two axes are a usage error that says so."""
    with pytest.raises(UsageError, match="three axes"):
        phantom.paint_ct(np.zeros((4, 4)), PIR, seed=0)


@pytest.mark.parametrize(
    "place",
    ["verse19training/derivatives/sub-verse004/sub-verse004",
     "verse19validation/derivatives/sub-verse010/sub-verse010"],
)  # fmt: skip
def test_real_masks_get_a_ct(shared, place):
    """A released mask becomes a complete scan: bright bone, dark air, mean HU as published."""
    path = shared / "data/verse19" / f"dataset-{place}_seg-vert_msk.nii.gz"
    mask = read_mask(path, name=path.name)
    ct = phantom.paint_ct(mask.array, mask.affine, seed=0)
    assert ct.shape == mask.shape
    assert 250 < ct[mask.array > 0].mean() < 480  # within masks of VerSe'19: 280 to 460
    assert (ct == -1024).mean() > 0.02
