"""The commands that mend a release, as they are typed for exactly this dataset and version."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from verse_data import config as configuration
from verse_data.records.names import parse_path

if TYPE_CHECKING:
    from verse_data.records.lock import LockedFile
    from verse_data.releases.repository import Repository


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


def replacement(dataset: Repository, file: LockedFile, *, version: str | None = None) -> str:
    """Return what replaces a damaged content; no git is asked, as this is made for every file read."""
    drop = command(dataset, "drop", "--corrupt", version=version)
    if dataset.addresses(file):
        return f"{drop} && {command(dataset, 'get', version=version)}"
    bring = command(dataset, "adopt", "PATH", version=version, note="it has no address")
    return f"{drop} && {bring}"


def bring(dataset: Repository, file: LockedFile, *, version: str | None = None) -> str:
    """Return what brings a content that is not here."""
    name = parse_path(file.path)
    if not (dataset.addresses(file) or dataset.siblings()):
        return command(dataset, "adopt", "PATH", version=version, note="it has no address")
    scan = ["--scan", name.scan_id] if name and name.role != "grading" else []
    role = ["--role", name.role] if name else []
    return command(dataset, "get", *scan, *role, version=version)


def unless_newest(dataset: Repository, version: str | None) -> str | None:
    """Return `version`, or None if it is the one that commands mean by themselves."""
    return None if version is None or version == dataset.resolve() else version
