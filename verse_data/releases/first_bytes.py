"""What can be told of an answer from its first bytes."""

from __future__ import annotations

import re
from typing import Final

_SIGNATURES: Final = {".gz": b"\x1f\x8b", ".png": b"\x89PNG", ".xlsx": b"PK", ".zip": b"PK"}
_HTML: Final = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)


def is_markup(path: str) -> bool:
    """Whether a file of this name may well be a web page."""
    return path.lower().endswith((".html", ".htm", ".xhtml"))


def looks_like_a_page(path: str, first: bytes) -> bool:
    """Whether `first` begins a web page, and the file at `path` is none."""
    return not is_markup(path) and _HTML.match(first) is not None


def lacks_signature(path: str, first: bytes) -> bool:
    """Whether `first` is not how files of this name begin; alone that proves nothing."""
    end = path[path.rfind(".") :].lower()
    if end == ".json":
        return first.lstrip().startswith(b"<")
    return not first.startswith(_SIGNATURES.get(end, b"")[: len(first)])
