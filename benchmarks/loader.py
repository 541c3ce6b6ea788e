"""Patches per second, and how long a training step waits for them, beside the peers: 96³, float32.

::

    python benchmarks/loader.py                 three volumes of real size, peers with 2 workers
    python benchmarks/loader.py --workers 0 --rounds 3 --seconds 2

Our rows are by threads, processes and neither, whatever the number of workers of the others. The
wait is that for one batch by a consumer that works 10 ms a step, as a small network does.

Each contestant lives in a process of its own and keeps its loader running; in each round all of
them are measured in turn, in a new order, so that whatever else the machine does falls on all of
them alike. Between its turns a contestant is stopped, or its workers would fill their queues while
another is measured. Only ratios of one run mean something. Memory is the sum of what the
contestant's processes hold (PSS, so what they share counts once), at its highest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_contestants import (
    CONTESTANTS,
    HELD,
    NEEDS,
    OURS,
    PERSISTENT,
    PROCESSES,
    Batches,
    Contestant,
)
from made_up_ct import SHAPES
from volume_readers import NNUNET, WAYS
from volumes import prepare

GOALS = {PROCESSES: 2.2, NNUNET: 3.0, PERSISTENT: 25.0, HELD: 1.5}
"""What two threads must reach, as a multiple of each of these."""
WORK_S = 0.010
WAITS_MS = {0.5: 0.3, 0.95: 2.0}
"""What a step may wait for a batch from two threads, by quantile."""


@dataclass
class Runner:
    """A contestant's process, seen from here, and what was measured of it."""

    name: str
    process: subprocess.Popen[str]
    rates: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """Seconds for each batch, while the consumer works."""
    memory: int = 0

    def ask(self, command: str) -> Any:
        """Let the contestant run until it answers a command; return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            message = f"{self.name} ended with {self.process.wait()}; see above"
            raise SystemExit(message)
        os.killpg(self.process.pid, signal.SIGSTOP)
        return json.loads(line)

    def measure(self, seconds: float) -> None:
        """Run one round."""
        answer = self.ask(f"{seconds} 0")
        self.rates.append(answer["patches"] / sum(answer["waits"]))
        self.memory = max(self.memory, answer["memory"])
        answer = self.ask(f"{seconds} {WORK_S}")
        self.waits += answer["waits"]
        self.memory = max(self.memory, answer["memory"])

    def wait_ms(self, quantile: float) -> float:
        """Return the wait for one batch."""
        return float(np.quantile(self.waits, quantile)) * 1e3


def serve(name: str, folders: list[Path], workers: int) -> None:
    """Be a contestant: answer each number of seconds on stdin with what was measured."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    batches = CONTESTANTS[name].start(folders, workers)
    next(batches)
    for line in sys.stdin:
        seconds, work = map(float, line.split() or (0, 0))
        answer = round_of(batches, seconds, work, ahead=2 * workers + 1) if seconds else {}
        answers.write(json.dumps({**answer, "memory": held_memory(os.getpid())}) + "\n")
        answers.flush()


def round_of(batches: Batches, seconds: float, work: float, *, ahead: int) -> dict[str, Any]:
    """Take batches for some seconds, after those that workers had ready before."""
    for _ in range(ahead):
        next(batches)
    waits, patches, end = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < end or not waits:
        start = time.perf_counter()
        patches += next(batches)
        waits.append(time.perf_counter() - start)
        if work:
            time.sleep(work)
    return {"waits": waits, "patches": patches}


def held_memory(pid: int) -> int:
    """Return the bytes that a process and its descendants hold; shared pages count once."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = (task / "children").read_text().split()
            total += sum(held_memory(int(child)) for child in children)
    except (FileNotFoundError, ProcessLookupError):
        return total
    return total


def installed(contestant: Contestant) -> bool:
    """Return whether a contestant can run here; say so if it cannot."""
    module = WAYS[contestant.files].missing
    for start, name in NEEDS.items():
        if contestant.name.startswith(start) and importlib.util.find_spec(name) is None:
            module = name
    if module:
        print(f"left out: {contestant.name} (no module {module}; pip install 'verse-data[bench]')")
    return module is None


@contextmanager
def running(names: list[str], folder: Path, workers: int) -> Iterator[list[Runner]]:
    """Start every contestant, one after the other, and end them all."""
    runners: list[Runner] = []
    try:
        for name in names:
            command = [sys.executable, __file__, "--serve", name, "--folder", str(folder)]
            process = subprocess.Popen(
                [*command, "--workers", str(workers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            runners.append(Runner(name, process))
            start = time.perf_counter()
            runners[-1].ask("")
            print(f"started {name} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
        yield runners
    finally:
        for runner in runners:
            assert runner.process.stdin is not None
            runner.process.stdin.close()
            os.killpg(runner.process.pid, signal.SIGCONT)
            try:
                runner.process.wait(20)
            except subprocess.TimeoutExpired:
                runner.process.kill()


def report(runners: list[Runner], workers: int) -> bool:
    """Print the table and the goals; return whether all are met."""
    rate = {runner.name: statistics.median(runner.rates) for runner in runners}
    print(f"\n## Peers with {workers} workers\n")
    print("| contestant | patches/s | 2 threads of ours are | wait p50 ms | p95 ms | memory |")
    print("|---|---|---|---|---|---|")
    for runner in sorted(runners, key=lambda runner: -rate[runner.name]):
        print(
            f"| {runner.name} | {rate[runner.name]:.1f} | {rate[OURS] / rate[runner.name]:.2f} x "
            f"| {runner.wait_ms(0.5):.2f} | {runner.wait_ms(0.95):.2f} "
            f"| {runner.memory / 1e6:,.0f} MB |"
        )
    ours = next(runner for runner in runners if runner.name == OURS)
    goals = [
        (f"{rate[OURS] / rate[name]:.2f} x {name} (goal {goal:g})", rate[OURS] / rate[name] >= goal)
        for name, goal in GOALS.items()
        if name in rate
    ]
    goals += [
        (
            f"p{q * 100:g} of the wait {ours.wait_ms(q):.2f} ms (goal {most:g})",
            ours.wait_ms(q) <= most,
        )
        for q, most in WAITS_MS.items()
    ]
    for text, met in goals:
        print("ok  " if met else "MISS", text)
    return all(met for _, met in goals)


def main() -> int:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a contestant in a round")
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), help="some contestants")
    parser.add_argument("--folder", type=Path, help="where the files are kept between runs")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.gettempdir()) / "verse-data-benchmark"
    folders = [folder / name for name in SHAPES]
    if arguments.serve:
        serve(arguments.serve, folders, arguments.workers[0])
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    chosen = [c for c in CONTESTANTS.values() if c.name in arguments.only and installed(c)]
    prepare(folder, SHAPES, [WAYS[name] for name in dict.fromkeys(c.files for c in chosen)])
    met = True
    for workers in arguments.workers:
        with running([c.name for c in chosen], folder, workers) as runners:
            for number in range(arguments.rounds):
                order = list(runners)
                random.Random(number).shuffle(order)
                for runner in order:
                    runner.measure(arguments.seconds)
            met &= report(runners, workers)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
