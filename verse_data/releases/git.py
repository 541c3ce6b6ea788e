"""git where it writes: in repositories whose configuration holds nothing but what is expected there.

What git, git-annex and DataLad write into the configuration of a release or of a clone of one is
listed here, with the values that it may have. Any other setting might name a program, so a folder
with one is read (:mod:`verse_data.releases.git`) and never written.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from verse_data.errors import DiskFull, PathRefused, UnsafeInput
from verse_data.releases.environment import GitFailed, run, tool_environment
from verse_data.releases.git import git_folder, read_config, refuse_special_files

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
_FOLDER: Final = r"(file://)?[^-:][^:]*"
_SERVER: Final = (
    r"(https?|ssh|git|ria\+(file|ssh|https?))://(\w+@)?[\w/]\S*|\w[\w.@-]*:(?!//)[\w~./][^:\s]*"
)
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
    r"remote\..+\.(push)?url": f"{_FOLDER}|{_SERVER}",
    r"remote\..+\.fetch": r"\+?refs/[\w./*-]+:refs/[\w./*-]+",
    r"remote\..+\.tagopt": "--(no-)?tags",
    r"remote\..+\.annex-uuid": _UUID,
    r"remote\..+\.(annex-ignore|annex-readonly|skipfetchall)": _BOOLEAN,
    r"remote\..+\.annex-verified": r"\w+",
    r"remote\..+\.annex-cost": r"[\d.]+",
    r"remote\..+\.annex-externaltype": "ora",
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
    contents = place / "annex" / "objects"
    refuse_special_files(place, but=set(contents.glob("*/*")))
    return dict(found)


def _refusal(folder: Path, found: str, remedy: str) -> str:
    return (
        f"{folder}: nothing was changed, since its {found}, which this package did not write and git or "
        f"git-annex would act on. The folder can be read all the same. If that is yours: {remedy}. "
        f"If the folder is somebody else's, make a release of your own from it: "
        f"verse-data lock {folder.name} --from-lock {folder}/.verse/lock.json --root ANOTHER_FOLDER, "
        f"then verse-data adopt {folder.name} {folder} --root ANOTHER_FOLDER"
    )


def _is_expected(key: str, value: str) -> bool:
    return any(
        re.fullmatch(name, key, re.ASCII) and re.fullmatch(values, value, re.ASCII)
        for name, values in _EXPECTED.items()
    )


def git(repository: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Call git in a repository that may be written, and return what it printed."""
    check_writable(repository)
    return _run(repository, *arguments, stdin=stdin)


def init(folder: Path) -> None:
    """Make an empty repository at `folder`, without any template."""
    options = ("--quiet", "--template=", "--initial-branch=main", "--object-format=sha1")
    _run(folder.parent, "init", *options, str(folder))


def _run(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    options = [word for setting in _OVERRIDES for word in ("-c", setting)]
    environment = tool_environment()
    # What is no repository shall not lead to one that it happens to lie in.
    environment["GIT_CEILING_DIRECTORIES"] = str(folder.resolve().parent)
    command = ["git", "--no-pager", "--literal-pathspecs", *options, "-C", str(folder), *arguments]
    done = run(command, stdin=stdin, environment=environment)
    if done.returncode:
        words = " ".join(("git", *arguments[:2]))
        raise failure(folder, words, done.stderr.decode(errors="replace"))
    return done.stdout


class GitDiskFull(GitFailed, DiskFull):
    """git or git-annex found no room on the disk."""


_NO_ROOM: Final = ("No space left", "Disk quota exceeded", "Out of diskspace")
_LEAST_FREE: Final = 64 << 10
"""Bytes with less than which no command that writes goes through."""


def failure(repository: Path, command: str, complaint: str) -> GitFailed:
    """Return the error of a command of git or git-annex that failed, out of what it printed."""
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
