"""What axe-core says of a page in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def axe_violations(page: Any) -> list[tuple[str, list[str]]]:
    """Return each rule that a page breaks, with the first elements that do."""
    axe = pytest.importorskip(
        "axe_playwright_python.base", reason="axe-core: pip install axe-playwright-python"
    )
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found]
