"""Facts of masks: sizes, boxes, centres, crumbs, and their kept copy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tests.support.scans import PIR
from verse_data.errors import VolumeCorrupt
from verse_data.volumes.mask_facts import mask_facts
from verse_data.volumes.nifti import write_nifti


@pytest.fixture
def mask(tmp_path):
    """A mask with two labels, one of which has crumbs; its path and voxels."""
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[2:8, 3:9, 4:12] = 28
    labels[10:14, 12:20, 1:30] = 5
    labels[19, 29, 39] = labels[0, 0, 0] = 5
    path = tmp_path / "mask.nii.gz"
    write_nifti(path, labels, PIR, on_disk_dtype=np.float64)
    return path, labels


def test_facts_are_those_of_the_voxels(mask):
    """Voxel counts, boxes and centres agree with scipy's slow way; crumbs are counted."""
    path, labels = mask
    facts = mask_facts(path, name="mask")

    assert facts.shape == (20, 30, 40)
    assert facts.dtype == "float64"
    assert np.allclose(facts.affine, PIR)
    assert set(facts.labels) == {5, 28}
    for label, found in facts.labels.items():
        inside = labels == label
        assert found.voxels == inside.sum()
        assert labels[tuple(map(slice, found.start, found.stop))].size >= found.voxels
        assert np.allclose(found.centre_ijk, ndimage.center_of_mass(inside))
        where = np.argwhere(inside)
        assert (found.box.start, found.box.stop) == (tuple(where.min(0)), tuple(where.max(0) + 1))
    assert facts.labels[28].crumbs == 0
    assert facts.labels[5].crumbs == 2


def test_facts_are_kept_by_content(mask, tmp_path):
    """Facts are read from the kept file when the key is the same, also if the mask is gone."""
    path, _ = mask
    derived = tmp_path / "derived"
    first = mask_facts(path, name="mask", key="SHA256E-s1--ab.nii.gz", derived=derived)
    path.unlink()
    assert mask_facts(path, name="mask", key="SHA256E-s1--ab.nii.gz", derived=derived) == first
    (kept,) = derived.rglob("*.json")
    kept.write_bytes(kept.read_bytes()[:-5])
    with pytest.raises(FileNotFoundError):
        mask_facts(path, name="mask", key="SHA256E-s1--ab.nii.gz", derived=derived)


@pytest.mark.parametrize("key", ["../../etc/x", "a/b", ""])
def test_a_key_never_leaves_the_folder(mask, tmp_path, key):
    """A key that is no file name is not used as one; the facts are worked out."""
    facts = mask_facts(mask[0], name="mask", key=key, derived=tmp_path / "derived")
    assert set(facts.labels) == {5, 28}
    assert not (tmp_path / "derived").exists()


def test_an_empty_mask_has_no_labels(tmp_path):
    """A mask of background alone is not an error here."""
    write_nifti(tmp_path / "m.nii.gz", np.zeros((4, 5, 6), np.uint8), PIR)
    assert mask_facts(tmp_path / "m.nii.gz", name="mask").labels == {}


def test_a_cut_mask_leaves_no_facts(mask, tmp_path):
    """A damaged mask is an error, and nothing is kept of it."""
    path, _ = mask
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(VolumeCorrupt):
        mask_facts(path, name="mask", key="k", derived=tmp_path / "derived")
    assert not (tmp_path / "derived").exists()


def test_the_real_masks(shared):
    """The real masks have the labels that their centroid files name."""
    import json

    for path in sorted((shared / "data/verse19").rglob("*_msk.nii.gz")):
        centroids = path.with_name(path.name.replace("seg-vert_msk.nii.gz", "seg-subreg_ctd.json"))
        named = {int(entry["label"]) for entry in json.loads(centroids.read_text())[1:]}
        assert set(mask_facts(path, name=path.name).labels) == named
