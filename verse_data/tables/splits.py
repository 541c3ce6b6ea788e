"""The published splits, and which series belong to one person, also across releases."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from verse_data.errors import ValidationFailed, counted, one_of
from verse_data.problems import listed
from verse_data.records.catalog import CatalogEntry
from verse_data.records.names import SPLITS, SUBJECT_OF_SERIES, Split
from verse_data.tables.index import ScanFiles, assert_one_split_each

if TYPE_CHECKING:
    import pandas as pd

Scans = Mapping[str, ScanFiles]
"""The scans of one release, by scan id."""
Place = tuple[int, str]
"""Position of a release, and the id of a scan in it."""
_PUBLISHED: Final = re.compile(
    r"(?P<series>(?:verse|gl)\d{3}(?:_split-verse\d{3})?)(?P<direction>_dir-[a-z]+)?"
)
"""Ids of VerSe, where each number is one series; MICCAI names may omit the direction."""
_SHOWN: Final = 5


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


# --- several releases: which of their scans are the same series ---------------------------------


def same_series(releases: Sequence[Scans]) -> dict[Place, int]:
    """Return a series number for each scan; copies of a series in several releases share one.

    Equal scan ids are one series. A scan with a new id is a series of an earlier release if its CT
    has the same bytes, or if the two published names differ only by a direction that one omits; but
    not if its own release already has that series under another id: two scans of one release are
    never merged.
    """
    numbers: dict[Place, int] = {}
    known: defaultdict[str, list[int]] = defaultdict(list)
    for release, scans in enumerate(releases):
        by_name = {scan_id: known[scan_id][0] for scan_id in scans if scan_id in known}
        taken = set(by_name.values())
        for scan_id, scan in scans.items():
            others = (number for key in _keys(scan)[1] for number in known.get(key, ()))
            number = by_name.get(scan_id, next((n for n in others if n not in taken), len(numbers)))
            numbers[release, scan_id] = number
            taken.add(number)
        for scan_id, scan in scans.items():
            for key in _keys(scan)[0]:
                known[key].append(numbers[release, scan_id])
    return numbers


def _keys(scan: ScanFiles) -> tuple[list[str], list[str]]:
    """Return the keys that `scan` is found by in later releases, and those it looks up in earlier."""
    content = [scan.files["ct"].sha256] if "ct" in scan.files else []
    kept, sought = [scan.scan_id, *content], content
    if name := _PUBLISHED.fullmatch(scan.scan_id):
        any_direction = f"{name['series']}_dir-*"
        kept = [*kept, any_direction] if name["direction"] else kept
        sought = [*sought, name["series"] if name["direction"] else any_direction]
    return kept, sought


def patients(releases: Sequence[Scans], numbers: Mapping[Place, int]) -> dict[str, str]:
    """Return one id per subject; subjects that share a series get the id of the first release."""
    names: dict[str, str] = {}
    owners: dict[int, str] = {}

    def first(subject: str) -> str:
        while names.setdefault(subject, subject) != subject:
            subject = names[subject]
        return subject

    for (release, scan_id), number in numbers.items():
        scan = releases[release][scan_id]
        subject = first(scan.subject_id)
        names[subject] = first(owners.setdefault(number, subject))
        # Another release, without the overlay, has the patient under the published id.
        names[first(scan.own_subject)] = first(subject)
    return {subject: first(subject) for subject in list(names)}


def check_splits(releases: Mapping[str, Scans]) -> None:
    """Raise `ValidationFailed` if a patient is in two splits, in one or across `releases` (by name)."""
    held = list(releases.values())
    copies: defaultdict[str, list[tuple[str, ScanFiles]]] = defaultdict(list)
    for name, scans in releases.items():
        for scan in scans.values():
            if "ct" in scan.files and scan.split:
                copies[scan.files["ct"].sha256].append((name, scan))
    leaking = [
        " is ".join(f"{scan.scan_id} of {name} in {scan.split}" for name, scan in found)
        for found in copies.values()
        if len({name for name, _ in found}) > 1 and len({scan.split for _, scan in found}) > 1
    ]
    if leaking:
        raise ValidationFailed(
            f"{counted(len(leaking), 'CT lies', 'CTs lie')} in two splits, byte for byte, so that a "
            f"patient would be trained on and tested: {'; '.join(leaking[:_SHOWN])}. Load the releases "
            f"apart, or move the scan to one split, and lock that release again."
        )
    subject = patients(held, same_series(held))
    every = (scan for scans in held for scan in scans.values())
    assert_one_split_each((subject[s.subject_id], s.split) for s in every if s.split)
