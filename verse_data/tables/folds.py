"""Cross-validation folds that keep each person on one side, and are balanced.

Which fold a person gets depends on the tables, `k`, `seed` and `stratify` alone: whole numbers and
SHA-256, so that every platform and every version of NumPy finds the same folds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from verse_data.digests import canonical_json, sha256_of_json
from verse_data.errors import UsageError, counted
from verse_data.publishing import write_file
from verse_data.tables.folds_balance import tally
from verse_data.tables.folds_check import (
    check_made_of,
    check_scans,
    column_names,
    whole_number,
)
from verse_data.tables.folds_file import FoldPart, FoldsFile, parse_folds
from verse_data.tables.folds_search import divide

STRATIFY: Final = ("grade", "region", "foreign_material")
"""Columns of the vertebrae that folds are balanced over, each and jointly."""
_SHOWN: Final = 10


@dataclass(frozen=True, kw_only=True)
class Folds:
    """A division of scans into `k` parts; all scans of a person lie in one part.

    Attributes
    ----------
    k, seed : int
        As given to :func:`make_folds`.
    stratify : tuple of str
        Columns that the folds are balanced over.
    parts : tuple of FoldPart
        Subjects and scans of each fold, both sorted.
    release, lock : str or None
        Name of the release, and digest of its lock.
    """

    k: int
    seed: int
    stratify: tuple[str, ...]
    parts: tuple[FoldPart, ...]
    release: str | None = None
    lock: str | None = None

    @cached_property
    def fold_of(self) -> dict[str, int]:
        """Fold of each subject and of each scan, by its id."""
        return {
            name: number
            for number, part in enumerate(self.parts)
            for name in (*part.subjects, *part.scans)
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything but itself, in canonical JSON."""
        return sha256_of_json(self._content())

    def split(self, fold: int) -> dict[str, tuple[str, ...]]:
        """Return the ``scan_id`` of ``training`` and ``validation`` for one fold.

        Raises
        ------
        UsageError
            If there is no such fold; they are numbered from 0.
        """
        fold = whole_number("fold", fold)
        if not 0 <= fold < self.k:
            raise UsageError(f"There is no fold {fold}; folds are 0 to {self.k - 1}.")
        rest = (part.scans for number, part in enumerate(self.parts) if number != fold)
        return {
            "training": tuple(sorted(scan for scans in rest for scan in scans)),
            "validation": self.parts[fold].scans,
        }

    def balance(self, scans: pd.DataFrame, vertebrae: pd.DataFrame) -> pd.DataFrame:
        """Return counts by fold, total and spread of each value of each column, and of each combination.

        Parameters
        ----------
        scans, vertebrae : pandas.DataFrame
            The tables that the folds were made of.
        """
        self.check(scans)
        tallied = tally(scans, vertebrae, self.stratify)
        return tallied.spread_over(
            np.array([self.fold_of[name] for name in tallied.subjects]), self.k
        )

    def __repr__(self) -> str:
        of = f" of {self.release}" if self.release else ""
        sizes = [
            f"  fold {number}: {counted(len(part.subjects), 'subject')}, {counted(len(part.scans), 'scan')}"
            for number, part in enumerate(self.parts)
        ]
        more = [f"  and {len(sizes) - _SHOWN} more"] * (len(sizes) > _SHOWN)
        over = ", ".join(self.stratify) or "nothing"
        head = f"<Folds{of}: k={self.k}, seed={self.seed}, balanced over {over}, digest {self.digest[:12]}>"
        return "\n".join([head, *sizes[:_SHOWN], *more])

    def check(self, scans: pd.DataFrame) -> None:
        """Check that the folds divide exactly the scans of a table.

        Raises
        ------
        ValidationFailed
            Naming the scans that only one of them has, those that belong to someone else, and those
            that lie in another fold than their subject.
        UsageError
            If the table has no ``scan_id`` or no ``subject_id``.
        """
        check_scans(self.parts, scans)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the folds to `path` as JSON with a digest, whole or not at all."""
        write_file(Path(path), canonical_json({**self._content(), "digest": self.digest}))

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        scans: pd.DataFrame,
        *,
        release: str | None = None,
        lock: str | None = None,
    ) -> Folds:
        """Read folds that :meth:`write` wrote, and check that they divide exactly `scans`.

        Parameters
        ----------
        path : path
            The file.
        scans : pandas.DataFrame
            The scans that they must divide: ``scan_id``, ``subject_id``.
        release, lock : str, optional
            Name of the release, and digest of its lock as ``sha256:HEX``, that they must have been
            made of. A file that names none fits every one.

        Raises
        ------
        ValidationFailed
            If it is no such file, was made of something else, or does not fit `scans`.
        IntegrityError
            If it was changed since it was written: its digest is another.
        """
        file = parse_folds(Path(path))
        folds = cls(
            k=file.k,
            seed=file.seed,
            stratify=file.stratify,
            parts=file.folds,
            release=file.release,
            lock=file.lock,
        )
        check_made_of(file, release=release, lock=lock)
        folds.check(scans)
        return folds

    def _content(self) -> dict[str, object]:
        file = FoldsFile(
            release=self.release,
            lock=self.lock,
            k=self.k,
            seed=self.seed,
            stratify=self.stratify,
            folds=self.parts,
        )
        return file.model_dump(mode="json", exclude={"digest"})


def make_folds(
    scans: pd.DataFrame,
    vertebrae: pd.DataFrame,
    *,
    k: int,
    seed: int = 0,
    stratify: Sequence[str] = STRATIFY,
    release: str | None = None,
    lock: str | None = None,
) -> Folds:
    """Divide scans into `k` folds, grouped by subject and balanced over `stratify`.

    Parameters
    ----------
    scans, vertebrae : pandas.DataFrame
        Tables of one release, or some of their rows. Vertebrae of other scans are left out.
    k : int
        Number of folds, from 2 to the number of subjects.
    seed : int
        Another seed gives other folds, about equally balanced.
    stratify : sequence of str
        Columns of `vertebrae`. Each value of each column is spread evenly, and each combination of
        values; a missing value counts as one. Numbers of subjects and scans are spread as well.
    release, lock : str, optional
        Name of the release and digest of its lock, kept in the file.

    Raises
    ------
    UsageError
        If `k`, `seed` or a column of `stratify` cannot be used.
    ValidationFailed
        If a scan is listed twice, or has no subject.
    """
    k, seed = whole_number("k", k), whole_number("seed", seed)
    stratify = column_names(stratify)
    tallied = tally(scans, vertebrae, stratify)
    if not 2 <= k <= len(tallied.subjects):
        message = (
            f"k is {k}; it must lie between 2 and the number of subjects, {len(tallied.subjects)}."
        )
        raise UsageError(message)
    order = _order(tallied.subjects, seed)
    found = divide(tallied.counts[order], parts=k, seed=seed, priority=tallied.priority)
    fold = dict(zip((tallied.subjects[place] for place in order), found.tolist(), strict=True))
    return Folds(
        k=k,
        seed=seed,
        stratify=stratify,
        parts=_parts(scans, fold, k),
        release=release,
        lock=lock,
    )


def _order(subjects: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Return the order in which subjects are placed: by digest, so that the seed shuffles them."""
    digests = [hashlib.sha256(f"{seed}/{subject}".encode()).digest() for subject in subjects]
    return np.array(sorted(range(len(subjects)), key=digests.__getitem__), dtype=np.int64)


def _parts(scans: pd.DataFrame, fold: dict[str, int], k: int) -> tuple[FoldPart, ...]:
    held: list[list[str]] = [[] for _ in range(k)]
    for scan, subject in zip(scans["scan_id"].tolist(), scans["subject_id"].tolist(), strict=True):
        held[fold[str(subject)]].append(str(scan))
    people: list[list[str]] = [[] for _ in range(k)]
    for subject, number in fold.items():
        people[number].append(subject)
    return tuple(
        FoldPart(subjects=tuple(sorted(subjects)), scans=tuple(sorted(names)))
        for subjects, names in zip(people, held, strict=True)
    )
