"""JSON as it was meant: UTF-8, each key once, no infinities, and no larger than a limit."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from verse_data.errors import ValidationFailed

LIMIT_BYTES: Final = 8 << 20


def read_json(data: bytes, *, name: str, allow_nan: bool = False, limit: int = LIMIT_BYTES) -> Any:
    """Return the value that `data` holds.

    Parameters
    ----------
    data : bytes
        UTF-8, with or without a byte order mark.
    name : str
        What the errors call the file.
    allow_nan : bool
        Whether the word ``NaN``, which is not JSON, is read as a missing number. Centroid files in
        the wild contain it.
    limit : int
        Largest accepted size in bytes.

    Raises
    ------
    ValidationFailed
        If `data` is no such JSON; the text names file and place.
    """
    if len(data) > limit:
        raise ValidationFailed(
            f"{name}: {len(data):,} bytes of JSON are over the limit of {limit:,}."
        )
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_once,
            parse_constant=_nan if allow_nan else _no_constant,
            parse_float=_finite,
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


def _nan(word: str) -> float:
    return math.nan if word == "NaN" else _no_constant(word)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number of JSON")


def _finite(word: str) -> float:
    value = float(word)
    if math.isinf(value):
        raise ValueError(f"the number {word[:40]} is too large")
    return value
