"""Make a lock a version: one commit and one annotated tag, the same on every machine.

``git fast-import`` writes 1,500 files in well under a second. Author, dates and dataset id are fixed,
so that the commit id follows from the locks only. The first version is built in a temporary folder
that is then renamed; a later one exists once its tag, which is written last, does.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from verse_data import files
from verse_data.config import Config
from verse_data.errors import IntegrityError, StorageError, UsageError
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.source_file import link_target, log_folder
from verse_data.releases import annex, git
from verse_data.releases.environment import AUTHOR_EMAIL, AUTHOR_NAME, check_annex
from verse_data.releases.git import GitFailed, tags
from verse_data.releases.history import LOCK_PATH, PIN, History, dataset_id
from verse_data.releases.http import read_url
from verse_data.releases.urls import redacted_text

Addresses = Callable[[LockedFile], Sequence[str]]

_FIRST_DAY: Final = 1577836800  # 2020-01-01: arbitrary, but fixed
_DAY: Final = 86400
_MOST_LOCK_BYTES: Final = 64 << 20
_WEB: Final = "00000000-0000-0000-0000-000000000001"
_ATTRIBUTES: Final = b"""\
* annex.backend=SHA256E
**/.git* annex.largefiles=nothing
/.datalad/** annex.largefiles=nothing
/.verse/** annex.largefiles=nothing
"""
_SETTINGS: Final = """\
[annex]
\tretry = 3
\tretry-delay = 5
\tstalldetection = 10KB/30s
"""


class NotNewest(UsageError):
    """The version that a lock was made from is no longer the newest."""


def read_lock(place: str, config: Config, *, digest: str | None = None) -> ReleaseLock:
    """Read somebody else's lock from a file or an address, if its digest is the given one."""
    name = redacted_text(place)
    if place.startswith(("http://", "https://")):
        data = read_url(place, config=config, most=_MOST_LOCK_BYTES)
    else:
        try:
            data = Path(place).read_bytes()
        except OSError as error:
            raise UsageError(f"{name}: {error.strerror}. Give another lock file.") from error
    lock = ReleaseLock.parse(data, name=name)
    if digest is None:
        return lock
    pin = PIN.fullmatch(digest)
    if pin is None:
        raise UsageError(
            f"{digest!r} is no digest of a lock: write sha256: and 12 to 64 digits of it."
        )
    if not lock.digest.startswith(pin[1]):
        raise IntegrityError(
            f"{name} is the lock {lock.pin}, and {digest} was asked for. Nothing was "
            f"written. Ask whoever gave you the digest for its lock."
        )
    return lock


def datalad_config(release: str) -> bytes:
    """Return the content of ``.datalad/config``, the same in every version of a release."""
    return f'[datalad "dataset"]\n\tid = {dataset_id(release)}\n'.encode()


def publish(
    history: History, lock: ReleaseLock, *, addresses: Addresses, after: str | None = None
) -> str:
    """Make `lock` a version, and return its name; see :meth:`Repository.publish`."""
    path = history.path
    if lock.release != path.name:
        raise UsageError(
            f"The lock is of release {lock.release!r}, and the dataset at {path} is of {path.name!r}. "
            f"Name the release as the lock does."
        )
    check_annex()
    files.sweep(path.parent)
    if not history.exists():
        require_place(path)
        if _build(path, lock, addresses):
            return "v1"
    annex.require_usable(path)
    versions = history.versions()
    newest = history.resolve()
    for version in versions:
        old = history.lock(version)
        if old.content() == lock.content():
            if old.digest != lock.digest:
                _import_beside(path, lock, 1, None, addresses)  # only for its addresses
            # The process that published the newest may have been killed before this step.
            _move_work_tree(path, history.commit(newest))
            return version
    if after not in {None, newest}:
        raise NotNewest(
            f"The lock was made from {path.name} {after}, and {newest} is the newest version now. "
            f"Nothing was written: make it from {newest}."
        )
    number = int(newest.removeprefix("v")) + 1
    commit = _import_beside(path, lock, number, history.commit(newest), addresses)
    if not _create_tag(path, lock, number=number, commit=commit):
        # Another process was first with this number: its version comes before ours.
        return publish(history, lock, addresses=addresses, after=after)
    _move_work_tree(path, commit)
    return f"v{number}"


def require_place(path: Path) -> None:
    """Raise one of our errors if no release can be made at `path`.

    `UsageError` if something else is there, `PermissionDenied` if its folder cannot be written,
    `ToolMissing` without git or git-annex.
    """
    check_annex()
    if path.exists() and not (path / ".git").exists():
        raise UsageError(
            f"{path} exists and holds no release. Nothing was written. Move it away, or choose "
            f"another place with --root, and run this again."
        )
    annex.require_short(path, spare=files.STAGED)
    with files.staging(path) as probe:
        probe.touch()


def finish(repository: Path, commit: str, description: str) -> None:
    """Add settings, work tree and git-annex's id to a repository that has its versions."""
    with (repository / ".git" / "config").open("a") as config:
        config.write(_SETTINGS)
    git.git(repository, "checkout", "--quiet", "--force", "-B", "main", commit)
    hooks = repository / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    annex.initialise(repository, description, hooks=hooks)


def _build(path: Path, lock: ReleaseLock, addresses: Addresses) -> bool:
    """Build the dataset in a temporary folder and rename it; False if another process was first."""
    with files.staging(path) as staged:
        git.init(staged)
        commit = import_version(staged, lock, 1, None, namespace="refs/heads", addresses=addresses)
        _create_tag(staged, lock, number=1, commit=commit)
        finish(staged, commit, f"verse-data {lock.release}")
        return files.publish_folder(staged, path)


def _import_beside(
    path: Path, lock: ReleaseLock, number: int, parent: str | None, addresses: Addresses
) -> str:
    """Write a version's commit, tell git-annex of its addresses, and return the commit id."""
    # Refs for this call only, where git-annex looks for branches to merge.
    namespace = f"refs/remotes/verse-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        commit = import_version(
            path, lock, number, parent, namespace=namespace, addresses=addresses
        )
        annex.merge(path)
    finally:
        for branch in ("main", "git-annex"):
            with suppress(StorageError):
                git.git(path, "update-ref", "-d", f"{namespace}/{branch}")
    return commit


def _move_work_tree(path: Path, commit: str) -> None:
    """Move ``main`` and the work tree to `commit`, unless the user has commits of their own there."""
    # The version is published already, and reading it needs no work tree, so a failure is ignored.
    with suppress(StorageError):
        head = git.git(path, "symbolic-ref", "--quiet", "HEAD")
        if head.strip() == b"refs/heads/main":
            git.git(path, "merge", "--ff-only", "--quiet", commit)


def _create_tag(repository: Path, lock: ReleaseLock, *, number: int, commit: str) -> bool:
    """Create the annotated tag of a version; return False if another process was first."""
    text = (
        f"object {commit}\ntype commit\ntag v{number}\ntagger {_author(number)}\n\n"
        f"{lock.release} v{number}\n\nLock: {lock.pin}\n"
    )
    made = git.git(repository, "mktag", stdin=text.encode()).decode().strip()
    try:
        # Fails if the tag exists: of two processes that publish at once, one is first.
        git.git(repository, "update-ref", f"refs/tags/v{number}", made, "0" * len(made))
    except GitFailed:
        if not tags(repository, re.compile(f"v{number}")):
            raise
        return False
    return True


def import_version(
    repository: Path,
    lock: ReleaseLock,
    number: int,
    parent: str | None,
    *,
    namespace: str,
    addresses: Addresses,
) -> str:
    """Write one version's commit and its addresses to branches of `namespace`; return the commit id."""
    main = _main_commit(lock, number, parent, branch=f"{namespace}/main")
    addressed = _annex_commit(lock, addresses, branch=f"{namespace}/git-annex")
    stream = b"".join((*main, *addressed, b"get-mark :1\n"))
    options = ("--quiet", "--force", "--date-format=raw")
    return git.git(repository, "fast-import", *options, stdin=stream).decode().strip()


def _author(number: int) -> str:
    return f"{AUTHOR_NAME} <{AUTHOR_EMAIL}> {_FIRST_DAY + (number - 1) * _DAY} +0000"


def _main_commit(
    lock: ReleaseLock, number: int, parent: str | None, *, branch: str
) -> Iterator[bytes]:
    message = (
        f"{lock.release} v{number}\n\n{len(lock.files)} files, {lock.total_bytes} bytes.\n"
        f"Lock: {lock.pin}\n\n"
        f"The date is fixed, so that the commit id follows from the lock alone.\n"
    )
    author = _author(number)
    yield f"commit {branch}\nmark :1\nauthor {author}\ncommitter {author}\n".encode()
    yield _data(message.encode())
    if parent:
        yield f"from {parent}\n".encode()
    yield b"deleteall\n"
    yield _file("100644", ".datalad/config", datalad_config(lock.release))
    yield _file("100644", ".gitattributes", _ATTRIBUTES)
    yield _file("100644", LOCK_PATH, lock.canonical())
    for file in lock.files:
        yield _file("120000", file.path, link_target(file.path, file.annex_key).encode())


def _annex_commit(lock: ReleaseLock, addresses: Addresses, *, branch: str) -> Iterator[bytes]:
    """Yield the commit that tells git-annex the web addresses of each file."""
    # Its time stamps are the oldest possible, so that anything that git-annex records itself is
    # newer.
    urls_of: dict[str, dict[str, None]] = {}
    for file in lock.files:
        urls_of.setdefault(file.annex_key, {}).update(dict.fromkeys(addresses(file)))
    yield f"commit {branch}\ncommitter {_author(1)}\n".encode()
    yield _data(b"addresses\n")
    for key, urls in urls_of.items():
        if urls:
            log = f"{log_folder(key)}/{key}.log"
            yield _file("100644", log, f"1s 1 {_WEB}\n".encode())
            yield _file("100644", f"{log}.web", "".join(f"1s 1 {url}\n" for url in urls).encode())


def _file(mode: str, path: str, content: bytes) -> bytes:
    # The paths of a lock have no control characters.
    quoted = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'M {mode} inline "{quoted}"\n'.encode() + _data(content)


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)
