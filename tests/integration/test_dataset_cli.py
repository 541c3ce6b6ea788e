"""``verse-data lock``, ``adopt`` and ``env`` as a person types them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.trees import write_tree
from typer.testing import CliRunner, Result

import verse_data as vd
from verse_data.cli.main import app
from verse_data.errors import (
    IntegrityError,
    Offline,
    SourceChanged,
    UsageError,
    ValidationFailed,
)
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.releases.repository import Repository


def verse_data(*words: str | Path) -> Result:
    """Run one command."""
    return CliRunner().invoke(app, [str(word) for word in words])


def test_lock_a_tree_and_hand_the_lock_on(tmp_path: Path, home: Path) -> None:
    """Locking a tree prints version, commit and digest; the lock alone gives the same commit elsewhere."""
    tree = write_tree(tmp_path / "tree")

    first = json.loads(
        verse_data("lock", "phantom", "--from-tree", tree, "--no-check", "--json").stdout
    )
    dataset = Repository(home / "releases" / "phantom")
    handed = tmp_path / "lock.json"
    handed.write_bytes(dataset.lock().canonical())
    second = verse_data(
        "lock", "phantom", "--from-lock", handed, "--root", tmp_path / "lab", "--json"
    )

    assert first["version"] == "v1"
    assert first["files"] == 15
    assert all(dataset.has(file) for file in dataset.lock().files)
    assert {name: json.loads(second.stdout)[name] for name in ("commit", "digest")} == {
        name: first[name] for name in ("commit", "digest")
    }


def test_a_lock_that_is_handed_on_can_be_pinned(tmp_path: Path, home: Path) -> None:
    """With its own digest, or the beginning of it, it is published; with another, both are named."""
    lock = ReleaseLock(release="lab", source=LockSource(kind="tree"), files=())
    handed = tmp_path / "lock.json"
    handed.write_bytes(lock.canonical())
    words, wrong = ("lock", "lab", "--from-lock", handed, "--digest"), f"sha256:{'0' * 64}"

    refused = verse_data(*words, wrong)
    assert isinstance(refused.exception, IntegrityError)
    assert f"sha256:{lock.digest}" in str(refused.exception)
    assert wrong in str(refused.exception)
    for odd in ("", lock.digest, "sha256:12"):
        assert isinstance(verse_data(*words, odd).exception, UsageError)
    assert isinstance(verse_data("lock", "phantom", "--digest", wrong).exception, UsageError)
    assert not (home / "releases").exists()
    assert verse_data(*words, f"sha256:{lock.digest[:12]}").exit_code == 0


def test_adopt_says_what_it_found(tmp_path: Path) -> None:
    """A tree with one changed file: counts on stdout, both digests of the change on stderr."""
    tree = write_tree(tmp_path / "tree")
    verse_data("lock", "phantom", "--from-tree", tree, "--no-check")
    changed = tree / "dataset-phantomtraining/rawdata/sub-verse900/sub-verse900_ct.json"
    changed.write_text("{}")

    answer = verse_data("adopt", "phantom", tree)

    counts = "new 0 known 14 missing 0 unknown 0 different 1"
    assert answer.stdout.split() == counts.split()
    assert answer.stderr.count("sha256") == 2


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        (["lock", "../up", "--from-lock", "x"], UsageError, "not a release name"),
        (
            ["lock", "phantom", "--from-tree", "x", "--from-lock", "y"],
            UsageError,
            "exclude each other",
        ),
        (["lock", "phantom", "--from-lock", "nowhere.json"], UsageError, "nowhere.json"),
        (["lock", "phantom", "--from-tree", "nowhere"], UsageError, "is not a folder"),
        (["adopt", "phantom", "/nowhere"], UsageError, "verse-data lock phantom"),
    ],
)
def test_wrong_words_are_usage_errors(words: list[str], kind: type[Exception], text: str) -> None:
    """Each wrong argument is one error that says what to give."""
    answer = verse_data(*words)

    assert isinstance(answer.exception, kind)
    assert text in str(answer.exception)


def test_a_lock_of_another_release_is_refused(tmp_path: Path, home: Path) -> None:
    """A damaged lock file, or one of another release, builds nothing."""
    broken = tmp_path / "broken.json"
    broken.write_text('{"schema_version":"1.0.0","release":"other"}')

    assert isinstance(
        verse_data("lock", "phantom", "--from-lock", broken).exception, ValidationFailed
    )
    assert not home.exists()


def test_a_tree_that_changes_under_the_lock_is_an_error(tmp_path: Path, home: Path) -> None:
    """A file that differs from what was just locked is an error, not a quiet difference."""
    tree = write_tree(tmp_path / "tree")
    verse_data("lock", "phantom", "--from-tree", tree, "--no-check")
    dataset = Repository(home / "releases" / "phantom")
    (tree / dataset.lock().files[0].path).write_text("changed")

    with pytest.raises(SourceChanged, match="changed since it was locked"):
        dataset.adopt([tree], on_difference="refuse")


def test_env_makes_a_shell_that_knows_git_annex(tmp_path: Path) -> None:
    """A bare shell that evaluates the output can call git annex and datalad, and can commit."""
    lines = verse_data("env").stdout
    bare = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    script = f"{lines}\ngit annex version --raw && datalad --version && git init -q r && cd r && git annex init -q"

    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env=bare,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    control = subprocess.run(
        ["/bin/sh", "-c", "git annex version"], env=bare, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert control.returncode != 0


def test_what_is_missing_offline_comes_with_the_command_that_fits(tmp_path: Path) -> None:
    """Of an older version in another root, the line to type names both."""
    home = tmp_path / "my lab"
    for size in (10, 20):
        files = tuple(
            LockedFile(path=f"{name}.txt", size=size, sha256=f"{size}" * 32, urls=("http://lab/x",))
            for name in ("a", "b")
        )
        lock = ReleaseLock(release="lab", source=LockSource(kind="tree"), files=files)
        (tmp_path / "lock.json").write_bytes(lock.canonical())
        verse_data("lock", "lab", "--from-lock", tmp_path / "lock.json", "--root", home)
    old, new = (vd.open_release("lab", version=v, root=home, offline=True) for v in ("v1", "v2"))

    with pytest.raises(Offline) as of_old:
        old.files.fetch(old.lock.files)
    with pytest.raises(Offline) as of_new:
        new.files.fetch(new.lock.files)

    assert f"verse-data get lab --version v1 --root '{home}'" in str(of_old.value)
    assert f"verse-data get lab --root '{home}'" in str(of_new.value)
