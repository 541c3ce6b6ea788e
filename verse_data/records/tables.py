"""Rows of the tables ``scans``, ``vertebrae`` and ``subjects``, of the user's table of patients, and ``_ct.json``."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from verse_data.errors import ValidationFailed
from verse_data.records.base import Record, described, read_json, rules_of
from verse_data.records.grading import DEVICES
from verse_data.records.names import Split
from verse_data.spine.levels import Region

_NAME: Final = "file name"
_E1: Final = "grading workbook"
_GRID: Final = "header of the CT, else of the mask"
_CTD: Final = "centroid JSON"
_MASK: Final = "mask"
_LABELS: Final = "label map"
_PATIENTS: Final = "patient table of the user"
_CT_JSON: Final = "_ct.json"

GradeStatus = Literal["graded", "foreign_material", "not_assessed", "no_mask"]
FractureType = Literal["none", "wedge", "biconcave", "crush"]
Level = Literal[
    "C1", "C2", "C3", "C4", "C5", "C6", "C7",
    "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "T13",
    "L1", "L2", "L3", "L4", "L5", "L6",
]  # fmt: skip
Sex = Literal["F", "M"]
Contrast = Literal["none", "arterial", "portal_venous"]


def _counted(description: str, dtype: str = "Int16") -> Any:
    """Return the description of a number that was counted."""
    return described(description, source="counted", dtype=dtype)


def _listed(what: str) -> Any:
    """Return the description of whether a release has a file."""
    return described(f"The release lists {what}", source="lock")


def _size(axis: str) -> Any:
    return described(f"Voxels along the {axis} axis", unit="voxel", source=_GRID, dtype="Int32")


def _edge(axis: str) -> Any:
    return described(f"Voxel edge along the {axis} axis", unit="mm", source=_GRID)


def _index(axis: str) -> Any:
    return described(f"Centroid along the {axis} axis", unit="voxel", source=_CTD)


def _place(direction: str) -> Any:
    return described(f"Centroid, {direction}", unit="mm", source=f"{_CTD}, affine")


SubjectId = Annotated[str, described("Person; splits and folds group by it", source=_NAME)]
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
PublishedSplit = Annotated[
    Split | None, described("Published split", source="folder name", dtype="category")
]


class ScanRecord(Record):
    """What is known of one CT series."""

    scan_id: Annotated[str, described("CT series: file name without sub- and suffix", source=_NAME)]
    subject_id: SubjectId
    series_id: Annotated[
        str, described("Series alone, as the workbook's verse_ID numbers it", source=_NAME)
    ]
    series_label: Annotated[
        str | None,
        described(
            "Value of the name's split- entity; tells series of one subject apart", source=_NAME
        ),
    ]
    series: Annotated[
        str | None,
        described(
            "Which of the subject's series: 'k of n'",
            source=f"{_E1}, CT_image_series; else catalog",
        ),
    ]
    split: Annotated[
        Split | None,
        described(
            "Published split", source="folder name; else workbook, catalog", dtype="category"
        ),
    ]
    age_years: Age
    ct_device: Device
    ct_manufacturer: Annotated[str | None, described("Maker of the CT device", source=_CT_JSON)]
    kvp: Annotated[float | None, described("Tube voltage", unit="kV", source="_ct.json, KVP")]
    resolution_mm: Annotated[
        float | None, described("Largest voxel edge as published", unit="mm", source=f"{_E1}, Res")
    ]
    bmd_mg_cm3: Density
    t_score: TScore
    shape_i: Annotated[int | None, _size("first")]
    shape_j: Annotated[int | None, _size("second")]
    shape_k: Annotated[int | None, _size("third")]
    spacing_i: Annotated[float | None, _edge("first")]
    spacing_j: Annotated[float | None, _edge("second")]
    spacing_k: Annotated[float | None, _edge("third")]
    axcodes: Annotated[
        str | None, described("Directions of the voxel axes, such as PIR", source=_GRID)
    ]
    mask_dtype: Annotated[str | None, described("Number type of the mask on disk", source=_MASK)]
    n_vertebrae: Annotated[
        int | None,
        described(
            "Vertebrae wholly in the scan, as published",
            source=f"{_E1}, N_vertebrae",
            dtype="Int16",
        ),
    ]
    n_mask_labels: Annotated[int | None, _counted("Vertebrae in the mask")]
    n_centroids: Annotated[int | None, _counted("Points in the centroid file")]
    n_graded: Annotated[int | None, _counted("Levels with a grade")]
    n_fractured: Annotated[int | None, _counted("Levels of grade 1 to 3")]
    n_foreign_material: Annotated[int | None, _counted("Levels marked x")]
    max_grade: Annotated[int | None, _counted("Highest grade of the scan", "Int8")]
    has_ct: Annotated[bool, _listed("a CT")]
    has_ct_json: Annotated[bool, _listed("a _ct.json")]
    has_mask: Annotated[bool, _listed("a vertebra mask")]
    has_centroids: Annotated[bool, _listed("a centroid file")]
    has_grading: Annotated[bool, described("The workbook has a row of the series", source=_E1)]


class VertebraRecord(Record):
    """What is known of one vertebra of one scan.

    There is a row for each level that is graded or marked x in the workbook, or has a label in the
    mask, or a point in the centroid file.
    """

    scan_id: Annotated[str, described("CT series", source=_NAME)]
    subject_id: SubjectId
    split: PublishedSplit
    level: Annotated[
        Level,
        described(
            "Level, ordered from C1 down to L6; T13 lies between T12 and L1",
            source=_LABELS,
            dtype="level",
        ),
    ]
    label: Annotated[
        int,
        described("Integer in masks and centroid files; T13 is 28", source=_LABELS, dtype="Int16"),
    ]
    region: Annotated[
        Region, described("cervical, thoracic or lumbar", source=_LABELS, dtype="category")
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
            "graded; foreign_material (x); not_assessed (seen, but no grade); no_mask (graded or x, "
            "but the mask lacks it)",
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
    centroid_i: Annotated[float | None, _index("first")]
    centroid_j: Annotated[float | None, _index("second")]
    centroid_k: Annotated[float | None, _index("third")]
    centroid_x: Annotated[float | None, _place("to the right")]
    centroid_y: Annotated[float | None, _place("to the front")]
    centroid_z: Annotated[float | None, _place("upwards")]
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


class SubjectRecord(Record):
    """What is known of one person, over all series."""

    subject_id: SubjectId
    split: PublishedSplit
    n_scans: Annotated[int, _counted("CT series of the person")]
    age_years: Age
    ct_device: Device
    bmd_mg_cm3: Annotated[
        float | None, described("Lumbar bone mineral density", unit="mg/cm3", source=f"{_E1}, BMD")
    ]
    t_score: TScore
    n_levels: Annotated[int, _counted("Different levels over all series")]
    n_graded: Annotated[int, _counted("Different levels with a grade")]
    n_fractured: Annotated[int, _counted("Different levels of grade 1 to 3")]
    n_foreign_material: Annotated[int, _counted("Different levels marked x")]
    max_grade: Annotated[int | None, _counted("Highest grade of the person", "Int8")]
    has_foreign_material: Annotated[bool, described("Any level is marked x", source="counted")]


class PatientRow(Record):
    """A row of the optional patient table: what the published workbook does not hold."""

    subject_id: Annotated[str, described("Person, such as verse004", source=_PATIENTS)]
    sex: Annotated[Sex | None, described("F or M", source=_PATIENTS)]
    contrast: Annotated[
        Contrast | None,
        described("Contrast phase: none, arterial or portal_venous", source=_PATIENTS),
    ]


class CtSidecar(Record):
    """A ``_ct.json`` file of VerSe'19; all values are texts."""

    dataset: Annotated[
        str, described("Name and DOI of the data set", source=_CT_JSON, max_length=200)
    ]
    kvp: Annotated[
        str,
        Field(alias="KVP"),
        described("Tube voltage", unit="kV", source=_CT_JSON, pattern=r"^[0-9]{2,3}(\.[0-9]+)?$"),
    ]
    manufacturer: Annotated[
        str, Field(alias="Manufacturer"), described("Maker", source=_CT_JSON, max_length=64)
    ]
    model: Annotated[
        str,
        Field(alias="ManufacturerModelName"),
        described("Model", source=_CT_JSON, max_length=64),
    ]

    @property
    def device(self) -> str:
        """Model in the spelling of the device table; the same group also writes ``IQon - Spectral``."""
        return self.model.replace("IQon - Spectral", "IQon Spectral")


def parse_ct_sidecar(data: bytes, *, name: str) -> CtSidecar:
    """Read a ``_ct.json`` file, or raise ValidationFailed with the file and its fields."""
    value = read_json(data, name=name)
    if not isinstance(value, dict):
        keys = ", ".join(field.alias or key for key, field in CtSidecar.model_fields.items())
        raise ValidationFailed(f"{name}: a _ct.json file is one object with {keys}.")
    try:
        return CtSidecar.model_validate(value)
    except ValidationError as error:
        # A field may hold a name or a birthday: which field it is, is said; what it holds, is not.
        raise ValidationFailed(f"{name}: bad fields: {rules_of(error)}.") from None
