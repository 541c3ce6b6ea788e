"""git-annex, called as a program, so that it knows what lies in a release; it transfers nothing for us."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from verse_data.publishing import storage_errors
from verse_data.releases.environment import check_annex, tool_environment, without_secrets
from verse_data.releases.git import failure, require_own
from verse_data.releases.git_objects import settings
from verse_data.releases.keylock import key_lock

_SETTINGS: Final = ("core.fsmonitor=false", "annex.alwayscompact=false")
_INIT_SECONDS: Final = 600.0


def initialise(repository: Path, description: str) -> None:
    """Make `repository`, which was just built here, one that git-annex knows."""
    # git-annex puts its hooks where git looks for them.
    hooks = repository / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    _annex(repository, "init", "--quiet", description, hooks=str(hooks))


def ensure_known(repository: Path) -> None:
    """Let git-annex know a clone that plain git made.

    Its own way, at the first call, would start the special remotes that the clone's source enabled.
    """
    if _uuid(repository):
        return
    locks = repository / ".git" / "verse-data" / "locks"
    with storage_errors(locks), key_lock(locks, "init", timeout=_INIT_SECONDS):
        if not _uuid(repository):  # else another process was first; two at once make git-annex fail
            _annex(repository, "init", "--no-autoenable", "--quiet", "verse-data")


def record_presence(repository: Path, present: Mapping[str, bool]) -> None:
    """Tell git-annex of each key whether its content is in this repository."""
    if present:
        ensure_known(repository)
        uuid = _uuid(repository)
        lines = "".join(f"{key} {uuid} {int(here)}\n" for key, here in present.items())
        _annex(repository, "setpresentkey", "--batch", stdin=lines)
        merge(repository)  # the batch leaves its answers in the journal


def merge(repository: Path) -> None:
    """Merge what was fetched or imported of git-annex's branch into its own."""
    ensure_known(repository)
    _annex(repository, "merge", "--quiet")


def _uuid(repository: Path) -> str | None:
    return dict(settings(repository)).get("annex.uuid")


def _annex(
    repository: Path, *arguments: str, stdin: str | None = None, hooks: str = "/dev/null"
) -> None:
    """Call git-annex in a repository of our own; it and git run the hooks in `hooks` alone.

    Raises
    ------
    UnsafeInput
        If the repository's configuration is not as this package writes it.
    GitFailed
        If it ends with an error; the text holds its last line. `GitDiskFull` if the disk is full.
    ToolMissing
        If there is no git-annex.
    """
    check_annex()
    require_own(repository)
    wanted = (*_SETTINGS, f"core.hooksPath={hooks}", *_ignored(repository))
    options = [word for setting in wanted for word in ("-c", setting)]
    done = subprocess.run(
        ["git-annex", arguments[0], *options, *arguments[1:]],
        cwd=repository,
        input=stdin,
        capture_output=True,
        check=False,
        env=without_secrets(tool_environment()),
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise failure(repository, f"git-annex {arguments[0]}", done.stderr)


def _ignored(repository: Path) -> list[str]:
    """Return settings that keep git-annex from looking into remotes, and at their configuration."""
    names = [
        key.removeprefix("remote.").rpartition(".")[0]
        for key, _ in settings(repository)
        if key.startswith("remote.")
    ]
    return [f"remote.{name}.annex-ignore=true" for name in dict.fromkeys(names)]
