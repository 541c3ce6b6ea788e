"""Drill 26: one stream, whatever the workers, the start method, the ranks and the stops.

Pass: the bytes of an epoch are the same for 1, 2 and 4 threads, and for 0, 2 and 3 workers, forked
and spawned; for the union over 1, 2 and 4 ranks; and for every stop and resume. Control: a generator that was made with the
dataset gives other numbers in workers.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.support import naive
from tests.support import training as support
from verse_data.training import PatchDataset, ScanDataset, VertebraDataset
from verse_data.training.base import ServedDataset

STEPS = 12
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")


class Noise:
    """A random transform, which uses torch's generator as most do."""

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "image": sample["image"] + torch.randn(sample["image"].shape)}


def scans(made: support.Made) -> ScanDataset:
    return ScanDataset(made.scans, transform=Noise(), seed=5)


def patches(made: support.Made) -> PatchDataset:
    return PatchDataset(
        made.scans,
        vertebrae=made.table,
        patch_size=(16, 16, 16),
        sampling="grade",
        patches_per_epoch=2 * STEPS,
        transform=Noise(),
        seed=5,
    )


def vertebrae(made: support.Made) -> VertebraDataset:
    return VertebraDataset(
        made.scans, made.table, axes="spine", crop_size_mm=24, transform=Noise(), seed=5
    )


UNITS: dict[str, Callable[[support.Made], ServedDataset]] = {
    "scan": scans,
    "patch": patches,
    "vertebra": vertebrae,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


def two_epochs(dataset: ServedDataset, *, threads: int = 0, **options: Any) -> list[str]:
    options |= {"threads": threads} if threads or "num_workers" not in options else {}
    loader = dataset.loader(batch_size=1, **options)
    return [support.stream_digest(loader) for _ in range(2)]


@pytest.mark.parametrize("unit", UNITS)
def test_workers_do_not_change_the_stream(made: support.Made, unit: str) -> None:
    """0, 2 and 3 workers, also such as outlive an epoch, give the same two epochs."""
    expected = two_epochs(UNITS[unit](made))

    assert expected[0] != expected[1]
    for options in ({"num_workers": 2}, {"num_workers": 3, "persistent_workers": True}):
        assert two_epochs(UNITS[unit](made), **options) == expected


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("transform", [Noise(), None])
def test_threads_do_not_change_the_stream(
    made: support.Made, unit: str, transform: Noise | None
) -> None:
    """1, 2 and 4 threads give the same two epochs as none, with a transform and without."""

    def dataset() -> ServedDataset:
        made_here = UNITS[unit](made)
        made_here.transform = transform
        return made_here

    expected = two_epochs(dataset())

    assert all(two_epochs(dataset(), threads=threads) == expected for threads in (1, 2, 4))


def test_spawned_workers_do_not_change_the_stream(made: support.Made) -> None:
    """Two spawned workers give the same two epochs as none."""
    options = {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True}

    assert two_epochs(patches(made), **options) == two_epochs(patches(made))


@pytest.mark.parametrize("unit", UNITS)
def test_ranks_share_the_stream(made: support.Made, unit: str) -> None:
    """The samples of 1, 2 and 4 ranks are the same set, each once, each to the byte."""
    sets = []
    for world in (1, 2, 4):
        samples = []
        for rank in range(world):
            dataset = UNITS[unit](made)
            sampler = dataset.sampler(rank=rank, world_size=world, uneven="exact")
            samples += [
                support.stream_digest([sample])
                for sample in dataset.loader(sampler=sampler, batch_size=None, threads=world // 2)
            ]
        assert len(samples) == len(set(samples)) == len(UNITS[unit](made))
        sets.append(set(samples))

    assert sets[0] == sets[1] == sets[2]


@pytest.mark.parametrize("who", [{"threads": 0}, {"threads": 2}, {"num_workers": 2}])
def test_stopping_anywhere_loses_nothing(made: support.Made, who: dict[str, int]) -> None:
    """A run that stops after any of 12 steps, and goes on from the JSON state, is the same run."""
    whole = [support.stream_digest([b]) for b in patches(made).loader(batch_size=2, threads=0)]
    stops = range(STEPS + 1) if "threads" in who else (0, 5, 11)

    for stop in stops:
        loader = patches(made).loader(batch_size=2, **who)
        begun, state = [], loader.state_dict()
        for batch in loader:
            if len(begun) == stop:
                break
            begun.append(support.stream_digest([batch]))
            state = loader.state_dict()
        resumed = patches(made).loader(batch_size=2, **who)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        rest = [support.stream_digest([batch]) for batch in resumed] if stop < STEPS else []

        assert begun + rest == whole
        assert resumed.state_dict()["epoch"] == 1


def test_a_plain_loader_sees_the_epoch(made: support.Made) -> None:
    """With torch's own loader, set_epoch reaches workers that already run."""
    dataset, other = patches(made), patches(made)
    loader = DataLoader(dataset, batch_size=4, num_workers=2, persistent_workers=True)

    for epoch in (0, 3, 1):
        dataset.set_epoch(epoch)
        other.set_epoch(epoch)
        assert support.stream_digest(loader) == support.stream_digest(
            DataLoader(other, batch_size=4)
        )


def pickled(dataset: PatchDataset) -> PatchDataset:
    """Return the dataset after a journey through plain pickle."""
    return pickle.loads(pickle.dumps(dataset))  # type: ignore[no-any-return]  # noqa: TID251


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_a_copy_is_seen_by_its_workers_as_well(
    made: support.Made, again: Callable[[PatchDataset], PatchDataset]
) -> None:
    """set_epoch reaches running workers of a copied or unpickled dataset, and of no other."""
    original = patches(made)
    dataset, other = again(original), patches(made)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, persistent_workers=True)

    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        other.set_epoch(epoch)
        assert support.stream_digest(loader) == support.stream_digest(
            DataLoader(other, batch_size=4)
        )
    assert original.epoch == 0


def test_control_a_generator_made_with_the_dataset_depends_on_the_workers() -> None:
    """The drill sees a generator in the dataset: workers repeat and reorder its numbers."""
    streams = {
        workers: support.stream_digest(DataLoader(naive.OwnGenerator(STEPS), num_workers=workers))
        for workers in (0, 2, 3)
    }

    assert len(set(streams.values())) == 3
