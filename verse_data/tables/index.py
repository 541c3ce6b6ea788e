"""Which locked files belong to which CT series: by name, never by sorting or position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from verse_data.errors import ValidationFailed
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
from verse_data.records.source_file import SourceFile
from verse_data.releases.catalog import known_series

if TYPE_CHECKING:
    from verse_data.records.centroids import CentroidFile  # brings NumPy along

Content = Callable[[LockedFile], SourceFile | None]
"""Returns the copy of a locked file on this machine, or None if there is none."""

ABOUT: Final = "about.toml"
PATIENTS: Final = "patients.csv"

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

    @property
    def of_all(self) -> tuple[LockedFile, ...]:
        """The files that belong to all scans."""
        return (*self.grading, *filter(None, (self.patients, self.about)))

    @cached_property
    def shared_series(self) -> frozenset[str]:
        """Series ids of more than one scan; their names differ in ``ses-``, ``ce-`` or ``dir-``."""
        series = grouped(self.scans, lambda scan: scan.series_id)
        return frozenset(name for name, scans in series.items() if len(scans) > 1)


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
    ids = _scan_id(name, known), subject, name.series_label, name.series_id
    return ScanFiles(*ids, split, files, spare, published)


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
