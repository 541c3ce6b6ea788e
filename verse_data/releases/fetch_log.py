"""The log of fetches: one line of JSON a file, appended, never rewritten.

A content that was removed, or came from this machine's disk, has a line that says just that: what
was fetched before is not what lies here now.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from verse_data import __version__
from verse_data.publishing import storage_errors
from verse_data.releases.fetch import WEB, FetchResult


class FetchLog:
    """The log of one dataset, ``.git/verse-data/fetch-log.jsonl``.

    Parameters
    ----------
    dataset : Path
        Folder of the dataset.
    """

    def __init__(self, dataset: Path) -> None:
        self.path = dataset / ".git" / "verse-data" / "fetch-log.jsonl"

    def append(self, result: FetchResult) -> None:
        """Add what became of one file; addresses hold no credentials."""
        line = {
            "time": _now(),
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
            "engine": "http" if result.source in {None, WEB} else "copy",
            "error": result.error,
            "error_class": result.error_class and result.error_class.__name__,
            "verse_data": __version__,
        }
        self._write([line])

    def note(self, event: Literal["dropped", "adopted"], keys: Iterable[str]) -> None:
        """Add that the contents of `keys` left this machine, or came from its own disk."""
        time = _now()
        if lines := [{"time": time, "key": key, "event": event} for key in keys]:
            self._write(lines)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        data = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write to a file that was opened for appending: lines of two processes do not mix.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path, flags, 0o644)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def last_fetches(self) -> dict[str, dict[str, Any]]:
        """Return by key the line of the fetch that brought the content that lies here, where known."""
        last: dict[str, dict[str, Any]] = {}
        for line in self.read():
            if line.get("event"):
                last.pop(str(line.get("key")), None)
            elif line.get("ok") and (line.get("bytes") or line.get("sibling_bytes")):
                last[str(line.get("key"))] = line
        return last

    def read(self) -> list[dict[str, Any]]:
        """Return all lines, oldest first; what is no line, such as one that a kill cut short, is left out."""
        try:
            if not stat.S_ISREG(self.path.lstat().st_mode):
                return []
            lines = self.path.read_bytes().split(b"\n")
        except OSError:
            return []
        return [line for text in lines if (line := _parsed(text)) is not None]


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
