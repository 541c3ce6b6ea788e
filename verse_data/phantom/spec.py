"""The patients of the phantom: those of ``patients.toml``, and then randomly drawn ones."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from verse_data.errors import UsageError
from verse_data.records.names import Split
from verse_data.spine.levels import GRADED_LEVELS, LEVELS

MIN_SUBJECTS: Final = 4
MAX_SUBJECTS: Final = 50
_SLICES_MM: Final = (1.0, 2.0, 3.0)
_FILE: Final[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("patients.toml").read_text(encoding="utf-8")
)
CASES: Final[Mapping[str, str]] = MappingProxyType(_FILE["cases"])
"""The `scan_id` of each awkward case. With few subjects, cases of later ones are absent."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SeriesSpec(_Spec):
    """One CT series: its levels, its findings, and how it is stored."""

    levels: tuple[str, str]  # first and last with a mask label
    graded: tuple[str, str] | None = None  # first and last with a grade in the workbook
    plus: str | None = None  # an extra level of this patient
    minus: str | None = None  # a missing one
    series_label: str | None = None
    fractures: dict[str, tuple[int, int]] = {}
    """By level, Genant grade 1-3 and shape 1 wedge, 2 biconcave, 3 crush."""
    foreign: tuple[str, ...] = ()  # with metal, x in the workbook, which is not part of the mask
    axcodes: str = "PIR"
    slice_mm: float = 1.0
    oblique: bool = False
    uint8_ct: bool = False
    float64_mask: bool = False
    crumbs: bool = False
    derivatives: bool = True
    without_centroid: str | None = None

    @property
    def column(self) -> tuple[str, ...]:
        """All levels of this patient, cranio-caudally."""
        extra = {"T13", "L6"} - {self.plus}
        return tuple(level for level in LEVELS if level not in extra | {self.minus})

    @property
    def annotated(self) -> tuple[str, ...]:
        """Levels with a mask label, cranio-caudally."""
        return self._run(*self.levels)

    def cells(self, column: int) -> dict[str, int | str]:
        """Return each filled cell of the workbook: 0-3 or ``"x"``, of grades (0) or shapes (1)."""
        graded = self._run(*self.graded) if self.graded else ()
        return {
            level: "x" if level in self.foreign else self.fractures.get(level, (0, 0))[column]
            for level in graded
            if level in GRADED_LEVELS
        }

    def _run(self, first: str, last: str) -> tuple[str, ...]:
        return self.column[self.column.index(first) : self.column.index(last) + 1]


class SubjectSpec(_Spec):
    """One synthetic patient; age, BMD, device and T-value are the same for all series."""

    number: int
    split: Split
    age: float
    device: int
    bmd: float
    t_value: float | None = None
    series: tuple[SeriesSpec, ...]

    @property
    def subject_id(self) -> str:
        """The BIDS label, such as ``verse901``."""
        return f"verse{self.number}"

    def scan_id(self, series: SeriesSpec) -> str:
        """Return the name of one series, as in the file names."""
        split = f"_split-{series.series_label}" if series.series_label else ""
        return f"{self.subject_id}{split}"


_SUBJECTS: Final = tuple(SubjectSpec.model_validate(table) for table in _FILE["subjects"])
DEFAULT_SUBJECTS: Final = len(_SUBJECTS)


def subjects(n_subjects: int, *, seed: int) -> tuple[SubjectSpec, ...]:
    """Return the first `n_subjects` patients: twelve of the file, the rest drawn with `seed`."""
    if not MIN_SUBJECTS <= n_subjects <= MAX_SUBJECTS:  # each split has a patient; ids end at 950
        raise UsageError(
            f"n_subjects={n_subjects}: a phantom has {MIN_SUBJECTS} to {MAX_SUBJECTS} subjects."
        )
    drawn = (_draw(place, seed=seed) for place in range(DEFAULT_SUBJECTS, n_subjects))
    return (*_SUBJECTS[:n_subjects], *drawn)


def cases(n_subjects: int = DEFAULT_SUBJECTS) -> dict[str, str]:
    """Return the awkward cases in a phantom of `n_subjects`.

    Parameters
    ----------
    n_subjects : int
        As in :func:`verse_data.phantom.write`.

    Returns
    -------
    dict
        Scan id of each case.
    """
    known = {subject.subject_id for subject in subjects(n_subjects, seed=0)}
    return {case: scan for case, scan in CASES.items() if scan.split("_")[0] in known}


def _draw(place: int, *, seed: int) -> SubjectSpec:
    """Draw a patient without awkward cases; splits alternate in the ratio 2 : 1 : 1."""
    rng = np.random.default_rng([seed, place])
    splits: tuple[Split, ...] = ("training", "validation", "training", "test")
    usual = SeriesSpec(levels=("C1", "L5")).column
    top = int(rng.integers(7, 18))
    run = usual[top : top + int(rng.integers(6, 9))]
    fractured = [level for level in run if rng.random() < 0.3]
    series = SeriesSpec(
        levels=(run[0], run[-1]),
        graded=(run[0], run[-1]),
        fractures={
            level: (int(rng.integers(1, 4)), int(rng.integers(1, 4))) for level in fractured
        },
        slice_mm=float(rng.choice(_SLICES_MM)),
    )
    return SubjectSpec(
        number=901 + place,
        split=splits[place % len(splits)],
        age=round(float(rng.uniform(35, 90)), 2),
        device=int(rng.integers(1, 6)),
        bmd=round(float(rng.uniform(30, 180)), 1),
        t_value=round(float(rng.uniform(-5, 2)), 1),
        series=(series,),
    )
