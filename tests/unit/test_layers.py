"""The layers and doors of the house, held by reading every import."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "verse_data"

FLOORS: tuple[set[str], ...] = (
    {
        "spine",
        "errors",
        "config",
        "files",
        "progress",
        "problems",
        "locks",
    },
    {"records"},
    {"releases", "volumes"},
    {"tables", "phantom"},
    {"training", "export", "views"},
    {"grades", "stores"},
    {"serve"},
    {"release", "doctor"},
    {"api"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SIDE_BY_SIDE = {
    "errors",
    "config",
    "files",
    "progress",
    "problems",
    "locks",
}
"""Lowest modules, which may use one another."""

DOORS = {
    "torch": {"training"},
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
    """Return room, relative path and imports of every module but the package's own front."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
    relative = [path.relative_to(PACKAGE).as_posix() for path in files]
    rooms = [name.split("/")[0].removesuffix(".py") for name in relative]
    return [
        (room, name, imports(path)) for room, name, path in zip(rooms, relative, files, strict=True)
    ]


def test_every_room_has_a_floor() -> None:
    """Each folder and module at the top of the package lies on exactly one floor."""
    assert {room for room, _, _ in modules()} <= set(FLOOR)


def test_imports_go_down() -> None:
    """A module imports its own room, or rooms on lower floors, and nothing else of ours."""
    wrong = [
        f"{name} imports {target}"
        for room, name, targets in modules()
        for target in targets
        if target.startswith("verse_data.")
        and (other := target.split(".")[1]) in FLOOR
        and other != room
        and FLOOR[other] >= FLOOR[room]
        and not {other, room} <= SIDE_BY_SIDE
        and not (room == "spine" and other in SIDE_BY_SIDE)
    ]

    assert wrong == []


def test_heavy_packages_have_one_door() -> None:
    """Each heavy package is imported only where the design gives it a door."""
    wrong = [
        f"{name} imports {target}"
        for room, name, targets in modules()
        for target in targets
        if (top := target.split(".")[0]) in DOORS and not DOORS[top] & {room, name}
    ]

    assert wrong == []
