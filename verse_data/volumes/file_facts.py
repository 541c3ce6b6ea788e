"""Facts of a locked volume, kept as JSON by annex key, and served while its file is unchanged.

Facts are measured in the pass that hashes the file. They are served again without reading it as
long as inode, size and times of the file are those that it had then; if not, it is hashed again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from pydantic import ValidationError

from verse_data.digests import canonical_json, sha256_of_json
from verse_data.errors import StorageError
from verse_data.publishing import write_file
from verse_data.records.base import Record
from verse_data.records.source_file import SourceFile
from verse_data.volumes.nifti import read_header

_SAFE_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,160}")
_STATES: Final = 4
"""Copies of one content that are remembered, such as those of two releases."""
_TICK_NS: Final = 20_000_000
"""Longer than a tick of the clock that file systems take their times from."""


class FileState(Record):
    """What is another after any change of a file: inode, size and times in nanoseconds."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, file: SourceFile) -> Self:
        """Return the state of a file now."""
        facts = file.stat()
        return cls(
            inode=facts.st_ino,
            size=facts.st_size,
            mtime_ns=facts.st_mtime_ns,
            ctime_ns=facts.st_ctime_ns,
        )

    def settle(self) -> None:
        """Wait until a change of the file would show: two within one tick have the same times."""
        if time.time_ns() - self.ctime_ns < _TICK_NS:
            time.sleep(_TICK_NS / 1e9)


class FileFacts(Record):
    """Base of facts of one content.

    Attributes
    ----------
    version : int
        Of this layout; facts of another version are measured again.
    key : str
        Annex key of the content.
    states : tuple of FileState
        Of files whose digest was that of the key, the newest first.
    digest : str
        SHA-256 (hex) of all other fields in canonical JSON, where the facts were kept in a file.
    """

    version: Literal[2] = 2
    key: str = ""
    states: tuple[FileState, ...] = ()
    digest: str = ""

    def sealed(self) -> Self:
        """Return the facts with the digest that they should have."""
        digest = sha256_of_json(self.model_dump(mode="json", exclude={"digest"}))
        return self.model_copy(update={"digest": digest})


class HeaderFacts(FileFacts):
    """What the header of a volume says, once the whole file has been hashed.

    Attributes
    ----------
    shape : (int, int, int)
        Voxels along the file's own axes.
    affine : 4 rows of 4 floats
        Voxel index to world mm, RAS+.
    notes : tuple of str
        What a careful reader should know.
    """

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, float, float, float], ...]
    notes: tuple[str, ...]


Facts = TypeVar("Facts", bound=FileFacts)


def header_facts(file: SourceFile, *, derived: Path | None = None) -> HeaderFacts:
    """Return what the header of a volume says; the file is hashed, and not inflated.

    Parameters
    ----------
    file : SourceFile
        The ``.nii`` or ``.nii.gz``.
    derived : Path, optional
        Folder of derived facts: the file is then hashed once on a machine.

    Raises
    ------
    ContentCorrupt, ContentMissing
        If the file is not the locked one.
    NiftiRefused, VolumeCorrupt
        If the locked bytes are no volume that is read.
    """

    def measure() -> HeaderFacts:
        header = read_header(file.path, name=file.name, sha256=file.sha256)
        rows = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in header.affine)
        return HeaderFacts(key=file.key, shape=header.shape, affine=rows, notes=header.notes)

    return kept_facts(HeaderFacts, file, measure, folder=derived and derived / "header-facts")


def kept_facts(
    kind: type[Facts],
    file: SourceFile,
    measure: Callable[[], Facts],
    *,
    folder: Path | None,
    enough: Callable[[Facts], bool] | None = None,
) -> Facts:
    """Return the facts of `file` that are kept in `folder`, or `measure` them.

    Parameters
    ----------
    kind : type
        Of the facts.
    file : SourceFile
        What they are of.
    measure : callable
        Reads the file, and raises if the bytes that it read do not have the locked digest.
    folder : Path or None
        Where facts are kept; None keeps nothing.
    enough : callable, optional
        Whether kept facts say what is wanted; all do if missing.

    Raises
    ------
    ContentCorrupt, ContentMissing
        If the file is not the locked one.
    """
    place = folder / f"{file.key}.json" if folder and _SAFE_KEY.fullmatch(file.key) else None
    state = FileState.of(file)
    facts = _read(kind, place, file.key)
    states = facts.states if facts else ()
    if facts and enough and not enough(facts):
        facts = None
    if facts and state in states:
        return facts
    if place:
        state.settle()
    # Kept facts of a file that was not seen here may be anybody's: they are measured again.
    with file.checked():
        facts = measure()
    others = [other for other in states if other.inode != state.inode]
    facts = facts.model_copy(update={"states": (state, *others)[:_STATES]}).sealed()
    if place and FileState.of(file) == state:
        # A cache that may not be written, such as a colleague's, costs time and nothing else.
        with suppress(StorageError):
            write_file(place, canonical_json(facts.model_dump(mode="json")))
    return facts


def _read(kind: type[Facts], place: Path | None, key: str) -> Facts | None:
    """Return kept facts of `key`; None if there are none, or they are damaged or of another version."""
    if place is None:
        return None
    try:
        facts = kind.model_validate_json(place.read_bytes())
    except (OSError, ValidationError):
        return None
    return facts if facts.key == key and facts == facts.sealed() else None
