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
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from verse_data.errors import ToolMissing

GIT_FLOOR: Final = (2, 31)
ANNEX_FLOOR: Final = (10, 20230126)
"""What DataLad 1.7 asks for."""

AUTHOR_NAME: Final = "verse-data"
AUTHOR_EMAIL: Final = "verse-data@users.noreply.invalid"


# A git hook or another git command that started us would steer our git calls into its repository.
_STEERING: Final = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_CONFIG_PARAMETERS",
    "GIT_EXTERNAL_DIFF",
    "GIT_CEILING_DIRECTORIES",
)


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


def tool_environment(*, trusted: Path | None = None) -> dict[str, str]:
    """Return the environment for our own calls of git and git-annex.

    Parameters
    ----------
    trusted : Path, optional
        A repository that git may read although somebody else owns it; exactly this folder, and
        only for calls that run none of its hooks.

    Raises
    ------
    ToolMissing
        If there is no git, or one that is too old.
    """
    check_git()
    environment = {name: value for name, value in os.environ.items() if name not in _STEERING}
    environment |= {
        "PATH": search_path(environment),
        "LC_ALL": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    environment |= _identity(environment)
    if trusted is not None:
        spellings = dict.fromkeys((str(trusted), str(trusted.resolve())))
        _add_settings(environment, [("safe.directory", spelling) for spelling in spellings])
    return environment


def shell_settings(environment: Mapping[str, str]) -> str:
    """Return lines for a POSIX shell that let it call datalad and git-annex on a release."""
    settings = {"PATH": search_path(environment), **_identity(environment)}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep tokens from git-annex, which sends a header on to where it is redirected to."""
    return {name: value for name, value in environment.items() if not name.endswith("_TOKEN")}


def _add_settings(environment: dict[str, str], settings: list[tuple[str, str]]) -> None:
    """Add git settings to an environment, behind those that are there."""
    first = int(environment.get("GIT_CONFIG_COUNT") or 0)
    for number, (name, value) in enumerate(settings, start=first):
        environment[f"GIT_CONFIG_KEY_{number}"] = name
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    environment["GIT_CONFIG_COUNT"] = str(first + len(settings))


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
    """Whether git knows a name and an address of the user; the arguments are what it hangs on."""
    del home, settings
    answers = [
        subprocess.run(["git", "config", "--get", name], capture_output=True, check=False, cwd="/")
        for name in ("user.name", "user.email")
    ]
    return all(answer.returncode == 0 and answer.stdout.strip() for answer in answers)


def check_git() -> None:
    """Raise ToolMissing unless a git that is new enough can be called."""
    how = "your system's package manager (apt install git, brew install git)"
    _require(search_path(os.environ), "git", ("--version",), GIT_FLOOR, how)


def check_annex() -> None:
    """Raise ToolMissing unless git, and a git-annex that is new enough, can be called."""
    check_git()
    how = "pip install --upgrade git-annex"
    _require(search_path(os.environ), "git-annex", ("version", "--raw"), ANNEX_FLOOR, how)


@lru_cache(maxsize=8)
def _require(
    path: str, name: str, question: tuple[str, ...], floor: tuple[int, ...], how: str
) -> None:
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
