"""The columns of the three tables: name, type, unit, meaning, source. Made from the record models.

To add a column, add a field to the record in :mod:`verse_data.records`, and fill it in
:mod:`verse_data.tables.join`; documentation, schema and export follow.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final, Literal

import pandas as pd

from verse_data.errors import UsageError
from verse_data.records.base import Record
from verse_data.records.tables import ScanRecord, SubjectRecord, VertebraRecord
from verse_data.spine.levels import LEVEL_OF_LABEL, LEVELS

TableName = Literal["scans", "vertebrae", "subjects"]
MODELS: Final[dict[TableName, type[Record]]] = {
    "scans": ScanRecord,
    "vertebrae": VertebraRecord,
    "subjects": SubjectRecord,
}


_LABELS: Final = tuple(sorted(LEVEL_OF_LABEL))
_WORKBOOK: Final = "grading workbook"
# These are made of grades; their source says how, and not from which file.
_FROM_GRADES: Final = frozenset(
    [
        "grade_status",
        "n_graded",
        "n_fractured",
        "n_foreign_material",
        "max_grade",
        "has_foreign_material",
    ]
)


@dataclass(frozen=True)
class Column:
    """One documented column."""

    name: str
    dtype: str  # of pandas: string, category, boolean, Float64, Int64 …
    unit: str | None
    description: str
    source: str  # which file or step it comes from
    categories: tuple[str, ...] = ()  # the words of a category; others of a release come after them
    ordered: bool = False
    numbers: tuple[int, ...] = ()  # all that a column of grades or labels can hold; empty if open

    @property
    def needs_workbook(self) -> bool:
        """Whether the grading workbook alone says what stands in it."""
        alone = self.source.startswith(_WORKBOOK) and "; else" not in self.source
        return alone or self.name in _FROM_GRADES


@cache
def columns(table: TableName) -> tuple[Column, ...]:
    """Return the columns of `table` in order."""
    if table not in MODELS:
        raise UsageError(f"There is no table {table!r}; tables are {', '.join(MODELS)}.")
    return tuple(_column(name, info) for name, info in MODELS[table].model_fields.items())


def _column(name: str, info: Any) -> Column:
    extra = info.json_schema_extra
    bare, literals = _bare_type(info.annotation)
    words = literals if bare is str else ()
    dtype = (
        extra.get("dtype") or {str: "string", bool: "boolean", float: "Float64", int: "Int64"}[bare]
    )
    categories = {"level": LEVELS, "category": words or tuple(extra.get("words", ()))}.get(
        dtype, ()
    )
    return Column(
        name=name,
        dtype="category" if dtype == "level" else dtype,
        unit=extra.get("unit"),
        description=info.description,
        source=extra["source"],
        categories=categories,
        ordered=dtype == "level",
        numbers=_LABELS if name == "label" else literals if bare is int else (),
    )


def _bare_type(annotation: Any) -> tuple[type, tuple[Any, ...]]:
    """Return the type of an optional annotation, and the values of a literal one."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is Literal:
        values = typing.get_args(annotation)
        return type(values[0]), tuple(values)
    return annotation, ()


@cache
def workbook_columns() -> frozenset[str]:
    """Return the names of the columns that nothing but the grading workbook fills."""
    return frozenset(c.name for table in MODELS for c in columns(table) if c.needs_workbook)


def to_frame(table: TableName, records: Sequence[Record]) -> pd.DataFrame:
    """Return `records` as a DataFrame with the documented columns and types; missing is ``<NA>``."""
    series: dict[str, pd.Series[Any]] = {}
    for column in columns(table):
        values = [getattr(record, column.name) for record in records]
        series[column.name] = pd.Series(values, dtype=_pandas_type(column, values))
    return pd.DataFrame(series)


def _pandas_type(column: Column, values: Sequence[Any]) -> Any:
    if column.dtype != "category":
        return column.dtype
    others = sorted({value for value in values if value is not None} - set(column.categories))
    words = pd.Index([*column.categories, *others], dtype="str")
    return pd.CategoricalDtype(words, ordered=column.ordered)


def describe(table: TableName) -> list[Mapping[str, Any]]:
    """Return the columns of `table` as plain rows, for documentation and export."""
    rows = map(asdict, columns(table))
    return [
        {
            "column": row["name"],
            **{key: row[key] for key in ("dtype", "unit", "description", "source")},
        }
        for row in rows
    ]
