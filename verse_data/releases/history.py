"""The versions of a release, read out of its git objects.

Neither git-annex nor a checkout is needed, and a tree that is read-only or somebody else's will do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from verse_data.errors import IntegrityError, UsageError, did_you_mean
from verse_data.records.lock import ReleaseLock
from verse_data.releases import git_objects
from verse_data.releases.history import command
from verse_data.releases.import_lock import LOCK_PATH

VERSION: Final = re.compile(r"v[1-9][0-9]{0,8}")
_TARGET: Final = re.compile(rb"object ([0-9a-f]{40})\ntype commit\n")
_PIN: Final = re.compile(r"sha256:([0-9a-f]{12,64})")


class History:
    """The versions of the release in one folder.

    Parameters
    ----------
    path : Path
        Folder of the dataset; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locks: dict[str, ReleaseLock] = {}

    def exists(self) -> bool:
        """Whether there is a dataset."""
        return (self.path / ".git").exists()

    def versions(self) -> tuple[str, ...]:
        """Return the names of all versions, oldest first; empty if there is no dataset."""
        if not self.exists():
            return ()
        numbers = sorted(int(tag.removeprefix("v")) for tag in self._tags())
        return tuple(f"v{number}" for number in numbers)

    def resolve(self, version: str | None = None) -> str:
        """Return the version that is meant; see :meth:`Repository.resolve`."""
        name, versions = self.path.name, self.versions()
        if self.exists() and not versions:
            raise UsageError(
                f"{self.path} is a git repository that holds no version of {name}. Move it away, and make "
                f"the release again: {command(self.path, 'get')}"
            )
        if not versions:
            raise UsageError(
                f"There is no release {name!r} at {self.path}.{_meant(self.path)} Make it with: "
                f"{command(self.path, 'get')}, if it is a published one; of files of your own: "
                f"{command(self.path, 'lock', '--from-tree', 'FOLDER')}"
            )
        if version is None:
            return versions[-1]
        if version in versions:
            return version
        pin = _PIN.fullmatch(version)
        fits = [tag for tag in versions if pin and self._lock(tag).digest.startswith(pin[1])]
        if len(fits) == 1:
            return fits[0]
        raise UsageError(
            f"Release {name!r} at {self.path} has no version {version!r}; it has "
            f"{', '.join(versions)}. Give one of these, or sha256:DIGEST of a lock."
        )

    def lock(self, version: str | None = None) -> ReleaseLock:
        """Return the lock of a version."""
        return self._lock(self.resolve(version))

    def _lock(self, tag: str) -> ReleaseLock:
        if tag not in self._locks:
            self._locks[tag] = self._read(tag)
        return self._locks[tag]

    def _read(self, tag: str) -> ReleaseLock:
        """Return the lock of a tag, whose own object names the lock's digest."""
        identity = self._tags()[tag]
        named, found = git_objects.read_objects(self.path, [identity, f"{identity}:{LOCK_PATH}"])
        if named is None or found is None or found.type != "blob":
            raise IntegrityError(
                f"{self.path}: version {tag} holds no {LOCK_PATH}, so it is no release of this package's, or "
                f"its git objects are damaged. {git_objects.rebuild(self.path)}"
            )
        lock = ReleaseLock.parse(found.content, name=f"{self.path}: {tag}:{LOCK_PATH}")
        if f"Lock: sha256:{lock.digest}" not in named.content.decode(errors="replace").splitlines():
            raise IntegrityError(
                f"{self.path}: version {tag} does not name the digest of the lock that it holds "
                f"(sha256:{lock.digest[:12]}); the dataset is damaged or was changed. "
                f"{git_objects.rebuild(self.path)}"
            )
        return lock

    def commit(self, version: str | None = None) -> str:
        """Return the commit id of a version."""
        identity = self._tags()[self.resolve(version)]
        (named,) = git_objects.read_objects(self.path, [identity])
        target = _TARGET.match(named.content) if named and named.type == "tag" else None
        if named is None or (named.type != "commit" and target is None):
            raise IntegrityError(
                f"{self.path}: the commit of a version is missing; the dataset is damaged. "
                f"{git_objects.rebuild(self.path)}"
            )
        return target[1].decode() if target else named.id

    def tree_keys(self, version: str | None = None) -> dict[str, str]:
        """Return the annex key of every file of a version by path, out of the git tree itself."""
        found = git_objects.links(self.path, self._tags()[self.resolve(version)])
        return {path: target.rsplit("/", 1)[-1] for path, target in found.items()}

    def _tags(self) -> dict[str, str]:
        return git_objects.tags(self.path, VERSION)


def _meant(path: Path) -> str:
    """Return what the name of a release that is not here was meant to be, unless it is a known one."""
    from verse_data.releases.catalog import names

    here = [folder.name for folder in path.parent.iterdir()] if path.parent.is_dir() else []
    return "" if path.name in names() else did_you_mean(path.name, {*here, *names()})
