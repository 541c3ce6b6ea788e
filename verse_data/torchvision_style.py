"""`VerSeDataset`: the signature that users of torchvision and torchgeo expect."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from verse_data.api import load_split, open_release
from verse_data.errors import IntegrityError, UsageError, counted
from verse_data.progress import Progress
from verse_data.release import Release
from verse_data.release.opening import release_names
from verse_data.training.front import FrontDataset

_SHOWN = 5


class VerSeDataset(FrontDataset):
    """The scans of one published split, as :func:`verse_data.load_split` serves them.

    Parameters
    ----------
    root : path, optional
        One root of releases and stores; default ``VERSE_DATA_HOME``, else the platform's folders.
    split : {"training", "validation", "test"}
        Published membership.
    transforms : callable, optional
        Called with each sample, a ``dict``.
    download : bool
        Whether what is missing may be fetched; if not, no socket is opened. ``VERSE_DATA_OFFLINE=1``
        forbids it all the same.
    checksum : bool
        Whether every file of the split that is on this machine is hashed and held against the lock.
    release : str or sequence of str
        Such as ``"verse19"`` or ``"phantom"``.
    **options
        Further options of :func:`verse_data.load_split`, such as ``unit="patch"``.

    Raises
    ------
    UsageError
        If there is no such release, split or option.
    Offline, ContentMissing
        If files are missing and `download` is false.
    IntegrityError
        If `checksum` finds a file that is not the one that was locked.

    Examples
    --------
    >>> dataset = VerSeDataset("~/data", "validation", download=True)  # doctest: +SKIP
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "training",
        transforms: Callable[[Any], Any] | None = None,
        download: bool = False,  # noqa: FBT001, FBT002 - the order that users know
        checksum: bool = False,  # noqa: FBT001, FBT002
        *,
        release: str | Sequence[str] = "verse19",
        **options: Any,
    ) -> None:
        if "transform" in options or "offline" in options:
            message = "VerSeDataset takes transforms= and download=; transform= and offline= are load_split's."
            raise UsageError(message)
        offline = None if download else True
        serve: Any = load_split  # its overloads know only what is right; it refuses the rest
        served = serve(
            split,
            release=release,
            root=root,
            offline=offline,
            transform=transforms,
            **options,
        )
        super().__init__(served)
        if checksum:
            for name in release_names(release):
                opened = open_release(name, version=options.get("version"), root=root, offline=True)
                _require_unchanged(opened, split, options.get("progress"))


def _require_unchanged(release: Release, split: str, progress: Progress | None) -> None:
    """Raise `IntegrityError` if a file of `split` that is here is not the locked one."""
    ids = [scan_id for scan_id, scan in release.series.items() if scan.split == split]
    checked = release.verify(level="hash", scan_ids=ids, progress=progress)
    changed = [finding for finding in checked if finding.rule != "missing"]
    if changed:
        listed = "\n  ".join(f"{found.path}: {found.message}" for found in changed[:_SHOWN])
        raise IntegrityError(
            f"{counted(len(changed), 'file')} of {release.name} {release.version} {split} "
            f"{'is' if len(changed) == 1 else 'are'} not what was locked:\n  {listed}\n"
            f"Replace them: {changed[0].command}"
        )
