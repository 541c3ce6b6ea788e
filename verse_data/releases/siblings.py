"""Siblings in folders of this machine: contents that another clone or a RIA store has, read as files.

The folders are the remotes of a clone. git and git-annex are never run in one, for they would act on
its configuration; a content is found by its key, copied, and counts when its digest is the locked one.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from verse_data.files import digest_file
from verse_data.records.keys import object_path, other_object_path
from verse_data.records.lock import LockedFile
from verse_data.releases.git_objects import read_config

_RIA: Final = "ria-layout-version"


@dataclass(frozen=True)
class Sibling:
    """Another folder with contents of a release.

    Attributes
    ----------
    name : str
        The remote's name.
    git_folder : Path
        Its ``.git``; the folder itself if the sibling is bare, as in a RIA store.
    """

    name: str
    git_folder: Path

    def find(self, file: LockedFile) -> Path | None:
        """Return where the sibling has something of the name and size of `file`; None if it has not."""
        for layout in (object_path, other_object_path):
            path = self.git_folder / layout(file.annex_key).removeprefix(".git/")
            try:
                facts = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode) and facts.st_size == file.size:
                return path
        return None

    def has(self, file: LockedFile, *, excluding: Path) -> bool:
        """Whether the sibling has the right content of `file`, in another file than `excluding`."""
        path = self.find(file)
        return (
            path is not None
            and not path.samefile(excluding)  # the same folder, mounted or linked; or a hard link
            and digest_file(path).sha256 == file.sha256
        )


def siblings(repository: Path) -> tuple[Sibling, ...]:
    """Return the remotes of a clone that are folders here, by name; none of them is asked or opened.

    A remote with ``annex-ignore`` is left out, but for the git side of a RIA store: DataLad sets it
    there because the contents, which lie in the same folder, belong to another remote.
    """
    found = dict(read_config(repository))
    return tuple(
        Sibling(name, folder)
        for name, url in _urls(found)
        if (folder := _git_folder(repository, url)) is not None
        and (found.get(f"remote.{name}.annex-ignore") != "true" or (folder / _RIA).exists())
    )


def _urls(found: dict[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in sorted(found.items()):
        if key.startswith("remote.") and key.endswith(".url"):
            yield key.removeprefix("remote.").removesuffix(".url"), value


def _git_folder(repository: Path, url: str) -> Path | None:
    if "://" in url.removeprefix("file://"):
        return None
    place = repository / (
        unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    )
    for folder in (place / ".git", place):
        if (folder / "annex" / "objects").is_dir():
            return folder
    return None
