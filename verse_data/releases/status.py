"""What of a version is on this machine, counted by split and role."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verse_data.records.names import parse_path, split_of

if TYPE_CHECKING:
    from verse_data.releases.dataset import ReleaseDataset


@dataclass(frozen=True, kw_only=True)
class Share:
    """Files of one split and role.

    Attributes
    ----------
    split, role : str
        Empty, and ``other``, where the name tells none.
    files, here : int
        Locked, and on this machine.
    bytes, bytes_here : int
        Their sizes.
    """

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
    """Files that are not here, and that neither an address nor a sibling may give: bring them with
    ``verse-data adopt``."""
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


def status(dataset: ReleaseDataset, version: str | None = None) -> Status:
    """Count what is here; nothing is read but the names and sizes of files."""
    name = dataset.resolve(version)
    lock = dataset.lock(name)
    siblings = dataset.siblings()
    groups: dict[tuple[str, str], list[tuple[int, bool]]] = defaultdict(list)
    for file in lock.files:
        parsed = parse_path(file.path)
        group = (split_of(file.path) or "", parsed.role if parsed else "other")
        groups[group].append((file.size, dataset.has(file)))
    shares = tuple(
        Share(
            split=split,
            role=role,
            files=len(facts),
            here=sum(here for _, here in facts),
            bytes=sum(size for size, _ in facts),
            bytes_here=sum(size for size, here in facts if here),
        )
        for (split, role), facts in sorted(groups.items())
    )
    return Status(
        release=dataset.name,
        version=name,
        versions=dataset.versions(),
        commit=dataset.commit(name),
        lock=f"sha256:{lock.digest}",
        path=str(dataset.path),
        shares=shares,
        to_adopt=tuple(
            file.path
            for file in lock.files
            if not siblings and not dataset.has(file) and not dataset.addresses(file)
        ),
        interrupted=_interrupted(dataset),
    )


def _interrupted(dataset: ReleaseDataset) -> int:
    return len(list(dataset.store.incoming.glob("*.part")))
