"""The provenance of a release or of one scan, put together from lock, dataset, log and catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

from verse_data.errors import UsageError, did_you_mean
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile
from verse_data.records.names import parse_path, scan_of
from verse_data.records.provenance import (
    FetchedFrom,
    FileProvenance,
    Provenance,
    Reference,
    StoreProvenance,
)
from verse_data.releases.fetch import FetchLog
from verse_data.releases.import_lock import dataset_id

if TYPE_CHECKING:
    from verse_data.releases.repository import Repository


def describe(
    dataset: Repository,
    version: str | None = None,
    *,
    scan_id: str | None = None,
    catalog: CatalogEntry | None = None,
    stores: Sequence[StoreProvenance] = (),
) -> Provenance:
    """Return the provenance of a version, or of one scan of it.

    Parameters
    ----------
    dataset : Repository
        Where its lock and log are.
    version : str, optional
        The newest if missing.
    scan_id : str, optional
        Only the files of this scan, and those that belong to all.
    catalog : CatalogEntry, optional
        Title, licence, attribution and citations.
    stores : sequence of StoreProvenance, optional
        Stores made from these files.

    Raises
    ------
    UsageError
        If the version has no such scan.
    """
    name = dataset.resolve(version)
    lock = dataset.lock(name)
    files = lock.files if scan_id is None else [f for f in lock.files if _belongs(f, scan_id)]
    scans = list(filter(None, (scan_of(file.path) for file in lock.files)))
    if scan_id is not None and scan_id not in scans:
        raise UsageError(
            f"{dataset.name} {name} has no scan {scan_id!r}.{did_you_mean(scan_id, scans)} List the "
            f"scans with: verse-data table {dataset.name} scans"
        )
    log = FetchLog(dataset.path).last_fetches()
    here = [file.path for file in files if dataset.has(file)]
    shaping = (of_tables(here) if here else set()).union(
        *(of_stores(here, s.recipe) for s in stores)
    )
    return Provenance(
        release=dataset.name,
        version=name,
        lock=f"sha256:{lock.digest}",
        commit=dataset.commit(name),
        dataset_id=dataset_id(dataset.name),
        source=lock.source,
        title=catalog.title if catalog else dataset.name,
        licence=catalog.licence if catalog else None,
        attribution=catalog.attribution if catalog else None,
        doi=catalog.doi if catalog else None,
        citations=tuple(
            Reference(text=one.text, doi=one.doi) for one in (catalog.citations if catalog else ())
        ),
        scan_id=scan_id,
        files=tuple(_file(dataset, file, log.get(file.annex_key)) for file in files),
        stores=tuple(stores),
        packages=versions(shaping),
    )


def _file(dataset: Repository, file: LockedFile, line: dict[str, Any] | None) -> FileProvenance:
    parsed, here = parse_path(file.path), dataset.has(file)
    return FileProvenance(
        path=file.path,
        key=file.annex_key,
        size=file.size,
        sha256=file.sha256,
        urls=dataset.addresses(file),
        scan_id=scan_of(file.path),
        role=parsed.role if parsed else None,
        here=here,
        fetched=_fetched(line) if line and here else None,
    )


def _fetched(line: dict[str, Any]) -> FetchedFrom | None:
    """Return what a line of the log says; None where it is none of ours."""
    try:
        return FetchedFrom(
            time=str(line["time"]),
            source=line.get("source"),
            url=line["url"],
            engine=str(line["engine"]),
            bytes=int(line["bytes"]) + int(line.get("sibling_bytes") or 0),
            tries=int(line["tries"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _belongs(file: LockedFile, scan_id: str) -> bool:
    name = parse_path(file.path)
    return name is not None and (name.role == "grading" or name.scan_id == scan_id)


def of_tables(paths: Iterable[str]) -> set[str]:
    """Return the packages that make the tables of a release out of the files at `paths`."""
    listed = list(paths)
    reads = {"openpyxl"} if any(path.lower().endswith(".xlsx") for path in listed) else set()
    return {"numpy", "pandas", *_inflating(listed), *reads}


def of_stores(paths: Iterable[str], recipe: Mapping[str, Any]) -> set[str]:
    """Return the packages that make stores of the files at `paths`, and check them when they are read."""
    compresses = set() if recipe["codec"] == "none" else {"numcodecs"}
    resamples = set() if recipe["spacing"] is None else {"scipy"}
    return {"numpy", "google-crc32c", *_inflating(paths), *compresses, *resamples}


def _inflating(paths: Iterable[str]) -> set[str]:
    return {"isal"} if any(path.endswith(".nii.gz") for path in paths) else set()


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of this package and of `names`, sorted."""
    return {name: version_of(name) for name in sorted({"verse-data", *names})}
