"""Scores of predictions against the truth: a row per vertebra, per scan, and means with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from verse_data.errors import UsageError, one_of
from verse_data.metrics.bootstrap import DRAWS, check_draws, mean_interval
from verse_data.metrics.identification import HITS, Hit, Identified, identify
from verse_data.metrics.overlap import SHIFTS, Overlap, Structure, overlap, surface_distances
from verse_data.spine.geometry import Array, apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS, region

Unmatched = Literal["zero", "skip"]
UNMATCHED: Final[tuple[Unmatched, ...]] = ("zero", "skip")
Points = Mapping[str, npt.ArrayLike]
_JOINED: Final = ("grade", "fracture_type", "foreign_material", "grade_status")
_CLEAR: Final = 0.1
"""By how much the Dice of shifted labels must be higher to be called a shift, and how high at all."""
_GOOD: Final = 0.5
FIGURES: Final = {
    "dice": "Dice",
    "dice_foreground": "Dice, all vertebrae as one",
    "hd_mm": "Hausdorff distance, mm",
    "hd95_mm": "Hausdorff 95 %, mm",
    "id_rate": "identification rate",
    "id_precision": "identification precision",
    "d_mean_mm": "localisation distance of hits, mm",
    "official_dice": "Dice of the official code (wrong)",
    "official_id_rate": "id rate of the official code (wrong)",
}
"""Names of the figures in print."""
STATUSES: Final = ("found", "missing", "additional")
MEANS: Final = ("dice", "hd_mm", "hd95_mm", "hit", "distance_mm")
"""Columns of vertebrae that are averaged."""
_SCAN_MEANS: Final = (
    "dice", "dice_foreground", "hd_mm", "hd95_mm", "id_rate", "id_precision", "d_mean_mm",
    "official_dice", "official_id_rate",
)  # fmt: skip
_TYPES: Final = {"voxels_true": "Int64", "voxels_predicted": "Int64", "hit": "boolean"}


@dataclass(frozen=True)
class ScanScores:
    """The scores of one scan: a row per vertebra, and figures of the scan as a whole."""

    vertebrae: pd.DataFrame
    scan: dict[str, Any]


def score_scan(
    truth: npt.ArrayLike | None,
    predicted: npt.ArrayLike | None,
    affine: npt.ArrayLike,
    *,
    truth_points: Points | None = None,
    predicted_points: Points | None = None,
    hit: Hit = "lt20",
    name: str = "predicted mask",
) -> ScanScores:
    """Score one scan: Dice, surface distances and identification of each vertebra.

    Without predicted points, the centres of mass of the predicted labels are compared with those of
    the true labels: a centre of mass lies some 10 mm behind the point that VerSe's files hold.

    Parameters
    ----------
    truth, predicted : array of int, shape (I, J, K), or None
        Masks with VerSe's labels (T13 is 28), on one grid.
    affine : array of float, shape (4, 4)
        From voxel index to world mm.
    truth_points, predicted_points : mapping of str to (3,) float, optional
        Voxel index of each level, such as ``{"T12": (40.5, 81.0, 33.2)}``.
    hit : {"lt20", "le20"}
        As in :func:`verse_data.metrics.identify`.
    name : str
        What messages call the prediction.

    Returns
    -------
    ScanScores
        ``vertebrae`` has a row for each level that either side has, in spine order; a missing
        vertebra has Dice 0 and no distance. ``scan`` has the figures of the whole scan.

    Raises
    ------
    UsageError
        If the masks differ in shape, or there is nothing to compare.
    ValidationFailed
        If a value of a mask is no label.
    """
    masks = (
        None if truth is None or predicted is None else (np.asarray(truth), np.asarray(predicted))
    )
    has_points = truth_points is not None and predicted_points is not None
    if masks is None and not has_points:
        raise UsageError(
            "Give two masks, or true and predicted points: there is nothing to compare."
        )
    rows: dict[str, dict[str, Any]] = {}
    scan: dict[str, Any] = {}
    structures = None
    if masks is not None:
        found = overlap(*masks, name=name)
        structures = [Structure.all_of(mask, affine) for mask in masks]
        rows = _mask_rows(found, structures)
        scan = _mask_figures(found)
    if truth_points is not None and predicted_points is not None:
        source, sides = "files", [_in_mm(p, affine) for p in (truth_points, predicted_points)]
    elif structures is not None and predicted_points is None:
        source = "centres of masks"
        sides = [{level: one.centre for level, one in each.items()} for each in structures]
    else:  # predicted points, and no true ones to compare them with
        source, sides = "none", []
    scan["points"] = source
    if sides:
        known = identify(sides[0], sides[1], hit=hit)
        for level, one in known.items():
            rows.setdefault(level, {}).update(_point_row(one))
        scan |= _point_figures(known)
    return ScanScores(_frame(rows), scan)


def _in_mm(points: Points, affine: npt.ArrayLike) -> dict[str, Array]:
    return {level: apply_affine(affine, point) for level, point in points.items()}


def _mask_rows(found: Overlap, structures: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Return what masks say of each level that either has."""
    true, predicted = found.truth, found.predicted
    far = surface_distances(*structures)
    return {
        level: {
            "mask_status": _status(level in true, level in predicted),
            "dice": found.dice(level),
            "hd_mm": far.get(level, (math.nan, math.nan))[0],
            "hd95_mm": far.get(level, (math.nan, math.nan))[1],
            "voxels_true": true.get(level, 0),
            "voxels_predicted": predicted.get(level, 0),
        }
        for level in LEVELS
        if level in true or level in predicted
    }


def _status(is_true: bool, is_predicted: bool) -> str:  # noqa: FBT001 - two facts, by position
    return "found" if is_true and is_predicted else "missing" if is_true else "additional"


def _mask_figures(found: Overlap) -> dict[str, Any]:
    """Return what masks say of a scan as a whole, also whether all labels are off by one."""
    by_shift = {shift: found.shifted(shift) for shift in SHIFTS}
    best = max(SHIFTS, key=lambda shift: (by_shift[shift], shift == 0)) if found.truth else 0
    return {
        "n_true": len(found.truth),
        "n_predicted": len(found.predicted),
        "dice_foreground": found.foreground,
        "dice_up": by_shift[-1],
        "dice_down": by_shift[1],
        "shift": best if by_shift[best] > max(by_shift[0] + _CLEAR, _GOOD) else 0,
    }


def _point_row(one: Identified) -> dict[str, Any]:
    far = math.nan if one.distance_mm is None else one.distance_mm
    return {
        "point_status": one.status,
        "hit": one.hit if one.status != "additional" else None,
        "distance_mm": far,
        "nearest": one.nearest,
    }


def _point_figures(known: Mapping[str, Identified]) -> dict[str, Any]:
    """Return rate, precision and mean distance of the hits; NaN where nothing is counted."""
    hits = [one for one in known.values() if one.hit]
    true = sum(one.status != "additional" for one in known.values())
    predicted = sum(one.status != "missing" for one in known.values())
    return {
        "n_points_true": true,
        "n_points_predicted": predicted,
        "hits": len(hits),
        "id_rate": len(hits) / true if true else math.nan,
        "id_precision": len(hits) / predicted if predicted else math.nan,
        "d_mean_mm": float(np.mean([one.distance_mm for one in hits])) if hits else math.nan,
    }


def _frame(rows: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a table with all columns, whichever were filled."""
    made = pd.DataFrame(
        [
            {"level": level, "label": LABEL_OF_LEVEL[level], "region": region(level)} | rows[level]
            for level in LEVELS
            if level in rows
        ],
        columns=[
            "level", "label", "region", "mask_status", "dice", "hd_mm", "hd95_mm", "voxels_true",
            "voxels_predicted", "point_status", "hit", "distance_mm", "nearest",
        ],
    )  # fmt: skip
    numbers = dict.fromkeys(("dice", "hd_mm", "hd95_mm", "distance_mm"), "float64")
    words = dict.fromkeys(("mask_status", "point_status", "nearest"), "string")
    return made.astype(numbers | words | _TYPES)


# --- many scans -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """Scores of many scans, as :meth:`verse_data.Release.evaluate` returns them.

    Attributes
    ----------
    vertebrae : pandas.DataFrame
        A row per vertebra that truth or prediction has, with its grade.
    scans : pandas.DataFrame
        A row per scan.
    summary : pandas.DataFrame
        Mean of each figure, over scans and over vertebrae, with 95 % intervals.
    groups : pandas.DataFrame
        The same over the vertebrae of each region and of each grade.
    about : dict
        What was scored, and by which conventions.
    notes : tuple of str
        What a reader of the figures must know: shifted labels, scans that could not be scored.
    """

    vertebrae: pd.DataFrame
    scans: pd.DataFrame
    summary: pd.DataFrame
    groups: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_conventions(hit: str, missing: str, additional: str, seed: int, draws: int) -> None:
    """Raise UsageError for an unknown convention, before any file is read."""
    both = {"missing": (missing, UNMATCHED), "additional": (additional, UNMATCHED)}
    for name, (word, words) in {"hit": (hit, HITS), **both}.items():
        one_of(name, word, words)
    check_draws(seed, draws)


def with_grades(vertebrae: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of scores with what the release's table of vertebrae says of each."""
    known = table[["scan_id", "level", *_JOINED]].astype({"level": "string"})
    rows = vertebrae.astype({"level": "string"})
    joined = rows.merge(known, how="left", on=["scan_id", "level"], validate="one_to_one")
    return joined.assign(level=pd.Categorical(joined["level"], LEVELS, ordered=True))


def summarise(
    vertebrae: pd.DataFrame,
    scans: pd.DataFrame,
    *,
    missing: Unmatched = "zero",
    additional: Unmatched = "skip",
    seed: int = 0,
    draws: int = DRAWS,
) -> Evaluation:
    """Return means of scores with 95 % intervals, for which patients are resampled (bootstrap).

    Parameters
    ----------
    vertebrae : pandas.DataFrame
        Rows of :func:`score_scan` with ``scan_id``, ``subject_id`` and, where known, ``grade``.
    scans : pandas.DataFrame
        Figures of each scan, with ``scan_id`` and ``subject_id``.
    missing, additional, seed, draws : optional
        As in :meth:`verse_data.Release.evaluate`. Defaults are the challenge's. A missing vertebra
        has no Hausdorff distance, and is not identified.

    Returns
    -------
    Evaluation
        With ``summary`` and ``groups``, and the mean Dice of each scan by these conventions.

    Raises
    ------
    UsageError
        If a convention is another word, or the bootstrap cannot be drawn so.
    """
    check_conventions("lt20", missing, additional, seed, draws)
    how: dict[str, str] = {"missing": missing, "additional": additional}
    counted = ["found", *(status for status, word in how.items() if word == "zero")]
    rows = vertebrae.assign(dice=vertebrae["dice"].where(vertebrae["mask_status"].isin(counted)))
    # The paper's d_mean is that of the hits.
    rows["distance_mm"] = rows["distance_mm"].where(rows["hit"].eq(other=True))
    means = rows.groupby("scan_id")[["dice", "hd_mm", "hd95_mm"]].mean()
    status = vertebrae["mask_status"].fillna(vertebrae["point_status"])
    ids = vertebrae["scan_id"]
    of_scan: dict[str, Any] = {str(name): means[name] for name in means}
    of_scan |= {f"n_{word}": status.eq(word).groupby(ids).sum() for word in how}
    scans = scans.assign(**{name: scans["scan_id"].map(found) for name, found in of_scan.items()})
    over = {"scans": (scans, _SCAN_MEANS), "vertebrae": (rows, MEANS)}
    summary = [
        {"over": what, **_mean(part, name, seed, draws)}
        for what, (part, names) in over.items()
        for name in names
        if name in part
    ]
    groups = _table(_by_group(rows, seed, draws), by=("by", "value"))
    return Evaluation(vertebrae, scans, _table(summary), groups)


def _mean(rows: pd.DataFrame, name: str, seed: int, draws: int) -> dict[str, Any]:
    """Return the mean of a column with its interval, NaN if it has no value."""
    values = rows[name].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    found = mean_interval(values, rows["subject_id"].tolist(), seed=seed, draws=draws)
    figure = {"hit": "id_rate", "distance_mm": "d_mean_mm"}.get(name, name)
    return {"figure": figure, "mean": found.value, "low": found.low, "high": found.high,
            "n": found.n, "patients": found.patients}  # fmt: skip


def _by_group(rows: pd.DataFrame, seed: int, draws: int) -> Iterator[dict[str, Any]]:
    """Yield the means over the true vertebrae of each region and grade."""
    own = rows[rows["mask_status"].fillna(rows["point_status"]) != "additional"]
    columns = {"region": own["region"].astype(str)}
    if "grade" in own:
        columns["grade"] = own["grade"].astype("string").fillna("not assessed").astype(str)
    for by, values in columns.items():
        order = ("cervical", "thoracic", "lumbar") if by == "region" else sorted(values.unique())
        for value in order:
            chosen = own[values == value]
            if len(chosen):
                where = {"by": by, "value": value}
                yield from (where | _mean(chosen, name, seed, draws) for name in MEANS)


def mean_rows(made: Evaluation) -> list[list[str]]:
    """Return each figure of a summary in print, with its mean of scans and of vertebrae."""
    cells = {
        (row["over"], row["figure"]): interval_text(row)
        for row in made.summary.to_dict(orient="records")
    }
    rows = (
        [word, cells.get(("scans", name), ""), cells.get(("vertebrae", name), "")]
        for name, word in FIGURES.items()
    )
    return [row for row in rows if any(row[1:])]


def interval_text(row: dict[Any, Any]) -> str:
    """Return a mean with its interval, with two digits for mm and three for shares."""
    digits = 2 if str(row["figure"]).endswith("_mm") else 3
    value = row.get("mean", row.get("value"))
    ends = [row["low"], row["high"]]
    mean, *ends = ["none" if x is None else f"{x:.{digits}f}" for x in (value, *ends)]
    return mean if row["patients"] < 2 else f"{mean} [{', '.join(ends)}]"


def _table(
    rows: Iterator[dict[str, Any]] | list[dict[str, Any]], by: Sequence[str] = ("over",)
) -> pd.DataFrame:
    """Return the rows that have values."""
    names = [*by, "figure", "mean", "low", "high", "n", "patients"]
    made = pd.DataFrame(list(rows), columns=names)
    return made[made["n"] > 0].reset_index(drop=True)
