"""Whether folds fit what they are used with, and whether folds can be made of what was asked."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pandas as pd

from verse_data.errors import UsageError, ValidationFailed
from verse_data.tables.folds_balance import owners
from verse_data.tables.folds_file import FoldPart, FoldsFile

_BIGGEST: Final = 1 << 63


def check_scans(parts: Sequence[FoldPart], scans: pd.DataFrame) -> None:
    """Check that `parts` divide exactly the scans of a table, each with its subject.

    Raises
    ------
    UsageError
        If the table has no ``scan_id`` or no ``subject_id``.
    ValidationFailed
        Naming what does not fit.
    """
    there = owners(scans)
    # Two maps: a scan and its subject often have one name, and may lie in different folds here.
    numbered = list(enumerate(parts))
    fold_of_scan = {scan: number for number, part in numbered for scan in part.scans}
    fold_of_subject = {name: number for number, part in numbered for name in part.subjects}
    moved = [
        scan
        for scan in sorted(fold_of_scan.keys() & there.keys())
        if fold_of_subject.get(there[scan]) != fold_of_scan[scan]
    ]
    people = set(fold_of_subject)
    problems = {
        "only in the folds": sorted(fold_of_scan.keys() - there.keys()),
        "only in the release": sorted(there.keys() - fold_of_scan.keys()),
        "of another subject in the release": [s for s in moved if there[s] not in people],
        "in another fold than their subject": [s for s in moved if there[s] in people],
        "subjects without a scan in the release": sorted(people - set(there.values())),
    }
    lines = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
    if lines:
        message = (
            f"The folds do not fit the table of scans: {'; '.join(lines)}. "
            f"Give the same scans that they were made of, or make them again."
        )
        raise ValidationFailed(message)


def check_made_of(file: FoldsFile, *, release: str | None, lock: str | None) -> None:
    """Check that folds were made of one release at one lock, where both sides name them.

    Raises
    ------
    ValidationFailed
        Naming what they were made of, and how to have it.
    """
    if file.release and release and file.release != release:
        message = (
            f"The folds were made of the release {file.release}, and this is {release}. "
            f"Open {file.release}, or make folds of {release}."
        )
        raise ValidationFailed(message)
    if file.lock and lock and file.lock != lock:
        message = (
            f"The folds were made of another version of {release or 'the release'}: its lock is "
            f"{file.lock}, and this one's is {lock}, so files differ even where the scans are the "
            f"same. Open the release with version={file.lock!r}, or make the folds again. To use "
            f"them all the same, Folds.read(path, release.scans) checks scans and patients alone."
        )
        raise ValidationFailed(message)


def whole_number(name: str, value: Any) -> int:
    """Return `value` as int if it is a whole number, NumPy's included; 5.0 and True are none.

    Raises
    ------
    UsageError
        If it is not, or has more than 64 bits; the text calls it `name`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise UsageError(f"{name} must be a whole number such as 3, not {value!r}.")
    if not -_BIGGEST <= number < _BIGGEST:
        raise UsageError(f"{name} must be a whole number of at most 64 bits, such as 3.")
    return number


def column_names(stratify: Any) -> tuple[str, ...]:
    """Return the columns to stratify by, each once.

    Raises
    ------
    UsageError
        If it is no list of names.
    """
    if isinstance(stratify, str):
        raise UsageError(f"stratify takes a list of columns, such as [{stratify!r}].")
    names = tuple(stratify) if isinstance(stratify, Iterable) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"stratify takes names of columns, such as ['grade'], not {stratify!r}.")
    return tuple(dict.fromkeys(names))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
