"""A lock as git history: one commit and one annotated tag a version, the same on every machine.

``git fast-import`` writes 1,500 files in well under a second. Author, dates and dataset id are
fixed, so that the commit id follows from the locks alone.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from verse_data.records.keys import link_target, log_folder
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.releases.environment import AUTHOR_EMAIL, AUTHOR_NAME, GitFailed
from verse_data.releases.git import git
from verse_data.releases.git import tags

LOCK_PATH: Final = ".verse/lock.json"
_FIRST_DAY: Final = 1577836800  # 2020-01-01: a date that says nothing, but does not change either
_DAY: Final = 86400
_NAMESPACE: Final = uuid.UUID("6c1f4b0e-4d0f-5c59-9a3e-0d3c5a7c1e19")
Addresses = Callable[[LockedFile], Sequence[str]]

_WEB: Final = "00000000-0000-0000-0000-000000000001"
_ATTRIBUTES: Final = b"""\
* annex.backend=SHA256E
**/.git* annex.largefiles=nothing
/.datalad/** annex.largefiles=nothing
/.verse/** annex.largefiles=nothing
"""


def dataset_id(release: str) -> str:
    """Return DataLad's id of the dataset of a release: the same everywhere."""
    return str(uuid.uuid5(_NAMESPACE, release))


def import_version(
    repository: Path,
    lock: ReleaseLock,
    *,
    number: int,
    parent: str | None,
    namespace: str,
    addresses: Addresses,
) -> str:
    """Write one version's commit and its addresses, and return the commit id."""
    main = _main_commit(lock, number=number, parent=parent, branch=f"{namespace}/main")
    annex = _annex_commit(lock, addresses, branch=f"{namespace}/git-annex")
    return _import(repository, [*main, *annex, b"get-mark :1\n"]).decode().strip()


def import_addresses(
    repository: Path, lock: ReleaseLock, *, namespace: str, addresses: Addresses
) -> None:
    """Write the addresses of a lock's files to the branch ``git-annex`` of `namespace`."""
    _import(repository, _annex_commit(lock, addresses, branch=f"{namespace}/git-annex"))


def _import(repository: Path, parts: Iterable[bytes]) -> bytes:
    options = ("--quiet", "--force", "--date-format=raw")
    return git(repository, "fast-import", *options, stdin=b"".join(parts))


def create_tag(repository: Path, lock: ReleaseLock, *, number: int, commit: str) -> bool:
    """Create the annotated tag of a version; return False if another process was first."""
    text = (
        f"object {commit}\ntype commit\ntag v{number}\ntagger {_person(number)}\n\n"
        f"{lock.release} v{number}\n\nLock: sha256:{lock.digest}\n"
    )
    made = git(repository, "mktag", stdin=text.encode()).decode().strip()
    try:
        # Fails if the tag exists: of two processes that publish at once, one is first.
        git(repository, "update-ref", f"refs/tags/v{number}", made, "0" * len(made))
    except GitFailed:
        if not tags(repository, re.compile(f"v{number}")):
            raise
        return False
    return True


def _person(number: int) -> str:
    return f"{AUTHOR_NAME} <{AUTHOR_EMAIL}> {_FIRST_DAY + (number - 1) * _DAY} +0000"


def _main_commit(
    lock: ReleaseLock, *, number: int, parent: str | None, branch: str
) -> Iterator[bytes]:
    message = (
        f"{lock.release} v{number}\n\n{len(lock.files)} files, {lock.total_bytes} bytes.\n"
        f"Lock: sha256:{lock.digest}\n\n"
        f"The date is fixed, so that the commit id follows from the lock alone.\n"
    )
    settings = f'[datalad "dataset"]\n\tid = {dataset_id(lock.release)}\n'
    yield f"commit {branch}\nmark :1\nauthor {_person(number)}\ncommitter {_person(number)}\n".encode()
    yield _data(message.encode())
    if parent:
        yield f"from {parent}\n".encode()
    yield b"deleteall\n"
    yield _file("100644", ".datalad/config", settings.encode())
    yield _file("100644", ".gitattributes", _ATTRIBUTES)
    yield _file("100644", LOCK_PATH, lock.canonical())
    for file in lock.files:
        yield _file("120000", file.path, link_target(file.path, file.annex_key).encode())


def _annex_commit(lock: ReleaseLock, addresses: Addresses, *, branch: str) -> Iterator[bytes]:
    """Give the commit that tells git-annex where each file is on the web.

    Its time stamps are the oldest there can be: whatever git-annex has noted itself is newer.
    """
    urls_of: dict[str, dict[str, None]] = {}
    for file in lock.files:
        urls_of.setdefault(file.annex_key, {}).update(dict.fromkeys(addresses(file)))
    yield f"commit {branch}\ncommitter {_person(1)}\n".encode()
    yield _data(b"addresses\n")
    for key, urls in urls_of.items():
        if urls:
            log = f"{log_folder(key)}/{key}.log"
            yield _file("100644", log, f"1s 1 {_WEB}\n".encode())
            yield _file("100644", f"{log}.web", "".join(f"1s 1 {url}\n" for url in urls).encode())


def _file(mode: str, path: str, content: bytes) -> bytes:
    return f"M {mode} inline {_quoted(path)}\n".encode() + _data(content)


def _quoted(path: str) -> str:
    """Return a path as fast-import reads it; a lock's paths hold no control characters."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)
