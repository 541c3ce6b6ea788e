"""Several releases as one: which of their scans are the same series, and whose copy is served."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import ValidationFailed, counted

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.tables.index import ScanFiles
    from verse_data.training import LeftOut, ServedScan


Scans = Mapping[str, "ScanFiles"]
Place = tuple[int, str]
"""Number of a release, and the id of a scan in it."""

_PUBLISHED: Final = re.compile(
    r"(?P<series>(?:verse|gl)\d{3}(?:_split-verse\d{3})?)(?P<direction>_dir-[a-z]+)?"
)
"""Ids of VerSe, whose numbers are one series each; MICCAI names may leave the direction out."""

_SHOWN: Final = 5


@dataclass(frozen=True)
class Contribution:
    """What one release contributes to a dataset.

    Attributes
    ----------
    scans : tuple of ServedScan
        Scans whose stores are ready to be read.
    left_out : tuple of LeftOut
        Scans that were asked for and have no CT.
    vertebrae : DataFrame or None
        Rows of its vertebrae table that may be served; None where no sample needs them.
    facts : mapping
        Its provenance; at least ``release``, ``version`` and ``licence``.
    series : mapping
        The files of all its scans by scan id, of those that were not asked for too.
    """

    scans: tuple[ServedScan, ...]
    left_out: tuple[LeftOut, ...]
    vertebrae: pd.DataFrame | None
    facts: Mapping[str, Any]
    series: Mapping[str, ScanFiles]


def same_series(releases: Sequence[Scans]) -> dict[Place, int]:
    """Return the number of the series that each scan is; copies in several releases share it.

    Names come first: one scan id is one series. A scan whose id no release before has is the series
    of one before if its CT has the same bytes, or if the two published names differ in nothing but
    a direction that one of them leaves out; but never if its release has that series by name, or
    as another scan: what one release tells apart stays apart.
    """
    numbers: dict[Place, int] = {}
    known: defaultdict[str, list[int]] = defaultdict(list)
    fresh = count()
    for release, scans in enumerate(releases):
        by_name = {scan_id: known[scan_id][0] for scan_id in scans if scan_id in known}
        taken = set(by_name.values())
        for scan_id, scan in scans.items():
            others = (number for key in _sought(scan) for number in known.get(key, ()))
            number = by_name.get(scan_id, next((n for n in others if n not in taken), None))
            numbers[release, scan_id] = next(fresh) if number is None else number
            taken.add(numbers[release, scan_id])
        for scan_id, scan in scans.items():
            for key in _kept(scan):
                known[key].append(numbers[release, scan_id])
    return numbers


def _kept(scan: ScanFiles) -> Iterator[str]:
    """Yield the keys by which scans of later releases find `scan`."""
    yield scan.scan_id
    if "ct" in scan.files:
        yield scan.files["ct"].sha256
    name = _PUBLISHED.fullmatch(scan.scan_id)
    if name and name["direction"]:
        yield f"{name['series']}_dir-*"


def _sought(scan: ScanFiles) -> Iterator[str]:
    """Yield the keys by which `scan` may be one of an earlier release, though its id is new."""
    if "ct" in scan.files:
        yield scan.files["ct"].sha256
    name = _PUBLISHED.fullmatch(scan.scan_id)
    if name:
        yield name["series"] if name["direction"] else f"{name['series']}_dir-*"


def patients(releases: Sequence[Scans], numbers: Mapping[Place, int]) -> dict[str, str]:
    """Return one id for each subject: that of the first release, where series are of one patient."""
    names: dict[str, str] = {}
    owners: dict[int, str] = {}

    def first(subject: str) -> str:
        while names.setdefault(subject, subject) != subject:
            subject = names[subject]
        return subject

    for (release, scan_id), number in numbers.items():
        subject = first(releases[release][scan_id].subject_id)
        names[subject] = first(owners.setdefault(number, subject))
    return {subject: first(subject) for subject in list(names)}


def assert_no_ct_in_two_splits(releases: Mapping[str, Scans]) -> None:
    """Raise `ValidationFailed` if two releases, by name, have the same CT, byte for byte, in two splits."""
    found: defaultdict[str, list[tuple[str, ScanFiles]]] = defaultdict(list)
    for name, scans in releases.items():
        for scan in scans.values():
            if "ct" in scan.files and scan.split:
                found[scan.files["ct"].sha256].append((name, scan))
    torn = [
        held
        for held in found.values()
        if len({name for name, _ in held}) > 1 and len({scan.split for _, scan in held}) > 1
    ]
    if torn:
        listed = "; ".join(
            " is ".join(f"{scan.scan_id} of {name} in {scan.split}" for name, scan in held)
            for held in torn[:_SHOWN]
        )
        raise ValidationFailed(
            f"{counted(len(torn), 'CT lies', 'CTs lie')} in two splits, byte for byte, so that a "
            f"patient would be trained on and tested: {listed}. Load the releases apart, or move "
            f"the scan to one split, and lock that release again."
        )


def united(parts: Sequence[Contribution], ready: Sequence[Collection[str]]) -> Contribution:
    """Return what several releases contribute as one, every series once.

    A series is served from the first release that has a sample of it; only where none has is the
    first release's copy kept, so that it is listed with its reason.
    """
    import numpy as np
    import pandas as pd

    from verse_data.training import LeftOut

    held = [part.series for part in parts]
    numbers = same_series(held)
    offered = [
        (release, scan_id)
        for release, part in enumerate(parts)
        for scan_id in (*(s.scan_id for s in part.scans), *(s.scan_id for s in part.left_out))
    ]
    source: dict[int, Place] = {}
    for place in sorted(offered, key=lambda place: place[1] not in ready[place[0]]):
        source.setdefault(numbers[place], place)
    kept = set(source.values())
    names = {scan_id for _, scan_id in kept}
    copies = {
        scan_id: LeftOut(scan_id, held[release][scan_id].subject_id, "same_series")
        for release, scan_id in offered
        if scan_id not in names
    }
    scans, left_out, rows = [], [], []
    for release, part in enumerate(parts):
        scans += [scan for scan in part.scans if (release, scan.scan_id) in kept]
        left_out += [scan for scan in part.left_out if (release, scan.scan_id) in kept]
        if part.vertebrae is not None:
            own = [(release, scan_id) in kept for scan_id in part.vertebrae["scan_id"]]
            rows.append(part.vertebrae[np.array(own, dtype=np.bool_)])
    subject = patients(held, numbers)
    vertebrae = pd.concat(rows, ignore_index=True) if rows else None
    if vertebrae is not None:
        vertebrae = vertebrae.assign(subject_id=vertebrae["subject_id"].map(subject))
    return replace(
        parts[0],
        scans=tuple(replace(s, subject_id=subject[s.subject_id]) for s in scans),
        left_out=tuple(
            replace(s, subject_id=subject[s.subject_id]) for s in (*left_out, *copies.values())
        ),
        vertebrae=vertebrae,
    )
