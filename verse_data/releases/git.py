"""git, by its plumbing: what releases are read and written with.

No call here runs a hook, a file-system monitor, a filter or a submodule of the repository: a
dataset that came from somewhere is data.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from verse_data.errors import IntegrityError, StorageError, ToolMissing
from verse_data.releases.environment import tool_environment

# Whatever the repository or the user configures, these hold for our calls.
_SETTINGS: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.quotePath=false",
    "protocol.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)


class GitFailed(StorageError):
    """git ended with an error that has no better name."""


def git(repository: Path, *arguments: str, stdin: bytes | None = None, read: bool = True) -> bytes:
    """Call git in `repository` and return what it printed.

    Parameters
    ----------
    repository : Path
        Folder with the work tree.
    *arguments : str
        Subcommand and its arguments.
    stdin : bytes, optional
        What git reads.
    read : bool, default True
        Whether the call only reads; such a call also works on a repository of another user.

    Raises
    ------
    GitFailed
        If git ends with an error; the text holds its last line.
    ToolMissing
        If there is no git.
    """
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    command = [
        "git",
        "--no-pager",
        "--literal-pathspecs",
        *settings,
        "-C",
        str(repository),
        *arguments,
    ]
    environment = tool_environment(trusted=repository if read else None)
    # What is no repository shall not lead to one that it happens to lie in.
    environment["GIT_CEILING_DIRECTORIES"] = str(repository.resolve().parent)
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise ToolMissing(
            "git is not installed, or not on PATH. Install it and run this again."
        ) from error
    if done.returncode:
        words = " ".join(("git", *arguments[:2]))
        raise GitFailed(explain(repository, words, done.stderr.decode(errors="replace")))
    return done.stdout


def explain(repository: Path, command: str, complaint: str) -> str:
    """Return what became of a command of git or git-annex, by its last line."""
    if "dubious ownership" in complaint or "is owned by someone else" in complaint:
        return (
            f"{repository} belongs to another user, and git refuses to work there. Work as that "
            f"user, or, if you trust the folder, allow it once: "
            f"git config --global --add safe.directory {repository}"
        )
    last = complaint.strip().splitlines()[-1:] or ["no message"]
    return f"{repository}: {command} failed: {last[0]}"


def siblings(repository: Path) -> tuple[str, ...]:
    """Return the names of the remotes that may give contents; none of them is asked.

    git-annex knows a remote with contents by its id. A clone that it has not seen yet knows none.
    """
    settings = r"^(annex\.uuid|remote\..*\.(url|annex-uuid|annex-ignore))$"
    try:
        listing = git(repository, "config", "-z", "--get-regexp", settings).decode()
    except GitFailed:
        return ()  # there is no such setting
    said = dict(line.split("\n", 1) for line in listing.split("\0") if "\n" in line)
    tells = "annex-uuid" if "annex.uuid" in said else "url"
    remotes = (key.removeprefix("remote.").rpartition(".") for key in said)
    return tuple(
        name
        for name, _, setting in remotes
        if setting == tells and said.get(f"remote.{name}.annex-ignore") != "true"
    )


def tags(repository: Path) -> list[str]:
    """Return the names of all tags."""
    listing = git(repository, "for-each-ref", "--format=%(refname:strip=2)", "refs/tags")
    return listing.decode().split("\n")[:-1]


def commit_of(repository: Path, reference: str) -> str | None:
    """Return the commit id that a tag or branch stands for, or None if there is none."""
    try:
        answer = git(repository, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    except GitFailed:
        return None
    return answer.decode().strip()


def blob(repository: Path, name: str) -> bytes:
    """Return the content of the blob `name`, such as ``v1:.verse/lock.json``."""
    return git(repository, "cat-file", "blob", name)


def tree_keys(repository: Path, reference: str) -> dict[str, str]:
    """Return the annex key of each symbolic link in the tree of `reference`, by path.

    Two calls of git in all; no checkout, no git-annex.
    """
    links = dict(_links(git(repository, "ls-tree", "-r", "-z", "--full-tree", reference)))
    targets = _contents(repository, links.values())
    return {path: targets[name].rsplit("/", 1)[-1] for path, name in links.items()}


def _links(listing: bytes) -> Iterator[tuple[str, str]]:
    for row in listing.split(b"\0")[:-1]:
        facts, _, path = row.partition(b"\t")
        mode, _, name = facts.decode().split()
        if mode == "120000":
            yield path.decode(errors="surrogateescape"), name


def _contents(repository: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the text of each blob by its object name."""
    wanted = list(dict.fromkeys(names))
    answer = git(repository, "cat-file", "--batch", stdin="\n".join([*wanted, ""]).encode())
    texts: dict[str, str] = {}
    position = 0
    for name in wanted:
        end = answer.index(b"\n", position)
        header = answer[position:end].split()
        if len(header) != 3:
            raise IntegrityError(
                f"{repository}: git object {name} is missing; the dataset is damaged. Build it again "
                f"from its lock in another folder (verse-data lock RELEASE --from-lock FILE)."
            )
        size = int(header[2])
        texts[name] = answer[end + 1 : end + 1 + size].decode(errors="surrogateescape")
        position = end + size + 2
    return texts
