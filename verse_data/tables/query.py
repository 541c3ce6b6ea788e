"""The ``where=`` language: conditions over the documented columns of a table.

``docs/queries.md`` describes it. Text is never executed: an allow-list of words, Python's parser
and a walk over the syntax tree refuse what is not part of the language; NumPy evaluates the rest.
"""

from __future__ import annotations

import ast
import difflib
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import infer_dtype

from verse_data.errors import QueryRefused, UsageError
from verse_data.spine.levels import LEVELS
from verse_data.tables.columns import MODELS, TableName, columns, to_frame
from verse_data.tables.definitions import DEFINITIONS

MAX_LENGTH: Final = 4000  # characters: a list of all 160 series of VerSe'19 fits
MAX_VALUES: Final = 400  # columns and values
MAX_DEPTH: Final = 20  # brackets open at once, and `not` or `-` in a row

Value = bool | int | float | str
Mask = npt.NDArray[np.bool_]
# By row: 1 is true, -1 is false, 0 is unknown. `and` takes the minimum, `or` the maximum.
Truth = npt.NDArray[np.int8]

_OPERATORS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
# For each kind of column: its description in messages, and an example of a condition.
_KINDS: Final = {
    "number": ("a number", "{} >= 1"),
    "boolean": ("true or false", "{0} or not {0}"),
    "text": ("a text", "{} == '…'"),
    "level": ("a vertebral level", "{} >= 'T12'"),
    "other": ("of a kind that queries do not compare", ""),
}
# By names of types of Python and NumPy, and of pandas' ``infer_dtype``.
_KIND_OF: Final = {
    **dict.fromkeys(["i", "u", "f", "int", "float"], "number"),
    **dict.fromkeys(["b", "bool", "boolean"], "boolean"),
    **dict.fromkeys(["str", "string", "empty"], "text"),
}
_MAX_NUMBER: Final = 2.0**53  # above it, float64 cannot represent all integers
_INDEX: Final = {level: index for index, level in enumerate(LEVELS)}

# Operators of other languages, and what to write instead.
_INSTEAD: Final = {
    sign: text
    for signs, text in (
        ("=== =", "Write == to compare."),
        ("!== <> =! \u2260", "Write !=."),
        ("=> \u2265", "Write >=."),
        ("=< \u2264", "Write <=."),
        ("&& &", "Write and."),
        ("|| |", "Write or."),
        ("~", "Write not."),
        ("!", "Write not, or != to compare."),
        ("#", "A query has no comments."),
        ("\\", "Texts in a query have no escapes."),
    )
    for sign in signs.split()
}
_SIGNS: Final = "|".join(map(re.escape, sorted(_INSTEAD, key=len, reverse=True)))
_TEXT: Final = r"""(?:'[^'\\\r\n]*'|"[^"\\\r\n]*")"""
_NUMBER: Final = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NAME: Final = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_WORD: Final = re.compile(
    rf"""(?P<blank>[ \t\r\n]+)
    |(?P<pair>[=!<>]=(?!=))
    |(?P<foreign>{_SIGNS})
    |(?P<prefixed>{_NAME}(?=['"]))
    |(?P<word>(?:and|or|not|in|True|False)(?![\w.]))
    |(?P<capitals>(?i:and|or|not|in)(?![\w.]))
    |(?P<small>(?:true|false|TRUE|FALSE)(?![\w.]))
    |(?P<none>(?:(?i:none|null|nan|na)|is)(?![\w.]))
    |(?P<name>{_NAME})
    |(?P<texts>{_TEXT}[ \t\r\n]*{_TEXT})
    |(?P<text>{_TEXT})
    |(?P<unended>['"].*)
    |(?P<number>{_NUMBER}(?![\w.]))
    |(?P<unspaced>{_NUMBER})
    |(?P<sign>[<>()\[\],-])
    |(?P<exotic>[^\x00-\x7f])
    |(?P<other>.)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
# The message for each kind of word that a query cannot have.
_REFUSED: Final = {
    "foreign": "{word!r} is not part of the query language. {instead}",
    "prefixed": "{word!r} is directly before a text; write only the text, in quotes.",
    "capitals": "write {small} in small letters.",
    "small": "Write True and False so.",
    "none": "Write missing(column) to ask whether a value is missing.",
    "texts": "two texts without a comma between them.",
    "unended": "a text that does not end, or has a backslash.",
    "unprintable": "a text with characters that cannot be printed.",
    "unspaced": "a number with letters directly after it; put texts in quotes.",
    "exotic": "{unicode} outside quotes. Names are plain ASCII letters; look-alikes are other names.",
    "other": (
        "{word!r} is not part of the query language. The words are columns, values, "
        "== != < <= > >=, in, and, or, not, ( ), [ ] and missing()."
    ),
    "deep": f"more than {MAX_DEPTH} levels of nesting.",
    "many": f"more than {MAX_VALUES} columns and values.",
}


def columns_used(where: str) -> tuple[str, ...]:
    """Return the names that `where` uses as columns, each once, in order of first use.

    Definitions count with the columns that they use. No table is needed, so whether a column
    exists is not checked.

    Raises
    ------
    QueryRefused
        If `where` is not an expression of the query language.
    """
    query = _Query(where)
    query.truth(query.tree)
    return tuple(query.columns)


def matches(table: pd.DataFrame, where: str) -> Mask:
    """Return, for each row of `table`, whether `where` is true for it, or raise QueryRefused."""
    query = _Query(where, table)
    return query.truth(query.tree) > 0


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
        If `where` is not an expression of the query language, names a column that `table` lacks,
        or compares what cannot be compared. The text points at the place.
    """
    return table.copy() if where is None else table.loc[matches(table, where)].copy()


def check_condition(where: str, table: TableName = "vertebrae", *, several: bool = False) -> None:
    """Raise `QueryRefused` for a bad condition on a table, of `several` releases; needs no rows."""
    release = {"release": ""} if several and table != "subjects" else {}
    select(to_frame(table, []).assign(**release), where)


@lru_cache(maxsize=256)
def _parse(where: str) -> tuple[str, ast.expr]:
    """Return `where` on one line, and its syntax tree; callers must not change the tree."""
    if not where.strip():
        raise QueryRefused("The query is empty. Leave it out to select every row.")
    if len(where) > MAX_LENGTH:
        raise QueryRefused(f"The query is over the limit of {MAX_LENGTH:,} characters: split it.")
    _check_words(where)
    # Each line break becomes one blank, so that positions stay the user's.
    line = re.sub(r"[\t\r\n]", " ", where).rstrip()
    start = len(line) - len(line.lstrip())
    try:
        return line, ast.parse(line[start:], mode="eval").body
    except SyntaxError as error:
        # Python gives no place where the text ends before the expression does.
        place = min(start + (error.offset or MAX_LENGTH + 1) - 1, len(line))
        problem = "the query stops too early; something is missing here."
        if place < len(line):
            problem = "the query cannot go on like this here, or stops too early."
        _refuse(line, place, place + 1, problem)


def _check_words(where: str) -> None:
    depth = run = values = 0
    for match in _WORD.finditer(where):
        kind, word = str(match.lastgroup), match.group()
        if kind == "blank":
            continue
        depth += (word in {"(", "["}) - (word in {")", "]"})
        run = run + 1 if word in {"not", "-"} else 0
        values += kind in {"name", "text", "number"}
        if depth > MAX_DEPTH or run > MAX_DEPTH:
            kind = "deep"
        elif values > MAX_VALUES:
            kind = "many"
        elif kind == "text" and not word.isprintable():
            kind = "unprintable"
        if kind in _REFUSED:
            unicode = f"U+{ord(word[0]):04X} ({unicodedata.name(word[0], 'unnamed')})"
            problem = _REFUSED[kind].format(
                word=word, small=word.lower(), instead=_INSTEAD.get(word), unicode=unicode
            )
            _refuse(where, *match.span(), problem)


def _span(line: str, first: ast.expr, last: ast.expr | None = None) -> tuple[int, int]:
    """Return the position in `line` where `first` starts, and where `last` (or `first`) ends."""
    # Python counts bytes, from the first word; texts in quotes may hold more than ASCII.
    start = len(line) - len(line.lstrip())
    data, end = line[start:].encode(), (last or first).end_col_offset
    return start + len(data[: first.col_offset].decode()), start + len(data[:end].decode())


def _refuse(where: str, start: int, end: int, problem: str) -> NoReturn:
    """Raise :class:`QueryRefused` with `problem` and a line that points at the place."""
    # Control characters could manipulate the terminal that shows the error.
    line = re.sub(r"\s", " ", where)
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
    first, last = max(start - 60, 0), min(end + 60, len(shown))
    caret = " " * (start - first) + "^" * (end - start)
    raise QueryRefused(
        f"Query refused at character {start + 1}: {problem}\n    {shown[first:last]}\n    {caret}"
    )


@dataclass(frozen=True)
class _Column:
    """A column in comparable form: numbers as float64, levels as index along the spine."""

    name: str
    kind: str  # of _KINDS, or "any" where there is no table
    data: npt.NDArray[Any]
    known: Mask
    vocabulary: tuple[Value, ...] = ()  # all possible values, if they are documented

    def __str__(self) -> str:
        return f"{self.name} is {_KINDS[self.kind][0]}"

    @property
    def example(self) -> str:
        """Return a condition on the column."""
        return _KINDS[self.kind][1].format(self.name)

    @property
    def choices(self) -> str:
        """Return the sentence that lists the vocabulary."""
        return f"Known: {', '.join(map(str, self.vocabulary))}."

    def operand(self, value: Any) -> Any:
        """Return `value` in the form of `data`."""
        return _INDEX[value] if self.kind == "level" else value


class _Query:
    """A condition on a table; without a table, only the grammar is checked."""

    def __init__(self, where: object, table: pd.DataFrame | None = None) -> None:
        if not isinstance(where, str):
            raise QueryRefused(f"A query is a text, as 'grade >= 2', not {type(where).__name__}.")
        self.line, self.tree = _parse(where)
        self.columns: dict[str, _Column] = {}
        self._table = table

    def truth(self, node: ast.expr) -> Truth:
        """Return for each row whether a condition is true."""
        truth: Truth
        match node:
            case ast.BoolOp(op=word, values=parts):
                join = np.minimum if isinstance(word, ast.And) else np.maximum
                truth = join.reduce([self.truth(part) for part in parts])
            case ast.UnaryOp(op=ast.Not(), operand=part):
                truth = -self.truth(part)
            case ast.Compare(left=left, ops=operators, comparators=sides):
                pairs = zip([left, *sides], operators, sides, strict=False)
                truth = np.minimum.reduce([self._compare(*pair) for pair in pairs])
            case ast.Call(func=ast.Name("missing"), args=[ast.Name() as name], keywords=[]):
                known = self._column(name, compared=False).known
                truth = _truth(~known, np.ones_like(known))
            case ast.Attribute():
                truth = self.truth(self._definition(node))
            case ast.Name():
                column = self._column(node)
                if column.kind not in {"boolean", "any"}:
                    self._refuse(f"{column}: compare it with something: {column.example}.", node)
                truth = _truth(column.data, column.known)
            case _:
                problem = "a condition is expected; missing(), the only function, takes one column."
                self._refuse(problem, node)
        return truth

    def _compare(self, left: ast.expr, symbol: ast.cmpop, right: ast.expr) -> Truth:
        if isinstance(symbol, ast.In | ast.NotIn):
            return self._member(left, right, invert=isinstance(symbol, ast.NotIn))
        sides, compare = (left, right), _OPERATORS[type(symbol)]
        columns = [self._column(side) for side in sides if isinstance(side, ast.Name)]
        if not columns:
            self._refuse("a column is expected on one side of a comparison.", *sides)
        first, last = columns[0], columns[-1]
        if first.kind != last.kind:
            self._refuse(f"{first} and {last}: they cannot be compared.", *sides)
        ordered = not isinstance(symbol, ast.Eq | ast.NotEq)
        operands = [
            self._column(side).data
            if isinstance(side, ast.Name)
            else self._value(side, first, ordered)
            for side in sides
        ]
        if ordered and first.kind in {"text", "boolean"}:
            self._refuse(f"{first}, which has no order: use ==, != or in.", *sides)
        if ordered and first.vocabulary and len(columns) == 1:
            possible = np.array([first.operand(value) for value in first.vocabulary])
            if not compare(*(possible if part is first.data else part for part in operands)).any():
                problem = f"nothing that {first.name} can hold satisfies this. {first.choices}"
                self._refuse(problem, *sides)
        return _truth(compare(*operands), first.known & last.known)

    def _member(self, left: ast.expr, values: ast.expr, *, invert: bool) -> Truth:
        if not isinstance(left, ast.Name):
            self._refuse("a column is expected before in.", left)
        if not isinstance(values, ast.List | ast.Tuple) or not values.elts:
            self._refuse("a list of values is expected after in, such as ['T12', 'L1'].", values)
        column = self._column(left)
        wanted = [self._value(v, column, ordered=False) for v in values.elts]
        held = pd.Index(column.data).isin(wanted)
        return _truth(held ^ invert, column.known)

    def _definition(self, node: ast.Attribute) -> ast.expr:
        name = self.line[slice(*_span(self.line, node))]
        if name not in DEFINITIONS:
            known = f"{_nearest(name, DEFINITIONS)} Definitions: {', '.join(DEFINITIONS)}."
            self._refuse(f"there is no definition {name}.{known}", node)
        condition = ast.parse(DEFINITIONS[name].expression, mode="eval").body
        for part in ast.walk(condition):
            # Errors point at the name that the user wrote.
            ast.copy_location(part, node)
        return condition

    def _column(self, node: ast.Name, *, compared: bool = True) -> _Column:
        if node.id not in self.columns:
            self.columns[node.id] = self._find(node)
        column = self.columns[node.id]
        if compared and column.kind == "other":
            self._refuse(f"{column}.", node)
        return column

    def _find(self, node: ast.Name) -> _Column:
        if self._table is None:
            return _Column(node.id, "any", np.zeros(0, bool), np.zeros(0, bool))
        name, names = node.id, {str(column): column for column in self._table.columns}
        if name not in names:
            problem = f"this table has no column {name}.{_hint(name, names)}"
            self._refuse(f"{problem} Columns: {', '.join(names)}.", node)
        column: Any = self._table[names[name]]
        if isinstance(column, pd.DataFrame):
            raise UsageError(f"There are several columns named {name}: rename them to query it.")
        return _read(name, column)

    def _value(self, node: ast.expr, column: _Column, ordered: bool) -> Any:  # noqa: FBT001
        """Return a value in the form of the column's data; refuse one that no row can hold."""
        try:
            value = ast.literal_eval(node)
        except ValueError:
            value = None
        kind = _KIND_OF.get(type(value).__name__)
        if kind is None:
            hint = f"write texts in quotes: {getattr(node, 'id', '')!r}."
            other = "a column or a plain value is expected here; lists stand after in."
            self._refuse(hint if isinstance(node, ast.Name) else other, node)
        if kind == "number" and not abs(value) <= _MAX_NUMBER:
            self._refuse("the number is too large.", node)
        if column.kind == "any":
            return False
        if kind != ("text" if column.kind == "level" else column.kind):
            example = f"write, for example, {column.example}."
            self._refuse(f"{column}, and {value!r} is not: {example}", node)
        # In an inequality, a number need not be in the vocabulary.
        closed = column.vocabulary and not (ordered and kind == "number")
        if closed and value not in column.vocabulary:
            guess = "" if kind == "number" else _nearest(value, map(str, column.vocabulary))
            self._refuse(f"{value!r} is no value of {column.name}.{guess} {column.choices}", node)
        return column.operand(value)

    def _refuse(self, problem: str, first: ast.expr, last: ast.expr | None = None) -> NoReturn:
        _refuse(self.line, *_span(self.line, first, last), problem)


def _truth(outcome: Any, known: Mask) -> Truth:
    truth: Truth = np.where(outcome, np.int8(1), np.int8(-1)) * known
    return truth


def _read(name: str, column: pd.Series) -> _Column:
    category = isinstance(column.dtype, pd.CategoricalDtype)
    words: Any = column.cat.categories if category else column
    # The kind follows from the type of the column, or else from its values.
    kind = _KIND_OF.get(column.dtype.kind) or _KIND_OF.get(infer_dtype(words, skipna=True), "other")
    known = column.notna().to_numpy(dtype=bool)
    vocabulary = _documented().get((name, kind), ())
    if vocabulary:
        # A table of the user's may hold other values in a column of the same name.
        held = set(words.dropna().unique().tolist())
        vocabulary = (*vocabulary, *sorted(held - set(vocabulary)))
    if kind == "other":
        return _Column(name, kind, known, known)
    if kind != "text":
        data = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return _Column(name, kind, data, ~np.isnan(data), vocabulary)
    codes, texts = (column.cat.codes.to_numpy(), words) if category else pd.factorize(column)
    if name == "level" or (category and column.cat.ordered and set() < {*words} <= {*LEVELS}):
        indices = np.array([*map(_INDEX.get, texts), None], dtype=np.float64)[codes]
        return _Column(name, "level", indices, ~np.isnan(indices), LEVELS)
    return _Column(name, kind, np.array([*texts, ""], dtype=object)[codes], known, vocabulary)


@cache
def _documented() -> dict[tuple[str, str], tuple[Value, ...]]:
    """Return the vocabulary of each documented column that has one, by name and kind."""
    documented = [column for table in MODELS for column in columns(table)]
    texts = {(column.name, "text"): column.categories for column in documented if column.categories}
    numbers = {(column.name, "number"): column.numbers for column in documented if column.numbers}
    return {**texts, **numbers}


def _hint(name: str, names: Iterable[str]) -> str:
    """Return a hint for a name that is not a column of the table, or ``""``."""
    table = next((t for t in MODELS if name in {column.name for column in columns(t)}), None)
    if table:
        return f" The table of {table} has it: load_table({table!r}, where=…), or --table {table}."
    if any(name in texts for texts in (LEVELS, *_documented().values())):
        return f" Texts stand in quotes: {name!r}."
    return _nearest(name, [*names, *DEFINITIONS])


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return a question with the `known` name of the most similar spelling, or ``""``."""
    folded = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1)
    return f" Did you mean {folded[found[0]]}?" if found else ""
