"""A folder's git objects, references and settings, read as data.

git acts on the configuration of the repository that it works in, and much in there names programs. So
nothing here works in the folder: git works in an empty repository in a temporary folder, with the
folder's objects in place of its own; references and configuration are read as the files that they
are. No setting, hook, filter, remote or helper of the folder takes effect, whoever it belongs to.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from verse_data.errors import IntegrityError, PathRefused, UnsafeInput
from verse_data.files import storage_errors
from verse_data.releases.environment import GitFailed, reading_environment, run

_ID: Final = re.compile(r"[0-9a-f]{40}")
_SHA256_ID: Final = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES: Final = 128 << 20
_MOST_CONFIG: Final = 1 << 20
_SECONDS: Final = 120.0
_SMALL: Final = ("config", "packed-refs", "refs/tags")
"""What is read of a git folder, beside its objects."""


class GitObject(NamedTuple):
    """One object: its id, its type (``blob``, ``tree``, ``commit`` or ``tag``) and its content."""

    id: str
    type: str
    content: bytes


def git_folder(folder: Path, *, read: Sequence[str] = _SMALL) -> Path:
    """Return the ``.git`` of `folder`, once it is known that all of `read` in it can be read."""
    found = folder / ".git"
    if found.is_symlink() or not found.is_dir() or (found / "commondir").exists():
        raise PathRefused(
            f"{folder}: .git is not a plain folder with a repository in it (it is a link, a work tree or a "
            f"submodule), and what lies elsewhere is not followed. Clone it as a folder of its own: "
            f"git clone {folder} ANOTHER_FOLDER"
        )
    for name in read:
        _refuse_special((found / name).parent)
        refuse_special_files(found / name)
    return found


def refuse_special_files(place: Path, *, but: Container[Path] = ()) -> None:
    """Raise PathRefused if `place`, or anything below it, is a link, a pipe or a device.

    A link could lead out of the folder, and whoever opens a pipe waits for ever. What is below `but`
    is not looked at.
    """
    _refuse_special(place)
    waiting = [place] if place.is_dir() else []
    while waiting:
        with storage_errors(place), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                _refuse_special(path)
                if entry.is_dir(follow_symlinks=False) and path not in but:
                    waiting.append(path)


def _refuse_special(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # not there, or gone meanwhile
    # Sockets are left by git's monitor and by git-annex's connections; neither is opened here.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode)):
        raise PathRefused(
            f"{path} is a link or no plain file, and what lies elsewhere is neither read nor written. "
            f"Nothing was done. If it is yours, put a plain file or folder in its place."
        )


def tags(folder: Path, names: re.Pattern[str]) -> dict[str, str]:
    """Return the object id of each tag whose name matches, by name."""
    place = git_folder(folder)
    if (place / "reftable").exists():
        raise UnsafeInput(
            f"{folder}: its references are a reftable, which is not read. Clone it with "
            f"git clone --ref-format=files {folder} ANOTHER_FOLDER"
        )
    with storage_errors(place):
        # In this order, as git does: packing writes the one before it removes the other.
        loose = dict(_loose_tags(place / "refs" / "tags"))
        found = {**dict(_packed_tags(place / "packed-refs")), **loose}
    return {
        name: _checked_id(folder, name, text)
        for name, text in found.items()
        if names.fullmatch(name)
    }


def _loose_tags(place: Path) -> Iterator[tuple[str, str]]:
    for path in place.iterdir() if place.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):  # packed or removed meanwhile
                yield path.name, path.read_text(errors="replace").strip()


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
            f"package do not read. {rebuild(folder)}"
        )
    raise IntegrityError(
        f"{folder}: tag {tag} holds no name of an object; the dataset is damaged. {rebuild(folder)}"
    )


def rebuild(folder: Path) -> str:
    """Return how a release is made again whose git objects are of no use."""
    return (
        f"Build the release again from its lock in another folder: verse-data lock {folder.name} "
        f"--from-lock FILE --root ANOTHER_FOLDER"
    )


def read_objects(folder: Path, names: Sequence[str]) -> list[GitObject | None]:
    """Return the object of each name, such as an id or ``ID:.verse/lock.json``.

    None where there is no such object, also where a stranger's settings would have git fetch it.
    """
    lines = "\n".join([*names, ""])
    with _reading(folder) as environment:
        sizes = _git("cat-file", "--batch-check", stdin=lines, environment=environment)
        total = sum(
            int(row.rsplit(b" ", 1)[-1]) for row in sizes.splitlines() if row[-1:].isdigit()
        )
        if total > _MOST_BYTES:
            raise UnsafeInput(
                f"{folder}: git objects of {total:,} bytes are over the limit of {_MOST_BYTES:,}. "
                f"Nothing was read."
            )
        answer = _git("cat-file", "--batch", stdin=lines, environment=environment)
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
        content = answer[position : position + size]
        position += size + 1
        # git itself does not compare what it reads of a loose object with its name.
        whole = f"{facts[0]} {size}\0".encode() + content
        if hashlib.sha1(whole, usedforsecurity=False).hexdigest() != identity:
            raise IntegrityError(f"git object {identity} holds other bytes than its name promises")
        yield GitObject(identity, facts[0], content)


def links(folder: Path, tree: str) -> dict[str, str]:
    """Return the target of each symbolic link in a tree, by path."""
    try:
        with _reading(folder) as environment:
            listing = _listing(tree, environment)
        names = dict(_link_rows(listing))
        found = read_objects(folder, list(names.values()))
    except GitFailed as error:
        raise IntegrityError(
            f"{folder}: {error}; the dataset is damaged. {rebuild(folder)}"
        ) from error
    targets = {path: link for path, link in zip(names, found, strict=True) if link}
    if len(targets) < len(names):
        raise IntegrityError(
            f"{folder}: git objects of {len(names) - len(targets)} files are missing; the dataset is "
            f"damaged. {rebuild(folder)}"
        )
    return {path: link.content.decode(errors="surrogateescape") for path, link in targets.items()}


def _listing(tree: str, environment: Mapping[str, str]) -> bytes:
    """Return the rows of a tree; few objects can make a listing without end, so it has a limit."""
    command = ("git", "ls-tree", "-r", "-z", "--full-tree", tree)
    with subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        listing = process.stdout.read(_MOST_BYTES + 1)
        if len(listing) > _MOST_BYTES:
            process.kill()
            raise IntegrityError(f"git tree {tree} lists more than {_MOST_BYTES:,} bytes of names")
    if process.returncode:
        raise GitFailed(f"git tree {tree} cannot be read")
    return listing


def _link_rows(listing: bytes) -> Iterator[tuple[str, str]]:
    for row in listing.split(b"\0")[:-1]:
        facts, _, path = row.partition(b"\t")
        mode, _, name = facts.decode().split()
        if mode == "120000":
            yield path.decode(errors="surrogateescape"), name


def read_config(folder: Path) -> list[tuple[str, str]]:
    """Return each setting of ``.git/config``, as it stands there; what it includes is not followed."""
    config = git_folder(folder) / "config"
    with storage_errors(config):
        content = config.read_bytes()[: _MOST_CONFIG + 1]
    if len(content) > _MOST_CONFIG:
        raise UnsafeInput(
            f"{config} is over the limit of {_MOST_CONFIG:,} bytes. Nothing was done."
        )
    try:
        with tempfile.TemporaryDirectory(prefix="verse-data-") as home:
            listing = _git(
                *("config", "--no-includes", "-z", "--file", "-", "--list"),
                stdin=content.decode(errors="surrogateescape"),
                environment=reading_environment(Path(home)),
            )
    except GitFailed as error:
        raise UnsafeInput(f"{config} cannot be read: {error}. Nothing was done.") from error
    pairs = (entry.partition("\n") for entry in listing.decode(errors="replace").split("\0"))
    return [(key, value) for key, _, value in pairs if key]


@contextmanager
def _reading(folder: Path) -> Iterator[dict[str, str]]:
    """Give the environment of a git in an empty repository that reads the objects of `folder`."""
    objects = git_folder(folder, read=("objects",)) / "objects"
    alternates = objects / "info" / "alternates"
    if alternates.exists():
        raise PathRefused(
            f"{folder}: its git objects lie in another folder too ({alternates}), and other folders are not "
            f"followed. Make it whole with: git -C {folder} repack -a -d && rm {alternates}"
        )
    with tempfile.TemporaryDirectory(prefix="verse-data-") as name:
        repository = Path(name)
        (repository / "refs").mkdir()
        (repository / "HEAD").write_text("ref: refs/heads/main\n")
        (repository / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        yield reading_environment(repository) | {
            "GIT_DIR": name,
            "GIT_OBJECT_DIRECTORY": os.path.realpath(objects),
        }


def _git(*arguments: str, stdin: str = "", environment: Mapping[str, str]) -> bytes:
    words = stdin.encode(errors="surrogateescape")
    try:
        done = run(("git", *arguments), stdin=words, environment=environment, seconds=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise GitFailed(f"git {arguments[0]} did not end in {_SECONDS:.0f} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise GitFailed(f"git {arguments[0]} failed: {lines[-1] if lines else 'no message'}")
    return done.stdout
