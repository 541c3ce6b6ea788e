"""The page of a report in a real Chromium: legible, accessible, and sufficient to itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import workbooks
from tests.support.browser import axe_violations
from tests.support.workbooks import row
from verse_data import phantom
from verse_data.api import lock_tree
from verse_data.releases.catalog import load_catalog
from verse_data.tables.grading import read_grading
from verse_data.views.report import make

LEAST_PIXELS = 11
SIZES = """[...document.querySelectorAll("svg")].map((svg) =>
  parseFloat(getComputedStyle(svg).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"""

GAPS = """[...document.querySelectorAll("svg")].map((svg) => svg.getBBox().y - svg.viewBox.baseVal.y)"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page that describes a whole release, and one that compares a workbook with the published."""
    home = tmp_path_factory.mktemp("report")
    tree = phantom.write(home / "tree", n_subjects=4, shape=(32, 64, 24))
    described = lock_tree("phantom", tree, root=home).report()
    grading = read_grading(workbooks.write_csv(home / "grades.csv", [row(4), row(5), row(6)]))
    about = {"release": "verse19", "workbook": "grades.csv"}
    compared = make("verse19", load_catalog("verse19"), grading=grading, about=about)
    return {
        "described": described.write(home / "described.html"),
        "compared": compared.write(home / "compared.html"),
    }


@pytest.fixture(params=["light", "dark"])
def narrow(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A tab 500 pixels wide in a colour scheme; nothing was wrong with what it has shown."""
    context = browser.new_context(
        viewport={"width": 500, "height": 800}, color_scheme=request.param, offline=True
    )
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: asked.append(one.url))
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.url]
    context.close()


@pytest.mark.parametrize("name", ["described", "compared"])
def test_a_report_is_legible_for_everyone(narrow: Any, pages: dict[str, Path], name: str) -> None:
    """Axe-core finds nothing, figures have words of 11 pixels, no blank top, and only they scroll."""
    narrow.goto(pages[name].as_uri())

    assert axe_violations(narrow) == []
    assert min(narrow.evaluate(SIZES)) >= LEAST_PIXELS
    assert max(narrow.evaluate(GAPS)) < 12
    assert narrow.evaluate("document.documentElement.scrollWidth") == 500
