"""What this process may use of the machine: cores and memory, also inside a container."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")
_UNLIMITED: Final = 1 << 60  # version 1 of control groups writes about 2**63 for no limit


def allowed_cores(*, root: Path = _ROOT) -> float:
    """Return how many cores this process may keep busy: its affinity, and its container's limit."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pairs = [text.split() for text in _read("", "cpu.max", root)]
    quotas, periods = (_read("cpu", f"cpu.cfs_{n}_us", root) for n in ("quota", "period"))
    pairs += [[quota, period] for quota, period in zip(quotas, periods, strict=False)]
    limits = [
        int(pair[0]) / int(pair[1])
        for pair in pairs
        if len(pair) == 2 and pair[0].isdigit() and pair[1].isdigit() and int(pair[1])
    ]
    return min([float(affinity or 1), *limits])


def memory(*, root: Path = _ROOT) -> tuple[int, int] | None:
    """Return total and available memory of the machine in bytes, or None if unknown."""
    found = {}
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) * 1024
    if "MemTotal" in found:
        return found["MemTotal"], found.get("MemAvailable", found["MemTotal"])
    with suppress(OSError, ValueError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    return None


def memory_limit(*, root: Path = _ROOT) -> int | None:
    """Return the limit of this process's container on memory in bytes, or None if it has none."""
    texts = [*_read("", "memory.max", root), *_read("memory", "memory.limit_in_bytes", root)]
    limits = [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def _read(controller: str, name: str, root: Path) -> list[str]:
    """Return the contents of `name` in this process's control group and those above it.

    `controller` is empty for version 2, whose groups are in one tree.
    """
    top = root / "sys/fs/cgroup" / controller
    folders = [top]
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                folder = Path(path.strip("/"))
                folders += [top / part for part in (folder, *folder.parents) if part != Path()]
    found = []
    for folder in folders:
        with suppress(OSError, ValueError):
            found.append((folder / name).read_text().strip())
    return found
