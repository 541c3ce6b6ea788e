"""What git and git-annex need around them: PATH, identity, checks that they exist.

Nothing is written to the user's configuration: all of it rides in the environment of our own
calls. ``verse-data env`` prints the same for a shell.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from verse_data.errors import StorageError, ToolMissing

GIT_FLOOR: Final = (2, 31)
ANNEX_FLOOR: Final = (10, 20230126)
"""What DataLad 1.7 asks for."""

AUTHOR_NAME: Final = "verse-data"
AUTHOR_EMAIL: Final = "verse-data@users.noreply.invalid"


# What the user says to git about themselves and their own configuration. Every other variable of git's
# steers it to another repository or program, as when a git hook started us, and is left out.
_KEPT: Final = re.compile(
    r"GIT_((AUTHOR|COMMITTER)_(NAME|EMAIL|DATE)|EXEC_PATH|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+))"
)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program that is there and new enough: where, which version, and which is the oldest that does."""

    program: str
    version: str
    floor: str


class GitFailed(StorageError):
    """git ended with an error that has no better name."""


def tool_folders() -> tuple[str, ...]:
    """Return the folders of git-annex and of this environment's programs.

    A Python that is called without activating its environment has neither on PATH. The folder of
    the ``git_annex`` package holds the program itself, which starts 30 ms sooner than its shim.
    """
    spec = importlib.util.find_spec("git_annex")
    origin = [str(Path(spec.origin).parent)] if spec and spec.origin else []
    return (*origin, sysconfig.get_path("scripts"))


def search_path(environment: Mapping[str, str]) -> str:
    """Return PATH with :func:`tool_folders` in front, each folder once."""
    parts = [*tool_folders(), *environment.get("PATH", os.defpath).split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(part for part in parts if part))


def tool_environment() -> dict[str, str]:
    """Return the environment for our own calls of git and git-annex that write."""
    check_git()
    environment = _without_git(os.environ, kept=_KEPT)
    environment |= {
        "PATH": search_path(environment),
        "LC_ALL": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    return environment | _identity(environment)


def reading_environment(home: Path) -> dict[str, str]:
    """Return the environment of a git that reads no configuration but that of its repository."""
    check_git()
    environment = _without_git(os.environ, kept=re.compile("GIT_EXEC_PATH"))
    environment.pop("XDG_CONFIG_HOME", None)
    return environment | {
        "PATH": search_path(environment),
        "LC_ALL": "C.UTF-8",
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
    }


def _without_git(environment: Mapping[str, str], *, kept: re.Pattern[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("GIT_") or kept.fullmatch(name)
    }


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdin: bytes | None = None,
    cwd: Path | None = None,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run one call of git or git-annex and return what became of it."""
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        check=False,
        env=dict(environment),
        cwd=cwd,
        timeout=seconds,
    )


def shell_settings(environment: Mapping[str, str]) -> str:
    """Return lines for a POSIX shell that let it call datalad and git-annex on a release."""
    check_git()
    settings = {"PATH": search_path(environment), **_identity(environment)}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())


def _identity(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an author for git-annex's own commits where the user has none."""
    if _has_identity(environment.get("HOME", ""), environment.get("GIT_CONFIG_GLOBAL", "")):
        return {}
    roles = [("NAME", AUTHOR_NAME), ("EMAIL", AUTHOR_EMAIL)]
    wanted = {
        f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in roles
    }
    return {name: value for name, value in wanted.items() if name not in environment}


@lru_cache(maxsize=8)
def _has_identity(home: str, settings: str) -> bool:
    """Whether git knows a name and an address of the user; the arguments are the cache's key alone."""
    del home, settings
    answers = [
        subprocess.run(["git", "config", "--get", name], capture_output=True, check=False, cwd="/")
        for name in ("user.name", "user.email")
    ]
    return all(answer.returncode == 0 and answer.stdout.strip() for answer in answers)


def check_git() -> Tool:
    """Return git; raise ToolMissing unless one that is new enough can be called."""
    how = "your system's package manager (apt install git, brew install git)"
    return _require(search_path(os.environ), "git", ("--version",), GIT_FLOOR, how)


def check_annex() -> Tool:
    """Return git-annex; raise ToolMissing unless git, and one that is new enough, can be called."""
    check_git()
    how = "pip install --upgrade git-annex"
    return _require(search_path(os.environ), "git-annex", ("version", "--raw"), ANNEX_FLOOR, how)


@lru_cache(maxsize=8)
def _require(
    path: str, name: str, question: tuple[str, ...], floor: tuple[int, ...], how: str
) -> Tool:
    program = shutil.which(name, path=path)
    if program is None:
        raise ToolMissing(
            f"{name} is not installed, or not on PATH; releases are kept with it. Install it with "
            f"{how}."
        )
    found = _version_of([program, *question])
    if found < floor:
        raise ToolMissing(
            f"{name} {_dotted(found)} at {program} is too old; DataLad needs {_dotted(floor)}. "
            f"Upgrade it with {how}."
        )
    return Tool(program=program, version=_dotted(found), floor=_dotted(floor))


def _version_of(command: list[str]) -> tuple[int, ...]:
    try:
        answer = subprocess.run(command, capture_output=True, check=False, text=True)
    except OSError as error:
        raise ToolMissing(
            f"{command[0]} cannot be run: {error.strerror}. On a system without glibc (Alpine) "
            f"git-annex has no wheel: install it with the system's package manager."
        ) from error
    match = re.search(r"(\d+)\.(\d+)", answer.stdout)
    if match is None:
        raise ToolMissing(f"{' '.join(command)} gave no version: {answer.stderr.strip()[:200]!r}.")
    return tuple(int(part) for part in match.groups())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
