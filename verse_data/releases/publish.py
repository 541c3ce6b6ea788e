"""Making a lock a version: build the dataset beside its place, or add a commit and a tag to it.

Both are whole or not at all: the first is a rename, and of the second the tag comes last.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from verse_data.errors import UsageError
from verse_data.files import publish_folder, staging, storage_errors, sweep
from verse_data.records.lock import ReleaseLock
from verse_data.releases import annex, git
from verse_data.releases.environment import GitFailed, check_annex
from verse_data.releases.history import History
from verse_data.releases.importing import Addresses, create_tag, import_addresses, import_version

_SETTINGS: Final = """\
[annex]
\tretry = 3
\tretry-delay = 5
\tstalldetection = 10KB/30s
"""


class NotNewest(UsageError):
    """The version that a lock was made from is not the newest any more."""


def publish(
    history: History, lock: ReleaseLock, *, addresses: Addresses, after: str | None = None
) -> str:
    """Make `lock` a version, and return its name; see :meth:`ReleaseDataset.publish`."""
    path = history.path
    if lock.release != path.name:
        raise UsageError(
            f"The lock is of release {lock.release!r}, and the dataset at {path} is of {path.name!r}. "
            f"Name the release as the lock does."
        )
    check_annex()
    sweep(path.parent)
    if not history.exists():
        require_place(path)
        if _build(path, lock, addresses):
            return "v1"
    return _extend(history, lock, addresses, after)


def require_place(path: Path) -> None:
    """Raise one of our errors if no release can be made at `path`: the tools, its folder, what is there.

    `UsageError` if something else lies there, `PermissionDenied` if its folder cannot be written,
    `ToolMissing` without git or git-annex.
    """
    check_annex()
    if path.exists() and not (path / ".git").exists():
        raise UsageError(
            f"{path} exists and holds no release. Nothing was written. Move it away, or choose "
            f"another place with --root, and run this again."
        )
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _build(path: Path, lock: ReleaseLock, addresses: Addresses) -> bool:
    """Build the dataset beside its place and rename it; False if another process was first."""
    with staging(path) as staged:
        git.init(staged)
        with (staged / ".git" / "config").open("a") as config:
            config.write(_SETTINGS)
        commit = import_version(
            staged, lock, number=1, parent=None, namespace="refs/heads", addresses=addresses
        )
        create_tag(staged, lock, number=1, commit=commit)
        git.git(staged, "reset", "--hard", "--quiet", "main")
        annex.initialise(staged, f"verse-data {lock.release}")
        return publish_folder(staged, path)


def _extend(history: History, lock: ReleaseLock, addresses: Addresses, after: str | None) -> str:
    path, versions = history.path, history.versions()
    git.check_writable(path)
    for version in versions:
        old = history.lock(version)
        if old.content() == lock.content():
            if old.digest != lock.digest:
                add_addresses(path, lock, addresses=addresses)
            # Whoever published the newest may have been killed before this.
            _move_work_tree(history, history.commit(versions[-1]))
            return version
    if after is not None and after != versions[-1]:
        raise NotNewest(
            f"The lock was made from {path.name} {after}, and {versions[-1]} is the newest version now. "
            f"Nothing was written: make it from {versions[-1]}."
        )
    number = int(versions[-1].removeprefix("v")) + 1 if versions else 1
    parent = history.commit(versions[-1]) if versions else None
    with _namespace(path) as namespace:
        commit = import_version(
            path, lock, number=number, parent=parent, namespace=namespace, addresses=addresses
        )
        annex.merge(path)
        made = create_tag(path, lock, number=number, commit=commit)
    if not made:  # another process was first with this number: its version comes before ours
        return _extend(history, lock, addresses, after)
    _move_work_tree(history, commit)
    return f"v{number}"


@contextmanager
def _namespace(path: Path) -> Iterator[str]:
    """Give refs of this call's own, where git-annex looks for branches to merge; remove them."""
    namespace = f"refs/remotes/verse-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield namespace
    finally:
        for branch in ("main", "git-annex"):
            with suppress(GitFailed):
                git.git(path, "update-ref", "-d", f"{namespace}/{branch}")


def add_addresses(path: Path, lock: ReleaseLock, *, addresses: Addresses) -> None:
    """Tell git-annex of the addresses of a lock's files, beside those that it knows."""
    with _namespace(path) as namespace:
        import_addresses(path, lock, namespace=namespace, addresses=addresses)
        annex.merge(path)


def _move_work_tree(history: History, commit: str) -> None:
    """Bring ``main`` and the work tree to `commit`, unless the user has work of their own there.

    The version is published before this, and reading it needs no work tree: what fails is left.
    """
    ours = {history.commit(version) for version in history.versions()}
    with suppress(GitFailed):
        head = git.git(history.path, "symbolic-ref", "--quiet", "HEAD").decode().strip()
        at = git.git(history.path, "rev-parse", "--verify", "--quiet", f"{head}^{{commit}}")
        if head == "refs/heads/main" and at.decode().strip() in ours:
            git.git(history.path, "merge", "--ff-only", "--quiet", commit)
