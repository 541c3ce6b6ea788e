"""Checks of programs, packages, cores, memory, proxies and certificates; none opens a file of ours.

A warning is something that works badly, or one part that does not work. A problem makes the package
unusable, and has the exit code of the error that commands would end with. Nothing heavy is imported
here, since the imported package may be the broken one.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from verse_data.errors import ToolMissing, VerseDataError, counted
from verse_data.progress import spell_bytes
from verse_data.releases.environment import Tool, check_annex, check_git
from verse_data.releases.urls import redacted_proxy

GB: Final = 1_000_000_000
_EXTRAS: Final = ("dask", "remote", "notebook", "monai", "torchio", "lightning")
_PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report, with what to type next, and a problem's exit code."""

    name: str
    state: Literal["ok", "warning", "problem"]
    fact: str
    remedy: str = ""
    exit_code: int = 0


def ok(name: str, fact: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, state="ok", fact=fact)


def warning(name: str, fact: str, remedy: str) -> Check:
    """Return a check that found something that works badly."""
    return Check(name=name, state="warning", fact=fact, remedy=remedy)


def problem(
    name: str, fact: str, remedy: str, error: VerseDataError | type[VerseDataError]
) -> Check:
    """Return a check that found something that commands would fail at with `error`."""
    code = error.exit_code
    return Check(name=name, state="problem", fact=fact, remedy=remedy, exit_code=code)


def tool_checks() -> Iterator[Check]:
    """Look for git, and then for git-annex, which needs it."""
    git = _tool("git", check_git, "apt install git (or brew, dnf, conda)")
    yield git
    if git.state == "ok":
        yield _tool("git-annex", check_annex, "pip install --upgrade git-annex")


def _tool(name: str, find: Callable[[], Tool], remedy: str) -> Check:
    try:
        tool = find()
    except ToolMissing as error:
        return problem(name, str(error), remedy, error)
    return ok(name, f"{tool.version} at {tool.program} ({tool.floor} or newer needed)")


def package_checks() -> Iterator[Check]:
    """Compare installed versions with this package's requirements, without importing anything."""
    try:
        requirements = metadata.requires("verse-data") or []
    except metadata.PackageNotFoundError:
        fact = "verse-data runs from a folder and is not installed, so its needs are not known"
        yield warning("packages", fact, "pip install -e .")
        return
    needed: dict[str, str] = {}
    found = []
    for text in requirements:
        match = re.match(r"([\w.-]+)(?:\[.*?\])?(?:>=([\w.]+))?", text)
        name, floor = match.groups() if match else (text, None)
        extra = re.search(r"extra == ['\"](\w+)['\"]", text)
        if extra is None:
            needed[name] = floor or "0"
        elif extra[1] in _EXTRAS and (version := _version_of(name)):
            found.append(f"{name} {version}")
    # A git-annex of the system is no Python package; the program is checked separately.
    needed.pop("git-annex", None)
    yield packages_check("DataLad", {"datalad": needed.pop("datalad", "0")})
    yield packages_check("packages", needed)
    yield ok("extras", ", ".join(found) or "none installed")


def packages_check(name: str, floors: Mapping[str, str]) -> Check:
    """Return whether the packages in `floors` are installed, at these versions or newer."""
    found = {package: _version_of(package) for package in floors}
    wrong = {
        package: f"{package} {version or 'is missing'} ({floors[package]} or newer needed)"
        for package, version in found.items()
        if version is None or _numbers(version) < _numbers(floors[package])
    }
    if wrong:
        remedy = f"pip install --upgrade {' '.join(wrong)}"
        return problem(name, ", ".join(wrong.values()), remedy, ToolMissing)
    fact = ", ".join(f"{package} {version}" for package, version in found.items())
    only = f" ({', '.join(floors.values())} or newer needed)" if len(floors) == 1 else ""
    return ok(name, fact + only)


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    match = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in match[0].split(".")] if match else []


def cores_check(total: int, allowed: float) -> Check:
    """Return a check of `total` cores, of which this process may use `allowed`."""
    if allowed >= total:
        return ok("cores", f"{total}")
    workers = max(1, int(allowed))
    return warning(
        "cores",
        f"{total}, of which this process may use {allowed:g}; one process a core would be too many",
        f"workers={workers} in load_split and Release.build_cache, or: "
        f"verse-data cache build RELEASE --workers {workers}",
    )


def memory_check(found: tuple[int, int] | None, limit: int | None, cores: int) -> Check:
    """Return a check of total and available memory, and of the container's limit, in bytes."""
    if found is None:
        return ok("memory", "this system does not say")
    total, available = found
    usable = min(total, limit or total)
    fact = f"{spell_bytes(total)}, {spell_bytes(available)} of it free"
    if limit is not None and limit < total:
        fact += f"; this process may use {spell_bytes(limit)}"
    if usable >= max(4, cores) * 0.95 * GB:
        return ok("memory", fact)
    processes = counted(cores, "process", "processes")
    workers = min(cores, max(1, int(usable / GB / 2)))
    return warning(
        "memory",
        f"{fact}: little for {processes} that convert volumes of up to 0.5 GB",
        f"Convert with fewer: verse-data cache build RELEASE --workers {workers}",
    )


def shared_memory() -> int | None:
    """Return the bytes of shared memory: 0 if it cannot be written, None where it is no folder."""
    place = "/dev/shm"  # noqa: S108 - nothing is written
    if not os.access(place, os.W_OK):
        return 0 if sys.platform == "linux" else None
    return shutil.disk_usage(place).total


def shared_memory_check(total: int | None) -> Check:
    """Return a check of `total` bytes of shared memory, for the workers of a ``DataLoader``."""
    if total is None:
        return ok("shared memory", "there is no /dev/shm on this system")
    fact = f"{spell_bytes(total)} at /dev/shm, through which DataLoader workers hand over batches"
    if total >= 1 << 30:  # with less, workers that return whole volumes run out of it
        return ok("shared memory", fact)
    full = f"{fact}: they end in a bus error when it is full"
    none = "there is no /dev/shm that can be written: DataLoader workers cannot start"
    remedy = "docker run --shm-size=8g (or --ipc=host); or dataset.loader(...), which uses threads"
    return warning("shared memory", full if total else none, remedy)


def proxy_check(variables: Mapping[str, str]) -> Check:
    """Return a check of the environment's proxies, without user and password."""
    spellings = [name for upper in _PROXIES for name in (upper.lower(), upper)]
    found = {name: variables[name] for name in spellings if variables.get(name)}
    hosts = {name: redacted_proxy(v) for name, v in found.items() if name.upper() != "NO_PROXY"}
    fact = ", ".join(f"{name}={hosts.get(name, value)}" for name, value in found.items())
    if any(host.startswith("socks") for host in hosts.values()) and not _version_of("PySocks"):
        fact += "; a SOCKS proxy needs a package that is not installed"
        return warning("proxy", fact, "pip install pysocks")
    if bare := [name for name in hosts if "@" in found[name] and "://" not in found[name]]:
        fact += "; a user and no scheme, which cannot be read as an address"
        return warning(
            "proxy", fact, f"Write http:// in front of the value of {' and '.join(bare)}"
        )
    return ok("proxy", fact or "none")


def certificates_check(variables: Mapping[str, str]) -> Check:
    """Return a check of where certificates are looked for, and whether that exists."""
    import certifi  # installed with requests, and like it may be missing or broken

    named = {name: variables[name] for name in _CERTIFICATES if variables.get(name)}
    absent = {name: value for name, value in named.items() if not Path(value).exists()}
    fact = ", ".join(f"{name}={value}" for name, value in (absent or named).items())
    remedy = f"unset {' '.join(absent)}, or set it to your system's bundle"
    if not named:
        fact, remedy = certifi.where(), "pip install --force-reinstall certifi"
        absent = {} if Path(fact).is_file() else {"certifi": fact}
    if absent:
        return warning("certificates", f"{fact} does not exist, so https fails", remedy)
    return ok("certificates", fact)
