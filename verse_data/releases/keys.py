"""The names of contents and where they lie, as arithmetic: no git-annex, no checkout."""

from __future__ import annotations

from verse_data.records.keys import (
    annex_key,
    key_extension,
    log_folder,
    object_path,
    other_object_path,
    size_and_digest,
)

__all__ = [
    "annex_key",
    "key_extension",
    "link_target",
    "log_folder",
    "object_path",
    "other_object_path",
    "size_and_digest",
]


def link_target(path: str, key: str) -> str:
    """Return the target of the symbolic link that stands for a locked file in the work tree."""
    return "../" * path.count("/") + object_path(key)
