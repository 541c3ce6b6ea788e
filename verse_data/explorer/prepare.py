"""Scans made ready to be looked at: found in the cache, or fetched and converted, with progress."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from verse_data.errors import VerseDataError
from verse_data.explorer.cuts import factor_of, levels_at
from verse_data.explorer.facts import Explored
from verse_data.progress import Advance, Unit
from verse_data.spine.geometry import voxel_sizes
from verse_data.volumes.reader import ScanReader, close_all

_AT_ONCE: Final = 2
"""Scans that are converted at the same time; each needs memory of its own."""
_log = logging.getLogger("verse_data.explorer")


@dataclass
class Preparation:
    """One scan on its way into the cache: the stage that it is in, then its reader or its error."""

    stage: str = "Waiting"
    done: int = 0
    total: int = 0
    unit: str = "items"
    started: float = 0.0
    reader: ScanReader | None = None
    error: str = ""

    @contextmanager
    def show(self, stage: str, total: int, unit: Unit) -> Iterator[Advance]:
        """Take down the progress of a stage; a `Progress`."""
        self.stage, self.done, self.total, self.unit = stage, 0, total, unit

        def advance(amount: int) -> None:
            self.done += amount

        yield advance

    def state(self) -> dict[str, Any]:
        """Return the stage, or why it ended, as values for JSON."""
        if self.error:
            return {"state": "failed", "error": self.error}
        return {
            "state": "working",
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "seconds": round(time.monotonic() - self.started, 1),
        }


class Scans:
    """The scans of a release for the page; the first question about one starts its preparation."""

    def __init__(self, release: Explored) -> None:
        self._release = release
        self._known: dict[str, Preparation] = {}
        self._lock, self._turns = threading.Lock(), threading.Semaphore(_AT_ONCE)

    def reader(self, scan_id: str) -> ScanReader | None:
        """Return the reader of a scan, if it is ready."""
        known = self._known.get(scan_id)
        return known.reader if known else None

    def state(self, scan_id: str, *, again: bool = False) -> dict[str, Any]:
        """Return whether a scan is ready, and what is known of it; prepare it if nobody has yet."""
        with self._lock:
            known = self._known.get(scan_id)
            if known is None or (again and (known.reader or known.error)):
                close_all()  # what was repaired meanwhile is another file
                known = self._known[scan_id] = Preparation(started=time.monotonic())
                worker = threading.Thread(target=self._prepare, args=(scan_id, known), daemon=True)
                worker.start()
        if not known.reader:
            return known.state()
        try:
            return describe(known.reader)
        except VerseDataError as error:
            known.reader, known.error = None, str(error)
            return known.state()

    def _prepare(self, scan_id: str, known: Preparation) -> None:
        """Find or build the store of a scan; errors are shown on the page."""
        try:
            with self._turns:
                known.stage = "Opening"
                [store] = self._release.fetch_and_build(
                    [scan_id], workers=1, progress=known.show
                ).values()
                reader = self._release.reader(scan_id, store)
                reader.shape  # noqa: B018 - opens the store, which checks its manifest
            known.reader = reader
        except VerseDataError as error:
            known.error = str(error)
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the page
            _log.exception("scan %s cannot be shown", scan_id)
            known.error = f"Scan {scan_id} cannot be shown: {type(error).__name__}: {error}"


def describe(reader: ScanReader) -> dict[str, Any]:
    """Return grid, labels, and centroids or places in the mask (world mm, RAS+), for JSON."""
    centroids, guessed = levels_at(reader)
    return {
        "state": "ready",
        "fingerprint": reader.fingerprint,
        "shape": list(reader.shape),
        "spacing": [round(size, 3) for size in voxel_sizes(reader.affine)],
        "factor": factor_of(reader.shape),
        "labels": list(reader.labels),
        "centroids": centroids,
        "guessed": guessed,
        "has_label": reader.has_label,
    }
