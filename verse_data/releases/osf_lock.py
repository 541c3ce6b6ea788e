"""From the listing of a node and its components to a release lock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from verse_data.errors import IntegrityError, PathRefused, ValidationFailed
from verse_data.records.base import rule_of
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.releases import catalog
from verse_data.releases.osf_listing import Child, Entry

_SHOWN: Final = 20


@dataclass
class Tree:
    """One round's listing: folders and components of every node."""

    folders: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    children: dict[str, list[Child]] = field(default_factory=dict)


def make_lock(node: str, tree: Tree, release: str) -> ReleaseLock:
    """Return the lock of what `tree` lists, with the catalog's supplements of `release`.

    Raises
    ------
    IntegrityError
        If OSF knows no SHA-256 of a file.
    PathRefused
        If a name could not be a plain file name.
    ValidationFailed
        If two files cannot lie in one tree, or a size or version is missing.
    """
    rows = sorted(_files(tree, node, "", ""), key=lambda row: row[0])
    rows += [
        row
        for child, prefix in _components(tree, node, "", {node})
        for row in _files(tree, child, "", prefix)
    ]
    bare = [path for path, _, entry in rows if entry.sha256 is None]
    if bare:
        more = f" and {len(bare) - _SHOWN} more" if len(bare) > _SHOWN else ""
        raise IntegrityError(
            f"OSF node {node}: no SHA-256 is known of {', '.join(bare[:_SHOWN])}{more}. Without one "
            f"nothing that is downloaded could be checked. Download the release by hand and lock "
            f"the folder: verse-data lock {release} --from-tree FOLDER"
        )
    files = {path: _locked(path, owner, entry) for path, owner, entry in rows}
    if len(files) < len(rows):
        raise ValidationFailed(f"OSF node {node}: two files have one path. No lock was made.")
    files = {**_supplements(release), **files}
    try:
        source = LockSource(kind="osf", node=node)
        return ReleaseLock(
            release=release, source=source, files=tuple(files[path] for path in sorted(files))
        )
    except ValidationError as error:
        reasons = "; ".join(rule_of(problem) for problem in error.errors(include_url=False))
        raise ValidationFailed(
            f"OSF node {node}: the listing makes no release: {reasons}."
        ) from error


def _supplements(release: str) -> dict[str, LockedFile]:
    """Return what belongs to the release but lies elsewhere; its digests are in the catalog."""
    if release not in catalog.names():
        return {}
    return {
        extra.path: LockedFile(
            path=extra.path, size=extra.size, sha256=extra.sha256, md5=extra.md5, urls=extra.urls
        )
        for extra in catalog.load_catalog(release).supplements
    }


def _files(tree: Tree, node: str, folder: str, prefix: str) -> Iterator[tuple[str, str, Entry]]:
    for entry in tree.folders[node, folder]:
        path = f"{prefix}{entry.name}"
        if "/" in entry.name:
            raise PathRefused(f"OSF node {node}: {path!r}: a name holds a slash. No lock was made.")
        if entry.kind == "file":
            yield path, node, entry
        else:
            yield from _files(tree, node, entry.id, f"{path}/")


def _components(tree: Tree, node: str, prefix: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Yield each component below `node` with the folder that its files go to: its title."""
    children = [child for child in tree.children[node] if child.node not in seen]
    seen |= {child.node for child in children}
    plain = {child.node: _folder_name(child) for child in children}
    for child in children:
        name = plain[child.node]
        if [other.casefold() for other in plain.values()].count(name.casefold()) > 1:
            name = f"{name}_{child.node}"
        below = f"{prefix}{name}/"
        yield child.node, below
        yield from _components(tree, child.node, below, seen)


def _folder_name(child: Child) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", child.title).strip("._") or child.node


def _locked(path: str, node: str, entry: Entry) -> LockedFile:
    assert entry.sha256 is not None
    if entry.size is None or entry.version is None:
        raise ValidationFailed(
            f"OSF node {node}: {path!r} has no size or version. No lock was made."
        )
    try:
        return LockedFile(
            path=path,
            size=entry.size,
            sha256=entry.sha256,
            md5=entry.md5,
            node=node,
            file_id=entry.id,
            file_version=entry.version,
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        message = f"OSF node {node}: {path!r}: {where}: {rule_of(problem)}. No lock was made."
        raise (PathRefused if where == "path" else ValidationFailed)(message) from error
