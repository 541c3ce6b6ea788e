"""The public names exist, and their docstrings hold numpydoc's rules."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import importlib
import inspect
import re
import textwrap
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import ERROR_MSGS, validate

import verse_data
from verse_data import errors

ROOT = Path(__file__).parents[2]

LEFT_OUT = {
    "ES01",  # an extended summary, where one line says it
    "EX01",  # examples are in README and docs/, where they run
    "SA01",  # the next name to look at stands in the text
    "YD01",  # a context manager does not "yield" to whoever uses it
}
"""Rules of numpydoc that this package does not follow."""
SECTIONS_WANTED = {"PR01", "RT01"}
"""Every parameter, and what is returned: of documented names. Elsewhere a line may say it."""
ANYWHERE = set(ERROR_MSGS) - LEFT_OUT - SECTIONS_WANTED


def listed() -> dict[str, list[str]]:
    """Return the names of the list by part."""
    parts: dict[str, list[str]] = {}
    for line in (Path(__file__).parent / "public_names.txt").read_text().splitlines():
        if line.startswith("["):
            names = parts.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            names.append(line)
    return parts


NAMES = [(name, part) for part, names in listed().items() for name in names]


def resolve(name: str) -> Any:
    """Return what a dotted name leads to; None for what instances alone have."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            with warnings.catch_warnings(action="ignore"):
                # Of MONAI, TorchIO and Lightning, whose bridges are named.
                found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if inspect.isclass(found) and part in own_attributes(found):
                return None
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def is_ours(thing: Any) -> bool:
    """Say whether a class or function is defined in the package."""
    return (getattr(thing, "__module__", None) or "").split(".")[0] == verse_data.__name__


@functools.cache
def own_attributes(owner: type) -> set[str]:
    """Return the attributes that instances of a class of ours get: fields, and what is set on self."""
    found: set[str] = set()
    for base in filter(is_ours, owner.__mro__):
        found |= set(inspect.get_annotations(base)) - set(vars(base))
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                found |= {node.attr} if of_self and not hasattr(base, node.attr) else set()
    return found


def members(owner: type) -> set[str]:
    """Return the public names that a class has from us."""
    found = own_attributes(owner).union(*(vars(base) for base in filter(is_ours, owner.__mro__)))
    return {name for name in found if not name.startswith("_")}


def problems(name: str, part: str) -> list[str]:
    """Return what numpydoc finds in a docstring, and errors that it says are raised and are none."""
    found = resolve(name)
    if isinstance(found, ModuleType):
        return [] if (found.__doc__ or "").split("\n")[0].endswith(".") else ["no summary"]
    documented = (property, functools.cached_property)
    if not (inspect.isclass(found) or inspect.isroutine(found) or isinstance(found, documented)):
        return []
    wanted = ANYWHERE | (SECTIONS_WANTED if part != "named" else set())
    if inspect.isclass(found) and "__init__" not in vars(found):
        wanted -= {"PR01"}  # it takes what its base takes, which says so
    unknown = [
        f"raises {error}, which is none"
        for entry in get_doc_object(found)["Raises"]
        for error in re.findall(r"\w+", entry.type)
        if not hasattr(errors, error) and not hasattr(builtins, error)
    ]
    return [f"{code} {text}" for code, text in validate(name)["errors"] if code in wanted] + unknown


@pytest.mark.parametrize(("name", "part"), NAMES)
def test_name_is_there_and_documented(name: str, part: str) -> None:
    """Each public name exists; a class, function or property has a docstring by numpydoc's rules."""
    assert problems(name, part) == []


def test_names_are_listed_once() -> None:
    """No name stands in the list twice, and each part is sorted."""
    names = [name for name, _ in NAMES]
    assert len(set(names)) == len(names)
    assert [sorted(part) for part in listed().values()] == list(listed().values())


def test_every_name_of_the_front_is_listed() -> None:
    """All of ``__all__`` is listed, and what its classes have for people to use."""
    there = {f"verse_data.{name}" for name in verse_data.__all__}
    for owner in (
        verse_data.Release,
        verse_data.UnitedReleases,
        verse_data.VerSeDataset,
        verse_data.VerseDataError,
    ):
        there |= {f"verse_data.{owner.__name__}.{name}" for name in members(owner)}
    there |= {f"verse_data.phantom.{name}" for name in verse_data.phantom.__all__}
    there |= {
        f"verse_data.errors.{name}"
        for name, error in vars(errors).items()
        if inspect.isclass(error) and issubclass(error, verse_data.VerseDataError)
    }
    assert there - {name for name, _ in NAMES} == set()


def test_every_name_that_a_page_imports_is_listed() -> None:
    """What README, docs and examples import from the package is listed under that name."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py")]
    pattern = r"^\s*from (verse_data[\w.]*) import ([\w, ]+)"
    imported = {
        f"{module}.{name.strip()}"
        for page in pages
        for module, names in re.findall(pattern, page.read_text(), re.MULTILINE)
        for name in names.split(",")
    }
    assert len(imported) > 20
    assert imported - {name for name, _ in NAMES} == set()


@dataclasses.dataclass
class _Sample:
    """A class whose docstrings are wrong, one way each."""

    def no_sections(self, count: int) -> int:
        """Return twice the count."""
        return 2 * count

    def unknown_parameter(self) -> None:
        """Do nothing.

        Parameters
        ----------
        count : int
            There is none.
        """

    def unknown_error(self) -> None:
        """Do nothing.

        Raises
        ------
        NoSuchError
            Never.
        """


@pytest.mark.parametrize(
    ("method", "part", "expected"),
    [
        ("no_sections", "documented", ["PR01", "RT01"]),
        ("no_sections", "named", []),
        ("unknown_parameter", "named", ["PR02"]),
        ("unknown_error", "named", ["raises"]),
    ],
)
def test_control_each_kind_of_fault_is_seen(method: str, part: str, expected: list[str]) -> None:
    """A missing parameter, one too many, and an error that does not exist are found."""
    found = problems(f"{__name__}._Sample.{method}", part)
    assert [problem.split()[0] for problem in found] == expected
