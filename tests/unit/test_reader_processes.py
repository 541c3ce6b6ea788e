"""A reader may be pickled, forked, spawned, shared by threads, and there may be many of them."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from tests.support.zarr_stores import write_store
from verse_data.errors import ChunkCorrupt
from verse_data.spine.geometry import Box
from verse_data.volumes import reader as handles
from verse_data.volumes.reader import ScanReader, close_all, opened

SHAPE = (70, 80, 50)
SECONDS = {"fork": 20, "forkserver": 120, "spawn": 120}
"""Only a child that hangs takes as long: a forked one has nothing to import, and reads at once."""

# Python 3.12 warns of what is tried here on purpose: forking where there are threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a small store of noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 2000, SHAPE).astype(np.int16)
    label = rng.integers(0, 3, SHAPE).astype(np.uint8)
    return write_store(tmp_path_factory.mktemp("store"), image, label)


def digest(reader: ScanReader) -> str:
    """Return a digest of all that the reader reads."""
    image, label = reader.read(Box.whole(reader.shape))
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


def send_digest(reader: ScanReader, pipe) -> None:
    """Be a child process: read everything and send its digest."""
    pipe.send(digest(reader))


def send_error(reader: ScanReader, pipe) -> None:
    """Be a child process: send what the reader raises."""
    try:
        digest(reader)
    except ChunkCorrupt as error:
        pipe.send(error)


def in_child(method: str, target, reader: ScanReader):
    """Run `target` in a child and return what it sends; one that hangs is killed, and is a failure."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(reader, theirs))
    child.start()
    theirs.close()  # so that a child that dies without a word ends the wait
    try:
        if not ours.poll(SECONDS[method]):
            child.kill()
            pytest.fail(f"the child of {method} hangs: it sent nothing in {SECONDS[method]} s")
        return ours.recv()
    finally:
        child.join(5)
        child.kill()


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_start_method(store, method, used):
    """A child of any kind reads the same, whether or not its parent has read before."""
    close_all()
    reader = ScanReader(store)
    if used:
        digest(reader)
    assert in_child(method, send_digest, reader) == digest(ScanReader(store))


def test_a_forked_child_checks_for_itself(store, tmp_path):
    """What a parent has checked before the fork counts for nothing in its child."""
    copy = tmp_path / store.name
    shutil.copytree(store, copy)
    reader = ScanReader(copy)
    digest(reader)
    with (copy / "image/c/0/0/0").open("r+b") as shard:  # in place: the parent's mapping sees it
        shard.seek(100)
        byte = shard.read(1)[0]
        shard.seek(100)
        shard.write(bytes([byte ^ 1]))

    assert isinstance(in_child("fork", send_error, reader), ChunkCorrupt)


def test_errors_come_out_of_a_child(store, tmp_path):
    """A damaged chunk met in a child arrives in the parent as it was raised."""
    copy = tmp_path / store.name
    shutil.copytree(store, copy)
    shard = copy / "image/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)

    error = in_child("fork", send_error, ScanReader(copy))

    assert isinstance(error, ChunkCorrupt)
    assert "verse999" in str(error)


def test_a_pickled_reader_holds_a_path_and_nothing_else(store):
    """Pickling an open reader takes no handle along."""
    reader = ScanReader(store)
    digest(reader)

    content = pickle.dumps(reader)
    copy = pickle.loads(content)  # noqa: TID251 - our own bytes

    assert len(content) < 600
    assert digest(copy) == digest(reader)
    assert copy.path == reader.path


def test_threads_read_the_same(store):
    """Eight threads that open and read at once agree."""
    close_all()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: digest(ScanReader(store)), range(32)))
    assert len(found) == 1


def test_a_reader_opens_nothing_before_it_is_asked(tmp_path):
    """Making a reader touches no file: a dataset may hold hundreds."""
    reader = ScanReader(tmp_path / "not there")
    assert repr(reader) == f"ScanReader({str(tmp_path / 'not there')!r})"


def open_files(folder: Path) -> list[str]:
    """Return which files below `folder` this process holds descriptors of."""
    held = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            held.append(str(link.readlink()))
    return [path for path in held if path.startswith(str(folder))]


def test_open_scans_are_few_and_hold_no_descriptor(store, tmp_path, monkeypatch):
    """The scan used longest ago is dropped beyond the capacity, and none keeps a file open."""
    few = lru_cache(3)(handles._opened.__wrapped__)
    assert handles._opened.cache_parameters()["maxsize"] == handles.CAPACITY
    monkeypatch.setattr(handles, "_opened", few)
    readers = []
    for number in range(5):
        copy = tmp_path / str(number) / store.name
        shutil.copytree(store, copy)
        readers.append(ScanReader(copy))
    for reader in readers:
        digest(reader)

    assert open_files(tmp_path) == []
    assert few.cache_info().currsize == 3
    first = opened(readers[2].path)
    digest(readers[0])
    assert opened(readers[2].path) is first
    close_all()
    assert few.cache_info().currsize == 0


def test_opening_at_once_opens_the_same(store):
    """Two threads that open one scan at the same time both get a scan that reads."""
    close_all()
    barrier = threading.Barrier(2)

    def work() -> str:
        barrier.wait()
        return digest(ScanReader(store))

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(work) for _ in range(2)]
        assert len({one.result() for one in both}) == 1
