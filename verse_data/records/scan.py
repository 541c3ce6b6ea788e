"""One CT series: a row of the table ``scans``, and its ``_ct.json`` file."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, ValidationError

from verse_data.errors import ValidationFailed
from verse_data.records.base import Record, described, rule_of
from verse_data.records.names import Split
from verse_data.records.person import Age, Density, Device, SubjectId, TScore, counted
from verse_data.records.strict_json import read_json

_NAME: Final = "file name"
_E1: Final = "grading workbook"
_GRID: Final = "header of the CT, else of the mask"


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
    ct_manufacturer: Annotated[str | None, described("Maker of the CT device", source="_ct.json")]
    kvp: Annotated[float | None, described("Tube voltage", unit="kV", source="_ct.json, KVP")]
    resolution_mm: Annotated[
        float | None, described("Largest voxel edge as published", unit="mm", source=f"{_E1}, Res")
    ]
    bmd_mg_cm3: Density
    t_score: TScore
    shape_i: Annotated[
        int | None,
        described("Voxels along the first axis", unit="voxel", source=_GRID, dtype="Int32"),
    ]
    shape_j: Annotated[
        int | None,
        described("Voxels along the second axis", unit="voxel", source=_GRID, dtype="Int32"),
    ]
    shape_k: Annotated[
        int | None,
        described("Voxels along the third axis", unit="voxel", source=_GRID, dtype="Int32"),
    ]
    spacing_i: Annotated[
        float | None, described("Voxel edge along the first axis", unit="mm", source=_GRID)
    ]
    spacing_j: Annotated[
        float | None, described("Voxel edge along the second axis", unit="mm", source=_GRID)
    ]
    spacing_k: Annotated[
        float | None, described("Voxel edge along the third axis", unit="mm", source=_GRID)
    ]
    axcodes: Annotated[
        str | None, described("Directions of the voxel axes, such as PIR", source=_GRID)
    ]
    mask_dtype: Annotated[str | None, described("Number type of the mask on disk", source="mask")]
    n_vertebrae: Annotated[
        int | None,
        described(
            "Vertebrae wholly in the scan, as published",
            source=f"{_E1}, N_vertebrae",
            dtype="Int16",
        ),
    ]
    n_mask_labels: Annotated[int | None, counted("Vertebrae in the mask")]
    n_centroids: Annotated[int | None, counted("Points in the centroid file")]
    n_graded: Annotated[int | None, counted("Levels with a grade")]
    n_fractured: Annotated[int | None, counted("Levels of grade 1 to 3")]
    n_foreign_material: Annotated[int | None, counted("Levels marked x")]
    max_grade: Annotated[int | None, counted("Highest grade of the scan", "Int8")]
    has_ct: Annotated[bool, described("The release lists a CT", source="lock")]
    has_ct_json: Annotated[bool, described("The release lists a _ct.json", source="lock")]
    has_mask: Annotated[bool, described("The release lists a vertebra mask", source="lock")]
    has_centroids: Annotated[bool, described("The release lists a centroid file", source="lock")]
    has_grading: Annotated[bool, described("The workbook has a row of the series", source=_E1)]


class CtSidecar(Record):
    """A ``_ct.json`` file of VerSe'19; all values are texts."""

    dataset: Annotated[
        str, described("Name and DOI of the data set", source="_ct.json", max_length=200)
    ]
    kvp: Annotated[
        str,
        Field(alias="KVP"),
        described("Tube voltage", unit="kV", source="_ct.json", pattern=r"^[0-9]{2,3}(\.[0-9]+)?$"),
    ]
    manufacturer: Annotated[
        str, Field(alias="Manufacturer"), described("Maker", source="_ct.json", max_length=64)
    ]
    model: Annotated[
        str,
        Field(alias="ManufacturerModelName"),
        described("Model", source="_ct.json", max_length=64),
    ]

    @property
    def device(self) -> str:
        """Model in the spelling of the device table; the same group also writes ``IQon - Spectral``."""
        return self.model.replace("IQon - Spectral", "IQon Spectral")


def parse_ct_sidecar(data: bytes, *, name: str) -> CtSidecar:
    """Read a ``_ct.json`` file.

    Raises
    ------
    ValidationFailed
        If it is no such file; the text names the file and the field.
    """
    value = read_json(data, name=name)
    if not isinstance(value, dict):
        raise ValidationFailed(f"{name}: a _ct.json file is one object with {', '.join(_KEYS)}.")
    try:
        return CtSidecar.model_validate(value)
    except ValidationError as error:
        # A field may hold a name or a birthday: which field it is, is said; what it holds, is not.
        lines = [
            f"  {'.'.join(map(str, e['loc']))[:60]}: {rule_of(e)}"
            for e in error.errors(include_url=False, include_input=False)
        ]
        raise ValidationFailed(
            "\n".join([f"{name}: {len(lines)} bad fields:", *lines[:20]])
        ) from None


_KEYS: Final = ("dataset", "KVP", "Manufacturer", "ManufacturerModelName")
