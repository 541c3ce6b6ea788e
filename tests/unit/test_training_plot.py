"""``dataset.plot``: samples as they are served, in three planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support import training as support
from tests.support.pictures import colours
from verse_data.errors import UsageError
from verse_data.training import (
    PatchDataset,
    ScanDataset,
    SpineSliceDataset,
    VertebraDataset,
    VertebraSliceDataset,
)
from verse_data.training.samples import shown
from verse_data.training.transforms import Compose, Heatmaps, MapLabels, Orient, Window
from verse_data.views.drawing import AMBER, level_colour


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


def dataset(made: support.Made, unit: str, **options: Any) -> Any:
    if unit == "scan":
        return ScanDataset(made.scans, **options)
    if unit == "patch":
        return PatchDataset(made.scans, patch_size=24, **options)
    if unit == "slice of a spine":
        return SpineSliceDataset(made.scans, **options)
    if unit == "slice":
        return VertebraSliceDataset(made.scans, made.table, **options)
    return VertebraDataset(made.scans, made.table, **options)


UNITS = ("scan", "patch", "vertebra", "slice", "slice of a spine")


@pytest.mark.parametrize("unit", UNITS)
def test_samples_of_each_unit_are_drawn(made, unit):
    """Every unit gives a picture, no smaller with more samples, the same each time."""
    served = dataset(made, unit)
    one, two = served.plot([0]), served.plot([0, 1])
    assert (two.width, two.height) >= (one.width, one.height)
    assert two.size != one.size or not np.array_equal(np.asarray(one), np.asarray(two))
    assert np.array_equal(np.asarray(one), np.asarray(served.plot(iter([0]))))


def test_the_vertebra_that_is_served_is_outlined(made):
    """The crop of a vertebra shows its own level in its colour; without labels there is none."""
    served = dataset(made, "vertebra")
    level = served[0]["level"]
    assert level_colour(level) in colours(served.plot([0]))
    bare = dataset(made, "vertebra", label_mode="none")
    assert level_colour(level) not in colours(bare.plot([0]))


def test_orientation_does_not_change_how_a_sample_hangs(made):
    """A crop served in other axes is drawn alike, and so is one that a transform turned."""
    ras = np.asarray(dataset(made, "vertebra").plot([0]))
    for options in ({"orientation": "PIR"}, {"transform": Orient("LAS")}):
        assert np.array_equal(ras, np.asarray(dataset(made, "vertebra", **options).plot([0])))


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_a_slice_hangs_alike_in_any_orientation(made, plane):
    """Its own plane is drawn alone, upright, with the centroid that it was cut through."""
    upright = dataset(made, "slice", plane=plane)
    other = dataset(made, "slice", plane=plane, orientation="RAS")
    # Its centroid does not lie halfway between two slices, of which either may be taken.
    first = next(n for n in range(len(other)) if other[n]["scan_id"] == "verse902")
    assert np.array_equal(np.asarray(upright.plot([first])), np.asarray(other.plot([first])))
    bare = dataset(made, "slice", plane=plane, label_mode="none").plot([first])
    assert level_colour(upright[first]["level"]) in colours(bare)


@pytest.mark.parametrize("unit", ["vertebra", "slice"])
def test_heatmaps_are_drawn_over_the_image(made, unit):
    """Red where they are high; the picture without them is another."""
    plain = np.asarray(dataset(made, unit).plot([0])).astype(int)
    hot = np.asarray(dataset(made, unit, transform=Heatmaps(4)).plot([0])).astype(int)
    assert (hot[..., 0] - hot[..., 2]).max() > 100
    assert plain[90:].shape != hot[90:].shape or not np.array_equal(plain, hot)


def test_scaled_values_and_mapped_labels_are_drawn(made):
    """Images between 0 and 1 are not drawn black, and numbers that are no level have an outline."""
    served = dataset(made, "vertebra", transform=Compose([Window(), MapLabels.consecutive()]))
    assert np.asarray(served.plot([0]))[80:].max() > 128


def mirrored(sample: dict[str, Any]) -> dict[str, Any]:
    """Mirror a sample without a word in its affine, as augmentations do."""
    return sample | {key: sample[key].flip(1) for key in ("image", "label")}


def test_directions_are_written_where_they_are_known(made):
    """A flip that MONAI tracks is hung back by its affine; after one that nothing tells, none is."""
    monai = pytest.importorskip("monai.transforms", reason="monai: pip install verse-data[monai]")
    from verse_data.training.monai import to_monai

    flip = monai.Compose([to_monai, monai.Flipd(["image", "label"], spatial_axis=0)])
    plain, tracked = (
        dataset(made, "vertebra", transform=steps).plot([0]) for steps in (None, flip)
    )
    assert np.array_equal(np.asarray(plain), np.asarray(tracked))
    for steps, told in ((Compose([Window()]), True), (Compose([Window(), mirrored]), False)):
        picture = dataset(made, "vertebra", transform=steps).plot([0])
        assert (AMBER not in colours(picture)) is told


def test_images_of_torchio_are_drawn(made):
    """Also those, whose flips leave the affine alone, so that no direction is written."""
    pytest.importorskip("torchio", reason="torchio: pip install verse-data[torchio]")
    from verse_data.training.torchio import to_subject

    assert AMBER in colours(dataset(made, "vertebra", transform=to_subject).plot([0]))


@pytest.mark.parametrize(
    ("keys", "mark"),
    [
        ({"grade": 2, "foreign_material": 0}, "grade 2"),
        ({"grade": -1, "foreign_material": 0}, "? not assessed"),
        ({"grade": -1, "foreign_material": 1}, "x foreign material"),
        ({}, ""),
    ],
)
def test_a_vertebra_is_drawn_with_its_grade_or_why_it_has_none(made, keys, mark):
    """As in previews and sheets: x for foreign material, ? where nobody looked."""
    sample = {**dataset(made, "scan")[0], "level": "L1", **keys}
    assert shown(sample, 7, sided=True).lines[0] == f"7  L1  {mark}".rstrip()


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (lambda sample: sample["image"], "a Tensor"),
        (lambda sample: {"image": sample["image"]}, "affine"),
        (lambda sample: {**sample, "image": sample["image"][0, 0]}, "image"),
    ],
)
def test_what_is_no_sample_is_refused(made, transform, text):
    """What lacks a volume or its place is named, and the way to draw it without transform."""
    with pytest.raises(UsageError, match=text) as refused:
        dataset(made, "vertebra", transform=transform).plot([0])
    assert "without transform=" in str(refused.value)


def test_no_indices_are_refused(made):
    """An empty selection is a usage error."""
    with pytest.raises(UsageError, match="no sample"):
        dataset(made, "scan").plot([])
