"""Fields that say the same in several tables: whose a row is, and what is known of that person."""

from __future__ import annotations

from typing import Annotated, Any, Final

from verse_data.records.base import described
from verse_data.records.grading import DEVICES

_E1: Final = "grading workbook"

SubjectId = Annotated[str, described("Person; splits and folds group by it", source="file name")]
Age = Annotated[float | None, described("Age at the scan", unit="year", source=f"{_E1}, age_ct")]
Device = Annotated[
    str | None,
    described(
        "Model of the CT device",
        source=f"{_E1}, CT_device; else _ct.json",
        dtype="category",
        words=tuple(DEVICES.values()),
    ),
]
Density = Annotated[
    float | None,
    described("Lumbar bone mineral density of the person", unit="mg/cm3", source=f"{_E1}, BMD"),
]
TScore = Annotated[
    float | None, described("Lower DXA T-score of spine and hip", source=f"{_E1}, DXA T-value")
]


def counted(description: str, dtype: str = "Int16") -> Any:
    """Return the description of a number that was counted."""
    return described(description, source="counted", dtype=dtype)
