"""``python -m verse_data``: the same as the ``verse-data`` command."""

from __future__ import annotations

from verse_data.cli.main import run

if __name__ == "__main__":
    run()
