"""git: which program is called, what is around it, and in which folders it reads and writes.

git acts on the configuration of the repository that it works in, and much in there names programs.
So a folder is *read* by a git that works in an empty repository of a temporary folder, with the
folder's objects in place of its own: no setting, hook, filter or remote of the folder takes effect,
whoever it belongs to. git *writes* only where every setting is one that this package, git-annex or
DataLad makes, with a value that can name no program.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import stat
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from verse_data.errors import (
    DiskFull,
    IntegrityError,
    PathRefused,
    StorageError,
    ToolMissing,
    UnsafeInput,
)
from verse_data.publishing import storage_errors

# --- the programs, and what is around them --------------------------------------------------------

GIT_FLOOR: Final = (2, 31)
ANNEX_FLOOR: Final = (10, 20230126)
"""What DataLad 1.7 asks for."""

AUTHOR_NAME: Final = "verse-data"
AUTHOR_EMAIL: Final = "verse-data@users.noreply.invalid"
_IDENTITY: Final = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", AUTHOR_NAME), ("EMAIL", AUTHOR_EMAIL))
}
# Every other variable of git's steers it to another repository or program, as when a git hook
# started us, and is left out.
_KEPT: Final = r"GIT_(EXEC_PATH|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+))"


class GitFailed(StorageError):
    """git ended with an error that has no better name."""


class GitDiskFull(GitFailed, DiskFull):
    """git or git-annex found no room on the disk."""


class Tool(NamedTuple):
    """A program that is there and new enough: where, which version, and the oldest that will do."""

    program: str
    version: str
    floor: str


def tool_folders() -> tuple[str, ...]:
    """Return the folders of git-annex and of this environment's programs.

    A Python that is called without activating its environment has neither on PATH. The folder of
    the ``git_annex`` package holds the program itself, which starts 30 ms sooner than its shim.
    """
    spec = importlib.util.find_spec("git_annex")
    origin = [str(Path(spec.origin).parent)] if spec and spec.origin else []
    return (*origin, sysconfig.get_path("scripts"))


def search_path(environment: Mapping[str, str]) -> str:
    """Return PATH with :func:`tool_folders` in front, each folder once."""
    parts = [*tool_folders(), *environment.get("PATH", os.defpath).split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(filter(None, parts)))


def check_git() -> Tool:
    """Return git; raise ToolMissing unless one that is new enough can be called."""
    how = "your system's package manager (apt install git, brew install git)"
    return _require(search_path(os.environ), "git", ("--version",), GIT_FLOOR, how)


def check_annex() -> Tool:
    """Return git-annex; raise ToolMissing unless git, and one that is new enough, can be called."""
    check_git()
    how = "pip install --upgrade git-annex"
    return _require(search_path(os.environ), "git-annex", ("version", "--raw"), ANNEX_FLOOR, how)


@lru_cache(maxsize=8)
def _require(
    path: str, name: str, question: tuple[str, ...], floor: tuple[int, ...], how: str
) -> Tool:
    program = shutil.which(name, path=path)
    if program is None:
        raise ToolMissing(
            f"{name} is not installed, or not on PATH; releases are kept with it. Install it with {how}."
        )
    try:
        answer = subprocess.run([program, *question], capture_output=True, check=False, text=True)
    except OSError as error:
        raise ToolMissing(
            f"{program} cannot be run: {error.strerror}. Install it with {how}."
        ) from error
    version = re.search(r"(\d+)\.(\d+)", answer.stdout)
    lowest = ".".join(map(str, floor))
    if version is None or tuple(map(int, version.groups())) < floor:
        found = version[0] if version else f"of no known version ({answer.stderr.strip()[:200]!r})"
        raise ToolMissing(
            f"{name} {found} at {program} is too old; DataLad needs {lowest}. Upgrade it with {how}."
        )
    return Tool(program, version[0], lowest)


def _environment(kept: str) -> dict[str, str]:
    """Return this process's environment for git, with no variable of git's but those `kept`."""
    check_git()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or re.fullmatch(kept, name)
    }
    ours = {"PATH": search_path(environment), "LC_ALL": "C.UTF-8", "GIT_OPTIONAL_LOCKS": "0"}
    return environment | ours


def tool_environment() -> dict[str, str]:
    """Return the environment for our own calls of git and git-annex that write."""
    return _environment(_KEPT) | {"GIT_TERMINAL_PROMPT": "0"} | _IDENTITY


def shell_settings(environment: Mapping[str, str]) -> str:
    """Return lines for a POSIX shell that let it call datalad and git-annex on a release."""
    check_git()
    answers = [
        subprocess.run(["git", "config", "--get", name], capture_output=True, check=False, cwd="/")
        for name in ("user.name", "user.email")
    ]
    known = all(answer.stdout.strip() for answer in answers)
    author = {} if known else {k: v for k, v in _IDENTITY.items() if k not in environment}
    settings = {"PATH": search_path(environment), **author}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())


# --- reading: objects, tags and settings of any folder ---------------------------------------------

_ID: Final = re.compile(r"[0-9a-f]{40}")
_MOST_BYTES: Final = 128 << 20
_MOST_CONFIG: Final = 1 << 20
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
            f"{folder}: .git is no plain folder with a repository in it (but a link, a work tree or a "
            f"submodule), and what lies elsewhere is not followed. Clone it as a folder of its own: "
            f"git clone {folder} ANOTHER_FOLDER"
        )
    for name in read:
        _refuse_special((found / name).parent)
        refuse_special_files(found / name)
    return found


def refuse_special_files(place: Path, *, contents: Path | None = None) -> None:
    """Raise PathRefused if `place`, or anything below it, is a link, a pipe or a device.

    A link could lead out of the folder, and whoever opens a pipe waits for ever. What is two folders
    below `contents` is not looked at.
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
        return  # not there, or gone meanwhile
    # Sockets are left by git's monitor and by git-annex's connections; neither is opened here.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode)):
        raise PathRefused(
            f"{path} is a link or no plain file, and what lies elsewhere is neither read nor written. "
            f"Nothing was done. If it is yours, put a plain file or folder in its place."
        )


def rebuild(folder: Path) -> str:
    """Return how a release is made again whose git objects are of no use."""
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
    found: dict[str, str] = {}
    loose, packed = place / "refs" / "tags", place / "packed-refs"
    with storage_errors(place):
        # In this order, as git does: packing writes the one before it removes the other.
        for path in loose.iterdir() if loose.is_dir() else ():
            with suppress(FileNotFoundError, IsADirectoryError):
                found[path.name] = path.read_text(errors="replace").strip()
        lines = packed.read_text(errors="replace").splitlines() if packed.is_file() else []
    for line in lines:
        identity, _, name = line.partition(" refs/tags/")
        found.setdefault(name, identity)
    chosen = {name: text for name, text in found.items() if names.fullmatch(name)}
    for name, text in chosen.items():
        if not _ID.fullmatch(text):
            raise UnsafeInput(
                f"{folder}: tag {name} holds no SHA-1 name of an object: it is damaged, or of a repository "
                f"with SHA-256 names, which git-annex does not read. {rebuild(folder)}"
            )
    return chosen


def read_objects(folder: Path, names: Sequence[str]) -> list[GitObject | None]:
    """Return the object of each name, such as an id or ``ID:.verse/lock.json``.

    None where there is no such object, also where a stranger's settings would have git fetch it.
    """
    with _reading(folder) as environment:
        stream = io.BytesIO(
            _read(environment, "cat-file", "--batch", stdin="\n".join([*names, ""]))
        )
    return [_next_object(stream) for _ in names]


def _next_object(stream: io.BytesIO) -> GitObject | None:
    """Read one answer of ``git cat-file --batch``."""
    identity, *facts = stream.readline().decode(errors="replace").strip().rsplit(" ", 2)
    if len(facts) != 2 or not facts[1].isdigit():
        return None  # "NAME missing", or "NAME ambiguous"
    content = stream.read(int(facts[1]))
    stream.readline()
    # git itself does not compare what it reads of a loose object with its name.
    whole = f"{facts[0]} {facts[1]}\0".encode() + content
    if hashlib.sha1(whole, usedforsecurity=False).hexdigest() != identity:
        raise IntegrityError(f"git object {identity} holds other bytes than its name promises")
    return GitObject(identity, facts[0], content)


def links(folder: Path, tree: str) -> dict[str, str]:
    """Return the target of each symbolic link in a tree, by path."""
    with _reading(folder) as environment:
        try:
            listing = _read(environment, "ls-tree", "-r", "-z", "--full-tree", tree)
        except GitFailed as error:
            raise IntegrityError(f"{folder}: {error}. {rebuild(folder)}") from error
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
    """Return each setting of ``.git/config``, as it stands there; what it includes is not followed."""
    config = git_folder(folder) / "config"
    with storage_errors(config):
        content = config.read_bytes()[: _MOST_CONFIG + 1]
    if len(content) > _MOST_CONFIG:
        raise UnsafeInput(
            f"{config} is over the limit of {_MOST_CONFIG:,} bytes. Nothing was done."
        )
    words = ("config", "--no-includes", "-z", "--file", "-", "--list")
    with tempfile.TemporaryDirectory(prefix="verse-data-") as home:
        try:
            listing = _read(_closed_environment(home), *words, stdin=content)
        except GitFailed as error:
            raise UnsafeInput(f"{config}: {error}. Nothing was done.") from error
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
    with tempfile.TemporaryDirectory(prefix="verse-data-") as home:
        repository = Path(home)
        (repository / "refs").mkdir()
        (repository / "HEAD").write_text("ref: refs/heads/main\n")
        (repository / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        ours = {"GIT_DIR": home, "GIT_OBJECT_DIRECTORY": os.path.realpath(objects)}
        yield _closed_environment(home) | ours


def _closed_environment(home: str) -> dict[str, str]:
    """Return the environment of a git that reads no configuration but that of its repository."""
    return _environment("GIT_EXEC_PATH") | {
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


def _read(environment: Mapping[str, str], *words: str, stdin: str | bytes = b"") -> bytes:
    """Return what git prints; few objects can print without end, so there is a limit."""
    with tempfile.TemporaryFile() as given:
        given.write(stdin.encode(errors="surrogateescape") if isinstance(stdin, str) else stdin)
        given.seek(0)
        with subprocess.Popen(
            ["git", *words],
            env=environment, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert process.stdout
            found = process.stdout.read(_MOST_BYTES + 1)
            if len(found) > _MOST_BYTES:
                process.kill()
                raise UnsafeInput(
                    f"git {' '.join(words[:1])} gives more than {_MOST_BYTES:,} bytes, which is over the "
                    f"limit: no release is like this. Nothing of it was used."
                )
    if process.returncode:
        raise GitFailed(f"git {words[0]} cannot read it; it is damaged")
    return found


# --- writing: in folders whose settings are all known ----------------------------------------------

# What the user has configured for all repositories shall not change what is written here, and the
# hooks of a folder are not run.
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
"""Where a sibling may be: a folder, or a server by a protocol that starts no program but ssh."""
_EXPECTED: Final = {
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
"""Settings by name, and the values that each may have. None of them can name a program of the folder's."""


def check_writable(folder: Path) -> dict[str, str]:
    """Return the settings of a repository that may be written: all of them, and its hooks, are expected."""
    place = git_folder(folder)
    # With any of these missing, git would look for another repository, such as the work tree itself.
    if not all((place / name).exists() for name in ("HEAD", "config", "objects", "refs")):
        raise PathRefused(
            f"{folder}: its .git lacks HEAD, config, objects or refs. Nothing was done."
        )
    found = read_config(folder)
    for key, value in found:
        if not _is_expected(key, value):
            remedy = f"git config --file {place / 'config'} --unset-all {key}"
            raise UnsafeInput(_refusal(folder, f".git/config sets {key}", remedy))
    # git's own hooks are switched off in our calls; those of git-annex cannot be.
    for hook in sorted((place / "hooks").glob("*")):
        if hook.name.lower().endswith("-annex"):
            raise UnsafeInput(_refusal(folder, f".git/hooks holds {hook.name}", f"rm {hook}"))
    refuse_special_files(place, contents=place / "annex" / "objects")
    return dict(found)


def _is_expected(key: str, value: str) -> bool:
    return any(
        re.fullmatch(name, key, re.ASCII) and re.fullmatch(values, value, re.ASCII)
        for name, values in _EXPECTED.items()
    )


def _refusal(folder: Path, found: str, remedy: str) -> str:
    return (
        f"{folder}: nothing was changed, since its {found}, which this package did not write and git or "
        f"git-annex would act on. The folder can be read all the same. If that is yours: {remedy}. "
        f"If the folder is somebody else's, make a release of your own from it: "
        f"verse-data lock {folder.name} --from-lock {folder}/.verse/lock.json --root ANOTHER_FOLDER, "
        f"then verse-data adopt {folder.name} {folder} --root ANOTHER_FOLDER"
    )


def git(repository: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Call git in a repository that may be written, and return what it printed."""
    check_writable(repository)
    return call_git(repository, *arguments, stdin=stdin)


def init(folder: Path) -> None:
    """Make an empty repository at `folder`, without any template."""
    options = ("--quiet", "--template=", "--initial-branch=main", "--object-format=sha1")
    call_git(folder.parent, "init", *options, str(folder))


def call_git(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Call git in a folder that is ours, and return what it printed."""
    options = [word for setting in _OVERRIDES for word in ("-c", setting)]
    command = ["git", "--no-pager", "--literal-pathspecs", *options, *arguments]
    # What is no repository shall not lead to one that it happens to lie in.
    ceiling = {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}
    done = subprocess.run(
        command,
        input=stdin, capture_output=True, check=False, cwd=folder, env=tool_environment() | ceiling,
    )  # fmt: skip
    if done.returncode:
        raise failure(folder, f"git {arguments[0]}", done.stderr)
    return done.stdout


_NO_ROOM: Final = ("No space left", "Disk quota exceeded", "Out of diskspace")
_LEAST_FREE: Final = 64 << 10
"""Bytes with less than which no command that writes goes through."""


def failure(repository: Path, command: str, printed: bytes) -> GitFailed:
    """Return the error of a command of git or git-annex that failed, out of what it printed."""
    complaint = printed.decode(errors="replace")
    free = shutil.disk_usage(repository if repository.exists() else repository.parent).free
    if free < _LEAST_FREE or any(words in complaint for words in _NO_ROOM):
        return GitDiskFull(
            f"No room left: {command} hit the end of the disk at {repository}; {free:,} bytes free. "
            f"Free some room, or set VERSE_DATA_HOME to a larger disk, and run it again."
        )
    if "dubious ownership" in complaint or "is owned by someone else" in complaint:
        return GitFailed(
            f"{repository} belongs to another user, and git refuses to work there. Work as that "
            f"user, or, if you trust the folder, allow it once: "
            f"git config --global --add safe.directory {repository}"
        )
    last = complaint.strip().splitlines()[-1:] or ["no message"]
    return GitFailed(f"{repository}: {command} failed: {last[0]}")
