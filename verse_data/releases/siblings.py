"""Siblings: other clones of a release, and RIA stores, as a source of contents or of a whole release.

git and git-annex are never run in a sibling that is a folder of this machine, since they would act
on its configuration; a content there is found by its key, copied, and kept if it has the locked
digest. Contents that only a server has are fetched and checked by git-annex.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from verse_data import files
from verse_data.errors import IntegrityError, UnsafeInput, UrlRefused, UsageError, warn
from verse_data.files import digest_file
from verse_data.records.lock import LockedFile
from verse_data.releases import annex, git
from verse_data.releases.environment import prepare_datalad
from verse_data.releases.history import History
from verse_data.releases.import_lock import datalad_config, finish, import_version, require_place
from verse_data.releases.urls import redacted_text

_log = logging.getLogger(__name__)

_RIA_STORE: Final = "ria-layout-version"
_REMOTE: Final = re.compile(r"remote\.(.+)\.(url|annex-externaltype)")
_SERVER: Final = re.compile(r"(https?|ssh|git)://.*|\w[\w.@-]*:(?!//).*")


@dataclass(frozen=True)
class Sibling:
    """Another place with contents of a release."""

    name: str  # of the remote
    git_folder: Path | None
    """Its ``.git``; the folder itself if the sibling is bare, as in a RIA store; None for a server."""

    def find(self, file: LockedFile) -> Path | None:
        """Return a path that can be read, with the key and size of `file`; None if there is none."""
        path = self.git_folder and annex.find_content(self.git_folder, file.annex_key)
        is_fit = path and annex.is_whole(path, file) and os.access(path, os.R_OK)
        return path if is_fit else None

    def has(self, file: LockedFile, *, excluding: Path) -> bool:
        """Whether a folder has the locked content of `file`, in another file than `excluding`."""
        path = self.find(file)
        return (
            path is not None
            and not path.samefile(excluding)  # the same folder, mounted or linked; or a hard link
            and digest_file(path).sha256 == file.sha256
        )


def siblings(repository: Path) -> tuple[Sibling, ...]:
    """Return the siblings that may have contents, by name; none of them is contacted or opened."""
    # A remote with ``annex-ignore`` is left out, except the git side of a RIA store: DataLad sets
    # it there because the contents, in the same folder, belong to another remote.
    settings = dict(git.read_config(repository))
    found = []
    for key, value in sorted(settings.items()):
        match = _REMOTE.fullmatch(key)
        if match is None:
            continue
        ignored = settings.get(f"remote.{match[1]}.annex-ignore") == "true"
        folder = _git_folder(repository, value)
        if folder and (not ignored or (folder / _RIA_STORE).exists()):
            found.append(Sibling(match[1], folder))
        elif not (folder or ignored) and (match[2] != "url" or _SERVER.fullmatch(value)):
            found.append(Sibling(match[1], None))
    return tuple(found)


def _git_folder(repository: Path, url: str) -> Path | None:
    """Return the git folder of a sibling in a folder of this machine; None if there is none."""
    plain = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    for folder in (repository / plain / ".git", repository / plain):
        if (folder / "annex" / "objects").is_dir():
            return folder
    return None


def get_from_servers(repository: Path, files: Sequence[LockedFile]) -> dict[str, str]:
    """Let git-annex fetch contents from siblings on servers; return by key the sibling's name."""
    every, store = siblings(repository), annex.ObjectStore(repository)
    # git-annex would read the configuration of siblings in folders, and work in them.
    ignored = [f"remote.{each.name}.annex-ignore=true" for each in every if each.git_folder]
    options = ("--batch-keys", "--json", "--json-error-messages")
    source_of: dict[str, str] = {}
    for name in [sibling.name for sibling in every if not sibling.git_folder]:
        missing = {file.annex_key: file for file in files if not store.has(file)}
        if missing:
            _refuse_foreign_datalad(repository)
            annex.ensure_known(repository)
            _log.info("asking sibling %s for %s contents", name, len(missing))
            printed = annex.call_annex(
                *(repository, "get", f"--from={name}", *options),
                stdin="".join(f"{key}\n" for key in missing).encode(),
                settings=("annex.verify=true", *ignored),
                check=False,
            )
            _log.debug("sibling %s: %s", name, redacted_text(printed.decode(errors="replace")))
            source_of |= dict.fromkeys(_keep_correct(store, missing.values()), name)
    return source_of


def _keep_correct(store: annex.ObjectStore, files: Iterable[LockedFile]) -> list[str]:
    """Return the keys of files that arrived with the locked digest; remove all others."""
    arrived = [file for file in files if store.has(file)]
    # The user's settings can switch off git-annex's own check.
    wrong = [f for f in arrived if digest_file(store.object_path(f)).sha256 != f.sha256]
    for file in wrong:
        store.remove(file)
    annex.record_presence(store.path, {file.annex_key: False for file in wrong})
    return [file.annex_key for file in arrived if file not in wrong]


def _refuse_foreign_datalad(repository: Path) -> None:
    """Refuse a folder with foreign DataLad settings, which the program of a RIA store acts on."""
    config = repository / ".datalad" / "config"
    if config.exists() and config.read_bytes() != datalad_config(repository.name):
        raise UnsafeInput(
            f"{config} is not as this package writes it, so no sibling on a server is asked. If the "
            f"settings are yours: datalad -C {repository} get ."
        )


def clone(url: str, path: Path) -> None:
    """Make a release from a lab's sibling: a RIA store, a clone in a folder, or one on a server."""
    # Every version is compared with our own import of its lock. No special remote is enabled except
    # that of the RIA store in `url`.
    shown = redacted_text(url)
    if not git.LOCATION.fullmatch(url):
        raise UrlRefused(
            f"{shown.rpartition('@')[2]!r} is not the address of a sibling. Give a folder, an SSH or "
            f"HTTPS address, or a RIA store such as ria+file:///data/store#~verse19."
        )
    require_place(path)
    if path.exists():
        raise UsageError(
            f"{path} holds a release already. Give it the sibling, and get the contents: "
            f"datalad siblings add -d {path} --name lab --url {shown}"
        )
    is_ria, source = url.startswith("ria+"), _git_url(url)
    with files.staging(path) as staged:
        # --no-local, since git's protocol checks objects, and copying a folder's files does not.
        options = ("--quiet", "--no-checkout", "--no-local", "--template=", "--origin=origin")
        _log.info("cloning %s", shown)
        try:
            git.call_git(path.parent, "clone", *options, "--", source, str(staged))
        except git.GitFailed as error:
            test = f"git ls-remote {shlex.quote(redacted_text(source))}"
            why = f"{error}. Nothing was kept. See whether git reaches it: {test}"
            raise git.GitFailed(why) from error
        newest = _check_versions(History(staged), path.name, shown)
        if is_ria:
            # As DataLad does: contents belong to the special remote of the store.
            git.git(staged, "config", "remote.origin.annex-ignore", "true")
        finish(staged, newest, f"verse-data {path.name}")
        _enable_special_remotes(staged, url.partition("#")[0] if is_ria else "")
        if not files.publish_folder(staged, path):
            raise UsageError(f"{path}: another process made the release meanwhile. Use that one.")


def _git_url(url: str) -> str:
    """Return the address for git clone: that of the repository in a RIA store, or `url`."""
    if not url.startswith("ria+"):
        return str(Path(url).absolute()) if Path(url).exists() else url
    prepare_datalad()
    from datalad.core.distributed.clone_utils import decode_source_spec

    try:
        return str(decode_source_spec(url)["giturl"])
    except ValueError as error:
        store = redacted_text(url).partition("#")[0]
        raise UrlRefused(
            f"{redacted_text(str(error))}. Name the dataset after the store: {store}#~NAME"
        ) from error


def _check_versions(history: History, release: str, url: str) -> str:
    """Return the newest commit of a clone, if our import of each lock gives the same commits."""
    versions = history.versions()
    if not versions or list(versions) != [f"v{number + 1}" for number in range(len(versions))]:
        raise IntegrityError(
            f"{url} holds the versions {', '.join(versions) or 'none'}, and all from v1 on are needed. "
            f"Push its tags first: git push SIBLING --tags"
        )
    commit = None
    scratch = history.path.with_name("scratch.git")  # removed with the clone's temporary folder
    git.init(scratch)
    for number, version in enumerate(versions, 1):
        lock = history.lock(version)
        if lock.release != release:
            raise UsageError(
                f"{url} is release {lock.release!r}, and not {release!r}. Name it as its lock "
                f"does: verse-data lock {lock.release} --from-sibling {url}"
            )
        commit = import_version(
            scratch, lock, number, commit, namespace="refs/heads", addresses=lambda _: ()
        )
        if commit != history.commit(version):
            raise IntegrityError(
                f"{url}: {version} is commit {history.commit(version)}, and its lock "
                f"({lock.pin}) gives {commit}: it has changes that are not in the lock. "
                f"Nothing was kept. Take its lock alone: verse-data lock {release} --from-lock FILE"
            )
    assert commit
    return commit


def _enable_special_remotes(repository: Path, store: str) -> None:
    """Enable the special remote of the RIA store at `store`; warn of every other, left disabled."""
    remotes = datalad_dataset(repository).repo.get_special_remotes().values()
    ora = [remote for remote in remotes if remote.get("externaltype") == "ora"]
    chosen = ora if len(ora) == 1 else [remote for remote in ora if remote.get("url") == store]
    for remote in remotes:
        name = remote["name"]
        if store and remote in chosen and re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            git.git(repository, "config", f"remote.{name}.ora-url", store)
            annex.call_annex(repository, "enableremote", name)
            # git-annex wants a person's confirmation: this type, at the address that the user typed.
            git.git(repository, "config", f"remote.{name}.annex-verified", "verified")
        else:
            kind = remote.get("externaltype") or remote.get("type")
            text = (
                f"The special remote {name!r} of type {kind} was not enabled: only that of the RIA "
                f"store that was named is. If you trust it: git annex enableremote {name}"
            )
            warn(UserWarning(text))


def datalad_dataset(path: Path) -> Any:
    """Return the ``datalad.api.Dataset`` of a folder."""
    prepare_datalad()
    from datalad.api import Dataset

    return Dataset(path)
