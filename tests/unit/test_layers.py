"""The layers of the package, and where heavy packages are imported, checked by reading every import."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "verse_data"

LAYERS: tuple[set[str], ...] = (
    {
        "spine",
        "errors",
        "config",
        "files",
        "progress",
        "problems",
        "locks",
        "machine",
        "markup",
        "lazy",
    },
    {"records"},
    {"releases", "volumes"},
    {"tables", "phantom"},
    {"export", "views"},
    {"training", "metrics", "grades", "stores"},
    {"serve", "explorer"},
    {"collection"},
    {"evaluated"},
    {"release", "doctor"},
    {"predictions", "united"},
    {"api"},
    {"cli"},
    {"__main__"},
)
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}
LOWEST = {
    "errors",
    "config",
    "files",
    "progress",
    "problems",
    "locks",
    "machine",
    "markup",
    "lazy",
}
"""Lowest modules, which may use one another."""

IMPORTERS = {
    "torch": {"training"},
    "ipyniivue": {"explorer/widget.py"},
    "zarr": {"volumes/store.py"},
    "nibabel": {"volumes/nifti.py"},
    "datalad": {"releases/siblings.py"},
    "git_annex": {"releases/environment.py"},
    "requests": {"releases"},
    "dask": {"volumes/build.py"},
    "distributed": {"volumes/build.py"},
}


def imports(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules() -> list[tuple[str, str, set[str]]]:
    """Return part, relative path and imports of every module except the package itself."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
    relative = [path.relative_to(PACKAGE).as_posix() for path in files]
    parts = [name.split("/")[0].removesuffix(".py") for name in relative]
    return [
        (part, name, imports(path)) for part, name, path in zip(parts, relative, files, strict=True)
    ]


def test_every_part_has_a_layer() -> None:
    """Each folder and module at the top of the package is in exactly one layer."""
    assert {part for part, _, _ in modules()} <= set(LAYER)


def test_imports_go_down() -> None:
    """A module imports its own part, or parts in lower layers, and nothing else of ours."""
    wrong = [
        f"{name} imports {target}"
        for part, name, targets in modules()
        for target in targets
        if target.startswith("verse_data.")
        and (other := target.split(".")[1]) in LAYER
        and other != part
        and LAYER[other] >= LAYER[part]
        and not {other, part} <= LOWEST
        and not (part == "spine" and other in LOWEST)
    ]

    assert wrong == []


def test_heavy_packages_are_imported_in_one_place() -> None:
    """Each heavy package is imported only where the design allows it."""
    wrong = [
        f"{name} imports {target}"
        for part, name, targets in modules()
        for target in targets
        if (top := target.split(".")[0]) in IMPORTERS and not IMPORTERS[top] & {part, name}
    ]

    assert wrong == []
