"""What OSF's two listings say of folders, files and components, in our words."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from verse_data.errors import NotTheFile, SourceChanged
from verse_data.records.base import rule_of
from verse_data.releases.urls import shown

_ID: Final = re.compile(r"[0-9a-f]{24}")
_Model = TypeVar("_Model", bound=BaseModel)


class Entry(BaseModel):
    """One file or folder of a listing.

    Attributes
    ----------
    id : str
        Permanent id, 24 hex digits; not the guid, which comes and goes.
    kind : {"file", "folder"}
    name : str
    size, version, md5, sha256
        Of a file's newest version; None for a folder, digests also where OSF knows none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str
    kind: Literal["file", "folder"]
    name: str
    size: int | None = None
    version: int | None = None
    md5: str | None = None
    sha256: str | None = None


class _Foreign(BaseModel):
    """What another party's server says: unknown fields are its own business."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Hashes(_Foreign):
    md5: str | None = None
    sha256: str | None = None


class _Extra(_Foreign):
    hashes: _Hashes | None = None
    version: int | None = None


class _Attributes(_Foreign):
    kind: Literal["file", "folder"]
    name: str
    path: str
    size: int | None = None
    current_version: int | None = None
    extra: _Extra | None = None


class _Links(_Foreign):
    upload: str | None = None
    move: str | None = None
    delete: str | None = None


class Row(_Foreign):
    """One row of a listing of a folder, of either route."""

    attributes: _Attributes
    links: _Links = Field(default_factory=_Links)

    def entry(self) -> Entry:
        """Return the row in our words."""
        told, identity = self.attributes, self.attributes.path.strip("/")
        if not _ID.fullmatch(identity):
            raise ValueError(f"path {told.path!r} of {told.name!r} holds no id of 24 hex digits")
        if told.kind == "folder":
            return Entry(id=identity, kind="folder", name=told.name)
        extra = told.extra or _Extra()
        hashes = extra.hashes or _Hashes()
        version = told.current_version if told.current_version is not None else extra.version
        return Entry(
            id=identity,
            kind="file",
            name=told.name,
            size=told.size,
            version=version,
            md5=hashes.md5,
            sha256=hashes.sha256,
        )


class _PageMeta(_Foreign):
    total: int | None = None


class _PageLinks(_Foreign):
    next: str | None = None
    meta: _PageMeta = Field(default_factory=_PageMeta)


class Page(_Foreign):
    """A page of the API, or a whole listing of WaterButler."""

    data: list[Any]
    links: _PageLinks = Field(default_factory=_PageLinks)
    meta: _PageMeta = Field(default_factory=_PageMeta)

    @property
    def total(self) -> int | None:
        """Entries in all pages; API 2.0 and 2.1 say it in different places."""
        return self.links.meta.total if self.links.meta.total is not None else self.meta.total


class _NodeAttributes(_Foreign):
    title: str


class NodeRow(_Foreign):
    """One row of a listing of components."""

    id: str
    attributes: _NodeAttributes


class Child(BaseModel):
    """A component of a node."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    node: str
    title: str


def entries_of(rows: list[Any], url: str) -> list[Entry]:
    """Return the rows of one folder as entries, sorted by name.

    Raises
    ------
    NotTheFile
        If they are no listing.
    SourceChanged
        If an entry occurs twice, as it does when pages shift between two requests.
    """
    try:
        entries = [parsed(Row, row, url).entry() for row in rows]
    except ValueError as error:
        raise NotTheFile(f"{shown(url)}: not a listing of OSF: {error}.") from error
    for what in ([entry.id for entry in entries], [entry.name for entry in entries]):
        if len(set(what)) < len(what):
            raise SourceChanged(
                f"{shown(url)}: an entry is listed twice, so the listing changed while it was read. "
                f"Run the same command again."
            )
    return sorted(entries, key=lambda entry: entry.name)


def parsed(model: type[_Model], value: Any, url: str) -> _Model:
    """Return `value` as `model`; `NotTheFile` names `url` and the field that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise NotTheFile(
            f"{shown(url)}: not a listing of OSF: {where}: {rule_of(first)}. Check the endpoint "
            f"({urlsplit(url).netloc}), or try again later."
        ) from error
