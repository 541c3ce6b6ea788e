"""Facts of masks: sizes, boxes, centres, crumbs, and their kept copy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tests.support.opened import opened_below
from tests.support.scans import PIR, source_file
from verse_data.errors import ContentMissing, VolumeCorrupt
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
    facts = mask_facts(source_file(path))

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
    """An unchanged mask is not opened again; one that is gone has no facts, whatever is kept."""
    file, derived = source_file(mask[0]), tmp_path / "derived"
    first = mask_facts(file, derived=derived)
    with opened_below(tmp_path) as opened:
        assert mask_facts(file, derived=derived) == first
    assert opened == [f"derived/mask-facts/{file.key}.json"]
    file.path.unlink()
    with pytest.raises(ContentMissing):
        mask_facts(file, derived=derived)


def test_a_key_that_is_no_file_name_is_not_used_as_one(mask, tmp_path):
    """Facts under such a key are worked out, and nothing is kept."""
    file = source_file(mask[0])
    strange = replace(file, key=file.key.replace(".nii.gz", ".n\u00efi"))
    assert set(mask_facts(strange, derived=tmp_path / "derived").labels) == {5, 28}
    assert not (tmp_path / "derived").exists()


def test_an_empty_mask_has_no_labels(tmp_path):
    """A mask of background alone is not an error here."""
    write_nifti(tmp_path / "m.nii.gz", np.zeros((4, 5, 6), np.uint8), PIR)
    assert mask_facts(source_file(tmp_path / "m.nii.gz")).labels == {}


@pytest.mark.parametrize("when", ["before it was locked", "after it was locked"])
def test_a_cut_mask_leaves_no_facts(mask, tmp_path, when):
    """A damaged mask is an error, and nothing is kept of it."""
    path, _ = mask
    before = source_file(path)
    path.write_bytes(path.read_bytes()[:-4])
    file = source_file(path) if when.startswith("before") else before
    with pytest.raises(VolumeCorrupt):
        mask_facts(file, derived=tmp_path / "derived")
    assert not (tmp_path / "derived").exists()


def test_the_real_masks(shared):
    """The real masks have the labels that their centroid files name."""
    import json

    for path in sorted((shared / "data/verse19").rglob("*_msk.nii.gz")):
        centroids = path.with_name(path.name.replace("seg-vert_msk.nii.gz", "seg-subreg_ctd.json"))
        named = {int(entry["label"]) for entry in json.loads(centroids.read_text())[1:]}
        assert set(mask_facts(source_file(path)).labels) == named
