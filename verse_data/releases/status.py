"""What of a version is on this machine, counted by split and role."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verse_data.records.lock import LockedFile
from verse_data.records.names import parse_path, split_of

if TYPE_CHECKING:
    from verse_data.releases.repository import Repository


@dataclass(frozen=True, kw_only=True)
class Share:
    """Files of one split (empty where none is named) and role (else ``other``): locked, and here."""

    split: str
    role: str
    files: int
    here: int
    bytes: int
    bytes_here: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """What of one version is on this machine."""

    release: str
    version: str
    versions: tuple[str, ...]
    commit: str
    lock: str
    path: str
    shares: tuple[Share, ...]
    to_adopt: tuple[str, ...]
    """Files that are not here, and that neither an address nor a sibling may give."""
    interrupted: int
    """Downloads that were begun and not finished; the next ``get`` goes on with them."""

    @property
    def files(self) -> int:
        """Number of locked files."""
        return sum(share.files for share in self.shares)

    @property
    def here(self) -> int:
        """Number of files whose content is here."""
        return sum(share.here for share in self.shares)

    @property
    def bytes_missing(self) -> int:
        """Bytes that are locked and not here."""
        return sum(share.bytes - share.bytes_here for share in self.shares)


def status(dataset: Repository, version: str | None = None) -> Status:
    """Count what is here; nothing is read but the names and sizes of files."""
    name = dataset.resolve(version)
    lock, siblings = dataset.lock(name), dataset.siblings()
    here = {file.path for file in lock.files if dataset.has(file)}
    groups: dict[tuple[str, str], list[LockedFile]] = defaultdict(list)
    for file in lock.files:
        parsed = parse_path(file.path)
        groups[split_of(file.path) or "", parsed.role if parsed else "other"].append(file)
    shares = tuple(
        Share(
            split=split,
            role=role,
            files=len(files),
            here=sum(file.path in here for file in files),
            bytes=sum(file.size for file in files),
            bytes_here=sum(file.size for file in files if file.path in here),
        )
        for (split, role), files in sorted(groups.items())
    )
    unserved = (
        file.path
        for file in lock.files
        if not siblings and file.path not in here and not dataset.addresses(file)
    )
    return Status(
        release=dataset.name,
        version=name,
        versions=dataset.versions(),
        commit=dataset.commit(name),
        lock=f"sha256:{lock.digest}",
        path=str(dataset.path),
        shares=shares,
        to_adopt=tuple(unserved),
        interrupted=len(list(dataset.store.incoming.glob("*.part"))),
    )
