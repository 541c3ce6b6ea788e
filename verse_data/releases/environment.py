"""Which git and git-annex are called, and with which environment variables.

Nothing is written to the user's configuration: all settings are in the environment of our own calls.
``verse-data env`` prints the same for a shell.
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
from typing import Final, NamedTuple

from verse_data.errors import ToolMissing

_TOOLS: Final = {
    "git": (
        "--version",
        (2, 31),
        "your system's package manager (apt install git, brew install git)",
    ),
    "git-annex": ("version", (10, 20230126), "pip install --upgrade git-annex"),
}
"""Of each: the argument that prints its version, the oldest for DataLad 1.7, and how to install it."""

AUTHOR_NAME: Final = "verse-data"
AUTHOR_EMAIL: Final = "verse-data@users.noreply.invalid"
_IDENTITY: Final = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", AUTHOR_NAME), ("EMAIL", AUTHOR_EMAIL))
}
# All other GIT_ variables, as set when a git hook started us, would point git to another repository,
# program or setting, and are left out. `git rev-parse --local-env-vars` lists none of these.
_KEPT: Final = r"GIT_(EXEC_PATH|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM))"


class Tool(NamedTuple):
    """An installed program that is new enough: its path, its version, and the oldest accepted."""

    program: str
    version: str
    floor: str


def tool_folders() -> tuple[str, ...]:
    """Return the folders of git-annex and of this environment's programs."""
    # A Python that is called without activating its environment has neither on PATH. The folder of
    # the ``git_annex`` package holds the program itself, which starts 30 ms sooner than its shim.
    spec = importlib.util.find_spec("git_annex")
    origin = [str(Path(spec.origin).parent)] if spec and spec.origin else []
    return (*origin, sysconfig.get_path("scripts"))


def search_path(environment: Mapping[str, str]) -> str:
    """Return PATH with :func:`tool_folders` in front, each folder once."""
    parts = [*tool_folders(), *environment.get("PATH", os.defpath).split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(filter(None, parts)))


def check_git() -> Tool:
    """Return git; raise ToolMissing unless one that is new enough can be called."""
    return _check(search_path(os.environ), "git")


def check_annex() -> Tool:
    """Return git-annex; raise ToolMissing unless git, and one that is new enough, can be called."""
    check_git()
    return _check(search_path(os.environ), "git-annex")


@lru_cache(maxsize=8)
def _check(path: str, name: str) -> Tool:
    argument, floor, how = _TOOLS[name]
    program = shutil.which(name, path=path)
    if program is None:
        raise ToolMissing(
            f"{name} is not installed, or not on PATH; releases are kept with it. Install it with {how}."
        )
    try:
        done = subprocess.run(
            [program, argument], env=_stripped(_KEPT), capture_output=True, check=False, text=True
        )
    except OSError as error:
        raise ToolMissing(
            f"{program} cannot be run: {error.strerror}. Install it with {how}."
        ) from error
    version = re.search(r"(\d+)\.(\d+)", done.stdout)
    lowest = ".".join(map(str, floor))
    if version is None or tuple(map(int, version.groups())) < floor:
        found = version[0] if version else "of no known version"
        raise ToolMissing(
            f"{name} {found} at {program} is too old; DataLad needs {lowest}. Upgrade it with {how}."
        )
    return Tool(program, version[0], lowest)


def _stripped(kept: str) -> dict[str, str]:
    """Return this process's environment without ``GIT_`` variables that are not `kept`."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or re.fullmatch(kept, name)
    }


def environment_with(kept: str) -> dict[str, str]:
    """Return the environment for git, without ``GIT_`` variables that are not `kept`."""
    check_git()
    environment = _stripped(kept)
    ours = {"PATH": search_path(environment), "LC_ALL": "C.UTF-8", "GIT_OPTIONAL_LOCKS": "0"}
    return environment | ours


def tool_environment() -> dict[str, str]:
    """Return the environment for our own calls of git and git-annex that write."""
    return environment_with(_KEPT) | {"GIT_TERMINAL_PROMPT": "0"} | _IDENTITY


def prepare_datalad() -> None:
    """Let DataLad, in this process, find git-annex, and work in no repository of a git hook."""
    check_annex()
    os.environ["PATH"] = search_path(os.environ)
    command = ["git", "rev-parse", "--local-env-vars"]
    listed = subprocess.run(command, env=tool_environment(), capture_output=True, check=True)
    for name in listed.stdout.decode().split():
        os.environ.pop(name, None)


def shell_settings(environment: Mapping[str, str]) -> str:
    """Return lines for a POSIX shell that let it call datalad and git-annex on a release."""
    check_git()
    lines = [f"export PATH={shlex.quote(search_path(environment))}\n"]
    # git-annex and DataLad commit, and need an author even if the user has configured none.
    for name, value in _IDENTITY.items():
        setting = f"user.{name.rpartition('_')[2].lower()}"
        lines.append(f'export {name}="${{{name}:-$(git config {setting} || echo {value})}}"\n')
    return "".join(lines)
