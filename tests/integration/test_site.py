"""The documentation site, as ``make docs`` has built it, in a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="tests in a browser need playwright: pip install playwright"
)
pytestmark = [
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no site yet: make docs"),
    pytest.mark.skipif(
        not CHROMIUM, reason="tests in a browser need chromium: apt install chromium"
    ),
]
SEEN = [
    ("index", 1280, "dark"),
    ("index", 390, "light"),
    ("tutorials/fracture-grader", 1280, "light"),
    ("tutorials/fracture-grader", 390, "dark"),
    ("reference/generated/api-export", 1280, "light"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of this module."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(("page", "width", "scheme"), SEEN)
def test_a_page_is_accessible(browser: Any, page: str, width: int, scheme: str) -> None:
    """Axe-core finds nothing, a telephone need not scroll sideways, and nothing comes from a network."""
    axe = pytest.importorskip(
        "axe_playwright_python.base", reason="axe-core: pip install axe-playwright-python"
    )
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    tab = context.new_page()
    tab.goto((SITE / f"{page}.html").as_uri())
    tab.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text())
    found = tab.evaluate("axe.run()")["violations"]
    wide = tab.evaluate("document.documentElement.scrollWidth")
    levels = tab.evaluate("[...document.querySelectorAll('main h1')].length")
    context.close()

    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    assert wide <= width
    assert levels == 1
    assert [url for url in asked if url.startswith("http")] == []
