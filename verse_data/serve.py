"""From chosen scans of one or several releases to a torch dataset; the options of each unit."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Required, TypedDict

from verse_data.errors import UsageError, did_you_mean, one_of, warn
from verse_data.progress import Progress
from verse_data.releases.provenance import versions
from verse_data.stores import make_recipe
from verse_data.tables.index import ScanFiles, preferred
from verse_data.tables.splits import Place, patients, same_series

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.training import LeftOut, ServedScan
    from verse_data.training.base import ServedDataset


class ReleaseOptions(TypedDict, total=False):
    """What :func:`verse_data.load_split` opens, for type checkers."""

    release: str | Sequence[str]
    version: str | None
    where: str | None
    overlays: Sequence[str | os.PathLike[str]] | None
    licence: str | Sequence[str] | None
    root: str | os.PathLike[str] | None
    offline: bool | None


class CommonOptions(ReleaseOptions, total=False):
    """Options of every unit; see :class:`verse_data.training.base.ServedDataset`."""

    orientation: str
    spacing: float | Sequence[float] | None
    interpolation: Literal["linear", "cubic"]
    codec: Literal["lz4", "zstd", "none"]
    transform: Callable[[Any], Any] | None
    seed: int
    image_dtype: Literal["float32", "int16"]
    window: str | Sequence[float] | None
    workers: int | None
    progress: Progress | None


class ScanOptions(CommonOptions, total=False):
    """Options of ``unit="scan"``; see :class:`verse_data.training.ScanDataset`."""

    label: bool
    crop: Literal["spine"] | None
    margin_mm: float


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


class VertebraSliceOptions(VertebraOptions, total=False):
    """Options of ``unit="slice"``; see :class:`verse_data.training.VertebraSliceDataset`."""

    through: Literal["vertebra"]
    plane: Literal["sagittal", "coronal", "axial"]
    projection: Literal["mean", "max"] | None
    thickness_mm: float | None


class SpineSliceOptions(ScanOptions, total=False):
    """Options with ``through="spine"``; see :class:`verse_data.training.SpineSliceDataset`."""

    through: Required[Literal["spine"]]
    plane: Literal["sagittal", "coronal", "axial"]
    projection: Literal["mean", "max"] | None
    thickness_mm: float | None


_OF_UNIT: Final = {
    "scan": ScanOptions,
    "patch": PatchOptions,
    "vertebra": VertebraOptions,
    "slice": VertebraSliceOptions,
}
_PREPARING: Final = {"spacing", "interpolation", "codec", "workers", "progress"}


def split_options(unit: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options for fetching and converting scans, and those of the dataset."""
    one_of("unit", unit, _OF_UNIT)
    notice_engine(options.get("engine"))
    options_of, place = _OF_UNIT[unit], f"unit={unit!r}"
    if unit == "slice" and (through := options.get("through", "vertebra")) != "vertebra":
        if through != "spine":
            raise UsageError(f"through={through!r} is none of vertebra, spine.")
        options_of, place = SpineSliceOptions, f"{place}, through='spine'"
    known = own_fields(options_of)
    for name in options:
        if name not in {*known, "engine"}:
            raise UsageError(
                f"{place} has no option {name!r}.{did_you_mean(name, known)} Its options are "
                f"{', '.join(known)}."
            )
    own = {name: value for name, value in options.items() if name not in {*_PREPARING, "engine"}}
    return {name: options[name] for name in options if name in _PREPARING}, own


def own_fields(options_of: type) -> list[str]:
    """Return the options of a unit, without those that say what is opened."""
    return sorted(options_of.__annotations__.keys() - ReleaseOptions.__annotations__.keys())


def notice_engine(engine: object) -> None:
    """Warn that ``engine=`` no longer has an effect."""
    if engine is not None:
        warn(
            FutureWarning(
                f"engine={engine!r} has no effect: contents come over HTTP, and from siblings in folders "
                f"of this machine. Leave it out; a later version will refuse it."
            )
        )


def needs(unit: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether a dataset with these options needs rows of vertebrae, and their grades."""
    sampling = own.get("sampling")
    of_vertebrae = unit == "vertebra" or (unit == "slice" and own.get("through") != "spine")
    return {
        "with_rows": of_vertebrae or sampling in ("level", "grade"),
        "graded": of_vertebrae or sampling == "grade",
    }


def check_options(unit: str, preparing: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a wrong option, before anything is listed or fetched."""
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
    # Weights of classes can be checked only with the data.
    by_class = options.get("sampling") in ("level", "grade")
    checked = {name: value for name, value in options.items() if name != "weights" or not by_class}
    rows = None
    if needs(unit, options)["with_rows"]:
        from verse_data.tables.columns import to_frame

        rows = to_frame("vertebrae", [])
    _make_dataset(unit, [], rows, checked)


def check_processes(workers: int | None) -> int:
    """Return the number of processes for conversion: `workers`, or one per core."""
    if workers is None:
        return os.cpu_count() or 1
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise UsageError(
            f"workers={workers!r}: give a whole number of processes, 1 or more, or leave it out for "
            f"one a core."
        )
    return workers


# --- one dataset out of what releases contribute -------------------------------------------------


@dataclass(frozen=True)
class Contribution:
    """What one release contributes to a dataset."""

    scans: tuple[ServedScan, ...]  # whose stores are ready to be read
    left_out: tuple[LeftOut, ...]  # asked for, and without a CT
    vertebrae: pd.DataFrame | None  # rows that may be served; None where no sample needs them
    facts: Mapping[str, Any]  # its provenance; at least release, version and licence
    series: Mapping[str, ScanFiles]  # of all its scans by id, asked for or not
    graded: bool  # whether it lists a grading workbook


def dataset(
    parts: Sequence[Contribution],
    *,
    unit: str,
    selection: Mapping[str, Any],
    lost: Sequence[LeftOut] = (),
    **options: Any,
) -> ServedDataset:
    """Serve the parts as one dataset; a series in several is taken from one with a sample.

    `selection` is what chose the scans: split, condition, or fold. `lost` are published series that
    no lock lists; they are listed as left out.
    """
    from verse_data.training import LeftOut

    one = parts[0] if len(parts) == 1 else united(parts, unit, options)
    scans, left_out = list(one.scans), [*one.left_out, *lost]
    if unit != "patch" and needs(unit, options)["with_rows"] and one.vertebrae is not None:
        with_rows = set(one.vertebrae["scan_id"])
        left_out += [
            LeftOut(scan.scan_id, scan.subject_id, "no_vertebra")
            for scan in scans
            if scan.scan_id not in with_rows
        ]
        scans = [scan for scan in scans if scan.scan_id in with_rows]
    provenance = _provenance([part.facts for part in parts], unit, options)
    provenance["selection"] = {"split": None, "where": None, "fold": None, **selection}
    settings = {"provenance": provenance, "left_out": left_out, **options}
    made = _make_dataset(unit, scans, one.vertebrae, settings)
    if not len(made):
        _refuse_empty(made, [str(part.facts["release"]) for part in parts])
    return made


def _make_dataset(
    unit: str,
    scans: Sequence[ServedScan],
    vertebrae: pd.DataFrame | None,
    options: Mapping[str, Any],
) -> ServedDataset:
    from verse_data import training

    if unit == "scan":
        return training.ScanDataset(scans, **options)
    if unit == "patch":
        return training.PatchDataset(scans, vertebrae=vertebrae, **options)
    own = {name: value for name, value in options.items() if name != "through"}
    if not needs(unit, options)["with_rows"]:
        return training.SpineSliceDataset(scans, **own)
    assert vertebrae is not None  # these always have them
    made = training.VertebraDataset if unit == "vertebra" else training.VertebraSliceDataset
    return made(scans, vertebrae, **own)


_REMEDIES: Final = {
    "not_assessed": "include=('graded', 'not_assessed')",
    "foreign_material": "include=('graded', 'foreign_material')",
    "no_centroid": "around='mask'",
    "no_mask": "label=False",
    "no_neighbour": "axes='scan'",
    "grade": "sampling='level' (no vertebra has both a centroid and a grade)",
    "level": "sampling='uniform' (no vertebra has a centroid)",
}
"""Options that serve what was left out, by its reason or by the `sampling` that left it out."""


def _refuse_empty(made: ServedDataset, releases: Sequence[str]) -> NoReturn:
    """Raise `UsageError` for an empty dataset, with what was left out and how to serve it."""
    counts = made.excluded["reason"].value_counts()
    left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"
    message = f"There is nothing to serve: no {made.unit} is left. Left out: {left_out}."
    if "not_assessed" in counts:
        lines = " and ".join(f"`verse-data findings {name}`" for name in releases)
        message += f" Grades come from the grading workbook; whether it is here, {lines} says."
    causes = {*counts.index, made.options.get("sampling")}
    own = {"no_mask": "around='centroid'"} if "around" in made.options else {}
    remedies = "; ".join(remedy for cause, remedy in (_REMEDIES | own).items() if cause in causes)
    raise UsageError(f"{message} To serve some: {remedies or 'choose other scans or rows'}.")


def _provenance(
    facts: Sequence[Mapping[str, Any]], unit: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the provenance of a dataset, with the packages that influence its samples."""
    turned = options.get("axes", "scan") == "spine"
    resampled = unit == "vertebra" and (turned or options.get("voxel_mm", 1.0) is not None)
    resampled = resampled or unit == "slice"  # which SciPy finds the boxes of
    by_rows = needs(unit, options)["with_rows"]
    more = versions([*["pandas"] * by_rows, *["scipy"] * resampled])
    return {
        "release": " + ".join(str(fact["release"]) for fact in facts),
        "version": " + ".join(str(fact["version"]) for fact in facts),
        "licence": " + ".join(
            dict.fromkeys(one for fact in facts for one in str(fact["licence"]).split(" + "))
        ),
        "releases": [
            {**fact, "packages": dict(sorted({**fact["packages"], **more}.items()))}
            for fact in facts
        ],
    }


# --- several releases as one ---------------------------------------------------------------------


def rows_of(table: pd.DataFrame, release: int, kept: Container[Place]) -> pd.DataFrame:
    """Return the rows of a table of a release, by its position, whose scans are `kept`."""
    return table.loc[[(release, scan_id) in kept for scan_id in table["scan_id"]]]


def united(parts: Sequence[Contribution], unit: str, options: Mapping[str, Any]) -> Contribution:
    """Return the parts of several releases as one, every series once."""
    # A series is served from a release that has a sample of it, of several from the one that tables
    # show; if none has, one copy is kept, so that it is listed with its reason.
    import pandas as pd

    from verse_data.training import LeftOut

    # Weights are checked later, against all releases together.
    unweighted = {name: value for name, value in options.items() if name != "weights"}
    held = [part.series for part in parts]
    numbers = same_series(held)
    ready: set[Place] = set()
    offered: list[Place] = []
    for number, part in enumerate(parts):
        settings = {**unweighted, "left_out": part.left_out}
        made = _make_dataset(unit, list(part.scans), part.vertebrae, settings)
        ready |= {(number, scan_id) for scan_id in made.sampled_scans}
        offered += [(number, scan.scan_id) for scan in part.scans]
        offered += [(number, scan.scan_id) for scan in part.left_out]
    source: dict[int, Place] = {}
    shown = preferred(held, numbers, [part.graded for part in parts])
    for place in sorted(offered, key=lambda place: (place not in ready, place not in shown)):
        source.setdefault(numbers[place], place)
    kept = set(source.values())
    subject = patients(held, numbers)
    named = {scan_id for _, scan_id in kept}
    copies = {
        scan_id: LeftOut(scan_id, subject[held[number][scan_id].subject_id], "same_series")
        for number, scan_id in offered
        if scan_id not in named
    }

    def chosen(field: str) -> tuple[Any, ...]:
        return tuple(
            replace(scan, subject_id=subject[scan.subject_id])
            for number, part in enumerate(parts)
            for scan in getattr(part, field)
            if (number, scan.scan_id) in kept
        )

    rows = [
        rows_of(part.vertebrae, number, kept)
        for number, part in enumerate(parts)
        if part.vertebrae is not None
    ]
    vertebrae = pd.concat(rows, ignore_index=True) if rows else None
    if vertebrae is not None:
        vertebrae = vertebrae.assign(subject_id=vertebrae["subject_id"].map(subject))
    return replace(
        parts[0],
        scans=chosen("scans"),
        left_out=(*chosen("left_out"), *copies.values()),
        vertebrae=vertebrae,
    )
