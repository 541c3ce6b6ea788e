"""From the text of a query to its conditions, by an allow-list over Python's syntax tree."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Final, cast

from verse_data.tables import query_nodes as nodes
from verse_data.tables.definitions import DEFINITIONS
from verse_data.tables.query_text import MAX_NODES, QueryText, Span, nearest

_OPERATORS: Final[dict[type[ast.cmpop], nodes.Operator]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_BIGGEST: Final = 2.0**53  # beyond it, float64 no longer tells whole numbers apart


@lru_cache(maxsize=256)
def parse_cached(where: str) -> tuple[QueryText, nodes.Condition]:
    """Return what `where` says, without parsing it again when it was asked before.

    Both results are read-only. Refusals are not kept.
    """
    text = QueryText(where)
    return text, parse(text)


def parse(text: QueryText) -> nodes.Condition:
    """Return the condition that `text` says.

    Raises
    ------
    QueryRefused
        If it is not well-formed, uses anything beyond the query language, or is too large.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: QueryText) -> None:
        self._text = text
        self._lead = len(text.text) - len(text.text.lstrip())
        self._source = text.text.strip()
        self._nodes = 0

    def parse(self) -> nodes.Condition:
        try:
            tree = ast.parse(self._source, mode="eval")
        except SyntaxError as error:
            # Python gives no place where the text ends before the expression does.
            if not error.offset or error.offset > len(self._source):
                at = self._lead + len(self._source)
                self._text.refuse(
                    Span(at, at + 1), "the query stops too early; something is missing here."
                )
            at = self._lead + error.offset - 1
            self._text.refuse(
                Span(at, at + 1), "the query cannot go on like this here, or stops too early."
            )
        except (ValueError, RecursionError, MemoryError, OverflowError):
            self._text.refuse(Span(0, 1), "the query cannot be parsed.")
        return self._condition(tree.body)

    def _span(self, node: ast.expr) -> Span:
        # Python counts UTF-8 bytes; texts in quotes may hold more than ASCII.
        raw = self._source.encode()
        start, end = (len(raw[:at].decode()) for at in (node.col_offset, node.end_col_offset or 0))
        return Span(self._lead + start, self._lead + end)

    def _count(self, node: ast.expr) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._text.refuse(
                self._span(node), f"more than {MAX_NODES} columns, values and conditions."
            )

    def _condition(self, node: ast.expr) -> nodes.Condition:
        self._count(node)
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                found: nodes.Condition = nodes.AllOf(
                    tuple(self._condition(value) for value in values)
                )
            case ast.BoolOp(op=ast.Or(), values=values):
                found = nodes.AnyOf(tuple(self._condition(value) for value in values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                found = nodes.Not(self._condition(operand))
            case ast.Compare(ops=[ast.In() | ast.NotIn()]):
                found = self._member(node)
            case ast.Compare():
                found = self._chain(node)
            case ast.Call():
                found = self._missing(node)
            case ast.Attribute():
                found = self._defined(node)
            case ast.Name():
                found = nodes.Flag(self._column(node))
            case _:
                problem = (
                    "a condition is expected here: a comparison, 'in', a true/false column, "
                    "missing(column) or a definition."
                )
                self._text.refuse(self._span(node), problem)
        return found

    def _chain(self, node: ast.Compare) -> nodes.Condition:
        operators = [_OPERATORS.get(type(operator)) for operator in node.ops]
        if None in operators:
            self._text.refuse(
                self._span(node), "'in' cannot be part of a chain; join two conditions with and."
            )
        sides = [self._side(side) for side in (node.left, *node.comparators)]
        pairs = zip(sides, cast("list[nodes.Operator]", operators), sides[1:], strict=False)
        parts = tuple(self._compare(left, operator, right) for left, operator, right in pairs)
        return parts[0] if len(parts) == 1 else nodes.AllOf(parts)

    def _compare(
        self,
        left: nodes.Column | nodes.Constant,
        operator: nodes.Operator,
        right: nodes.Column | nodes.Constant,
    ) -> nodes.Compare:
        span = Span(left.span.start, right.span.end)
        if isinstance(left, nodes.Constant) and isinstance(right, nodes.Constant):
            self._text.refuse(span, "two values are compared here, and no column.")
        return nodes.Compare(left, operator, right, span)

    def _side(self, node: ast.expr) -> nodes.Column | nodes.Constant:
        self._count(node)
        if isinstance(node, ast.Name):
            return self._column(node)
        if isinstance(node, ast.List | ast.Tuple):
            self._text.refuse(self._span(node), "a list stands only after in.")
        return self._constant(node)

    def _column(self, node: ast.Name) -> nodes.Column:
        return nodes.Column(node.id, self._span(node))

    def _constant(self, node: ast.expr) -> nodes.Constant:
        span = self._span(node)
        match node:
            case ast.Constant(value=bool() | str() as value):
                return nodes.Constant(value, span)
            case ast.Constant(value=int() | float() as value):
                sign = 1
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                sign = -1
            case _:
                self._text.refuse(span, "a column or a plain value is expected here.")
        if isinstance(value, bool):
            self._text.refuse(span, "True and False have no sign.")
        if not abs(value) <= _BIGGEST:
            self._text.refuse(span, "the number is too large.")
        return nodes.Constant(sign * value, span)

    def _member(self, node: ast.Compare) -> nodes.Condition:
        left, right = node.left, node.comparators[0]
        if not isinstance(left, ast.Name):
            self._text.refuse(self._span(left), "a column is expected before in.")
        if not isinstance(right, ast.List | ast.Tuple) or not right.elts:
            self._text.refuse(
                self._span(right), "a list of values is expected after in, such as ['T12', 'L1']."
            )
        for element in right.elts:
            self._count(element)
        member = nodes.Member(
            self._column(left), tuple(self._constant(value) for value in right.elts)
        )
        return nodes.Not(member) if isinstance(node.ops[0], ast.NotIn) else member

    def _missing(self, node: ast.Call) -> nodes.Missing:
        if not isinstance(node.func, ast.Name) or node.func.id != "missing":
            self._text.refuse(
                self._span(node.func), "missing(column) is the only function of the query language."
            )
        if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Name):
            self._text.refuse(self._span(node), "missing() takes one column.")
        return nodes.Missing(self._column(node.args[0]))

    def _defined(self, node: ast.Attribute) -> nodes.Defined:
        span = self._span(node)
        name = self._text.text[span.start : span.end]
        if name not in DEFINITIONS:
            problem = f"there is no definition {name}. {nearest(name, DEFINITIONS)}Definitions: {', '.join(DEFINITIONS)}."
            self._text.refuse(span, problem)
        return nodes.Defined(name, span, parse(QueryText(DEFINITIONS[name].expression)))
