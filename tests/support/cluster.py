"""Builds on a Dask cluster of two workers, one of which is killed: a program of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from distributed import Client, LocalCluster

from tests.support.kills import is_true, leftovers
from tests.support.scans import make_scan
from verse_data.volumes.build import build_stores
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store, load_manifest


def main(folder: Path) -> None:
    """Build six scans, each twice, and kill a worker while they are in the making."""
    scans = [
        make_scan(folder / str(n), seed=n, scan_id=f"verse90{n}", shape=(128, 96, 64))
        for n in range(6)
    ]
    sources, recipe = [scan.source for scan in scans], Recipe()
    serial = build_stores(sources, recipe, folder / "serial")
    root = folder / "stores"
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        first = client.run(os.getpid)
        twice = [
            client.submit(partial(ensure_store, recipe=recipe, stores=root), s, pure=False)
            for s in sources
        ]
        while not any(root.glob("*/*")):
            time.sleep(0.01)  # until one is in the making
        os.kill(next(iter(first.values())), signal.SIGKILL)
        built = build_stores(sources, recipe, root, client=client)
        client.gather(twice)
        workers = set(client.run(os.getpid).values())
    answer = {
        "same": [
            load_manifest(built[name]).root == load_manifest(serial[name]).root for name in serial
        ],
        "true": [is_true(built[scan.source.scan_id], scan) for scan in scans],
        "stores": len([path for path in root.glob("*/*") if path.is_dir() and path.name[0] != "."]),
        "killed": len(set(first.values()) - workers),
        "leftovers": leftovers(root),
    }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
