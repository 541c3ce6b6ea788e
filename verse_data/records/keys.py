"""git-annex's names of contents, ``SHA256E-s<size>--<sha256><extension>``, and where they lie.

The rules are git-annex's own (``Backend/Hash.hs``, ``Annex/DirHashes.hs``); a test compares them
with ``git annex calckey`` and ``examinekey``.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

_EXTENSION_PARTS: Final = 2
_EXTENSION_LENGTH: Final = 4
_LETTERS: Final = "0123456789zqjxkmvwgpfZQJXKMVWGPF"
_KEY: Final = re.compile(r"SHA256E-s(?P<size>0|[1-9]\d*)--(?P<sha256>[0-9a-f]{64})(\.[^/]*)?")


def key_extension(path: str) -> str:
    """Return the part of a file's name that its key keeps, such as ``".nii.gz"``; case is kept."""
    # Up to two trailing parts of at most four alphanumeric characters; bytes, where not ASCII.
    name = path.rsplit("/", 1)[-1].lstrip(".")
    kept: list[str] = []
    for part in reversed(name.split(".")[1:]):
        if len(part.encode()) > _EXTENSION_LENGTH:
            break
        if all(letter.isalnum() or not letter.isascii() for letter in part):
            kept.append(part)
    return "".join(f".{part}" for part in reversed(kept[:_EXTENSION_PARTS]) if part)


def annex_key(path: str, *, size: int, sha256: str) -> str:
    """Return the key of the content with this size and digest under the name `path`."""
    return f"SHA256E-s{size}--{sha256}{key_extension(path)}"


def size_and_digest(key: str) -> tuple[int, str] | None:
    """Return size in bytes and SHA-256 of a key, or None if it is not a SHA256E key with size."""
    match = _KEY.fullmatch(key)
    return (int(match["size"]), match["sha256"]) if match else None


def object_path(key: str) -> str:
    """Return where git-annex keeps the content of `key`, relative to the work tree, with ``/``."""
    word = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()[:4], "little")
    a, b, c, d = (_LETTERS[(word >> shift) & 31] for shift in (0, 6, 12, 18))
    return f".git/annex/objects/{b}{a}/{d}{c}/{key}/{key}"


def other_object_path(key: str) -> str:
    """Return where git-annex keeps it instead on a file system without links, and in a bare repository."""
    return f".git/annex/objects/{log_folder(key)}/{key}/{key}"


def link_target(path: str, key: str) -> str:
    """Return the target of the symbolic link that stands for a locked file in the work tree."""
    return "../" * path.count("/") + object_path(key)


def log_folder(key: str) -> str:
    """Return the folder of the logs of `key` on the ``git-annex`` branch."""
    digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    return f"{digest[:3]}/{digest[3:6]}"
