"""A folder that an export writes: files of the release as links or copies, texts, all or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verse_data.errors import UsageError, counted
from verse_data.files import publish_folder, staging, storage_errors
from verse_data.problems import shown
from verse_data.progress import spell_bytes
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role


@dataclass(frozen=True, kw_only=True)
class Written:
    """What an export has written, or would write in a dry run.

    Attributes
    ----------
    path : Path
        The folder.
    scans : tuple of str
        Ids of the scans in it.
    left_out : dict
        Why each other scan is left out, by its id.
    nbytes : int
        Bytes that it takes; links take none.
    dry_run : bool
        Whether nothing was written.
    """

    path: Path
    scans: tuple[str, ...]
    left_out: Mapping[str, str]
    nbytes: int
    dry_run: bool = False

    def __str__(self) -> str:
        """Return a summary in a few lines."""
        did = "Would write" if self.dry_run else "Wrote"
        head = (
            f"{did} {self.path} ({spell_bytes(self.nbytes)}): {counted(len(self.scans), 'scan')}."
        )
        why = [f"{scan_id}: {reason}" for scan_id, reason in self.left_out.items()]
        return "\n".join([head, *(["Left out:"] if why else []), *shown(why, indent="  ")])


@dataclass
class Plan:
    """The files of the folder, by path: those of the release, and bytes."""

    release: Any
    copy: bool
    taken: dict[str, tuple[str, Role, LockedFile]] = field(default_factory=dict)
    made: dict[str, bytes] = field(default_factory=dict)

    def take(self, path: str, scan_id: str, role: Role) -> None:
        """Put a file of a scan at `path`."""
        if path in self.taken:
            raise UsageError(
                f"{scan_id} and {self.taken[path][0]} would both be {path}. Export one of them, or "
                f"lock the release with other labels."
            )
        self.taken[path] = (scan_id, role, self.release.series[scan_id].files[role])

    def write(self, path: str, content: str | bytes | Mapping[str, Any]) -> None:
        """Put text or JSON at `path`."""
        if isinstance(content, Mapping):
            content = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        self.made[path] = content.encode() if isinstance(content, str) else content

    @property
    def nbytes(self) -> int:
        """Bytes that the folder takes."""
        copied = sum(file.size for *_, file in self.taken.values()) if self.copy else 0
        return copied + sum(map(len, self.made.values()))

    def publish(self, folder: Path) -> None:
        """Write the folder, complete or not at all."""
        with staging(folder, needed=self.nbytes) as staged, storage_errors(folder):
            for path, (scan_id, role, _) in self.taken.items():
                target, source = staged / path, self.release.path(scan_id, role)
                target.parent.mkdir(parents=True, exist_ok=True)
                if self.copy:
                    shutil.copyfile(source, target)
                else:
                    target.symlink_to(source.absolute())
            for path, content in self.made.items():
                (staged / path).parent.mkdir(parents=True, exist_ok=True)
                (staged / path).write_bytes(content)
            if not publish_folder(staged, folder):
                raise exists(folder)


def exists(folder: Path) -> UsageError:
    """Return the error for a folder that is there already."""
    return UsageError(f"{folder} exists, and is not replaced. Name another folder, or remove it.")


def complete(release: Any) -> tuple[list[str], dict[str, str]]:
    """Return the scans that have a CT and a mask, and why others are left out."""
    lacking = {
        scan_id: f"the release lists no {' and no '.join(roles)} of it"
        for scan_id, scan in release.series.items()
        if (roles := [role for role in ("ct", "mask") if role not in scan.files])
    }
    chosen = [scan_id for scan_id in release.series if scan_id not in lacking]
    if not chosen:
        raise UsageError(f"{release.name} {release.version} has no scan with both CT and mask.")
    return chosen, lacking
