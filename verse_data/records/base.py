"""What all records share: strict, frozen, no unknown fields, no NaN; and fields that say what they are."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

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
    "dict_type": "must be an object with fields",
    "model_type": "must be an object with fields",
    "model_attributes_type": "must be an object with fields",
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


def described(
    description: str,
    *,
    source: str,
    unit: str | None = None,
    dtype: str | None = None,
    words: tuple[str, ...] | None = None,
    **rules: Any,
) -> Any:
    """Return the description of a field, for use in ``Annotated``.

    Parameters
    ----------
    description : str
        What the value means.
    source : str
        Which file or step it comes from.
    unit : str, optional
        Unit of a quantity.
    dtype : str, optional
        Type of the column in the tables, where it does not follow from the annotation.
    words : tuple of str, optional
        Known values of a category whose vocabulary is not closed; a literal type says its own.
    **rules
        Limits that Pydantic checks, such as ``ge=0``.
    """
    extra = {"source": source, "unit": unit, "dtype": dtype, "words": words}
    kept: dict[str, Any] = {key: value for key, value in extra.items() if value is not None}
    return Field(description=description, json_schema_extra=kept, **rules)


def rule_of(problem: ErrorDetails) -> str:
    """Return the rule that a value breaks, in words that fit after the name of its field."""
    rule = _RULES.get(problem["type"])
    return problem["msg"] if rule is None else rule.format_map(problem.get("ctx", {}))


def rules_of(error: ValidationError) -> str:
    """Return every rule that a record breaks, each after the name of its field."""
    problems = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, p['loc'])) or 'it'} {rule_of(p)}" for p in problems)
