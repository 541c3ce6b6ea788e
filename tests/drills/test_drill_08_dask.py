"""Drill 8: two Dask workers, one killed, every task run twice: the stores of a serial build."""

from __future__ import annotations

import pytest

from tests.support.kills import die
from tests.support.program import run
from tests.support.scans import make_scan
from verse_data.errors import StorageError, UsageError
from verse_data.volumes.build import build_stores, connect, on_cluster
from verse_data.volumes.recipe import Recipe

distributed = pytest.importorskip(
    "distributed", reason="Dask is an extra: pip install 'verse-data[dask]'"
)
dask = pytest.importorskip("dask")


def test_same_stores_as_a_serial_build(fast_path):
    """Killing a worker and running tasks twice changes no byte of any store."""
    found = run("cluster", fast_path)

    assert found["killed"] == 1
    assert found["same"] == found["true"] == [True] * 6
    assert found["stores"] == 6
    assert [name for name in found["leftovers"] if name.startswith(".lock")] == []


def test_control_a_task_that_writes_in_place(fast_path):
    """Killed and run again, a task that writes under the final name hands out half a store."""
    found = run("kills", "naive_again", fast_path)
    assert found["killed"]
    assert found["findings"] > 0


@pytest.mark.filterwarnings("ignore")
def test_workers_that_are_killed_time_and_again(fast_path):
    """A scan whose every worker is killed ends in an error that speaks of memory."""
    scan = make_scan(fast_path, shape=(8, 8, 8))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(StorageError, match=r"killed.*memory"),
    ):
        list(on_cluster(client, die, [scan.source]))


def test_something_else_as_client_is_refused(tmp_path):
    """What is no Dask client is a usage error before anything is built."""
    scan = make_scan(tmp_path, shape=(20, 20, 20))
    with pytest.raises(UsageError, match=r"distributed\.Client, not object"):
        build_stores([scan.source], Recipe(), tmp_path / "stores", client=object())


@pytest.mark.filterwarnings("ignore")
def test_no_scheduler_is_a_named_error(monkeypatch):
    """An address where no scheduler answers is an error that says what to start."""
    monkeypatch.setattr("verse_data.volumes.build._CONNECT_SECONDS", 0.5)
    with pytest.raises(StorageError, match="dask scheduler"):
        connect("tcp://127.0.0.1:9")
