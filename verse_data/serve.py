"""The options of `load_split`, unit by unit, so that editors and type checkers know them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypedDict

from verse_data import union
from verse_data.errors import UsageError, did_you_mean, warn
from verse_data.progress import Progress
from verse_data.releases.provenance import versions
from verse_data.stores import make_recipe
from verse_data.union import Contribution

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.training import (
        LeftOut,
        PatchDataset,
        ScanDataset,
        ServedScan,
        VertebraDataset,
    )
    from verse_data.training.base import ServedDataset


class CommonOptions(TypedDict, total=False):
    """Options of every unit; see :class:`verse_data.training.base.ServedDataset`."""

    orientation: str
    spacing: float | Sequence[float] | None
    interpolation: Literal["linear", "cubic"]
    codec: Literal["lz4", "zstd", "none"]
    transform: Callable[[Any], Any] | None
    seed: int
    image_dtype: Literal["float32", "int16"]
    workers: int | None
    progress: Progress | None


class ScanOptions(CommonOptions, total=False):
    """Options of ``unit="scan"``; see :class:`verse_data.training.ScanDataset`."""

    label: bool


class PatchOptions(CommonOptions, total=False):
    """Options of ``unit="patch"``; see :class:`verse_data.training.PatchDataset`."""

    label: bool
    patch_size: int | Sequence[int]
    sampling: Literal["uniform", "foreground", "level", "grade"]
    weights: Mapping[Any, float] | None
    patches_per_scan: int
    patches_per_epoch: int | None


class VertebraOptions(CommonOptions, total=False):
    """Options of ``unit="vertebra"``; see :class:`verse_data.training.VertebraDataset`."""

    around: Literal["centroid", "mask"]
    crop_size_mm: float | Sequence[float]
    margin_mm: float
    voxel_mm: float | Sequence[float] | None
    axes: Literal["scan", "spine"]
    label_mode: Literal["vertebra", "all", "binary", "none"]
    fracture_threshold: int
    include: Sequence[str]


_OF_UNIT: Final = {"scan": ScanOptions, "patch": PatchOptions, "vertebra": VertebraOptions}
_PREPARING: Final = {"spacing", "interpolation", "codec", "workers", "progress"}


def split_options(unit: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that say how scans are fetched and converted, and the dataset's own."""
    if not isinstance(unit, str) or unit not in _OF_UNIT:
        guess = did_you_mean(unit, _OF_UNIT)
        raise UsageError(f"unit={unit!r} is not served; units are {', '.join(_OF_UNIT)}.{guess}")
    options = dict(options)
    notice_engine(options.pop("engine", None))
    known = sorted(_OF_UNIT[unit].__annotations__)
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"unit={unit!r} has no option {name!r}.{guess} Its options are {', '.join(known)}."
            )
    preparing = {name: value for name, value in options.items() if name in _PREPARING}
    return preparing, {n: value for n, value in options.items() if n not in _PREPARING}


def notice_engine(engine: object) -> None:
    """Warn where somebody still chooses what fetches: there is one way now."""
    if engine is not None:
        warn(
            FutureWarning(
                f"engine={engine!r} has no effect: contents come over HTTP, and from siblings in folders "
                f"of this machine. Leave it out; a later version will refuse it."
            )
        )


class Needs(TypedDict):
    """What a dataset needs beside the stores of its scans."""

    with_rows: bool
    graded: bool


def needs(unit: str, own: Mapping[str, Any]) -> Needs:
    """Return whether a dataset with these options needs rows of vertebrae, and their grades."""
    sampling = own.get("sampling")
    return {
        "with_rows": unit == "vertebra" or sampling in ("level", "grade"),
        "graded": unit == "vertebra" or sampling == "grade",
    }


_FALLBACK_OPTIONS: Final[Mapping[str, tuple[tuple[str, Any], ...]]] = {
    "scan": (("label", False),),
    "patch": (
        ("sampling", "level"),
        ("sampling", "foreground"),
        ("sampling", "uniform"),
        ("label", False),
    ),
    "vertebra": (
        ("include", ("graded", "not_assessed")),
        ("include", ("graded", "foreign_material")),
        ("around", "mask"),
        ("around", "centroid"),
        ("axes", "scan"),
        ("label_mode", "none"),
    ),
}
"""Options of each unit that serve something where others serve nothing."""


def dataset(
    parts: Sequence[Contribution], *, unit: str, lost: Sequence[LeftOut] = (), **options: Any
) -> ScanDataset | PatchDataset | VertebraDataset:
    """Serve what the releases contribute; a series that several hold comes from the first that can.

    `lost` are published series that no lock lists; they are listed as left out.
    """
    one = (
        parts[0]
        if len(parts) == 1
        else union.united(parts, [_ready(unit, p, options) for p in parts])
    )
    scans, left_out = list(one.scans), [*one.left_out, *lost]
    if unit == "vertebra" and one.vertebrae is not None:
        scans, bare = _separate_unmarked(scans, one.vertebrae)
        left_out += bare
    common = {
        "provenance": _provenance([part.facts for part in parts], unit, options),
        "left_out": left_out,
        **options,
    }
    made = _make_dataset(unit, scans, one.vertebrae, common)
    if not len(made):
        releases = [str(part.facts["release"]) for part in parts]
        _refuse_empty(made, _ways_out(unit, scans, one.vertebrae, common), releases)
    return made


def _ready(unit: str, part: Contribution, options: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of the scans of which one release alone could serve a sample."""
    # Whether the weights of a class fit is a question to all releases together.
    common = {name: value for name, value in options.items() if name != "weights"}
    made = _make_dataset(
        unit, list(part.scans), part.vertebrae, {**common, "left_out": part.left_out}
    )
    return made.sampled_scans


def _separate_unmarked(
    scans: Sequence[ServedScan], vertebrae: pd.DataFrame
) -> tuple[list[ServedScan], list[LeftOut]]:
    """Return the scans that have a row of a vertebra, and those of which nothing says where one is."""
    from verse_data.training import LeftOut

    known = set(vertebrae["scan_id"])
    bare = [
        LeftOut(s.scan_id, s.subject_id, "no_vertebra") for s in scans if s.scan_id not in known
    ]
    return [scan for scan in scans if scan.scan_id in known], bare


def _make_dataset(
    unit: str, scans: list[ServedScan], vertebrae: pd.DataFrame | None, options: Mapping[str, Any]
) -> ScanDataset | PatchDataset | VertebraDataset:
    from verse_data import training

    if unit == "scan":
        return training.ScanDataset(scans, **options)
    if unit == "patch":
        return training.PatchDataset(scans, vertebrae=vertebrae, **options)
    assert vertebrae is not None  # this unit always has them
    return training.VertebraDataset(scans, vertebrae, **options)


def check_options(unit: str, preparing: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an option that is refused, before anything is listed or fetched for it."""
    check_processes(preparing.get("workers"))
    make_recipe(
        preparing.get("spacing"),
        preparing.get("interpolation", "linear"),
        preparing.get("codec", "lz4"),
    )
    if not isinstance(options.get("orientation", "RAS"), str):
        raise UsageError(
            f"orientation={options['orientation']!r}: give axis codes such as 'RAS' or 'PIR'."
        )
    # Whether the weights of a class fit is a question to the data.
    by_class = options.get("sampling") in ("level", "grade")
    alone = {name: value for name, value in options.items() if name != "weights" or not by_class}
    _make_dataset(unit, [], _no_rows() if needs(unit, options)["with_rows"] else None, alone)


def check_processes(workers: int | None) -> int:
    """Return how many processes convert: as many as were asked for, or one a core."""
    if workers is None:
        return os.cpu_count() or 1
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise UsageError(
            f"workers={workers!r}: give a whole number of processes, 1 or more, or leave it out for "
            f"one a core."
        )
    return workers


def _no_rows() -> pd.DataFrame:
    from verse_data.tables.columns import to_frame

    return to_frame("vertebrae", [])


def _refuse_empty(
    made: ServedDataset, ways: Mapping[str, int], releases: Sequence[str]
) -> NoReturn:
    """Raise `UsageError` instead of a dataset that would train on nothing without a word."""
    counts = made.excluded["reason"].value_counts()
    left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"
    told = f"There is nothing to serve: no {made.unit} is left. Left out: {left_out}."
    sampling = made.options.get("sampling")
    if sampling in {"level", "grade"}:
        what = {"level": "a centroid", "grade": "a centroid and a grade"}[sampling]
        told += f" sampling={sampling!r} draws vertebrae that have {what}, and none has."
    if "not_assessed" in counts:
        lines = " and ".join(f"`verse-data findings {name}`" for name in releases)
        told += f" Grades come from the grading workbook; whether it is here, {lines} says."
    if "no_centroid" in counts:
        told += " Centroids come from the centroid files (seg-subreg_ctd.json)."
    if ways:
        listed = "; ".join(f"{option} would serve {count:,}" for option, count in ways.items())
        raise UsageError(f"{told} {listed}.")
    raise UsageError(f"{told} Choose other scans or rows.")


def _ways_out(
    unit: str,
    scans: list[ServedScan],
    vertebrae: pd.DataFrame | None,
    options: Mapping[str, Any],
) -> dict[str, int]:
    """Return the fewest other options that would serve something, as they are typed, and how much."""
    found: dict[str, int] = {}
    for size in (1, 2, 3):
        for chosen in combinations(_FALLBACK_OPTIONS[unit], size):
            changed = dict(chosen)
            if any(options.get(name) == value for name, value in changed.items()):
                continue
            kept = {name: value for name, value in options.items() if name != "weights"}
            try:
                count = len(_make_dataset(unit, scans, vertebrae, {**kept, **changed}))
            except UsageError:  # options that do not go together
                continue
            if count:
                found[", ".join(f"{name}={value!r}" for name, value in changed.items())] = count
        if found:
            break
    return found


def _provenance(
    facts: Sequence[Mapping[str, Any]], unit: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    more = versions(_shaping(unit, options))

    def joined(name: str) -> str:
        return " + ".join(dict.fromkeys(str(fact[name]) for fact in facts))

    return {
        "release": " + ".join(str(fact["release"]) for fact in facts),
        "version": " + ".join(str(fact["version"]) for fact in facts),
        "licence": joined("licence"),
        "releases": [
            {**fact, "packages": dict(sorted({**fact["packages"], **more}.items()))}
            for fact in facts
        ],
    }


def _shaping(unit: str, options: Mapping[str, Any]) -> set[str]:
    """Return the packages that shape samples beside those that made stores and tables."""
    by_rows = unit == "vertebra" or options.get("sampling") in {"level", "grade"}
    turned = options.get("axes", "scan") == "spine"
    resampled = unit == "vertebra" and (turned or options.get("voxel_mm", 1.0) is not None)
    return ({"pandas"} if by_rows else set()) | ({"scipy"} if resampled else set())
