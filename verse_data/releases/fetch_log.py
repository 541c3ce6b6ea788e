"""The log of fetches: one line of JSON a file, appended, never rewritten."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verse_data import __version__
from verse_data.publishing import storage_errors
from verse_data.releases.fetch import FetchResult


class FetchLog:
    """The log of one dataset, ``.git/verse-data/fetch-log.jsonl``.

    Parameters
    ----------
    dataset : Path
        Folder of the dataset.
    """

    def __init__(self, dataset: Path) -> None:
        self.path = dataset / ".git" / "verse-data" / "fetch-log.jsonl"

    def append(self, result: FetchResult, *, engine: str) -> None:
        """Add what became of one file; addresses hold no credentials."""
        line = {
            "time": datetime.now(tz=UTC).isoformat(timespec="seconds"),
            "path": result.file.path,
            "key": result.file.annex_key,
            "ok": result.ok,
            "verified": result.ok,
            "source": result.source,
            "url": result.url,
            "bytes": result.bytes,
            "sibling_bytes": result.sibling_bytes,
            "tries": result.tries,
            "seconds": round(result.seconds, 3),
            "engine": engine,
            "error": result.error,
            "error_class": result.error_class and result.error_class.__name__,
            "verse_data": __version__,
        }
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write to a file that was opened for appending: lines of two processes do not mix.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        """Return all lines, oldest first; a line that a kill cut short is left out."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [line for text in lines if (line := _parsed(text)) is not None]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
