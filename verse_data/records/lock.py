"""A release lock: every file of one version of a release, with size and digest.

A lock holds no time, no user and no machine: two labs that lock the same bytes from the same
source get the same digest, and from it the same commit id.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from verse_data.errors import ValidationFailed
from verse_data.files import canonical_json
from verse_data.records.base import Record, read_json, rules_of
from verse_data.records.source_file import annex_key

SCHEMA_VERSION: Final = "1.0.0"
_RELEASE: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_LIMIT_BYTES: Final = 64 << 20
_GIT: Final = {".git", "git~1"}  # as old Windows shortens it; git checks out neither
_RESERVED: Final = {".git", ".gitattributes", ".gitmodules", ".datalad", ".verse"}

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
OsfId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{1,64}$")]
"""An id becomes part of a URL, so it holds no character with a meaning there."""
ReleaseName = Annotated[str, StringConstraints(pattern=_RELEASE)]


def is_release_name(name: str) -> bool:
    """Return whether `name` can be the name of a release, and of its folder."""
    return re.fullmatch(_RELEASE, name) is not None


def check_path(path: str) -> str:
    """Return `path` if it is a safe relative path of a release, else raise ValueError."""
    parts, data = path.split("/"), path.encode(errors="replace")
    if any(part in {"", ".", ".."} for part in parts):
        message = "is not a plain relative path"
    elif any("\ud800" <= letter <= "\udfff" for letter in path):
        message = "is not UTF-8"
    elif len(data) > 1000 or any(len(part) > 255 for part in data.split(b"/")):
        message = "is longer than file systems take: 255 bytes a name, and 1,000 in all"
    elif "\\" in path or any(unicodedata.category(letter) == "Cc" for letter in path):
        message = "holds a backslash or a control character"
    elif any(part.casefold() in _GIT for part in parts) or parts[0].casefold() in _RESERVED:
        message = "is a name reserved for git or the dataset"
    else:
        return path
    raise ValueError(f"{path!r} {message}")


def by_folded_name(paths: Iterable[str]) -> dict[str, str]:
    """Return each path without case and dots or blanks at ends; ValueError if two are the same."""
    folded: dict[str, str] = {}
    for path in paths:
        name = re.sub(r"[. ]+(?=/|$)", "", unicodedata.normalize("NFC", path).casefold())
        if name in folded:
            raise ValueError(
                f"{path!r} and {folded[name]!r} are the same name on some file systems"
            )
        folded[name] = path
    return folded


def _check_url(url: str) -> str:
    if re.fullmatch(r"https?://[!-~]+", url):
        return url
    # Without the address, which may hold a password.
    raise ValueError("is not an http or https address without blanks")


class LockedFile(Record):
    """One file of a release.

    Attributes
    ----------
    path : str
        Where the file lies, relative to the root of the release, with ``/``.
    size : int
        Bytes.
    sha256, md5 : str
        Lower-case hex digests; md5 where the source tells it.
    node, file_id, file_version
        OSF's names of the node, the file and the pinned version of it.
    urls : tuple of str
        Addresses that give exactly these bytes.
    """

    path: Annotated[str, AfterValidator(check_path)]
    size: Annotated[int, Field(ge=0, json_schema_extra={"unit": "byte"})]
    sha256: Sha256
    md5: Md5 | None = None
    node: OsfId | None = None
    file_id: OsfId | None = None
    file_version: Annotated[int, Field(ge=1)] | None = None
    urls: tuple[Annotated[str, AfterValidator(_check_url)], ...] = ()

    @cached_property
    def annex_key(self) -> str:
        """git-annex's name of the content."""
        return annex_key(self.path, size=self.size, sha256=self.sha256)


class LockSource(Record):
    """Where a lock was made from: a local tree, or a node of the Open Science Framework.

    Attributes
    ----------
    kind : {"tree", "osf"}
        Which of the two.
    node : str or None
        The node's id.
    """

    kind: Literal["tree", "osf"]
    node: OsfId | None = None


class ReleaseLock(Record):
    """All files of one version of a release, sorted by path.

    Attributes
    ----------
    schema_version : str
        Version of this model.
    release : str
        Name of the release.
    source : LockSource
        Where the files were listed.
    files : tuple of LockedFile
        Every file, sorted by path.
    """

    schema_version: Literal["1.0.0"] = SCHEMA_VERSION
    release: ReleaseName
    source: LockSource
    files: tuple[LockedFile, ...]

    @model_validator(mode="after")
    def _paths_fit_into_one_tree(self) -> ReleaseLock:
        paths = [file.path for file in self.files]
        if paths != sorted(paths):
            raise ValueError("files are not sorted by path")
        seen = by_folded_name(paths)
        for folded, path in seen.items():
            above = folded
            while "/" in above:
                above = above.rpartition("/")[0]
                if above in seen:
                    raise ValueError(f"{seen[above]!r} is a file and the folder of {path!r}")
        return self

    def __repr__(self) -> str:
        where = self.source.node or "a tree"
        return (
            f"<ReleaseLock of {self.release}: {len(self.files):,} files, {self.total_bytes:,} bytes, from "
            f"{where}, {self.pin}>"
        )

    def __str__(self) -> str:
        """Return a summary in one line; the files are in ``files`` and ``by_path``."""
        return repr(self)

    def canonical(self) -> bytes:
        """Return the lock as canonical JSON, the form that is hashed for the digest."""
        return canonical_json(self.model_dump(mode="json"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical form."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @property
    def pin(self) -> str:
        """The digest as a version is named by it: ``sha256:HEX``."""
        return f"sha256:{self.digest}"

    @cached_property
    def by_path(self) -> dict[str, LockedFile]:
        """Each file under its path."""
        return {file.path: file for file in self.files}

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes of all files."""
        return sum(file.size for file in self.files)

    def content(self) -> frozenset[tuple[str, int, str]]:
        """Return path, size and SHA-256 of each file; versions with equal content are the same."""
        return frozenset((file.path, file.size, file.sha256) for file in self.files)

    @classmethod
    def parse(cls, data: bytes, *, name: str = "lock") -> ReleaseLock:
        """Read a lock from JSON.

        Raises
        ------
        ValidationFailed
            If it is not JSON, repeats a key, has an unknown schema version, or breaks a rule;
            `name` names the file in the message.
        """
        value = read_json(data, name=f"{name}: not a release lock", limit=_LIMIT_BYTES)
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version != SCHEMA_VERSION:
            raise ValidationFailed(
                f"{name}: schema_version is {version!r}, and this package reads {SCHEMA_VERSION!r}. "
                f"Upgrade verse-data, or make the lock again with this one."
            )
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            rules = rules_of(error, joint="\n  ")
            raise ValidationFailed(f"{name}: rules broken:\n  {rules}") from error
