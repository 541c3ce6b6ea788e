"""What may stand in a cell of the grading workbook: one strict parser a column, and no coercion."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from verse_data.records.grading import SPLIT_OF_DATASET
from verse_data.records.names import Split
from verse_data.tables.workbook_sheet import Cell

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,17})?")
_SERIES: Final = re.compile(r"([1-9]) of ([1-9])")
_COUNT: Final = re.compile(r'=COUNTIF\(\$?M\$?([0-9]+):\$?AD\$?\1,\s*"(x|>0)"\)')


Parse = Callable[[Cell | None], Any]
"""Returns the value of a cell, or raises `Bad`."""


class Bad(Exception):
    """A cell breaks the rule of its column; the text is the rule."""


def _number(cell: Cell | None) -> float:
    """Return the number in a cell; a CSV field must be a plain decimal number."""
    if cell is None:
        raise Bad("the cell is empty, and a number is needed")
    if cell.kind == "raw" and _NUMBER.fullmatch(cell.value):
        return float(cell.value)
    if cell.kind != "number":
        kinds = {
            "raw": "is not a plain number",
            "text": "is text",
            "boolean": "is a truth value",
            "formula": "is a formula",
            "error": "is an error value",
            "date": "is a date",
            "odd": "is not a plain number",
        }
        raise Bad(f"{kinds[cell.kind]} where a number is needed")
    value = float(cell.value)
    if not math.isfinite(value):
        raise Bad("is not a finite number")
    return value


def _whole(cell: Cell | None) -> int:
    value = _number(cell)
    if value != int(value) or math.copysign(1, value) < 0 == value:
        raise Bad("is not a whole number")
    return int(value)


def _one_of(*allowed: int) -> Callable[[Cell | None], int]:
    def parse(cell: Cell | None) -> int:
        value = _whole(cell)
        if value not in allowed:
            raise Bad(f"is not one of {allowed[0]} to {allowed[-1]}")
        return value

    return parse


def _in_range(low: float, high: float) -> Callable[[Cell | None], float]:
    def parse(cell: Cell | None) -> float:
        value = _number(cell)
        if not low <= value <= high:
            raise Bad(f"is not within {low:g} to {high:g}")
        return value

    return parse


def _identifier(cell: Cell | None) -> str:
    value = _whole(cell)
    if not 1 <= value <= 999:
        raise Bad("is not a number from 1 to 999")
    return f"verse{value:03d}"


def _text(cell: Cell | None) -> str:
    if cell is None or cell.kind not in {"text", "raw"}:
        raise Bad("a text is needed")
    return str(cell.value)


def _split(cell: Cell | None) -> Split:
    word = _text(cell)
    if word not in SPLIT_OF_DATASET:
        raise Bad(f"is not one of {', '.join(map(repr, SPLIT_OF_DATASET))}")
    return SPLIT_OF_DATASET[word]


def k_of_n(cell: Cell | None) -> tuple[int, int]:
    """Return the numbers of ``'1 of 2'``."""
    match = _SERIES.fullmatch(_text(cell))
    if match is None:
        raise Bad("is not of the form '1 of 2'")
    return int(match[1]), int(match[2])


def _t_score(cell: Cell | None) -> float | None:
    if cell and cell.kind in {"text", "raw"} and cell.value == "n/a":
        return None
    try:
        return _in_range(-10, 10)(cell)
    except Bad as bad:
        raise Bad(f"{bad}; or write n/a") from None


def _count(what: str) -> Callable[[Cell | None], int | None]:
    """Parse a count: the workbook's own formula, which is recomputed, or a number, or nothing."""

    def parse(cell: Cell | None) -> int | None:
        if cell is None:
            return None
        if cell.kind in {"formula", "raw"} and (match := _COUNT.fullmatch(cell.value)):
            if match[2] == what:
                return None
            raise Bad(f"counts {match[2]!r} where {what!r} is to be counted")
        if cell.kind == "formula":
            raise Bad("is a formula other than the workbook's own COUNTIF")
        return _one_of(*range(19))(cell)

    return parse


def counted_row(cell: Cell | None) -> int | None:
    """Return the row whose grades a formula of the workbook counts; None if it is no such formula."""
    match = _COUNT.fullmatch(cell.value) if cell and cell.kind == "formula" else None
    return int(match[1]) if match else None


def mark(cell: Cell | None) -> int | str | None:
    """Return the grade or shape code in a cell, ``"x"``, or None for not assessed."""
    if cell is None:
        return None
    if cell.kind in {"text", "raw"} and cell.value == "x":
        return "x"
    rule = "only 0, 1, 2, 3, x or an empty cell may stand here"
    try:
        return _one_of(0, 1, 2, 3)(cell)
    except Bad as bad:
        plain = cell.kind in {"number", "text", "raw"}
        raise Bad(rule if plain else f"{bad}; {rule}") from None


FIELDS: Final[tuple[tuple[str, str, Parse], ...]] = (
    ("series_id", "verse_ID", _identifier),
    ("subject_id", "subject_ID", _identifier),
    ("split", "dataset", _split),
    ("age_years", "age_ct", _in_range(0.5, 120)),
    ("ct_device", "CT_device", _one_of(1, 2, 3, 4, 5)),
    ("resolution_mm", "Res", _in_range(0.1, 10)),
    ("bmd_mg_cm3", "BMD", _in_range(0, 600)),
    ("t_score", "DXA T-value", _t_score),
    ("n_vertebrae", "N_vertebrae", _one_of(*range(1, 27))),
    ("foreign_material", "foreign_material", _count("x")),
    ("n_fractures", "N_Fx", _count(">0")),
)
"""Field of the record, heading of the column, and what may stand there."""
