"""The ``where=`` language: conditions over the documented columns of a table.

Comparisons (also chained), ``in`` and ``not in`` with a list, ``and``, ``or``, ``not``,
parentheses, ``missing(column)``, true/false columns, and named definitions. ``level`` compares in
spine order. The logic has three values: a comparison with a missing value is neither true nor
false, and ``not`` leaves it so; only rows for which the whole condition is true are selected.

Text is never run: it is parsed to a handful of plain records (``query_parse``), checked against
the columns (``query_check``) and evaluated here as NumPy masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from verse_data.errors import UsageError
from verse_data.spine.levels import LEVELS
from verse_data.tables import query_nodes as nodes
from verse_data.tables.columns import TableName, to_frame
from verse_data.tables.query_check import check, columns_of
from verse_data.tables.query_natures import Kind, Natures
from verse_data.tables.query_parse import parse, parse_cached
from verse_data.tables.query_text import QueryText

Mask = npt.NDArray[np.bool_]

_POSITION: Final = {level: place for place, level in enumerate(LEVELS)}


def columns_used(where: str) -> tuple[str, ...]:
    """Return the names that `where` uses as columns, each once, in order of first use.

    Definitions count with the columns that they use. No table is needed, so whether a column
    exists is not checked.

    Raises
    ------
    QueryRefused
        If `where` is not an expression of the query language.
    """
    return tuple(dict.fromkeys(column.name for column in columns_of(parse(QueryText(where)))))


def matches(table: pd.DataFrame, where: str) -> Mask:
    """Return, for each row of `table`, whether `where` is true for it.

    Raises
    ------
    QueryRefused
        If `where` is not an expression of the query language, names a column that `table` lacks,
        or compares what cannot be compared. The text points at the place.
    """
    # What is no text is refused by QueryText, hashable or not.
    text, condition = parse_cached(where) if type(where) is str else _parsed(where)
    if not table.columns.is_unique:
        twice = sorted({str(name) for name in table.columns[table.columns.duplicated()]})
        message = f"The table has several columns of one name: {', '.join(twice)}. Rename them to query it."
        raise UsageError(message)
    columns = Natures(table)
    check(condition, columns, text)
    return _Evaluation(table, columns).truth(condition).yes


def select(table: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Return the rows of `table` for which `where` is true, in their order, with their index.

    Parameters
    ----------
    table : pandas.DataFrame
        Any table; a column named ``level``, or an ordered category of levels, compares in spine
        order, and values of other categories are checked against the category's values.
    where : str or None
        The condition; None selects every row.

    Raises
    ------
    QueryRefused
        See :func:`matches`.
    """
    return table.copy() if where is None else table.loc[matches(table, where)].copy()


def check_condition(where: str, table: TableName = "vertebrae") -> None:
    """Raise `QueryRefused` if `where` is no condition on a table of a release; no row is needed."""
    select(to_frame(table, []), where)


def _parsed(where: object) -> tuple[QueryText, nodes.Condition]:
    text = QueryText(where)
    return text, parse(text)


@dataclass(frozen=True)
class _Truth:
    """Rows where a condition is true, and rows where it is false; the rest is unknown."""

    yes: Mask
    no: Mask


@dataclass(frozen=True)
class _Cells:
    """A column in a form that compares, and the rows in which it holds something.

    The texts of a category are compared as its codes; `words` tells the code of each.
    """

    data: npt.NDArray[Any]
    known: Mask
    words: Mapping[str, int] | None = None


class _Evaluation:
    def __init__(self, table: pd.DataFrame, columns: Natures) -> None:
        self._table = table
        self._columns = columns
        self._read: dict[str, _Cells] = {}

    def truth(self, condition: nodes.Condition) -> _Truth:
        match condition:
            case nodes.Compare():
                truth = self._compare(condition)
            case nodes.Member(column, values):
                truth = self._member(column, values)
            case nodes.Flag(column):
                cells = self._cells(column)
                truth = _known(cells.data, cells.known)
            case nodes.Missing(column):
                known = self._cells(column).known
                truth = _Truth(~known, known)
            case nodes.Defined(part=part):
                truth = self.truth(part)
            case nodes.Not(part):
                inner = self.truth(part)
                truth = _Truth(inner.no, inner.yes)
            case nodes.AllOf(parts):
                truths = [self.truth(part) for part in parts]
                truth = _Truth(_every([t.yes for t in truths]), _some([t.no for t in truths]))
            case nodes.AnyOf(parts):
                truths = [self.truth(part) for part in parts]
                truth = _Truth(_some([t.yes for t in truths]), _every([t.no for t in truths]))
        return truth

    def _compare(self, compare: nodes.Compare) -> _Truth:
        sides = (compare.left, compare.right)
        columns = [side for side in sides if isinstance(side, nodes.Column)]
        kind = self._columns[columns[0].name].kind
        cells = [self._cells(column) for column in columns]
        if len(columns) == 2 and kind == "text":
            cells = [_spelled(part) for part in cells]
        words, found = cells[0].words, iter(cells)
        left, right = (
            next(found).data if isinstance(side, nodes.Column) else _comparable(side, kind, words)
            for side in sides
        )
        outcome = np.asarray(nodes.APPLY[compare.operator](left, right), dtype=bool)
        return _known(outcome, _every([part.known for part in cells]))

    def _member(self, column: nodes.Column, values: tuple[nodes.Constant, ...]) -> _Truth:
        cells, kind = self._cells(column), self._columns[column.name].kind
        wanted = [_comparable(value, kind, cells.words) for value in values]
        if kind == "text" and cells.words is None:
            # numpy.isin sorts objects; a look-up per row is faster.
            words = frozenset(wanted)
            outcome = np.fromiter((word in words for word in cells.data), bool, len(cells.data))
        else:
            outcome = np.isin(cells.data, wanted)
        return _known(outcome, cells.known)

    def _cells(self, column: nodes.Column) -> _Cells:
        if column.name not in self._read:
            kind = self._columns[column.name].kind
            self._read[column.name] = _read(self._table[column.name], kind)
        return self._read[column.name]


def _known(outcome: Mask, known: Mask) -> _Truth:
    return _Truth(outcome & known, ~outcome & known)


def _comparable(
    constant: nodes.Constant, kind: Kind, words: Mapping[str, int] | None
) -> nodes.Value:
    if kind == "level":
        return _POSITION[str(constant.value)]
    # No row has the code -2, as none has a word that is no category.
    return constant.value if words is None else words.get(str(constant.value), -2)


def _spelled(cells: _Cells) -> _Cells:
    """Return texts as texts: the codes of two categories cannot be compared."""
    if cells.words is None:
        return cells
    return _Cells(np.array([*cells.words, ""], dtype=object)[cells.data], cells.known)


def _read(column: pd.Series, kind: Kind) -> _Cells:
    known = column.notna().to_numpy(dtype=bool)
    if kind == "boolean":
        return _Cells(column.to_numpy(dtype=bool, na_value=False), known)
    if kind == "number":
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return _Cells(numbers, ~np.isnan(numbers))
    if kind == "level":
        return _read_levels(column)
    if isinstance(column.dtype, pd.CategoricalDtype):
        words = {str(word): code for code, word in enumerate(column.cat.categories)}
        return _Cells(column.cat.codes.to_numpy(), known, words)
    data = column.astype(object).to_numpy(dtype=object, copy=True)
    data[~known] = ""
    return _Cells(data, known)


def _read_levels(column: pd.Series) -> _Cells:
    category = column.astype("category").cat
    places = np.array([*(_POSITION.get(str(word), -1) for word in category.categories), -1])
    data = places[category.codes.to_numpy()]
    return _Cells(data, data >= 0)


def _every(masks: list[Mask]) -> Mask:
    return np.asarray(np.logical_and.reduce(masks), dtype=bool)


def _some(masks: list[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce(masks), dtype=bool)
