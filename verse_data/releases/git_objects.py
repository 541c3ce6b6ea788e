"""A folder's git objects, references and settings, read as data.

git acts on the configuration of the repository that it works in, and much in there names programs. So
nothing here works in the folder: git works in an empty repository of our own, in a temporary folder,
that borrows the folder's objects by ``objects/info/alternates``; references are read as the files that
they are. No setting, hook, filter, remote or helper of the folder is seen, whoever it belongs to.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from verse_data.errors import IntegrityError, PathRefused, UnsafeInput
from verse_data.publishing import storage_errors
from verse_data.releases.environment import GitFailed, reading_environment, run_git

_ID: Final = re.compile(r"[0-9a-f]{40}")
_SHA256_ID: Final = re.compile(r"[0-9a-f]{64}")


class GitObject(NamedTuple):
    """One object: its id, its type (``blob``, ``tree``, ``commit`` or ``tag``) and its content."""

    id: str
    type: str
    content: bytes


def git_folder(folder: Path) -> Path:
    """Return the ``.git`` of `folder`.

    Raises
    ------
    PathRefused
        If it is a link, or leads to a git folder elsewhere, as that of a submodule or work tree does.
    """
    found = folder / ".git"
    if found.is_symlink() or not found.is_dir() or (found / "commondir").exists():
        raise PathRefused(
            f"{folder}: .git is not a plain folder with a repository in it (it is a link, or a work tree "
            f"or submodule of another repository), and others are not followed. Clone it as a folder of its "
            f"own: git clone {folder} ANOTHER_FOLDER"
        )
    return found


def tags(folder: Path) -> dict[str, str]:
    """Return the object id of each tag, by name; those in folders of ``refs/tags`` are left out."""
    place = git_folder(folder)
    if (place / "reftable").exists():
        raise UnsafeInput(
            f"{folder}: its references are a reftable, which is not read. Clone it with "
            f"git clone --ref-format=files {folder} ANOTHER_FOLDER"
        )
    with storage_errors(place):
        found = dict(_packed_tags(place / "packed-refs"))
        loose = place / "refs" / "tags"
        for path in loose.iterdir() if loose.is_dir() else ():
            if path.is_file():
                found[path.name] = path.read_text(errors="replace").strip()
    return {name: _checked_id(folder, name, text) for name, text in found.items()}


def _packed_tags(path: Path) -> Iterator[tuple[str, str]]:
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        identity, _, name = line.partition(" ")
        if name.startswith("refs/tags/"):
            yield name.removeprefix("refs/tags/"), identity


def _checked_id(folder: Path, tag: str, text: str) -> str:
    if _ID.fullmatch(text):
        return text
    if _SHA256_ID.fullmatch(text):
        raise UnsafeInput(
            f"{folder}: tag {tag} is of a repository with SHA-256 object names, which git-annex and this "
            f"package do not read. Build the release again from its lock in another folder: "
            f"verse-data lock RELEASE --from-lock {folder}/.verse/lock.json --root ANOTHER_FOLDER"
        )
    raise IntegrityError(
        f"{folder}: tag {tag} holds {text[:50]!r} and not the name of an object; the dataset is damaged. "
        f"Build it again from its lock in another folder (verse-data lock RELEASE --from-lock FILE)."
    )


def read_objects(folder: Path, names: Sequence[str]) -> list[GitObject | None]:
    """Return the object of each name, such as ``ID:.verse/lock.json`` or ``ID^{commit}``.

    None where there is no such object, also where a stranger's settings would have git fetch it.
    """
    with _borrowing(folder) as repository:
        answer = _git(repository, "cat-file", "--batch", stdin="\n".join([*names, ""]))
    return list(_parsed_batch(answer, len(names)))


def _parsed_batch(answer: bytes, count: int) -> Iterator[GitObject | None]:
    position = 0
    for _ in range(count):
        end = answer.index(b"\n", position)
        identity, *facts = answer[position:end].decode(errors="replace").rsplit(" ", 2)
        position = end + 1
        if len(facts) != 2 or not facts[1].isdigit():
            yield None  # "NAME missing", or "NAME ambiguous"
            continue
        size = int(facts[1])
        yield GitObject(identity, facts[0], answer[position : position + size])
        position += size + 1


def links(folder: Path, tree: str) -> dict[str, str]:
    """Return the target of each symbolic link in a tree, by path.

    Raises
    ------
    IntegrityError
        If an object of the tree is missing.
    """
    with _borrowing(folder) as repository:
        listing = _git(repository, "ls-tree", "-r", "-z", "--full-tree", tree)
    names = dict(_link_rows(listing))
    objects = read_objects(folder, list(names.values()))
    missing = [name for name, found in zip(names.values(), objects, strict=True) if found is None]
    if missing:
        raise IntegrityError(
            f"{folder}: git object {missing[0]} is missing; the dataset is damaged. Build it again "
            f"from its lock in another folder (verse-data lock RELEASE --from-lock FILE)."
        )
    return {
        path: found.content.decode(errors="surrogateescape")
        for path, found in zip(names, objects, strict=True)
        if found
    }


def _link_rows(listing: bytes) -> Iterator[tuple[str, str]]:
    for row in listing.split(b"\0")[:-1]:
        facts, _, path = row.partition(b"\t")
        mode, _, name = facts.decode().split()
        if mode == "120000":
            yield path.decode(errors="surrogateescape"), name


def settings(folder: Path) -> list[tuple[str, str]]:
    """Return each setting of ``.git/config``, as it stands there; what it includes is not followed."""
    config = git_folder(folder) / "config"
    with storage_errors(config):
        content = config.read_bytes()
    with tempfile.TemporaryDirectory(prefix="verse-data-") as name:
        copy = Path(name, "config")
        copy.write_bytes(content)
        listing = _git(Path(name), "config", "--no-includes", "-z", "--file", str(copy), "--list")
    pairs = (entry.partition("\n") for entry in listing.decode(errors="replace").split("\0"))
    return [(key, value) for key, _, value in pairs if key]


@contextmanager
def _borrowing(folder: Path) -> Iterator[Path]:
    """Give an empty repository of our own that borrows the objects of `folder`."""
    objects = _object_folder(folder)
    with tempfile.TemporaryDirectory(prefix="verse-data-") as name:
        repository = Path(name)
        (repository / "refs").mkdir()
        (repository / "objects" / "info").mkdir(parents=True)
        (repository / "HEAD").write_text("ref: refs/heads/main\n")
        (repository / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        (repository / "objects" / "info" / "alternates").write_bytes(os.fsencode(objects) + b"\n")
        yield repository


def _object_folder(folder: Path) -> Path:
    objects = git_folder(folder) / "objects"
    alternates = objects / "info" / "alternates"
    if alternates.exists() or not objects.resolve().is_relative_to(folder.resolve()):
        raise PathRefused(
            f"{folder}: its git objects lie in another folder too ({alternates}), and other folders are not "
            f"followed. Make it whole with: git -C {folder} repack -a -d && rm {alternates}"
        )
    if "\n" in str(objects):
        raise PathRefused(
            f"{str(folder)!r}: a path with a line break is not read. Move the folder."
        )
    return objects.resolve()


def _git(repository: Path, *arguments: str, stdin: str = "") -> bytes:
    """Call git in a repository of our own, without any configuration but its own."""
    done = run_git(
        ("git", f"--git-dir={repository}", *arguments),
        stdin=stdin.encode(errors="surrogateescape"),
        environment=reading_environment(repository),
    )
    if done.returncode:
        raise GitFailed(f"git {arguments[0]} failed: {_last_line(done)}")
    return done.stdout


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
