"""The plan of a made-up patient and of one of its CT series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from verse_data.records.names import Split
from verse_data.spine import levels

Finding = tuple[int, int]
"""Genant grade 1-3 and shape 1 wedge, 2 biconcave, 3 crush."""


@dataclass(frozen=True, kw_only=True)
class SeriesPlan:
    """One CT series: what it shows, what is wrong with its spine, how it is stored.

    Attributes
    ----------
    column : tuple of str
        All levels of this patient, cranio-caudally; of these, `first` to `last` are annotated.
    graded : (str, str) or None
        First and last level with a grade in the workbook; they may differ from the mask's.
    findings : mapping of level to (grade, shape)
        Fractures. What is graded and not listed here is 0.
    foreign : tuple of str
        Levels with metal: ``x`` in the workbook, the metal cut out of the mask.
    """

    first: str
    last: str
    graded: tuple[str, str] | None
    column: tuple[str, ...]
    series_label: str | None = None
    findings: Mapping[str, Finding] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    axcodes: str = "PIR"
    slice_mm: float = 1.0
    oblique: bool = False
    uint8_ct: bool = False
    float64_mask: bool = False
    crumbs: bool = False
    derivatives: bool = True
    without_centroid: str | None = None

    @property
    def annotated(self) -> tuple[str, ...]:
        """Levels with a mask label, cranio-caudally."""
        return self._run(self.first, self.last)

    @property
    def grades(self) -> dict[str, int | str]:
        """Cell of each filled level of the workbook: 0-3 or ``"x"``."""
        return {level: self._cell(level, 0) for level in self._graded_run()}

    @property
    def shapes(self) -> dict[str, int | str]:
        """Like `grades`, for the fracture's shape."""
        return {level: self._cell(level, 1) for level in self._graded_run()}

    def _cell(self, level: str, place: int) -> int | str:
        return "x" if level in self.foreign else self.findings.get(level, (0, 0))[place]

    def _graded_run(self) -> tuple[str, ...]:
        if self.graded is None:
            return ()
        return tuple(name for name in self._run(*self.graded) if name in levels.GRADED_LEVELS)

    def _run(self, first: str, last: str) -> tuple[str, ...]:
        return self.column[self.column.index(first) : self.column.index(last) + 1]


@dataclass(frozen=True, kw_only=True)
class SubjectPlan:
    """One made-up patient; age, BMD, device and T-value hold for all series."""

    number: int
    split: Split
    age: float
    device: int
    bmd: float
    t_value: float | None
    series: tuple[SeriesPlan, ...]

    @property
    def subject_id(self) -> str:
        """The BIDS label, such as ``verse901``."""
        return f"verse{self.number}"

    def scan_id(self, series: SeriesPlan) -> str:
        """Return the name of one series, as in the file names."""
        split = f"_split-{series.series_label}" if series.series_label else ""
        return f"{self.subject_id}{split}"
