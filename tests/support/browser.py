"""A page in a real Chromium, with what it asks for and what its console says."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# WebGL2 without a GPU, by SwiftShader.
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]


class Tab:
    """A tab, with what it has asked for and what its console has said."""

    def __init__(self, context: Any, address: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def _note(self, message: Any) -> None:
        if message.type in {"error", "warning"} and "GPU stall" not in message.text:
            self.said.append(message.text)

    def ask(self, expression: str) -> Any:
        """Return the value of an expression; the page itself may evaluate no texts."""
        return self.page.evaluate(expression)

    def until(self, expression: str, seconds: float = 15) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.ask(expression):
            assert time.monotonic() < end, f"{expression}: {self.page.inner_text('body')[-600:]}"
            self.page.wait_for_timeout(30)


def axe_violations(page: Any) -> list[tuple[str, list[str]]]:
    """Return each rule of axe-core that a page breaks, with the first elements that do."""
    axe = pytest.importorskip(
        "axe_playwright_python.base", reason="axe-core: pip install axe-playwright-python"
    )
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found]
