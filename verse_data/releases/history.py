"""The versions of a release, read from its git objects, and what changed from one to another.

Neither git-annex nor a checkout is needed, and the folder may be read-only or somebody else's.
"""

from __future__ import annotations

import re
import shlex
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from verse_data import config as configuration
from verse_data.errors import IntegrityError, UsageError
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import Role, role_of, scan_of
from verse_data.releases import git

LOCK_PATH: Final = ".verse/lock.json"
VERSION: Final = re.compile(r"v[1-9][0-9]{0,8}")
_NAMESPACE: Final = uuid.UUID("6c1f4b0e-4d0f-5c59-9a3e-0d3c5a7c1e19")
PIN: Final = re.compile(r"sha256:([0-9a-f]{12,64})")


def dataset_id(release: str) -> str:
    """Return DataLad's id of the dataset of a release, which is the same everywhere."""
    return str(uuid.uuid5(_NAMESPACE, release))


class History:
    """The versions of the release in one folder, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._cache: dict[str, tuple[ReleaseLock, str]] = {}

    @property
    def name(self) -> str:
        """Name of the release: the folder's."""
        return self.path.name

    def exists(self) -> bool:
        """Whether the dataset has been built."""
        return (self.path / ".git").exists()

    def versions(self) -> tuple[str, ...]:
        """Return the names of all versions, oldest first; empty if there is no dataset."""
        found = self._tags() if self.exists() else ()
        return tuple(sorted(found, key=lambda tag: int(tag.removeprefix("v"))))

    def resolve(self, version: str | None = None) -> str:
        """Return the name of a version.

        `version` is a name such as ``"v1"``, or ``"sha256:"`` with at least 12 digits of a lock's
        digest; None means the newest. `UsageError` if there is none.
        """
        versions = self.versions()
        if not versions:
            raise UsageError(self._absence())
        if version is None:
            return versions[-1]
        if version in versions:
            return version
        pin = PIN.fullmatch(version)
        fits = [tag for tag in versions if pin and self.lock(tag).digest.startswith(pin[1])]
        if len(fits) == 1:
            return fits[0]
        more = "" if versions[-1] == f"v{len(versions)}" else f" To get all, {self._fetch_tags()}"
        raise UsageError(
            f"Release {self.name!r} at {self.path} has no version {version!r}; it has "
            f"{', '.join(versions)}. Give one of these, or sha256:DIGEST of a lock.{more}"
        )

    def _fetch_tags(self) -> str:
        return f"fetch them: git -C {shlex.quote(str(self.path))} fetch --tags"

    def _absence(self) -> str:
        """Return the message for a folder without any version."""
        get = command(self.path, "get")
        if self.exists():
            return (
                f"{self.path} is a git repository that holds no version of {self.name}: it lacks the tags v1, "
                f"v2, … If it is a clone, {self._fetch_tags()}. Else move it away, and make the release again: "
                f"{get}"
            )
        return (
            f"There is no release {self.name!r} at {self.path}. Make it with: {get}, if it is a published "
            f"one; of files of your own: {command(self.path, 'lock', '--from-tree', 'FOLDER')}"
        )

    def lock(self, version: str | None = None) -> ReleaseLock:
        """Return the lock of a version."""
        return self._version(version)[0]

    def commit(self, version: str | None = None) -> str:
        """Return the commit id of a version, the same wherever the same locks were published."""
        return self._version(version)[1]

    def date(self, version: str | None = None) -> str:
        """Return the day of a version's commit (ISO 8601), the same on every machine."""
        (found,) = git.read_objects(self.path, [self.commit(version)])
        line = re.search(rb"\ncommitter .*> (\d{1,11}) ", found.content if found else b"")
        return datetime.fromtimestamp(int(line[1]) if line else 0, UTC).date().isoformat()

    def _version(self, version: str | None) -> tuple[ReleaseLock, str]:
        tag = version if version in self._cache else self.resolve(version)
        if tag not in self._cache:
            self._cache[tag] = self._read(tag)
        return self._cache[tag]

    def _read(self, tag: str) -> tuple[ReleaseLock, str]:
        """Return lock and commit id of a tag, if the tag's message names the lock's digest."""
        name = self._tags()[tag]
        names = [name, f"{name}^{{commit}}", f"{name}:{LOCK_PATH}"]
        message, commit, found = git.read_objects(self.path, names)
        if message is None or commit is None or found is None or found.type != "blob":
            raise IntegrityError(
                f"{self.path}: version {tag} holds no {LOCK_PATH}, so it is no release of this package's, or "
                f"its git objects are damaged. {git.rebuild(self.path)}"
            )
        lock = ReleaseLock.parse(found.content, name=f"{self.path}: {tag}:{LOCK_PATH}")
        lines = message.content.decode(errors="replace").splitlines()
        if f"Lock: {lock.pin}" not in lines:
            raise IntegrityError(
                f"{self.path}: version {tag} does not name the digest of the lock that it holds "
                f"(sha256:{lock.digest[:12]}); the dataset is damaged or was changed. "
                f"{git.rebuild(self.path)}"
            )
        return lock, commit.id

    def tree_keys(self, version: str | None = None) -> dict[str, str]:
        """Return the annex key of every file of a version by path, from the git tree itself."""
        found = git.links(self.path, self._tags()[self.resolve(version)])
        return {path: target.rsplit("/", 1)[-1] for path, target in found.items()}

    def _tags(self) -> dict[str, str]:
        return git.tags(self.path, VERSION)


def command(
    release: History | Path, verb: str, *words: str, version: str | None = None, note: str = ""
) -> str:
    """Return ``verse-data VERB RELEASE WORDS...`` with the options for this release.

    ``--root`` is added if the release is not where the environment's root has it. `note` becomes a
    comment, so that the line can be pasted.
    """
    path = release if isinstance(release, Path) else release.path
    parts = ["verse-data", verb, path.name, *words]
    if version is not None:
        parts += ["--version", version]
    elsewhere = path != configuration.resolve().release(path.name)
    if path.parent.name == "releases" and elsewhere:
        parts += ["--root", shlex.quote(str(path.parent.parent))]
    return " ".join(parts) + (f"  # {note}" if note else "")


def unless_newest(history: History, version: str | None) -> str | None:
    """Return `version`, or None if it is the newest, which is the default of all commands."""
    return None if version is None or version == history.resolve() else version


# --- what changed -----------------------------------------------------------------------------------

Kind = Literal["appeared", "changed", "moved", "disappeared"]
ROLE_WORDS: Final[dict[Role, str]] = {
    "ct": "CT",
    "ct_json": "CT sidecar",
    "mask": "mask",
    "centroids": "centroids",
    "snapshot": "snapshot",
    "grading": "grading workbook",
}
"""Name of each role in messages."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One file that differs between two versions."""

    kind: Kind  # "moved" is the same content under another path
    scan_id: str  # by the file's name; empty for files of no scan
    role: Role | None  # by the file's name; None if it fits none
    old: LockedFile | None
    new: LockedFile | None

    @property
    def path(self) -> str:
        """Its path: in the new version, or in the old one if it disappeared."""
        file = self.new or self.old
        return file.path if file else ""

    def __str__(self) -> str:
        """Return one line, such as ``mask of verse133 appeared (1,234 bytes)``."""
        what = ROLE_WORDS[self.role] if self.role else "file"
        whose = f" of {self.scan_id}" if self.scan_id else f" {self.path}"
        sizes = [f"{file.size:,}" for file in (self.old, self.new) if file]
        how = f"{self.kind} ({' to '.join(sizes)} bytes)"
        if self.kind == "moved" and self.old:
            how = f"moved from {self.old.path} to {self.path}"
        return f"{what}{whose} {how}"


def diff_locks(old: ReleaseLock, new: ReleaseLock) -> tuple[Change, ...]:
    """Return every file that differs, sorted by scan and path."""
    before, after = old.by_path, new.by_path
    gone = {path: file for path, file in before.items() if path not in after}
    came = {path: file for path, file in after.items() if path not in before}
    source_of = {file.sha256: path for path, file in gone.items()}
    moved = {
        path: source_of.pop(file.sha256) for path, file in came.items() if file.sha256 in source_of
    }
    changes = [_change("moved", gone.pop(source), came.pop(path)) for path, source in moved.items()]
    changes += [_change("disappeared", file, None) for file in gone.values()]
    changes += [_change("appeared", None, file) for file in came.values()]
    changes += [
        _change("changed", file, after[path])
        for path, file in before.items()
        if path in after and file.sha256 != after[path].sha256
    ]
    return tuple(sorted(changes, key=lambda change: (change.scan_id, change.path)))


def _change(kind: Kind, old: LockedFile | None, new: LockedFile | None) -> Change:
    file = new or old
    path = file.path if file else ""
    return Change(kind=kind, scan_id=scan_of(path) or "", role=role_of(path), old=old, new=new)
