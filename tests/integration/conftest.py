"""Fixtures of tests in a browser, and of a phantom that the explorer serves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import verse_data as vd
from tests.support.browser import CHROMIUM, FLAGS
from verse_data import phantom
from verse_data.api import lock_tree
from verse_data.explorer.server import Server


# Of a module, not of the session: Playwright holds an event loop, which other tests start themselves.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of a module; without one, they are skipped."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="tests in a browser need playwright: pip install playwright"
    )
    if not CHROMIUM:
        pytest.skip("tests in a browser need chromium: apt install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with a small phantom, which the tests of a module share."""
    folder = tmp_path_factory.mktemp("explored")
    tree = phantom.write(folder / "tree", n_subjects=4, shape=(64, 128, 44))
    lock_tree("phantom", tree, root=folder)
    return folder


@pytest.fixture(scope="module")
def explorer(explored: Path) -> Iterator[Server]:
    """The explorer's server of it."""
    server = Server(vd.open_release("phantom", root=explored))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
