"""From a lock to a DataLad dataset that git, git-annex and DataLad are content with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.calls import call
from support.trees import snapshot, write_tree

from verse_data.errors import ContentMissing, SourceChanged, ToolMissing, UsageError
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.releases.environment import check_annex
from verse_data.releases.repository import Repository
from verse_data.releases.tree import lock_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write a small release to disk."""
    return write_tree(tmp_path / "tree")


@pytest.fixture
def dataset(tmp_path: Path, tree: Path) -> Repository:
    """Build the dataset of the small release, with its contents."""
    dataset = Repository(tmp_path / "releases" / "phantom")
    dataset.publish(lock_tree(tree, release="phantom"))
    dataset.adopt([tree], on_difference="refuse")
    return dataset


def smaller(lock: ReleaseLock) -> ReleaseLock:
    """Return a lock without its first file."""
    return ReleaseLock(release=lock.release, source=lock.source, files=lock.files[1:])


def test_git_annex_and_datalad_are_content(dataset: Repository, tree: Path) -> None:
    """Status is clean, fsck finds nothing, DataLad gets every file, and the tree shows the bytes."""
    assert call(dataset.path, "git", "status", "--porcelain") == ""
    assert "fail" not in call(dataset.path, "git-annex", "fsck", "--quiet")
    assert "working tree clean" in call(dataset.path, "datalad", "status")
    assert call(dataset.path, "git-annex", "find", "--not", "--in", "here") == ""
    assert "error" not in call(dataset.path, "datalad", "get", ".")
    for name, (content, _) in snapshot(tree).items():
        assert (dataset.path / name).read_bytes() == content


def test_odd_letters_in_names_arrive_as_they_are(tmp_path: Path) -> None:
    """Quotes, blanks and accents of a path are letters to git, and never end a line to it."""
    paths = sorted(['a "b" c.txt', '"whole".txt', 'M 100644 "x', "ä 'ö'.txt", " blank/$x `y`.txt"])
    files = tuple(LockedFile(path=path, size=1, sha256="0" * 64) for path in paths)
    lock = ReleaseLock(release="phantom", source=LockSource(kind="tree"), files=files)
    dataset = Repository(tmp_path / "releases" / "phantom")

    dataset.publish(lock)

    keys = dataset.tree_keys()
    assert {path: keys.get(path) for path in paths} == {f.path: f.annex_key for f in files}
    assert len(keys) == len(paths)


def test_adopting_leaves_the_source_as_it_was(tmp_path: Path, tree: Path) -> None:
    """Contents, modes and names of the user's files do not change; objects are read-only copies."""
    before = snapshot(tree)
    dataset = Repository(tmp_path / "releases" / "phantom")
    dataset.publish(lock_tree(tree, release="phantom"))

    report = dataset.adopt([tree])

    assert snapshot(tree) == before
    assert (len(report.new), report.missing) == (15, [])
    path = dataset.object_path(report.new[0])
    assert path.stat().st_mode & 0o777 == 0o444
    assert path.stat().st_nlink == 1
    assert path.parent.stat().st_mode & 0o777 == 0o555
    assert len(dataset.adopt([tree]).known) == 15


def test_adopting_tells_new_known_different_and_unknown_apart(tmp_path: Path, tree: Path) -> None:
    """A file is taken by its content; a namesake with other bytes is reported with both digests."""
    dataset = Repository(tmp_path / "releases" / "phantom")
    lock = lock_tree(tree, release="phantom")
    dataset.publish(lock)
    renamed = tree / "elsewhere.nii.gz"
    ct = tree / "dataset-phantomtraining/rawdata/sub-verse900/sub-verse900_ct.nii.gz"
    ct.rename(renamed)
    mask = (
        tree / "dataset-phantomtraining/derivatives/sub-verse901/sub-verse901_seg-vert_msk.nii.gz"
    )
    mask.write_bytes(b"other")
    (tree / "notes.txt").write_text("mine")

    report = dataset.adopt([tree])

    assert len(report.new) == 14
    assert [(d.file.path, d.size) for d in report.different] == [
        (mask.relative_to(tree).as_posix(), 5)
    ]
    assert report.unknown == ["tree/notes.txt"]
    assert [file.path for file in report.missing] == [mask.relative_to(tree).as_posix()]
    with pytest.raises(SourceChanged, match="sub-verse901_seg-vert_msk"):
        dataset.adopt([tree], on_difference="refuse")


def test_reading_needs_neither_git_annex_nor_a_checkout(dataset: Repository) -> None:
    """The tree of a tag gives the keys that the lock gives."""
    lock = dataset.lock("v1")

    assert dataset.tree_keys("v1") == {file.path: file.annex_key for file in lock.files}
    assert dataset.resolve(f"sha256:{lock.digest}") == "v1"
    assert dataset.resolve(f"sha256:{lock.digest[:12]}") == "v1"


def test_the_commit_id_is_the_same_everywhere(dataset: Repository, tmp_path: Path) -> None:
    """Another home, user, date, time zone, locale and git configuration give the same commit ids."""
    lock = dataset.lock()
    locks = [tmp_path / "1.json", tmp_path / "2.json"]
    locks[0].write_bytes(lock.canonical())
    locks[1].write_bytes(smaller(lock).canonical())
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[user]\n\tname = Zoë\n\temail = z@example.org\n[core]\n\tautocrlf = true\n[init]\n"
        "\tdefaultBranch = trunk\n[commit]\n\tgpgSign = true\n[tag]\n\tgpgSign = true\n"
    )
    script = (
        "import sys; from pathlib import Path\n"
        "from verse_data.releases.repository import Repository\n"
        "from verse_data.records.lock import ReleaseLock\n"
        "d = Repository(Path(sys.argv[1]))\n"
        "for name in sys.argv[2:]: d.publish(ReleaseLock.parse(Path(name).read_bytes()))\n"
        "print(d.commit('v1'), d.commit('v2'))\n"
    )
    foreign = {
        "HOME": str(tmp_path / "nowhere"), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "de_DE.UTF-8",
        "TZ": "Asia/Tokyo", "GIT_CONFIG_GLOBAL": str(settings), "GIT_AUTHOR_DATE": "1999-01-01T00:00:00",
        "GIT_COMMITTER_DATE": "2001-01-01T00:00:00", "GIT_AUTHOR_NAME": "Somebody Else",
    }  # fmt: skip

    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "other" / "phantom"), *map(str, locks)],
        env=foreign, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    dataset.publish(smaller(lock))

    assert answer.stdout.split() == [dataset.commit("v1"), dataset.commit("v2")]
    assert answer.stderr == ""


def test_publishing_twice_is_one_version(dataset: Repository) -> None:
    """The same files make no new version, also with other addresses, which are added."""
    lock = dataset.lock()
    urls = {"urls": ("https://example.org/ct",)}
    files = (lock.files[0].model_copy(update=urls), *lock.files[1:])
    moved = ReleaseLock(release="phantom", source=LockSource(kind="osf", node="jtfa5"), files=files)

    assert dataset.publish(lock) == "v1"
    assert dataset.publish(moved) == "v1"
    assert dataset.versions() == ("v1",)
    assert "https://example.org/ct" in call(
        dataset.path, "git-annex", "whereis", lock.files[0].path
    )


def test_a_second_version_moves_the_work_tree_and_keeps_the_first(dataset: Repository) -> None:
    """v2 without a file: the tree follows, and v1 still gives the file."""
    lock = dataset.lock()
    lost = lock.files[0]

    assert dataset.publish(smaller(lock)) == "v2"

    assert dataset.versions() == ("v1", "v2")
    assert not (dataset.path / lost.path).is_symlink()
    assert call(dataset.path, "git", "status", "--porcelain") == ""
    assert dataset.source(dataset.lock("v1").by_path[lost.path]).read()
    assert "unused" not in call(dataset.path, "git-annex", "unused", "--quiet")


def test_work_of_the_user_in_the_tree_is_kept(dataset: Repository) -> None:
    """A commit that the user made on main is not thrown away by a new version."""
    (dataset.path / "notes.txt").write_text("mine")
    call(dataset.path, "datalad", "save", "-m", "notes")
    head = call(dataset.path, "git", "rev-parse", "HEAD")

    assert dataset.publish(smaller(dataset.lock())) == "v2"

    assert call(dataset.path, "git", "rev-parse", "HEAD") == head
    assert (dataset.path / "notes.txt").read_text() == "mine"


def test_a_clone_gets_contents_and_is_the_same_release(dataset: Repository, tmp_path: Path) -> None:
    """`datalad clone` and `datalad get` work, and the clone reads as the release."""
    clone = tmp_path / "clones" / "phantom"
    call(tmp_path, "datalad", "clone", str(dataset.path), str(clone))
    call(clone, "datalad", "get", "dataset-phantomtraining/rawdata")

    copy = Repository(clone)

    assert copy.commit("v1") == dataset.commit("v1")
    assert [copy.has(file) for file in copy.lock().files].count(True) == 6


def test_missing_content_is_named_with_the_command(dataset: Repository) -> None:
    """A locked file that is not here is an error with path, size and what to type."""
    ghost = LockedFile(path="a/b_ct.nii.gz", size=1_234_567, sha256="0" * 64)

    with pytest.raises(
        ContentMissing,
        match=r"a/b_ct\.nii\.gz \(1,234,567 bytes\).*verse-data adopt phantom PATH --root",
    ):
        dataset.source(ghost)


def test_unknown_versions_are_usage_errors(dataset: Repository, tmp_path: Path) -> None:
    """A version or release that does not exist is named beside those that do."""
    with pytest.raises(UsageError, match="has no version 'v7'; it has v1"):
        dataset.lock("v7")
    with pytest.raises(UsageError, match="verse-data lock nothing"):
        Repository(tmp_path / "nothing").resolve()
    with pytest.raises(UsageError, match="is of release 'phantom'"):
        Repository(tmp_path / "other").publish(dataset.lock())


def test_a_failed_build_leaves_nothing(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without git-annex, or without git, building is one sentence and no folder."""
    lock = lock_tree(tree, release="phantom")
    home = tmp_path / "releases"
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr("verse_data.releases.environment.tool_folders", lambda: ())

    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(ToolMissing, match="git is not installed"):
        Repository(home / "phantom").publish(lock)
    (empty / "git").symlink_to("/usr/bin/git")
    with pytest.raises(ToolMissing, match="pip install --upgrade git-annex"):
        check_annex()

    assert not home.exists()


def test_a_tree_of_another_user_can_be_read(dataset: Repository) -> None:
    """A dataset that belongs to somebody else gives its locks and contents; nothing is trusted for good."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for folder, names, files in os.walk(dataset.path):
        for name in (".", *names, *files):
            os.chown(Path(folder) / name, 65534, 65534, follow_symlinks=False)
    fresh = Repository(dataset.path)

    assert fresh.source(fresh.lock().files[0]).read()
    control = subprocess.run(
        ["git", "-C", str(dataset.path), "tag"], capture_output=True, text=True, check=False
    )
    assert "dubious ownership" in control.stderr
    with pytest.raises(Exception, match="belongs to another user"):
        fresh.publish(smaller(fresh.lock()))
