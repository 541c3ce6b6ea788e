"""What the columns of a table are to a query: their kind, and the values that they can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pandas as pd

from verse_data.spine.levels import LEVELS
from verse_data.tables.columns import TableName, columns
from verse_data.tables.query_nodes import Value

Kind = Literal["number", "boolean", "text", "level", "other"]


@dataclass(frozen=True)
class Nature:
    """What a column holds.

    Attributes
    ----------
    kind : str
        Number, boolean, text, level, or other.
    vocabulary : tuple of str or of number
        What the column can hold, where its documentation lists it all; else empty. It is in order
        where the kind has one.
    """

    kind: Kind
    vocabulary: tuple[Value, ...] = ()


class Natures(Mapping[str, Nature]):
    """What each column of a table is to a query; found out when it is first asked for.

    Parameters
    ----------
    table : pandas.DataFrame
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        self._names = {str(name): name for name in table.columns}
        self._found: dict[str, Nature] = {}

    def __getitem__(self, name: str) -> Nature:
        """Look at the column's type, and at its values where that does not tell."""
        if name not in self._found:
            self._found[name] = _nature(name, self._table[self._names[name]])
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a column, without looking at it."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the columns."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._names)


def _nature(name: str, column: pd.Series) -> Nature:
    dtype = column.dtype
    words: tuple[Any, ...] = ()
    if isinstance(dtype, pd.CategoricalDtype):
        words = tuple(dtype.categories)
        is_level = bool(dtype.ordered and words) and set(words) <= set(LEVELS)
        held = "string" if all(isinstance(word, str) for word in words) else "mixed"
    elif isinstance(dtype, pd.StringDtype) or pd.api.types.is_object_dtype(dtype):
        held, is_level = pd.api.types.infer_dtype(column, skipna=True), False
    else:
        kind = _kind_of_dtype(dtype)
        return Nature(kind, _numbers(name, column) if kind == "number" else ())
    if held not in {"string", "empty"}:
        return Nature("boolean" if held == "boolean" else "other")
    if name == "level" or is_level:
        return Nature("level", LEVELS)
    documented = documented_words().get(name, ())
    if documented and not isinstance(dtype, pd.CategoricalDtype):
        words = tuple(column.dropna().unique())
    # A table of the user's may hold other words in a column of the same name.
    return Nature("text", documented and tuple(dict.fromkeys((*documented, *words))))


def _numbers(name: str, column: pd.Series) -> tuple[Value, ...]:
    """Return the numbers that a closed column can hold, and those that this one holds beside them."""
    documented = documented_numbers().get(name, ())
    return documented and tuple(sorted({*documented, *column.dropna().unique().tolist()}))


@cache
def documented_words() -> dict[str, tuple[str, ...]]:
    """Return the words of each documented column with a closed vocabulary of texts."""
    tables: tuple[TableName, ...] = ("subjects", "scans", "vertebrae")
    return {
        column.name: column.categories
        for table in tables
        for column in columns(table)
        if column.categories
    }


@cache
def documented_numbers() -> dict[str, tuple[int, ...]]:
    """Return the numbers of each documented column that holds only certain ones."""
    tables: tuple[TableName, ...] = ("subjects", "scans", "vertebrae")
    return {
        column.name: column.numbers
        for table in tables
        for column in columns(table)
        if column.numbers
    }


def _kind_of_dtype(dtype: Any) -> Kind:
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return "number"
    return "other"
