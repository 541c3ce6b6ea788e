"""Provenance records: exactly which bytes a release, a scan or a derived store consists of."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from verse_data import markup
from verse_data.records.base import Record
from verse_data.records.lock import LockSource
from verse_data.records.names import Role
from verse_data.records.overlay import AppliedOverlay

SCHEMA_VERSION: Final = "1.0.0"


class FetchedFrom(Record):
    """How a content came to this machine, out of the fetch log.

    Attributes
    ----------
    time : str
        When it arrived, ISO 8601 in UTC.
    source : str or None
        ``"web"``, or the name of the sibling that gave it; None if that was not told.
    url : str or None
        Address that it came from, without credentials. None if it was a sibling, or one of several
        addresses and git-annex did not say which.
    engine : str
        What fetched it.
    bytes : int
        Bytes that came.
    tries : int
        Tries that it took.
    """

    time: str
    source: str | None = None
    url: str | None
    engine: str
    bytes: int
    tries: int


class FileProvenance(Record):
    """One file: its content by key, and where that can be had.

    Attributes
    ----------
    path, key, size, sha256
        As locked.
    urls : tuple of str
        Addresses that give these bytes, pinned to a version where the host has versions.
    scan_id, role
        What its name says; None for files of no scan.
    here : bool
        Whether the content is on this machine.
    fetched : FetchedFrom or None
        None where it was adopted, or is not here.
    """

    path: str
    key: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    scan_id: str | None
    role: Role | None
    here: bool
    fetched: FetchedFrom | None = None


class Reference(Record):
    """A publication to cite.

    Attributes
    ----------
    text : str
        Authors, title, journal, year.
    doi : str
        DOI without address.
    """

    text: str
    doi: str


class StoreProvenance(Record):
    """The store that was made from a scan: its name is a function of sources and recipe.

    Attributes
    ----------
    fingerprint : str
        Name of the store.
    recipe : dict
        What was done to the volumes.
    """

    fingerprint: str
    recipe: dict[str, Any]


class Provenance(Record):
    """What exactly a release is, or what exactly one scan of it is.

    Attributes
    ----------
    schema_version : str
        Version of this model.
    release, version : str
        Which release this is.
    lock : str
        ``sha256:`` and the digest of the lock: pins every byte.
    commit : str
        Commit of the DataLad dataset; the same on every machine.
    dataset_id : str
        DataLad's id of the dataset.
    source : LockSource
        What the lock was made from.
    title, licence, attribution, doi, citations
        Out of the catalog; licence is an SPDX identifier.
    scan_id : str or None
        The scan that this is about; None for the whole release.
    files : tuple of FileProvenance
        Every file that this is about.
    stores : tuple of StoreProvenance
        Stores made from these files, where the caller knows of any.
    packages : dict
        Versions of this package, and of those that make tables and stores of these files.
    overlays : tuple of AppliedOverlay
        Corrections that lie over the files; without any, JSON does not hold the field.
    """

    schema_version: Literal["1.0.0"] = SCHEMA_VERSION
    release: str
    version: str
    lock: str
    commit: str
    dataset_id: str
    source: LockSource
    title: str
    licence: str | None
    attribution: str | None
    doi: str | None
    citations: tuple[Reference, ...]
    scan_id: str | None
    files: tuple[FileProvenance, ...]
    stores: tuple[StoreProvenance, ...] = ()
    packages: dict[str, str]
    overlays: tuple[AppliedOverlay, ...] = ()

    @model_serializer(mode="wrap")
    def _without_none(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out overlays where there are none, as before there were overlays."""
        written: dict[str, Any] = serialise(self)
        if not self.overlays:
            written.pop("overlays", None)
        return written

    @property
    def pin(self) -> str:
        """Version, lock, commit and overlays in one line: all that decides what was served."""
        overlays = "".join(
            f", overlay {one.name} {one.version} {one.digest}" for one in self.overlays
        )
        return f"{self.version}, lock {self.lock}, commit {self.commit}{overlays}"

    def __repr__(self) -> str:
        scan = f" {self.scan_id}" if self.scan_id else ""
        here = sum(file.here for file in self.files)
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return (
            f"<Provenance of {self.release} {self.version}{scan}: {len(self.files):,} files, {here:,} here\n"
            f"  lock      {self.lock}\n  commit    {self.commit}\n  packages  {packages}>"
        )

    def _repr_html_(self) -> str:
        """Return the same summary for a notebook."""
        here = sum(file.here for file in self.files)
        scan = f" {self.scan_id}" if self.scan_id else ""
        return markup.facts(
            f"Provenance of {self.release} {self.version}{scan}",
            {
                "files": f"{len(self.files):,}, {here:,} here",
                "lock": self.lock,
                "commit": self.commit,
                "overlays": ", ".join(map(str, self.overlays)),
                "source": f"{self.source.kind} {self.source.node or ''}".strip(),
                "licence": self.licence,
                "attribution": self.attribution,
                "packages": ", ".join(f"{name} {one}" for name, one in self.packages.items()),
            },
        )

    def __str__(self) -> str:
        """Return a summary in a few lines; ``model_dump()`` returns all fields."""
        return repr(self)
