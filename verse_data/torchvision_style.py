"""`VerSeDataset`: the signature that users of torchvision and torchgeo expect."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from verse_data.api import load_split, open_release
from verse_data.errors import IntegrityError, UsageError
from verse_data.release.checks import verify
from verse_data.release.opening import release_names
from verse_data.releases.commands import command, unless_newest
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
        Whether what is missing may be fetched. If not, no socket is opened.
    checksum : bool
        Whether every file of the split is hashed and held against the lock first.
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
        if checksum:
            names = release_names(release)
            version = options.get("version")
            if version is None or len(names) == 1:  # else load_split refuses
                for name in names:
                    _check(split, name, version, root=root, offline=offline)
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


def _check(
    split: str,
    name: str,
    version: str | None,
    *,
    root: str | os.PathLike[str] | None,
    offline: bool | None,
) -> None:
    release = open_release(name, version=version, root=root, offline=offline)
    ids = [scan_id for scan_id, scan in release.series.items() if scan.split == split]
    release.fetch(ids)
    found = verify(release.files, release.version, release.index, level="hash", scan_ids=ids)
    if found:
        listed = "\n  ".join(str(finding) for finding in found[:_SHOWN])
        message = (
            f"{len(found)} files of {name} {release.version} {split} are not what was locked:\n  {listed}\n"
            f"Get them again: {command(release.files, 'get', version=unless_newest(release.files, version))}"
        )
        raise IntegrityError(message)
