"""The grading workbook of a release: whether it is here, the error if not, and adopting one."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from verse_data.errors import FILE_FAULTS, ContentMissing, UsageError, counted
from verse_data.files import FileDigests, digest_file
from verse_data.progress import Progress, silent
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import role_of
from verse_data.records.tables import LIST_COLUMNS
from verse_data.releases.adopt import AdoptReport, check_sources
from verse_data.releases.history import command, unless_newest
from verse_data.releases.import_lock import NotNewest
from verse_data.releases.repository import Repository
from verse_data.releases.tree import walk
from verse_data.tables.index import Index, index_scans
from verse_data.tables.patients import FILLED

_E1: Final = (
    "supplement E1 of Löffler et al. 2020, Radiology: Artificial Intelligence, "
    "https://doi.org/10.1148/ryai.2020190138"
)
_HOLDS: Final = "fracture grades, foreign material, bone density, ages"


@dataclass(frozen=True)
class Workbook:
    """Whether the grades of a version are here or can be fetched, and the errors where they are not."""

    files: Repository
    version: str
    index: Index
    catalog: CatalogEntry | None

    @property
    def others(self) -> Mapping[str, object]:
        """Why tables that are here are not the workbook, by path."""
        from verse_data.tables.workbook import sort_tables

        return sort_tables(map(self.files.source, filter(self.files.has, self.index.grading)))[1]

    @property
    def listed(self) -> list[LockedFile]:
        """The tables that are the workbook of the version, or may be, as they are not here."""
        others = self.others if self.index.grading else {}
        files = [file for file in self.index.grading if file.path not in others]
        return [*filter(self.files.has, files)] or files

    @property
    def is_listed(self) -> bool:
        """Whether the version lists a workbook, as far as is known."""
        return bool(self.listed)

    @property
    def was_published(self) -> bool:
        """Whether there are grades to be had: of VerSe'20, nobody has published any."""
        published = self.catalog is None or not self.catalog.expected or self.catalog.supplements
        return bool(published) or self.is_listed

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return any(map(self.files.has, self.listed))

    @property
    def can_be_fetched(self) -> bool:
        """Whether an address, or a sibling in a folder, may have it."""
        listed = self.listed
        return bool(listed) and (
            bool(self.files.siblings()) or any(self.files.addresses(file) for file in listed)
        )

    def absence(self) -> str:
        """Return the message for a workbook that is not here: where to get it, and what to type."""
        version = unless_newest(self.files, self.version)
        if listed := self.listed:
            what = f"The grading workbook {listed[0].path} ({_HOLDS}) is not on this machine"
            if self.can_be_fetched:
                get = command(self.files, "get", "--role", "grading", version=version)
                return f"{what}. Fetch it: {get}"
        else:
            what = f"{self.files.name} {self.version} lists no grading workbook ({_HOLDS})"
            versions = self.files.versions()
            later = reversed(versions[versions.index(self.version) + 1 :])
            found = next((v for v in later if index_scans(self.files.lock(v)).grading), None)
            if found:
                way = f"open version={found!r} (--version {found}), or the newest again"
                return f"{what}. {found} lists one: {way}"
            version = None  # it would become part of the next version
        published = {e.sha256: e.path for e in (self.catalog.supplements if self.catalog else ())}
        files = {file.sha256: file.path for file in listed} or published
        name = shlex.quote([*files.values(), "WORKBOOK.xlsx"][0].rsplit("/", 1)[-1])
        origin = (
            f"Bring grades as a .csv with a line for each vertebra ({', '.join(LIST_COLUMNS)}), or as "
            f"an .xlsx or .csv with the sheet and headings of {_E1}"
        )
        if files.keys() & published.keys():
            origin = f"It is {_E1}; OSF does not have it. Download it there"
        adopt = command(self.files, "adopt", name, version=version)
        return f"{what}. {origin}, then: {adopt}"

    def require(self, columns: Iterable[str], *, asked: str) -> None:
        """Raise `ContentMissing` if one of `columns` comes from the workbook, and that is not here."""
        # Without it these columns are empty, and so would be the answer to what is `asked`.
        filled = FILLED if self.index.patients else ()
        needed = [name for name in workbook_columns_of(columns) if name not in filled]
        if needed and not self.is_here:
            raise ContentMissing(
                f"{asked} needs {' and '.join(needed)}, which only the grading workbook holds. "
                f"{self.absence()}"
            )

    def require_obtainable(self) -> None:
        """Raise `ContentMissing` if the listed workbook is neither here nor can be fetched."""
        if self.is_listed and not (self.is_here or self.can_be_fetched):
            raise ContentMissing(
                f"What is to be served needs the grades of the vertebrae. {self.absence()}"
            )


def workbook_columns_of(columns: Iterable[str]) -> list[str]:
    """Return those of `columns` that only the grading workbook fills."""
    from verse_data.tables.columns import workbook_columns

    return [name for name in columns if name in workbook_columns()]


def require_listed(workbooks: Sequence[Workbook], unit: str, options: Mapping[str, Any]) -> None:
    """Raise `ContentMissing` if no release lists a workbook, and these options need its grades."""
    asked, way = "sampling='grade'", "sampling='level' serves patches"
    if unit != "patch":
        asked, way = f"unit='{unit}'", "include=('graded', 'not_assessed') serves vertebrae"
    needed = unit == "patch" or "not_assessed" not in options.get("include", ())
    if needed and not any(workbook.is_listed for workbook in workbooks):
        raise ContentMissing(
            f"{asked} needs the grades of the vertebrae, so there is nothing to serve. {way} "
            f"without them. {workbooks[0].absence()}"
        )


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What one call of :func:`adopt` did.

    `version` is the one that files were adopted for; `workbook` the path of the new workbook that
    it was made for, if any; `refused` maps tables in a folder to why they are no such workbook.
    """

    report: AdoptReport
    version: str
    workbook: str
    refused: dict[str, str]


def adopt(
    dataset: Repository,
    sources: Sequence[Path | str],
    version: str | None = None,
    *,
    progress: Progress = silent,
) -> Adoption:
    """Copy the files in `sources` that belong to a version into the dataset.

    A grading workbook becomes part of the next version if the newest one lists none; its sheet,
    headings and cells are checked before anything is written. A table that was named and is no such
    workbook is an error; one that was found in a folder is in ``refused``.
    """
    resolved = dataset.resolve(version)
    check_sources(sources)
    while True:
        found, refused = _new_workbook(dataset, sources, resolved)
        if found is None:
            break
        if version is not None and resolved != dataset.resolve():
            raise UsageError(
                f"{found.path} is a grading workbook that {dataset.name} {resolved} does not list, and "
                f"only the newest version can take one in: leave --version out."
            )
        try:
            lock = dataset.lock(resolved)
            files = tuple(sorted((*lock.files, found), key=lambda held: held.path))
            new = ReleaseLock(release=lock.release, source=lock.source, files=files)
            resolved = dataset.publish(new, after=resolved)
            break
        except NotNewest:  # another process was first; its version may list another workbook
            resolved = dataset.resolve()
    report = dataset.adopt(sources, resolved, progress=progress)
    path = found.path if found else ""
    return Adoption(report=report, version=resolved, workbook=path, refused=refused)


def _new_workbook(
    dataset: Repository, sources: Sequence[Path | str], version: str
) -> tuple[LockedFile | None, dict[str, str]]:
    """Return the workbook in `sources` that `version` can take in, and why other tables are not one."""
    lock = dataset.lock(version)
    known = {(file.size, file.sha256) for file in lock.files}
    names = {path.rpartition("/")[2] for path in lock.by_path}
    found: dict[str, LockedFile] = {}
    refused: dict[str, str] = {}
    for path, is_named in _tables(sources):
        measured = digest_file(path)
        if (measured.size, measured.sha256) in known:
            continue
        try:
            _check_cells(path, dataset, lock)
            found[measured.sha256] = _workbook_entry(path, measured, dataset, lock)
        except (UsageError, *FILE_FAULTS) as error:
            if is_named:
                raise
            if path.name not in names:  # files with a locked name are reported as different
                refused[str(path)] = str(error)
    if len(found) > 1:
        listed = ", ".join(sorted(file.path for file in found.values()))
        raise UsageError(
            f"{len(found)} different grading workbooks were given: {listed}. A release has one: "
            f"adopt that alone. Nothing was written."
        )
    return next(iter(found.values()), None), refused


def _tables(sources: Sequence[Path | str]) -> Iterator[tuple[Path, bool]]:
    """Yield every file that may be a workbook, and whether it was named or found in a folder."""
    for source in map(Path, sources):
        for path in walk(source).files:
            is_called = role_of(path.name) == "grading"
            if is_called or (path == source and path.suffix.lower() == ".csv"):
                yield path, path == source


def _check_cells(path: Path, dataset: Repository, lock: ReleaseLock) -> None:
    """Raise one of our errors unless `path` holds valid gradings of scans of the release."""
    from verse_data.tables.check import check_workbook
    from verse_data.tables.workbook import read_sheet

    scans, sheet = index_scans(lock).scans, read_sheet(path, name=str(path))
    grading = check_workbook(sheet, scans, dataset.local, derived=dataset.config.derived)
    series = {scan.series_id for scan in scans}
    if not series & {graded.row.series_id for graded in grading.rows}:
        raise UsageError(
            f"{path} has {counted(len(grading.rows), 'row')}, and none of a scan of {dataset.name}, such "
            f"as {min(series, default='verse004')}. Is it the workbook of another release?"
        )


def _workbook_entry(
    path: Path, measured: FileDigests, dataset: Repository, lock: ReleaseLock
) -> LockedFile:
    """Return the lock's entry for the workbook at `path`; `UsageError` if the lock lists another."""
    if old := next(iter(Workbook(dataset, "", index_scans(lock), None).listed), None):
        raise UsageError(
            f"{path} is a grading workbook (sha256 {measured.sha256[:12]}), and {dataset.name} lists "
            f"another: {old.path} (sha256 {old.sha256[:12]}). A release has one, and nothing was "
            f"written. For other grades, make a release of your own: "
            f"verse-data lock NAME --from-tree FOLDER"
        )
    taken = {old.path.casefold() for old in lock.files}
    # Its own name, or one that says that it is the workbook.
    for name in (path.name, f"grading{path.suffix.lower()}"):
        if name.casefold() not in taken and role_of(name) == "grading":
            return LockedFile(path=name, **vars(measured))
    raise UsageError(f"{path}: {dataset.name} lists other files of this name. Rename it.")
