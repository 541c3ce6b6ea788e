"""What changed from one version to another, in scans and roles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import Role, parse_path

Kind = Literal["appeared", "changed", "moved", "disappeared"]
ROLE_WORDS: Final[dict[Role, str]] = {
    "ct": "CT",
    "ct_json": "CT sidecar",
    "mask": "mask",
    "centroids": "centroids",
    "snapshot": "snapshot",
    "grading": "grading workbook",
}
"""What messages call a file of each role."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One file that is not the same in both versions.

    Attributes
    ----------
    kind : {"appeared", "changed", "moved", "disappeared"}
        ``"moved"`` is the same content under another path.
    scan_id : str
        The scan that its name tells; empty for files of no scan.
    role : str or None
        What it is of the scan; None where its name fits no role.
    old, new : LockedFile or None
        The file in either version.
    """

    kind: Kind
    scan_id: str
    role: Role | None
    old: LockedFile | None
    new: LockedFile | None

    @property
    def path(self) -> str:
        """Where it lies, in the new version if it is there."""
        file = self.new or self.old
        return file.path if file else ""

    def __str__(self) -> str:
        """Say it in one line: ``mask of verse133 appeared (1,234 bytes)``."""
        what = ROLE_WORDS[self.role] if self.role else "file"
        whose = f" of {self.scan_id}" if self.scan_id else f" {self.path}"
        if self.kind == "moved" and self.old and self.new:
            return f"{what}{whose} moved from {self.old.path} to {self.new.path}"
        if self.old and self.new:
            return f"{what}{whose} changed ({self.old.size:,} to {self.new.size:,} bytes)"
        sizes = [file.size for file in (self.new, self.old) if file]
        return f"{what}{whose} {self.kind} ({sum(sizes):,} bytes)"


def diff_locks(old: ReleaseLock, new: ReleaseLock) -> tuple[Change, ...]:
    """Return every file that differs, sorted by scan and path."""
    before, after = old.by_path, new.by_path
    gone = {path: file for path, file in before.items() if path not in after}
    came = {path: file for path, file in after.items() if path not in before}
    changes = [*_moves(gone, came)]
    changes += [_change("disappeared", file, None) for file in gone.values()]
    changes += [_change("appeared", None, file) for file in came.values()]
    changes += [
        _change("changed", before[path], after[path])
        for path in before.keys() & after.keys()
        if before[path].sha256 != after[path].sha256
    ]
    return tuple(sorted(changes, key=lambda change: (change.scan_id, change.path)))


def _moves(gone: dict[str, LockedFile], came: dict[str, LockedFile]) -> Iterator[Change]:
    """Give the files that only changed their path, and take them out of `gone` and `came`."""
    by_content = {(file.size, file.sha256): path for path, file in gone.items()}
    for path, file in list(came.items()):
        old = by_content.pop((file.size, file.sha256), None)
        if old is not None:
            yield _change("moved", gone.pop(old), came.pop(path))


def _change(kind: Kind, old: LockedFile | None, new: LockedFile | None) -> Change:
    file = new or old
    name = parse_path(file.path) if file else None
    role = name.role if name else None
    scan_id = name.scan_id if name and role != "grading" else ""
    return Change(kind=kind, scan_id=scan_id, role=role, old=old, new=new)
