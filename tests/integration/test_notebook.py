"""Progress in a notebook, out of a real Jupyter kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from verse_data import api
from verse_data.phantom import write

LOAD = """\
import verse_data as vd
from verse_data.progress import NotebookBars, default

assert type(default()) is NotebookBars
len(vd.load_split("training", release="phantom", progress=NotebookBars(delay=0)))
"""
STEPS = """\
from verse_data.progress import NotebookBars, conclude
show = NotebookBars(delay=0)
try:
    with show("Reading <metadata>", 4, "items") as advance:
        advance(1)
        raise KeyError("broken")
except KeyError:
    pass
"""


class Client(NotebookClient):
    """Runs cells, and keeps what was shown on the way."""

    def __init__(self, *cells: str, folder: Path) -> None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        where = {"metadata": {"path": str(folder)}}
        super().__init__(notebook, timeout=300, kernel_name="python3", resources=where)
        self.shown: list[dict[str, Any]] = []

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in {"display_data", "update_display_data"}:
            self.shown.append(msg["content"]["data"])
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(autouse=True)
def _jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what Jupyter writes out of the home of the person who runs this; let progress be shown."""
    monkeypatch.delenv("VERSE_DATA_PROGRESS")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.mark.slow
def test_a_notebook_shows_load_split_at_work(home: Path, tmp_path: Path) -> None:
    """Bars while it converts; afterwards the cell holds where the stores lie, and no bar."""
    api.lock_tree("phantom", write(tmp_path / "tree", n_subjects=4), root=home)
    client = Client(LOAD, folder=tmp_path)
    client.execute()
    outputs = client.nb.cells[0].outputs
    texts = [data["text/plain"] for data in client.shown]

    assert any(text.startswith("Building the cache: ") for text in texts)
    assert all("<progress" in data["text/html"] for data in client.shown if data["text/plain"])
    assert "".join(o.text for o in outputs if o.output_type == "stream") == (
        f"3 stores at {home / 'stores'}\n"
    )
    assert {o.data["text/plain"] for o in outputs if o.output_type == "display_data"} == {""}
    assert outputs[-1].data["text/plain"] == "3"


def test_an_error_takes_its_bar_away(tmp_path: Path) -> None:
    """What a stage is called is text, and never HTML."""
    client = Client(STEPS, folder=tmp_path)
    client.execute()

    assert client.shown[0]["text/plain"].startswith("Reading <metadata>: ")
    assert "Reading &lt;metadata&gt;" in client.shown[0]["text/html"]
    assert client.shown[-1] == {"text/plain": ""}
