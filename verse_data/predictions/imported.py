"""A folder of predictions, by nnU-Net or any other tool, back on the grids of its scans."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from pydantic import ConfigDict, Field, ValidationError

from verse_data.errors import FILE_FAULTS, UsageError, ValidationFailed, one_of
from verse_data.export.folders import check_release
from verse_data.files import canonical_json, publish_folder, staging, storage_errors
from verse_data.predictions.native import check_overlap, on_grid, verse_labels
from verse_data.problems import Problem, raise_faults, raise_problems
from verse_data.records.base import Record, read_json, rules_of
from verse_data.records.names import is_clutter, scan_of
from verse_data.spine.geometry import Array
from verse_data.volumes.nifti import Volume, VolumeStream, read_mask
from verse_data.volumes.placement import turn

if TYPE_CHECKING:
    from verse_data.collection import ScanCollection

Form = Literal["nnunet", "folder"]

RECORD: Final = "predictions.json"
"""File beside imported predictions that says what they were made from."""
_NIFTI: Final = re.compile(r"(.+)\.nii(\.gz)?", re.IGNORECASE)
_GOES_ON: Final = re.compile(r"[A-Za-z0-9]|_[a-z]+-|.*[_-](verse|gl)[0-9]{3}(?![A-Za-z0-9])")
_DATASET_JSON: Final = "dataset.json"
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class ImportedScan:
    """One imported prediction.

    Parameters
    ----------
    scan_id, file : str
        The scan, and the name of the prediction's file.
    exact : bool
        Whether every voxel was copied; otherwise it was resampled.
    levels : tuple of str
        Levels that it has, in spine order; empty in a dry run.
    outside : int
        Labelled voxels outside of the scan, which are lost; 0 in a dry run.
    """

    scan_id: str
    file: str
    exact: bool
    levels: tuple[str, ...] = ()
    outside: int = 0


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What :func:`import_predictions` did, or would do.

    Parameters
    ----------
    release, version, lock : str
        The release whose grids were used.
    form : {"nnunet", "folder"}
        What the predictions were.
    scans : tuple of ImportedScan
        Sorted by scan id.
    missing : tuple of str
        Scans without a prediction, in the splits that have predictions.
    nbytes : int
        Size of the files written; in a dry run the most that it can be.
    dry_run : bool
        Whether nothing was written.
    """

    release: str
    version: str
    lock: str
    form: Form
    scans: tuple[ImportedScan, ...]
    missing: tuple[str, ...]
    nbytes: int
    dry_run: bool


class _Export(Record):
    """What the export wrote about itself into nnU-Net's ``dataset.json``."""

    model_config = ConfigDict(extra="ignore")

    release: str
    version: str
    lock: str
    labels: Literal["consecutive", "binary", "regions"]
    inverse: dict[int, int] = Field(default_factory=dict)
    scans: dict[str, str] = Field(default_factory=dict)


def import_predictions(
    form: Form,
    release: ScanCollection,
    folder: str | Path,
    out: str | Path,
    *,
    dataset_json: str | Path | None = None,
    inverse: Mapping[int, int] | None = None,
    dry_run: bool = False,
) -> Imported:
    """Write a folder of predictions as ``<scan_id>.nii.gz`` on the grids of their scans.

    All files are checked, and all problems named at once; then nothing is written. The new folder
    also gets ``predictions.json``, the returned report.

    Parameters
    ----------
    form : {"nnunet", "folder"}
        Predictions by nnU-Net, trained on what ``verse-data export nnunet`` wrote: files
        ``<case>.nii.gz`` with its labels. Or files ``<scan_id>*.nii[.gz]`` with VerSe's labels, on
        any grid.
    release : Release or UnitedReleases
        That of the scans; with ``"nnunet"`` what was exported.
    folder : path
        With the predictions; its subfolders are not read.
    out : path
        A folder that does not exist yet, or is empty.
    dataset_json : path, optional
        The export's ``dataset.json``, or nnU-Net's copy. Default: in `folder`, or one or two above.
    inverse : mapping of int to int, optional
        With ``"folder"``, VerSe's label of each value that differs, such as ``{26: 28}`` for T13 of
        the export for MONAI, or 0 for what is no vertebra. With ``"nnunet"`` the export says it.
    dry_run : bool
        Only read names and headers, and write nothing.

    Returns
    -------
    Imported
        What was written, and which scans have no prediction.

    Raises
    ------
    UsageError
        If there are no predictions, `out` is not empty, or the export merged levels (binary,
        regions).
    ValidationFailed
        If a file is of no scan, a scan has two, a value is no label, or a grid lies elsewhere.
    IntegrityError, UnsafeInput
        If a file is broken.
    """
    check_release(release)
    folder, out = Path(folder), Path(out)
    one_of("form", form, get_args(Form))
    if form == "folder" and dataset_json is not None:
        raise UsageError("dataset_json belongs to predictions by nnU-Net: use form 'nnunet'.")
    if form == "nnunet" and inverse is not None:
        raise UsageError("The export says what nnU-Net's labels are: leave out the inverse.")
    _check_free(out)
    files = _nifti_files(folder)
    remedy = (
        "give the other values of a model as --inverse 26=28 (inverse={26: 28}); one of what is no "
        "vertebra, as 26 of a sacrum, is 26=0."
    )
    if form == "nnunet":
        export = _read_export(_find_export(folder, dataset_json), release)
        inverse, remedy = export.inverse, "so it was not predicted by a model of this export."
        named = [(export.scans.get(stem, stem), path) for path, stem in files]
    else:
        # Copies and scans that are left out too, so that they are refused for what they are.
        ids = {scan.scan_id for one in release.members for scan in one.index.listed}
        named = [(_scan_in(stem, ids), path) for path, stem in files]
    chosen = _by_scan(named, release)
    facts: dict[str, Any] = {
        "release": release.name,
        "version": release.version,
        "lock": release.pin,
        "form": form,
        "missing": _missing(chosen, release),
    }
    if dry_run:
        plan = partial(_plan, release=release)
        planned = _for_each_file(chosen, release, plan, f"{out} was not made.")
        scans = tuple(scan for scan, _ in planned)
        return Imported(**facts, scans=scans, nbytes=sum(size for _, size in planned), dry_run=True)
    with staging(out) as staged:
        staged.mkdir()
        labels = partial(verse_labels, inverse=inverse or {}, remedy=remedy)
        write = partial(_import_one, release=release, labels=labels, folder=staged)
        done = tuple(_for_each_file(chosen, release, write, f"{out} was not made."))
        nbytes = sum(path.stat().st_size for path in staged.iterdir())
        report = Imported(**facts, scans=done, nbytes=nbytes, dry_run=False)
        (staged / RECORD).write_bytes(canonical_json(asdict(report)))
        if not publish_folder(staged, out):
            raise _not_empty(out)
    return report


def _check_free(out: Path) -> None:
    """Raise UsageError if there is something at `out` that would be mixed with predictions."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise _not_empty(out)


def _not_empty(out: Path) -> UsageError:
    return UsageError(f"{out} is not empty. Name a new folder.")


def _nifti_files(folder: Path) -> list[tuple[Path, str]]:
    """Return the NIfTI files of a folder, sorted, with their names before ``.nii``."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Name the one with the predictions.")
    with storage_errors(folder):
        paths = sorted(path for path in folder.iterdir() if not is_clutter(path.name))
    found = [(path, match[1]) for path in paths if (match := _NIFTI.fullmatch(path.name))]
    if not found:
        raise UsageError(f"{folder} has no .nii.gz or .nii file. Name the folder that holds them.")
    return found


def _find_export(folder: Path, given: str | Path | None) -> Path:
    """Return nnU-Net's ``dataset.json``: the given one, or that beside or above the predictions."""
    # Of cross-validation it is two above fold_0/validation.
    places = [where / _DATASET_JSON for where in (folder, *folder.absolute().parents[:2])]
    found = [Path(given)] if given is not None else [path for path in places if path.is_file()]
    if not found or not found[0].is_file():
        where = f"{given}" if given is not None else f"{_DATASET_JSON} in {folder} or above it"
        raise UsageError(
            f"There is no {where}. nnU-Net writes it beside its predictions; else name that of the "
            f"export: --dataset-json FILE (dataset_json=)."
        )
    return found[0]


def _read_export(path: Path, release: ScanCollection) -> _Export:
    """Return what an exported ``dataset.json`` says of itself, if it is of this release."""
    with storage_errors(path):
        document = read_json(path.read_bytes(), name=str(path))
    try:
        export = _Export.model_validate_json(json.dumps(document["verse_data"]))
    except (KeyError, TypeError):
        raise ValidationFailed(
            f"{path} does not say which release it was made from, so it was not written by "
            f"verse-data export nnunet. Name that export's: --dataset-json FILE; if predictions "
            f"have VerSe's labels, import them as 'folder'."
        ) from None
    except ValidationError as error:
        raise ValidationFailed(f"{path}, verse_data: {rules_of(error)}. Export it again.") from None
    lock = release.pin
    if (export.release, export.lock) != (release.name, lock):
        raise ValidationFailed(
            f"{path} was exported from {export.release} {export.version} ({export.lock[:19]}), and "
            f"this is {release.name} {release.version} ({lock[:19]}). {_remedy(export, release)}"
        )
    if export.labels != "consecutive":
        raise UsageError(
            f"{path}: the labels of this export are {export.labels}, and its predictions tell no "
            f"levels. nnU-Net wrote them on the grid of each CT already: use them as they are."
        )
    return export


def _remedy(export: _Export, release: ScanCollection) -> str:
    """Return what to open for the predictions of an export."""
    if "+" not in export.release:
        return f"Open that one: {export.release} --version {export.lock}"
    if (export.release, export.version) != (release.name, release.version):
        return f"Open those: {export.release} --version {export.version}"
    return "If its scans are here, import 'folder' with --inverse 26=28 (inverse={26: 28})."


def _scan_in(stem: str, ids: Collection[str]) -> str:
    """Return the longest scan id that a file name starts with; the whole name if there is none."""
    named = scan_of(f"{stem}.nii.gz")
    if named in ids:
        return str(named)
    name = stem.removeprefix("sub-")
    starts = [one for one in ids if name.startswith(one)]
    # After verse4 of verse401, or verse401 of verse401_split-verse253, the id goes on; and what
    # follows must not be another id.
    whole = [one for one in starts if not _GOES_ON.match(name[len(one) :])]
    return max(whole, key=len, default=stem)


def _by_scan(named: Sequence[tuple[str, Path]], release: ScanCollection) -> dict[str, Path]:
    """Return the prediction of each scan, or raise one error for all names that do not fit."""
    chosen: dict[str, Path] = {}
    problems = []
    for scan_id, path in named:
        try:
            release.known_scans([scan_id])
        except UsageError as error:
            problems.append(Problem(file=path.name, rule=str(error)))
        if scan_id in chosen:
            rule = f"is of {scan_id}, as {chosen[scan_id].name} is"
            problems.append(Problem(file=path.name, rule=rule))
        chosen.setdefault(scan_id, path)
    where = named[0][1].parent
    then = "Nothing was imported. Move these files elsewhere, or rename them."
    raise_problems(problems, what=f"Predictions in {where}", then=then)
    return dict(sorted(chosen.items()))


def _missing(chosen: Collection[str], release: ScanCollection) -> tuple[str, ...]:
    """Return the scans with a CT that have no prediction, in the splits where others have one."""
    splits = {release.series[scan_id].split for scan_id in chosen}
    return tuple(
        scan_id
        for scan_id, scan in release.series.items()
        if scan.split in splits and "ct" in scan.files and scan_id not in chosen
    )


def _for_each_file(
    chosen: Mapping[str, Path],
    release: ScanCollection,
    call: Callable[[str, Path], _T],
    then: str,
) -> list[_T]:
    """Return what `call` gives for each prediction, or raise one error for all that are refused."""
    done, errors = [], []
    with release.progress("predictions", len(chosen), "items") as advance:
        for scan_id, path in chosen.items():
            try:
                done.append(call(scan_id, path))
            except FILE_FAULTS as error:
                errors.append(error)
            advance(1)
    raise_faults(errors, then=then)
    return done


def _plan(scan_id: str, path: Path, *, release: ScanCollection) -> tuple[ImportedScan, int]:
    """Return what would be done with a prediction, by its header, and the most bytes it makes."""
    grid = release.grid(scan_id)
    with VolumeStream(path, kind="mask", name=path.name) as stream:
        check_overlap(stream.header, grid, path.name, scan_id)
        exact = turn(stream.header, grid) is not None
    return ImportedScan(scan_id=scan_id, file=path.name, exact=exact), math.prod(grid.shape)


def _import_one(
    scan_id: str,
    path: Path,
    *,
    release: ScanCollection,
    labels: Callable[..., Array],
    folder: Path,
) -> ImportedScan:
    """Write one prediction into `folder`, on the grid of its scan."""
    grid = release.grid(scan_id)
    volume = read_mask(path, name=path.name)
    check_overlap(volume, grid, path.name, scan_id)
    volume = Volume(labels(volume.array, name=path.name), volume.affine)
    native = on_grid(scan_id, [volume], grid)
    native.write(folder)
    facts: dict[str, Any] = {name: getattr(native, name) for name in ("exact", "levels", "outside")}
    return ImportedScan(scan_id=scan_id, file=path.name, **facts)
