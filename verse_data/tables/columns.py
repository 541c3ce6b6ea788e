"""The columns of the three tables: name, type, unit, meaning, source. Made from the record models.

To add a column, add a field to the record in :mod:`verse_data.records`, and fill it in
:mod:`verse_data.tables.join`; documentation, schema and export follow.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import pandas as pd

from verse_data.errors import one_of
from verse_data.records.base import Record
from verse_data.records.tables import ScanRecord, SubjectRecord, VertebraRecord
from verse_data.spine.levels import LEVEL_OF_LABEL, LEVELS

TableName = Literal["scans", "vertebrae", "subjects"]
MODELS: Final[dict[TableName, type[Record]]] = {
    "scans": ScanRecord,
    "vertebrae": VertebraRecord,
    "subjects": SubjectRecord,
}


_WORKBOOK: Final = "grading workbook"
# Derived from grades: the source of these columns names the derivation, not the file.
_FROM_GRADES: Final = {
    "grade_status", "n_graded", "n_fractured", "n_foreign_material", "max_grade",
    "has_foreign_material",
}  # fmt: skip
_DTYPES: Final = {str: "string", bool: "boolean", float: "Float64", int: "Int64"}


@dataclass(frozen=True)
class Column:
    """One documented column."""

    name: str
    dtype: str  # of pandas: string, category, boolean, Float64, Int64 …
    unit: str | None
    description: str
    source: str  # which file or step it comes from
    categories: tuple[str, ...] = ()  # known values; other values of a release come after them
    ordered: bool = False
    numbers: tuple[int, ...] = ()  # all possible values of a grade or label column, else empty


@cache
def columns(table: TableName) -> tuple[Column, ...]:
    """Return the columns of `table` in order."""
    model = MODELS[one_of("table", table, MODELS)]  # type: ignore[index]
    return tuple(_column(name, info) for name, info in model.model_fields.items())


def _column(name: str, info: Any) -> Column:
    extra = info.json_schema_extra
    options = [part for part in typing.get_args(info.annotation) if part is not types.NoneType]
    is_literal = typing.get_origin(info.annotation) is Literal
    bare = options[0] if options and not is_literal else info.annotation
    values = typing.get_args(bare)  # of a literal
    kind = type(values[0]) if values else bare
    dtype = extra.get("dtype") or _DTYPES[kind]
    categories: tuple[str, ...] = ()
    if dtype == "level":
        categories = LEVELS
    elif dtype == "category":
        categories = values or tuple(extra.get("words", ()))
    return Column(
        name=name,
        dtype="category" if dtype == "level" else dtype,
        unit=extra.get("unit"),
        description=info.description,
        source=extra["source"],
        categories=categories,
        ordered=dtype == "level",
        numbers=tuple(sorted(LEVEL_OF_LABEL)) if name == "label" else values if kind is int else (),
    )


@cache
def workbook_columns() -> frozenset[str]:
    """Return the names of the columns that only the grading workbook fills."""

    def needs_workbook(column: Column) -> bool:
        only_source = column.source.startswith(_WORKBOOK) and "; else" not in column.source
        return only_source or column.name in _FROM_GRADES

    return frozenset(c.name for table in MODELS for c in columns(table) if needs_workbook(c))


def to_frame(table: TableName, records: Sequence[Record]) -> pd.DataFrame:
    """Return `records` as a DataFrame with the documented columns and types; missing is ``<NA>``."""
    frame = {}
    for column in columns(table):
        values = [getattr(record, column.name) for record in records]
        frame[column.name] = pd.Series(values, dtype=_pandas_type(column, values))
    return pd.DataFrame(frame)


def with_types(table: TableName, frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows of several tables with the documented types; other columns stay as they are."""
    own = [column for column in columns(table) if column.name in frame]
    values = {one.name: frame[one.name].astype(object) for one in own}
    plain = {name: cells.where(cells.notna(), None) for name, cells in values.items()}
    kinds = {one.name: _pandas_type(one, list(plain[one.name])) for one in own}
    return frame.assign(**plain).astype(kinds)


def _pandas_type(column: Column, values: Sequence[Any]) -> Any:
    if column.dtype != "category":
        return column.dtype
    others = sorted({value for value in values if value is not None} - set(column.categories))
    words = pd.Index([*column.categories, *others], dtype="str")
    return pd.CategoricalDtype(words, ordered=column.ordered)


def describe(table: TableName) -> list[Mapping[str, Any]]:
    """Return the columns of `table` as plain rows, for documentation and export."""
    named = ("dtype", "unit", "description", "source")
    return [{"column": c.name} | {key: getattr(c, key) for key in named} for c in columns(table)]
