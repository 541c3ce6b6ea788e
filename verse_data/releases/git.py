"""Calling git safely: reading any folder, and writing only in folders with known settings.

git acts on the configuration of the repository that it works in, which can name programs to run.
So a folder is *read* by a git that works in an empty temporary repository, with the folder's objects
in place of its own: no setting, hook, filter or remote of the folder takes effect, whoever owns it.
git *writes* only where every setting is one that this package, git-annex or DataLad makes, with a
value that cannot name a program.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from verse_data.errors import DiskFull, IntegrityError, PathRefused, StorageError, UnsafeInput
from verse_data.files import storage_errors
from verse_data.releases.environment import environment_with, tool_environment
from verse_data.releases.urls import redacted_text

# --- reading: objects, tags and settings of any folder ---------------------------------------------


class GitFailed(StorageError):
    """git failed for a reason without an error class of its own."""


_ID: Final = re.compile(r"[0-9a-f]{40}")
_MOST_BYTES: Final = 128 << 20
_SMALL: Final = ("config", "packed-refs", "refs/tags")
"""Parts of a git folder that are read, besides its objects."""


class GitObject(NamedTuple):
    """One object: its id, its type (``blob``, ``tree``, ``commit`` or ``tag``) and its content."""

    id: str
    type: str
    content: bytes


def git_folder(folder: Path, *, read: Sequence[str] = _SMALL) -> Path:
    """Return the ``.git`` of `folder`, after checking that all of `read` in it is safe to read."""
    found = folder / ".git"
    if found.is_symlink() or not found.is_dir() or (found / "commondir").exists():
        raise PathRefused(
            f"{folder}: .git is no plain folder with a repository in it (but a link, a work tree or a "
            f"submodule), and links out of the folder are not followed. Clone it as a folder of its own: "
            f"git clone {folder} ANOTHER_FOLDER"
        )
    for name in read:
        _refuse_special((found / name).parent)
        refuse_special_files(found / name)
    return found


def refuse_special_files(place: Path, *, contents: Path | None = None) -> None:
    """Raise PathRefused if `place`, or anything below it, is a link, a pipe or a device.

    A link could lead out of the folder, and opening a pipe would block for ever. Files two folders
    below `contents` are not checked.
    """
    _refuse_special(place)
    for parent, folders, files in os.walk(place):
        for name in (*folders, *files):
            _refuse_special(Path(parent, name))
        if Path(parent).parent == contents:
            folders.clear()


def _refuse_special(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # absent, or removed meanwhile
    # Sockets are left by git's monitor and by git-annex's connections; neither is opened here.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode)):
        raise PathRefused(
            f"{path} is a link or no plain file, which is neither read nor written. "
            f"Nothing was done. If it is yours, put a plain file or folder in its place."
        )


def rebuild(folder: Path) -> str:
    """Return the advice for a release with damaged git objects: make it again."""
    return (
        f"Build the release again from its lock in another folder: verse-data lock {folder.name} "
        f"--from-lock FILE --root ANOTHER_FOLDER"
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
        # In this order, like git: packing writes packed-refs before it removes loose files.
        loose = [_loose_tag(path) for path in (place / "refs" / "tags").glob("*")]
        packed = place / "packed-refs"
        lines = packed.read_text(errors="replace").splitlines() if packed.is_file() else []
    rows = [line.partition(" refs/tags/") for line in (*lines, *loose)]
    found = {name: identity for identity, _, name in rows}
    chosen = {name: text for name, text in found.items() if names.fullmatch(name)}
    if wrong := [name for name, text in chosen.items() if not _ID.fullmatch(text)]:
        raise UnsafeInput(
            f"{folder}: tag {wrong[0]} holds no SHA-1 name of an object: it is damaged, or of a repository "
            f"with SHA-256 names, which git-annex does not read. {rebuild(folder)}"
        )
    return chosen


def _loose_tag(path: Path) -> str:
    """Return a file of ``refs/tags`` as a line of ``packed-refs``."""
    try:
        return f"{path.read_text(errors='replace').strip()} refs/tags/{path.name}"
    except (FileNotFoundError, IsADirectoryError):  # packed or removed meanwhile
        return ""


def read_objects(folder: Path, names: Sequence[str]) -> list[GitObject | None]:
    """Return the object of each name, such as an id or ``ID:.verse/lock.json``.

    None if it is not here, also if the folder's settings would make git fetch it.
    """
    lines = "\n".join([*names, ""]).encode(errors="surrogateescape")
    with _reading(folder) as environment:
        stream = io.BytesIO(_read(folder, environment, "cat-file", "--batch", stdin=lines))
    return [_next_object(stream) for _ in names]


def _next_object(stream: io.BytesIO) -> GitObject | None:
    """Read one object from the output of ``git cat-file --batch``."""
    identity, *facts = stream.readline().decode(errors="replace").strip().rsplit(" ", 2)
    if len(facts) != 2 or not facts[1].isdigit():
        return None  # "NAME missing", or "NAME ambiguous"
    content = stream.read(int(facts[1]))
    stream.readline()
    # git itself does not check that a loose object has the digest that is its name.
    whole = f"{facts[0]} {facts[1]}\0".encode() + content
    if hashlib.sha1(whole, usedforsecurity=False).hexdigest() != identity:
        raise IntegrityError(f"git object {identity} holds other bytes than its name promises")
    return GitObject(identity, facts[0], content)


def links(folder: Path, tree: str) -> dict[str, str]:
    """Return the target of each symbolic link in a tree, by path."""
    with _reading(folder) as environment:
        listing = _read(folder, environment, "ls-tree", "-r", "-z", "--full-tree", tree)
    names = {}
    for row in listing.split(b"\0")[:-1]:
        facts, _, path = row.partition(b"\t")
        mode, _, name = facts.decode().split()
        if mode == "120000":
            names[path.decode(errors="surrogateescape")] = name
    found = zip(names, read_objects(folder, list(names.values())), strict=True)
    targets = {path: link.content.decode(errors="surrogateescape") for path, link in found if link}
    if lost := len(names) - len(targets):
        raise IntegrityError(
            f"{folder}: git objects of {lost} files are missing; the dataset is damaged. {rebuild(folder)}"
        )
    return targets


def read_config(folder: Path) -> list[tuple[str, str]]:
    """Return each setting of ``.git/config`` as written; includes are not followed."""
    config = git_folder(folder) / "config"
    words = ("config", "--no-includes", "-z", "--file", str(config), "--list")
    with _reading(folder) as environment:
        listing = _read(folder, environment, *words)
    pairs = (entry.partition("\n") for entry in listing.decode(errors="replace").split("\0"))
    return [(key, value) for key, _, value in pairs if key]


@contextmanager
def _reading(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment for a git in an empty repository that reads the objects of `folder`."""
    objects = git_folder(folder, read=("objects",)) / "objects"
    alternates = objects / "info" / "alternates"
    if alternates.exists():
        raise PathRefused(
            f"{folder}: its git objects are in another folder too ({alternates}), and other folders are not "
            f"followed. Make it whole with: git -C {folder} repack -a -d && rm {alternates}"
        )
    with tempfile.TemporaryDirectory(prefix="verse-data-") as home:
        repository = Path(home)
        (repository / "refs").mkdir()
        (repository / "HEAD").write_text("ref: refs/heads/main\n")
        (repository / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        yield environment_with("GIT_EXEC_PATH") | {
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_DIR": home,
            "GIT_OBJECT_DIRECTORY": os.path.realpath(objects),
        }


def _read(folder: Path, environment: Mapping[str, str], *words: str, stdin: bytes = b"") -> bytes:
    """Return the output of a git command that only reads."""
    # Not in this process's own folder, which may have been removed.
    place = Path(environment["GIT_DIR"])
    code, printed, complaint = _run(["git", *words], environment, stdin=stdin, folder=place)
    if code < 0 or any(text.encode() in complaint for text in _NO_ROOM):
        raise failure(folder, f"git {words[0]}", complaint)  # killed, or a full disk
    if code:
        raise IntegrityError(
            f"{folder}: git {words[0]} cannot read it; the dataset is damaged. {rebuild(folder)}"
        )
    return printed


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: bytes,
    folder: Path | None = None,
) -> tuple[int, bytes, bytes]:
    """Return exit code, stdout (limited, as crafted objects can expand without end) and stderr."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaint:
        given.write(stdin)
        given.seek(0)
        with subprocess.Popen(
            command,
            env=environment, cwd=folder, stdin=given, stdout=subprocess.PIPE, stderr=complaint,
        ) as process:  # fmt: skip
            assert process.stdout
            printed = process.stdout.read(_MOST_BYTES + 1)
            if len(printed) > _MOST_BYTES:
                process.kill()
                raise UnsafeInput(
                    f"git printed more than {_MOST_BYTES:,} bytes, which is over the limit: no release is "
                    f"like this. Nothing of it was used."
                )
        complaint.seek(0)
        return process.returncode, printed, complaint.read()


# --- writing: in folders whose settings are all known ----------------------------------------------

# The user's own configuration must not change what is written here, and no hooks of a folder are run.
_OVERRIDES: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.quotePath=false",
    "core.sharedRepository=false",
    "init.defaultRefFormat=files",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)

_BOOLEAN: Final = "(true|false)?"
_UUID: Final = "[0-9A-Fa-f-]+"
_NAME: Final = r"[\w./-]+"
_RIA: Final = r"ria\+(file|ssh|https?)://(\w+@)?[\w/]\S*"
_FOLDER: Final = r"(file://)?[^-:][^:]*"
_SERVER: Final = rf"(https?|ssh|git)://(\w+@)?[\w/]\S*|{_RIA}|\w[\w.@-]*:(?!//)[\w~./][^:\s]*"
LOCATION: Final = re.compile(f"{_FOLDER}|{_SERVER}", re.ASCII)
"""Allowed places of a sibling: a folder, or a server by a protocol that starts only ssh."""
_SETTINGS: Final = {
    r"core\.repositoryformatversion": "0",
    r"core\.bare": "false",
    r"core\.(filemode|logallrefupdates|ignorecase|precomposeunicode|symlinks)": _BOOLEAN,
    r"core\.sharedrepository": r"\w*",
    r"receive\.denynonfastforwards": _BOOLEAN,
    r"user\.(name|email)": ".*",
    r"annex\.uuid": _UUID,
    # An older version would have git-annex convert the repository first.
    r"annex\.version": "8|9|10",
    r"annex\.(retry|retry-delay)": r"\d+",
    r"annex\.stalldetection": r"\d+[kKMG]?B/\d+s",
    r"annex\.(crippledfilesystem|pidlock|sshcaching)": _BOOLEAN,
    r"filter\.annex\.(smudge|clean)": r"git-annex smudge( --clean)?( --)? %f",
    r"filter\.annex\.process": "git-annex filter-process",
    r"branch\..+\.remote": _NAME,
    r"branch\..+\.merge": _NAME,
    r"remote\..+\.(push)?url": LOCATION.pattern,
    r"remote\..+\.fetch": r"\+?refs/[\w./*-]+:refs/[\w./*-]+",
    r"remote\..+\.tagopt": "--(no-)?tags",
    r"remote\..+\.annex-uuid": _UUID,
    r"remote\..+\.(annex-ignore|annex-readonly|skipfetchall)": _BOOLEAN,
    r"remote\..+\.annex-verified": r"\w+",
    r"remote\..+\.annex-cost": r"[\d.]+",
    r"remote\..+\.annex-externaltype": "ora",
    r"remote\..+\.ora-url": _RIA,
    r"remote\..+\.datalad-publish-depends": _NAME,
    r"datalad\.get\.subdataset-source-candidate-.+": r"ria\+(file|ssh|https?)://\S+",
}
"""Allowed settings and their values, as patterns. None of them can name a program of the folder's."""
# Joined by a line end, which neither a name nor a dot in its pattern can match.
_EXPECTED: Final = re.compile(
    "|".join(f"(?:{name})\n(?:{values})" for name, values in _SETTINGS.items()), re.ASCII
)


def check_writable(folder: Path) -> dict[str, str]:
    """Return the settings of a repository, if they and its hooks are all allowed; else raise."""
    place = git_folder(folder)
    # With any of these missing, git would look for another repository, such as the work tree itself.
    if not all((place / name).exists() for name in ("HEAD", "config", "objects", "refs")):
        raise PathRefused(
            f"{folder}: its .git lacks HEAD, config, objects or refs. Nothing was done."
        )
    found = read_config(folder)
    for key, value in found:
        if not _EXPECTED.fullmatch(f"{key}\n{value}"):
            remedy = f"git config --file {place / 'config'} --unset-all {key}"
            raise UnsafeInput(_refusal(folder, f".git/config sets {key}", remedy))
    # git's own hooks are switched off in our calls; those of git-annex cannot be.
    for hook in sorted((place / "hooks").glob("*")):
        if hook.name.lower().endswith("-annex"):
            raise UnsafeInput(_refusal(folder, f".git/hooks holds {hook.name}", f"rm {hook}"))
    refuse_special_files(place, contents=place / "annex" / "objects")
    return dict(found)


def _refusal(folder: Path, found: str, remedy: str) -> str:
    return (
        f"{folder}: nothing was changed, since its {found}, which this package did not write and git or "
        f"git-annex would act on. The folder can still be read. If that is yours: {remedy}. "
        f"If the folder is somebody else's, make a release of your own from it: "
        f"verse-data lock {folder.name} --from-lock {folder}/.verse/lock.json --root ANOTHER_FOLDER, "
        f"then verse-data adopt {folder.name} {folder} --root ANOTHER_FOLDER"
    )


def git(repository: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Call git in a repository that may be written, and return its output."""
    check_writable(repository)
    return call_git(repository, *arguments, stdin=stdin)


def init(folder: Path) -> None:
    """Make an empty repository at `folder`, without any template."""
    options = ("--quiet", "--template=", "--initial-branch=main", "--object-format=sha1")
    call_git(folder.parent, "init", *options, str(folder))


def call_git(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Call git in a folder that is ours, and return its output."""
    options = [word for setting in _OVERRIDES for word in ("-c", setting)]
    command = ["git", "--no-pager", "--literal-pathspecs", *options, *arguments]
    # If the folder is no repository, git must not use one that contains it.
    ceiling = {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}
    environment = tool_environment() | ceiling
    code, printed, complaint = _run(command, environment, stdin=stdin, folder=folder)
    if code:
        raise failure(folder, f"git {arguments[0]}", complaint)
    return printed


_NO_ROOM: Final = ("No space left", "Disk quota exceeded", "Out of diskspace")
_ADVICE: Final = re.compile(
    r"^hint:.*|\w+: \d+ failed$|\([^()]*--force[^()]*\)"
    r"|[^.!?()]*(--force\b|\bgit[ -]annex \w)[^.!?()]*[.!?]?"
)
_LEAST_FREE: Final = 64 << 10
"""Free bytes below which no writing command succeeds."""


def failure(repository: Path, command: str, printed: bytes) -> StorageError:
    """Return the error of a failed command of git or git-annex, from its output."""
    complaint = redacted_text(printed.decode(errors="replace"))
    free = shutil.disk_usage(repository if repository.exists() else repository.parent).free
    if free < _LEAST_FREE or any(words in complaint for words in _NO_ROOM):
        return DiskFull(
            f"No room left: {command} hit the end of the disk at {repository}; {free:,} bytes free. "
            f"Free some room, or set VERSE_DATA_HOME to a larger disk, and run it again."
        )
    if "dubious ownership" in complaint or "is owned by someone else" in complaint:
        return GitFailed(
            f"{repository} belongs to another user, and git refuses to work there. Work as that "
            f"user, or, if you trust the folder, allow it once: "
            f"git config --global --add safe.directory {repository}"
        )
    # What git and git-annex advise, such as --force, is often wrong for what this package does.
    lines = [_ADVICE.sub("", line).strip() for line in complaint.splitlines()]
    lines = [line for line in lines if line] or ["no message"]
    reasons = [line for line in lines if line.startswith(("fatal:", "error:", "git-annex:"))]
    return GitFailed(f"{repository}: {command} failed: {next(iter(reasons), lines[-1])}")
