"""Predicted fracture scores and grades against Genant grades: AUC, sensitivity, specificity, kappa.

Every figure has a 95 % interval for which patients are resampled (bootstrap). A vertebra without a
grade (not assessed, foreign material) is neither fractured nor healthy, and is not scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from verse_data.errors import UsageError, ValidationFailed, counted
from verse_data.files import storage_errors
from verse_data.metrics.bootstrap import DRAWS, check_draws, multiplicities, percentiles
from verse_data.problems import Problem, raise_problems
from verse_data.records.base import read_csv

Weights = npt.NDArray[np.float64]
"""How often each vertebra counts, shape (draws, N); the first draw has each once."""
TARGETS: Final = (1, 2)
"""Fractured from this grade on: `fracture.any` and `fracture.moderate`."""
_GRADES: Final = 4
_KEY: Final = ["scan_id", "level"]
_THEN: Final = "Nothing was scored. Mend these rows and run it again."
_LIMIT_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class GradingScores:
    """Figures of predicted scores or grades, as ``Release.evaluate_grades`` returns them.

    Attributes
    ----------
    figures : pandas.DataFrame
        Per target (fractured from this grade on) and threshold: figure, value, and its interval.
    vertebrae : pandas.DataFrame
        The rows that were scored, with their true grade.
    about : dict
        What was scored, and the seed.
    notes : tuple of str
        Which vertebrae were not scored.
    """

    figures: pd.DataFrame
    vertebrae: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_scores(path: Path) -> pd.DataFrame:
    """Read a CSV with ``scan_id, level, score[, grade]``, or raise with all of its bad rows."""
    with storage_errors(path):
        if not path.is_file() or path.stat().st_size > _LIMIT_BYTES:
            raise UsageError(f"{path} is no CSV file with the columns scan_id, level and score.")
        data = path.read_bytes()
    (_, heads), *rows = read_csv(data, name=str(path))
    named = [head for head in heads if head]  # spreadsheets export empty columns too
    if len({*named}) < len(named) or not {*_KEY} <= {*heads} or not {"score", "grade"} & {*heads}:
        raise ValidationFailed(
            f"{path}, row 1: its heading is {', '.join(heads)}; it must have scan_id, level, and "
            f"score (higher is worse) or grade (predicted, 0 to 3), or both, each once."
        )
    problems: list[Problem] = []
    made = [
        _row(dict(zip(heads, fields, strict=True)), str(path), number, problems)
        for number, fields in rows
    ]
    raise_problems(problems, what=str(path), then=_THEN)
    return pd.DataFrame(made, columns=["row", *_KEY, "score", "predicted"])


def _row(row: dict[str, str], name: str, number: int, problems: list[Problem]) -> dict[str, Any]:
    """Return the values of one row; what is wrong with it is added to `problems`."""
    made: dict[str, Any] = {"row": number, "score": math.nan, "predicted": math.nan}
    made |= {key: row[key].strip() for key in _KEY}
    for column, key, rule in (
        ("score", "score", "is no number"),
        ("grade", "predicted", "is no grade from 0 to 3"),
    ):
        if column not in row:
            continue
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        good = math.isfinite(value) and (column == "score" or value in range(_GRADES))
        if not good:
            problems.append(
                Problem(file=name, row=number, column=column, value=row[column], rule=rule)
            )
        made[key] = value
    return made


def join_grades(scores: pd.DataFrame, vertebrae: pd.DataFrame, *, name: str) -> pd.DataFrame:
    """Return rows of scores with patient and true grade, or raise for rows that fit no vertebra."""
    known = vertebrae[[*_KEY, "subject_id", "grade"]].astype({"level": "string"})
    rows = scores.astype(dict.fromkeys(_KEY, "string"))
    joined = rows.merge(
        known.astype({"scan_id": "string"}), how="left", on=_KEY, validate="many_to_one"
    )
    wrong = [
        (joined["subject_id"].isna(), "the release has no such vertebra"),
        (joined.duplicated(_KEY), "this vertebra is in the file twice"),
    ]
    problems = [
        Problem(file=name, row=row["row"], value=f"{row['scan_id']} {row['level']}", rule=rule)
        for mask, rule in wrong
        for row in joined[mask].to_dict(orient="records")
    ]
    raise_problems(problems, what=name, then=_THEN)
    return joined.drop(columns="row")


def score_grades(
    rows: pd.DataFrame,
    *,
    thresholds: Sequence[float] = (0.5,),
    seed: int = 0,
    draws: int = DRAWS,
) -> GradingScores:
    """Compare predicted scores and grades with Genant grades.

    Parameters
    ----------
    rows : pandas.DataFrame
        ``subject_id``, ``grade`` (true; missing is not scored), and ``score`` (higher is worse) or
        ``predicted`` (a grade from 0 to 3), or both, for each vertebra.
    thresholds : sequence of float
        A vertebra is called fractured from each of these scores on.
    seed, draws : int
        As in :meth:`verse_data.Release.evaluate`.

    Returns
    -------
    GradingScores
        For fractures from grade 1 on and from grade 2 on: AUC, and sensitivity, specificity and
        Cohen's kappa by threshold; of predicted grades also the quadratic kappa over 0 to 3.

    Raises
    ------
    UsageError
        If no row has a grade, a threshold is no number, or the bootstrap cannot be drawn so.
    """
    check_draws(seed, draws)
    if not thresholds or not all(map(math.isfinite, thresholds)):
        raise UsageError(f"thresholds={list(thresholds)}: give one number or more.")
    known = rows[rows["grade"].notna()].reset_index(drop=True)
    if known.empty:
        raise UsageError("None of these vertebrae has a grade: there is nothing to compare with.")
    patients, groups = np.unique(known["subject_id"].astype(str), return_inverse=True)
    drawn = multiplicities(patients.size, seed=seed, draws=draws)[:, groups]
    weights = np.vstack([np.ones(len(known)), drawn])
    figures = [
        {**what, **_with_interval(values, patients.size), "n": n, "patients": patients.size}
        for what, values, n in _figures(known, weights, thresholds)
    ]
    names = ["by", "target", "threshold", "figure", "value", "low", "high", "n", "positives"]
    table = pd.DataFrame(figures, columns=[*names, "patients"])
    lacking = len(rows) - len(known)
    without = f"{counted(lacking, 'scored vertebra', 'scored vertebrae')} without a true grade"
    return GradingScores(table, rows, notes=(f"left out: {without}",) if lacking else ())


def _figures(
    rows: pd.DataFrame, weights: Weights, thresholds: Sequence[float]
) -> Iterator[tuple[dict[str, Any], Weights, int]]:
    """Yield each figure's name with its values in all draws."""
    grade = rows["grade"].to_numpy(dtype=np.int64)
    for by, column, cuts in (("score", "score", thresholds), ("grade", "predicted", None)):
        if column not in rows or rows[column].isna().all():
            continue
        predicted = rows[column].to_numpy(dtype=np.float64)
        for target in TARGETS:
            truth = grade >= target
            what = {"by": by, "target": f"grade >= {target}", "positives": int(truth.sum())}
            if by == "score":
                yield {**what, "figure": "auc"}, auc(truth, predicted, weights), len(rows)
            for cut in cuts or (target,):
                cells = confusion(truth, predicted >= cut, weights)
                for name, values in agreement(*cells).items():
                    yield {**what, "threshold": cut, "figure": name}, values, len(rows)
        if by == "grade":
            values = quadratic_kappa(grade, predicted.astype(np.int64), weights)
            yield {"by": by, "target": "grade", "figure": "quadratic_kappa"}, values, len(rows)


def _with_interval(values: Weights, patients: int) -> dict[str, float]:
    low, high = percentiles(values[1:], patients=patients)
    return {"value": float(values[0]), "low": low, "high": high}


def auc(truth: npt.NDArray[np.bool_], score: Weights, weights: Weights) -> Weights:
    """Return the share of pairs, fractured and not, that scores order rightly; a tie counts half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    of_fractured, of_others = (
        np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (truth, ~truth)
    )
    below = np.cumsum(of_others, axis=1) - of_others
    right = (of_fractured * (below + of_others / 2)).sum(axis=1)
    return _share(right, of_fractured.sum(axis=1) * of_others.sum(axis=1))


def confusion(
    truth: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_], weights: Weights
) -> tuple[Weights, Weights, Weights, Weights]:
    """Return the counts of true and false positives, false and true negatives in each draw."""
    pairs = ((True, True), (False, True), (True, False), (False, False))
    found = [weights @ ((truth == a) & (predicted == b)).astype(np.float64) for a, b in pairs]
    return found[0], found[1], found[2], found[3]


def agreement(tp: Weights, fp: Weights, fn: Weights, tn: Weights) -> dict[str, Weights]:
    """Return sensitivity, specificity and Cohen's kappa; NaN where one side has no vertebra."""
    n = tp + fp + fn + tn
    by_chance = _share((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn), n * n)
    return {
        "sensitivity": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "kappa": _share((tp + tn) / n - by_chance, 1 - by_chance),
    }


def quadratic_kappa(
    truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], weights: Weights
) -> Weights:
    """Return Cohen's kappa over grades, in which a distance of two grades weighs four times one."""
    cells = np.zeros((truth.size, _GRADES * _GRADES))
    cells[np.arange(truth.size), truth * _GRADES + predicted] = 1
    counts = (weights @ cells).reshape(-1, _GRADES, _GRADES)
    grades = np.arange(_GRADES)
    apart = (grades[:, None] - grades) ** 2.0
    expected = counts.sum(axis=2)[:, :, None] * counts.sum(axis=1)[:, None, :]
    n = counts.sum(axis=(1, 2))
    return 1 - _share((counts * apart).sum(axis=(1, 2)) * n, (expected * apart).sum(axis=(1, 2)))


def _share(part: Weights, whole: Weights) -> Weights:
    """Return `part` by `whole`; NaN where that is nothing."""
    shares: Weights = np.full(whole.shape, math.nan)
    return np.divide(part, whole, out=shares, where=whole > 0)
