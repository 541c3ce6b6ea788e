"""Batches that threads of this process make: as torch's, in order, and with nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from tests.support import training as support
from verse_data.errors import ChunkCorrupt, SampleError, UsageError
from verse_data.training import PatchDataset, ScanDataset, ServedScan, VertebraDataset
from verse_data.training.samples import Sample

SIZE = (16, 16, 16)

# Python 3.12 and later warn of every fork beside threads.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


def patches(made: support.Made, **options: Any) -> PatchDataset:
    options = {"vertebrae": made.table, "sampling": "level", **options}
    return PatchDataset(made.scans, patch_size=SIZE, patches_per_epoch=24, **options)


class Watched(PatchDataset):
    """Serves the number of each sample, after calling a function, and reads no voxel."""

    watch: Callable[[int], object]

    def _make(self, epoch: int, index: int, *_: Any) -> Sample:
        del epoch
        self.watch(index)
        return {"number": index}


def watched(count: int, watch: Callable[[int], object]) -> Watched:
    scan = ServedScan("verse900", "verse900", "training", Path("/nowhere/ab"))
    dataset = Watched([scan], label=False, patches_per_epoch=count)
    dataset.watch = watch
    return dataset


def in_order(dataset: PatchDataset, **options: Any) -> Any:
    return dataset.loader(sampler=dataset.sampler(shuffle=False), **options)


@pytest.mark.parametrize("image_dtype", ["float32", "int16"])
@pytest.mark.parametrize("label", [True, False])
def test_batches_are_those_of_torch(made: support.Made, image_dtype: str, label: bool) -> None:  # noqa: FBT001
    """The same keys in the same order, each with the values and type that torch's batching gives."""
    options: dict[str, Any] = {"image_dtype": image_dtype, "label": label}
    dataset = patches(made, **options)

    for number, batch in enumerate(in_order(dataset, batch_size=5, threads=2)):
        expected = default_collate([dataset[0, at] for at in range(24)[number * 5 :][:5]])
        assert list(batch) == list(expected)
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(batch[key], value, rtol=0, atol=0, equal_nan=True)
            else:
                assert batch[key] == value


@pytest.mark.parametrize("mode", ["vertebra", "binary", "all", "none"])
def test_crops_of_vertebrae_are_those_of_the_dataset(made: support.Made, mode: Any) -> None:
    """Cut and resampled crops in one batch, with each kind of label."""
    dataset = VertebraDataset(made.scans, made.table, crop_size_mm=24, label_mode=mode)
    loader = dataset.loader(sampler=dataset.sampler(shuffle=False), batch_size=4, threads=2)

    digest = support.stream_digest(loader)

    numbers = range(len(dataset))
    expected = [
        default_collate([dataset[0, n] for n in numbers[first:][:4]]) for first in numbers[::4]
    ]
    assert digest == support.stream_digest(expected)


def test_scans_of_different_sizes_come_one_by_one(made: support.Made) -> None:
    """With batch_size=None each is the dataset's own sample; batches of them are refused."""
    dataset = ScanDataset(made.scans)
    loader = dataset.loader(sampler=dataset.sampler(shuffle=False), batch_size=None, threads=2)

    assert support.stream_digest(loader) == support.stream_digest(
        [dataset[0, n] for n in range(len(dataset))]
    )
    with pytest.raises(UsageError, match="batch_size=None"):
        list(dataset.loader(batch_size=len(dataset), threads=2))


def test_a_transform_and_a_collate_fn_run_in_the_thread_that_iterates() -> None:
    """The generators that they draw from belong to the process, and the caller's stay as they are."""
    ran: list[tuple[str, int]] = []

    def noted(name: str, value: Any) -> Any:
        ran.append((name, threading.get_ident()))
        return value

    dataset = watched(6, lambda _: ran.append(("read", threading.get_ident())))
    dataset.transform = lambda sample: noted("transform", sample)
    list(
        dataset.loader(batch_size=2, threads=2, collate_fn=lambda batch: noted("collate_fn", batch))
    )

    mine = threading.get_ident()
    assert {name for name, thread in ran if thread == mine} == {"transform", "collate_fn"}
    assert {name for name, thread in ran if thread != mine} == {"read"}


def test_threads_leave_the_generator_of_a_run_as_processes_do() -> None:
    """What a run draws after the first batch does not depend on who made it."""
    drawn = set()
    for options in ({"threads": 2}, {"threads": 0}, {"num_workers": 1}):
        torch.manual_seed(0)
        loader = watched(4, int).loader(batch_size=2, **options)
        drawn |= {tuple(torch.rand(2).tolist()) for _ in loader}

    assert len(drawn) == 2  # one value for each of two batches


@pytest.mark.parametrize("threads", [1, 3])
def test_only_so_many_batches_are_read_ahead(threads: int) -> None:
    """One for each thread and one more, beside the batch that was asked for."""
    read: list[int] = []
    loader = in_order(watched(40, read.append), batch_size=2, threads=threads)

    for number, _ in enumerate(loader):
        assert len(read) <= 2 * (number + threads + 2)
    assert sorted(read) == list(range(40))


def test_an_error_names_its_sample_when_its_turn_comes() -> None:
    """Batches before it arrive; the error says which sample it was, and the threads end."""

    def fail(number: int) -> None:
        if number == 5:
            message = "no such value"
            raise ValueError(message)

    before, got = set(threading.enumerate()), []
    batches = in_order(watched(40, fail), batch_size=2, threads=2)
    with pytest.raises(SampleError, match=r"verse900, patch sample 5 of epoch 0: .*no such value"):
        got.extend(batch["number"].tolist() for batch in batches)

    assert got == [[0, 1], [2, 3]]
    assert set(threading.enumerate()) == before


def test_damage_is_found_by_threads_as_well(tmp_path: Path) -> None:
    """A changed byte in a store is a ChunkCorrupt that names the scan."""
    scans = support.make(tmp_path, [support.Spec("verse901")]).scans
    shard = max(scans[0].store.rglob("image/c/**/*"), key=lambda path: path.stat().st_size)
    shard.chmod(0o644)
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)

    with pytest.raises(ChunkCorrupt, match="verse901"):
        list(ScanDataset(scans).loader(batch_size=None, threads=2))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_abandoned_pass_leaves_no_thread(threads: int) -> None:
    """Neither one that was broken off nor one of which nothing was taken."""
    before = set(threading.enumerate())
    batches = iter(watched(40, int).loader(batch_size=2, threads=threads))
    next(batches)
    during = set(threading.enumerate()) - before
    del batches
    iter(watched(40, int).loader(batch_size=2, threads=threads))

    assert 0 < len(during) <= threads
    assert set(threading.enumerate()) == before


def test_an_interrupt_ends_the_pass_and_its_threads() -> None:
    """Ctrl-C while the caller waits for a batch is a KeyboardInterrupt in the caller."""
    main = threading.main_thread().ident

    def interrupt(number: int) -> None:
        if number == 8:
            while sys._current_frames()[main].f_code.co_name != "wait":
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)

    before = set(threading.enumerate())
    # A shell starts what runs in the background with SIGINT ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(in_order(watched(40, interrupt), batch_size=2, threads=2))
    finally:
        signal.signal(signal.SIGINT, handler)

    assert set(threading.enumerate()) == before


def test_a_forked_child_iterates_anew(made: support.Made) -> None:
    """It has none of the threads: the parent's pass is refused, a pass of its own is served."""
    dataset = patches(made)
    expected = support.stream_digest(patches(made).loader(batch_size=2, threads=0))
    loader = dataset.loader(batch_size=2, threads=2)
    batches = iter(loader)
    next(batches)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "nothing was refused"
        try:
            next(batches)
        except UsageError as error:
            answer = f"{error} {support.stream_digest(dataset.loader(batch_size=2, threads=2))}"
        finally:
            os.write(writing, answer.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(child, 0)

    assert answer.startswith("This iterator belongs to the process that started it")
    assert answer.endswith(expected)
    assert len(list(batches)) == 11  # the parent's goes on


def test_worker_processes_start_while_threads_read(made: support.Made) -> None:
    """Processes that are forked in the middle of a pass by threads give the same stream."""
    expected = support.stream_digest(patches(made).loader(batch_size=2, threads=0))
    batches = iter(patches(made).loader(batch_size=2, threads=2))
    next(batches)

    assert support.stream_digest(patches(made).loader(batch_size=2, num_workers=2)) == expected
    assert len(list(batches)) == 11


def test_threads_or_processes_but_not_both() -> None:
    """Given both, the error names them; given processes alone, there are no threads."""
    with pytest.raises(UsageError, match=r"threads=2 and num_workers=1"):
        watched(4, int).loader(threads=2, num_workers=1)
    assert watched(4, int).loader(num_workers=1).threads == 0
    assert watched(4, int).loader().threads >= 1


def test_a_rest_that_is_dropped_is_no_batch() -> None:
    """With fewer samples than a batch takes, there is none, as without threads."""
    short = {"batch_size": 5, "drop_last": True}

    assert list(watched(4, int).loader(threads=2, **short)) == []
    assert [len(b["number"]) for b in watched(12, int).loader(threads=2, **short)] == [5, 5]


def test_a_class_with_items_of_its_own_is_read_through_them() -> None:
    """Threads would pass its __getitem__ by: torch calls it, and threads= is refused."""

    class Doubled(Watched):
        def __getitem__(self, index: Any) -> Any:
            return {"number": 2 * super().__getitem__(index)["number"]}

    scan = ServedScan("verse900", "verse900", "training", Path("/nowhere/ab"))
    dataset = Doubled([scan], label=False, patches_per_epoch=3)
    dataset.watch = int

    (batch,) = in_order(dataset, batch_size=3)
    assert batch["number"].tolist() == [0, 2, 4]
    with pytest.raises(UsageError, match="Doubled has its own __getitem__"):
        dataset.loader(threads=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_pinned_where_there_is_a_gpu(made: support.Made) -> None:
    """Image, label and the rest of a batch lie in pinned memory."""
    for batch in patches(made).loader(batch_size=2, threads=2, pin_memory=True):
        assert all(v.is_pinned() for v in batch.values() if isinstance(v, torch.Tensor))
