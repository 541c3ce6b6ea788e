"""What all records share: strict, frozen, no unknown fields, no NaN; and JSON as strictly read."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from verse_data.errors import ValidationFailed
from verse_data.problems import shown

LIMIT_BYTES: Final = 8 << 20
_OBJECT: Final = "must be an object with fields"
_RULES: Final = {
    "missing": "is missing",
    "extra_forbidden": "is not a field that is known here",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
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
    "json_invalid": "is no JSON: {error}",
    "value_error": "{error}",
}
"""Of each kind of error that Pydantic knows and our models have: what the rule is, in plain words."""


class Record(BaseModel):
    """Base of every model: nothing is coerced, changed later, or accepted without a name."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


def described(description: str, source: str, **extra: Any) -> Any:
    """Return the description of a field for ``Annotated``: its meaning, and the file it comes from.

    Also `unit`; `dtype` of the column, where the annotation does not say it; `words`, the known
    values of a category whose vocabulary is not closed; and limits for Pydantic, such as ``ge=0``.
    """
    kept: dict[str, Any] = {"source": source}
    kept |= {key: extra.pop(key) for key in ("unit", "dtype", "words") if key in extra}
    return Field(description=description, json_schema_extra=kept, **extra)


def rule_of(problem: ErrorDetails) -> str:
    """Return the rule that a value breaks, in words that fit after the name of its field."""
    rule = _RULES.get(problem["type"])
    return problem["msg"] if rule is None else rule.format_map(problem.get("ctx", {}))


def rules_of(error: ValidationError, *, joint: str = "; ") -> str:
    """Return the rules that a record breaks, each after the name of its field, and no value."""
    problems = error.errors(include_url=False, include_input=False)
    lines = [f"{'.'.join(map(str, p['loc']))[:60] or 'all'}: {rule_of(p)}" for p in problems]
    return joint.join(shown(lines))


def read_json(data: bytes, *, name: str, allow_nan: bool = False, limit: int = LIMIT_BYTES) -> Any:
    """Return the value of UTF-8 `data`, or raise ValidationFailed with `name` and place.

    Each key is there once, and no number is infinite; `allow_nan` reads the word ``NaN``, which is
    not JSON, as a missing number. Centroid files in the wild contain it.
    """
    if len(data) > limit:
        raise ValidationFailed(
            f"{name}: {len(data):,} bytes of JSON are over the limit of {limit:,}."
        )

    def number(word: str) -> float:
        value = float(word)
        if math.isinf(value):
            raise ValueError(f"the number {word[:40]} is too large")
        return value

    def constant(word: str) -> float:
        if allow_nan and word == "NaN":
            return math.nan
        raise ValueError(f"{word} is not a number of JSON")

    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_once,
            parse_constant=constant,
            parse_float=number,
        )
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is {data[error.start]:#04x}"
        raise ValidationFailed(f"{name}: not UTF-8: {found}.") from None
    except (ValueError, RecursionError) as error:
        raise ValidationFailed(f"{name}: not JSON: {str(error)[:200]}.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} occurs twice in one object")
    return value
