"""Digests of files, and of JSON in its one canonical form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verse_data.progress import Advance

_BLOCK = 1 << 20


@dataclass(frozen=True)
class FileDigests:
    """Size in bytes and digests (lower-case hex) of one file's content."""

    size: int
    sha256: str
    md5: str


def digest_file(path: Path, *, advance: Advance | None = None) -> FileDigests:
    """Read `path` once and return its size and digests."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            sha256.update(block)
            md5.update(block)
            size += len(block)
            if advance:
                advance(len(block))
    return FileDigests(size, sha256.hexdigest(), md5.hexdigest())


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys, no spare blanks, UTF-8, and a final newline."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode() + b"\n"


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 (hex) of `value` in canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
