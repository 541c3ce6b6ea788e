"""The rows of the vertebrae table as one NumPy array, joined to the scans that are served."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.training.scans import ScanColumns

if TYPE_CHECKING:
    import pandas as pd

Rows = npt.NDArray[np.void]
"""An entry a vertebra; missing numbers are -1 (integers) or NaN (floats). Its fields:

``scan`` (number of its scan in the dataset, -1 if that is not served), ``scan_id``, ``subject_id``,
``level`` (place in ``LEVELS``), ``label``, ``grade``, ``fracture_type`` (place in ``FRACTURE_TYPES``),
``foreign_material``, ``has_mask``, ``status`` (place in ``STATUSES``), ``centroid`` (3 floats, mm,
RAS+), ``bmd_mg_cm3``.
"""

FRACTURE_TYPES: Final = ("none", "wedge", "biconcave", "crush")
"""Words of the number in ``fracture_type``; -1 is not assessed."""

STATUSES: Final = ("graded", "foreign_material", "not_assessed", "no_mask")
"""Words of ``grade_status``."""

_LABELS: Final = np.array([LABEL_OF_LEVEL[level] for level in LEVELS], dtype=np.int16)
_CODED: Final[dict[str, tuple[str, Sequence[object]]]] = {
    "grade": ("grade", range(4)),
    "fracture_type": ("fracture_type", FRACTURE_TYPES),
    "foreign_material": ("foreign_material", (False, True)),
    "has_mask": ("has_mask", (False, True)),
    "status": ("grade_status", STATUSES),
}
"""Fields that are places in a list of words: column and words of each."""
_CENTROID: Final = ["centroid_x", "centroid_y", "centroid_z"]
_PLAIN: Final = ["scan_id", "subject_id", "level", "label", *_CENTROID, "bmd_mg_cm3"]


def read_rows(table: pd.DataFrame, scans: ScanColumns) -> Rows:
    """Read rows of the vertebrae table, and join them to `scans`."""
    needed = [*_PLAIN, *(column for column, _ in _CODED.values())]
    if lacking := [name for name in needed if name not in table.columns]:
        raise UsageError(
            f"vertebrae= lacks the columns {', '.join(lacking)}. Give rows of release.vertebrae, with "
            f"all their columns."
        )
    level = _places(table, "level", LEVELS)
    wrong = table["label"].notna().to_numpy() & (table["label"].astype(object) != _LABELS[level])
    _refuse(table, "label", wrong, _LABELS[level][wrong][:1].tolist())
    measures = table[[*_CENTROID, "bmd_mg_cm3"]].to_numpy(dtype=np.float64, na_value=np.nan)
    columns = {
        "scan": _found(table["scan_id"], scans.scan_id.tolist()),
        "scan_id": table["scan_id"].to_numpy(dtype=np.str_),
        "subject_id": table["subject_id"].to_numpy(dtype=np.str_),
        "level": level,
        "label": _LABELS[level],
        **{field: _places(table, name, words) for field, (name, words) in _CODED.items()},
        "centroid": measures[:, :3],
        "bmd_mg_cm3": measures[:, 3].astype(np.float32),
    }
    rows = np.empty(len(table), [(name, c.dtype, c.shape[1:]) for name, c in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    return rows


def _places(table: pd.DataFrame, name: str, words: Sequence[object]) -> npt.NDArray[np.int8]:
    """Return the place of each value in `words`; -1 where it is missing, and may be."""
    places = _found(table[name], words)
    needed = name in {"level", "grade_status"}  # -1 would be taken for the last of these
    _refuse(table, name, (places < 0) & (table[name].notna().to_numpy() | needed), words)
    return places.astype(np.int8)


def _found(values: pd.Series[Any], words: Sequence[object]) -> npt.NDArray[np.int64]:
    """Return the place of each value in `words`, or -1."""
    places = {word: place for place, word in enumerate(words)}
    return np.array([places.get(value, -1) for value in values.tolist()], dtype=np.int64)


def _refuse(table: pd.DataFrame, name: str, wrong: Any, allowed: Sequence[object]) -> None:
    """Raise `UsageError` for the first row that is `wrong`."""
    for row in np.flatnonzero(wrong)[:1]:
        scan_id, level, value = (table[column].iloc[row] for column in ("scan_id", "level", name))
        raise UsageError(
            f"vertebrae= has for {scan_id} {level} the {name} {value!r}, which is none of "
            f"{', '.join(map(str, allowed))}. Give rows of release.vertebrae as they are."
        )


def targets(row: np.void, threshold: int) -> dict[str, Any]:
    """Return what is known of one vertebra, as a sample says it."""
    grade = int(row["grade"])
    return {
        "level": LEVELS[row["level"]],
        "vertebra_label": int(row["label"]),
        "grade": grade,
        "fractured": -1 if grade < 0 else int(grade >= threshold),
        "fracture_type": int(row["fracture_type"]),
        "foreign_material": int(row["foreign_material"]),
        "bmd_mg_cm3": float(row["bmd_mg_cm3"]),
    }


def digest(rows: Rows) -> str:
    """Return the SHA-256 (hex) of all fields, of measures to six decimals."""
    sha256 = hashlib.sha256()
    for name in rows.dtype.names or ():
        column = rows[name]
        if column.dtype.kind == "f":
            # Processors differ in the last bit of a product of matrices; adding 0 undoes -0.
            column = np.round(column, 6) + 0.0
        sha256.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
        sha256.update(np.ascontiguousarray(column).tobytes())
    return sha256.hexdigest()


def as_table(rows: Rows) -> pd.DataFrame:
    """Return scan, subject, level, grade and status of each entry."""
    import pandas as pd

    grade = pd.Series(rows["grade"], dtype="Int8")
    return pd.DataFrame(
        {
            "scan_id": rows["scan_id"],
            "subject_id": rows["subject_id"],
            "level": pd.Categorical(np.array(LEVELS)[rows["level"]], list(LEVELS), ordered=True),
            "grade": grade.mask(grade < 0),
            "grade_status": np.array(STATUSES)[rows["status"]],
        }
    )
