"""One vertebra of one scan: a row of the table ``vertebrae``."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import model_validator

from verse_data.records.base import Record, described
from verse_data.records.names import Split
from verse_data.records.person import Age, Density, SubjectId
from verse_data.spine.levels import Region

_E1: Final = "grading workbook"
_CTD: Final = "centroid JSON"
_MASK: Final = "mask"

GradeStatus = Literal["graded", "foreign_material", "not_assessed", "no_mask"]
FractureType = Literal["none", "wedge", "biconcave", "crush"]
Level = Literal[
    "C1", "C2", "C3", "C4", "C5", "C6", "C7",
    "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "T13",
    "L1", "L2", "L3", "L4", "L5", "L6",
]  # fmt: skip


class VertebraRecord(Record):
    """What is known of one vertebra of one scan.

    There is a row for each level that is graded or marked x in the workbook, or has a label in the
    mask, or a point in the centroid file.
    """

    scan_id: Annotated[str, described("CT series", source="file name")]
    subject_id: SubjectId
    split: Annotated[
        Split | None, described("Published split", source="folder name", dtype="category")
    ]
    level: Annotated[
        Level,
        described(
            "Level, ordered from C1 down to L6; T13 lies between T12 and L1",
            source="label map",
            dtype="level",
        ),
    ]
    label: Annotated[
        int,
        described(
            "Integer in masks and centroid files; T13 is 28", source="label map", dtype="Int16"
        ),
    ]
    region: Annotated[
        Region, described("cervical, thoracic or lumbar", source="label map", dtype="category")
    ]
    grade: Annotated[
        Literal[0, 1, 2, 3] | None,
        described(
            "Genant grade; missing means not assessed, never healthy",
            source=f"{_E1}, *_fx-g",
            dtype="Int8",
        ),
    ]
    fracture_type: Annotated[
        FractureType | None,
        described("Genant shape of the fracture", source=f"{_E1}, *_fx-s", dtype="category"),
    ]
    foreign_material: Annotated[
        bool | None,
        described(
            "True where the sheet has x (implant, cement), False where it has a grade",
            source=f"{_E1}, *_fx-g",
        ),
    ]
    grade_status: Annotated[
        GradeStatus,
        described(
            "graded; foreign_material (x); not_assessed (seen, but no grade); no_mask (graded or x, but the mask lacks it)",
            source="join of workbook, mask and centroids",
            dtype="category",
        ),
    ]
    has_mask: Annotated[
        bool | None,
        described(
            "The mask has the label; missing if the mask is not on this machine", source=_MASK
        ),
    ]
    has_centroid: Annotated[
        bool | None,
        described(
            "The centroid file has a point; missing if the file is not on this machine", source=_CTD
        ),
    ]
    centroid_i: Annotated[
        float | None, described("Centroid along the first axis", unit="voxel", source=_CTD)
    ]
    centroid_j: Annotated[
        float | None, described("Centroid along the second axis", unit="voxel", source=_CTD)
    ]
    centroid_k: Annotated[
        float | None, described("Centroid along the third axis", unit="voxel", source=_CTD)
    ]
    centroid_x: Annotated[
        float | None, described("Centroid, to the right", unit="mm", source=f"{_CTD}, affine")
    ]
    centroid_y: Annotated[
        float | None, described("Centroid, to the front", unit="mm", source=f"{_CTD}, affine")
    ]
    centroid_z: Annotated[
        float | None, described("Centroid, upwards", unit="mm", source=f"{_CTD}, affine")
    ]
    voxels: Annotated[int | None, described("Voxels of the label", unit="voxel", source=_MASK)]
    volume_mm3: Annotated[
        float | None, described("Volume of the label", unit="mm3", source=f"{_MASK}, affine")
    ]
    bmd_mg_cm3: Density
    age_years: Age

    @model_validator(mode="after")
    def _status_fits(self) -> VertebraRecord:
        assessed = self.grade is not None
        if assessed != (self.fracture_type is not None):
            raise ValueError("grade and fracture_type are given together or not at all")
        if assessed and (self.grade == 0) != (self.fracture_type == "none"):
            raise ValueError("grade 0 goes with fracture_type none")
        if self.foreign_material and assessed:
            raise ValueError("foreign material takes the place of a grade")
        if self.grade_status in {"graded", "foreign_material"} and self.has_mask is False:
            raise ValueError("graded without a mask has the status no_mask")
        return self
