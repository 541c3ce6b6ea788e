"""Queries against an oracle that walks the table row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from verse_data.spine.levels import LEVELS
from verse_data.tables.query import matches

SPLITS = ("training", "validation", "test")
Node = tuple[Any, ...]

NUMBERS = {"grade": st.integers(0, 3), "bmd_mg_cm3": st.sampled_from([0.0, 80.5, 120.0])}
WORDS = {
    "split": st.sampled_from(SPLITS),
    "scan_id": st.sampled_from(["verse004", "verse005", "gl003"]),
}
LEVEL = st.sampled_from(LEVELS)
CLOSED: dict[str, Sequence[Any]] = {"grade": range(4), "level": LEVELS}
ORDERED = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
EQUAL = st.sampled_from(["==", "!="])


def rows() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return tables as lists of rows; every column but the id may be missing."""
    return st.lists(
        st.fixed_dictionaries(
            {
                "scan_id": WORDS["scan_id"],
                "split": st.none() | WORDS["split"],
                "level": st.none() | LEVEL,
                "grade": st.none() | NUMBERS["grade"],
                "bmd_mg_cm3": st.none() | NUMBERS["bmd_mg_cm3"],
                "foreign_material": st.none() | st.booleans(),
            }
        ),
        max_size=12,
    )


def leaves() -> st.SearchStrategy[Node]:
    """Return conditions without parts."""
    number = st.sampled_from(sorted(NUMBERS))
    value = st.integers(-1, 4) | st.sampled_from([0.5, 80.5, -1.5])
    columns = st.sampled_from([*NUMBERS, *WORDS, "level", "foreign_material"])
    return st.one_of(
        st.tuples(st.just("compare"), number, ORDERED, value),
        st.tuples(st.just("reversed"), value, ORDERED, number),
        st.tuples(st.just("chain"), value, ORDERED, number, ORDERED, value),
        st.tuples(st.just("compare"), st.just("level"), ORDERED, LEVEL),
        st.tuples(st.just("chain"), LEVEL, ORDERED, st.just("level"), ORDERED, LEVEL),
        st.sampled_from(sorted(WORDS)).flatmap(
            lambda name: st.tuples(st.just("compare"), st.just(name), EQUAL, WORDS[name])
        ),
        st.tuples(st.just("columns"), number, ORDERED, number),
        st.tuples(st.just("in"), st.just("level"), st.lists(LEVEL, min_size=1, max_size=4)),
        st.tuples(st.just("not in"), number, st.lists(value, min_size=1, max_size=4)),
        st.tuples(st.just("not in"), st.just("split"), st.lists(WORDS["split"], min_size=1)),
        st.tuples(st.just("in"), st.just("scan_id"), st.lists(WORDS["scan_id"], min_size=1)),
        st.tuples(st.just("flag"), st.just("foreign_material")),
        st.tuples(st.just("compare"), st.just("foreign_material"), EQUAL, st.booleans()),
        st.tuples(st.just("missing"), columns),
        st.tuples(st.just("defined"), st.sampled_from([1, 2])),
    ).filter(makes_sense)


def makes_sense(node: Node) -> bool:
    """Tell whether a column with a closed vocabulary could satisfy each comparison of a leaf."""
    match node:
        case ("compare", name, operator, value) if name in CLOSED:
            held = operator in {"<", "<=", ">", ">="} or value in CLOSED[name]
            return held and any(compared(known, operator, value) for known in CLOSED[name])
        case ("reversed", value, operator, name) if name in CLOSED:
            held = operator in {"<", "<=", ">", ">="} or value in CLOSED[name]
            return held and any(compared(value, operator, known) for known in CLOSED[name])
        case ("chain", low, first, name, second, high):
            return makes_sense(("reversed", low, first, name)) and makes_sense(
                ("compare", name, second, high)
            )
        case ("not in", name, values) if name in CLOSED:
            return set(values) <= set(CLOSED[name])
    return True


def conditions() -> st.SearchStrategy[Node]:
    """Return conditions with and, or, not."""
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.tuples(st.just("not"), inner),
            st.tuples(st.sampled_from(["and", "or"]), inner, inner),
            st.tuples(st.sampled_from(["and", "or"]), inner, inner, inner),
        ),
        max_leaves=8,
    )


def written(node: Node) -> str:  # noqa: C901, PLR0911 - one case a form
    """Return the condition as a query, with parentheses around every part."""
    match node:
        case ("compare", name, operator, value):
            return f"{name} {operator} {value!r}"
        case ("reversed", value, operator, name):
            return f"{value!r} {operator} {name}"
        case ("chain", low, first, name, second, high):
            return f"{low!r} {first} {name} {second} {high!r}"
        case ("columns", left, operator, right):
            return f"{left} {operator} {right}"
        case (("in" | "not in") as word, name, values):
            return f"{name} {word} {values!r}"
        case ("flag", name):
            return str(name)
        case ("missing", name):
            return f"missing({name})"
        case ("defined", least):
            return "fracture.any" if least == 1 else "fracture.moderate"
        case ("not", part):
            return f"not ({written(part)})"
        case (word, *parts):
            return f" {word} ".join(f"({written(part)})" for part in parts)


def compared(left: Any, operator: str, right: Any) -> bool | None:
    """Compare two values; None if one is missing; levels by their place along the spine."""
    if left is None or right is None:
        return None
    if left in LEVELS and right in LEVELS:
        left, right = LEVELS.index(left), LEVELS.index(right)
    return {
        "==": left == right,
        "!=": left != right,
        "<": left < right if operator == "<" else None,
        "<=": left <= right if operator == "<=" else None,
        ">": left > right if operator == ">" else None,
        ">=": left >= right if operator == ">=" else None,
    }[operator]


def together(word: str, answers: list[bool | None]) -> bool | None:
    """Join answers by Kleene's rules."""
    decisive = word == "or"
    if decisive in answers:
        return decisive
    return None if None in answers else not decisive


def answer(node: Node, row: dict[str, Any]) -> bool | None:  # noqa: C901, PLR0911 - one case a form
    """Return what the condition is for one row: true, false, or unknown."""
    match node:
        case ("compare", name, operator, value):
            return compared(row[name], operator, value)
        case ("reversed", value, operator, name):
            return compared(value, operator, row[name])
        case ("chain", low, first, name, second, high):
            parts = [compared(low, first, row[name]), compared(row[name], second, high)]
            return together("and", parts)
        case ("columns", left, operator, right):
            return compared(row[left], operator, row[right])
        case ("in", name, values):
            return None if row[name] is None else row[name] in values
        case ("not in", name, values):
            return None if row[name] is None else row[name] not in values
        case ("flag", name):
            return row[name]
        case ("missing", name):
            return row[name] is None
        case ("defined", least):
            return compared(row["grade"], ">=", least)
        case ("not", part):
            inner = answer(part, row)
            return None if inner is None else not inner
        case (word, *parts):
            return together(word, [answer(part, row) for part in parts])


def as_table(content: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a table with the documented types."""
    names = ["scan_id", "split", "level", "grade", "bmd_mg_cm3", "foreign_material"]
    table = pd.DataFrame(content, columns=names, dtype=object)
    kinds = {"grade": "Int8", "bmd_mg_cm3": "Float64", "foreign_material": "boolean"}
    table = table.astype({**kinds, "scan_id": "string"})
    table["level"] = pd.Categorical(table["level"], LEVELS, ordered=True)
    table["split"] = pd.Categorical(table["split"], SPLITS)
    return table


@settings(max_examples=400, deadline=None)
@given(content=rows(), condition=conditions())
def test_masks_equal_the_row_by_row_oracle(content: list[dict[str, Any]], condition: Node) -> None:
    """Every condition selects exactly the rows for which a plain reading of it is true."""
    found = matches(as_table(content), written(condition)).tolist()

    assert found == [answer(condition, row) is True for row in content]
