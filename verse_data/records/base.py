"""What all records share: strict, frozen, no unknown fields, no NaN; and fields that say what they are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


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
