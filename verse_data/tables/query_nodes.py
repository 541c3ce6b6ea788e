"""The parts that a parsed query is made of: plain records, each with its place in the text."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from verse_data.tables.query_text import Span

Operator = Literal["==", "!=", "<", "<=", ">", ">="]
Value = bool | int | float | str

APPLY: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""What each operator does, with two values and with columns."""


@dataclass(frozen=True)
class Column:
    """A column, by name, or by one of the bare words that may turn out to be one."""

    name: str
    span: Span


@dataclass(frozen=True)
class Constant:
    """A number, text or truth value."""

    value: Value
    span: Span


@dataclass(frozen=True)
class Compare:
    """`left` `operator` `right`; at least one side is a column."""

    left: Column | Constant
    operator: Operator
    right: Column | Constant
    span: Span


@dataclass(frozen=True)
class Member:
    """Whether a column's value is one of `values`."""

    column: Column
    values: tuple[Constant, ...]


@dataclass(frozen=True)
class Flag:
    """A boolean column that stands as a condition by itself."""

    column: Column


@dataclass(frozen=True)
class Missing:
    """Whether a column's value is missing."""

    column: Column


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    part: Condition


@dataclass(frozen=True)
class AllOf:
    """All of the parts."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    """Any of the parts."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Defined:
    """A named definition and the condition that it stands for."""

    name: str
    span: Span
    part: Condition


Condition = Compare | Member | Flag | Missing | Not | AllOf | AnyOf | Defined
