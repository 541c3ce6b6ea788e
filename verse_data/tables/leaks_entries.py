"""What an entry of somebody's split means: the person behind an id, a number, a name or a path."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from verse_data.records.names import FileName, parse_path
from verse_data.tables.splits import subject_of_series

NUMBER_RULE: Final = (
    "Bare numbers are read as VerSe numbers, padded or not: 4 is verse004, and never gl004. "
    "Numbers up to 399 name a series, so 201 and 253 are one patient, verse401; "
    "400 and up name a patient. To mean a gl scan, write gl004."
)

# Digits are those of ASCII: int() would read those of other alphabets, and hide that they differ.
_START: Final = r"(?<![^\W_])"
_END: Final = r"(?![^\W_])"
_CANONICAL: Final = re.compile(r"(?:verse|gl)[0-9]{3}")
_NUMBER: Final = re.compile(r"([0-9]{1,4})(?:\.0+)?(?:\.[A-Za-z][A-Za-z0-9.]*)?")
_SUB_NUMBER: Final = re.compile(rf"sub-([0-9]{{1,3}}){_END}")
_SERIES: Final = re.compile(
    rf"{_START}((?:verse|gl)[0-9]{{3}})_split-(verse[0-9]{{3}}){_END}", re.IGNORECASE
)
_ID: Final = re.compile(rf"{_START}(verse|gl)[-_ ]?([0-9]{{3}}){_END}", re.IGNORECASE)
# "verse19_004" is number 4 in VerSe'19, as in names of nnU-Net cases; "verse19" alone is verse019.
_OF_RELEASE: Final = re.compile(
    rf"{_START}verse(?:20)?(?:19|20)[-_]()([0-9]{{3}}){_END}", re.IGNORECASE
)
_SHORT_ID: Final = re.compile(
    r"(?:sub-)?(verse|gl)[-_ ]?([0-9]{1,2})(?=$|\.|_[^0-9])", re.IGNORECASE
)
# "VerSe20_ax_500.npy" may mean 500 of VerSe'20: not for us to guess.
_RELEASE_THEN_ID: Final = re.compile(
    r"(?:sub-)?verse[-_ ]?(?:19|20)_.*(?<![0-9])[0-9]{3}(?![0-9])", re.IGNORECASE
)


@dataclass(frozen=True)
class Reading:
    """What one entry was read as.

    Attributes
    ----------
    entry : str
        The entry as given.
    subject_id : str or None
        The person, or None if the entry names none, or more than one.
    problem : str
        Why it could not be read, or what is odd about it; empty if nothing is.
    is_number : bool
        Whether the entry was a bare number, which is read by :data:`NUMBER_RULE`.
    """

    entry: str
    subject_id: str | None
    problem: str = ""
    is_number: bool = False


class Patients:
    """Who is behind an entry.

    Parameters
    ----------
    scans : pandas.DataFrame, optional
        A release's table of scans. With it, its own names are known, whatever they look like, and
        an entry that names nobody of that release is told.
    """

    def __init__(self, scans: pd.DataFrame | None = None) -> None:
        self._subject_of = subject_of_series()
        self._known: frozenset[str] | None = None
        if scans is not None:
            self._subject_of |= _names_in(scans)
            self._known = frozenset(scans["subject_id"].dropna().astype(str))

    def learn(self, entries: Iterable[object]) -> None:
        """Take from names such as ``verse902_split-verse951`` whose series a series is.

        What VerSe's own list or the release says is not changed by it.
        """
        for entry in entries:
            for subject, series in _SERIES.findall(_as_text(entry) or ""):
                self._subject_of.setdefault(series.lower(), subject.lower())

    def read(self, entry: object) -> Reading:
        """Return the person that `entry` names: an id, a number, a file's name or a path."""
        text = _as_text(entry)
        given = str(entry)[:500].encode("utf-8", "backslashreplace").decode()
        if text is None:
            return Reading(given, None, "is neither a text nor a number")
        parts = [part for part in text.split("/") if part]
        number = _NUMBER.fullmatch(parts[-1]) if parts else None
        names: set[str] = set()
        for depth, part in enumerate(reversed(parts)):
            # "verse4" is an id alone or as a file's name; as a folder, verse19 is the release, and
            # verse19_160 perhaps a copy of it.
            short = len(parts) == 1 or (depth == 0 and "." in part)
            of_release = depth == 0 or not (names or number)
            names |= self._names(part, short=short, of_release=of_release)
        if number and not names:
            return self._found(given, {f"verse{int(number[1]):03d}"}, is_number=True)
        if not names:
            return Reading(given, None, "holds no id such as verse004, sub-verse004 or gl003")
        by_number = not self._is_listed(parts[-1]) and bool(_SUB_NUMBER.match(parts[-1].lower()))
        return self._found(given, names, is_number=by_number)

    def _names(self, part: str, *, short: bool, of_release: bool) -> set[str]:
        for name in (part, part.split(".", maxsplit=1)[0]):
            stem = name.lower().removeprefix("sub-")
            if stem in self._subject_of:
                return {stem}
        file = parse_path(part)
        if file is not None and file.subject_id:
            return self._in_file_name(file)
        number = _SUB_NUMBER.match(part.lower())
        if number:
            return {f"verse{int(number[1]):03d}"}
        ids = (_OF_RELEASE.findall(part) if of_release else []) + _ID.findall(part)
        found = _SHORT_ID.match(part) if short and not _RELEASE_THEN_ID.match(part) else None
        pairs = ids or ([found.groups()] if found else [])
        return {f"{prefix.lower() or 'verse'}{int(number):03d}" for prefix, number in pairs}

    def _in_file_name(self, file: FileName) -> set[str]:
        """Return what a name of one of the layouts says: its series, or its subject and series."""
        if file.scan_id.lower() in self._subject_of:
            return {file.scan_id.lower()}
        names = {self._canonical(file.subject_id)}
        # Other labels, such as the 2 of split-2, only count the series of that subject.
        if file.series_label and re.fullmatch(r"[0-9]{3}|[^0-9]+[0-9]+", file.series_label):
            names.add(self._canonical(file.series_label))
        return names

    def _canonical(self, name: str) -> str:
        """Return an id in the one form that is compared: verse4, 004 and 4 are verse004."""
        found = re.fullmatch(r"(verse|gl|)([0-9]{1,3})", name.lower())
        if found is None or name.lower() in self._subject_of:
            return name.lower()
        return f"{found[1] or 'verse'}{int(found[2]):03d}"

    def _is_listed(self, part: str) -> bool:
        """Whether `part` says a name that the release's own table has."""
        stem = part.split(".", maxsplit=1)[0].split("_", maxsplit=1)[0].lower().removeprefix("sub-")
        return stem in self._subject_of

    def _found(self, text: str, names: set[str], *, is_number: bool = False) -> Reading:
        subjects = {self._subject_of.get(name, name) for name in names}
        if len(subjects) > 1:
            return Reading(text, None, f"names several patients: {', '.join(sorted(subjects))}")
        subject = subjects.pop()
        problem = ""
        if self._known is not None and subject not in self._known:
            problem = f"reads as patient {subject}, whom the release does not have"
        elif self._known is None and not _CANONICAL.fullmatch(subject):
            problem = f"reads as {subject}, which is no id of VerSe such as verse004 or gl003"
        elif self._known is None and is_number and subject == "verse000":
            problem = "reads as verse000, and VerSe has no number 0; is it a row's number?"
        return Reading(text, subject, problem, is_number)


def _names_in(scans: pd.DataFrame) -> dict[str, str]:
    """Return the subject of every name, in small letters, that a table of scans has for one."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for column in ("subject_id", "scan_id", "series_id", "series_label"):
        if column in scans:
            rows = pd.DataFrame({"name": scans[column], "subject": scans["subject_id"]}).dropna()
            for name, subject in rows.astype(str).itertuples(index=False):
                # The 2 of split-2 only counts the series of a subject.
                if column != "series_label" or re.search(r"[A-Za-z]|[0-9]{3}", name):
                    owners[name.lower()].add(subject)
    # What several subjects have names nobody.
    return {name: subjects.pop() for name, subjects in owners.items() if len(subjects) == 1}


def _as_text(entry: object) -> str | None:
    if isinstance(entry, bool | np.bool_):
        return None
    if isinstance(entry, int | np.integer):
        return str(int(entry))
    if isinstance(entry, float | np.floating):
        return str(int(entry)) if math.isfinite(entry) and entry == int(entry) else None
    if isinstance(entry, os.PathLike):
        entry = os.fspath(entry)
    return entry.strip().replace("\\", "/") if isinstance(entry, str) else None
