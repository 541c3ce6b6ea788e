"""One row of the VerSe'19 grading workbook, and the rules that hold on all its 160 rows.

Source: supplement E1 of Löffler et al. 2020 (ryai190138_AppendixE1.xlsx).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import model_validator

from verse_data.records.base import Record, described
from verse_data.records.names import Split
from verse_data.spine.levels import GRADED_LEVELS

SHEET: Final = "VerSe_dataset"
SCAN_COLUMNS: Final = (
    "verse_ID", "subject_ID", "dataset", "age_ct", "CT_device", "Res", "BMD", "DXA T-value",
    "CT_image_series", "N_vertebrae", "foreign_material", "N_Fx",
)  # fmt: skip
COLUMNS: Final = (
    SCAN_COLUMNS
    + tuple(f"{x}_fx-g" for x in GRADED_LEVELS)
    + tuple(f"{x}_fx-s" for x in GRADED_LEVELS)
)
"""The 48 columns of the sheet, in order."""

SPLIT_OF_DATASET: Final[dict[str, Split]] = {
    "training": "training",
    "validation public": "validation",
    "test secret": "test",
}
DEVICES: Final = {
    1: "Brilliance 64",
    2: "iCT 256",
    3: "IQon Spectral CT",
    4: "SOMATOM Definition AS+",
    5: "SOMATOM Definition AS",
}
"""Model names of the workbook's device codes, as the ``_ct.json`` files write them."""

FRACTURE_TYPES: Final = ("none", "wedge", "biconcave", "crush")
"""Name of each shape code 0 to 3."""

Grade = Literal[0, 1, 2, 3]
Mark = Grade | Literal["x"]


def _e1(description: str, column: str, **rules: Any) -> Any:
    return described(description, source=f"grading workbook, {column}", **rules)


_ID: Final = r"^verse[0-9]{3}$"
_CELL: Final = "where the cell holds a number"


class GradingRow(Record):
    """What the workbook says of one CT series.

    ``grades`` and ``shapes`` hold the filled cells alone: a level that is not there was not
    assessed. ``"x"`` stands for foreign material, in place of a grade.
    """

    series_id: str = _e1("Series, from verse_ID", "verse_ID", pattern=_ID)
    subject_id: str = _e1("Person, from subject_ID", "subject_ID", pattern=_ID)
    split: Split = _e1("Published split", "dataset")
    age_years: float = _e1("Age at the scan", "age_ct", unit="year", gt=0, le=120)
    ct_device: Literal[1, 2, 3, 4, 5] = _e1("Code of the CT device", "CT_device")
    resolution_mm: float = _e1("Largest voxel edge", "Res", unit="mm", gt=0, le=10)
    bmd_mg_cm3: float = _e1(
        "Lumbar bone mineral density; 0 occurs", "BMD", unit="mg/cm3", ge=0, le=600
    )
    t_score: float | None = _e1("Lower DXA T-score of spine and hip", "DXA T-value", ge=-10, le=10)
    series_number: int = _e1("The k of 'k of n'", "CT_image_series", ge=1, le=9)
    series_count: int = _e1("The n of 'k of n'", "CT_image_series", ge=1, le=9)
    n_vertebrae: int = _e1("Vertebrae wholly in the scan", "N_vertebrae", ge=1, le=26)
    foreign_material: int | None = _e1(f"Number of x, {_CELL}", "foreign_material", ge=0, le=18)
    n_fractures: int | None = _e1(f"Number of grades above 0, {_CELL}", "N_Fx", ge=0, le=18)
    grades: Mapping[str, Mark] = _e1("Genant grade 0-3 or x, by level", "*_fx-g")
    shapes: Mapping[str, Mark] = _e1("Shape code 0-3 or x, by level", "*_fx-s")

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> GradingRow:
        broken = [f"{column}: {rule}" for column, rule in self.broken_rules(may_lack_t12=True)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    def broken_rules(
        self, *, may_lack_t12: bool = False, bad: Collection[str] = ()
    ) -> Iterator[tuple[str, str]]:
        """Yield column and broken rule for all that does not fit together, also before validation.

        Some spines have no T12, and may lack it between graded neighbours. A column in `bad` has a
        cell that is bad in itself: no rule looks at it.
        """
        unsure = {x for x in GRADED_LEVELS if {f"{x}_fx-g", f"{x}_fx-s"} & set(bad)}
        for level in GRADED_LEVELS:
            rule = _pair_rule(self.grades.get(level), self.shapes.get(level))
            if rule and level not in unsure:
                yield (f"{level}_fx-s", rule)
        # A level with a shape alone is reported above, and no gap.
        filled = {level for level in GRADED_LEVELS if level in self.grades or level in self.shapes}
        places = [place for place, level in enumerate(GRADED_LEVELS) if level in filled]
        excused = unsure | ({"T12"} if may_lack_t12 else set())
        for level in GRADED_LEVELS[places[0] : places[-1]] if places else ():
            if level not in filled | excused:
                rule = "blank between graded levels; they form one run without a gap"
                yield (f"{level}_fx-g", rule)
        if not any(f"{level}_fx-g" in bad for level in GRADED_LEVELS):
            yield from self._count_problems()
        if "CT_image_series" in bad:
            return
        if self.series_number > self.series_count:
            yield ("CT_image_series", "k of n with k above n")
        alone = self.series_count == 1 and not {"verse_ID", "subject_ID"} & set(bad)
        if alone and self.subject_id != self.series_id:
            yield ("subject_ID", "a subject's only series has the subject's number as verse_ID")

    def _count_problems(self) -> Iterator[tuple[str, str]]:
        marks = list(self.grades.values())
        if self.foreign_material is not None and self.foreign_material != marks.count("x"):
            yield ("foreign_material", f"the row has {marks.count('x')} cells with x")
        fractured = sum(mark in {1, 2, 3} for mark in marks)
        if self.n_fractures is not None and self.n_fractures != fractured:
            yield ("N_Fx", f"the row has {fractured} grades above 0")


def _pair_rule(grade: Mark | None, shape: Mark | None) -> str | None:
    if (grade is None) != (shape is None):
        return "grade without shape" if shape is None else "shape without grade"
    if (grade == "x") != (shape == "x"):
        return "x stands for grade and shape alike"
    if (grade == 0) != (shape == 0):
        return "grade 0 goes with shape 0, and grades 1 to 3 with shapes 1 to 3"
    return None
