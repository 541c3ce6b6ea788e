"""One training dataset out of what one or several releases contribute."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, NoReturn

from verse_data.errors import UsageError
from verse_data.release import contents, union
from verse_data.release.options import needs
from verse_data.releases.provenance import versions

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.tables.index import ScanFiles
    from verse_data.training import (
        LeftOut,
        PatchDataset,
        ScanDataset,
        ServedScan,
        VertebraDataset,
    )
    from verse_data.training.base import ServedDataset


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
    contents.make_recipe(
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
