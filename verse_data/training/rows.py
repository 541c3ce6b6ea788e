"""The rows of the vertebrae table as one NumPy array, joined to the scans that are served."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.records.tables import FRACTURE_TYPES, STATUSES
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS
from verse_data.training.scans import ScanColumns

if TYPE_CHECKING:
    import pandas as pd

Rows = npt.NDArray[np.void]
"""One entry per vertebra; missing numbers are -1 (integers) or NaN (floats). Its fields:

``scan`` (number of its scan in the dataset, -1 if that is not served), ``scan_id``, ``subject_id``,
``level`` (index in ``LEVELS``), ``label``, ``grade``, ``fracture_type`` (index in
``FRACTURE_TYPES``), ``foreign_material``, ``has_mask``, ``status`` (index in ``STATUSES``),
``centroid`` (3 floats, mm, RAS+), ``bmd_mg_cm3``.
"""

_LABELS: Final = np.array([LABEL_OF_LEVEL[level] for level in LEVELS], dtype=np.int16)
_CODED: Final[dict[str, tuple[str, Sequence[object]]]] = {
    "grade": ("grade", range(4)),
    "fracture_type": ("fracture_type", FRACTURE_TYPES),
    "foreign_material": ("foreign_material", (False, True)),
    "has_mask": ("has_mask", (False, True)),
    "status": ("grade_status", STATUSES),
}
"""Fields that hold the index of a value: column and list of values of each."""
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
    level = _codes(table, "level", LEVELS)
    wrong = table["label"].notna().to_numpy() & (table["label"].astype(object) != _LABELS[level])
    _refuse(table, "label", wrong, _LABELS[level][wrong][:1].tolist())
    measures = table[[*_CENTROID, "bmd_mg_cm3"]].to_numpy(dtype=np.float64, na_value=np.nan)
    columns = {
        "scan": _indices(table["scan_id"], scans.scan_id.tolist()),
        "scan_id": table["scan_id"].to_numpy(dtype=np.str_),
        "subject_id": table["subject_id"].to_numpy(dtype=np.str_),
        "level": level,
        "label": _LABELS[level],
        **{field: _codes(table, name, values) for field, (name, values) in _CODED.items()},
        "centroid": measures[:, :3],
        "bmd_mg_cm3": measures[:, 3].astype(np.float32),
    }
    rows = np.empty(len(table), [(name, c.dtype, c.shape[1:]) for name, c in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    return rows


def _codes(table: pd.DataFrame, name: str, allowed: Sequence[object]) -> npt.NDArray[np.int8]:
    """Return the index in `allowed` of each value of a column; -1 where it is missing."""
    codes = _indices(table[name], allowed)
    required = name in {"level", "grade_status"}  # as an index, -1 would select the last of these
    _refuse(table, name, (codes < 0) & (table[name].notna().to_numpy() | required), allowed)
    return codes.astype(np.int8)


def _indices(values: pd.Series[Any], known: Sequence[object]) -> npt.NDArray[np.int64]:
    """Return the index in `known` of each value, or -1."""
    indices = {value: index for index, value in enumerate(known)}
    return np.array([indices.get(value, -1) for value in values.tolist()], dtype=np.int64)


def _refuse(table: pd.DataFrame, name: str, wrong: Any, allowed: Sequence[object]) -> None:
    """Raise `UsageError` for the first row that is `wrong`."""
    for row in np.flatnonzero(wrong)[:1]:
        scan_id, level, value = (table[column].iloc[row] for column in ("scan_id", "level", name))
        raise UsageError(
            f"vertebrae= has for {scan_id} {level} the {name} {value!r}, which is not one of "
            f"{', '.join(map(str, allowed))}. Give rows of release.vertebrae as they are."
        )


def targets(row: np.void, threshold: int) -> dict[str, Any]:
    """Return the training targets of one vertebra, as keys of a sample."""
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
    """Return the SHA-256 (hex) of all fields, with floats rounded to six decimals."""
    sha256 = hashlib.sha256()
    for name in rows.dtype.names or ():
        column = rows[name]
        if column.dtype.kind == "f":
            # Processors differ in the last bit of matrix products; adding 0 turns -0 into 0.
            column = np.round(column, 6) + 0.0
        sha256.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
        sha256.update(np.ascontiguousarray(column).tobytes())
    return sha256.hexdigest()


def levels_by_scan(rows: Rows) -> dict[str, list[str]]:
    """Return the levels of each scan, by its id."""
    found: dict[str, list[str]] = {}
    for scan_id, level in zip(rows["scan_id"].tolist(), rows["level"].tolist(), strict=True):
        found.setdefault(scan_id, []).append(LEVELS[level])
    return found


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
