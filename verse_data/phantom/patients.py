"""Who is in the phantom, and which awkward case lies where: chosen by number, never by luck."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from verse_data.errors import UsageError
from verse_data.phantom.plan import SeriesPlan, SubjectPlan
from verse_data.records.names import Split
from verse_data.spine import levels

MIN_SUBJECTS: Final = 4
MAX_SUBJECTS: Final = 50
_SLICES_MM: Final = (1.0, 2.0, 3.0)


def _column(*, plus: str | None = None, minus: str | None = None) -> tuple[str, ...]:
    usual = {level for level in levels.LEVELS if level not in {"T13", "L6"}}
    return tuple(name for name in levels.LEVELS if name in usual | {plus} and name != minus)


_USUAL: Final = _column()

CASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pir": "verse901",
        "blank_grade": "verse901",
        "mask_without_grade": "verse901",
        "foreign_material": "verse901",
        "two_series": "verse902_split-verse951",
        "oblique_2mm_sagittal": "verse902_split-verse951",
        "t13": "verse903",
        "lps": "verse903",
        "l6": "verse904",
        "float64_mask": "verse904",
        "bmd_zero": "verse904",
        "no_t12": "verse905",
        "uint8_ct_with_slope": "verse905",
        "graded_without_mask": "verse906",
        "no_graded_level": "verse907",
        "c1_centroid_off_mask": "verse907",
        "missing_derivative": "verse908",
        "whole_spine": "verse909",
        "crumbs": "verse910",
        "mask_without_centroid": "verse910",
        "las": "verse911",
        "under_30_years": "verse912",
    }
)
"""Awkward case to the `scan_id` that holds it. With few subjects, cases of later ones are absent."""

_SUBJECTS: Final = (
    SubjectPlan(
        number=901, split="training", age=71.32, device=1, bmd=76.4, t_value=-2.6,
        series=(
            SeriesPlan(
                first="T11", last="L5", graded=("T11", "L4"), column=_USUAL,
                findings={"T12": (2, 1), "L1": (3, 3), "L3": (1, 2)}, foreign=("L2",),
            ),
        ),
    ),
    SubjectPlan(
        number=902, split="training", age=64.9, device=4, bmd=101.7, t_value=-1.4,
        series=(
            SeriesPlan(
                first="T3", last="T11", graded=("T3", "T11"), column=_USUAL,
                series_label="verse951", slice_mm=2.000296, oblique=True,
                findings={"T6": (1, 1), "T8": (2, 1), "T9": (3, 1)},
            ),
            SeriesPlan(
                first="T10", last="L4", graded=("T10", "L4"), column=_USUAL,
                series_label="verse952", slice_mm=2.0,
                # T9 is cut by the field of view: drawn as in the other series, not graded.
                findings={"T9": (3, 1), "T12": (1, 2), "L2": (2, 2)},
            ),
        ),
    ),
    SubjectPlan(
        number=903, split="validation", age=58.25, device=3, bmd=120.3, t_value=None,
        series=(
            SeriesPlan(
                first="T11", last="L4", graded=("T11", "L4"), column=_column(plus="T13"),
                axcodes="LPS", findings={"T11": (2, 1), "L1": (1, 2), "L3": (3, 2)},
            ),
        ),
    ),
    SubjectPlan(
        number=904, split="test", age=80.61, device=2, bmd=0.0, t_value=-4.2,
        series=(
            SeriesPlan(
                first="T12", last="L6", graded=("T12", "L6"), column=_column(plus="L6"),
                float64_mask=True, slice_mm=2.0,
                findings={"T12": (2, 1), "L1": (3, 1), "L2": (2, 2), "L4": (1, 2)},
            ),
        ),
    ),
    SubjectPlan(
        number=905, split="training", age=49.03, device=5, bmd=142.8, t_value=0.3,
        series=(
            SeriesPlan(
                first="T10", last="L5", graded=("L1", "L5"), column=_column(minus="T12"),
                uint8_ct=True, slice_mm=2.0, findings={"L2": (2, 1), "L4": (3, 3)},
            ),
        ),
    ),
    SubjectPlan(
        number=906, split="training", age=75.48, device=1, bmd=58.9, t_value=-3.1,
        series=(
            SeriesPlan(
                first="T7", last="L2", graded=("T6", "L1"), column=_USUAL, slice_mm=2.0,
                findings={"T7": (1, 1), "T8": (2, 2), "T11": (3, 1), "L1": (2, 3)},
            ),
        ),
    ),
    SubjectPlan(
        number=907, split="validation", age=36.74, device=4, bmd=171.2, t_value=None,
        series=(SeriesPlan(first="C1", last="C7", graded=None, column=_USUAL),),
    ),
    SubjectPlan(
        number=908, split="test", age=68.17, device=1, bmd=93.5, t_value=-2.0,
        series=(
            SeriesPlan(
                first="T12", last="L4", graded=("T12", "L4"), column=_USUAL, slice_mm=2.0,
                findings={"L1": (2, 1)}, derivatives=False,
            ),
        ),
    ),
    SubjectPlan(
        number=909, split="training", age=61.9, device=2, bmd=88.6, t_value=-1.9,
        series=(
            SeriesPlan(
                first="C3", last="L5", graded=("T1", "L5"), column=_USUAL, slice_mm=3.0,
                findings={"T5": (1, 1), "T7": (2, 1), "T12": (3, 1), "L1": (1, 2), "L3": (2, 2)},
            ),
        ),
    ),
    SubjectPlan(
        number=910, split="training", age=83.55, device=3, bmd=31.0, t_value=-4.9,
        series=(
            SeriesPlan(
                first="T4", last="T12", graded=("T4", "T12"), column=_USUAL, slice_mm=2.0,
                crumbs=True, without_centroid="T4",
                findings={"T5": (2, 1), "T7": (3, 1), "T8": (1, 1), "T10": (2, 3), "T12": (3, 3)},
            ),
        ),
    ),
    SubjectPlan(
        number=911, split="validation", age=70.02, device=4, bmd=67.3, t_value=-2.8,
        series=(
            SeriesPlan(
                first="T12", last="L5", graded=("T12", "L5"), column=_USUAL, axcodes="LAS",
                slice_mm=2.0, findings={"T12": (1, 1), "L1": (2, 2), "L5": (2, 1)},
                foreign=("L3", "L4"),
            ),
        ),
    ),
    SubjectPlan(
        number=912, split="test", age=27.36, device=1, bmd=183.9, t_value=None,
        series=(
            SeriesPlan(
                first="T6", last="L1", graded=("T6", "L1"), column=_USUAL, slice_mm=3.0,
                findings={"T9": (2, 1), "T11": (1, 2)},
            ),
        ),
    ),
)  # fmt: skip
DEFAULT_SUBJECTS: Final = len(_SUBJECTS)


def subjects(n_subjects: int, *, seed: int) -> tuple[SubjectPlan, ...]:
    """Return the first `n_subjects` patients: twelve by the table, the rest drawn with `seed`.

    Raises
    ------
    UsageError
        If `n_subjects` is not within 4 to 50: all three splits need a patient, and ids end at 950.
    """
    if not MIN_SUBJECTS <= n_subjects <= MAX_SUBJECTS:
        raise UsageError(
            f"n_subjects={n_subjects}: a phantom has {MIN_SUBJECTS} to {MAX_SUBJECTS} subjects."
        )
    drawn = (_draw(place, seed=seed) for place in range(DEFAULT_SUBJECTS, n_subjects))
    return (*_SUBJECTS[:n_subjects], *drawn)


def cases(n_subjects: int = DEFAULT_SUBJECTS) -> dict[str, str]:
    """Return the awkward cases that a phantom of `n_subjects` holds.

    Parameters
    ----------
    n_subjects : int
        As in :func:`verse_data.phantom.write`.

    Returns
    -------
    dict
        Scan id of each case.
    """
    known = {plan.subject_id for plan in subjects(n_subjects, seed=0)}
    return {case: scan for case, scan in CASES.items() if scan.split("_")[0] in known}


def _draw(place: int, *, seed: int) -> SubjectPlan:
    """Make up a patient without awkward cases; the splits go round as 2 : 1 : 1."""
    rng = np.random.default_rng([seed, place])
    splits: tuple[Split, ...] = ("training", "validation", "training", "test")
    top = int(rng.integers(7, 18))
    run = _USUAL[top : top + int(rng.integers(6, 9))]
    hurt = [level for level in run if rng.random() < 0.3]
    findings = {level: (int(rng.integers(1, 4)), int(rng.integers(1, 4))) for level in hurt}
    series = SeriesPlan(
        first=run[0],
        last=run[-1],
        graded=(run[0], run[-1]),
        column=_USUAL,
        findings=findings,
        slice_mm=float(rng.choice(_SLICES_MM)),
    )
    return SubjectPlan(
        number=901 + place,
        split=splits[place % len(splits)],
        age=round(float(rng.uniform(35, 90)), 2),
        device=int(rng.integers(1, 6)),
        bmd=round(float(rng.uniform(30, 180)), 1),
        t_value=round(float(rng.uniform(-5, 2)), 1),
        series=(series,),
    )
