"""Ways in source to the bytes of locked contents that are not compared with their digest first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

NIFTI = {"read_image", "read_mask", "VolumeStream", "NiftiStream"}
READING = {"open", "read_bytes", "read_text"}


def unchecked(source: str) -> list[str]:
    """Return ``"LINE: what"`` for each way of `source`."""
    return [
        f"{node.lineno}: {what}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for what in _ways(node)
    ]


def unchecked_in(package: Path) -> dict[str, set[str]]:
    """Return the ways of each module of `package` that has any."""
    found = {
        path.relative_to(package).as_posix(): {
            way.partition(": ")[2] for way in unchecked(path.read_text(encoding="utf-8"))
        }
        for path in sorted(package.rglob("*.py"))
    }
    return {module: ways for module, ways in found.items() if ways}


def _ways(call: ast.Call) -> Iterator[str]:
    match call.func:
        # The path of an object.
        case ast.Attribute(attr="object_path") | ast.Name(id="object_path"):
            yield "object_path"
        case ast.Attribute(value=ast.Attribute(value=owner, attr="path"), attr=way) if (
            way in READING and not (isinstance(owner, ast.Name) and owner.id == "self")
        ):
            yield f"path.{way}"
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    if name in NIFTI and "sha256" not in {keyword.arg for keyword in call.keywords}:
        yield name
