"""Releases: lock to dataset, reading keys, and getting files, beside plain DataLad in the same run.

Run: python benchmarks/releases.py [--files 1500] [--small 120] [--rounds 3]

A node of the stand-in for OSF (tests/osf_standin, on loopback, three hops a file) serves the files.
Each round runs every way once, one after the other, into a fresh dataset; printed are medians.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from osf_standin import FakeClock, Node, OsfStandin

from verse_data.config import Config
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.releases.repository import Repository
from verse_data.releases.environment import tool_environment
from verse_data.releases.osf import walk_node

GOALS = {
    "lock of all files to dataset, s": 2.0,
    "path to key of a tag, ms": 100.0,
    "small file, ms": 15.0,
    "40 files at 100 ms a hop, s": 3.0,
}


def made_up_lock(count: int) -> ReleaseLock:
    """Return a lock of VerSe's shape with `count` files, five a subject."""
    suffixes = (
        "ct.json",
        "ct.nii.gz",
        "seg-subreg_ctd.json",
        "seg-vert_msk.nii.gz",
        "seg-vert_snp.png",
    )
    files = []
    for number in range(count):
        subject, suffix = f"sub-verse{number // 5:03}", suffixes[number % 5]
        path = f"dataset-verse19training/rawdata/{subject}/{subject}_{suffix}"
        files.append(
            LockedFile(
                path=path,
                size=number,
                sha256=f"{number:064x}",
                file_id=f"{number:024x}",
                file_version=1,
            )
        )
    files.sort(key=lambda file: file.path)
    return ReleaseLock(
        release="lab", source=LockSource(kind="osf", node="jtfa5"), files=tuple(files)
    )


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def plain_get(dataset: Repository, jobs: int) -> None:
    """Get everything with `datalad get`, its start included, as a person would."""
    environment = tool_environment() | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "annex.security.allowed-ip-addresses",
        "GIT_CONFIG_VALUE_0": "127.0.0.1",
    }
    command = ["datalad", "get", "-J", str(jobs), "."]
    subprocess.run(command, cwd=dataset.path, env=environment, check=True, capture_output=True)


def fetch(dataset: Repository, jobs: int) -> None:
    """Get everything."""
    dataset.fetch(dataset.lock().files, jobs=jobs).raise_for_failures()


def main() -> None:
    """Print a table: what was measured, its median, and the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1500)
    parser.add_argument("--small", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    times: dict[str, list[float]] = defaultdict(list)
    work = Path(tempfile.mkdtemp(prefix="verse-bench-"))
    try:
        for number in range(options.rounds):
            registering(work / f"registering{number}", options.files, times)
            getting(work / f"getting{number}", options.small, times)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(work)], check=False)
        shutil.rmtree(work, ignore_errors=True)
    print(
        f"{options.files} locked files, {options.small} small files, {options.rounds} rounds, {os.cpu_count()} cores"
    )
    for name, values in times.items():
        median, goal = statistics.median(values), GOALS.get(name)
        verdict = "" if goal is None else f"  goal {goal:g}: {'met' if median < goal else 'MISSED'}"
        print(
            f"{name:48} {median:9.2f}  (best {min(values):.2f}, worst {max(values):.2f}){verdict}"
        )


def registering(home: Path, count: int, times: dict[str, list[float]]) -> None:
    """Measure the way from a lock to a dataset, and from a tag to keys."""
    lock = made_up_lock(count)
    dataset = Repository(home / "lab")
    times["lock of all files to dataset, s"].append(seconds(lambda: dataset.publish(lock)))
    keys = seconds(lambda: Repository(dataset.path).tree_keys("v1"))
    times["path to key of a tag, ms"].append(1000 * keys)
    read = seconds(lambda: Repository(dataset.path).lock("v1"))
    times["lock of a tag, read and checked, ms"].append(1000 * read)
    find = ["git-annex", "find", "--branch=v1", "--anything", "--format=${key} ${file}\\n"]
    plain = seconds(
        lambda: subprocess.run(
            find, cwd=dataset.path, env=tool_environment(), check=True, capture_output=True
        )
    )
    times["the same by git annex find, ms"].append(1000 * plain)


def getting(home: Path, count: int, times: dict[str, list[float]]) -> None:
    """Measure small files, near and far, here and with plain DataLad."""
    node = Node("jtfa5")
    for number in range(count):
        content = b"\x1f\x8b" + random.Random(number).randbytes(2000)
        node.upload(f"rawdata/sub-verse{number:03}/sub-verse{number:03}_ct.nii.gz", content)
    with OsfStandin(node) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
        few = ReleaseLock(release="lab", source=lock.source, files=lock.files[:40])

        def fresh(name: str, of: ReleaseLock) -> Repository:
            dataset = Repository(home / name / "lab", config=config)
            dataset.publish(of)
            return dataset

        ours = fresh("near", lock)
        times["small file, ms"].append(1000 * seconds(lambda: fetch(ours, 4)) / count)
        dataset = fresh("near-plain", lock)
        times["small file, plain datalad get -J4, ms"].append(
            1000 * seconds(lambda: plain_get(dataset, 4)) / count
        )
        osf.latency = 0.1
        distant = fresh("far", few)
        times["40 files at 100 ms a hop, s"].append(seconds(lambda: fetch(distant, 8)))
        dataset = fresh("far-plain", few)
        times["40 files at 100 ms a hop, plain datalad get -J8, s"].append(
            seconds(lambda: plain_get(dataset, 8))
        )


if __name__ == "__main__":
    main()
