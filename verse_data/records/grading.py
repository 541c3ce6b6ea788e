"""One row of the VerSe'19 grading workbook, and the rules that hold on all its 160 rows.

Source: supplement E1 of Löffler et al. 2020 (ryai190138_AppendixE1.xlsx).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Final, Literal

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
_E1: Final = "grading workbook"


class GradingRow(Record):
    """What the workbook says of one CT series.

    ``grades`` and ``shapes`` hold the filled cells alone: a level that is not there was not
    assessed. ``"x"`` stands for foreign material, in place of a grade.
    """

    series_id: Annotated[
        str,
        described("Series, from verse_ID", source=f"{_E1}, verse_ID", pattern=r"^verse[0-9]{3}$"),
    ]
    subject_id: Annotated[
        str,
        described(
            "Person, from subject_ID", source=f"{_E1}, subject_ID", pattern=r"^verse[0-9]{3}$"
        ),
    ]
    split: Annotated[Split, described("Published split", source=f"{_E1}, dataset")]
    age_years: Annotated[
        float, described("Age at the scan", unit="year", source=f"{_E1}, age_ct", gt=0, le=120)
    ]
    ct_device: Annotated[
        Literal[1, 2, 3, 4, 5], described("Code of the CT device", source=f"{_E1}, CT_device")
    ]
    resolution_mm: Annotated[
        float, described("Largest voxel edge", unit="mm", source=f"{_E1}, Res", gt=0, le=10)
    ]
    bmd_mg_cm3: Annotated[
        float,
        described(
            "Lumbar bone mineral density; 0 occurs",
            unit="mg/cm3",
            source=f"{_E1}, BMD",
            ge=0,
            le=600,
        ),
    ]
    t_score: Annotated[
        float | None,
        described(
            "Lower DXA T-score of spine and hip", source=f"{_E1}, DXA T-value", ge=-10, le=10
        ),
    ]
    series_number: Annotated[
        int, described("The k of 'k of n'", source=f"{_E1}, CT_image_series", ge=1, le=9)
    ]
    series_count: Annotated[
        int, described("The n of 'k of n'", source=f"{_E1}, CT_image_series", ge=1, le=9)
    ]
    n_vertebrae: Annotated[
        int, described("Vertebrae wholly in the scan", source=f"{_E1}, N_vertebrae", ge=1, le=26)
    ]
    foreign_material: Annotated[
        int | None,
        described(
            "Number of x, where the cell holds a number",
            source=f"{_E1}, foreign_material",
            ge=0,
            le=18,
        ),
    ]
    n_fractures: Annotated[
        int | None,
        described(
            "Number of grades above 0, where the cell holds a number",
            source=f"{_E1}, N_Fx",
            ge=0,
            le=18,
        ),
    ]
    grades: Annotated[
        Mapping[str, Mark], described("Genant grade 0-3 or x, by level", source=f"{_E1}, *_fx-g")
    ]
    shapes: Annotated[
        Mapping[str, Mark], described("Shape code 0-3 or x, by level", source=f"{_E1}, *_fx-s")
    ]

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> GradingRow:
        broken = [f"{column}: {rule}" for column, rule in row_problems(self, may_lack_t12=True)]
        if broken:
            raise ValueError("; ".join(broken))
        return self


def row_problems(
    row: GradingRow, *, may_lack_t12: bool = False, bad: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield column and broken rule for everything in `row` that does not fit together.

    Parameters
    ----------
    row : GradingRow
        May have been made without validation (``model_construct``).
    may_lack_t12 : bool
        Whether T12 may be blank between graded neighbours. Some spines have no T12; no row of the
        real workbook shows it.
    bad : collection of str
        Columns whose cell is bad in itself, and so is missing from `row`: no rule looks at them.
    """
    unsure = {level for level in GRADED_LEVELS if {f"{level}_fx-g", f"{level}_fx-s"} & set(bad)}
    for level in GRADED_LEVELS:
        rule = _pair_rule(row.grades.get(level), row.shapes.get(level))
        if rule and level not in unsure:
            yield (f"{level}_fx-s", rule)
    # A level with a shape alone is reported above, and no gap.
    filled = {level for level in GRADED_LEVELS if level in row.grades or level in row.shapes}
    places = [place for place, level in enumerate(GRADED_LEVELS) if level in filled]
    excused = unsure | ({"T12"} if may_lack_t12 else set())
    for level in GRADED_LEVELS[places[0] : places[-1]] if places else ():
        if level not in filled | excused:
            yield (f"{level}_fx-g", "blank between graded levels; they form one run without a gap")
    yield from _count_problems(row, bad)
    if "CT_image_series" in bad:
        return
    if row.series_number > row.series_count:
        yield ("CT_image_series", "k of n with k above n")
    alone = row.series_count == 1 and not {"verse_ID", "subject_ID"} & set(bad)
    if alone and row.subject_id != row.series_id:
        yield ("subject_ID", "a subject's only series has the subject's number as verse_ID")


def _count_problems(row: GradingRow, bad: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the counts that are not those of the row's grades, if all of these can be counted."""
    if any(f"{level}_fx-g" in bad for level in GRADED_LEVELS):
        return
    marks = list(row.grades.values())
    if row.foreign_material is not None and row.foreign_material != marks.count("x"):
        yield ("foreign_material", f"the row has {marks.count('x')} cells with x")
    fractured = sum(mark in {1, 2, 3} for mark in marks)
    if row.n_fractures is not None and row.n_fractures != fractured:
        yield ("N_Fx", f"the row has {fractured} grades above 0")


def _pair_rule(grade: Mark | None, shape: Mark | None) -> str | None:
    if (grade is None) != (shape is None):
        return "grade without shape" if shape is None else "shape without grade"
    if (grade == "x") != (shape == "x"):
        return "x stands for grade and shape alike"
    if (grade == 0) != (shape == 0):
        return "grade 0 goes with shape 0, and grades 1 to 3 with shapes 1 to 3"
    return None
