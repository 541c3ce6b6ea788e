"""git-annex, called as a program: set-up, and what is present here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from verse_data.errors import ServerUnavailable, StorageError
from verse_data.publishing import storage_errors
from verse_data.releases.environment import check_annex, tool_environment, without_secrets
from verse_data.releases.git import GitFailed, explain, git
from verse_data.releases.keylock import key_lock

_SETTINGS: Final = (
    "core.fsmonitor=false",
    # git-annex calls git, and git the hooks of a dataset, which may be a stranger's.
    "core.hooksPath=/dev/null",
    "annex.alwayscompact=false",
)

_INIT_SECONDS: Final = 600.0
_WEB: Final = "00000000-0000-0000-0000-000000000001"
"""How git-annex names the web, in every repository."""


class AnnexFailed(StorageError):
    """git-annex ended with an error that has no better name."""


def annex_command(*arguments: str, settings: Sequence[str] = ()) -> list[str]:
    """Return the command line of one git-annex call."""
    words = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
    return ["git-annex", arguments[0], *words, *arguments[1:]]


def annex(repository: Path, *arguments: str, stdin: str | None = None) -> str:
    """Call git-annex in `repository` and return what it printed.

    Raises
    ------
    AnnexFailed
        If it ends with an error; the text holds its last line.
    ToolMissing
        If there is no git-annex.
    """
    ensure_known(repository)
    done = _run(repository, arguments, stdin=stdin)
    if done.returncode:
        raise AnnexFailed(_explain(repository, arguments, done.stderr))
    return done.stdout


def annex_batch(
    repository: Path, *arguments: str, stdin: str, settings: Sequence[str], seconds: float
) -> str:
    """Call a batch command, whose answers tell line by line what failed, and return them.

    Raises
    ------
    ServerUnavailable
        If it takes longer than `seconds`: git-annex waits for a silent server without end.
    """
    ensure_known(repository)
    try:
        return _run(repository, arguments, stdin=stdin, settings=settings, seconds=seconds).stdout
    except subprocess.TimeoutExpired as error:
        raise ServerUnavailable(
            f"{repository}: git-annex {arguments[0]} got no answer from a server in {seconds:.0f} s, "
            f"and was ended. What it had done stays done. Try again later."
        ) from error


def web_addresses(repository: Path, keys: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the web addresses of each key, as git-annex knows them; no socket is opened.

    They need not be those of the lock: a clone knows what its owner added, and a dataset that was
    built through a mirror knows the mirror.
    """
    if not keys:
        return {}
    lines = "".join(f"{key}\n" for key in keys)
    said = _run(repository, ("whereis", "--batch-keys", "--json"), stdin=lines).stdout
    found: dict[str, tuple[str, ...]] = {}
    for line in said.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)
            places = [place for place in answer["whereis"] if place["uuid"] == _WEB]
            found[answer["key"]] = tuple(url for place in places for url in place["urls"])
    return found


def _run(
    repository: Path,
    arguments: tuple[str, ...],
    *,
    stdin: str | None,
    settings: Sequence[str] = (),
    seconds: float | None = None,
) -> subprocess.CompletedProcess[str]:
    check_annex()
    return subprocess.run(
        annex_command(*arguments, settings=settings),
        cwd=repository,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=seconds,
        env=without_secrets(tool_environment()),
        encoding="utf-8",
        errors="replace",
    )


def _explain(repository: Path, arguments: tuple[str, ...], complaint: str) -> str:
    return explain(repository, f"git-annex {arguments[0]}", complaint)


def initialise(repository: Path, description: str) -> None:
    """Make `repository` one that git-annex knows."""
    # Its hooks go where git looks for them: into this repository, which is our own work.
    hooks = repository / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    annex_settings = (f"core.hooksPath={hooks}",)
    done = _run(repository, ("init", "--quiet", description), stdin=None, settings=annex_settings)
    if done.returncode:
        raise AnnexFailed(_explain(repository, ("init",), done.stderr))


def ensure_known(repository: Path) -> None:
    """Let git-annex know a clone that plain git made.

    Its own way, at the first call, would run what a stranger's dataset says is to be enabled.
    """
    if _is_known(repository):
        return
    locks = repository / ".git" / "verse-data" / "locks"
    with storage_errors(locks), key_lock(locks, "init", timeout=_INIT_SECONDS):
        if _is_known(repository):
            return  # another process was first; two at once make git-annex fail
        arguments = ("init", "--no-autoenable", "--quiet", "verse-data")
        done = _run(repository, arguments, stdin=None)
        if done.returncode:
            raise AnnexFailed(_explain(repository, arguments, done.stderr))


def _is_known(repository: Path) -> bool:
    try:
        git(repository, "config", "annex.uuid")
    except GitFailed:
        return False
    return True


def record_presence(repository: Path, keys: Sequence[str], *, uuid: str) -> None:
    """Tell git-annex that the contents of `keys` are in the repository `uuid`."""
    if keys:
        lines = "".join(f"{key} {uuid} 1\n" for key in keys)
        annex(repository, "setpresentkey", "--batch", stdin=lines)
        annex(repository, "merge", "--quiet")  # the batch leaves its answers in the journal
