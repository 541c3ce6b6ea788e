"""Confidence intervals of means: patients are resampled (bootstrap).

Vertebrae of one patient, and series of one patient, resemble one another: intervals that draw them
one by one are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError

_LEVEL: Final = 0.95
DRAWS: Final = 2000


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval, NaN where there are fewer than two patients."""

    value: float
    low: float
    high: float
    n: int
    patients: int


def check_draws(seed: int, draws: int) -> None:
    """Check seed and draws."""
    if seed < 0 or draws < 1:
        raise UsageError(
            f"seed={seed}, draws={draws}: give a seed of 0 or more, and 1 draw or more."
        )


def multiplicities(patients: int, *, seed: int, draws: int) -> npt.NDArray[np.int64]:
    """Return how often each patient is in each draw, shape (draws, patients)."""
    check_draws(seed, draws)
    shares = np.full(patients, 1 / patients)
    return np.random.default_rng(seed).multinomial(patients, shares, size=draws)


def percentiles(values: npt.NDArray[np.float64], *, patients: int) -> tuple[float, float]:
    """Return the ends of the interval of drawn figures, those without a value aside."""
    known = values[np.isfinite(values)]
    if patients < 2 or not known.size:
        return math.nan, math.nan
    edge = 100 * (1 - _LEVEL) / 2
    low, high = np.percentile(known, [edge, 100 - edge])
    return float(low), float(high)


def mean_interval(
    values: npt.ArrayLike, patients: Sequence[str], *, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Return the mean of `values` with its 95 % interval.

    Parameters
    ----------
    values : array of float, shape (N,)
        One figure per vertebra or scan; NaN is left out.
    patients : sequence of str, length N
        Patient of each.
    seed, draws : int
        As in :meth:`verse_data.Release.evaluate`.

    Returns
    -------
    Interval
        Mean, ends of the interval, and of how many values and patients.
    """
    figures = np.asarray(values, dtype=np.float64)
    known = np.isfinite(figures)
    names, groups = np.unique(np.asarray(patients, dtype=str)[known], return_inverse=True)
    if not names.size:
        return Interval(math.nan, math.nan, math.nan, 0, 0)
    sums = np.bincount(groups, weights=figures[known])
    counts = np.bincount(groups)
    drawn = multiplicities(names.size, seed=seed, draws=draws)
    low, high = percentiles((drawn @ sums) / (drawn @ counts), patients=names.size)
    return Interval(float(figures[known].mean()), low, high, int(known.sum()), int(names.size))
