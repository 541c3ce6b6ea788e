"""What exports for training have in common: their scans and sides, labels, masks and CTs."""

# ruff: noqa: D102 - what the protocol asks of a release is documented on Release
from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np

from verse_data.errors import (
    FILE_FAULTS,
    UsageError,
    ValidationFailed,
    VerseDataError,
    counted,
    did_you_mean,
)
from verse_data.export.rocrate import doi_url
from verse_data.files import publish_folder, staging, storage_errors
from verse_data.machine import allowed_cores
from verse_data.problems import raise_faults, shown
from verse_data.progress import Progress, spell_bytes
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import SPLITS, Role
from verse_data.records.provenance import Provenance
from verse_data.releases.repository import Repository
from verse_data.spine.geometry import Array
from verse_data.spine.levels import LEVEL_OF_LABEL, LEVELS, region
from verse_data.tables.folds import Folds
from verse_data.tables.index import ScanFiles, assert_one_split_each
from verse_data.volumes.mask_file import write_mask_like
from verse_data.volumes.nifti import VolumeStream, check_pair
from verse_data.volumes.recipe import ScanSource

Labels = Literal["consecutive", "binary", "regions", "verse"]
CtFiles = Literal["reference", "copy", "link"]
Fold = dict[str, list[str]]
"""The scan ids of one fold, as nnU-Net writes them: ``train`` and ``val``."""

ROLES: Final[tuple[Role, ...]] = ("ct", "mask", "centroids")
"""Files that an export fetches; :meth:`Release.source` reads the centroids with the others."""
_THREADS: Final = 4  # each holds a mask of up to some hundred MB
_NO_LEVEL: Final = 255


class Exportable(Protocol):
    """What an export asks of a :class:`verse_data.Release`, which lies in a higher layer."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def lock(self) -> ReleaseLock: ...
    @property
    def files(self) -> Repository: ...
    @property
    def series(self) -> Mapping[str, ScanFiles]: ...
    @property
    def progress(self) -> Progress: ...
    def source(self, scan_id: str) -> ScanSource: ...
    def provenance(self) -> Provenance: ...
    def fetch(self, scan_ids: Iterable[str], *, roles: Sequence[Role]) -> object: ...
    def fetch_tables(self) -> None: ...
    def folds(self, k: int, *, seed: int, split: str | None) -> Folds: ...


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written, or would write in a dry run.

    Attributes
    ----------
    path : Path
        The folder.
    training, test : tuple of str
        Ids of the scans that are trained on or divided into folds, and of those to predict.
    left_out : dict
        Why each other scan is left out, by its id.
    nbytes : int
        Bytes of the files; in a dry run an estimate, by the sizes of the masks in the release.
    to_fetch : int
        Bytes that a dry run would have to fetch first.
    dry_run : bool
        Whether nothing was written.
    """

    path: Path
    training: tuple[str, ...]
    test: tuple[str, ...]
    left_out: Mapping[str, str]
    nbytes: int
    to_fetch: int = 0
    dry_run: bool = False

    def __str__(self) -> str:
        scans = f"{counted(len(self.training), 'scan')} to train on, {len(self.test)} to test on"
        if self.dry_run:
            fetched = f", after fetching {spell_bytes(self.to_fetch)}" if self.to_fetch else ""
            head = f"Would write about {spell_bytes(self.nbytes)} to {self.path}{fetched}: {scans}."
        else:
            head = f"Wrote {self.path} ({spell_bytes(self.nbytes)}): {scans}."
        why = [f"{scan_id}: {reason}" for scan_id, reason in self.left_out.items()]
        return "\n".join([head, *(["Left out:"] if why else []), *shown(why, indent="  ")])


# --- labels ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """The numbers that masks get: `number_of` each VerSe label, and what the classes are called."""

    kind: Labels
    number_of: Mapping[int, int]
    classes: Mapping[str, int | list[int]]
    inverse: Mapping[int, int] = field(default_factory=dict)
    """VerSe label of each predicted number, where they differ."""

    def applied(self, mask: Array, *, name: str) -> Array:
        """Return the mask with the new numbers; what is no level is refused."""
        table = np.full(256, _NO_LEVEL, dtype=np.uint8)
        table[0] = 0
        table[list(self.number_of)] = list(self.number_of.values())
        mapped: Array = table[mask]
        if mapped.max(initial=0) == _NO_LEVEL:
            found = ", ".join(map(str, np.unique(mask[mapped == _NO_LEVEL])))
            raise ValidationFailed(
                f"{name}: its mask holds {found}, which is the label of no vertebra "
                f"(1 to 25, and 28 for T13). Take it out of the mask and lock the release again."
            )
        return mapped


def label_map(kind: Labels, *, allowed: Sequence[Labels]) -> LabelMap:
    """Return the numbers of one kind of labels, which must be among `allowed`."""
    if kind not in allowed:
        near = did_you_mean(kind, allowed)
        raise UsageError(f"labels={kind!r} is none of {', '.join(allowed)}.{near}")
    # After L6, which is 25, comes T13, which VerSe calls 28.
    numbers = {label: number for number, label in enumerate(sorted(LEVEL_OF_LABEL), start=1)}
    if kind == "verse":
        numbers = {label: label for label in numbers}
    elif kind == "binary":
        ones = dict.fromkeys(numbers, 1)
        return LabelMap(kind=kind, number_of=ones, classes={"background": 0, "vertebra": 1})
    names = {LEVEL_OF_LABEL[label]: number for label, number in numbers.items()}
    if kind == "regions":
        parts = {
            part: [names[level] for level in LEVELS if region(level) == part]
            for part in ("cervical", "thoracic", "lumbar")
        }
        whole = {"vertebra": sorted(names.values())}
        return LabelMap(kind=kind, number_of=numbers, classes={"background": 0, **whole, **parts})
    back = {number: label for label, number in numbers.items() if number != label}
    return LabelMap(kind=kind, number_of=numbers, classes={"background": 0, **names}, inverse=back)


# --- scans and sides ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The scans to train on or divide, those to test on, and why others are left out."""

    training: tuple[str, ...]
    test: tuple[str, ...]
    left_out: Mapping[str, str]


def choose(release: Exportable, *, k: int | None, seed: int, split: str | None) -> Chosen:
    """Return which scans an export holds: by the published split, or those to divide into `k`."""
    _check(release, k, seed, split)
    training, test, left_out = [], [], {}
    for scan_id, scan in release.series.items():
        trained = (
            scan.split in {"training", "validation"} if k is None else split in {None, scan.split}
        )
        if "ct" not in scan.files:
            left_out[scan_id] = "no CT"
        elif trained and "mask" in scan.files:
            training.append(scan_id)
        elif trained:
            left_out[scan_id] = "no mask"
        elif scan.split == "test":
            test.append(scan_id)
        else:
            left_out[scan_id] = (
                f"in the published split {scan.split}" if scan.split else "in no split"
            )
    if not training:
        raise UsageError(
            f"{release.name} {release.version} has no scan with CT and mask in "
            f"{split or 'training or validation'}. Divide all its scans into folds: k=5 "
            f"(--k 5 on the command line)."
        )
    return Chosen(training=tuple(training), test=tuple(test), left_out=left_out)


def _check(release: Exportable, k: int | None, seed: int, split: str | None) -> None:
    """Refuse options that would have no effect, no release, and a patient on two published sides."""
    if isinstance(release, str):
        raise UsageError(
            f"{release!r} is a name, and a release is needed: vd.open_release({release!r})."
        )
    if split is not None and split not in SPLITS:
        raise UsageError(
            f"There is no split {split!r}; splits are {', '.join(SPLITS)}.{did_you_mean(split, SPLITS)}"
        )
    if k is None and (seed or split is not None):
        raise UsageError(
            "seed and split choose folds, and without k the published split is exported. "
            "Give k=5 (--k 5), or leave them out."
        )
    if k is None or split is not None:
        sides = ((scan.subject_id, scan.split) for scan in release.series.values())
        assert_one_split_each((subject, side) for subject, side in sides if side)


def divide(
    release: Exportable, chosen: Chosen, *, k: int | None, seed: int, split: str | None
) -> tuple[list[Fold], dict[str, Any]]:
    """Return the folds, each with its two sides, and how they were made."""
    if k is None:
        of = {scan_id: release.series[scan_id].split for scan_id in chosen.training}
        sides = [[[s for s in of if of[s] == side] for side in ("training", "validation")]]
        made: dict[str, Any] = {"made_by": "published split"}
    else:
        folds = release.folds(k, seed=seed, split=split)
        known = set(chosen.training)
        sides = [
            [
                [s for s in folds.split(number)[side] if s in known]
                for side in ("training", "validation")
            ]
            for number in range(folds.k)
        ]
        made = {"made_by": "verse-data folds", "split": split}
        made |= folds.model_dump(mode="json", include={"k", "seed", "stratify", "digest"})
    for number, pair in enumerate(sides):
        if not all(pair):
            raise UsageError(
                f"One side of fold {number} has no scan with CT and mask. "
                f"{'Give a smaller k.' if k else 'Divide the scans into folds instead: k=5 (--k 5).'}"
            )
    return [dict(zip(("train", "val"), pair, strict=True)) for pair in sides], made


def planned(
    release: Exportable, chosen: Chosen, path: Path, *, masks: bool = True, copies: bool = False
) -> Exported:
    """Return what an export of these scans would write and fetch, by the sizes in the lock."""
    scans = [release.series[name] for name in (*chosen.training, *chosen.test)]
    files: list[tuple[Role, LockedFile]] = [
        (role, scan.files[role]) for scan in scans for role in ROLES if role in scan.files
    ]
    written = {"mask": masks, "ct": copies}
    return Exported(
        path=path,
        training=chosen.training,
        test=chosen.test,
        left_out=chosen.left_out,
        nbytes=sum(file.size for role, file in files if written.get(role)),
        to_fetch=sum(file.size for _, file in files if not release.files.has(file)),
        dry_run=True,
    )


def fetch(release: Exportable, chosen: Chosen, *, tables: bool) -> None:
    """Fetch the volumes of an export and, for folds, the files behind the tables."""
    if tables:
        release.fetch_tables()
    release.fetch([*chosen.training, *chosen.test], roles=ROLES)


# --- what is written ------------------------------------------------------------------------------


def facts(release: Exportable, labels: LabelMap, chosen: Chosen) -> dict[str, Any]:
    """Return what ``dataset.json`` and a datalist say of where the data come from."""
    found = release.provenance()
    lock = f"sha256:{release.lock.digest}"
    return {
        "name": release.name,
        "description": f"{found.title}. Version {release.version}, lock {lock}.",
        "reference": doi_url(found.doi) if found.doi else "",
        "licence": found.licence or "unknown",
        "attribution": found.attribution or "",
        # One text: readers of datalists, ours too, take a list for scans.
        "citation": "; ".join(f"{c.text} {doi_url(c.doi)}" for c in found.citations),
        "release": f"{release.name} {release.version}",
        "verse_data": {
            "release": release.name,
            "version": release.version,
            "lock": lock,
            "labels": labels.kind,
            "inverse": {str(number): label for number, label in labels.inverse.items()},
            "scans": {},  # of cases that are not called as their scan; here all are
        },
        "left_out": dict(chosen.left_out),
    }


def ending(release: Exportable, chosen: Chosen) -> str:
    """Return the ending of all CTs, ``.nii.gz`` or ``.nii``; nnU-Net wants one for all cases."""
    found: dict[str, str] = {}
    for scan_id in (*chosen.training, *chosen.test):
        path = release.series[scan_id].files["ct"].path.lower()
        found.setdefault(".nii.gz" if path.endswith(".gz") else ".nii", scan_id)
    if len(found) > 1:
        raise UsageError(
            f"The CT of {found['.nii']} ends in .nii and that of {found['.nii.gz']} in .nii.gz; "
            f"nnU-Net takes one ending for all cases. Gzip the others, and lock the release again."
        )
    return next(iter(found))


def write_masks(release: Exportable, masks: Mapping[str, Path | None], labels: LabelMap) -> None:
    """Check each CT by its digest, and write its mask; all faults of files are raised at once.

    `masks` has the path of the mask of each scan, or None where none is written.
    """
    faults: list[VerseDataError] = []

    def write(scan_id: str) -> None:
        try:
            _write_mask(release.source(scan_id), masks[scan_id], labels)
        except FILE_FAULTS as error:
            faults.append(error)

    threads = max(1, min(_THREADS, int(allowed_cores())))
    with (
        ThreadPoolExecutor(threads) as pool,
        release.progress("Writing masks", len(masks), "items") as advance,
    ):
        for _ in pool.map(write, masks):
            advance(1)
    raise_faults(faults, head=f"{counted(len(faults), 'scan')} cannot be exported:")


def _write_mask(source: ScanSource, path: Path | None, labels: LabelMap) -> None:
    source.image.check()
    if path is None or source.mask is None:
        return
    ct, msk = source.image, source.mask
    image = VolumeStream(ct.path, kind="image", name=ct.name, sha256=ct.sha256)
    mask = VolumeStream(msk.path, kind="mask", name=msk.name, sha256=msk.sha256)
    with msk.checked(), image, mask:
        check_pair(image.header, mask.header, name=source.scan_id)
        written = labels.applied(mask.read_rest(), name=msk.name)
        write_mask_like(path, written, image=image)


def published(plan: Exported, build: Callable[[Path], None]) -> Exported:
    """Build the folder of `plan` and give it its name, all or nothing; return what was written."""
    with staging(plan.path, needed=plan.nbytes) as staged:
        staged.mkdir()
        build(staged)
        files = [path for path in staged.rglob("*") if path.is_file() and not path.is_symlink()]
        nbytes = sum(path.stat().st_size for path in files)
        if not publish_folder(staged, plan.path):
            raise exists(plan.path)
    return replace(plan, nbytes=nbytes, to_fetch=0, dry_run=False)


def as_json(value: Any) -> str:
    """Return JSON to read, in the order given: nnU-Net counts regions by it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def exists(folder: Path) -> UsageError:
    """Return the error of an export whose folder is there already."""
    return UsageError(
        f"{folder} exists, and nothing in it was changed. Remove it, or name another."
    )


def place_ct(source: Path, target: Path, how: CtFiles) -> None:
    """Copy a CT, or let a symbolic link point at it."""
    with storage_errors(target):
        if how == "copy":
            shutil.copyfile(source, target)
        else:
            target.symlink_to(source)


def check_place(ct: str, variable: str | None) -> None:
    """Refuse a way to place CTs that there is not, or a variable that no shell could set."""
    if ct not in get_args(CtFiles):
        near = did_you_mean(ct, get_args(CtFiles))
        raise UsageError(f"ct={ct!r} is none of {', '.join(get_args(CtFiles))}.{near}")
    if variable is None:
        return
    if ct != "reference":
        raise UsageError(f"variable={variable!r} is for CTs by reference, and ct={ct!r} has none.")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise UsageError(f"{variable!r} is no name of an environment variable, such as VERSE_ROOT.")


def reference(release: Exportable, scan_id: str, variable: str | None = None) -> str:
    """Return the path of a CT: absolute, or below ``$VARIABLE``, which is the release's folder."""
    path = release.source(scan_id).image.path.absolute()
    if variable is None:
        return os.fspath(path)
    return f"${variable}/{path.relative_to(release.files.path.absolute()).as_posix()}"
