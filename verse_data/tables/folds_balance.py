"""What folds are balanced over: counts of each person, and their spread over the folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from verse_data.errors import UsageError, ValidationFailed, did_you_mean

SIZE: Final = "size"
JOINT: Final = "joint"
_MOST_VALUES: Final = 64

# A single value weighs more than a combination: figures are reported by grade, region and so on.
_PRIORITY: Final = {JOINT: 1}
_USUAL_PRIORITY: Final = 4


@dataclass(frozen=True)
class Tally:
    """Counts of each person.

    Attributes
    ----------
    subjects : tuple of str
        Sorted.
    kinds : tuple of (str, str)
        What is counted: ``("size", "scans")``, ``("grade", "2")``, ``("joint", "2, lumbar, false")``.
    counts : ndarray of int64, shape (subjects, kinds)
    """

    subjects: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...]
    counts: npt.NDArray[np.int64]

    @property
    def priority(self) -> npt.NDArray[np.int64]:
        """How much the balance of each kind weighs."""
        weights = [_PRIORITY.get(axis, _USUAL_PRIORITY) for axis, _ in self.kinds]
        return np.array(weights, dtype=np.int64)

    def spread_over(self, fold: npt.NDArray[np.int64], k: int) -> pd.DataFrame:
        """Return counts by fold, their total and their spread (largest less smallest).

        Parameters
        ----------
        fold : ndarray of int64, shape (subjects,)
            Fold of each person.
        k : int
            Number of folds.
        """
        held = np.zeros((k, len(self.kinds)), dtype=np.int64)
        np.add.at(held, fold, self.counts)
        index = pd.MultiIndex.from_tuples(self.kinds, names=["axis", "value"])
        report = pd.DataFrame(
            held.T, index=index, columns=[f"fold {number}" for number in range(k)]
        )
        return report.assign(total=held.sum(axis=0), spread=held.max(axis=0) - held.min(axis=0))


def tally(scans: pd.DataFrame, vertebrae: pd.DataFrame, stratify: Sequence[str]) -> Tally:
    """Count scans and vertebrae of each person, by each column and by all columns together.

    Parameters
    ----------
    scans, vertebrae : pandas.DataFrame
        Tables of one release. Vertebrae of scans that are not in `scans` are left out.
    stratify : sequence of str
        Columns of `vertebrae` with few values. A missing value counts as a value of its own.

    Raises
    ------
    UsageError
        If a table lacks its ids, or a column is not there or has more than 64 values.
    ValidationFailed
        If a scan is listed twice, or has no subject.
    """
    _check_columns("vertebrae", vertebrae, ("scan_id",))
    owner = owners(scans)
    subjects = tuple(sorted(set(owner.values())))
    place = {subject: number for number, subject in enumerate(subjects)}
    rows = vertebrae[vertebrae["scan_id"].astype(str).isin(owner.keys())]
    people = [place[owner[scan]] for scan in rows["scan_id"].astype(str)]
    words = {name: _words(rows, name) for name in dict.fromkeys(stratify)}
    if len(words) > 1:
        words[JOINT] = [", ".join(row) for row in zip(*words.values(), strict=True)]
    scans_of = [place[subject] for subject in owner.values()]
    counted = [
        _count(range(len(subjects)), ["subjects"] * len(subjects), SIZE, len(subjects)),
        _count(scans_of, ["scans"] * len(scans_of), SIZE, len(subjects)),
        *(_count(people, column, axis, len(subjects)) for axis, column in words.items()),
    ]
    kinds = tuple(kind for part, _ in counted for kind in part)
    return Tally(subjects, kinds, np.concatenate([counts for _, counts in counted], axis=1))


def _check_columns(name: str, table: pd.DataFrame, needed: Sequence[str]) -> None:
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise UsageError(
            f"The table of {name} has no column {' and no column '.join(missing)}, which folds need "
            f"to tell whose is what."
        )


def owners(scans: pd.DataFrame) -> dict[str, str]:
    """Return the subject of each scan of a table.

    Raises
    ------
    UsageError
        If the table has no ``scan_id`` or no ``subject_id``.
    ValidationFailed
        If a scan is listed twice, or has no subject.
    """
    _check_columns("scans", scans, ("scan_id", "subject_id"))
    names, people = scans["scan_id"].astype(str), scans["subject_id"]
    if people.isna().any():
        raise ValidationFailed(
            f"These scans have no subject: {', '.join(names[people.isna()][:20])}."
        )
    if names.duplicated().any():
        raise ValidationFailed(
            f"These scans are listed twice: {', '.join(names[names.duplicated()][:20])}."
        )
    return dict(zip(names, people.astype(str), strict=True))


def _words(rows: pd.DataFrame, name: str) -> list[str]:
    """Return the values of a column as words, with ``missing`` for what is missing."""
    if name not in rows.columns:
        known = list(map(str, rows.columns))
        raise UsageError(
            f"Folds cannot be stratified by {name!r}: no such column.{did_you_mean(name, known)} "
            f"Columns: {', '.join(known)}."
        )
    column = rows[name]
    if column.nunique() > _MOST_VALUES:
        message = (
            f"Folds cannot be stratified by {name!r}: it has {column.nunique():,} different values, and "
            f"the limit is {_MOST_VALUES}. Choose columns such as grade, region, foreign_material."
        )
        raise UsageError(message)
    return [_word(value) for value in column.astype(object)]


def _word(value: Any) -> str:
    if pd.isna(value):
        return "missing"
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def _count(
    people: Sequence[int], words: Sequence[str], axis: str, subjects: int
) -> tuple[tuple[tuple[str, str], ...], npt.NDArray[np.int64]]:
    """Return the kinds of one axis, sorted, and how many of each every person has."""
    values = {value: number for number, value in enumerate(sorted(set(words)))}
    counts = np.zeros((subjects, len(values)), dtype=np.int64)
    for person, word in zip(people, words, strict=True):
        counts[person, values[word]] += 1
    return tuple((axis, value) for value in values), counts
