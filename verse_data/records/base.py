"""Base class of all records (strict, frozen, no unknown fields, no NaN); strict readers of JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from verse_data.errors import ValidationFailed
from verse_data.problems import Problem, raise_problems, shown

LIMIT_BYTES: Final = 8 << 20
_AS_CSV: Final = (
    "Export it again as CSV UTF-8, with commas between fields and decimal points in numbers."
)
_OBJECT: Final = "must be an object with fields"
_RULES: Final = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "string_pattern_mismatch": "must have the form {pattern}",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have {max_length} characters at most",
    "too_short": "must have {min_length} entries or more, and has {actual_length}",
    "too_long": "must have {max_length} entries at most",
    "json_invalid": "is not JSON: {error}",
    "value_error": "{error}",
}
"""The broken rule in plain words, for each Pydantic error type that our models can raise."""


class Record(BaseModel):
    """Base of every model: no coercion, no mutation, no unknown fields, no NaN."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


def described(description: str, source: str, **extra: Any) -> Any:
    """Return the Pydantic field of a record: its meaning, and the file it comes from.

    Optional: `unit`; `dtype` of the column, where the annotation does not determine it; `words`,
    the known values of an open category; and limits for Pydantic, such as ``ge=0``.
    """
    for_schema: dict[str, Any] = {"source": source}
    for_schema |= {key: extra.pop(key) for key in ("unit", "dtype", "words") if key in extra}
    return Field(description=description, json_schema_extra=for_schema, **extra)


def rule_of(problem: ErrorDetails) -> str:
    """Return the rule that a value breaks, worded to follow the name of its field."""
    rule = _RULES.get(problem["type"])
    return problem["msg"] if rule is None else rule.format_map(problem.get("ctx", {}))


def rules_of(error: ValidationError, *, joint: str = "; ") -> str:
    """Return the rules that a record breaks, each after the name of its field, without values."""
    problems = error.errors(include_url=False, include_input=False)
    lines = [f"{'.'.join(map(str, p['loc']))[:60] or 'all'}: {rule_of(p)}" for p in problems]
    return joint.join(shown(lines))


def read_json(data: bytes, *, name: str, allow_nan: bool = False, limit: int = LIMIT_BYTES) -> Any:
    """Return the value of UTF-8 `data`, or raise ValidationFailed with `name` and place.

    Duplicate keys and infinite numbers are errors. With `allow_nan`, the word ``NaN``, which is not
    JSON but occurs in published centroid files, is read as a missing number.
    """
    if len(data) > limit:
        raise ValidationFailed(
            f"{name}: {len(data):,} bytes of JSON are over the limit of {limit:,}."
        )

    def parse_number(word: str) -> float:
        value = float(word)
        if math.isinf(value):
            raise ValueError(f"the number {word[:40]} is too large")
        return value

    def parse_constant(word: str) -> float:
        if allow_nan and word == "NaN":
            return math.nan
        raise ValueError(f"{word} is not a number of JSON")

    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_unique_keys,
            parse_constant=parse_constant,
            parse_float=parse_number,
        )
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is {data[error.start]:#04x}"
        raise ValidationFailed(f"{name}: not UTF-8: {found}.") from None
    except (ValueError, RecursionError) as error:
        raise ValidationFailed(f"{name}: not JSON: {str(error)[:200]}.") from None


def read_csv(data: bytes, *, name: str) -> list[tuple[int, list[str]]]:
    """Return number and fields of each filled row of UTF-8 `data`, first the heading, or raise.

    All rows have as many fields as the heading, which is two or more.
    """
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, fields) for fields in reader if any(fields)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValidationFailed(f"{name}: not a CSV file in UTF-8: {error}. {_AS_CSV}") from None
    if not rows:
        raise ValidationFailed(f"{name}: the file is empty. {_AS_CSV}")
    heading = rows[0][1]
    if len(heading) < 2:
        signs = {";": ", but semicolons", "\t": ", but tabs"}
        found = next((words for sign, words in signs.items() if sign in heading[0]), "")
        why = f"there is no comma between fields{found}"
        raise ValidationFailed(f"{name}, row 1: {why}. {_AS_CSV}")
    if len(rows) == 1:
        raise ValidationFailed(f"{name}: no row below the heading. Fill it in, or leave it out.")
    uneven = [
        Problem(
            file=name, row=row, rule=f"{len(fields)} fields where the heading has {len(heading)}"
        )
        for row, fields in rows
        if len(fields) != len(heading)
    ]
    raise_problems(uneven, what=name, then="Export it again; a text with a comma needs quotes.")
    return rows


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} occurs twice in one object")
    return value
