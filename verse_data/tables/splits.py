"""The published splits, and which series belong to one person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verse_data.errors import counted, one_of
from verse_data.problems import listed
from verse_data.records.catalog import CatalogEntry
from verse_data.records.names import SPLITS, SUBJECT_OF_SERIES, Split
from verse_data.tables.index import ScanFiles, assert_one_split_each

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SplitPart:
    """One side of a split: its scans and its subjects, each once, in the order of the table."""

    scans: tuple[str, ...]
    subjects: tuple[str, ...]


def official_splits(scans: pd.DataFrame) -> dict[Split, SplitPart]:
    """Return the published split of a release.

    Parameters
    ----------
    scans : pandas.DataFrame
        The release's table of scans: ``scan_id``, ``subject_id``, ``split``.

    Returns
    -------
    dict
        ``training``, ``validation``, ``test``. Scans without a published split are in none.

    Raises
    ------
    ValidationFailed
        If a subject is in two splits, also under two spellings that differ only in case.
    """
    parts: dict[Split, SplitPart] = {}
    for name in SPLITS:
        rows = of_split(scans, name)
        subjects = tuple(dict.fromkeys(rows["subject_id"].astype(str)))
        parts[name] = SplitPart(tuple(rows["scan_id"].astype(str)), subjects)
    assert_one_split_each((s, name) for name, part in parts.items() for s in part.subjects)
    return parts


def of_split(scans: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Return the rows of `scans` in a published split; all of them if `split` is None."""
    if split is None:
        return scans
    one_of("split", split, SPLITS)
    return scans[(scans["split"] == split).fillna(value=False).to_numpy(dtype=bool)]


def unsplit(scans: Iterable[ScanFiles]) -> Iterator[str]:
    """Yield what to say of those of `scans` that are in no split, if there are any."""
    if found := [scan for scan in scans if scan.split is None]:
        folders = {file.path.split("/")[0] for scan in found for file in scan.files.values()}
        yield (
            f"{counted(len(found), 'scan')} in no split, as no folder inside the tree names one: "
            f"{listed([scan.scan_id for scan in found])}, "
            f"in {listed(sorted(folders))}. Serve them by folds, or call folders training, "
            f"validation and test, or dataset-mylabtraining, and lock again."
        )


def subject_of_series(entry: CatalogEntry | None = None) -> dict[str, str]:
    """Return the subject of each series whose name is not that of its subject.

    For VerSe these are the 37 series of 18 subjects: ``verse201`` and ``verse253`` are both
    ``verse401``.

    Parameters
    ----------
    entry : CatalogEntry, optional
        Adds the expected series of a release to those known from VerSe.
    """
    known = {**SUBJECT_OF_SERIES, **(entry.subject_of_series if entry else {})}
    return {series: subject for series, subject in known.items() if series != subject}
