"""The commands that mend a release, as they are typed for exactly this dataset and version."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verse_data import config as configuration
from verse_data.records.names import parse_path

if TYPE_CHECKING:
    from verse_data.records.lock import LockedFile
    from verse_data.releases.repository import Repository
    from verse_data.releases.siblings import Sibling


def command(
    dataset: Repository | Path,
    verb: str,
    *words: str,
    version: str | None = None,
    note: str = "",
) -> str:
    """Return ``verse-data VERB RELEASE WORDS...`` with the options that it needs to fit.

    ``--root`` is there if the dataset, or the folder of one, does not lie where the environment says.
    `note` becomes a comment, so that the line can be pasted.
    """
    path = dataset if isinstance(dataset, Path) else dataset.path
    parts = ["verse-data", verb, path.name, *words]
    if version is not None:
        parts += ["--version", version]
    elsewhere = path != configuration.resolve().release(path.name)
    if path.parent.name == "releases" and elsewhere:
        parts += ["--root", shlex.quote(str(path.parent.parent))]
    return " ".join(parts) + (f"  # {note}" if note else "")


def bring(
    dataset: Repository,
    file: LockedFile,
    *,
    version: str | None = None,
    damaged: bool = False,
    siblings: Sequence[Sibling] = (),
    narrow: bool = False,
) -> str:
    """Return what brings a content that is not here, or replaces a `damaged` one.

    `siblings` are those that may have what has no address; `narrow` asks for this file's scan and
    role alone.
    """
    # No git is asked, as this is made for every file that is read.
    name, words = parse_path(file.path), list[str]()
    if narrow and name:
        words = ["--scan", name.scan_id] if name.role != "grading" else []
        words += ["--role", name.role]
    line, note = command(dataset, "get", *words, version=version), "it has no address"
    if not dataset.addresses(file):
        places = ", ".join(sibling.name for sibling in siblings)
        note += f"; {places} may have it" if places else ""
        adopt = command(dataset, "adopt", "PATH", version=version, note=note)
        line = f"{line} || {adopt}" if places else adopt
    return (
        f"{command(dataset, 'drop', '--corrupt', version=version)} && {line}" if damaged else line
    )


def unless_newest(dataset: Repository, version: str | None) -> str | None:
    """Return `version`, or None if it is the one that commands mean by themselves."""
    return None if version is None or version == dataset.resolve() else version
