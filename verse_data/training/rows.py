"""The rows of the vertebrae table as NumPy columns, joined to the scans that are served."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from verse_data.errors import UsageError
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS
from verse_data.training.scans import ScanColumns

if TYPE_CHECKING:
    import pandas as pd


FRACTURE_TYPES: Final = ("none", "wedge", "biconcave", "crush")
"""Words of the number in ``fracture_type``; -1 is not assessed."""

STATUSES: Final = ("graded", "foreign_material", "not_assessed", "no_mask")
"""Words of ``grade_status``."""

_AS_IT_IS: Final = "Give rows of release.vertebrae as they are."

_NEEDED: Final = (
    "scan_id",
    "subject_id",
    "level",
    "label",
    "grade",
    "fracture_type",
    "foreign_material",
    "grade_status",
    "centroid_x",
    "centroid_y",
    "centroid_z",
    "has_mask",
    "bmd_mg_cm3",
)


@dataclass(frozen=True)
class VertebraColumns:
    """One entry a vertebra. Missing numbers are -1 (integers) or NaN (floats).

    Attributes
    ----------
    scan : int64 array
        Number of its scan in the dataset; -1 if that is not served.
    scan_id, subject_id : str arrays
    level : int8 array
        Row in ``LEVELS``.
    label : int16 array
        Mask label.
    grade, fracture_type, foreign_material, has_mask : int8 arrays
        -1 where missing; `fracture_type` counts in ``FRACTURE_TYPES``.
    status : int8 array
        Place in ``STATUSES``.
    centroid : float64 array, (n, 3)
        mm, RAS+.
    bmd_mg_cm3 : float32 array
    """

    scan: npt.NDArray[np.int64]
    scan_id: npt.NDArray[np.str_]
    subject_id: npt.NDArray[np.str_]
    level: npt.NDArray[np.int8]
    label: npt.NDArray[np.int16]
    grade: npt.NDArray[np.int8]
    fracture_type: npt.NDArray[np.int8]
    foreign_material: npt.NDArray[np.int8]
    has_mask: npt.NDArray[np.int8]
    status: npt.NDArray[np.int8]
    centroid: npt.NDArray[np.float64]
    bmd_mg_cm3: npt.NDArray[np.float32]

    @classmethod
    def from_table(cls, table: pd.DataFrame, scans: ScanColumns) -> VertebraColumns:
        """Read the rows of the vertebrae table."""
        lacking = [name for name in _NEEDED if name not in table.columns]
        if lacking:
            raise UsageError(
                f"vertebrae= lacks the columns {', '.join(lacking)}. "
                f"Give rows of release.vertebrae, with all their columns."
            )
        scan_id = table["scan_id"].to_numpy(dtype=np.str_)
        level = _known("level", table["level"], LEVELS)
        label = np.array([LABEL_OF_LEVEL[name] for name in LEVELS], dtype=np.int16)[level]
        _check_label(table, label)
        centroid = [_floats(table[f"centroid_{axis}"], np.float64) for axis in "xyz"]
        return cls(
            scan=scans.positions(scan_id),
            scan_id=scan_id,
            subject_id=table["subject_id"].to_numpy(dtype=np.str_),
            level=level,
            label=label,
            grade=_integers(table, "grade", range(4)),
            fracture_type=_codes(table["fracture_type"], FRACTURE_TYPES),
            foreign_material=_integers(table, "foreign_material", range(2)),
            has_mask=_integers(table, "has_mask", range(2)),
            status=_known("grade_status", table["grade_status"], STATUSES),
            centroid=np.stack(centroid, axis=1),
            bmd_mg_cm3=_floats(table["bmd_mg_cm3"], np.float32),
        )

    def __repr__(self) -> str:
        return f"<VertebraColumns: {len(self):,} vertebrae of {len(set(self.scan_id)):,} scans>"

    def __len__(self) -> int:
        return len(self.scan)

    def take(self, rows: npt.NDArray[Any]) -> VertebraColumns:
        """Return the entries that `rows` (numbers, or a mask) picks."""
        return VertebraColumns(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def targets(self, index: int, threshold: int) -> dict[str, Any]:
        """Return what is known of one vertebra, as a sample says it."""
        grade = int(self.grade[index])
        return {
            "level": LEVELS[self.level[index]],
            "vertebra_label": int(self.label[index]),
            "grade": grade,
            "fractured": -1 if grade < 0 else int(grade >= threshold),
            "fracture_type": int(self.fracture_type[index]),
            "foreign_material": int(self.foreign_material[index]),
            "bmd_mg_cm3": float(self.bmd_mg_cm3[index]),
        }

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all columns, of measures to six decimals."""
        sha256 = hashlib.sha256()
        for f in fields(self):
            column = getattr(self, f.name)
            if column.dtype.kind == "f":
                # Processors differ in the last bit of a product of matrices; adding 0 undoes -0.
                column = np.round(column, 6) + 0.0
            sha256.update(f"{f.name} {column.dtype.str} {column.shape}\n".encode())
            sha256.update(np.ascontiguousarray(column).tobytes())
        return sha256.hexdigest()

    def table(self, reason: npt.NDArray[np.str_]) -> pd.DataFrame:
        """Return scan, subject, level, grade and status of each entry, with `reason`."""
        import pandas as pd

        level = np.array(LEVELS)[self.level] if len(self) else np.array([], dtype=np.str_)
        status = np.array(STATUSES)[self.status] if len(self) else np.array([], dtype=np.str_)
        grade = pd.array(np.where(self.grade < 0, 0, self.grade), dtype="Int8")
        grade[self.grade < 0] = pd.NA
        columns = {
            "scan_id": self.scan_id,
            "subject_id": self.subject_id,
            "level": pd.Categorical(level, categories=list(LEVELS), ordered=True),
            "grade": grade,
            "grade_status": status,
            "reason": reason,
        }
        return pd.DataFrame(columns)


def _integers(table: pd.DataFrame, name: str, allowed: range) -> npt.NDArray[np.int8]:
    """Return a column of small numbers; -1 where missing."""
    try:
        numbers = table[name].astype("Int64").to_numpy(dtype=np.int64, na_value=-1)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"vertebrae= has in {name} what is no number: {error}. {_AS_IT_IS}"
        ) from None
    wrong = np.flatnonzero(table[name].notna() & ~np.isin(numbers, allowed))
    if len(wrong):
        _refuse(table, wrong[0], name, f"must lie in {allowed[0]} to {allowed[-1]}")
    return numbers.astype(np.int8)


def _check_label(table: pd.DataFrame, label: npt.NDArray[np.int16]) -> None:
    """Raise `UsageError` if a label is another level's."""
    found = _integers(table, "label", range(1, max(LEVEL_OF_LABEL) + 1))
    for row in np.flatnonzero((found >= 0) & (found != label))[:1]:
        _refuse(table, row, "label", f"must be {label[row]}")


def _refuse(table: pd.DataFrame, row: int, name: str, rule: str) -> NoReturn:
    scan_id, level, found = (table[column].iloc[row] for column in ("scan_id", "level", name))
    raise UsageError(
        f"vertebrae= has for {scan_id} {level} the {name} {found}, which {rule}. {_AS_IT_IS}"
    )


def _floats(column: pd.Series[Any], dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    return column.to_numpy(dtype=np.float64, na_value=np.nan).astype(dtype)


def _known(name: str, column: pd.Series[Any], words: tuple[str, ...]) -> npt.NDArray[np.int8]:
    """Return the place of each of `column` in `words`; -1 would be taken for the last of them."""
    codes = _codes(column, words)
    strange = column[codes < 0].unique().tolist()
    if strange:
        raise UsageError(
            f"vertebrae= has {name} {strange[0]!r}, which is none of {', '.join(words)}. "
            f"{_AS_IT_IS}"
        )
    return codes


def _codes(column: pd.Series[Any], words: tuple[str, ...]) -> npt.NDArray[np.int8]:
    import pandas as pd

    return np.asarray(pd.Index(words).get_indexer(pd.Index(column.astype(object))), dtype=np.int8)
