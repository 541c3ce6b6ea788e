"""Does anybody sit on two sides of a split? Any split, however its entries are written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

import pandas as pd

from verse_data.errors import UsageError, ValidationFailed, counted
from verse_data.tables.leaks_entries import NUMBER_RULE, Patients

_SHOWN: Final = 20


@dataclass(frozen=True)
class Leak:
    """A patient on more than one side.

    Attributes
    ----------
    subject_id : str
        The patient.
    entries : dict
        Side to the entries, as given, that name this patient there.
    """

    subject_id: str
    entries: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        """Name the patient, the sides and the entries that prove it."""
        sides = (f"{side} ({', '.join(entries)})" for side, entries in self.entries.items())
        return f"{self.subject_id}: {' and '.join(sides)}"


@dataclass(frozen=True)
class Unknown:
    """An entry that names no patient, or none of the release.

    Attributes
    ----------
    side, entry : str
        Where it stands, and as given.
    reason : str
        Why it is here.
    """

    side: str
    entry: str
    reason: str

    def __str__(self) -> str:
        """Say side, entry and reason in one line."""
        return f"{self.side}: {self.entry!r} {self.reason}"


@dataclass(frozen=True)
class LeakReport:
    """What a split's entries say about who sits where.

    Attributes
    ----------
    leaks : tuple of Leak
        Patients on more than one side, sorted.
    unknown : tuple of Unknown
        Entries that could not be placed, in their order. Those that name a patient outside the
        release are compared all the same.
    patients : dict
        Number of different patients on each side.
    notes : tuple of str
        Rules that were needed to read the entries.
    """

    leaks: tuple[Leak, ...]
    unknown: tuple[Unknown, ...]
    patients: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nobody leaks, and every entry could be placed."""
        return not self.leaks and not self.unknown

    def __str__(self) -> str:
        """Say everything, a line each."""
        counts = ", ".join(f"{side} {number}" for side, number in self.patients.items())
        leaking = counted(len(self.leaks), "patient sits", "patients sit")
        unplaced = counted(len(self.unknown), "entry", "entries")
        lines = [
            f"Patients: {counts}.",
            f"{leaking} on two sides:" if self.leaks else "No patient sits on two sides.",
            *(f"  {leak}" for leak in self.leaks),
            *([f"{unplaced} could not be placed:"] if self.unknown else []),
            *(f"  {entry}" for entry in self.unknown),
        ]
        # Entries are somebody's file: what is not printable could steer the terminal.
        return "\n".join(
            "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
            for line in [*lines, *self.notes]
        )


def find_leaks(
    split: Mapping[str, Iterable[object]], *, scans: pd.DataFrame | None = None
) -> LeakReport:
    """Find the patients that sit on more than one side of `split`.

    Parameters
    ----------
    split : mapping of str to iterable
        Name of each side to its entries: scan, series or subject ids, padded or not, with or
        without ``sub-``; numbers; names or paths of files or folders, in the subject-based or the
        MICCAI layout, or derived from them.
    scans : pandas.DataFrame, optional
        The table of scans of a release. With it, entries that are not of that release are told.

    Returns
    -------
    LeakReport
        Patients on two sides, and entries that could not be placed.

    Raises
    ------
    UsageError
        If a side is a single text, or there are fewer than two sides.
    """
    if len(split) < 2:
        raise UsageError("A split has at least two sides, such as {'train': [...], 'val': [...]}.")
    patients = Patients(scans)
    listed = {side: _as_list(side, entries) for side, entries in split.items()}
    for entries in listed.values():
        patients.learn(entries)
    readings = {side: [patients.read(entry) for entry in listed[side]] for side in listed}
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for side, read in readings.items():
        for reading in read:
            if reading.subject_id is not None:
                found[reading.subject_id][side].append(reading.entry)
    leaks = tuple(
        Leak(subject, {side: tuple(entries) for side, entries in sides.items()})
        for subject, sides in sorted(found.items())
        if len(sides) > 1
    )
    unknown = tuple(
        Unknown(side, reading.entry, reading.problem)
        for side, read in readings.items()
        for reading in read
        if reading.problem
    )
    counts = {side: sum(side in sides for sides in found.values()) for side in readings}
    numbers = any(reading.is_number for read in readings.values() for reading in read)
    return LeakReport(leaks, unknown, counts, (NUMBER_RULE,) if numbers else ())


def assert_no_leak(
    split: Mapping[str, Iterable[object]], *, scans: pd.DataFrame | None = None
) -> None:
    """Raise unless nobody sits on two sides of `split` and every entry could be placed.

    Parameters
    ----------
    split, scans : mapping and pandas.DataFrame
        As in :func:`find_leaks`.

    Raises
    ------
    ValidationFailed
        Naming each patient with the entries that prove it, and each entry that names nobody; the
        first 20 of each, then a count.
    """
    report = find_leaks(split, scans=scans)
    if report.is_clean:
        return
    heading = (
        f"The split is not clean: {counted(len(report.leaks), 'patient', 'patients')} on two sides, "
        f"{counted(len(report.unknown), 'entry', 'entries')} that could not be placed."
    )
    advice = "Put each patient on one side, or let release.folds() group them."
    lines = [heading, *_first(report.leaks), *_first(report.unknown), *report.notes, advice]
    raise ValidationFailed("\n".join(lines))


def _as_list(side: str, entries: Iterable[object]) -> list[object]:
    if isinstance(entries, str | bytes | Mapping):
        message = f"The side {side!r} is a {type(entries).__name__}; give a list of ids or paths."
        raise UsageError(message)
    return list(entries)


def _first(things: tuple[Leak, ...] | tuple[Unknown, ...]) -> list[str]:
    lines = [f"  {thing}" for thing in islice(things, _SHOWN)]
    return lines + ([f"  and {len(things) - _SHOWN} more"] if len(things) > _SHOWN else [])
