"""Adopting what lies on disk; a grading workbook also where no version of the release lists one yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from verse_data.errors import FILE_FAULTS, UsageError, ValidationFailed, counted
from verse_data.files import digest_file, staging
from verse_data.progress import Progress, silent
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import parse_path
from verse_data.records.source_file import SourceFile
from verse_data.releases.adopt import check_sources
from verse_data.releases.publish import NotNewest
from verse_data.releases.tree import lock_tree, walk_files

if TYPE_CHECKING:
    from verse_data.releases.adopt import AdoptReport
    from verse_data.releases.dataset import ReleaseDataset
    from verse_data.tables.workbook import Sheet


PHANTOM: Final = "phantom"
"""Name of the made-up release."""

_ENDINGS: Final = {".xlsx", ".csv"}
Source = Path | str


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What one call of :func:`adopt` did.

    Attributes
    ----------
    report : AdoptReport
        What was found of the version's files.
    version : str
        The version that contents were adopted for.
    workbook : str
        Path of a grading workbook for whose sake this version was made; empty if none was.
    refused : dict of str to str
        Why tables that lay in a folder, and that no version lists, are no workbook to adopt.
    """

    report: AdoptReport
    version: str
    workbook: str
    refused: dict[str, str]


def adopt(
    dataset: ReleaseDataset,
    sources: Sequence[Source],
    version: str | None = None,
    *,
    progress: Progress = silent,
) -> Adoption:
    """Copy what lies in `sources` and belongs to a version into the dataset.

    A grading workbook that the newest version does not list becomes part of the next version, if
    that has none yet. What is a workbook is told by its sheet, headings and cells, all of which are
    checked before anything is written.

    Raises
    ------
    UsageError
        If a source does not exist, or is a second workbook, which the release has no place for.
    ValidationFailed, SheetRefused
        If a table that was named breaks a rule of the grading workbook. Those that merely lie in a
        folder are in ``refused``.
    """
    resolved = dataset.resolve(version)
    check_sources(sources)
    while True:
        newest = resolved if version is None else dataset.resolve()
        found, refused = _new_workbook(dataset, sources, resolved, newest)
        if found is None:
            break
        try:
            resolved = dataset.publish(_with(dataset.lock(resolved), found), after=resolved)
            break
        except NotNewest:  # another process was first; its version may list another workbook
            resolved = dataset.resolve()
    report = dataset.adopt(sources, resolved, progress=progress)
    path = found.path if found else ""
    return Adoption(report=report, version=resolved, workbook=path, refused=refused)


def _new_workbook(
    dataset: ReleaseDataset, sources: Sequence[Source], version: str, newest: str
) -> tuple[LockedFile | None, dict[str, str]]:
    """Return the workbook in `sources` that `version` can take in, and why other tables are none."""
    lock = dataset.lock(version)
    known = {(file.size, file.sha256) for file in lock.files}
    names = {path.rpartition("/")[2] for path in lock.by_path}
    found: dict[str, LockedFile] = {}
    refused: dict[str, str] = {}
    for path, named in _tables(sources):
        measured = digest_file(path)
        if (measured.size, measured.sha256) in known or measured.sha256 in found:
            continue
        file = LockedFile(
            path=path.name, size=measured.size, sha256=measured.sha256, md5=measured.md5
        )
        try:
            _check_cells(path, dataset, lock)
            if version != newest:
                _refuse_older(path, file, dataset, version, newest)
            _check_place(path, file, dataset, lock)
        except (UsageError, *FILE_FAULTS) as error:
            if named:
                raise
            if path.name not in names:  # those that have a locked name are reported as different
                refused[str(path)] = str(error)
            continue
        found[file.sha256] = file
    if len(found) > 1:
        listed = ", ".join(sorted(file.path for file in found.values()))
        raise UsageError(
            f"{len(found)} different grading workbooks were given: {listed}. A release has one: "
            f"adopt that alone. Nothing was written."
        )
    return next(iter(found.values()), None), refused


def _tables(sources: Sequence[Source]) -> Iterator[tuple[Path, bool]]:
    """Yield every file that may be a workbook, and whether it was named or lies in a folder."""
    for source in map(Path, sources):
        if source.is_dir():
            yield from ((path, False) for path in walk_files(source) if _is_named_so(path.name))
        elif source.suffix.lower() in _ENDINGS and source.is_file():
            yield source, True


def _is_named_so(name: str) -> bool:
    parsed = parse_path(name)
    return parsed is not None and parsed.role == "grading"


def _check_cells(path: Path, dataset: ReleaseDataset, lock: ReleaseLock) -> None:
    """Raise one of our errors unless `path` holds gradings of scans of the release, all of them right."""
    from verse_data.tables.build import may_lack_t12
    from verse_data.tables.grading import check_sheet
    from verse_data.tables.index import index_scans
    from verse_data.tables.sources import read_sources

    scans, sheet = index_scans(lock).scans, _read(path)
    series = {scan.series_id for scan in scans}
    grading = check_sheet(sheet, without_t12=series)
    if not series & {graded.row.series_id for graded in grading.rows}:
        raise UsageError(
            f"{path} has {counted(len(grading.rows), 'row')}, and none of a scan of {dataset.name}, such "
            f"as {next(iter(sorted(series)), 'verse004')}. Is it the workbook of another release?"
        )
    try:
        check_sheet(sheet)
    except ValidationFailed:
        # A spine without T12 is no gap in the grades; only masks and centroids tell which it is.
        def content(file: LockedFile) -> SourceFile | None:
            return dataset.source(file) if dataset.has(file) else None

        sources = read_sources(scans, content, derived=dataset.config.derived, progress=silent)
        check_sheet(sheet, without_t12=may_lack_t12(sources))


def _read(path: Path) -> Sheet:
    """Read the sheet at `path`; say of a text that is called .xlsx what it is, and not what it lacks."""
    from verse_data.tables.workbook import read_sheet

    try:
        return read_sheet(path, name=str(path))
    except ValidationFailed as error:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        if path.suffix.lower() != ".xlsx" or is_zip:
            raise
        raise ValidationFailed(
            f"{path} is no Excel workbook, though its name ends with .xlsx. Get it again from its source."
        ) from error


def _refuse_older(
    path: Path, file: LockedFile, dataset: ReleaseDataset, version: str, newest: str
) -> NoReturn:
    """Raise `UsageError` for a workbook that is given for `version`; say what `newest` makes of it."""
    lock = dataset.lock(newest)
    told = f"{path} is a grading workbook that {dataset.name} {version} does not list"
    if (file.size, file.sha256) in {(old.size, old.sha256) for old in lock.files}:
        raise UsageError(f"{told}, and {newest} does: leave --version out.")
    _check_place(path, file, dataset, lock)
    raise UsageError(
        f"{told}. It can become part of the version after {newest}, the newest: leave --version out."
    )


def _check_place(path: Path, file: LockedFile, dataset: ReleaseDataset, lock: ReleaseLock) -> None:
    """Raise `UsageError` unless the workbook at `path` would be the one of the release."""
    from verse_data.tables.index import index_scans

    rename = f"grading{path.suffix.lower()}"
    if not _is_named_so(file.path):
        raise UsageError(
            f"{path} holds gradings, and a release knows its workbook by name: it ends with .xlsx, or "
            f"with .csv and says grading. Rename it, to {rename} for example."
        )
    others = [old for old in lock.files if old.path.casefold() == file.path.casefold()]
    if not others:
        chosen = index_scans(_with(lock, file)).grading
        others = [old for old in chosen if old.sha256 != file.sha256]
    # A file of a well-known name would hide the workbook of another name that the lock has.
    listed = dict.fromkeys((*others, *index_scans(lock).grading))
    workbook = next((old for old in listed if _holds_gradings(old, dataset)), None)
    if not (others or workbook):
        return
    old = workbook or others[0]
    renamed = index_scans(_with(lock, file.model_copy(update={"path": rename}))).grading
    alone = rename not in lock.by_path and {f.sha256 for f in renamed} == {file.sha256}
    helps = alone and workbook is None
    hint = f"That holds no gradings that can be read: rename yours to {rename}. " if helps else ""
    raise UsageError(
        f"{path} is a grading workbook (sha256 {file.sha256[:12]}), and {dataset.name} lists another: "
        f"{old.path} (sha256 {old.sha256[:12]}). A release has one, and nothing was written. {hint}For "
        f"other grades, make a release of your own: verse-data lock NAME --from-tree FOLDER"
    )


def _holds_gradings(file: LockedFile, dataset: ReleaseDataset) -> bool:
    """Whether a locked table is a grading workbook; one that cannot be looked at counts as one."""
    from verse_data.tables.workbook import read_locked_sheet

    try:
        read_locked_sheet(dataset.source(file))
    except ValidationFailed:
        return False
    except FILE_FAULTS:
        return True
    return True


def _with(lock: ReleaseLock, file: LockedFile) -> ReleaseLock:
    files = tuple(sorted((*lock.files, file), key=lambda held: held.path))
    return ReleaseLock(release=lock.release, source=lock.source, files=files)


def write_phantom(dataset: ReleaseDataset, progress: Progress) -> None:
    """Write the phantom's files, lock them if there is no lock, and adopt what is not here."""
    from verse_data import phantom

    with staging(dataset.path.with_name("phantom-tree")) as tree:
        phantom.write(tree, progress=progress)
        if not dataset.exists():
            dataset.publish(lock_tree(tree, release=PHANTOM, progress=progress))
        # Made by another version of NumPy its bytes may differ: what is not locked is not taken.
        dataset.adopt([tree], progress=progress)


def restore_phantom(dataset: ReleaseDataset, lock: ReleaseLock, progress: Progress) -> None:
    """Write the phantom's files again where some are not here: no address has them."""
    from verse_data.phantom.patients import DEFAULT_SUBJECTS, subjects

    written = {
        f"sub-{s.scan_id(one)}_ct.nii.gz"
        for s in subjects(DEFAULT_SUBJECTS, seed=0)
        for one in s.series
    }
    locked = {path.rpartition("/")[2] for path in lock.by_path if path.endswith("_ct.nii.gz")}
    if written == locked:  # and no other tree under this name
        write_phantom(dataset, progress)
