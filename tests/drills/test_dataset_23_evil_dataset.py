"""Drill 23: a dataset that came from a stranger runs nothing of its own, whatever we are asked to do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.calls import call
from support.trees import write_tree

from verse_data.api import open_release
from verse_data.config import resolve
from verse_data.errors import VerseDataError
from verse_data.records.lock import ReleaseLock
from verse_data.release.checks import diff, verify
from verse_data.releases.dataset import ReleaseDataset
from verse_data.releases.drop import drop_files
from verse_data.releases.environment import tool_environment
from verse_data.releases.provenance import describe
from verse_data.releases.status import status
from verse_data.releases.tree import lock_tree

HOOKS = (
    "post-checkout", "post-merge", "pre-commit", "post-commit", "pre-push", "post-receive",
    "reference-transaction", "post-index-change", "pre-auto-gc", "fsmonitor-watchman", "post-rewrite",
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
def evil(
    tmp_path: Path, home: Path, markers: Path, monkeypatch: pytest.MonkeyPatch
) -> ReleaseDataset:
    """Build a release, clone it, and put into the clone all that a stranger could."""
    good = ReleaseDataset(tmp_path / "phantom")
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
    call(path, "git", *quiet, "commit", "-qm", "evil")
    call(path, "git", "tag", "-f", "v1")
    with (path / ".git" / "config").open("a") as config:
        config.write(
            f"[core]\n\tfsmonitor = {bad}/monitor\n\thooksPath = {bad}/hooks\n\tsshCommand = {bad}/monitor\n"
            f'[remote "stranger"]\n\turl = ext::{bad}/monitor\n\tfetch = +refs/heads/*:refs/remotes/stranger/*\n'
            f'[protocol "ext"]\n\tallow = always\n'
        )
    for marker in markers.iterdir():
        marker.unlink()
    return ReleaseDataset(path, config=resolve())


def smaller(lock: ReleaseLock) -> ReleaseLock:
    """Return a lock without its first file."""
    return ReleaseLock(release=lock.release, source=lock.source, files=lock.files[1:])


def steps(evil: ReleaseDataset, tree: Path) -> list[Callable[[], object]]:
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
        lambda: evil.content(lock.files[0]),
        lambda: verify(evil, "v1", release.index, level="hash"),
        lambda: status(evil),
        lambda: describe(evil),
        lambda: release.findings,
        release.locked,
        lambda: evil.fetch(lock.files, engine="http"),
        lambda: drop_files(evil, lock.files[:2], unchecked=True),
        lambda: evil.fetch(lock.files[:2], engine="http"),
        lambda: evil.fetch(lock.files[:1], engine="annex"),
        lambda: drop_files(evil, lock.files[2:4]),
        lambda: evil.publish(smaller(lock)),
        lambda: diff(evil, "v1", "v2"),
        evil.record_presence,
    ]


def test_no_public_function_runs_the_datasets_own_code(
    evil: ReleaseDataset, markers: Path, tmp_path: Path
) -> None:
    """Procedures, hooks, configuration, submodules, providers and helpers of a stranger stay data."""
    for step in steps(evil, tmp_path / "tree"):
        with suppress(VerseDataError):  # refusing is fine
            step()
        assert list(markers.iterdir()) == []
    assert evil.versions() == ("v1", "v2")


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
    good, tree = ReleaseDataset(tmp_path / "phantom"), write_tree(tmp_path / "tree")
    good.publish(lock_tree(tree, release="phantom"))
    evil = ("initremote", "evil", "type=external", "externaltype=evil", "encryption=none")
    call(good.path, "git-annex", *evil, "autoenable=true")
    clones = [home / "releases" / "phantom", tmp_path / "other"]
    for clone in clones:
        call(tmp_path, "git", "clone", "-q", str(good.path), str(clone))
    for marker in markers.iterdir():
        marker.unlink()
    dataset = ReleaseDataset(clones[0], config=resolve())
    files = dataset.lock().files

    assert len(dataset.adopt([tree]).new) == len(files)
    drop_files(dataset, files[:1], unchecked=True)
    dataset.fetch(files[:1], engine="annex")
    assert dataset.publish(smaller(dataset.lock())) == "v2"

    assert list(markers.iterdir()) == []
    call(clones[1], "git-annex", "init", "--quiet")
    assert [marker.name for marker in markers.iterdir()] == ["bin-git-annex-remote-evil"]


def test_control_familiar_commands_do_run_it(evil: ReleaseDataset, markers: Path) -> None:
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
