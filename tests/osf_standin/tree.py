"""What lies on the stand-in: nodes, folders, files, versions. Ids are permanent, guids are not."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

_ids = itertools.count(0x5FFCA086E80D)


def new_id() -> str:
    """Return the next id: 24 hex digits, as MongoDB makes them."""
    return f"{next(_ids):012x}{0xBA0109031C89:012x}"


@dataclass(eq=False)
class File:
    """A file with all its versions, oldest first; version numbers count from 1."""

    name: str
    versions: list[bytes]
    id: str = field(default_factory=new_id)
    guid: str | None = None
    hashed: bool = True

    @property
    def newest(self) -> bytes:
        """Bytes of the newest version."""
        return self.versions[-1]

    def hashes(self, number: int) -> dict[str, str | None]:
        """Return md5 and sha256 of a version; very old files have none."""
        if not self.hashed:
            return {"md5": None, "sha256": None}
        content = self.versions[number - 1]
        return {
            "md5": hashlib.md5(content).hexdigest(),
            "sha256": hashlib.sha256(content).hexdigest(),
        }


@dataclass(eq=False)
class Folder:
    """A folder; the root of a node's storage has no name and no id in addresses."""

    name: str
    id: str = field(default_factory=new_id)
    children: dict[str, File | Folder] = field(default_factory=dict)


@dataclass(eq=False)
class Node:
    """A project or component."""

    id: str
    title: str = "VerSe"
    root: Folder = field(default_factory=lambda: Folder(""))
    components: list[Node] = field(default_factory=list)
    public: bool = True

    def upload(self, path: str, content: bytes) -> File:
        """Store `content` under `path`; identical bytes make no new version."""
        *folders, name = path.split("/")
        here = self.root
        for part in folders:
            below = here.children.setdefault(part, Folder(part))
            assert isinstance(below, Folder), path
            here = below
        file = here.children.get(name)
        if file is None:
            file = here.children[name] = File(name, [content])
        assert isinstance(file, File), path
        if file.newest != content:
            file.versions.append(content)
        return file

    def upload_tree(self, folder: Path) -> None:
        """Store every file below `folder` under its relative path."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.upload(path.relative_to(folder).as_posix(), path.read_bytes())

    def find(self, path: str) -> File | Folder:
        """Return what lies under `path`."""
        here: File | Folder = self.root
        for part in path.split("/"):
            assert isinstance(here, Folder), path
            here = here.children[part]
        return here

    def delete(self, path: str) -> None:
        """Delete a file, with all its versions, or a folder."""
        above, _, name = path.rpartition("/")
        folder = self.find(above) if above else self.root
        assert isinstance(folder, Folder), path
        del folder.children[name]

    def rename(self, path: str, name: str) -> None:
        """Give a file or folder another name in its folder; that makes no version."""
        above, _, old = path.rpartition("/")
        folder = self.find(above) if above else self.root
        assert isinstance(folder, Folder), path
        thing = folder.children.pop(old)
        thing.name = name
        folder.children[name] = thing

    def walk(self) -> dict[str, tuple[str, File | Folder]]:
        """Return path and thing of everything in the storage, by id."""
        found: dict[str, tuple[str, File | Folder]] = {}

        def below(folder: Folder, prefix: str) -> None:
            for thing in folder.children.values():
                is_folder = isinstance(thing, Folder)
                path = f"{prefix}{thing.name}{'/' if is_folder else ''}"
                found[thing.id] = (f"/{path}", thing)
                if isinstance(thing, Folder):
                    below(thing, path)

        below(self.root, "")
        return found
