"""The few transforms of our own: exact on image, label, affine and centroids together."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import training as support
from verse_data.errors import UsageError, ValidationFailed
from verse_data.spine.levels import LEVELS
from verse_data.training import PatchDataset, ScanDataset
from verse_data.training.draw import seeded_transform
from verse_data.training.transforms import Compose, CropOrPad, MapLabels, Orient, Window


class Coin:
    """A random step with a generator of its own, as MONAI's have; it notes what it drew."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.generator = np.random.RandomState()

    def set_random_state(self, seed: int) -> None:
        self.generator = np.random.RandomState(seed)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, self.name: int(self.generator.randint(2))}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = support.make(tmp_path_factory.mktemp("scans"), support.SPECS[2:3])
    return dict(ScanDataset(made.scans)[0])


def test_cropping_says_where_it_cut(sample: dict[str, Any]) -> None:
    """What CropOrPad keeps is the voxels of the scan at the place its affine says."""
    cut = CropOrPad((20, 200, 30), about="label")(sample)

    assert cut["image"].shape == cut["label"].shape == (1, 20, 200, 30)
    start = np.linalg.inv(sample["affine"].numpy()) @ cut["affine"][:, 3].numpy()
    x, y, z = (round(v) for v in start[:3])
    inner = cut["image"][:, :, -y : 120 - y]
    assert (inner == sample["image"][:, x : x + 20, :, z : z + 30]).all()
    assert (cut["image"][:, :, :-y] == -1024).all()


def test_a_window_maps_its_range_to_zero_and_one(sample: dict[str, Any]) -> None:
    """Below is 0, above is 1, between is linear; the sample that came in is unchanged."""
    before = sample["image"].clone()
    small = {"image": torch.tensor([-2000.0, -200, 400, 1000, 3000]).reshape(1, 5, 1, 1)}

    assert Window(-200, 1000)(small)["image"].ravel().tolist() == [0, 0, 0.5, 1, 1]
    assert Window()(sample)["image"].max() <= 1
    assert (sample["image"] == before).all()
    whole = Window()({"image": torch.zeros((1, 1, 1, 1), dtype=torch.int16)})
    assert whole["image"].dtype == torch.float32


def test_consecutive_labels_follow_the_spine_and_come_back(sample: dict[str, Any]) -> None:
    """T13 lies between T12 and L1, and the inverse gives the labels of the masks again."""
    consecutive = MapLabels.consecutive()

    mapped = consecutive(sample)

    assert consecutive.mapping[28] == 20
    assert consecutive.names[20] == "T13"
    assert sorted(consecutive.mapping.values()) == list(range(1, len(LEVELS) + 1))
    assert (consecutive.inverse(mapped)["label"] == sample["label"]).all()


def test_some_levels_can_be_numbered_and_the_others_dropped(sample: dict[str, Any]) -> None:
    """Levels that are not asked for become background, there and back."""
    mapped = MapLabels.consecutive(["L1", "T12"])
    label = mapped(sample)["label"]

    assert mapped.names == {1: "T12", 2: "L1"}
    assert set(label.unique().tolist()) == {0, 1, 2}
    assert set(mapped.inverse({"label": label})["label"].unique().tolist()) == {0, 19, 20}


def test_labels_that_were_merged_have_no_inverse() -> None:
    """Two labels of one new number cannot be told apart again."""
    with pytest.raises(UsageError, match="no inverse"):
        _ = MapLabels({19: 1, 20: 1}).inverse


def test_a_label_that_is_not_named_is_an_error() -> None:
    """A mapping never drops a label in silence."""
    with pytest.raises(ValidationFailed, match=r"label holds \[5\]"):
        MapLabels({1: 1})({"label": torch.tensor([0, 1, 5], dtype=torch.uint8)})


def test_transforms_compose_and_pickle(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A chain of transforms can be sent to workers and does the same there."""
    made = support.make(tmp_path_factory.mktemp("scans"), support.SPECS[:1])
    steps = Compose([Orient("PIR"), CropOrPad((16, 16, 16)), Window(), MapLabels.consecutive()])
    again = pickle.loads(pickle.dumps(steps))  # noqa: TID251 - our own bytes

    streams = [
        support.stream_digest(PatchDataset(made.scans, patch_size=(24, 24, 24), transform=t))
        for t in (steps, again)
    ]

    assert streams[0] == streams[1]


def test_random_steps_are_drawn_independently_of_one_another() -> None:
    """Over 400 samples, three random steps, one in an inner Compose, take all 8 joint values alike."""
    steps = Compose([Coin("a"), Compose([Coin("b")]), Coin("c")])

    drawn = [seeded_transform(steps, {}, 0, 0, index) for index in range(400)]

    joint = np.bincount([4 * d["a"] + 2 * d["b"] + d["c"] for d in drawn], minlength=8)
    assert joint.min() >= 30
    assert joint.max() <= 75
    again = [seeded_transform(steps, {}, 0, 0, index) for index in range(400)]
    assert drawn == again


def test_a_step_with_its_own_generator_does_not_repeat_numpys() -> None:
    """What MONAI-like steps draw is not what NumPy's global generator draws for the sample."""

    class Both(Coin):
        def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
            everyones = np.random.random_sample()  # noqa: NPY002 - the one that transforms use
            return {**sample, "own": self.generator.random_sample(), "everyones": everyones}

    drawn = [seeded_transform(Both("x"), {}, 0, 0, index) for index in range(20)]

    assert all(d["own"] != d["everyones"] for d in drawn)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Orient("XYZ"),
        lambda: Window(1, 1),
        lambda: MapLabels({1: 256}),
        lambda: CropOrPad((0, 1, 1)),
        lambda: CropOrPad((16, 16)),  # type: ignore[arg-type]
        lambda: CropOrPad((16, 16, 1.5)),  # type: ignore[arg-type]
        lambda: CropOrPad((8, 8, 8), about="nose"),  # type: ignore[arg-type]
        lambda: Window("a", 3),  # type: ignore[arg-type]
        lambda: MapLabels({1.5: 2}),  # type: ignore[dict-item]
        lambda: MapLabels.consecutive(["T1", "X9"]),
        lambda: MapLabels.consecutive("T1"),
    ],
)
def test_options_of_transforms_without_sense_are_refused(make: Callable[[], object]) -> None:
    """Whatever a transform cannot mean is a UsageError when it is made."""
    with pytest.raises(UsageError):
        make()
