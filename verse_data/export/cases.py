"""What exports for training have in common: their scans and sides, labels, masks and CTs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from verse_data.errors import (
    FILE_FAULTS,
    UsageError,
    ValidationFailed,
    VerseDataError,
    counted,
    one_of,
)
from verse_data.export.folders import Chosen, scans_with_ct_and_mask
from verse_data.export.prov import doi_url
from verse_data.machine import allowed_cores
from verse_data.problems import raise_faults
from verse_data.records.names import SPLITS
from verse_data.spine.geometry import Array
from verse_data.spine.levels import LEVEL_OF_LABEL, LEVELS, region
from verse_data.tables.index import assert_one_split_each
from verse_data.volumes.nifti import VolumeStream, check_pair
from verse_data.volumes.placement import write_mask_like
from verse_data.volumes.reader import relabelled
from verse_data.volumes.recipe import ScanSource

Labels = Literal["consecutive", "binary", "regions", "verse"]
Fold = dict[str, list[str]]
"""The scan ids of one fold, as nnU-Net writes them: ``train`` and ``val``."""

_THREADS: Final = 4  # each holds a mask of up to some hundred MB
_NO_LEVEL: Final = 255


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
    one_of("labels", kind, allowed)
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


def choose(release: Any, *, k: int | None, seed: int, split: str | None) -> Chosen:
    """Return which scans an export holds: by the published split, or those to divide into `k`."""
    scans_with_ct_and_mask(release)
    _check(release, k, seed, split)
    development, test = [], []
    left_out = {one.scan.scan_id: one.why for one in release.withheld}
    for scan_id, scan in release.series.items():
        developed = (
            scan.split in {"training", "validation"} if k is None else split in {None, scan.split}
        )
        if "ct" not in scan.files:
            left_out[scan_id] = "no CT"
        elif developed and "mask" in scan.files:
            development.append(scan_id)
        elif developed:
            left_out[scan_id] = "no mask"
        elif scan.split == "test":
            test.append(scan_id)
        else:
            left_out[scan_id] = (
                f"in the published split {scan.split}" if scan.split else "in no split"
            )
    sides = ("training", "validation") if k is None else (split,) if split else ()
    found = {release.series[scan_id].split for scan_id in development}
    lacking = [side for side in sides if side not in found]
    if lacking:
        raise UsageError(
            f"{release.name} {release.version} has no scan with CT and mask in "
            f"{' or '.join(lacking)}. {_advice(release, found, k)}"
        )
    return Chosen(development=tuple(development), test=tuple(test), left_out=left_out)


def _advice(release: Any, found: Collection[str | None], k: int | None) -> str:
    """Return how to divide a release that lacks a published split, without its scans for testing."""
    if k is not None:
        return "Divide all its scans without split."
    side = "training" if "training" in found else None
    scans = (one for one in release.series.values() if side in {None, one.split})
    patients = len({one.subject_id for one in scans if {"ct", "mask"} <= one.files.keys()})
    if patients < 2:
        return "Folds need two patients with CT and mask."
    options, words = f"k={min(5, patients)}", f"--k {min(5, patients)}"
    if side is None:
        return f"Divide all its scans into folds: {options} ({words} on the command line)."
    return (
        f"Divide its training scans into folds: {options}, split='training' ({words} --split training "
        f"on the command line); those for testing stay apart."
    )


def _check(release: Any, k: int | None, seed: int, split: str | None) -> None:
    """Check the options, and that no patient is in two published splits."""
    if split is not None:
        one_of("split", split, SPLITS)
    if k is None and (seed or split is not None):
        raise UsageError(
            "seed and split choose folds, and without k the published split is exported. "
            "Give k=5 (--k 5), or leave them out."
        )
    scans = [scan for scan in release.series.values() if split in {None, scan.split}]
    patients = len({scan.subject_id for scan in scans})
    if k is not None and k not in range(2, patients + 1):
        raise UsageError(
            f"k={k} must be a whole number from 2 to the number of patients"
            f"{f' in {split}' if split else ''}, {patients}."
        )
    if k is None or split is not None:
        sides = ((scan.subject_id, scan.split) for scan in release.series.values())
        assert_one_split_each((subject, side) for subject, side in sides if side)


def divide(
    release: Any, chosen: Chosen, *, k: int | None, seed: int, split: str | None
) -> tuple[list[Fold], dict[str, Any]]:
    """Return the folds, each with its two sides, and how they were made; fetch what they need."""
    if k is None:
        split_of = {scan_id: release.series[scan_id].split for scan_id in chosen.development}
        sides = [[[s for s in split_of if split_of[s] == side] for side in SPLITS[:2]]]
        made: dict[str, Any] = {"made_by": "published split"}
    else:
        release.fetch_tables()
        folds = release.folds(k, seed=seed, split=split)
        known = set(chosen.development)
        sides = [
            [[s for s in folds.split(number)[side] if s in known] for side in SPLITS[:2]]
            for number in range(folds.k)
        ]
        made = {"made_by": "verse-data folds", "split": split}
        made |= folds.model_dump(mode="json", include={"k", "seed", "stratify", "digest"})
    for number, pair in enumerate(sides):
        if not all(pair):
            raise UsageError(
                f"One side of fold {number} has no scan with CT and mask. Give a smaller k."
            )
    return [dict(zip(("train", "val"), pair, strict=True)) for pair in sides], made


# --- what is written ------------------------------------------------------------------------------


def facts(release: Any, labels: LabelMap, chosen: Chosen) -> dict[str, Any]:
    """Return what ``dataset.json`` and a datalist say of where the data come from."""
    parts = [one.provenance() for one in release.members]

    def joined(name: str, mark: str = " + ") -> str:
        return mark.join(dict.fromkeys(filter(None, (getattr(one, name) for one in parts))))

    cited = dict.fromkeys(f"{c.text} {doi_url(c.doi)}" for one in parts for c in one.citations)
    overlays = {"overlays": [one.model_dump() for one in release.overlays]}
    licences = {scan_id: release.licence_of(scan_id) for scan_id in chosen.scans}
    return {
        "name": release.name,
        "description": f"{joined('title')}. Version {release.version}, lock {release.pin}.",
        "reference": ", ".join(doi_url(one.doi) for one in parts if one.doi),
        "licence": " + ".join(dict.fromkeys(licences.values())),
        "licences": licences,
        "attribution": joined("attribution", " "),
        # A string: readers take any list for a list of scans.
        "citation": "; ".join(cited),
        "release": f"{release.name} {release.version}",
        "verse_data": {
            "release": release.name,
            "version": release.version,
            "lock": release.pin,
            "labels": labels.kind,
            "inverse": {str(number): label for number, label in labels.inverse.items()},
            **(overlays if release.overlays else {}),
        },
        "left_out": dict(chosen.left_out),
    }


def write_masks(release: Any, masks: Mapping[str, Path | None], labels: LabelMap) -> None:
    """Check each CT and mask, and write the masks; all faults of files are raised at once.

    `masks` has a path for each scan, or None where its mask, if any, is only checked.
    """
    faults: list[VerseDataError] = []

    def write(scan_id: str) -> None:
        try:
            new = release.relabelling(scan_id)
            _write_mask(release.source(scan_id), masks[scan_id], labels, new)
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


def _write_mask(
    source: ScanSource, path: Path | None, labels: LabelMap, new: Mapping[int, int]
) -> None:
    """Check the CT and mask of a scan, and write the mask, with its `new` labels, if it has a path."""
    ct, msk = source.image, source.mask
    ct.check()
    if msk is None:
        return
    image = VolumeStream(ct.path, kind="image", name=ct.name, sha256=ct.sha256)
    mask = VolumeStream(msk.path, kind="mask", name=msk.name, sha256=msk.sha256)
    with msk.checked(), image, mask:
        check_pair(image.header, mask.header, name=source.scan_id)
        written = labels.applied(relabelled(mask.read_rest(), new), name=msk.name)
        if path is not None:
            write_mask_like(path, written, image=image)
