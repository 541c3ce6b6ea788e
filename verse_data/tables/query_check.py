"""Whether a query fits the columns of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from verse_data.spine.levels import LEVELS
from verse_data.tables import query_nodes as nodes
from verse_data.tables.columns import MODELS, columns
from verse_data.tables.definitions import DEFINITIONS
from verse_data.tables.query_natures import Kind, Nature, documented_words
from verse_data.tables.query_text import QueryText, Span, nearest

_IS: Final[dict[Kind, str]] = {
    "number": "a number",
    "boolean": "true or false",
    "text": "a text",
    "level": "a vertebral level",
    "other": "of a kind that queries do not compare",
}


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
                    self._held(column, nature, value)
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
            meant = _elsewhere(column.name) or _meant(column.name, self._columns)
            problem = f"this table has no column {column.name}. {meant}Columns: {', '.join(self._columns)}."
            self._text.refuse(column.span, problem)
        nature = self._columns[column.name]
        if comparable and nature.kind == "other":
            self._text.refuse(column.span, f"{column.name} is {_IS['other']}.")
        return nature

    def _defined(self, name: str, span: Span, part: nodes.Condition) -> None:
        for column in columns_of(part):
            if column.name not in self._columns:
                problem = (
                    f"{name} needs the column {column.name}, which this table does not have. "
                    f"{_elsewhere(column.name)}"
                ).rstrip()
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
        ordered = compare.operator not in {"==", "!="}
        for value in (compare.left, compare.right):
            if isinstance(value, nodes.Constant):
                self._value(first, nature, value)
                if nature.kind != "number" or not ordered:
                    self._held(first, nature, value)
        if ordered and nature.kind in {"text", "boolean"}:
            problem = f"{first.name} is {_IS[nature.kind]}, which has no order: use ==, != or in."
            self._text.refuse(compare.span, problem)
        if ordered and len(sides) == 1 and nature.vocabulary:
            self._bound(compare, first, nature)

    def _value(self, column: nodes.Column, nature: Nature, constant: nodes.Constant) -> None:
        if _kind_of(constant) != {"level": "text"}.get(nature.kind, nature.kind):
            problem = f"{column.name} is {_IS[nature.kind]}, and {constant.value!r} is not: write, for example, {_example(column.name, nature)}."
            self._text.refuse(constant.span, problem)

    def _held(self, column: nodes.Column, nature: Nature, constant: nodes.Constant) -> None:
        """Refuse a value that no row can hold."""
        if nature.vocabulary and constant.value not in nature.vocabulary:
            word = "level" if nature.kind == "level" else f"value of {column.name}"
            words = [value for value in nature.vocabulary if isinstance(value, str)]
            meant = nearest(str(constant.value), words)
            problem = f"{constant.value!r} is no {word}. {meant}Known: {_known(nature)}."
            self._text.refuse(constant.span, problem)

    def _bound(self, compare: nodes.Compare, column: nodes.Column, nature: Nature) -> None:
        """Refuse an inequality that nothing which the column can hold satisfies."""
        values = nature.vocabulary

        def place(side: nodes.Column | nodes.Constant, value: nodes.Value) -> nodes.Value:
            known = value if isinstance(side, nodes.Column) else side.value
            return values.index(known) if nature.kind == "level" else known

        holds = nodes.APPLY[compare.operator]
        if not any(holds(place(compare.left, v), place(compare.right, v)) for v in values):
            problem = (
                f"nothing that {column.name} can hold satisfies this. Known: {_known(nature)}."
            )
            self._text.refuse(compare.span, problem)


def _known(nature: Nature) -> str:
    shown = [str(value) for value in nature.vocabulary[:40]]
    return ", ".join(shown) + (", …" if nature.vocabulary[40:] else "")


def _elsewhere(name: str) -> str:
    """Return which table has a column that the one asked lacks, or nothing."""
    for table in MODELS:
        if any(name == column.name for column in columns(table)):
            return f"The table of {table} has it: load_table({table!r}, where=...), or --table {table}. "
    return ""


def _meant(name: str, columns: Iterable[str]) -> str:
    """Return what to write in place of a bare word that is no column, or nothing."""
    if name.lower() in {"true", "false"}:
        return f"Write {name.capitalize()}. "
    if name.lower() in {"null", "nan", "na"}:
        return "Write missing(column) to ask whether a value is missing. "
    if any(name in words for words in (LEVELS, *documented_words().values())):
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
