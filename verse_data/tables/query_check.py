"""What the columns of a table are to a query, and whether a query fits them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import pandas as pd

from verse_data.spine.levels import LEVELS
from verse_data.tables import query_nodes as nodes
from verse_data.tables.columns import TableName, columns
from verse_data.tables.definitions import DEFINITIONS
from verse_data.tables.query_text import QueryText, Span, nearest

Kind = Literal["number", "boolean", "text", "level", "other"]

_IS: Final[dict[Kind, str]] = {
    "number": "a number",
    "boolean": "true or false",
    "text": "a text",
    "level": "a vertebral level",
    "other": "of a kind that queries do not compare",
}


@dataclass(frozen=True)
class Nature:
    """What a column holds.

    Attributes
    ----------
    kind : str
        Number, boolean, text, level, or other.
    vocabulary : tuple of str
        The words that the column can hold, where its documentation lists them all; else empty.
    """

    kind: Kind
    vocabulary: tuple[str, ...] = ()


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
        return Nature(_kind_of_dtype(dtype))
    if held not in {"string", "empty"}:
        return Nature("boolean" if held == "boolean" else "other")
    if name == "level" or is_level:
        return Nature("level", LEVELS)
    documented = _documented_words().get(name, ())
    if documented and not isinstance(dtype, pd.CategoricalDtype):
        words = tuple(column.dropna().unique())
    # A table of the user's may hold other words in a column of the same name.
    return Nature("text", documented and tuple(dict.fromkeys((*documented, *words))))


@cache
def _documented_words() -> dict[str, tuple[str, ...]]:
    """Return the words of each documented column with a closed vocabulary."""
    tables: tuple[TableName, ...] = ("subjects", "scans", "vertebrae")
    return {
        column.name: column.categories
        for table in tables
        for column in columns(table)
        if column.categories
    }


def _kind_of_dtype(dtype: Any) -> Kind:
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return "number"
    return "other"


def columns_of(condition: nodes.Condition) -> Iterator[nodes.Column]:
    """Yield the columns that `condition` names, those of its definitions too."""
    match condition:
        case nodes.Compare(left, _, right):
            yield from (side for side in (left, right) if isinstance(side, nodes.Column))
        case nodes.Member(column, _) | nodes.Flag(column) | nodes.Missing(column):
            yield column
        case nodes.Not(part) | nodes.Defined(part=part):
            yield from columns_of(part)
        case nodes.AllOf(parts) | nodes.AnyOf(parts):
            for part in parts:
                yield from columns_of(part)


def check(condition: nodes.Condition, columns: Mapping[str, Nature], text: QueryText) -> None:
    """Check that every column exists and every comparison makes sense.

    Raises
    ------
    QueryRefused
        At the first place that does not.
    """
    _Checker(columns, text).check(condition)


class _Checker:
    def __init__(self, columns: Mapping[str, Nature], text: QueryText) -> None:
        self._columns = columns
        self._text = text

    def check(self, condition: nodes.Condition) -> None:
        match condition:
            case nodes.Compare():
                self._compare(condition)
            case nodes.Member(column, values):
                nature = self._nature(column)
                for value in values:
                    self._value(column, nature, value)
            case nodes.Flag(column):
                self._flag(column)
            case nodes.Missing(column):
                self._nature(column, comparable=False)
            case nodes.Not(part):
                self.check(part)
            case nodes.AllOf(parts) | nodes.AnyOf(parts):
                for part in parts:
                    self.check(part)
            case nodes.Defined(name, span, part):
                self._defined(name, span, part)

    def _nature(self, column: nodes.Column, *, comparable: bool = True) -> Nature:
        if column.name not in self._columns:
            meant = _meant(column.name, self._columns)
            problem = (
                f"there is no column {column.name}. {meant}Columns: {', '.join(self._columns)}."
            )
            self._text.refuse(column.span, problem)
        nature = self._columns[column.name]
        if comparable and nature.kind == "other":
            self._text.refuse(column.span, f"{column.name} is {_IS['other']}.")
        return nature

    def _defined(self, name: str, span: Span, part: nodes.Condition) -> None:
        for column in columns_of(part):
            if column.name not in self._columns:
                problem = f"{name} needs the column {column.name}, which this table does not have."
                self._text.refuse(span, problem)
        _Checker(self._columns, self._text).check(part)

    def _flag(self, column: nodes.Column) -> None:
        nature = self._nature(column)
        if nature.kind != "boolean":
            problem = f"{column.name} is {_IS[nature.kind]}: compare it with something, such as {_example(column.name, nature)}."
            self._text.refuse(column.span, problem)

    def _compare(self, compare: nodes.Compare) -> None:
        sides = [side for side in (compare.left, compare.right) if isinstance(side, nodes.Column)]
        kinds = {side: self._nature(side) for side in sides}
        first, nature = next(iter(kinds.items()))
        for side, other in kinds.items():
            if other.kind != nature.kind:
                problem = f"{first.name} is {_IS[nature.kind]} and {side.name} is {_IS[other.kind]}: they cannot be compared."
                self._text.refuse(compare.span, problem)
        for value in (compare.left, compare.right):
            if isinstance(value, nodes.Constant):
                self._value(first, nature, value)
        if compare.operator not in {"==", "!="} and nature.kind in {"text", "boolean"}:
            problem = f"{first.name} is {_IS[nature.kind]}, which has no order: use ==, != or in."
            self._text.refuse(compare.span, problem)

    def _value(self, column: nodes.Column, nature: Nature, constant: nodes.Constant) -> None:
        if _kind_of(constant) != {"level": "text"}.get(nature.kind, nature.kind):
            problem = f"{column.name} is {_IS[nature.kind]}, and {constant.value!r} is not: write, for example, {_example(column.name, nature)}."
            self._text.refuse(constant.span, problem)
        if nature.vocabulary and constant.value not in nature.vocabulary:
            word = "level" if nature.kind == "level" else f"value of {column.name}"
            known = ", ".join(nature.vocabulary[:40]) + (", …" if nature.vocabulary[40:] else "")
            problem = f"{constant.value!r} is no {word}. {nearest(str(constant.value), nature.vocabulary)}Known: {known}."
            self._text.refuse(constant.span, problem)


def _meant(name: str, columns: Iterable[str]) -> str:
    """Return what to write in place of a bare word that is no column, or nothing."""
    if name.lower() in {"true", "false"}:
        return f"Write {name.capitalize()}. "
    if name.lower() in {"null", "nan", "na"}:
        return "Write missing(column) to ask whether a value is missing. "
    if any(name in words for words in (LEVELS, *_documented_words().values())):
        return f"Texts stand in quotes: {name!r}. "
    return nearest(name, [*columns, *DEFINITIONS])


def _kind_of(constant: nodes.Constant) -> Kind:
    if isinstance(constant.value, bool):
        return "boolean"
    return "text" if isinstance(constant.value, str) else "number"


def _example(name: str, nature: Nature) -> str:
    if nature.kind == "boolean":
        return f"{name} or not {name}"
    if nature.kind == "number":
        return f"{name} >= 1"
    operator = ">=" if nature.kind == "level" else "=="
    value = "T12" if nature.kind == "level" else next(iter(nature.vocabulary), "…")
    return f"{name} {operator} {value!r}"
