"""Drill 2, the download's half: let the n-th call to the file system fail, for every n."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from osf_standin import FakeClock, Node, OsfStandin

from verse_data.config import Config
from verse_data.errors import StorageError
from verse_data.records.lock import LockedFile
from verse_data.releases.annex import ObjectStore
from verse_data.releases.fetch import FetchResult, fetch_each
from verse_data.releases.osf import walk_node

CALLS = ("rename", "replace", "unlink", "mkdir", "chmod", "fsync", "stat", "lstat")
ERRNOS = {
    "full": errno.ENOSPC,
    "broken": errno.EIO,
    "forbidden": errno.EACCES,
    "quota": errno.EDQUOT,
    "signal": errno.EINTR,
}


class Failing:
    """Counts the calls to the file system below one folder, and fails one of them."""

    def __init__(self, folder: Path, number: int, code: int) -> None:
        self._folder = str(folder)
        self._number = number
        self._code = code
        self.calls = 0

    def count(self, place: object) -> None:
        """Count a call if it is of the folder, and raise if it is its turn."""
        if isinstance(place, int) or str(place).startswith(self._folder):
            self.calls += 1
            if self.calls == self._number:
                raise OSError(self._code, os.strerror(self._code), str(place))

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call`, counted."""

        def counted(place: object, *args: Any, **options: Any) -> Any:
            self.count(place)
            return call(place, *args, **options)

        return counted

    def open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``io.open``, counted, with counted writes of unbuffered files."""

        def counted(place: object, *args: Any, **options: Any) -> Any:
            self.count(place)
            stream = call(place, *args, **options)
            return _Writes(stream, self) if str(place).endswith(".part") else stream

        return counted


class _Writes:
    def __init__(self, stream: Any, failing: Failing) -> None:
        self._stream = stream
        self._failing = failing

    def write(self, data: Any) -> int:
        """Write, counted."""
        self._failing.count(0)
        return int(self._stream.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def failing(folder: Path, number: int, code: int) -> Iterator[Failing]:
    """Let the `number`-th call below `folder` fail."""
    saboteur = Failing(folder, number, code)
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, saboteur.wrap(getattr(os, name)))
        patch.setattr(io, "open", saboteur.open(io.open))
        yield saboteur


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, LockedFile]]:
    """Serve one file."""
    node = Node("jtfa5")
    node.upload("sub-verse004_ct.nii.gz", random.Random(2).randbytes(20_000))
    with OsfStandin(node) as osf:
        home = tmp_path_factory.mktemp("home")
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        (file,) = walk_node("jtfa5", config=config, release="lab", clock=FakeClock()).files
        yield config, file


def get(config: Config, store: ObjectStore, file: LockedFile) -> FetchResult:
    """Fetch one file."""
    results: list[FetchResult] = []
    fetch_each(store, [file], config=config, jobs=1, on_result=results.append)
    return results[0]


@pytest.mark.parametrize("kind", ERRNOS)
def test_no_failing_call_leaves_a_wrong_file(
    served: tuple[Config, LockedFile], tmp_path: Path, kind: str
):
    """Whichever call fails, it is a named error or the file is right; the next call succeeds."""
    config, file = served
    failed = 0
    for number in range(1, 200):
        store = ObjectStore(tmp_path / str(number))
        with failing(store.path, number, ERRNOS[kind]) as saboteur:
            try:
                result = get(config, store, file)
            except StorageError:
                result = None
        final = store.object_path(file)
        if result is None or not result.ok:
            failed += 1
            assert result is None or (
                result.error_class and issubclass(result.error_class, StorageError)
            ), result
        else:
            assert final.exists()
        if final.exists():
            assert hashlib.sha256(final.read_bytes()).hexdigest() == file.sha256
        if saboteur.calls < number:
            break
        assert get(config, store, file).ok, number
        assert hashlib.sha256(final.read_bytes()).hexdigest() == file.sha256
    assert number < 199
    assert failed >= 8


def test_control_a_plain_download_leaves_a_wrong_file(
    served: tuple[Config, LockedFile], tmp_path: Path
):
    """The naive way, straight to the final name, leaves half a file when a write fails."""
    config, file = served
    final = tmp_path / "ct.part"
    url = f"{config.osf_site}/download/{file.file_id}/?version=1"
    with failing(tmp_path, 3, errno.ENOSPC), urllib.request.urlopen(url) as response:
        stream = final.open("wb", buffering=0)
        with suppress(OSError):
            while block := response.read(4096):
                stream.write(block)
        stream.close()
    assert 0 < final.stat().st_size < file.size
