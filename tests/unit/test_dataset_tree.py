"""A local tree as a lock."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from support.trees import write_tree

from verse_data.api import lock_tree as make_release
from verse_data.config import resolve
from verse_data.errors import PathRefused, UsageError
from verse_data.releases.tree import check_series, lock_tree


def test_every_file_is_locked_with_its_digest(tmp_path: Path) -> None:
    """Path, size and both digests of each file are those of the file."""
    tree = write_tree(tmp_path / "tree", subjects=2)

    lock = lock_tree(tree, release="phantom")

    assert len(lock.files) == 10
    for file in lock.files:
        content = (tree / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert file.md5 == hashlib.md5(content).hexdigest()


def test_the_lock_does_not_hang_on_where_the_tree_lies(tmp_path: Path) -> None:
    """A copy of the tree elsewhere, with other times, gives the same digest."""
    tree = write_tree(tmp_path / "tree")
    shutil.copytree(tree, tmp_path / "deep" / "copy")

    copied = lock_tree(tmp_path / "deep" / "copy", release="phantom")

    assert copied.digest == lock_tree(tree, release="phantom").digest


def test_what_systems_strew_about_is_left_out(tmp_path: Path) -> None:
    """Hidden files, macOS forks and thumbnails are no part of a release."""
    tree = write_tree(tmp_path / "tree")
    clean = lock_tree(tree, release="phantom")
    for name in (".DS_Store", "__MACOSX/x", ".git/config", "dataset-phantomtraining/Thumbs.db"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("noise")

    assert lock_tree(tree, release="phantom") == clean


def test_a_folder_without_rawdata_is_refused(tmp_path: Path) -> None:
    """A folder that holds no release is an error that says what is missing and what to give."""
    (tmp_path / "derivatives").mkdir()

    with pytest.raises(UsageError, match="no folder named rawdata") as caught:
        lock_tree(tmp_path, release="phantom")

    assert str(tmp_path) in str(caught.value)
    with pytest.raises(UsageError, match="is not a folder"):
        lock_tree(tmp_path / "nowhere", release="phantom")


def test_a_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    """A file whose name cannot be written safely is named, and nothing is locked."""
    tree = write_tree(tmp_path / "tree")
    (tree / "two\nlines.json").touch()

    with pytest.raises(PathRefused, match="control character"):
        lock_tree(tree, release="phantom")


def test_made_up_scans_do_not_become_a_published_release(tmp_path: Path) -> None:
    """A tree with none of the series of verse19 is refused before anything is built or hashed."""
    tree = write_tree(tmp_path / "tree", subjects=2)

    with pytest.raises(UsageError, match="holds no series of verse19") as caught:
        make_release("verse19", tree, root=tmp_path / "home")

    assert "Found: verse900, verse901. Expected: " in str(caught.value)
    assert " and 155 more" in str(caught.value)
    assert "a name of their own" in str(caught.value)
    assert not (resolve(root=tmp_path / "home").releases / "verse19").exists()
    (tmp_path / "empty" / "rawdata").mkdir(parents=True)
    with pytest.raises(UsageError, match="Found: no series at all"):
        check_series(tmp_path / "empty", "verse19")
    check_series(tree, "mylab")
    check_series(tree, "phantom")


@pytest.mark.parametrize("stem", ["sub-verse004_ct.nii.gz", "verse005.nii.gz"])
def test_a_part_of_a_published_release_bears_its_name(tmp_path: Path, stem: str) -> None:
    """One series of it, in either layout, is enough, also beside others."""
    tree = write_tree(tmp_path / "tree", subjects=2)
    (tree / "dataset-phantomtraining" / "rawdata" / stem).write_bytes(b"")

    check_series(tree, "verse19")
