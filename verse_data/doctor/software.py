"""Checks of the packages that this one needs, of git and git-annex; nothing is imported for it."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Final

from verse_data import __version__
from verse_data.doctor.check import Check
from verse_data.errors import ToolMissing
from verse_data.releases.environment import Tool, check_annex, check_git

_EXTRAS: Final = ("dask", "remote", "monai", "torchio", "lightning")


def package_checks() -> Iterator[Check]:
    """Compare what is installed with what this package asks for."""
    try:
        requirements = metadata.requires("verse-data") or []
    except metadata.PackageNotFoundError:
        fact = "verse-data runs from a folder and is not installed, so its needs are not known"
        yield Check(name="packages", state="warning", fact=fact, remedy="pip install -e .")
        return
    parsed = [_requirement(text) for text in requirements]
    needed = {name: floor for name, floor, extra in parsed if extra is None}
    # A git-annex of the system is no package of Python; the program is looked at by itself.
    needed.pop("git-annex", None)
    yield packages_check("DataLad", {"datalad": needed.pop("datalad", "0")})
    yield packages_check("packages", needed)
    extras = {name: version_of(name) for name, _, extra in parsed if extra in _EXTRAS}
    found = ", ".join(f"{name} {version}" for name, version in extras.items() if version)
    yield Check(name="extras", state="ok", fact=found or "none installed")


def packages_check(name: str, floors: Mapping[str, str]) -> Check:
    """Return whether the packages are installed that `floors` names, each with its oldest version."""
    found = {package: version_of(package) for package in floors}
    wrong = {
        package: f"{package} {version or 'is missing'} ({floors[package]} or newer needed)"
        for package, version in found.items()
        if version is None or _numbers(version) < _numbers(floors[package])
    }
    if wrong:
        return Check(
            name=name,
            state="problem",
            fact=", ".join(wrong.values()),
            remedy=f"pip install --upgrade {' '.join(wrong)}",
            exit_code=ToolMissing.exit_code,
        )
    fact = ", ".join(f"{package} {version}" for package, version in found.items())
    if len(floors) == 1:
        fact += f" ({', '.join(floors.values())} or newer needed)"
    return Check(name=name, state="ok", fact=fact)


def tool_checks() -> Iterator[Check]:
    """Look for git, and for git-annex where there is git, which it needs."""
    git = tool_check("git", check_git, remedy="apt install git (or brew, dnf, conda)")
    yield git
    if git.state == "ok":
        remedy = "pip install --upgrade git-annex"
        yield tool_check("git-annex", check_annex, remedy=remedy)


def tool_check(name: str, find: Callable[[], Tool], *, remedy: str) -> Check:
    """Return whether a program is there and new enough; `find` raises ToolMissing if not."""
    try:
        tool = find()
    except ToolMissing as error:
        code = error.exit_code
        return Check(name=name, state="problem", fact=str(error), remedy=remedy, exit_code=code)
    fact = f"{tool.version} at {tool.program} ({tool.floor} or newer needed)"
    return Check(name=name, state="ok", fact=fact)


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def about() -> dict[str, str]:
    """Return what a report to the outside says of this machine: versions, and no path."""
    return {
        "verse-data": __version__,
        "python": platform.python_version(),
        "system": sys.platform,
        "requests": version_of("requests") or "missing",
    }


def _requirement(text: str) -> tuple[str, str, str | None]:
    """Return name, oldest version and extra of a line such as ``dask>=2025.1; extra == 'dask'``."""
    match = re.match(r"([\w.-]+)(?:\[.*?\])?(?:>=([\w.]+))?", text)
    extra = re.search(r"extra == ['\"](\w+)['\"]", text)
    name, floor = match.groups() if match else (text, None)
    return name, floor or "0", extra[1] if extra else None


def _numbers(version: str) -> list[int]:
    match = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in match[0].split(".")] if match else []
