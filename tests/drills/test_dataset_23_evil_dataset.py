"""Drill 23: a dataset that came from a stranger runs nothing of its own, whatever we are asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.calls import call
from support.trees import write_tree

from verse_data.api import lock_sibling, open_release
from verse_data.config import resolve
from verse_data.errors import IntegrityError, UnsafeInput, VerseDataError
from verse_data.records.lock import ReleaseLock
from verse_data.releases.environment import tool_environment
from verse_data.releases.provenance import describe
from verse_data.releases.repository import Repository, status
from verse_data.releases.tree import lock_tree
from verse_data.releases.verify import drop_files
from verse_data.tables.changes import compare
from verse_data.tables.check import verify

HOOKS = (
    "post-checkout", "post-merge", "pre-commit", "post-commit", "pre-push", "post-receive",
    "reference-transaction", "post-index-change", "pre-auto-gc", "fsmonitor-watchman", "post-rewrite",
)  # fmt: skip
# git-annex looks for programs of these names in the same folder, whatever core.hooksPath says.
ANNEX_HOOKS = (
    "pre-commit-annex", "post-update-annex", "pre-init-annex", "freezecontent-annex", "thawcontent-annex",
    "secure-erase-annex", "http-headers-annex", "commitmessage-annex",
)  # fmt: skip


@pytest.fixture
def markers(tmp_path: Path) -> Path:
    """Make the folder that every piece of evil code writes its name to."""
    folder = tmp_path / "markers"
    folder.mkdir()
    return folder


def program(path: Path, markers: Path, *, then: str = "") -> None:
    """Write a program that leaves its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch '{markers}/{path.parent.name}-{path.name}'\n{then}\n")
    path.chmod(0o755)


@pytest.fixture
def evil(tmp_path: Path, home: Path, markers: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Build a release, clone it, and put into the clone all that a stranger could."""
    good = Repository(tmp_path / "phantom")
    tree = write_tree(tmp_path / "tree")
    good.publish(lock_tree(tree, release="phantom"))
    good.adopt([tree])
    path = home / "releases" / "phantom"
    call(tmp_path, "datalad", "clone", str(good.path), str(path))
    bad = path / "bad"
    for name in ("cfg_text2git", "cfg_yoda", "cfg_verse"):
        program(path / ".datalad" / "procedures" / name, markers)
    for name in HOOKS:
        program(bad / "hooks" / name, markers)
        program(path / ".git" / "hooks" / name, markers)
    program(bad / "monitor", markers)
    program(tmp_path / "bin" / "git-annex-remote-evil", markers, then="echo VERSION 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (path / ".datalad" / "config").write_text(
        f'[datalad "dataset"]\n\tid = 0\n[datalad "result-hook"]\n\tx = touch {markers}/result-hook\n'
        f'[datalad "clone"]\n\treckless = ephemeral\n[annex "jobs"]\n\tx = 1\n'
        f'[datalad "get"]\n\tsubdataset-source-candidate-000evil = ext::touch% {markers}/candidate\n'
    )
    (path / ".datalad" / "providers").mkdir()
    (path / ".datalad" / "providers" / "evil.cfg").write_text(
        "[provider:evil]\nurl_re = .*\nauthentication_type = none\ncredential = x\n"
    )
    (path / ".gitmodules").write_text(
        f'[submodule "sub"]\n\tpath = sub\n\turl = ext::sh -c touch% {markers}/submodule\n\tupdate = !touch {markers}/update\n'
    )
    quiet = ("-c", "core.hooksPath=/dev/null")
    call(path, "git", "add", "-A")
    call(path, "git", *quiet, "commit", "-qm", f"evil\n\nLock: sha256:{good.lock().digest}")
    call(path, "git", "tag", "-f", "v1")
    with (path / ".git" / "config").open("a") as config:
        config.write(
            f"[core]\n\tfsmonitor = {bad}/monitor\n\thooksPath = {bad}/hooks\n\tsshCommand = {bad}/monitor\n"
            f'[remote "stranger"]\n\turl = ext::{bad}/monitor\n\tfetch = +refs/heads/*:refs/remotes/stranger/*\n'
            f'[protocol "ext"]\n\tallow = always\n'
        )
    for marker in markers.iterdir():
        marker.unlink()
    return Repository(path, config=resolve())


def smaller(lock: ReleaseLock) -> ReleaseLock:
    """Return a lock without its first file."""
    return ReleaseLock(release=lock.release, source=lock.source, files=lock.files[1:])


def steps(evil: Repository, tree: Path) -> list[Callable[[], object]]:
    """Return a call of every public function that touches a dataset."""
    lock = evil.lock()
    release = open_release("phantom", offline=True)
    return [
        evil.versions,
        evil.resolve,
        evil.commit,
        evil.tree_keys,
        lambda: [evil.has(file) for file in lock.files],
        lambda: evil.adopt([tree]),
        lambda: evil.source(lock.files[0]).read(),
        lambda: verify(evil, "v1", release.index, level="hash"),
        lambda: status(evil),
        lambda: describe(evil),
        lambda: release.findings,
        release.locked,
        lambda: evil.fetch(lock.files),
        lambda: drop_files(evil, lock.files[:2], unchecked=True),
        lambda: evil.fetch(lock.files[:2]),
        lambda: evil.fetch(lock.files[:1]),
        lambda: drop_files(evil, lock.files[2:4]),
        lambda: evil.publish(smaller(lock)),
        lambda: compare(evil, "v1", "v2"),
        evil.record_presence,
    ]


@pytest.mark.filterwarnings("ignore::verse_data.errors.IncompleteTable")
def test_no_public_function_runs_the_datasets_own_code(
    evil: Repository, markers: Path, tmp_path: Path
) -> None:
    """Procedures, hooks, configuration, submodules, providers and helpers of a stranger stay data."""
    for step in steps(evil, tmp_path / "tree"):
        with suppress(VerseDataError):  # refusing is fine
            step()
        assert list(markers.iterdir()) == []
    assert evil.versions() == ("v1",)


# Ways in which a promisor remote has git start a program for one missing object: its settings by name.
FETCHERS = {
    "ext": {"url": "ext::{program}", "/protocol.ext.allow": "always"},
    "ssh": {"url": "ssh://nowhere.invalid/x", "/core.sshCommand": "{program}", "/protocol.ssh.allow": "always"},
    "uploadpack": {"url": "{folder}", "uploadpack": "{program}", "/protocol.file.allow": "always"},
    "vcs": {"url": "x", "vcs": "evil", "/protocol.evil.allow": "always"},
}  # fmt: skip


def with_a_missing_object(folder: Path, name: str) -> None:
    """Unpack a repository's objects, and remove one of them."""
    identity = call(folder, "git", "rev-parse", name).strip()
    packs = folder.parent / "packs"
    (folder / ".git" / "objects" / "pack").rename(packs)
    for pack in packs.glob("*.pack"):
        with pack.open("rb") as stream:
            subprocess.run(["git", "unpack-objects", "-q"], cwd=folder, stdin=stream, check=True)
    (folder / ".git" / "objects" / identity[:2] / identity[2:]).unlink()


def set_all(folder: Path, settings: dict[str, str]) -> None:
    """Write settings into a folder's configuration; a later value of a name comes beside an earlier."""
    for name, value in settings.items():
        config = str(folder / ".git" / "config")
        call(folder, "git", "config", "--file", config, "--add", name, value)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a release with its contents, once; tests change copies of it."""
    folder = tmp_path_factory.mktemp("built")
    dataset = Repository(folder / "phantom")
    tree = write_tree(folder / "tree")
    dataset.publish(lock_tree(tree, release="phantom"))
    dataset.adopt([tree])
    return folder


@pytest.fixture
def release(built: Path, tmp_path: Path, home: Path) -> Repository:
    """Give a release with its contents, as a stranger might hand it on."""
    path = home / "releases" / "phantom"
    shutil.copytree(built / "phantom", path, symlinks=True)
    shutil.copytree(built / "tree", tmp_path / "tree")
    return Repository(path, config=resolve())


@pytest.mark.parametrize("lost", ["v1:.verse/lock.json", "v1^{commit}", "v1^{tree}", "v1^{tag}"])
@pytest.mark.parametrize("way", FETCHERS)
def test_a_missing_object_is_not_fetched_as_the_folder_wants(
    release: Repository, markers: Path, monkeypatch: pytest.MonkeyPatch, way: str, lost: str
) -> None:
    """Reading a folder with a promisor remote starts none of its programs; plain git, the control, does."""
    program(markers.parent / "bin" / "git-remote-evil", markers)
    monkeypatch.setenv("PATH", f"{markers.parent / 'bin'}{os.pathsep}{os.environ['PATH']}")
    identity = call(release.path, "git", "rev-parse", lost).strip()
    with_a_missing_object(release.path, lost)
    fill = {"program": str(markers.parent / "bin" / "git-remote-evil"), "folder": str(release.path)}
    settings = {
        name.removeprefix("/") if name.startswith("/") else f"remote.origin.{name}": value.format(
            **fill
        )
        for name, value in FETCHERS[way].items()
    }
    set_all(release.path, {
        **settings,
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "protocol.allow": "always",
    })  # fmt: skip
    fresh = Repository(release.path, config=resolve())
    lock_file = release.path / ".verse" / "lock.json"
    steps: list[Callable[[], object]] = [
        fresh.versions, fresh.lock, fresh.commit, fresh.tree_keys, lambda: status(fresh),
        lambda: describe(fresh), lambda: open_release("phantom", offline=True),
        lambda: fresh.publish(ReleaseLock.parse(lock_file.read_bytes())),
    ]  # fmt: skip

    refused = 0
    for step in steps:
        try:
            step()
        except VerseDataError:
            refused += 1
        assert list(markers.iterdir()) == []

    assert refused
    subprocess.run(
        ["git", "cat-file", "-p", identity], cwd=release.path, capture_output=True, check=False
    )
    assert list(markers.iterdir()) != []


# Settings that name a program, or lead to some that do, and the verb of git-annex or git that runs it.
PROGRAMS = {
    "annex.http-headers-command": "{program}",
    "annex.freezecontent-command": "{program} %path",
    "annex.thawcontent-command": "{program} %path",
    "annex.secure-erase-command": "{program} %file",
    "annex.post-update-command": "{program}",
    "annex.version": "5",
    "annex.pre-init-command": "{program}",
    "annex.commitmessage-command": "{program}",
    "remote.origin.annex-cost-command": "{program}",
    "remote.origin.annex-ssh-options": "-oProxyCommand={program}",
    "filter.annex.clean": "{program}",
    "filter.evil.clean": "{program}",
    "filter.evil.process": "{program}",
    "include.path": "evil-config",
    "includeIf.gitdir:**.path": "evil-config",
    "core.worktree": "{folder}/other",
    "core.attributesFile": "{folder}/attributes",
    "core.hooksPath": "{folder}/bad",
    "core.sshCommand": "{program}",
    "core.pager": "{program}",
    "core.editor": "{program}",
    "core.fsmonitor": "{program}",
    "diff.external": "{program}",
    "gpg.program": "{program}",
    "credential.helper": "!{program}",
    "merge.evil.driver": "{program}",
    "extensions.worktreeConfig": "true",
    "remote.origin.url": "ext::{program}",
    "remote.origin.annex-externaltype": "evil",
    "url.ext::{program}.insteadOf": "https://",
    "alias.merge": "!{program}",
}


def writing(dataset: Repository, tree: Path, lock: ReleaseLock) -> list[Callable[[], object]]:
    """Return a call of each function that writes to a dataset without its fourth file: each has work."""
    return [
        lambda: drop_files(dataset, lock.files[:2], unchecked=True),
        lambda: drop_files(dataset, lock.files[2:3], damaged=True),
        lambda: dataset.fetch(lock.files),
        lambda: dataset.adopt([tree]),
        lambda: dataset.publish(smaller(lock)),
    ]


@pytest.mark.parametrize("setting", PROGRAMS)
def test_a_folder_with_a_setting_of_its_own_is_read_and_never_written(
    release: Repository, markers: Path, tmp_path: Path, setting: str
) -> None:
    """What drops, fetches, adopts or publishes refuses the folder by the setting's name; reading goes on."""
    program(tmp_path / "bin" / "evil", markers)
    lock, before = release.lock(), release.commit()
    drop_files(release, lock.files[3:4], unchecked=True)
    fill = {"program": str(tmp_path / "bin" / "evil"), "folder": str(release.path)}
    (release.path / ".git" / "info").mkdir(exist_ok=True)
    (release.path / ".git" / "info" / "attributes").write_text("* filter=evil\n")
    (release.path / ".git" / "evil-config").write_text(f"[core]\n\thooksPath = {markers}\n")
    set_all(release.path, {setting.format(**fill): PROGRAMS[setting].format(**fill)})
    fresh = Repository(release.path, config=resolve())

    for step in writing(fresh, tmp_path / "tree", lock):
        with pytest.raises(UnsafeInput, match=r"\.git/config sets ") as caught:
            step()
        assert "verse-data adopt phantom" in str(caught.value)

    assert list(markers.iterdir()) == []
    assert (fresh.versions(), fresh.commit()) == (("v1",), before)
    assert [file for file in lock.files if not fresh.has(file)] == [lock.files[3]]
    assert fresh.tree_keys() == {file.path: file.annex_key for file in lock.files}


def to_a_common_folder(folder: Path) -> None:
    """Let git take objects and configuration from another folder of the stranger's."""
    (folder / ".git" / "commondir").write_text("../shared-git\n")


def to_a_file(folder: Path) -> None:
    """Make .git a file that names the git folder."""
    (folder / ".git").rename(folder / "elsewhere")
    (folder / ".git").write_text("gitdir: elsewhere\n")


def to_a_link(folder: Path) -> None:
    """Make .git a link."""
    (folder / ".git").rename(folder.parent / "elsewhere")
    (folder / ".git").symlink_to("../elsewhere")


def to_foreign_objects(folder: Path) -> None:
    """Let git look for objects in another folder too."""
    (folder / ".git" / "objects" / "info").mkdir(exist_ok=True)
    (folder / ".git" / "objects" / "info" / "alternates").write_text("/etc\n")


def to_linked_objects(folder: Path) -> None:
    """Make the folder of objects a link to one elsewhere."""
    (folder / ".git" / "objects").rename(folder.parent / "elsewhere")
    (folder / ".git" / "objects").symlink_to(folder.parent / "elsewhere")


def to_linked_packs(folder: Path) -> None:
    """Make the folder of packs a link to one elsewhere."""
    (folder / ".git" / "objects" / "pack").rename(folder.parent / "elsewhere")
    (folder / ".git" / "objects" / "pack").symlink_to(folder.parent / "elsewhere")


def to_linked_tags(folder: Path) -> None:
    """Make the folder of tags a link to one elsewhere."""
    (folder / ".git" / "refs" / "tags").rename(folder.parent / "elsewhere")
    (folder / ".git" / "refs" / "tags").symlink_to(folder.parent / "elsewhere")


def to_a_reftable(folder: Path) -> None:
    """Make references a database, as newer gits can."""
    (folder / ".git" / "reftable").mkdir()


def to_sha256(folder: Path) -> None:
    """Give a tag the name of an object of a SHA-256 repository."""
    (folder / ".git" / "refs" / "tags" / "v1").write_text("a" * 64 + "\n")


@pytest.mark.parametrize(
    "change",
    [to_a_common_folder, to_a_file, to_a_link, to_foreign_objects, to_linked_objects, to_linked_packs,
     to_linked_tags, to_a_reftable, to_sha256],
)  # fmt: skip
def test_a_repository_that_is_not_all_in_its_folder_is_refused(
    release: Repository, change: Callable[[Path], None]
) -> None:
    """Git folders, objects and references elsewhere, or of a kind that is not read, are one clear refusal."""
    change(release.path)

    with pytest.raises(UnsafeInput, match=r"phantom(: (its |tag |\.git )|/\.git/\S+ is a link)"):
        Repository(release.path, config=resolve()).lock()


@pytest.mark.parametrize("name", ["annex", "annex/objects", "verse-data", "hooks", "refs/heads"])
def test_nothing_is_written_where_a_link_leads(
    release: Repository, tmp_path: Path, name: str
) -> None:
    """A part of .git that is a link is read past or refused, and what it leads to stays as it is."""
    lock, linked = release.lock(), release.path / ".git" / name
    drop_files(release, lock.files[3:4], unchecked=True)
    linked.rename(tmp_path / "outside")
    linked.symlink_to(tmp_path / "outside")
    before = sorted(path.relative_to(tmp_path) for path in (tmp_path / "outside").rglob("*"))

    assert release.versions() == ("v1",)
    for step in writing(release, tmp_path / "tree", lock):
        with pytest.raises(UnsafeInput, match=f"{linked} is a link"):
            step()

    assert (
        sorted(path.relative_to(tmp_path) for path in (tmp_path / "outside").rglob("*")) == before
    )


@pytest.mark.parametrize(
    "name",
    ["verse-data/fetch-log.jsonl", "logs/refs/heads/git-annex", "annex/index", "refs/heads/main"],
)
def test_no_file_elsewhere_is_appended_to(release: Repository, tmp_path: Path, name: str) -> None:
    """A file in .git that is a link, such as one to the user's profile, is not written through."""
    lock, linked = release.lock(), release.path / ".git" / name
    drop_files(release, lock.files[3:4], unchecked=True)
    profile = tmp_path / "profile"
    profile.write_text("mine\n")
    linked.parent.mkdir(parents=True, exist_ok=True)
    linked.unlink(missing_ok=True)
    linked.symlink_to(profile)

    for step in writing(release, tmp_path / "tree", lock):
        with pytest.raises(UnsafeInput, match="is a link"):
            step()

    assert profile.read_text() == "mine\n"


READ_PIPES = ("config", "packed-refs", "refs/tags/v1", "objects/info/commit-graph", "objects/ab")
WRITTEN_PIPES = ("HEAD", "index", "refs/heads/main", "annex/index", "annex/mergedrefs", "shallow")


@pytest.mark.parametrize("name", [*READ_PIPES, *WRITTEN_PIPES, "verse-data/fetch-log.jsonl"])
def test_a_pipe_in_the_place_of_a_file_makes_nobody_wait(
    release: Repository, tmp_path: Path, name: str
) -> None:
    """Nothing opens what is no plain file: reading refuses it where it would, and writing everywhere."""
    lock, place = release.lock(), release.path / ".git" / name
    drop_files(release, lock.files[3:4], unchecked=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.rename(tmp_path / "aside")
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    fresh = Repository(release.path, config=resolve())

    if name in READ_PIPES:
        with pytest.raises(UnsafeInput, match="no plain file"):
            fresh.lock()
    else:
        assert fresh.lock() == lock
        assert describe(fresh).version == "v1"
    for step in writing(fresh, tmp_path / "tree", lock):
        with pytest.raises(UnsafeInput, match="no plain file"):
            step()


def loose(folder: Path) -> None:
    """Unpack all objects of a repository."""
    packs = folder.parent / "packs"
    (folder / ".git" / "objects" / "pack").rename(packs)
    for pack in packs.glob("*.pack"):
        with pack.open("rb") as stream:
            subprocess.run(["git", "unpack-objects", "-q"], cwd=folder, stdin=stream, check=True)


@pytest.mark.parametrize("part", [":.verse/lock.json", "^{commit}", "^{tree}", "^{tag}"])
def test_objects_that_were_exchanged_are_noticed(release: Repository, part: str) -> None:
    """An object of one version in the place of another's is an error: git itself, the control, prints it."""
    release.publish(smaller(release.lock()))
    loose(release.path)
    names = [call(release.path, "git", "rev-parse", f"{tag}{part}").strip() for tag in ("v1", "v2")]
    files = [release.path / ".git" / "objects" / name[:2] / name[2:] for name in names]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, reversed(contents), strict=True):
        file.chmod(0o644)
        file.write_bytes(content)
    right = release.lock("v1").canonical()

    with pytest.raises(IntegrityError):
        Repository(release.path, config=resolve()).lock("v1")

    printed = call(release.path, "git", "cat-file", "-p", "v1:.verse/lock.json")
    assert printed.encode() != right


def test_a_name_of_a_version_in_other_digits_is_no_version(release: Repository) -> None:
    """Digits of other scripts, and numbers without end, are tags of the user's own."""
    tag = (release.path / ".git" / "refs" / "tags" / "v1").read_text()
    packed = release.path / ".git" / "packed-refs"
    packed.write_text(f"{tag.strip()} refs/tags/v1\u0663\n{tag.strip()} refs/tags/v{'9' * 5000}\n")

    assert Repository(release.path, config=resolve()).versions() == ("v1",)


def test_a_tree_that_lists_itself_over_and_over_is_refused(release: Repository) -> None:
    """A few small trees that list a thousand million files do not fill the memory."""

    def tree(rows: str) -> str:
        done = subprocess.run(["git", "mktree", "--missing"], cwd=release.path, input=rows, text=True,
                              capture_output=True, check=True)  # fmt: skip
        return done.stdout.strip()

    blob = call(release.path, "git", "rev-parse", "v1:.verse/lock.json").strip()
    level = tree("".join(f"100644 blob {blob}\t{'name' * 40}{number}\n" for number in range(100)))
    for _ in range(4):
        level = tree("".join(f"040000 tree {level}\t{number}\n" for number in range(100)))
    message = f"x\n\nLock: sha256:{release.lock().digest}"
    commit = call(release.path, "git", "commit-tree", level, "-m", message).strip()
    call(release.path, "git", "tag", "-f", "v1", commit)

    with pytest.raises(UnsafeInput, match="over the limit"):
        Repository(release.path, config=resolve()).tree_keys("v1")


def test_a_content_folder_that_is_a_link_changes_nothing_elsewhere(
    release: Repository, tmp_path: Path
) -> None:
    """Where a content's own folder is a link, dropping removes the link, and no mode of what it leads to."""
    file = release.lock().files[0]
    home = release.object_path(file).parent
    home.parent.chmod(0o755)
    home.rename(tmp_path / "private")
    (tmp_path / "private").chmod(0o700)
    home.symlink_to(tmp_path / "private")

    drop_files(release, [file], unchecked=True)

    assert not release.has(file)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
    assert len(list((tmp_path / "private").iterdir())) == 1


def test_other_references_do_not_matter(release: Repository) -> None:
    """Tags of the user's own, leftovers of a git that was killed, and packed tags leave versions as they are."""
    tags = release.path / ".git" / "refs" / "tags"
    (tags / "v2.lock").write_text("")
    (tags / "mine").write_text("ref: refs/heads/main\n")
    fresh = Repository(release.path, config=resolve())
    assert fresh.versions() == ("v1",)
    (tags / "v2.lock").unlink()
    call(release.path, "git", "pack-refs", "--all")
    assert fresh.versions() == ("v1",)
    assert fresh.commit() == call(release.path, "git", "rev-parse", "v1^{commit}").strip()


def test_an_object_that_would_fill_the_memory_is_not_read(release: Repository) -> None:
    """A lock that inflates to far more than any release's is refused by its size, unread."""
    bomb = release.path.parent / "bomb"
    with bomb.open("wb") as stream:
        stream.truncate(200 << 20)
    quick = ("-c", "core.looseCompression=1")
    blob = call(release.path, "git", *quick, "hash-object", "-w", str(bomb)).strip()
    inner = subprocess.run(["git", "mktree"], cwd=release.path, input=f"100644 blob {blob}\tlock.json\n",
                           text=True, capture_output=True, check=True).stdout.strip()  # fmt: skip
    outer = subprocess.run(["git", "mktree"], cwd=release.path, input=f"040000 tree {inner}\t.verse\n",
                           text=True, capture_output=True, check=True).stdout.strip()  # fmt: skip
    commit = call(release.path, "git", "commit-tree", outer, "-m", "x").strip()
    call(release.path, "git", "tag", "-f", "v1", commit)

    with pytest.raises(UnsafeInput, match="over the limit"):
        Repository(release.path, config=resolve()).lock()


def test_a_work_tree_that_is_a_repository_itself_is_not_written_to(
    release: Repository, markers: Path, tmp_path: Path
) -> None:
    """Where .git lacks a part, git would take the folder itself, and its configuration, for the repository."""
    lock = release.lock()
    program(tmp_path / "bin" / "evil", markers)
    call(release.path, "git", "init", "-q", "--bare", str(tmp_path / "bare"))
    for path in (tmp_path / "bare").iterdir():
        path.rename(release.path / path.name)
    call(release.path, "git", "config", "--file", str(release.path / "config"), "core.fsmonitor",
         str(tmp_path / "bin" / "evil"))  # fmt: skip
    (release.path / ".git" / "HEAD").unlink()

    for step in writing(Repository(release.path, config=resolve()), tmp_path / "tree", lock):
        with suppress(VerseDataError):
            step()

    assert list(markers.iterdir()) == []
    assert list((release.path / "refs" / "tags").iterdir()) == []


def test_hooks_of_git_in_a_clean_folder_are_not_run(
    release: Repository, markers: Path, tmp_path: Path
) -> None:
    """Writing goes on in a folder whose configuration is as it should be, without the hooks in it."""
    for name in HOOKS:
        program(release.path / ".git" / "hooks" / name, markers)
    lock = release.lock()

    drop_files(release, lock.files[3:4], unchecked=True)
    for step in writing(release, tmp_path / "tree", lock):
        step()

    assert list(markers.iterdir()) == []
    assert release.versions() == ("v1", "v2")
    assert all(release.has(file) for file in lock.files)
    call(release.path, "git", "checkout", "-q", "-b", "control")
    assert "hooks-post-checkout" in {marker.name for marker in markers.iterdir()}


@pytest.mark.parametrize("hook", ANNEX_HOOKS)
def test_a_folder_with_a_hook_of_git_annex_is_not_written(
    release: Repository, markers: Path, tmp_path: Path, hook: str
) -> None:
    """git-annex would run it, wherever git is told to look for hooks; so nothing is written there."""
    lock = release.lock()
    drop_files(release, lock.files[3:4], unchecked=True)
    program(release.path / ".git" / "hooks" / hook, markers)

    for step in writing(release, tmp_path / "tree", lock):
        with pytest.raises(UnsafeInput, match=rf"\.git/hooks holds {hook}, which"):
            step()

    assert list(markers.iterdir()) == []
    assert [file for file in lock.files if not release.has(file)] == [lock.files[3]]


def test_control_git_annex_runs_its_hooks(release: Repository, markers: Path) -> None:
    """Its own drop runs a stranger's hooks also with core.hooksPath elsewhere."""
    for name in ANNEX_HOOKS:
        program(release.path / ".git" / "hooks" / name, markers)
    quiet = ("-c", "core.hooksPath=/dev/null")
    key = release.lock().files[0].annex_key
    call(release.path, "git-annex", "drop", "--force", *quiet, f"--key={key}")
    assert "hooks-thawcontent-annex" in {marker.name for marker in markers.iterdir()}


def test_a_folder_that_a_clone_came_from_is_not_worked_in(
    release: Repository, markers: Path, tmp_path: Path
) -> None:
    """A remote in a folder gives its contents as files: nothing that its own configuration names is run.

    The control is git-annex's get, which works in that folder.
    """
    files = release.lock().files
    clones = [tmp_path / "one" / "phantom", tmp_path / "two" / "phantom"]
    for clone in clones:
        call(tmp_path, "git", "clone", "-q", str(release.path), str(clone))
    program(tmp_path / "bin" / "evil", markers)
    for name in (*HOOKS, *ANNEX_HOOKS):
        program(release.path / ".git" / "hooks" / name, markers)
    evil = str(tmp_path / "bin" / "evil")
    set_all(release.path, {"core.fsmonitor": evil, "annex.thawcontent-command": evil,
                           "annex.freezecontent-command": evil, "uploadpack.packObjectsHook": evil})  # fmt: skip
    dataset = Repository(clones[0], config=resolve())

    report = dataset.fetch(files)
    assert {result.source for result in report.fetched} == {"origin"}
    assert len(drop_files(dataset, files[:2]).dropped) == 2
    assert dataset.publish(smaller(dataset.lock())) == "v2"

    assert list(markers.iterdir()) == []
    subprocess.run(["git-annex", "move", "--from=origin", "--all"], cwd=clones[1],
                   env=tool_environment(), capture_output=True, check=False)  # fmt: skip
    assert list(markers.iterdir()) != []


def test_a_release_is_locked_from_a_strangers_folder_and_nothing_of_it_is_run(
    release: Repository, markers: Path, tmp_path: Path
) -> None:
    """Cloning a sibling in a folder, and getting its contents, leaves its hooks and settings as data."""
    program(tmp_path / "bin" / "evil", markers)
    for name in (*HOOKS, *ANNEX_HOOKS):
        program(release.path / ".git" / "hooks" / name, markers)
    evil = str(tmp_path / "bin" / "evil")
    set_all(release.path, {"core.fsmonitor": evil, "core.alternateRefsCommand": evil,
                           "uploadpack.packObjectsHook": evil, "annex.thawcontent-command": evil,
                           "annex.post-update-command": evil, "core.sshCommand": evil})  # fmt: skip

    mine = lock_sibling("phantom", str(release.path), root=tmp_path / "mine")

    assert mine.commit == release.commit()
    assert len(mine.files.fetch(mine.lock.files).fetched) == len(mine.lock.files)
    assert list(markers.iterdir()) == []


def test_a_folder_whose_commits_hold_more_than_the_lock_is_not_cloned(
    evil: Repository, markers: Path, tmp_path: Path
) -> None:
    """Procedures, providers and submodules beside a right lock are refused, and none of them is run."""
    with pytest.raises(IntegrityError, match="not in the lock"):
        lock_sibling("phantom", str(evil.path), root=tmp_path / "mine")
    assert list(markers.iterdir()) == []


PROTOCOL = """echo VERSION 1
while read -r word rest; do
    case $word in
        INITREMOTE) echo INITREMOTE-SUCCESS;;
        PREPARE) echo PREPARE-SUCCESS;;
        LISTCONFIGS) echo CONFIGEND;;
        *) echo UNSUPPORTED-REQUEST;;
    esac
done"""


def test_a_remote_that_enables_itself_is_not_started(
    tmp_path: Path, home: Path, markers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone by plain git becomes known to git-annex without the helpers that its owner wants run.

    The control is git-annex's own first call, which starts them.
    """
    program(tmp_path / "bin" / "git-annex-remote-evil", markers, then=PROTOCOL)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    good, tree = Repository(tmp_path / "phantom"), write_tree(tmp_path / "tree")
    good.publish(lock_tree(tree, release="phantom"))
    evil = ("initremote", "evil", "type=external", "externaltype=evil", "encryption=none")
    call(good.path, "git-annex", *evil, "autoenable=true")
    clones = [home / "releases" / "phantom", tmp_path / "other"]
    for clone in clones:
        call(tmp_path, "git", "clone", "-q", str(good.path), str(clone))
    for marker in markers.iterdir():
        marker.unlink()
    dataset = Repository(clones[0], config=resolve())
    files = dataset.lock().files

    assert len(dataset.adopt([tree]).new) == len(files)
    drop_files(dataset, files[:1], unchecked=True)
    dataset.fetch(files[:1])
    assert dataset.publish(smaller(dataset.lock())) == "v2"

    assert list(markers.iterdir()) == []
    call(clones[1], "git-annex", "init", "--quiet")
    assert [marker.name for marker in markers.iterdir()] == ["bin-git-annex-remote-evil"]


def test_control_familiar_commands_do_run_it(evil: Repository, markers: Path) -> None:
    """DataLad's run-procedure runs the stranger's script, and plain git its monitor and hooks."""
    environment = tool_environment() | {"DATALAD_LOG_LEVEL": "error"}
    for command in (
        ["datalad", "run-procedure", "cfg_text2git"],
        ["git", "status"],
        ["git", "checkout", "-q", "-b", "other"],
    ):
        subprocess.run(command, cwd=evil.path, env=environment, capture_output=True, check=False)

    names = {path.name for path in markers.iterdir()}
    assert {"procedures-cfg_text2git", "bad-monitor", "hooks-post-checkout"} <= names
