"""git-annex, called as a program: it keeps track of what lies in a release, and transfers nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from verse_data.files import storage_errors
from verse_data.locks import key_lock
from verse_data.releases.environment import check_annex, run, tool_environment
from verse_data.releases.git import check_writable, failure, git

_OVERRIDES: Final = ("core.fsmonitor=false", "annex.alwayscompact=false")
_INIT_SECONDS: Final = 600.0


def require_usable(repository: Path) -> None:
    """Raise what would stop a later record of what was brought or removed, before anything is."""
    check_annex()
    git(repository, "rev-parse", "--git-dir")


def initialise(repository: Path, description: str) -> None:
    """Make `repository`, which was just built here, one that git-annex knows."""
    # git-annex puts its hooks where git looks for them.
    hooks = repository / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    _annex(repository, "init", "--quiet", description, hooks=str(hooks))


def ensure_known(repository: Path) -> str:
    """Return git-annex's id of a repository; let git-annex know a clone that plain git made.

    Its own way, at the first call, would start the special remotes that the clone's source enabled.
    """
    if uuid := check_writable(repository).get("annex.uuid"):
        return uuid
    locks = repository / ".git" / "verse-data" / "locks"
    with storage_errors(locks), key_lock(locks, "init", timeout=_INIT_SECONDS):
        # Else another process was first; two at once make git-annex fail.
        if "annex.uuid" not in check_writable(repository):
            _annex(repository, "init", "--no-autoenable", "--quiet", "verse-data")
    return check_writable(repository)["annex.uuid"]


def record_presence(repository: Path, present: Mapping[str, bool]) -> None:
    """Tell git-annex of each key whether its content is in this repository."""
    if present:
        uuid = ensure_known(repository)
        lines = "".join(f"{key} {uuid} {int(here)}\n" for key, here in present.items())
        _annex(repository, "setpresentkey", "--batch", stdin=lines)
        # The batch leaves what it was given in git-annex's journal; a merge commits that.
        _annex(repository, "merge", "--quiet")


def merge(repository: Path) -> None:
    """Merge what was fetched or imported of git-annex's branch into its own."""
    ensure_known(repository)
    _annex(repository, "merge", "--quiet")


def _annex(repository: Path, *arguments: str, stdin: str = "", hooks: str = "/dev/null") -> None:
    """Call git-annex in a repository that may be written; git runs the hooks in `hooks` alone."""
    check_annex()
    check_writable(repository)
    options = [
        word for setting in (*_OVERRIDES, f"core.hooksPath={hooks}") for word in ("-c", setting)
    ]
    command = ["git-annex", arguments[0], *options, *arguments[1:]]
    done = run(command, stdin=stdin.encode(), cwd=repository, environment=tool_environment())
    if done.returncode:
        complaint = done.stderr.decode(errors="replace")
        raise failure(repository, f"git-annex {arguments[0]}", complaint)
