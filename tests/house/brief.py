"""Making what was found small enough to commit, and saying readably where two records differ."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

_WHOLE = 500
"""What is written in fewer characters is kept as it is; half of that one level deeper, and so on."""
_MANY = 120
_DEEP = 3
_HEX = re.compile(r"[0-9a-f]{64}")
_SHORT = 12


def written(value: Any) -> str:
    """Return a value as JSON on one line, sorted."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of a text, or of a value as JSON."""
    text = value if isinstance(value, str) else written(value)
    return hashlib.sha256(text.encode()).hexdigest()


def brief(value: Any, depth: int = 0) -> Any:
    """Return `value` if it is short; else what is in it, its first part, and digests of all parts."""
    if len(written(value)) <= _WHOLE >> depth:
        return value
    if isinstance(value, str):
        lines = value.splitlines()
        return {"lines": len(lines), "first": lines[0][:_WHOLE], "sha256": digest(value)}
    if isinstance(value, list):
        first = brief(value[0], depth + 1)
        return {"items": len(value), "first": first, "sha256": _parts(value)}
    return _of_keys(value, depth) if isinstance(value, dict) else value


def _of_keys(value: dict[str, Any], depth: int) -> dict[str, Any]:
    if all(_HEX.fullmatch(str(part)) for part in value.values()):
        return {key: digest[:_SHORT] for key, digest in value.items()}
    if depth >= _DEEP or len(value) > _MANY // 3:
        parts = [[key, value[key]] for key in sorted(value)]
        return {"keys": len(value), "sha256": _parts(parts)}
    return {key: brief(part, depth + 1) for key, part in value.items()}


def _parts(values: list[Any]) -> str:
    """Return the digest of each part, so that it is seen which differs; of many parts one for all."""
    if len(values) > _MANY:
        return digest(values)
    return " ".join(digest(value)[:_SHORT] for value in values)


def differences(expected: Any, got: Any, where: str = "") -> Iterator[str]:
    """Yield a line for each place where two records differ."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in sorted(expected.keys() | got.keys()):
            place = f"{where} → {key}" if where else str(key)
            if key not in got:
                yield f"{place}\n    expected {_short(expected[key])}\n    got      nothing"
            elif key not in expected:
                yield f"{place}\n    expected nothing\n    got      {_short(got[key])}"
            else:
                yield from differences(expected[key], got[key], place)
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for number, (one, other) in enumerate(zip(expected, got, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif expected != got or type(expected) is not type(got):
        yield f"{where}\n    expected {_short(expected)}\n    got      {_short(got)}"


def _short(value: Any) -> str:
    text = written(value)
    return text if len(text) <= _WHOLE else f"{text[:_WHOLE]} … {digest(value)[:_SHORT]}"
