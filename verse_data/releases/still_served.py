"""Whether a server still gives the content of a file: a look at one byte of it, not a download."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Self

from verse_data.config import Config
from verse_data.records.lock import LockedFile
from verse_data.releases.answers import Fault
from verse_data.releases.http import Http
from verse_data.releases.pacing import Gate, SystemClock, Window
from verse_data.releases.reach import shown

_PER_HOUR: Final = 3600
_TOTAL: Final = re.compile(r"bytes 0-0/(\d+)")


class StillServed:
    """Asks servers for the first byte of files; use it as a context manager. Safe for threads."""

    def __init__(self, config: Config) -> None:
        clock = SystemClock()
        self._http = Http(config, gate=Gate(clock, (Window(_PER_HOUR, 3600.0, clock),)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def refusal(self, file: LockedFile, urls: Sequence[str]) -> str | None:
        """Return why none of `urls` gives `file`, or None if one does."""
        if not file.size:
            return None  # of nothing, nothing is lost
        reason = "it has no address."
        for url in urls:
            try:
                found = self._size(url)
            except Fault as fault:
                reason = str(fault.error)
            else:
                if found == file.size:
                    return None
                reason = f"{shown(url)} does not offer {file.size:,} bytes any more."
        return reason

    def _size(self, url: str) -> int | None:
        """Return how many bytes an address offers, None if it does not say."""
        with self._http.open(url, headers={"Range": "bytes=0-0"}) as response:
            part = _TOTAL.fullmatch(response.headers.get("Content-Range", "").strip())
            if response.status_code == 206:
                return int(part[1]) if part else None
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isascii() and length.isdigit() else None
