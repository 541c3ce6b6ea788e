"""Which locked files belong to which CT series: by name, never by sorting or position."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from verse_data.errors import UsageError, ValidationFailed, did_you_mean
from verse_data.records.base import LIMIT_BYTES
from verse_data.records.catalog import CatalogEntry, ExpectedSeries
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import (
    FileName,
    Layout,
    Role,
    Split,
    is_called_grading,
    parse_path,
    split_of,
)
from verse_data.records.overlay import Layer, ScanCorrection
from verse_data.records.source_file import SourceFile
from verse_data.releases.catalog import known_series

if TYPE_CHECKING:
    from verse_data.records.centroids import CentroidFile  # brings NumPy along

Content = Callable[[LockedFile], SourceFile | None]
"""Returns the copy of a locked file on this machine, or None if there is none."""

ABOUT: Final = "about.toml"
PATIENTS: Final = "patients.csv"
_DIRECTION: Final = re.compile(r"_dir-[A-Za-z0-9]+")

_T = TypeVar("_T")


@dataclass(frozen=True)
class ScanFiles:
    """One CT series: ids and split, from file names, folders and catalog, and files by role."""

    scan_id: str
    subject_id: str
    series_label: str | None
    series_id: str
    split: Split | None
    files: dict[Role, LockedFile]
    spare: tuple[tuple[Role, LockedFile], ...] = ()
    """Further files of a role; the first by path is used."""
    published: ExpectedSeries | None = None
    """What the catalog says of the series, in the release or in another with the same edition."""
    corrections: tuple[tuple[str, ScanCorrection], ...] = ()
    """What overlays say of it, each after the overlay's name."""
    published_subject: str = ""
    """Its subject as published, where an overlay gives another."""
    terms: str | None = None
    """Its licence, where that is not the release's."""

    @property
    def relabelled(self) -> str:
        """Name of the overlay that gives its vertebrae other levels; empty if none does."""
        return next((name for name, one in self.corrections if one.relabels), "")

    @property
    def own_subject(self) -> str:
        """Its subject in files and tables of the release."""
        return self.published_subject or self.subject_id


@dataclass(frozen=True)
class Withheld:
    """One CT series that is not served: its files, a short reason as in ``excluded``, and why."""

    scan: ScanFiles
    reason: str
    why: str


@dataclass(frozen=True, repr=False)
class Index:
    """All scans of a lock, sorted by id, and its other files."""

    scans: tuple[ScanFiles, ...]
    grading: tuple[LockedFile, ...]
    """Tables that may be the grading workbook, those that are called so first; their content decides."""
    unknown: tuple[LockedFile, ...]
    """Files whose names fit no role."""
    catalog: CatalogEntry | None = None
    patients: LockedFile | None = None
    """``patients.csv``: age, sex, density and T-score of persons."""
    about: LockedFile | None = None
    """``about.toml`` at the root: title, licence and citations of a release that the catalog lacks."""
    scan_ids: Mapping[str, str] = field(default_factory=dict)
    """Scan of each file by path; irregular MICCAI names are mapped to the published id."""
    layers: tuple[Layer, ...] = ()
    """Overlays that lie over it."""
    withheld: tuple[Withheld, ...] = ()
    """Scans of the lock that are left out of everything."""

    @property
    def listed(self) -> tuple[ScanFiles, ...]:
        """All scans of the lock, those that are left out too."""
        return (*self.scans, *(one.scan for one in self.withheld))

    def licence_of(self, scan: ScanFiles) -> str:
        """Return the licence of a scan: its own terms, else the release's."""
        return scan.terms or (self.catalog.licence if self.catalog else "unknown")

    def licensed(self, allowed: Collection[str], *, release: str) -> Index:
        """Return the index with only scans under one of these licences; the others are withheld."""
        listed_ids = {scan.scan_id for scan in self.listed}
        for name in self.catalog.terms if self.catalog else ():
            if name not in listed_ids:
                raise UsageError(
                    f"{ABOUT} gives terms of {name!r}, and there is no such scan."
                    f"{did_you_mean(name, listed_ids)} Correct it, and lock the release again."
                )
        under = {scan.scan_id: self.licence_of(scan) for scan in self.scans}
        listed = ", ".join(allowed)
        out = {
            scan_id: f"its licence is {terms}, not {listed}"
            for scan_id, terms in under.items()
            if terms not in allowed
        }
        if len(out) == len(self.scans):
            known = dict.fromkeys(under.values())
            raise UsageError(
                f"licence={listed}: no scan of {release} is left; its scans are under {', '.join(known)}."
                f"{did_you_mean(listed, known)}"
            )
        return self.without(out, "licence")

    def without(self, why: Mapping[str, str], reason: str) -> Index:
        """Return the index with some scans withheld: `why`, by id, and a short reason."""
        out = (Withheld(one, reason, why[one.scan_id]) for one in self.scans if one.scan_id in why)
        kept = tuple(scan for scan in self.scans if scan.scan_id not in why)
        return replace(self, scans=kept, withheld=(*self.withheld, *out))

    @property
    def of_all(self) -> tuple[LockedFile, ...]:
        """The files that belong to all scans."""
        return (*self.grading, *filter(None, (self.patients, self.about)))

    @cached_property
    def shared_series(self) -> frozenset[str]:
        """Series ids of more than one scan; their names differ in ``ses-``, ``ce-`` or ``dir-``."""
        series = grouped(self.listed, lambda scan: scan.series_id)
        return frozenset(name for name, scans in series.items() if len(scans) > 1)


def finder_of(scans: Iterable[ScanFiles]) -> Callable[[str], ScanFiles | None]:
    """Return what finds a scan by its id, with or without the direction, which MICCAI names omit.

    Where one scan fits, its series is enough, and so is the number 1 for 001.
    """
    known = {scan.scan_id: scan for scan in scans}
    short: dict[str, ScanFiles | None] = {}
    for scan in known.values():
        number = str(int(scan.scan_id)) if scan.scan_id.isdecimal() else scan.series_id
        for name in {scan.series_id, _DIRECTION.sub("", scan.scan_id), number}:
            short[name] = None if name in short else scan
    return lambda name: known.get(name) or short.get(name) or known.get(_DIRECTION.sub("", name))


def scan_file(scan: ScanFiles, role: Role, content: Content) -> SourceFile | None:
    """Return a file of a scan as it is to be read; None if it is not listed or not here.

    All masks and centroids of tables and stores, and so of crops, exports and views, pass through
    this function: it is the place to substitute corrected files for the published ones.
    """
    locked = scan.files.get(role)
    return content(locked) if locked else None


def read_centroids(file: SourceFile) -> CentroidFile:
    """Return the points of a centroid file, or raise one of our errors."""
    from verse_data.records.centroids import parse_centroids

    return parse_centroids(read_small(file), name=file.name)


def read_small(file: SourceFile) -> bytes:
    """Return the bytes of a JSON file, if it is not too large to be one of VerSe's."""
    if file.size > LIMIT_BYTES:
        raise ValidationFailed(
            f"{file.name}: {file.size:,} bytes of JSON are over the limit of {LIMIT_BYTES:,}."
        )
    return file.read()


def index_scans(lock: ReleaseLock, *, catalog: CatalogEntry | None = None) -> Index:
    """Return which files of `lock` belong to which scan."""
    grading, unknown = [], []
    patients = about = None
    placed: list[tuple[FileName, LockedFile]] = []
    for file in lock.files:
        name = parse_path(file.path)
        if file.path == ABOUT:
            about = file
        elif patients is None and base_name(file.path) == PATIENTS:
            patients = file
        elif name is None:
            unknown.append(file)
        elif name.role == "grading":
            grading.append(file)
        else:
            placed.append((name, file))
    grading.sort(key=lambda file: not is_called_grading(base_name(file.path)))
    known = known_series(catalog)
    groups = _by_scan(placed, known)
    scans = [_scan(group, catalog, known) for group in groups]
    owners = zip(groups, scans, strict=True)
    return Index(
        tuple(sorted(scans, key=lambda scan: scan.scan_id)),
        tuple(grading),
        tuple(unknown),
        catalog,
        patients,
        about,
        {file.path: scan.scan_id for group, scan in owners for _, file in group},
    )


def grouped(things: Iterable[_T], key: Callable[[_T], str]) -> dict[str, list[_T]]:
    """Return `things` grouped by `key`, in their order."""
    groups: defaultdict[str, list[_T]] = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return groups


def base_name(path: str) -> str:
    """Return the name of a file without its folders, in lower case."""
    return path.rsplit("/", 1)[-1].lower()


def folder_split(path: str, catalog: CatalogEntry | None) -> Split | None:
    """Return the split of a path: by a root folder of the catalog, else by the folder's name."""
    roots = catalog.roots if catalog else {}
    split_of_root = {root: split for split, names in roots.items() for root in names}
    folders = path.split("/")[:-1]
    known = (split_of_root[folder] for folder in folders if folder in split_of_root)
    return next(known, None) or split_of(path)


_Group = list[tuple[FileName, LockedFile]]
_Known = Mapping[str, ExpectedSeries]


def _by_scan(placed: _Group, known: _Known) -> list[_Group]:
    """Return the files of each scan, subject-based names first."""
    groups: defaultdict[tuple[Layout, str], _Group] = defaultdict(list)
    # A MICCAI file beside subject-based ones belongs to the scan that they name.
    for name, file in sorted(placed, key=lambda item: item[0].layout == "miccai"):
        place: tuple[Layout, str] = ("subject", _scan_id(name, known))
        if name.layout == "miccai" and place not in groups:
            # MICCAI names of one series may differ in their middle part; the series' own does not.
            place = ("miccai", name.series_id)
        groups[place].append((name, file))
    return list(groups.values())


def _scan_id(name: FileName, known: _Known) -> str:
    """Return the id of a scan: of a MICCAI name, which may lack the direction, the published one."""
    published = known.get(name.series_id) if name.layout == "miccai" else None
    return published.scan_id if published else name.scan_id


def _scan(group: _Group, catalog: CatalogEntry | None, known: _Known) -> ScanFiles:
    """Return one scan; where the catalog knows the series, its person is the published one."""
    name = group[0][0]
    files: dict[Role, LockedFile] = {}
    for own, file in group:
        files.setdefault(own.role, file)
    splits = (folder_split(file.path, catalog) for file in files.values())
    split, subject = next((split for split in splits if split), None), name.subject_id
    published = known.get(name.series_id)
    if published:
        split, subject = split or published.split, published.subject_id
    # MICCAI snapshots come in pairs; of everything else a scan has one.
    rest = ((own.role, file) for own, file in group if files[own.role] is not file)
    spare = tuple((role, file) for role, file in rest if role != "snapshot")
    terms = published.terms if published else (catalog.terms if catalog else {}).get(name.scan_id)
    ids = _scan_id(name, known), subject, name.series_label, name.series_id
    return ScanFiles(*ids, split, files, spare, published, terms=terms)


def preferred(
    releases: Sequence[Mapping[str, ScanFiles]],
    numbers: Mapping[tuple[int, str], int],
    graded: Sequence[bool],
) -> set[tuple[int, str]]:
    """Return one copy of each series: with most files, of a release that is `graded`, or the first."""

    def rank(place: tuple[int, str]) -> tuple[int, bool, int]:
        number, scan_id = place
        files = releases[number][scan_id].files
        return -len({"ct", "mask", "centroids"} & files.keys()), not graded[number], number

    best: dict[int, tuple[int, str]] = {}
    for place in sorted(numbers, key=rank):
        best.setdefault(numbers[place], place)
    return set(best.values())


def assert_one_split_each(subjects: Iterable[tuple[str, str]]) -> None:
    """Raise ValidationFailed if a subject, given with the split of each of its scans, is in two."""
    # GL003 and gl003 are two spellings of one person, not two people.
    sides: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for subject, split in subjects:
        sides[subject.lower()].setdefault(split, subject)
    twice = [
        " and ".join(f"{subject} in {name}" for name, subject in found.items())
        for found in sides.values()
        if len(found) > 1
    ]
    if twice:
        raise ValidationFailed(
            f"{len(twice)} subjects are in two published splits: {'; '.join(twice[:20])}."
        )
