"""Files of single scans that cannot be read: a finding each, and an error for whoever needs the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verse_data.errors import FILE_FAULTS, VerseDataError
from verse_data.problems import SHOWN
from verse_data.tables.findings import Finding


@dataclass(frozen=True)
class BrokenFile:
    """One file of one scan that is here and cannot be read, and why."""

    scan_id: str
    subject_id: str
    path: str
    error: VerseDataError

    def finding(self) -> Finding:
        """Return it as a finding, in one line."""
        return Finding(
            rule="broken-file",
            severity="error",
            scan_id=self.scan_id,
            subject_id=self.subject_id,
            file=self.path,
            message=" ".join(str(self.error).split()),
        )


def raise_broken(broken: Sequence[BrokenFile], *, listing: str) -> None:
    """Raise one error for all of `broken`, of the class that weighs most; return if there are none."""
    if not broken:
        return
    kind = next(
        kind for kind in FILE_FAULTS if any(isinstance(file.error, kind) for file in broken)
    )
    gravest = next(file.error for file in broken if isinstance(file.error, kind))
    more = [f"and {len(broken) - SHOWN} more files"] if len(broken) > SHOWN else []
    then = (
        "Scans whose files are all sound can be used without these: choose them by split or by id. "
        f"All broken files: {listing}"
    )
    lines = [*(str(file.error) for file in broken[:SHOWN]), *more, then]
    raise type(gravest)("\n".join(lines))
