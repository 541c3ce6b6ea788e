"""What training is given, to the byte: every unit, with its options, epochs, ranks and stops."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch

import verse_data as vd
from tests.house.place import Place

FEW = 4
PATCH = {"unit": "patch", "patch_size": 16, "patches_per_scan": 2}
BODY = {"unit": "vertebra", "crop_size_mm": 36, "voxel_mm": 4}
SPLITS: dict[str, dict[str, Any]] = {
    "scan": {},
    "scan, of test, zstd": {"split": "test", "codec": "zstd"},
    "scan, where": {"where": "grade == 3 and level >= 'T11'"},
    "scan, of two releases": {"release": ["verse19", "phantom"]},
    "patch, of verse19": {**PATCH, "release": "verse19"},
    "vertebra": BODY,
}
"""Asked of ``vd.load_split``, which reads the tables each time."""
CASES: dict[str, dict[str, Any]] = {
    "scan, orientation PIR": {"orientation": "PIR"},
    "scan, orientation LSA as int16": {"orientation": "LSA", "image_dtype": "int16"},
    "scan, without label": {"label": False},
    "scan, spacing 6": {"spacing": 6},
    "scan, no codec": {"codec": "none", "scans": ["verse901"]},
    "scan, spacing 4,4,3 cubic": {
        "spacing": (4, 4, 3),
        "interpolation": "cubic",
        "scans": ["verse902_split-verse951"],
    },
    "scan, random transform": {"transform": "noise", "seed": 3},
    "patch, uniform, seed 7": {**PATCH, "seed": 7},
    "patch, uniform, spacing 6": {**PATCH, "spacing": 6},
    "patch, larger than a scan": {**PATCH, "patch_size": (16, 48, 80)},
    "patch, orientation PIR as int16": {**PATCH, "orientation": "PIR", "image_dtype": "int16"},
    "patch, foreground": {**PATCH, "sampling": "foreground"},
    "patch, level": {**PATCH, "sampling": "level"},
    "patch, level, where": {**PATCH, "sampling": "level", "where": "level in ['T12', 'L1']"},
    "patch, grade": {**PATCH, "sampling": "grade"},
    "patch, grade, weights": {**PATCH, "sampling": "grade", "weights": {0: 1, 2: 1, 3: 2}},
    "patch, grade, 9 an epoch": {**PATCH, "sampling": "grade", "patches_per_epoch": 9},
    "patch, random transform": {**PATCH, "transform": "noise"},
    "vertebra, at 1 mm": {"unit": "vertebra", "crop_size_mm": 24},
    "vertebra, at the scan's grid": {"unit": "vertebra", "voxel_mm": None},
    "vertebra, along the spine": {**BODY, "axes": "spine"},
    "vertebra, around the mask": {"unit": "vertebra", "around": "mask", "margin_mm": 8},
    "vertebra, all labels": {**BODY, "label_mode": "all"},
    "vertebra, binary": {**BODY, "label_mode": "binary", "orientation": "PIR"},
    "vertebra, no label": {**BODY, "label_mode": "none", "image_dtype": "int16"},
    "vertebra, threshold 2": {**BODY, "fracture_threshold": 2, "where": "grade >= 1"},
    "vertebra, all that are there": {
        **BODY,
        "include": ("graded", "foreign_material", "not_assessed"),
        "where": "level in ['L2', 'L5', 'T3', 'C4']",
    },
    "vertebra, spacing 6": {**BODY, "spacing": 6},
    "vertebra, T13 and L6": {
        **BODY,
        "label_mode": "all",
        "scans": ["verse903", "verse904"],
        "where": "level in ['T13', 'L6']",
    },
    "scan, T13 and the neck": {"scans": ["verse903", "verse907"]},
}
"""Asked of one opened release, by ``Release.dataset``: its tables are read once."""
ORDERS: dict[str, dict[str, Any]] = {
    "all": {},
    "not shuffled": {"shuffle": False},
    "rank 0 of 2": {"rank": 0, "world_size": 2},
    "rank 1 of 2": {"rank": 1, "world_size": 2},
    "rank 2 of 3, exact": {"rank": 2, "world_size": 3, "uneven": "exact"},
    "rank 2 of 3, padded": {"rank": 2, "world_size": 3, "uneven": "pad"},
}


class Noise:
    """A random transform that draws from three generators."""

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        drawn = torch.randn(1) + np.random.random() + random.random()  # noqa: NPY002
        return {**sample, "image": sample["image"] * 2, "drawn": drawn}


def samples(place: Place) -> dict[str, Any]:
    """Return digests of the first samples of every case, and of the orders and stops of a run."""
    release = vd.open_release("phantom")
    found: dict[str, Any] = {}
    for name, options in SPLITS.items():
        found[f"load_split: {name}"] = _tried(place, lambda given=options: split_of(given))
    for name, options in CASES.items():
        found[name] = _tried(place, lambda given=options: dataset_of(release, given))
    return found | _epochs(release) | _orders(release) | _stops(release) | _ways(place, release)


def _tried(place: Place, serve: Callable[[], Any]) -> dict[str, Any]:
    try:
        return _case(serve())
    except vd.VerseDataError as error:
        return {"error": type(error).__name__, "line": place.tidy(str(error)).splitlines()[0]}


def split_of(options: dict[str, Any]) -> Any:
    """Return a split, the phantom's training split if nothing else is said."""
    given = {"split": "training", "release": "phantom", "workers": 1, **options}
    return vd.load_split(given.pop("split"), **given)


def dataset_of(release: vd.Release, options: dict[str, Any]) -> Any:
    """Return a dataset of an opened release, of its training split if nothing else is said."""
    given = {"workers": 1, **options}
    if given.get("transform") == "noise":
        given["transform"] = Noise()
    scans = given.pop("scans", [name for name in release.series if _trained(release, name)])
    where = given.pop("where", None)
    return release.dataset(
        scans if where is None else release.select(where, scan_ids=scans), **given
    )


def _trained(release: vd.Release, name: str) -> bool:
    return release.series[name].split == "training"


def _case(dataset: Any) -> dict[str, Any]:
    few = [dataset[number] for number in range(min(FEW, len(dataset)))]
    return {
        "samples": len(dataset),
        "excluded": _reasons(dataset),
        "fingerprint": _fingerprint(dataset, few[0]),
        "first": kinds(few[0]),
        "which": [_named(sample) for sample in few],
        "sha256": stream(few),
        "last": stream([dataset[-1]]),
    }


def _reasons(dataset: Any) -> dict[str, int]:
    counts = dataset.excluded["reason"].value_counts()
    return {str(reason): int(counts[reason]) for reason in sorted(counts.index)}


def _fingerprint(dataset: Any, sample: dict[str, Any]) -> str:
    """Return the fingerprint, but of rows: their unrounded points differ by the kind of processor."""
    return "<of rows>" if "level" in sample else dataset.fingerprint


def _named(sample: dict[str, Any]) -> str:
    names = [sample["scan_id"], sample.get("level", ""), str(sample.get("grade", ""))]
    return " ".join(filter(None, names))


def kinds(sample: dict[str, Any]) -> dict[str, str]:
    """Return what each value of a sample is."""
    return {key: _kind(value) for key, value in sorted(sample.items())}


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def stream(samples: Iterable[dict[str, Any]]) -> str:
    """Return one SHA-256 over keys, types, shapes and bytes of the samples, in their order.

    Float64, which affines and points have, is rounded to 10^-6: its last bits depend on the kind of
    processor, by way of the library that multiplies matrices.
    """
    sha256 = hashlib.sha256()
    for sample in samples:
        for key, value in sorted(sample.items()):
            sha256.update(f"{key} {_kind(value)}\n".encode())
            if isinstance(value, torch.Tensor):
                array = value.contiguous().numpy()
                rounded = np.round(array, 6) + 0.0 if array.dtype == np.float64 else array
                sha256.update(rounded.tobytes())
            else:
                sha256.update(repr(value).encode())
    return sha256.hexdigest()


def _patches(release: vd.Release, **options: Any) -> Any:
    return dataset_of(release, {**PATCH, "sampling": "foreground", "seed": 5, **options})


def _epochs(release: vd.Release) -> dict[str, Any]:
    """Return the first samples of several epochs, asked for in three ways."""
    dataset = _patches(release, transform="noise")
    found = {}
    for epoch in (0, 1, 6):
        dataset.set_epoch(epoch)
        set_so = stream(dataset[number] for number in range(FEW))
        asked = stream(dataset[epoch, number] for number in range(FEW))
        found[f"epoch {epoch}"] = {"sha256": set_so, "the same by (epoch, number)": asked == set_so}
    return found


def _orders(release: vd.Release) -> dict[str, Any]:
    """Return which samples each rank takes, in which order, in two epochs."""
    found = {}
    for name, options in ORDERS.items():
        sampler = _patches(release).sampler(**options)
        taken = []
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            taken.append(" ".join(str(number) for _, number in sampler))
        found[f"order: {name}"] = {"length": len(sampler), "epochs": taken}
    return found


def _batches(release: vd.Release, count: int | None, **options: Any) -> tuple[str, Any]:
    """Return the digest of the first batches, and the loader as it is then."""
    loader = _patches(release).loader(batch_size=3, **options)
    return stream(islice(loader, count)), loader


def _stops(release: vd.Release) -> dict[str, Any]:
    """Return two epochs of batches, without workers and with two, and a run that was stopped."""
    whole, loader = _batches(release, None)
    second = stream(loader)
    by_workers, other = _batches(release, None, num_workers=2)
    loader = _patches(release).loader(batch_size=3)
    batches = iter(loader)
    begun = [next(batches) for _ in range(2)]
    state = json.loads(json.dumps(loader.state_dict()))
    again = _patches(release).loader(batch_size=3)
    again.load_state_dict(state)
    rest = list(again)
    return {
        "batches": {"first epoch": whole, "second epoch": second, "first": kinds(begun[0])},
        "batches, two workers": {"same": by_workers == whole, "state": other.state_dict()["epoch"]},
        "batches, stopped after two": {
            "state": state,
            "rest": stream(rest),
            "same run": stream([*begun, *rest]) == whole,
            "then": again.state_dict(),
        },
    }


def _ways(place: Place, release: vd.Release) -> dict[str, Any]:
    """Return what other ways to the same samples give."""
    rows = release.select("split == 'training' and grade >= 2")
    by_rows = release.dataset(rows, unit="vertebra", crop_size_mm=36, voxel_mm=4, workers=1)
    by_ids = release.dataset(["verse905", "verse901"], workers=1)
    by_class = vd.VerSeDataset(
        place.home, "training", Noise(), checksum=True, release="phantom", workers=1
    )
    opened = release.open_scan("verse902_split-verse951", orientation="PIR")
    return {
        "release.dataset of rows": _case(by_rows),
        "release.dataset of scans": _case(by_ids),
        "VerSeDataset": {"samples": len(by_class), "first": stream([by_class[0]])},
        "release.open_scan": {
            "sizes": {str(name): int(size) for name, size in opened.sizes.items()},
            "attributes": sorted(map(str, opened.attrs)),
            "image": hashlib.sha256(opened["image"].to_numpy().tobytes()).hexdigest(),
            "label": hashlib.sha256(opened["label"].to_numpy().tobytes()).hexdigest(),
        },
    }
