"""Drill 24: every start method, after the parent has used the dataset or not, with 0 and 2 workers.

Pass: no hang, and identical batches. Controls: a dataset that keeps handles cannot be sent to
spawned workers; one that guards a cache with a lock hangs after a fork.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch.utils.data import DataLoader

from tests.support import naive
from tests.support import training as support
from verse_data.training import PatchDataset

PATIENCE_S = 300
"""Far more than a worker needs to start on a busy machine: a hang is one for ever."""

FORKED_S = 30
"""The same for a worker that is forked: it has nothing to import."""

# Python 3.12 and later warn of every fork beside threads, of which libraries have some.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
WAYS = [
    pytest.param(method, used, id=f"{method}-{'used' if used else 'unused'}")
    for method in ("fork", "spawn", "forkserver")
    for used in (False, True)
    if (method, used) != ("spawn", False)  # two such workers are drill 26's
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


@pytest.fixture(autouse=True, scope="module")
def _fork_server_with_torch() -> None:
    """Let the server that forks workers import torch, as each of them would for itself."""
    multiprocessing.set_forkserver_preload(["torch"])


@pytest.fixture(scope="module")
def expected(made: support.Made) -> str:
    return support.stream_digest(batch for batch in patches(made).loader(batch_size=4))


def patches(made: support.Made) -> PatchDataset:
    return PatchDataset(
        made.scans, patch_size=(24, 24, 24), sampling="foreground", patches_per_scan=4
    )


@pytest.mark.parametrize(("method", "used"), WAYS)
def test_workers_of_every_kind_give_the_same_batches(
    made: support.Made, expected: str, method: str, *, used: bool
) -> None:
    """Two workers give what none give, whether or not the parent has read before."""
    dataset = patches(made)
    if used:
        _ = dataset[0], dataset[19]

    loader = dataset.loader(
        batch_size=4, num_workers=2, multiprocessing_context=method, timeout=PATIENCE_S
    )

    assert support.stream_digest(loader) == expected


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_no_workers_give_the_same_batches(made: support.Made, expected: str, *, used: bool) -> None:
    """Without workers, a dataset that was used before gives the same batches."""
    dataset = patches(made)
    if used:
        _ = dataset[0], dataset[19]

    assert support.stream_digest(dataset.loader(batch_size=4)) == expected


def test_workers_start_while_another_thread_reads(made: support.Made, expected: str) -> None:
    """Workers that are forked while a thread of the parent is reading do not wait for it."""
    dataset = patches(made)

    with reading(dataset):
        for _ in range(3):
            dataset.set_epoch(0)
            loader = dataset.loader(
                batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=FORKED_S
            )
            assert support.stream_digest(loader) == expected


@contextmanager
def reading(dataset: PatchDataset) -> Iterator[None]:
    """Read in another thread for as long as the context lasts."""
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            _ = dataset[number % len(dataset)]
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:Got pickle error")
def test_control_handles_cannot_be_sent_to_spawned_workers(made: support.Made) -> None:
    """The drill sees a dataset that holds open handles: spawned workers never start."""
    dataset = naive.HoldsHandles([scan.store for scan in made.scans])
    loader = DataLoader(dataset, num_workers=2, multiprocessing_context="spawn")

    assert len(list(DataLoader(dataset))) == len(made.scans)
    with pytest.raises(TypeError, match="pickle"):
        list(loader)


@pytest.mark.slow
def test_control_a_lock_that_is_held_while_forking_hangs() -> None:
    """The drill sees a dataset with a lock: held at the fork, it stays held in the worker."""
    dataset = naive.SharedCache()

    with dataset.lock:
        loader = DataLoader(dataset, num_workers=1, multiprocessing_context="fork", timeout=2)
        with pytest.raises(RuntimeError, match="timed out"):
            list(loader)
