"""One person: a row of the table ``subjects``, and of the optional table of sex and contrast."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from verse_data.records.base import Record, described
from verse_data.records.names import Split
from verse_data.records.person import Age, Device, SubjectId, TScore, counted

_E1: Final = "grading workbook"
_COUNTED: Final = "counted"
_PATIENTS: Final = "patient table of the user"

Sex = Literal["F", "M"]
Contrast = Literal["none", "arterial", "portal_venous"]


class SubjectRecord(Record):
    """What is known of one person, over all series."""

    subject_id: SubjectId
    split: Annotated[
        Split | None, described("Published split", source="folder name", dtype="category")
    ]
    n_scans: Annotated[int, counted("CT series of the person")]
    age_years: Age
    ct_device: Device
    bmd_mg_cm3: Annotated[
        float | None, described("Lumbar bone mineral density", unit="mg/cm3", source=f"{_E1}, BMD")
    ]
    t_score: TScore
    n_levels: Annotated[int, counted("Different levels over all series")]
    n_graded: Annotated[int, counted("Different levels with a grade")]
    n_fractured: Annotated[int, counted("Different levels of grade 1 to 3")]
    n_foreign_material: Annotated[int, counted("Different levels marked x")]
    max_grade: Annotated[int | None, counted("Highest grade of the person", "Int8")]
    has_foreign_material: Annotated[bool, described("Any level is marked x", source=_COUNTED)]


class PatientRow(Record):
    """A row of the optional patient table: what the published workbook does not hold."""

    subject_id: Annotated[str, described("Person, such as verse004", source=_PATIENTS)]
    sex: Annotated[Sex | None, described("F or M", source=_PATIENTS)]
    contrast: Annotated[
        Contrast | None,
        described("Contrast phase: none, arterial or portal_venous", source=_PATIENTS),
    ]
