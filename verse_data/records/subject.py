"""One person: a row of the table ``subjects``, and of the optional table of sex and contrast."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from verse_data.records.base import Record, described
from verse_data.records.grading import DEVICES
from verse_data.records.names import Split

_E1: Final = "grading workbook"
_COUNTED: Final = "counted"
_PATIENTS: Final = "patient table of the user"

Sex = Literal["F", "M"]
Contrast = Literal["none", "arterial", "portal_venous"]


class SubjectRecord(Record):
    """What is known of one person, over all series."""

    subject_id: Annotated[
        str, described("Person; splits and folds group by it", source="file name")
    ]
    split: Annotated[
        Split | None, described("Published split", source="folder name", dtype="category")
    ]
    n_scans: Annotated[int, described("CT series of the person", source=_COUNTED, dtype="Int16")]
    age_years: Annotated[
        float | None, described("Age at the scan", unit="year", source=f"{_E1}, age_ct")
    ]
    ct_device: Annotated[
        str | None,
        described(
            "Model of the CT device",
            source=f"{_E1}, CT_device; else _ct.json",
            dtype="category",
            words=tuple(DEVICES.values()),
        ),
    ]
    bmd_mg_cm3: Annotated[
        float | None, described("Lumbar bone mineral density", unit="mg/cm3", source=f"{_E1}, BMD")
    ]
    t_score: Annotated[
        float | None, described("Lower DXA T-score of spine and hip", source=f"{_E1}, DXA T-value")
    ]
    n_levels: Annotated[
        int, described("Different levels over all series", source=_COUNTED, dtype="Int16")
    ]
    n_graded: Annotated[
        int, described("Different levels with a grade", source=_COUNTED, dtype="Int16")
    ]
    n_fractured: Annotated[
        int, described("Different levels of grade 1 to 3", source=_COUNTED, dtype="Int16")
    ]
    n_foreign_material: Annotated[
        int, described("Different levels marked x", source=_COUNTED, dtype="Int16")
    ]
    max_grade: Annotated[
        int | None, described("Highest grade of the person", source=_COUNTED, dtype="Int8")
    ]
    has_foreign_material: Annotated[bool, described("Any level is marked x", source=_COUNTED)]


class PatientRow(Record):
    """A row of the optional patient table: what the published workbook does not hold."""

    subject_id: Annotated[str, described("Person, such as verse004", source=_PATIENTS)]
    sex: Annotated[Sex | None, described("F or M", source=_PATIENTS)]
    contrast: Annotated[
        Contrast | None,
        described("Contrast phase: none, arterial or portal_venous", source=_PATIENTS),
    ]
