"""Rows of the grading workbook, the three tables and the user's table of patients, and ``_ct.json``.

The rules of a row of the workbook hold on all its 160 rows. It is supplement E1 of Löffler et al.
2020 (ryai190138_AppendixE1.xlsx).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import ValidationError, model_validator

from verse_data.errors import ValidationFailed
from verse_data.records.base import Record, described, read_json, rules_of
from verse_data.records.names import Split
from verse_data.spine.levels import GRADED_LEVELS, Region

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
LIST_COLUMNS: Final = ("scan_id", "level", "grade", "fracture_type", "foreign_material")
"""The columns of a list of grades, with a line for each vertebra; the first three are needed."""

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


def _workbook(description: str, column: str, **rules: Any) -> Any:
    return described(description, source=f"grading workbook, {column}", **rules)


_ID: Final = r"^[A-Za-z0-9]+$"
_PUBLISHED: Final = re.compile(r"verse[0-9]{3} verse[0-9]{3}")
_CELL: Final = "where the cell holds a number"


class GradingRow(Record):
    """What the workbook, or a list of grades, says of one CT series.

    ``grades`` and ``shapes`` hold the filled cells alone: a level that is not there was not
    assessed. ``"x"`` stands for foreign material, in place of a grade. A list of grades has none of
    the other columns.
    """

    series_id: str = _workbook("Series, from verse_ID", "verse_ID", pattern=_ID)
    subject_id: str = _workbook("Person, from subject_ID", "subject_ID", pattern=_ID)
    split: Split | None = _workbook("Published split", "dataset")
    age_years: float | None = _workbook("Age at the scan", "age_ct", unit="year", gt=0, le=120)
    ct_device: Literal[1, 2, 3, 4, 5] | None = _workbook("Code of the CT device", "CT_device")
    resolution_mm: float | None = _workbook("Largest voxel edge", "Res", unit="mm", gt=0, le=10)
    bmd_mg_cm3: float | None = _workbook(
        "Lumbar bone mineral density; 0 occurs", "BMD", unit="mg/cm3", ge=0, le=600
    )
    t_score: float | None = _workbook(
        "Lower DXA T-score of spine and hip", "DXA T-value", ge=-10, le=10
    )
    series_number: int | None = _workbook("The k of 'k of n'", "CT_image_series", ge=1, le=9)
    series_count: int | None = _workbook("The n of 'k of n'", "CT_image_series", ge=1, le=9)
    n_vertebrae: int | None = _workbook("Vertebrae wholly in the scan", "N_vertebrae", ge=1, le=26)
    foreign_material: int | None = _workbook(
        f"Number of x, {_CELL}", "foreign_material", ge=0, le=18
    )
    n_fractures: int | None = _workbook(f"Number of grades above 0, {_CELL}", "N_Fx", ge=0, le=18)
    grades: Mapping[str, Mark] = _workbook("Genant grade 0-3 or x, by level", "*_fx-g")
    shapes: Mapping[str, Mark] = _workbook("Shape code 0-3 or x, by level", "*_fx-s")

    @property
    def scan_id(self) -> str:
        """Id of the scan that a row of the workbook is of."""
        is_only_series = self.series_id == self.subject_id
        return self.series_id if is_only_series else f"{self.subject_id}_split-{self.series_id}"

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> GradingRow:
        broken = [f"{columns[0]}: {rule}" for columns, rule in self.broken_rules(may_lack_t12=True)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    def broken_rules(self, *, may_lack_t12: bool) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (columns, rule) of broken rules between cells; the first column is to be corrected.

        With `may_lack_t12`, T12 may be blank between graded neighbours: some spines have none.
        """
        grades, shapes = self.grades, self.shapes
        for level in GRADED_LEVELS:
            if rule := pair_rule(grades.get(level), shapes.get(level)):
                yield (f"{level}_fx-s", f"{level}_fx-g"), rule
        # A level with only a shape is reported above, and does not count as a gap.
        filled = [level for level in GRADED_LEVELS if level in grades or level in shapes]
        places = [GRADED_LEVELS.index(level) for level in filled]
        for level in GRADED_LEVELS[places[0] : places[-1]] if places else ():
            if level not in filled and not (level == "T12" and may_lack_t12):
                rule = "blank between graded levels; they form one run without a gap"
                yield (f"{level}_fx-g", f"{level}_fx-s"), rule
        marks = list(grades.values())
        counts = (
            ("foreign_material", self.foreign_material, marks.count("x"), "cells with x"),
            ("N_Fx", self.n_fractures, sum(m in {1, 2, 3} for m in marks), "grades above 0"),
        )
        for column, stated, counted, what in counts:
            if stated not in {None, counted}:
                looked_at = (column, *(f"{level}_fx-g" for level in GRADED_LEVELS))
                yield looked_at, f"the row has {counted} {what}"
        # Before validation, a cell with an invalid value is None.
        if self.series_number and self.series_count and self.series_number > self.series_count:
            yield ("CT_image_series",), "k of n with k above n"
        published = _PUBLISHED.fullmatch(f"{self.subject_id} {self.series_id}")
        if self.series_count == 1 and published and self.subject_id != self.series_id:
            rule = "a subject's only series has the subject's number as verse_ID"
            yield ("subject_ID", "verse_ID"), rule


class ListedGrades(GradingRow):
    """What a list of grades says of one CT series: levels of any region, and shapes where known."""

    def broken_rules(
        self,
        *,
        may_lack_t12: bool = True,  # noqa: ARG002 - any level may be blank
    ) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (columns, rule) of the levels whose shape does not fit the grade."""
        for level, shape in self.shapes.items():
            if rule := pair_rule(self.grades.get(level), shape):
                yield (f"fracture_type of {level}",), rule


def pair_rule(grade: Mark | None, shape: Mark | None) -> str | None:
    """Return the rule that grade and shape of one vertebra break together."""
    if (grade is None) != (shape is None):
        return "grade without shape" if shape is None else "shape without grade"
    if (grade == "x") != (shape == "x"):
        return "x in one of grade and shape, and not in the other"
    if (grade == 0) != (shape == 0):
        return "grade 0 goes with shape 0, and grades 1 to 3 with shapes 1 to 3"
    return None


_NAME: Final = "file name"
_E1: Final = "grading workbook"
_GRID: Final = "header of the CT, else of the mask"
_CTD: Final = "centroid JSON"
_MASK: Final = "mask"
_LABELS: Final = "label map"
_PATIENTS: Final = "patient table of the user"
_OR_PATIENTS: Final = ", or patients.csv"
_CT_JSON: Final = "_ct.json"

GradeStatus = Literal["graded", "foreign_material", "not_assessed", "no_mask"]
STATUSES: Final[tuple[GradeStatus, ...]] = get_args(GradeStatus)
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
Age = Annotated[
    float | None, described("Age at the scan", unit="year", source=f"{_E1}, age_ct{_OR_PATIENTS}")
]
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
    described(
        "Lumbar bone mineral density of the person",
        unit="mg/cm3",
        source=f"{_E1}, BMD{_OR_PATIENTS}",
    ),
]
TScore = Annotated[
    float | None,
    described("Lower DXA T-score of spine and hip", source=f"{_E1}, DXA T-value{_OR_PATIENTS}"),
]
PublishedSplit = Annotated[
    Split | None, described("Published split", source="folder name", dtype="category")
]
Edition = Annotated[
    str | None,
    described(
        "Editions of VerSe with the series; verse19+verse20 is in both",
        source="catalog",
        dtype="category",
        words=("verse19", "verse19+verse20", "verse20"),
    ),
]
Direction = Annotated[
    str | None,
    described(
        "Plane of the reformation; VerSe'20 names it for most series",
        source="dir- in the file name",
        dtype="category",
        words=("ax", "iso", "sag"),
    ),
]


class ScanRecord(Record):
    """What is known of one CT series."""

    scan_id: str = described("CT series: file name without sub- and suffix", _NAME)
    subject_id: SubjectId
    series_id: str = described("Series alone, as the workbook's verse_ID numbers it", _NAME)
    series_label: str | None = described(
        "Value of the name's split- entity; tells series of one subject apart", _NAME
    )
    series: str | None = described(
        "Which of the subject's series: 'k of n'", f"{_E1}, CT_image_series; else catalog"
    )
    split: Split | None = described(
        "Published split", "folder name; else workbook, catalog", dtype="category"
    )
    edition: Edition
    direction: Direction
    age_years: Age
    ct_device: Device
    ct_manufacturer: str | None = described("Maker of the CT device", _CT_JSON)
    kvp: float | None = described("Tube voltage", "_ct.json, KVP", unit="kV")
    resolution_mm: float | None = described(
        "Largest voxel edge as published", f"{_E1}, Res", unit="mm"
    )
    bmd_mg_cm3: Density
    t_score: TScore
    shape_i: int | None = _size("first")
    shape_j: int | None = _size("second")
    shape_k: int | None = _size("third")
    spacing_i: float | None = _edge("first")
    spacing_j: float | None = _edge("second")
    spacing_k: float | None = _edge("third")
    axcodes: str | None = described("Directions of the voxel axes, such as PIR", _GRID)
    mask_dtype: str | None = described("Number type of the mask on disk", _MASK)
    n_vertebrae: int | None = described(
        "Vertebrae wholly in the scan, as published", f"{_E1}, N_vertebrae", dtype="Int16"
    )
    n_mask_labels: int | None = _counted("Vertebrae in the mask")
    n_centroids: int | None = _counted("Points in the centroid file")
    n_graded: int | None = _counted("Levels with a grade")
    n_fractured: int | None = _counted("Levels of grade 1 to 3")
    n_foreign_material: int | None = _counted("Levels marked x")
    max_grade: int | None = _counted("Highest grade of the scan", "Int8")
    has_ct: bool = _listed("a CT")
    has_ct_json: bool = _listed("a _ct.json")
    has_mask: bool = _listed("a vertebra mask")
    has_centroids: bool = _listed("a centroid file")
    has_grading: bool = described("The workbook has a row of the series", _E1)


class VertebraRecord(Record):
    """What is known of one vertebra of one scan.

    There is a row for each level that is graded or marked x in the workbook, or has a label in the
    mask, or a point in the centroid file.
    """

    scan_id: str = described("CT series", _NAME)
    subject_id: SubjectId
    split: PublishedSplit
    edition: Edition
    direction: Direction
    level: Level = described(
        "Level, ordered from C1 down to L6; T13 lies between T12 and L1", _LABELS, dtype="level"
    )
    label: int = described("Integer in masks and centroid files; T13 is 28", _LABELS, dtype="Int16")
    region: Region = described("cervical, thoracic or lumbar", _LABELS, dtype="category")
    grade: Literal[0, 1, 2, 3] | None = described(
        "Genant grade; missing means not assessed, never healthy", f"{_E1}, *_fx-g", dtype="Int8"
    )
    fracture_type: FractureType | None = described(
        "Genant shape of the fracture", f"{_E1}, *_fx-s", dtype="category"
    )
    foreign_material: bool | None = described(
        "True where the sheet has x (implant, cement), False where it has a grade", f"{_E1}, *_fx-g"
    )
    grade_status: GradeStatus = described(
        "graded; foreign_material (x); not_assessed (seen, but no grade); no_mask (graded or x, but the mask lacks it)",
        "join of workbook, mask and centroids",
        dtype="category",
    )
    has_mask: bool | None = described(
        "The mask has the label; missing if the mask is not on this machine", _MASK
    )
    has_centroid: bool | None = described(
        "The centroid file has a point; missing if the file is not on this machine", _CTD
    )
    centroid_i: float | None = _index("first")
    centroid_j: float | None = _index("second")
    centroid_k: float | None = _index("third")
    centroid_x: float | None = _place("to the right")
    centroid_y: float | None = _place("to the front")
    centroid_z: float | None = _place("upwards")
    voxels: int | None = described("Voxels of the label", _MASK, unit="voxel")
    volume_mm3: float | None = described("Volume of the label", f"{_MASK}, affine", unit="mm3")
    bmd_mg_cm3: Density
    age_years: Age

    @model_validator(mode="after")
    def _status_fits(self) -> VertebraRecord:
        assessed = self.grade is not None
        if self.fracture_type is None:
            if self.grade == 0:
                raise ValueError("grade 0 goes with fracture_type none")
        elif not assessed:
            raise ValueError("a fracture_type needs a grade")
        elif (self.grade == 0) != (self.fracture_type == "none"):
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
    n_scans: int = _counted("CT series of the person")
    age_years: Age
    ct_device: Device
    sex: Sex | None = described("F or M", "patients.csv", dtype="category")
    bmd_mg_cm3: float | None = described(
        "Lumbar bone mineral density", f"{_E1}, BMD{_OR_PATIENTS}", unit="mg/cm3"
    )
    t_score: TScore
    n_levels: int = _counted("Different levels over all series")
    n_graded: int = _counted("Different levels with a grade")
    n_fractured: int = _counted("Different levels of grade 1 to 3")
    n_foreign_material: int = _counted("Different levels marked x")
    max_grade: int | None = _counted("Highest grade of the person", "Int8")
    has_foreign_material: bool = described("Any level is marked x", "counted")


class PatientRow(Record):
    """A row of the optional patient table: what a workbook does not hold, or a list of grades."""

    subject_id: str = described("Person, such as verse004", _PATIENTS)
    sex: Sex | None = described("F or M", _PATIENTS, default=None)
    contrast: Contrast | None = described(
        "Contrast phase: none, arterial or portal_venous", _PATIENTS, default=None
    )
    age_years: float | None = described(
        "Age at the scan", _PATIENTS, unit="year", default=None, gt=0, le=120
    )
    bmd_mg_cm3: float | None = described(
        "Lumbar bone mineral density", _PATIENTS, unit="mg/cm3", default=None, ge=0, le=600
    )
    t_score: float | None = described(
        "Lower DXA T-score of spine and hip", _PATIENTS, default=None, ge=-10, le=10
    )


class CtSidecar(Record):
    """A ``_ct.json`` file of VerSe'19; all values are texts."""

    dataset: str = described("Name and DOI of the data set", _CT_JSON, max_length=200)
    kvp: str = described(
        "Tube voltage", _CT_JSON, unit="kV", pattern=r"^[0-9]{2,3}(\.[0-9]+)?$", alias="KVP"
    )
    manufacturer: str = described("Maker", _CT_JSON, max_length=64, alias="Manufacturer")
    model: str = described("Model", _CT_JSON, max_length=64, alias="ManufacturerModelName")

    @property
    def device(self) -> str:
        """Model in the spelling of the device table; the same group also writes ``IQon - Spectral``."""
        return self.model.replace("IQon - Spectral", "IQon Spectral")


def parse_ct_sidecar(data: bytes, *, name: str) -> CtSidecar | None:
    """Read a ``_ct.json`` file, or raise ValidationFailed; None if it is no object of VerSe's keys."""
    keys = {field.alias or key for key, field in CtSidecar.model_fields.items()}
    is_ours = False
    with suppress(ValueError, RecursionError, AttributeError):
        # dcm2niix writes Latin-1, NaN and a key twice.
        is_ours = json.loads(data.decode("utf-8-sig", "replace")).keys() == keys
    if not is_ours:
        return None
    try:
        return CtSidecar.model_validate(read_json(data, name=name))
    except ValidationError as error:
        # A field may hold a name or a date of birth: name the field, never its value.
        raise ValidationFailed(f"{name}: bad fields: {rules_of(error)}.") from None
