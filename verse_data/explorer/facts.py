"""What the page knows of a release: tables, findings, cells of the workbook, and who may use it how."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from verse_data.config import Config, __version__
from verse_data.progress import Progress
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import ReleaseLock
from verse_data.records.overlay import AppliedOverlay
from verse_data.releases.catalog import PHANTOM
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS, region
from verse_data.tables.columns import TableName, columns
from verse_data.tables.export import rounded
from verse_data.tables.index import ScanFiles
from verse_data.views.drawing import PHANTOM_NOTE, level_colour

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from verse_data.tables.assemble import Tables
    from verse_data.volumes.reader import ScanReader
    from verse_data.volumes.recipe import Recipe

TABLES: Final[tuple[TableName, ...]] = ("vertebrae", "scans", "subjects")


class Explored(Protocol):
    """What the explorer uses of a `Release`, which lies above it."""

    version: str
    config: Config
    catalog: CatalogEntry | None

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def lock(self) -> ReleaseLock: ...  # noqa: D102
    @property
    def overlays(self) -> Sequence[AppliedOverlay]: ...  # noqa: D102
    @property
    def commit(self) -> str: ...  # noqa: D102
    @property
    def series(self) -> Mapping[str, ScanFiles]: ...  # noqa: D102
    @property
    def progress(self) -> Progress: ...  # noqa: D102
    @property
    def readable_tables(self) -> Tables: ...  # noqa: D102
    def citation(self) -> str: ...  # noqa: D102
    def reader(self, scan_id: str, store: Path) -> ScanReader: ...  # noqa: D102
    def require_grades(self, where: str | None) -> None: ...  # noqa: D102
    def preview(self, scan_id: str) -> Image: ...  # noqa: D102
    def fetch_and_build(  # noqa: D102
        self,
        scan_ids: Iterable[str],
        *,
        recipe: Recipe | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Path]: ...


def page_facts(release: Explored, scan_ids: Collection[str] | None = None) -> dict[str, Any]:
    """Return all that the page shows beside volumes, as values for JSON; of these scans, or of all."""
    tables = release.readable_tables
    return {
        "release": _identity(release),
        "levels": [
            {
                "level": level,
                "label": LABEL_OF_LEVEL[level],
                "region": region(level),
                "colour": list(level_colour(level)),
            }
            for level in LEVELS
        ],
        "tables": {name: _table(name, chosen_rows(tables, name, scan_ids)) for name in TABLES},
        "findings": _findings(tables, scan_ids),
        "workbook": _workbook(release, tables),
        "scans": [
            name
            for name, scan in release.series.items()
            if "ct" in scan.files and (scan_ids is None or name in scan_ids)
        ],
    }


def chosen_rows(tables: Tables, name: TableName, scan_ids: Collection[str] | None) -> pd.DataFrame:
    """Return the rows of a table that belong to these scans, or all."""
    rows: pd.DataFrame = getattr(tables, name)
    if scan_ids is None:
        return rows
    if "scan_id" in rows.columns:
        return rows[rows["scan_id"].isin(list(scan_ids))]
    own = tables.scans[tables.scans["scan_id"].isin(list(scan_ids))]
    return rows[rows["subject_id"].isin(own["subject_id"])]


def _identity(release: Explored) -> dict[str, Any]:
    """Return name, digest, licence and citation, which stand on every page."""
    entry = release.catalog
    notes = [PHANTOM_NOTE] if release.name == PHANTOM else []
    notes += [f"Corrected by overlay {one}." for one in release.overlays]
    return {
        "name": release.name,
        "version": release.version,
        "title": entry.title if entry else f"Release {release.name!r}, locked by its user",
        "lock": release.lock.pin,
        "commit": release.commit,
        "licence": entry.licence if entry else "unknown",
        "attribution": entry.attribution if entry else "",
        "citation": release.citation(),
        "note": " ".join(notes),
        "package": __version__,
    }


def _table(name: TableName, rows: pd.DataFrame) -> dict[str, Any]:
    """Return what the columns of a table mean, and its cells column by column; missing is None."""
    cells = rounded(rows).astype(object)
    cells = cells.where(cells.notna(), None)
    about = [
        {
            "name": column.name,
            "kind": _kind(column.dtype),
            "unit": column.unit,
            "description": column.description,
        }
        for column in columns(name)
    ]
    return {
        "columns": about,
        "index": [int(number) for number in rows.index],
        "cells": {column: cells[column].tolist() for column in rows.columns},
    }


def _kind(dtype: str) -> str:
    """Return how the page sorts and compares a column."""
    if dtype.startswith(("Int", "Float", "UInt")):
        return "number"
    return "boolean" if dtype == "boolean" else "text"


def _findings(tables: Tables, scan_ids: Collection[str] | None) -> list[dict[str, str]]:
    found = tables.findings
    if scan_ids is not None:
        found = found[found["scan_id"].isin(["", *scan_ids])]
    wanted = ["rule", "severity", "scan_id", "subject_id", "level", "message", "place"]
    rows: Any = found[wanted].fillna("").to_dict(orient="records")
    return list(rows)


def _workbook(release: Explored, tables: Tables) -> dict[str, Any] | None:
    """Return where the grades stand: file, row of each series, and column of each level's grade.

    Of a series that an overlay relabels, the cell of a level is that of another vertebra.
    """
    grading = tables.grading
    if grading is None:
        return None
    letters = grading.sheet.letters
    moved = {scan.series_id for scan in release.series.values() if scan.relabelled}
    return {
        "file": grading.sheet.file,
        "sheet": grading.sheet.sheet,
        "rows": {
            graded.row.series_id: graded.number
            for graded in grading.rows
            if graded.row.series_id not in moved
        },
        "columns": {
            level: letters[heading] for level in LEVELS if (heading := f"{level}_fx-g") in letters
        },
    }
