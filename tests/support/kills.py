"""Builds that are killed, refused and raced, in a process of its own: ``python -m tests.support.kills``.

Forking wants a process without threads, so the tests start this module as a program. It prints
JSON.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tests.support.scans import MadeScan, make_scan
from verse_data.errors import VerseDataError
from verse_data.spine.geometry import Box
from verse_data.volumes import store as stores_module
from verse_data.volumes.cache import sweep_stores
from verse_data.volumes.convert import open_conversion
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.reader import ScanReader, close_all
from verse_data.volumes.recipe import Recipe, fingerprint
from verse_data.volumes.store import ensure_store, verify_store

RECIPE = Recipe()
ERRNOS = ("ENOSPC", "EIO", "EACCES", "EINTR", "EROFS")


def is_true(store: Path, scan: MadeScan) -> bool:
    """Read a store whole and compare it with what it was made from."""
    close_all()
    reader = ScanReader(store)
    found = reader.read(Box.whole(reader.grid("PIR")[0]), orientation="PIR")
    return all(map(np.array_equal, found, (scan.image, scan.mask)))


def leftovers(root: Path) -> list[str]:
    """Return what lies below a root of stores beside the stores."""
    return [path.name for folder in root.glob("*") for path in folder.glob(".*")]


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a forked process and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 0
    try:
        work()
    except BaseException:  # noqa: BLE001 - a child never returns into its parent's stack
        code = 1
    os._exit(code)


def die(_task: object) -> None:
    """End this process as the kernel does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def kills(folder: Path, count: int) -> dict[str, Any]:
    """Kill builds, read what they left, build again.

    A quarter is killed at a call of its own choice, surely before the end; a quarter once it has
    ended; the others at random times, wherever a machine as busy as this one has got to by then.
    """
    scan, root = make_scan(folder, shape=(40, 36, 34)), folder / "stores"
    final = stores_module.store_path(root, fingerprint(scan.source.keys, RECIPE))
    begin = time.perf_counter()
    ensure_store(scan.source, RECIPE, root)
    usual = time.perf_counter() - begin
    rng = np.random.default_rng(1)
    out = {"wrong": 0, "finished": 0, "without manifest": 0, "rebuilt": 0, "leftovers": 0}
    for number in range(count):
        shutil.rmtree(root)
        at_call = int(rng.integers(1, 60)) if number % 4 == 0 else sys.maxsize
        with failing(Fault(at_call, "SIGKILL")):
            pid = in_child(lambda: ensure_store(scan.source, RECIPE, root))
        if number % 2:
            time.sleep(float(rng.uniform(0, 2.5 * usual)))
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if final.exists():
            out["finished"] += 1
            out["without manifest"] += not (final / MANIFEST_KEY).is_file()
            out["wrong"] += bool(verify_store(final)) or not is_true(final, scan)
        again = ensure_store(scan.source, RECIPE, root)
        out["rebuilt"] += is_true(again, scan)
        sweep_stores(root)  # as each `cache build` begins: the store may have been finished
        out["leftovers"] += any(".tmp-" in name for name in leftovers(root))
    return out


def naive_kills(folder: Path, count: int) -> dict[str, Any]:
    """Kill a plain zarr write under the final name, each time a few file calls later."""
    scan = make_scan(folder, shape=(96, 96, 64))
    target = folder / "naive.zarr"

    def write() -> None:
        array = zarr.create_array(target, shape=scan.image.shape, chunks=(16, 16, 16), dtype="i2")
        array[...] = scan.image

    wrong = 0
    for number in range(count):
        shutil.rmtree(target, ignore_errors=True)
        with failing(Fault(20 + 10 * number, "SIGKILL")):
            os.waitpid(in_child(write), 0)
        check = in_child(lambda: _fail_if_wrong(target, scan))
        wrong += os.waitstatus_to_exitcode(os.waitpid(check, 0)[1]) == 3
    return {"wrong": wrong}


def _fail_if_wrong(target: Path, scan: MadeScan) -> None:
    try:
        found = zarr.open_array(target, mode="r")[:]
    except Exception:  # noqa: BLE001 - absent, or noticed
        return
    if not np.array_equal(found, scan.image):
        os._exit(3)


class Fault:
    """Makes the n-th file call of this process fail, or kill it."""

    def __init__(self, number: int, how: str) -> None:
        self.left, self.how, self.fired = number, how, False

    def __call__(self, path: object = "") -> None:
        self.left -= 1
        if self.left == 0:
            self.fired = True
            if self.how == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            code = getattr(errno, self.how)
            raise OSError(code, os.strerror(code), str(path))


class _FaultyRaw(io.FileIO):
    """A file whose writes and closing count as calls."""

    fault: Fault

    def write(self, data: Any) -> int:
        self.fault(self.name)
        return super().write(data)


@contextlib.contextmanager
def failing(fault: Fault) -> Any:
    """Let `fault` see each call that this package makes of the file system."""
    names = ("open", "fsync", "rename", "replace", "mkdir", "link", "unlink", "lstat")
    before = {name: getattr(os, name) for name in names}
    open_before = io.open

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            fault(args[0] if args else "")
            return call(*args, **options)

        return wrapper

    def opening(path: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        fault(path)
        if not isinstance(path, int) and set(mode) & set("wx"):
            raw = _FaultyRaw(path, mode.replace("b", ""))
            raw.fault = fault
            return io.BufferedWriter(raw, buffering if buffering > 1 else 8192)
        return open_before(path, mode, buffering, *rest, **options)

    for name in names:
        setattr(os, name, counted(before[name]))
    io.open = opening
    try:
        yield
    finally:
        io.open = open_before
        for name in names:
            setattr(os, name, before[name])


def nth_call(folder: Path, how: str) -> dict[str, Any]:
    """Fail each file call of a build in turn, until a build goes through."""
    scan, root = make_scan(folder, shape=(40, 30, 20)), folder / "stores"
    final = stores_module.store_path(root, fingerprint(scan.source.keys, RECIPE))
    ensure_store(scan.source, RECIPE, folder / "warm")
    out: dict[str, Any] = {"steps": 0, "errors": {}, "foreign": [], "wrong": 0, "half": 0}
    for number in range(1, 400, 3 if how == "SIGKILL" else 1):
        shutil.rmtree(root, ignore_errors=True)
        fault = Fault(number, how)
        killed = False
        if how == "SIGKILL":
            with failing(fault):
                pid = in_child(lambda: ensure_store(scan.source, RECIPE, root))
            killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        else:
            try:
                with failing(fault):
                    ensure_store(scan.source, RECIPE, root)
            except VerseDataError as error:
                kind = type(error).__name__
                out["errors"][kind] = out["errors"].get(kind, 0) + 1
            except BaseException as error:  # noqa: BLE001 - what the drill looks for
                out["foreign"].append(f"{number}: {error!r}")
        if final.exists():
            out["half"] += not (final / MANIFEST_KEY).is_file()
            out["wrong"] += bool(verify_store(final)) or not is_true(final, scan)
        if how in {"ENOSPC", "SIGKILL"} or number % 5 == 0:
            out["wrong"] += not is_true(ensure_store(scan.source, RECIPE, root), scan)
        out["steps"] += 1
        if not fault.fired and not killed:
            break
    return out


def naive_nth_call(folder: Path, how: str) -> dict[str, Any]:
    """Fail calls of a build that writes under the final name, as far apart as makes a second."""
    scan = make_scan(folder, shape=(40, 30, 20))
    final = stores_module.store_path(folder / "stores", fingerprint(scan.source.keys, RECIPE))
    out = {"foreign": 0, "half": 0}
    for number in range(10, 80, 10):
        shutil.rmtree(final, ignore_errors=True)
        try:
            with failing(Fault(number, how)):
                _write_in_place(scan, final)
        except VerseDataError:
            pass
        except OSError:
            out["foreign"] += 1
        out["half"] += final.exists() and not (final / MANIFEST_KEY).is_file()
    return out


def naive_again(folder: Path) -> dict[str, Any]:
    """Kill a task that writes in place, and run it again as Dask does."""
    scan = make_scan(folder, shape=(40, 30, 20))
    final = stores_module.store_path(folder / "stores", fingerprint(scan.source.keys, RECIPE))
    with failing(Fault(30, "SIGKILL")):
        pid = in_child(lambda: _write_in_place(scan, final))
    killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    _write_in_place(scan, final)
    return {"killed": killed, "findings": len(verify_store(final))}


def _write_in_place(scan: MadeScan, final: Path) -> None:
    """Build a store under its final name, unless something is there."""
    if not final.exists():
        final.mkdir(parents=True)
        with open_conversion(scan.source, RECIPE) as conversion:
            conversion.write(final)


def race(folder: Path, flock: str) -> dict[str, Any]:
    """Let eight processes want the same two scans at once, out of a cold cache.

    Where a lock does nothing, the first to build a scan waits for a second, who is sure to come.
    """
    scans = [make_scan(folder / str(n), seed=n, scan_id=f"verse90{n}") for n in range(2)]
    root, log = folder / "stores", folder / "builds"
    build = stores_module._build

    def logged(source: Any, recipe: Any, final: Path, *progress: Any) -> None:
        with log.open("a") as file:
            file.write(source.scan_id + "\n")
        while flock == "a no-op" and log.read_text().split().count(source.scan_id) < 2:
            time.sleep(0.01)
        build(source, recipe, final, *progress)

    stores_module._build = logged
    if flock != "sound":
        fcntl.flock = _DEAD[flock]

    def want() -> None:
        for scan in scans:
            assert is_true(ensure_store(scan.source, RECIPE, root), scan)

    codes = [os.waitpid(pid, 0)[1] for pid in [in_child(want) for _ in range(8)]]
    builds = log.read_text().split()
    return {
        "failed": sum(map(bool, codes)),
        "builds": [builds.count(scan.source.scan_id) for scan in scans],
        "stores": len([path for path in root.glob("*/*") if path.is_dir()]),
        "damaged": sum(bool(verify_store(path)) for path in root.glob("*/*") if path.is_dir()),
        "leftovers": leftovers(root),
    }


def _refuse(code: int) -> Callable[..., None]:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return flock


_DEAD: dict[str, Any] = {
    "a no-op": lambda *_: None,
    "ENOLCK": _refuse(errno.ENOLCK),
    "ENOSYS": _refuse(errno.ENOSYS),
}


def full(folder: Path, small: Path, count: int) -> dict[str, Any]:
    """Build onto a small disk with less and less room left; then make room and build again."""
    scan = make_scan(folder, shape=(96, 96, 64))
    shard = (ensure_store(scan.source, RECIPE, folder) / "image/c/0/0/0").stat().st_size
    out: dict[str, Any] = {
        "full": 0,
        "texts": [],
        "foreign": [],
        "later": 0,
        "left": 0,
        "codes": [],
    }
    usage = shutil.disk_usage
    for step in range(count):
        room = int(shard * (step + 0.5) / count)
        filler = small / "filler"
        filler.write_bytes(bytes(max(0, usage(small).free - room - 8192)))
        if step % 2:
            # Another process takes the room after it was asked for.
            shutil.disk_usage = lambda _: usage("/")
        try:
            ensure_store(scan.source, RECIPE, small / "stores")
        except VerseDataError as error:
            out["full"] += type(error).__name__ == "DiskFull"
            out["codes"].append(error.exit_code)
            out["texts"].append(str(error))
        except BaseException as error:  # noqa: BLE001 - what the drill looks for
            out["foreign"].append(repr(error))
        shutil.disk_usage = usage
        out["left"] += len([path for path in small.rglob("*") if path.is_file()]) - 1
        filler.unlink()
        out["later"] += is_true(ensure_store(scan.source, RECIPE, small / "stores"), scan)
        shutil.rmtree(small / "stores")
    return out


def naive_full(folder: Path, small: Path) -> dict[str, Any]:
    """Let zarr write onto the same disk until it is full; then read."""
    scan = make_scan(folder, shape=(96, 96, 64))
    free = shutil.disk_usage(small).free
    (small / "filler").write_bytes(bytes(max(0, free - 600_000)))
    with contextlib.suppress(OSError):
        array = zarr.create_array(
            small / "a", shape=scan.image.shape, chunks=(32, 32, 32), dtype="i2"
        )
        array[...] = scan.image
    found = zarr.open_array(small / "a", mode="r")[:]
    return {"wrong": int((found != scan.image).sum())}


if __name__ == "__main__":
    mode, where, *arguments = sys.argv[1:]
    if mode in {"kills", "naive_kills"}:
        answer = globals()[mode](Path(where), int(arguments[0]))
    elif mode == "full":
        answer = full(Path(where), Path(arguments[0]), 10)
    elif mode == "naive_full":
        answer = naive_full(Path(where), Path(arguments[0]))
    else:
        ways: dict[str, Callable[..., dict[str, Any]]] = {
            "nth_call": nth_call,
            "naive_nth_call": naive_nth_call,
            "naive_again": naive_again,
            "race": race,
        }
        answer = ways[mode](Path(where), *arguments)
    sys.stdout.write(json.dumps(answer))
