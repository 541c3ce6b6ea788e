"""The object store of a dataset: git-annex's own folder of contents, by arithmetic.

Whoever puts content there brings it verified. git-annex learns of it later, in one go: until then a
line in ``.git/verse-data/pending`` remembers it, also after a kill.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from verse_data.errors import DownloadCorrupt
from verse_data.files import staging, storage_errors, sync
from verse_data.records.keys import object_path, other_object_path, size_and_digest
from verse_data.records.lock import LockedFile


class ObjectStore:
    """Contents of one dataset.

    Parameters
    ----------
    path : Path
        Folder of the dataset.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def incoming(self) -> Path:
        """Folder for content on its way in; on the disk that the objects lie on."""
        return self.path / ".git" / "verse-data" / "incoming"

    def object_path(self, file: LockedFile) -> Path:
        """Return where the content of `file` lies, or would lie."""
        return self._place(file.annex_key)

    def _place(self, key: str) -> Path:
        """Return the place of a content in whichever of git-annex's two layouts it lies, else in the first."""
        usual, other = self.path / object_path(key), self.path / other_object_path(key)
        return other if not os.path.lexists(usual) and os.path.lexists(other) else usual

    def has(self, file: LockedFile) -> bool:
        """Whether content of the right size is here; its digest was checked when it came."""
        try:
            facts = self.object_path(file).lstat()
        except OSError:
            return False
        return stat.S_ISREG(facts.st_mode) and facts.st_size == file.size

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """Give a path of this call's own for content on its way in; remove what is left there."""
        with staging(self.incoming / name) as staged:
            yield staged

    def ingest(self, file: LockedFile, staged: Path) -> None:
        """Move verified content into place, read-only, and remember to record it with git-annex."""
        size = staged.stat().st_size
        if size != file.size:
            raise DownloadCorrupt(
                f"{file.path}: {size:,} bytes came, and {file.size:,} are locked. Nothing was kept."
            )
        target = self.object_path(file)
        with storage_errors(target):
            self._remember([file.annex_key])
            if self.has(file):
                staged.unlink()
                return
            self._move(staged, file)

    def _move(self, staged: Path, file: LockedFile) -> None:
        """Flush `staged` and move it into place with git-annex's modes: file 0444 in folder 0555.

        git-annex gives each content a folder of its own. That folder is filled elsewhere and renamed
        as a whole, so that threads and processes that bring the same content need not know of each
        other: the first wins, and the others drop theirs.
        """
        target = self.object_path(file)
        home = target.parent
        home.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o444)
        with staging(self.incoming / home.name) as folder:
            folder.mkdir()
            staged.rename(folder / target.name)
            sync(folder / target.name)
            try:
                folder.rename(home)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                # Not another's copy of it: something else lies in the folder, or a piece of it.
                if not self.has(file):
                    home.chmod(0o755)
                    (folder / target.name).replace(target)
            home.chmod(0o555)

    def _remember(self, keys: Iterable[str]) -> None:
        """Note keys in a list of its own, which is there whole or not at all: others take it away."""
        with staging(self.incoming / "pending") as staged:
            staged.write_text("".join(f"{key}\n" for key in keys))
            staged.rename(self.incoming.with_name(f"pending-{secrets.token_hex(8)}"))

    def remove(self, file: LockedFile, *, confirm: Callable[[], bool] = lambda: True) -> bool:
        """Remove a content, if it is here: it leaves its final name at once, whole.

        `confirm` is asked once it has left; unless it says True, the content is put back and False is
        returned. So two folders that are each other's last copy never both remove theirs.
        """
        home = self.object_path(file).parent
        with staging(self.incoming / home.name) as aside, suppress(FileNotFoundError):
            if not home.is_symlink():
                home.chmod(0o755)
            home.rename(aside)
            if not confirm():
                aside.rename(home)
                return False
        return True

    @contextmanager
    def unrecorded(self) -> Iterator[list[str]]:
        """Give the keys that git-annex does not know of yet; forget them if the block succeeds."""
        lists = sorted(self.incoming.parent.glob("pending-*"))
        keys = sorted({key for path in lists for key in _lines(path)})
        here = [key for key in keys if self._place(key).exists()]
        yield here
        if coming := set(keys).difference(here):
            # Another process is just about to move these: they stay to be recorded.
            self._remember(sorted(coming))
        for path in lists:
            path.unlink(missing_ok=True)


def _lines(path: Path) -> list[str]:
    """Return the keys in a list; nothing where it is gone, or no list."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return []
        lines = path.read_bytes().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    return [line for line in lines if size_and_digest(line)]
