"""git-annex: the contents in its object folder, and its record of which are present.

We put verified contents there ourselves, at the path that follows from their key. git-annex is told
later, in one batch: until then a list in ``.git/verse-data`` keeps their keys, also after a kill.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from verse_data import files
from verse_data.errors import DownloadCorrupt, StorageError
from verse_data.locks import key_lock
from verse_data.records.lock import LockedFile
from verse_data.records.source_file import object_path, other_object_path, size_and_digest
from verse_data.releases.environment import check_annex, tool_environment
from verse_data.releases.git import check_writable, failure, git

_OVERRIDES: Final = ("core.fsmonitor=false", "annex.alwayscompact=false")
_INIT_SECONDS: Final = 600.0
_LONGEST: Final = 470
"""Bytes of a repository's path: SQLite opens no path over 512, and git-annex's databases lie inside."""


def require_short(repository: Path, *, spare: int = 0) -> None:
    """Raise StorageError if git-annex cannot work in `repository`, or in a path `spare` bytes longer."""
    size = len(os.fsencode(os.path.realpath(repository)))
    if size > _LONGEST - spare:
        raise StorageError(
            f"{repository}: the path is too long: it has {size} bytes, and git-annex works with at most "
            f"{_LONGEST - spare}. Nothing was written. Choose a shorter place, with --root or VERSE_DATA_HOME."
        )


def require_usable(repository: Path) -> None:
    """Raise now what would later keep git-annex from recording added or removed contents."""
    require_short(repository)
    check_annex()
    git(repository, "rev-parse", "--git-dir")


def initialise(repository: Path, description: str, *, hooks: Path = Path("/dev/null")) -> None:
    """Initialise git-annex in `repository`; it writes its hooks into the folder `hooks`."""
    # Its automatic initialisation would start the special remotes that a clone's source enabled.
    options = ("--no-autoenable", "--quiet", description)
    call_annex(repository, "init", *options, settings=[f"core.hooksPath={hooks}"])


def ensure_known(repository: Path) -> str:
    """Return git-annex's id of a repository; initialise git-annex in a clone made by plain git."""
    if uuid := check_writable(repository).get("annex.uuid"):
        return uuid
    locks = repository / ".git" / "verse-data" / "locks"
    with files.storage_errors(locks), key_lock(locks, "init", timeout=_INIT_SECONDS):
        # Checked again under the lock, since two calls at once make git-annex fail.
        if "annex.uuid" not in check_writable(repository):
            initialise(repository, "verse-data")
    return check_writable(repository)["annex.uuid"]


def record_presence(repository: Path, present: Mapping[str, bool]) -> None:
    """Tell git-annex for each key whether its content is in this repository."""
    if present:
        uuid = ensure_known(repository)
        lines = "".join(f"{key} {uuid} {int(here)}\n" for key, here in present.items())
        call_annex(repository, "setpresentkey", "--batch", stdin=lines.encode())
        # The batch command only writes git-annex's journal; a merge commits it.
        merge(repository)


def merge(repository: Path) -> None:
    """Merge fetched or imported copies of the git-annex branch into the local one."""
    ensure_known(repository)
    call_annex(repository, "merge", "--quiet")


def call_annex(
    repository: Path,
    verb: str,
    *arguments: str,
    stdin: bytes = b"",
    settings: Sequence[str] = (),
    check: bool = True,
) -> bytes:
    """Call git-annex in a repository that may be written, without hooks; return its output."""
    require_short(repository)
    check_annex()
    check_writable(repository)
    every = (*_OVERRIDES, "core.hooksPath=/dev/null", *settings)
    options = [word for setting in every for word in ("-c", setting)]
    # Files instead of pipes, so that it also ends if this process is killed.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
        given.write(stdin)
        given.seek(0)
        done = subprocess.run(
            ["git-annex", verb, *options, *arguments],
            stdin=given, stdout=printed, stderr=printed,
            check=False, cwd=repository, env=tool_environment(),
        )  # fmt: skip
        printed.seek(0)
        output = printed.read()
    if check and done.returncode:
        raise failure(repository, f"git-annex {verb}", output)
    return output


def find_content(git_folder: Path, key: str) -> Path | None:
    """Return the path of whatever has the key's name, in either of git-annex's two layouts."""
    for layout in (object_path, other_object_path):
        path = git_folder / layout(key).removeprefix(".git/")
        if os.path.lexists(path):
            return path
    return None


def is_whole(path: Path, file: LockedFile) -> bool:
    """Whether `path` is a plain file of the locked size."""
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_size == file.size


class ObjectStore:
    """The contents of the repository in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def incoming(self) -> Path:
        """Folder for unfinished content; on the same disk as the objects."""
        return self.path / ".git" / "verse-data" / "incoming"

    def object_path(self, file: LockedFile) -> Path:
        """Return the path of the content of `file`, which need not exist."""
        found = find_content(self.path / ".git", file.annex_key)
        return found or self.path / object_path(file.annex_key)

    def has(self, file: LockedFile) -> bool:
        """Whether content of the right size is here; its digest was checked when it was added."""
        return is_whole(self.object_path(file), file)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """Yield a path for unfinished content, for this call only; remove what is left there."""
        with files.staging(self.incoming / name) as staged:
            yield staged

    def ingest(self, file: LockedFile, staged: Path) -> None:
        """Move verified content into place, read-only, and remember to record it with git-annex."""
        size = staged.stat().st_size
        if size != file.size:
            raise DownloadCorrupt(
                f"{file.path}: {size:,} bytes came, and {file.size:,} are locked. Nothing was kept."
            )
        with files.storage_errors(self.object_path(file)):
            self._remember([file.annex_key])
            if self.has(file):
                staged.unlink()
            else:
                self._move(staged, file)

    def _move(self, staged: Path, file: LockedFile) -> None:
        """Flush `staged` and move it into place with git-annex's modes: file 0444 in folder 0555."""
        # git-annex keeps each content in a folder of its own. That folder is filled elsewhere and
        # renamed as a whole, so that threads and processes with the same content need no lock: the
        # first wins, and the others drop theirs.
        target = self.object_path(file)
        home = target.parent
        home.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o444)
        with files.staging(self.incoming / home.name) as folder:
            folder.mkdir()
            staged.rename(folder / target.name)
            files.sync(folder / target.name)
            try:
                folder.rename(home)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                # The folder holds no copy of another process, but something else or a part of it.
                if not self.has(file):
                    home.chmod(0o755)
                    (folder / target.name).replace(target)
            home.chmod(0o555)

    def remove(self, file: LockedFile, *, confirm: Callable[[], bool] = lambda: True) -> bool:
        """Remove a content, if it is here, by moving it away from its final path in one step.

        `confirm` is called after that; unless it returns True, the content is put back and False is
        returned. So two folders that are each other's last copy never both remove theirs.
        """
        home = self.object_path(file).parent
        with files.storage_errors(home), suppress(FileNotFoundError):
            self.incoming.mkdir(parents=True, exist_ok=True)
            if not home.is_symlink():
                home.chmod(0o755)
        with files.set_aside(home, self.incoming) as aside, files.storage_errors(home):
            if os.path.lexists(aside) and not confirm():
                aside.rename(home)
                return False
        return True

    def _remember(self, keys: Iterable[str]) -> None:
        """Write keys to a new list, atomically, since other processes read and remove lists."""
        with files.staging(self.incoming / "pending") as staged:
            staged.write_text("".join(f"{key}\n" for key in keys))
            staged.rename(self.incoming.with_name(f"pending-{secrets.token_hex(8)}"))

    @contextmanager
    def unrecorded(self) -> Iterator[list[str]]:
        """Yield the keys that git-annex was not told of yet; forget them if the block succeeds."""
        lists = sorted(self.incoming.parent.glob("pending-*"))
        keys = sorted({key for path in lists for key in _read_keys(path)})
        places = {key: find_content(self.path / ".git", key) for key in keys}
        here = [key for key, place in places.items() if place and place.exists()]
        yield here
        if coming := set(keys).difference(here):
            # Another process is about to move these into place: keep them for a later record.
            self._remember(sorted(coming))
        for path in lists:
            path.unlink(missing_ok=True)


def _read_keys(path: Path) -> list[str]:
    """Return the keys in a list; none if it is gone, or not a list."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return []
        lines = path.read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    return [line for line in lines if size_and_digest(line)]
