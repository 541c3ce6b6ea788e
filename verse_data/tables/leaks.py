"""Finds patients on more than one side of a split, however its entries are written.

An entry may be an id, a number, a name or a path. Files of splits are read in
:mod:`verse_data.tables.split_files`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Final, NamedTuple

import pandas as pd

from verse_data.errors import UsageError, ValidationFailed, counted
from verse_data.problems import shown
from verse_data.records.names import FileName, parse_path
from verse_data.tables.splits import subject_of_series

NUMBER_RULE: Final = (
    "Bare numbers are read as VerSe numbers, padded or not: 4 is verse004, and never gl004. "
    "Numbers up to 399 name a series, so 201 and 253 are one patient, verse401; "
    "400 and up name a patient. To mean a gl scan, write gl004."
)

# Only ASCII digits: int() would read those of other alphabets too, and hide that they differ.
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
# "VerSe20_ax_500.npy" may mean 500 of VerSe'20, which is not guessed.
_RELEASE_THEN_ID: Final = re.compile(
    r"(?:sub-)?verse[-_ ]?(?:19|20)_.*(?<![0-9])[0-9]{3}(?![0-9])", re.IGNORECASE
)


@dataclass(frozen=True)
class Leak:
    """A patient on more than one side, with its entries on each, as given."""

    subject_id: str
    entries: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        sides = (f"{side} ({', '.join(entries)})" for side, entries in self.entries.items())
        return f"{self.subject_id}: {' and '.join(sides)}"


@dataclass(frozen=True)
class Unknown:
    """An entry, as given, that names no patient, or none of the release, and the reason."""

    side: str
    entry: str
    reason: str

    def __str__(self) -> str:
        return f"{self.side}: {self.entry!r} {self.reason}"


@dataclass(frozen=True)
class LeakReport:
    """Patients on two sides, unknown entries, number of patients of each side, and notes.

    Unknown entries that name a patient outside the release are compared as well.
    """

    leaks: tuple[Leak, ...]
    unknown: tuple[Unknown, ...]
    patients: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether no patient is on two sides, and every entry could be placed."""
        return not self.leaks and not self.unknown

    def __str__(self) -> str:
        counts = ", ".join(f"{side} {number}" for side, number in self.patients.items())
        lines = [f"Patients: {counts}.", "No patient sits on two sides."]
        if self.leaks:
            leaking = counted(len(self.leaks), "patient sits", "patients sit")
            lines[1:] = [f"{leaking} on two sides:", *(f"  {leak}" for leak in self.leaks)]
        if self.unknown:
            lines.append(f"{counted(len(self.unknown), 'entry', 'entries')} could not be placed:")
            lines += [f"  {entry}" for entry in self.unknown]
        return "\n".join([*lines, *self.notes])


def find_leaks(
    split: Mapping[str, Iterable[object]], *, scans: pd.DataFrame | None = None
) -> LeakReport:
    """Find the patients that are on more than one side of `split`.

    Parameters
    ----------
    split : mapping of str to iterable
        Name of each side to its entries: scan, series or subject ids, padded or not, with or
        without ``sub-``; numbers; names or paths of files or folders, in the subject-based or the
        MICCAI layout, or derived from them.
    scans : pandas.DataFrame, optional
        The table of scans of a release. With it, entries that are not of that release are reported.

    Returns
    -------
    LeakReport
        Patients on two sides, and entries that could not be placed.

    Raises
    ------
    UsageError
        If a side is a single string, or fewer than two sides have an entry.
    """
    if len(split) < 2:
        raise UsageError("A split has at least two sides, such as {'train': [...], 'val': [...]}.")
    for side, entries in split.items():
        if isinstance(entries, str | bytes | Mapping):
            kind = type(entries).__name__
            raise UsageError(f"The side {side!r} is a {kind}; give a list of ids or paths.")
    listed = {_printable(side): list(entries) for side, entries in split.items()}
    if sum(map(bool, listed.values())) < 2:
        empty = ", ".join(side for side, entries in listed.items() if not entries)
        raise UsageError(f"Fewer than two sides have an entry; these are empty: {empty}.")
    patients = _Patients(scans, [entry for entries in listed.values() for entry in entries])
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    unknown, numbers = [], False
    for side, entries in listed.items():
        for entry in entries:
            reading = patients.read(entry)
            numbers |= reading.is_number
            if reading.subject_id is not None:
                found[reading.subject_id][side].append(_printable(entry))
            if reading.problem:
                unknown.append(Unknown(side, _printable(entry), reading.problem))
    leaks = tuple(
        Leak(subject, {side: tuple(entries) for side, entries in sides.items()})
        for subject, sides in sorted(found.items())
        if len(sides) > 1
    )
    counts = {side: sum(side in sides for sides in found.values()) for side in listed}
    return LeakReport(leaks, tuple(unknown), counts, (NUMBER_RULE,) if numbers else ())


def _printable(value: object) -> str:
    """Return text without control characters, which could manipulate a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in str(value)[:500])


def assert_no_leak(
    split: Mapping[str, Iterable[object]], *, scans: pd.DataFrame | None = None
) -> None:
    """Raise unless no patient is on two sides of `split` and every entry could be placed.

    Parameters
    ----------
    split, scans : mapping and pandas.DataFrame
        As in :func:`find_leaks`.

    Raises
    ------
    ValidationFailed
        Lists each such patient with its entries, and each entry that could not be placed; the first
        20 of each, then a count.
    """
    report = find_leaks(split, scans=scans)
    if report.is_clean:
        return
    leaking = counted(len(report.leaks), "patient")
    unplaced = counted(len(report.unknown), "entry", "entries")
    lines = [
        f"The split is not clean: {leaking} on two sides, {unplaced} that could not be placed."
    ]
    lines += [*shown(report.leaks, indent="  "), *shown(report.unknown, indent="  "), *report.notes]
    lines.append("Put each patient on one side, or let release.folds() group them.")
    raise ValidationFailed("\n".join(lines))


class _Reading(NamedTuple):
    """The person that an entry names, if any, and what is wrong with the entry, if anything."""

    subject_id: str | None
    problem: str = ""
    is_number: bool = False


class _Patients:
    """Finds the patient that an entry names; names in a table of scans come first, of any form."""

    def __init__(self, scans: pd.DataFrame | None, entries: Iterable[object]) -> None:
        self._subject_of = subject_of_series()
        self._known: set[str] | None = None
        if scans is not None:
            self._subject_of |= _names_in(scans)
            self._known = set(scans["subject_id"].dropna().astype(str))
        # Names such as verse902_split-verse951 hold subject and series; known series are kept.
        for entry in entries:
            for subject, series in _SERIES.findall(_as_text(entry) or ""):
                self._subject_of.setdefault(series.lower(), subject.lower())

    def read(self, entry: object) -> _Reading:
        """Return the person that `entry` names: an id, a number, a file's name or a path."""
        text = _as_text(entry)
        if text is None:
            return _Reading(None, "is neither text nor a number")
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
            return self._found({f"verse{int(number[1]):03d}"}, is_number=True)
        if not names:
            return _Reading(None, "holds no id such as verse004, sub-verse004 or gl003")
        return self._found(names)

    def _names(self, part: str, *, short: bool, of_release: bool) -> set[str]:
        for name in (part, part.split(".", maxsplit=1)[0]):
            stem = name.lower().removeprefix("sub-")
            if stem in self._subject_of:
                return {stem}
        file = parse_path(part)
        if file is not None and file.subject_id:
            return self._in_file_name(file)
        if number := _SUB_NUMBER.match(part.lower()):
            return {f"verse{int(number[1]):03d}"}
        ids = (_OF_RELEASE.findall(part) if of_release else []) + _ID.findall(part)
        found = _SHORT_ID.match(part) if short and not _RELEASE_THEN_ID.match(part) else None
        pairs = ids or ([found.groups()] if found else [])
        return {f"{prefix.lower() or 'verse'}{int(number):03d}" for prefix, number in pairs}

    def _in_file_name(self, file: FileName) -> set[str]:
        """Return the ids in a file name of either layout: its scan, or its subject and series."""
        if file.scan_id.lower() in self._subject_of:
            return {file.scan_id.lower()}
        names = {self._canonical(file.subject_id)}
        # Other labels, such as the 2 of split-2, only number the series of that subject.
        if file.series_label and re.fullmatch(r"[0-9]{3}|[^0-9]+[0-9]+", file.series_label):
            names.add(self._canonical(file.series_label))
        return names

    def _canonical(self, name: str) -> str:
        """Return an id in its canonical form: verse4, 004 and 4 become verse004."""
        found = re.fullmatch(r"(verse|gl|)([0-9]{1,3})", name.lower())
        if found is None or name.lower() in self._subject_of:
            return name.lower()
        return f"{found[1] or 'verse'}{int(found[2]):03d}"

    def _found(self, names: set[str], *, is_number: bool = False) -> _Reading:
        subjects = {self._subject_of.get(name, name) for name in names}
        if len(subjects) > 1:
            return _Reading(None, f"names several patients: {', '.join(sorted(subjects))}")
        subject = subjects.pop()
        problem = ""
        if self._known is not None:
            if subject not in self._known:
                problem = f"reads as patient {subject}, whom the release does not have"
        elif not _CANONICAL.fullmatch(subject) or subject == "verse000":
            problem = f"reads as {subject}, which is not an id of VerSe such as verse004 or gl003"
        return _Reading(subject, problem, is_number)


def _names_in(scans: pd.DataFrame) -> dict[str, str]:
    """Return the subject of each name (lower case) of a subject, scan or series in a table."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for column in ("subject_id", "scan_id", "series_id", "series_label"):
        for name, subject in zip(scans.get(column, ()), scans["subject_id"], strict=False):
            # The 2 of split-2 only numbers the series of a subject.
            is_number = column == "series_label" and not re.search(r"[A-Za-z]|[0-9]{3}", str(name))
            if pd.notna(name) and pd.notna(subject) and not is_number:
                owners[str(name).lower()].add(str(subject))
    # A name of several subjects identifies none of them.
    return {name: subjects.pop() for name, subjects in owners.items() if len(subjects) == 1}


def _as_text(entry: object) -> str | None:
    if isinstance(entry, os.PathLike):
        entry = os.fspath(entry)
    if isinstance(entry, bool):
        return None
    if isinstance(entry, Real):
        return f"{float(entry):.0f}" if float(entry).is_integer() else None
    return entry.strip().replace("\\", "/") if isinstance(entry, str) else None
