"""Checks of cores, memory and shared memory; the limits of a container count."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from verse_data.doctor.check import GB, Check, size
from verse_data.errors import counted

_SHARED: Final = 1 << 30
"""Bytes of shared memory below which workers that hand over volumes run out of it."""
_ROOT: Final = Path("/")
_UNLIMITED: Final = 1 << 60
"""What version 1 of control groups writes for no limit is about 2**63."""


def cores() -> int:
    """Return the number of cores of the machine."""
    return os.cpu_count() or 1


def allowed_cores(*, root: Path = _ROOT) -> float:
    """Return how many cores this process may keep busy: its affinity, and the limit of its container.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` lie.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores()
    return min([float(affinity), *_core_limits(root)])


def memory(*, root: Path = _ROOT) -> tuple[int, int] | None:
    """Return total and available memory of the machine in bytes, or None where nobody says."""
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


def shared_memory(folder: Path = Path("/dev/shm")) -> int | None:  # noqa: S108 - nothing is written
    """Return the size of shared memory in bytes, or None where it is no folder, as on macOS."""
    try:
        return shutil.disk_usage(folder).total
    except OSError:
        return None


def _core_limits(root: Path) -> Iterator[float]:
    pairs = [text.split() for text in _read("", "cpu.max", root)]
    quotas, periods = (
        _read("cpu", "cpu.cfs_quota_us", root),
        _read("cpu", "cpu.cfs_period_us", root),
    )
    pairs += [[quota, period] for quota, period in zip(quotas, periods, strict=False)]
    for pair in pairs:
        if len(pair) == 2 and pair[0].isdigit() and pair[1].isdigit() and int(pair[1]):
            yield int(pair[0]) / int(pair[1])


def _read(controller: str, name: str, root: Path) -> list[str]:
    """Return what `name` says in this process's control group and those above it.

    `controller` is empty for version 2, whose groups lie in one tree.
    """
    found = []
    for folder in _groups(controller, root):
        with suppress(OSError, ValueError):
            found.append((folder / name).read_text().strip())
    return found


def _groups(controller: str, root: Path) -> Iterator[Path]:
    top = root / "sys/fs/cgroup" / controller
    yield top
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                folder = Path(path.strip("/"))
                yield from (top / part for part in (folder, *folder.parents) if part != Path())


def cores_check(total: int, allowed: float) -> Check:
    """Return what `total` cores mean of which this process may use `allowed`."""
    if allowed >= total:
        return Check(name="cores", state="ok", fact=f"{total}")
    workers = max(1, int(allowed))
    return Check(
        name="cores",
        state="warning",
        fact=f"{total}, of which this process may use {allowed:g}; one process a core would be too many",
        remedy=f"workers={workers} in load_split and Release.build_cache, or: verse-data cache build RELEASE --workers {workers}",
    )


def memory_check(found: tuple[int, int] | None, limit: int | None, cores: int) -> Check:
    """Return what memory means: `found` is total and available, `limit` that of the container, in bytes."""
    if found is None:
        return Check(name="memory", state="ok", fact="this system does not say")
    total, available = found
    usable = min(total, limit or total)
    fact = f"{size(total)}, {size(available)} of it free"
    if limit is not None and limit < total:
        fact += f"; this process may use {size(limit)}"
    if usable >= max(4, cores) * 0.95 * GB:
        return Check(name="memory", state="ok", fact=fact)
    workers = max(1, int(usable / GB / 2))
    return Check(
        name="memory",
        state="warning",
        fact=f"{fact}: little for {counted(cores, 'process', 'processes')} that convert volumes of up to 0.5 GB",
        remedy=f"Convert with fewer: verse-data cache build RELEASE --workers {min(workers, cores)}",
    )


def shared_memory_check(total: int | None) -> Check:
    """Return what shared memory of `total` bytes means for the workers of a ``DataLoader``."""
    if total is None:
        return Check(name="shared memory", state="ok", fact="there is no /dev/shm on this system")
    fact = f"{size(total)} at /dev/shm, through which DataLoader workers hand over batches"
    if total >= _SHARED:
        return Check(name="shared memory", state="ok", fact=fact)
    return Check(
        name="shared memory",
        state="warning",
        fact=f"{fact}: they end in a bus error when it is full",
        remedy="docker run --shm-size=8g (or --ipc=host); or num_workers=0; or dataset.loader(...), which uses threads",
    )
