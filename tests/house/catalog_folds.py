"""Make the folds in catalog/folds, of what is published before any file is here.

VerSe'19 has a grading workbook; of VerSe'20 the list of series is all there is: published split and
direction are balanced there, and the grades of VerSe'19 as well where both are divided as one.
``make catalog-folds WORKBOOK=ryai190138_AppendixE1.xlsx`` writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from verse_data.files import locate
from verse_data.releases.catalog import load_catalog
from verse_data.tables.assemble import tables_of_workbook
from verse_data.tables.folds import STRATIFY, Folds, make_folds

NUMBERS = [(k, seed) for k in (3, 5) for seed in range(5)]
OF_SERIES = ("edition", "split", "direction")
"""Columns that follow from the list of series."""


def series_of(name: str) -> pd.DataFrame:
    """Return what the catalog says of each series of a release, a row a scan."""
    columns = ("scan_id", "subject_id", *OF_SERIES)
    rows = [
        [getattr(one, column) or None for column in columns] for one in load_catalog(name).expected
    ]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def tables(name: str, workbook: Path) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """Return scans, rows to balance, and their columns, of a release or of ``verse19+verse20``."""
    if name == "verse19":
        graded = tables_of_workbook(workbook)
        return graded.scans, graded.vertebrae, STRATIFY
    series = pd.concat([series_of(one) for one in name.split("+")], ignore_index=True)
    if name == "verse20":
        return series, series, OF_SERIES[1:]
    # A series without grades has one row, in which they are missing.
    vertebrae = tables_of_workbook(workbook).vertebrae[["scan_id", *STRATIFY]]
    return series, series.merge(vertebrae, on="scan_id", how="left"), (*STRATIFY, *OF_SERIES)


def made(name: str, workbook: Path) -> dict[str, Folds]:
    """Return all folds of a release by their names in the catalog."""
    scans, rows, columns = tables(name, workbook)
    return {
        f"{name}-k{k}-seed{seed}": make_folds(
            scans, rows, k=k, seed=seed, stratify=columns, release=name
        )
        for k, seed in NUMBERS
    }


if __name__ == "__main__":
    for release in ("verse19", "verse20", "verse19+verse20"):
        for file, folds in made(release, Path(sys.argv[1])).items():
            folds.write(locate("catalog") / "folds" / f"{file}.json")
