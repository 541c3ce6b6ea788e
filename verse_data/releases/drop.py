"""Making room: contents are removed where all files that have them were named, and a copy is elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from verse_data.errors import Offline
from verse_data.records.lock import LockedFile
from verse_data.releases import annex
from verse_data.releases.fetch import FetchLog

if TYPE_CHECKING:
    from verse_data.releases.dataset import ReleaseDataset
    from verse_data.releases.siblings import Sibling

_WORKERS: Final = 8


@dataclass(frozen=True)
class DropReport:
    """What became of one call of ``drop``.

    Attributes
    ----------
    dropped : tuple of LockedFile
        Files whose contents were removed.
    shared, kept : tuple of (LockedFile, str)
        Files whose contents stay, and why: other files have them too; no other copy was found.
    """

    dropped: tuple[LockedFile, ...]
    shared: tuple[tuple[LockedFile, str], ...] = ()
    kept: tuple[tuple[LockedFile, str], ...] = ()

    @property
    def bytes(self) -> int:
        """Room that was made."""
        return sum(file.size for file in {file.annex_key: file for file in self.dropped}.values())


def drop_files(
    dataset: ReleaseDataset,
    files: Sequence[LockedFile],
    *,
    version: str | None = None,
    unchecked: bool = False,
    damaged: bool = False,
) -> DropReport:
    """Remove the contents of `files` from this machine.

    A content goes only if every file that has it is among `files`: those of their own version, and
    those of the newest.

    Parameters
    ----------
    dataset : ReleaseDataset
        Where they are.
    files : sequence of LockedFile
        What is removed; contents that are not here are passed over.
    version : str, optional
        The one that `files` are of. Default: the newest.
    unchecked : bool, default False
        Remove without asking whether they can be had again.
    damaged : bool, default False
        Remove what is known to be damaged: nobody loses anything, so nothing is asked.

    Raises
    ------
    Offline
        If a server has to be asked, and the network is forbidden.
    UnsafeInput
        If the dataset's git configuration is not as this package writes it; nothing was removed.
    """
    here = {file.annex_key: file for file in files if dataset.object_path(file).exists()}
    if not here:
        return DropReport(())
    annex.require_usable(dataset.path)
    shared = {} if damaged else _needed_by_others(dataset, files, version)
    own = [file for key, file in here.items() if key not in shared]
    held = {} if unchecked or damaged else _held_by_siblings(dataset, own)
    asked = [] if unchecked or damaged else [f for f in own if f.annex_key not in held]
    unrecoverable = _not_served(dataset, asked)
    gone = [file for file in own if file.annex_key not in unrecoverable]
    keys = [file.annex_key for file in gone]
    # In this order: what git-annex believes to be here must be here, whenever this is interrupted.
    annex.record_presence(dataset.path, dict.fromkeys(keys, False))
    FetchLog(dataset.path).note("dropped", keys)
    back = [file for file in gone if not _removed(dataset, file, held.get(file.annex_key))]
    annex.record_presence(dataset.path, {file.annex_key: True for file in back})
    for file in back:
        unrecoverable[file.annex_key] = "its other copy, at a sibling, was removed meanwhile"
    gone = [file for file in gone if file not in back]
    return DropReport(
        tuple(gone), shared=_with_reasons(here, shared), kept=_with_reasons(here, unrecoverable)
    )


def _removed(dataset: ReleaseDataset, file: LockedFile, holder: Sibling | None) -> bool:
    """Remove a content; False if the sibling that had it too has removed it meanwhile."""
    return dataset.store.remove(
        file, confirm=lambda: holder is None or holder.find(file) is not None
    )


def _with_reasons(
    here: Mapping[str, LockedFile], reasons: Mapping[str, str]
) -> tuple[tuple[LockedFile, str], ...]:
    return tuple((file, reasons[key]) for key, file in here.items() if key in reasons)


def _needed_by_others(
    dataset: ReleaseDataset, files: Sequence[LockedFile], version: str | None
) -> dict[str, str]:
    """Return by key which files that were not named have the same content."""
    named = {(file.annex_key, file.path) for file in files}
    others: dict[str, dict[str, None]] = defaultdict(dict)
    for lock in (dataset.lock(version), dataset.lock()):
        for file in lock.files:
            if (file.annex_key, file.path) not in named:
                others[file.annex_key][file.path] = None
    return {key: _also_of(list(paths)) for key, paths in others.items()}


def _also_of(paths: Sequence[str]) -> str:
    more = f", and of {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"it is also the content of {paths[0]}, which was not named{more}"


def _held_by_siblings(dataset: ReleaseDataset, files: Sequence[LockedFile]) -> dict[str, Sibling]:
    """Return by key a sibling in a folder that has the content too."""
    return {
        file.annex_key: sibling
        for sibling in dataset.siblings()
        for file in files
        if sibling.has(file, excluding=dataset.object_path(file))
    }


def _not_served(dataset: ReleaseDataset, files: Sequence[LockedFile]) -> dict[str, str]:
    """Return by key why no address gives a content any more; those that one gives are absent."""
    if not files:
        return {}
    if dataset.config.offline:
        raise Offline(
            f"{dataset.name}: whether {len(files)} files can be had again cannot be asked, since the "
            f"network is forbidden (offline). Allow it, or say --unchecked to remove them regardless."
        )
    from verse_data.releases.still_served import StillServed

    urls = [dataset.addresses(file) for file in files]
    # In this order, so that an interruption wakes the threads that wait for a server.
    with ThreadPoolExecutor(_WORKERS) as pool, StillServed(dataset.config) as served:
        refusals = list(pool.map(served.refusal, files, urls))
    return {
        file.annex_key: f"no other copy of it was found: {why}"
        for file, why in zip(files, refusals, strict=True)
        if why is not None
    }
