"""The loader: what is left of an epoch, broken-off passes, and workers that cannot start."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from verse_data.errors import SampleError, UsageError
from verse_data.training import EpochLoader, PatchDataset, ServedScan
from verse_data.training.samples import Sample


class Numbers(PatchDataset):
    """Serves the number of each sample, and reads no voxel."""

    def _make(self, epoch: int, index: int, *_: Any) -> Sample:
        return {"epoch": epoch, "number": index}


def numbers(count: int, **options: Any) -> Numbers:
    scan = ServedScan("verse900", "verse900", "training", Path("/nowhere/ab"))
    return Numbers([scan], label=False, patches_per_epoch=count, **options)


def stopped(loader: EpochLoader, steps: int) -> dict[str, Any]:
    """Take some batches, and return the state after them."""
    for _ in zip(range(steps), loader, strict=False):
        pass
    return loader.state_dict()


@pytest.mark.parametrize(("drop_last", "batches"), [(False, 6), (True, 5)])
def test_a_loader_tells_what_is_left_of_the_epoch(drop_last: bool, batches: int) -> None:  # noqa: FBT001
    """`remaining` counts down to 0 and begins anew; `len` is a whole epoch at any time."""
    loader = numbers(11).loader(batch_size=2, drop_last=drop_last)

    assert loader.remaining == batches
    assert [loader.remaining for _ in loader] == list(range(batches))[::-1]
    assert loader.remaining == len(loader) == batches


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_resumed_loader_tells_what_is_left(world_size: int) -> None:
    """After a resume `remaining` is the number of batches that come, on every rank."""
    state = stopped(numbers(23).loader(batch_size=2), 3)

    for rank in range(world_size):
        dataset = numbers(23)
        loader = dataset.loader(
            sampler=dataset.sampler(rank=rank, world_size=world_size), batch_size=2
        )
        whole = len(loader)
        loader.load_state_dict(state)

        assert loader.remaining == -(-17 // world_size // 2)
        assert len(loader) == whole
        assert loader.remaining == len(list(loader))


def test_a_pass_that_was_broken_off_begins_anew() -> None:
    """After a break the next pass is the same epoch again; the state goes on in it."""
    loader = numbers(8).loader(batch_size=2)
    whole = [batch["number"].tolist() for batch in numbers(8).loader(batch_size=2)]

    state = stopped(loader, 1)

    assert [batch["number"].tolist() for batch in loader] == whole
    loader.load_state_dict(state)
    assert [batch["number"].tolist() for batch in loader] == whole[1:]


@pytest.mark.filterwarnings("ignore:Got pickle error")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_be_sent_to_workers_is_explained(method: str) -> None:
    """A lambda as transform and workers that are not forked: an error that says what to do."""
    dataset = numbers(4, transform=lambda sample: sample)
    loader = dataset.loader(num_workers=1, multiprocessing_context=method)

    with pytest.raises(UsageError, match=r"top level of a module(.|\n)*'fork'"):
        list(loader)


class Dies(Numbers):
    """The worker that makes a sample is killed."""

    def _make(self, epoch: int, index: int, *_: Any) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        return super()._make(epoch, index)


def test_the_death_of_a_worker_of_a_fork_server_is_noticed_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its parent is not told of it, and yet the error does not wait for the timeout; it is logged."""
    scan = ServedScan("verse900", "verse900", "training", Path("/nowhere/ab"))
    dataset = Dies([scan], label=False)
    loader = dataset.loader(num_workers=1, multiprocessing_context="forkserver", timeout=600)

    begin = time.monotonic()
    with pytest.raises(SampleError, match=r"exited unexpectedly(.|\n)*verse900, patch sample"):
        list(loader)

    assert time.monotonic() - begin < 500  # starting a worker takes seconds, not minutes
    assert "verse900, patch sample" in caplog.text


def test_workers_end_with_the_pass_that_is_broken_off() -> None:
    """Nothing holds the workers of a pass that nobody goes on with, not even until a collection."""
    before = set(multiprocessing.active_children())
    loader = numbers(8).loader(num_workers=1)

    gc.disable()
    try:
        stopped(loader, 2)
        left = set(multiprocessing.active_children()) - before
    finally:
        gc.enable()

    assert not left


class Waits:
    """A transform that says when it has begun, and ends when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, sample: Sample) -> Sample:
        self.begun.set()
        assert self.may_end.wait(60)
        return sample


@pytest.fixture
def in_a_transform() -> Iterator[Future[Sample]]:
    """Another thread, which is in a transform for as long as the test lasts."""
    waits = Waits()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(numbers(4, transform=waits).__getitem__, 0)
        assert waits.begun.wait(60)
        yield busy
        waits.may_end.set()
    assert busy.result()["number"] == 0


def test_two_threads_may_not_be_in_a_transform_at_once(in_a_transform: Future[Sample]) -> None:
    """Of whichever dataset: they would share the process's generators. Reading alone stays free."""
    with pytest.raises(
        UsageError, match=r"verse900, patch sample 1(.|\n)*Another thread(.|\n)*workers"
    ):
        _ = numbers(4, transform=dict)[1]

    assert numbers(4)[1]["number"] == 1
    assert not in_a_transform.done()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_workers_may_transform_while_a_thread_of_the_parent_does(
    in_a_transform: Future[Sample],
) -> None:
    """A worker that is forked meanwhile has generators of its own, and is not refused."""
    loader = numbers(2, transform=dict).loader(num_workers=1, multiprocessing_context="fork")

    assert len(list(loader)) == 2
    assert not in_a_transform.done()


def test_a_transform_may_read_a_sample_that_is_transformed_too() -> None:
    """As one that mixes two samples does, in its own thread; and an error in it ends its turn."""
    inner = numbers(4, transform=lambda sample: {**sample, "drawn": torch.rand(1)})
    mixed = numbers(4, transform=lambda sample: {**sample, "other": inner[2]["drawn"]})

    with pytest.raises(SampleError, match="not callable"):
        _ = numbers(4, transform=lambda sample: sample["epoch"]())[0]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(mixed.__getitem__, 0).result()["other"] == inner[2]["drawn"]


def test_a_worker_that_is_slow_to_start_is_explained() -> None:
    """Where no worker has begun when time is up, the error says so, and names timeout=."""
    loader = numbers(4).loader(num_workers=1, multiprocessing_context="spawn", timeout=0.001)

    with pytest.raises(
        SampleError, match=r"none had begun(.|\n)*import torch first(.|\n)*timeout="
    ):
        list(loader)
