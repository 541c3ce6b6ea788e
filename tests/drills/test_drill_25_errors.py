"""Drill 25: whatever goes wrong in a worker is told by the parent, soon, with the scan's name.

Pass: an error, and no wait, that names the scan; no short epoch. On an idle machine an error takes a
second; a busy one is given a minute, which is still short of every way to hang: those wait for ever.
Controls: torch's own loader ends the epoch early on ``StopIteration``, and hangs on what cannot
be pickled.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.support import naive
from tests.support import training as support
from verse_data.errors import ChunkMissing, SampleError, VerseDataError
from verse_data.training import ScanDataset

LIMIT_S = 60.0
BAD = "verse902"


class TwoArguments(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first, second)


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


def raises_stop(sample: dict[str, Any]) -> Any:
    return next(iter([]))


def raises_local_class(sample: dict[str, Any]) -> Any:
    class Local(Exception):
        pass

    raise Local("out of reach")


def raises_two_arguments(sample: dict[str, Any]) -> Any:
    raise TwoArguments("a", "b")


def raises_unpicklable(sample: dict[str, Any]) -> Any:
    raise ValueError("holds a lambda", lambda: None)


def raises_without_text(sample: dict[str, Any]) -> Any:
    raise NoText


def raises_memory(sample: dict[str, Any]) -> Any:
    raise MemoryError("1 TB")


def returns_unpicklable(sample: dict[str, Any]) -> Any:
    return {"scan_id": sample["scan_id"], "later": lambda: None}


def exits(sample: dict[str, Any]) -> Any:
    sys.exit(3)


def killed(sample: dict[str, Any]) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(sample: dict[str, Any]) -> Any:
    time.sleep(600)


class OnBadScan:
    """Does `what` on one scan and hands the others through."""

    def __init__(self, what: Callable[[dict[str, Any]], Any]) -> None:
        self.what = what

    def __call__(self, sample: dict[str, Any]) -> Any:
        if sample["scan_id"] == BAD:
            return self.what(sample)
        return {"scan_id": sample["scan_id"]}


RAISING = {
    "StopIteration": raises_stop,
    "Local": raises_local_class,
    "TwoArguments": raises_two_arguments,
    "ValueError": raises_unpicklable,
    "NoText": raises_without_text,
    "MemoryError": raises_memory,
    "lambda": returns_unpicklable,
    "SystemExit": exits,
    "killed": killed,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


@pytest.mark.parametrize("word", RAISING)
def test_what_goes_wrong_in_a_worker_names_the_scan(made: support.Made, word: str) -> None:
    """Soon the parent raises a SampleError that names scan and cause."""
    dataset = ScanDataset(made.scans, transform=OnBadScan(RAISING[word]))
    loader = dataset.loader(batch_size=1, num_workers=2)

    begin = time.monotonic()
    with pytest.raises(SampleError) as caught:
        list(loader)

    assert time.monotonic() - begin < LIMIT_S
    assert f"{BAD}, scan sample 2 of epoch 0" in str(caught.value)
    assert word in str(caught.value)


def test_a_worker_that_hangs_is_an_error_after_the_timeout(made: support.Made) -> None:
    """A hang ends with an error that names the scan, and not when the hang does."""
    dataset = ScanDataset(made.scans, transform=OnBadScan(hangs))
    loader = dataset.loader(batch_size=1, num_workers=2, timeout=3)

    begin = time.monotonic()
    with pytest.raises(SampleError, match=f"timed out(.|\n)*{BAD}, scan sample 2"):
        list(loader)

    assert time.monotonic() - begin < LIMIT_S


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_of_a_store_keeps_its_class(made: support.Made, workers: int) -> None:
    """A missing shard is ChunkMissing in the parent too, so that a program can act on it."""
    shard = made.scans[3].store / "image" / "c" / "0" / "0" / "0"
    away = shard.rename(shard.with_name("away"))
    try:
        with pytest.raises(ChunkMissing, match=r"verse903_split-verse250, scan sample 3"):
            list(ScanDataset(made.scans).loader(batch_size=1, num_workers=workers))
    finally:
        away.rename(shard)


def test_without_workers_stop_iteration_is_an_error_too(made: support.Made) -> None:
    """Also in the main process no epoch ends early."""
    dataset = ScanDataset(made.scans, transform=OnBadScan(raises_stop))

    with pytest.raises(SampleError, match=BAD):
        list(dataset.loader(batch_size=1))


def test_errors_are_ours_with_a_plain_loader_as_well(made: support.Made) -> None:
    """The wrapping is the dataset's, so torch's own DataLoader gains from it."""
    for what in (raises_stop, raises_local_class, returns_unpicklable):
        dataset = ScanDataset(made.scans, transform=OnBadScan(what))
        batches = iter(DataLoader(dataset, batch_size=1, num_workers=2, timeout=LIMIT_S))
        with pytest.raises(VerseDataError, match=BAD):
            list(batches)
        batches._shutdown_workers()  # what torch leaves to the garbage collector takes it 5 s each


def test_batching_that_ends_the_epoch_is_an_error(made: support.Made) -> None:
    """A collate function that raises StopIteration does not shorten the epoch in silence."""
    for workers in (0, 2):
        loader = ScanDataset(made.scans).loader(collate_fn=raises_stop, num_workers=workers)
        with pytest.raises(SampleError, match=r"collate_fn on verse90(.|\n)*StopIteration"):
            list(loader)


def returns_lambda(samples: Any) -> Any:
    return {"later": lambda: None}


def returns_hidden_lambda(samples: Any) -> Any:
    return Hidden()


class Hidden:
    """What cannot be pickled, for a reason that pickle has no class for."""

    def __reduce__(self) -> Any:
        raise ValueError("not sent")


@pytest.mark.parametrize(
    ("what", "word"),
    [
        (raises_local_class, "Local"),
        (raises_unpicklable, "ValueError"),
        (exits, "SystemExit"),
        (returns_lambda, "lambda"),
        (returns_hidden_lambda, "Hidden"),
    ],
)
def test_what_goes_wrong_in_batching_names_the_scans(
    made: support.Made, what: Callable[[Any], Any], word: str
) -> None:
    """Soon an error or result of collate_fn that cannot be pickled is a SampleError."""
    loader = ScanDataset(made.scans).loader(batch_size=2, collate_fn=what, num_workers=2)

    begin = time.monotonic()
    with pytest.raises(SampleError, match=rf"collate_fn on verse90.+, verse90(.|\n)*{word}"):
        list(loader)

    assert time.monotonic() - begin < LIMIT_S


def test_a_batch_may_be_of_any_kind_that_can_be_sent(made: support.Made) -> None:
    """What collate_fn returns need not be a dict, and may hold None."""
    loader = ScanDataset(made.scans).loader(collate_fn=first_id, num_workers=1)

    assert [scan_id for scan_id, nothing in loader if nothing is None] == [
        made.scans[number].scan_id for number in loader.sampler.order(0)
    ]


def first_id(samples: Any) -> Any:
    return samples[0]["scan_id"], None


def test_a_worker_that_cannot_start_says_why(made: support.Made) -> None:
    """An error of worker_init_fn is a SampleError, soon, also of a local class."""
    begin = time.monotonic()
    with pytest.raises(SampleError, match=r"worker_init_fn of worker 0(.|\n)*Local"):
        list(ScanDataset(made.scans).loader(num_workers=1, worker_init_fn=raises_local_class))

    assert time.monotonic() - begin < LIMIT_S


def returns_objects(sample: dict[str, Any]) -> Any:
    return {"things": np.array([lambda: None], dtype=object)}


def returns_graph(sample: dict[str, Any]) -> Any:
    return {"image": torch.ones(2, requires_grad=True) * 2}


@pytest.mark.parametrize(("what", "word"), [(returns_objects, "lambda"), (returns_graph, "detach")])
def test_samples_that_cannot_be_sent_are_refused(
    made: support.Made, what: Callable[[Any], Any], word: str
) -> None:
    """Arrays of what cannot be pickled, and tensors with a graph, are an error that names the scan."""
    dataset = ScanDataset(made.scans, transform=OnBadScan(what))

    begin = time.monotonic()
    with pytest.raises(SampleError, match=f"{BAD}(.|\n)*{word}"):
        list(dataset.loader(batch_size=None, num_workers=1))

    assert time.monotonic() - begin < LIMIT_S


def test_control_an_epoch_ends_early_without_a_word() -> None:
    """The drill sees StopIteration out of a plain dataset: fewer batches, no error."""
    dataset = naive.CallsTransform(OnBadScan(raises_stop))

    assert len(list(DataLoader(dataset, batch_size=2, num_workers=0))) < 4


@pytest.mark.parametrize(
    "what", [raises_local_class, pytest.param(returns_unpicklable, marks=pytest.mark.slow)]
)
def test_control_what_cannot_be_pickled_hangs(what: Callable[[dict[str, Any]], Any]) -> None:
    """The drill sees unpicklable errors and items out of a plain dataset: a loader without end."""
    dataset = naive.CallsTransform(OnBadScan(what))

    batches = iter(DataLoader(dataset, batch_size=None, num_workers=1, timeout=3))
    with pytest.raises(RuntimeError, match="timed out"):
        list(batches)
    batches._shutdown_workers()
