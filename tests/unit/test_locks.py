"""One process at a time, and what is said while another waits."""

from __future__ import annotations

import logging
import os
import threading
import time
from importlib import metadata
from pathlib import Path

import pytest

from verse_data.errors import LockTimeout
from verse_data.locks import key_lock

# filelock before 4.0 empties the file on each try, and the holder's name in it is lost.
NAMED = int(metadata.version("filelock").partition(".")[0]) >= 4
HOLDER = f"process {os.getpid()} on" if NAMED else "another process"


def test_the_holder_is_logged_while_another_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the holder, and the lock comes when it is free."""
    caplog.set_level(logging.INFO, logger="verse_data")
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with key_lock(tmp_path, "a key", timeout=60):
            held.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    threading.Timer(1.2, free.set).start()
    with key_lock(tmp_path, "a key", timeout=60):
        assert free.is_set()
    holder.join()
    assert f"held by {HOLDER}" in caplog.text


@pytest.mark.parametrize(("timeout", "stopped"), [(0.1, ""), (600.0, "stopped")])
def test_a_wait_ends_with_the_holders_name(tmp_path: Path, timeout: float, stopped: str) -> None:
    """After its time, or soon after the work was stopped."""
    with key_lock(tmp_path, "key", timeout=0):
        begin = time.monotonic()
        with (
            pytest.raises(LockTimeout, match=rf"{HOLDER}.* has held it"),
            key_lock(tmp_path, "key", timeout=timeout, stop=lambda: bool(stopped)),
        ):
            pass
    assert time.monotonic() - begin < 60
