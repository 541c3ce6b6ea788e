"""The provenance of a release or of one scan, put together from lock, dataset, log and catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version as version_of
from typing import Any, Final

from verse_data.errors import UsageError, did_you_mean
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile
from verse_data.records.names import role_of, scan_of
from verse_data.records.provenance import (
    FetchedFrom,
    FileProvenance,
    Provenance,
    Reference,
    StoreProvenance,
)
from verse_data.releases.fetch import FetchLog
from verse_data.releases.history import dataset_id
from verse_data.releases.repository import Repository
from verse_data.releases.urls import redacted

_OF_CATALOG: Final = {"title", "licence", "attribution", "doi"}


def describe(
    repository: Repository,
    version: str | None = None,
    *,
    scan_id: str | None = None,
    catalog: CatalogEntry | None = None,
    stores: Sequence[StoreProvenance] = (),
    scan_ids: Mapping[str, str] | None = None,
) -> Provenance:
    """Return the provenance of a version, or of one scan of it.

    Parameters
    ----------
    repository : Repository
        Where its lock and log are.
    version : str, optional
        Default: the newest.
    scan_id : str, optional
        Only the files of this scan, and those shared by all.
    catalog : CatalogEntry, optional
        Title, licence, attribution and citations.
    stores : sequence of StoreProvenance, optional
        Stores made from these files.
    scan_ids : mapping, optional
        Scan of each file by path, where names alone do not tell it.

    Raises
    ------
    UsageError
        If the version has no such scan.
    """
    name = repository.resolve(version)
    lock = repository.lock(name)
    named = {file.path: scan_of(file.path) for file in lock.files} | dict(scan_ids or {})
    scans = [scan for scan in named.values() if scan]
    if scan_id is not None and scan_id not in scans:
        raise UsageError(
            f"{repository.name} {name} has no scan {scan_id!r}.{did_you_mean(scan_id, scans)} "
            f"List the scans with: verse-data table {repository.name} scans"
        )
    fetches = FetchLog(repository.path).last_fetches()
    files = tuple(
        _describe_file(repository, file, named[file.path], fetches.get(file.annex_key))
        for file in lock.files
        if scan_id in {None, named[file.path]} or role_of(file.path) == "grading"
    )
    here = [file.path for file in files if file.here]
    shaping = of_tables(here) if here else set()
    known = catalog.model_dump(include=_OF_CATALOG) if catalog else {"title": repository.name}
    return Provenance(
        **(dict.fromkeys(_OF_CATALOG) | known),
        release=repository.name,
        version=name,
        lock=lock.pin,
        commit=repository.commit(name),
        dataset_id=dataset_id(repository.name),
        source=lock.source,
        citations=tuple(
            Reference(text=one.text, doi=one.doi) for one in (catalog.citations if catalog else ())
        ),
        scan_id=scan_id,
        files=files,
        stores=tuple(stores),
        packages=versions(shaping.union(*(of_stores(here, store.recipe) for store in stores))),
    )


def _describe_file(
    repository: Repository, file: LockedFile, scan_id: str | None, fetch: dict[str, Any] | None
) -> FileProvenance:
    here = repository.has(file)
    return FileProvenance(
        path=file.path,
        key=file.annex_key,
        size=file.size,
        sha256=file.sha256,
        urls=tuple(map(redacted, repository.addresses(file))),
        scan_id=scan_id,
        role=role_of(file.path),
        here=here,
        fetched=_read_fetch(fetch) if fetch and here else None,
    )


def _read_fetch(line: dict[str, Any]) -> FetchedFrom | None:
    """Return the record of a line of the log; None if it is not one of ours."""
    try:
        received = line["bytes"] + (line.get("sibling_bytes") or 0)
        known = {name: line.get(name) for name in FetchedFrom.model_fields}
        return FetchedFrom(**{**known, "bytes": received})
    except (KeyError, TypeError, ValueError):
        return None


def of_content(whole: Provenance) -> dict[str, Any]:
    """Return what content a dataset has, as values for JSON: nothing of this machine, no packages."""
    without: Any = dict.fromkeys(("stores", "scan_id", "packages"), True)
    files = {"__all__": {"here", "fetched"}}
    return whole.model_dump(mode="json", exclude={**without, "files": files})


def of_tables(paths: Iterable[str]) -> set[str]:
    """Return the packages that make the tables of a release from the files at `paths`."""
    listed = list(paths)
    reads = {"openpyxl"} if any(path.lower().endswith(".xlsx") for path in listed) else set()
    return {"numpy", "pandas", *_inflating(listed), *reads}


def of_stores(paths: Iterable[str], recipe: Mapping[str, Any]) -> set[str]:
    """Return the packages that make stores from the files at `paths`, and check them on reading."""
    compresses = set() if recipe["codec"] == "none" else {"numcodecs"}
    resamples = set() if recipe["spacing"] is None else {"scipy"}
    return {"numpy", "google-crc32c", *_inflating(paths), *compresses, *resamples}


def _inflating(paths: Iterable[str]) -> set[str]:
    return {"isal"} if any(path.endswith(".nii.gz") for path in paths) else set()


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of this package and of `names`, sorted."""
    return {name: version_of(name) for name in sorted({"verse-data", *names})}
