"""A local tree as a lock."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from support.clutter import CLUTTER
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
    """Whatever is hidden or left by a system, a file server or an editor is no part of a release."""
    tree = write_tree(tmp_path / "tree")
    clean = lock_tree(tree, release="phantom")
    for name in (
        *CLUTTER,
        ".git/config",
        "dataset-phantomtraining/rawdata/@eaDir/sub-verse900_ct.nii.gz",
    ):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("noise")
    (tree / ".#lock").symlink_to("nowhere")

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


def test_linked_files_and_folders_are_locked_as_if_they_lay_in_the_tree(tmp_path: Path) -> None:
    """Parts, subjects and files elsewhere, links in linked folders too, give the lock of a copy."""
    tree = write_tree(tmp_path / "tree")
    whole = lock_tree(tree, release="phantom")
    raw = tree / "dataset-phantomtraining" / "rawdata"
    for number, path in enumerate([min(raw.rglob("*_ct.nii.gz")), raw / "sub-verse901", raw]):
        path.rename(tmp_path / f"elsewhere{number}")
        path.symlink_to(
            Path("..", "..", "elsewhere2") if path == raw else tmp_path / f"elsewhere{number}"
        )
    (tmp_path / "link").symlink_to(tree)

    assert lock_tree(tree, release="phantom") == whole
    assert lock_tree(tmp_path / "link", release="phantom") == whole


def link(name: str, target: str) -> Callable[[Path], object]:
    """Return what makes a link in a tree."""
    return lambda tree: (tree / name).symlink_to(target)


def write(*names: str) -> Callable[[Path], object]:
    """Return what writes these files into a tree."""

    def act(tree: Path) -> None:
        for name in names:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name.encode(errors="replace").decode())

    return act


def bind(tree: Path) -> None:
    """Make a socket in a tree; its path may have 108 bytes, so it is made from within."""
    before = Path.cwd()
    os.chdir(tree)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("talk")
    os.chdir(before)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (link("sub-verse903_ct.nii.gz", ".git/annex/objects/x"), ["sub-verse903_ct.nii.gz: a link to"]),
        (link("sub-verse903", "/nowhere/sub-verse903"), ["sub-verse903: a link to /nowhere/sub-verse903"]),
        (link("loop", "loop"), ["loop: a link to loop"]),
        (link("up", ".."), ["up: a link to"]),
        (link("all", "/"), ["all: a link to /, in or above the tree"]),
        (link("latest", "dataset-phantomtraining"), ["latest: a link to"]),
        (lambda tree: [link(name, "/etc/ssl")(tree) for name in ("one", "two")], ["two: a link to"]),
        (lambda tree: os.mkfifo(tree / "queue"), ["queue: a pipe"]),
        (bind, ["talk: a pipe, socket"]),
        (write("README.md", "readme.md"), ["'README.md'", "'readme.md'"]),
        (write("B\u00e4ume.txt", "Ba\u0308ume.txt"), ["'B\u00e4ume.txt'", "'Ba\u0308ume.txt'"]),
        (write("notes/a.txt", "Notes/b.txt"), ["'notes'", "'Notes'"]),
        (write("notes./a.txt", "notes /b.txt"), ["'notes.'", "'notes '"]),
        (write("GIT~1/config"), ["'GIT~1/config'"]),
        (write(os.fsdecode(b"B\xe4ume.txt")), [r"'B\udce4ume.txt' is not UTF-8"]),
        (write(f"rawdata/sub-{'x' * 64}1_ct.nii.gz"), ["x1_ct.nii.gz'", "scan id of more than 64"]),
        (write("/".join(["deep" * 50] * 5) + "/x"), ["deep/x'", "1,000"]),
    ],
)  # fmt: skip
def test_what_cannot_be_locked_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], object], told: list[str]
) -> None:
    """Links to nowhere or back, what is no file, and names that one machine cannot keep apart."""
    tree = write_tree(tmp_path / "tree")
    spoil(tree)

    with pytest.raises(PathRefused, match="so nothing was written") as caught:
        make_release("lab", tree, root=tmp_path / "home", check=False)

    assert [words for words in told if words not in str(caught.value)] == []
    assert not (tmp_path / "home").exists()


def test_all_that_cannot_be_locked_is_told_at_once(tmp_path: Path) -> None:
    """Whoever mends a tree need not lock it again for each fault; twenty are named."""
    tree = write_tree(tmp_path / "tree")
    for number in range(30):
        (tree / f"{number:02}_ct.nii.gz").symlink_to("nowhere")

    with pytest.raises(PathRefused, match=r"19_ct.nii.gz(.|\n)*and 10 more"):
        lock_tree(tree, release="lab")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("sub-Mueller/sub-Mueller_ct.nii.gz", ["sub-Mueller"]),
        ("sub-hans/notes.txt", ["sub-hans"]),
        ("sub-M\u00fcller_ct.nii.gz", ["sub-M\u00fcller"]),
        ("sub-Mueller1962_ct.nii.gz", ["sub-Mueller1962"]),
        ("sub-lab1_ses-20190301_ct.nii.gz", ["ses-20190301"]),
        ("sub-lab1/ses-190301/x_ct.nii.gz", ["ses-190301"]),
        ("sub-lab1_ses-01032019_ct.nii.gz", ["ses-01032019"]),
        ("sub-lab1_ses-2019-03-01_ct.nii.gz", ["ses-2019-03-01"]),
        ("sub-lab1_ses-1Mar2019_ct.nii.gz", ["ses-1Mar2019"]),
        ("sub-lab1_ses-Okt1950_ct.nii.gz", ["ses-Okt1950"]),
        ("sub-lab1_ses-3Mai50_ct.nii.gz", ["ses-3Mai50"]),
        ("sub-lab1_ses-20190301T0930_split-verse7_ct.nii.gz", ["ses-20190301T0930"]),
        ("sub-Mueller_ses-20190301_ct.nii.gz", ["sub-Mueller, ses-20190301"]),
        ("sub-lab1/sub-lab1_ses-1_ct.nii.gz", []),
        ("sub-004/sub-004_ses-baseline_ct.nii.gz", []),
        ("sub-A/sub-A_ct.nii.gz", []),
        ("sub-gl003_ses-2019_ct.nii.gz", []),
    ],
)
def test_labels_that_may_tell_who_somebody_is_are_listed_first(
    tmp_path: Path, name: str, labels: list[str]
) -> None:
    """Names of people and dates of visits are a warning, with a cure, before anything is written."""
    tree = write_tree(tmp_path / "tree", subjects=1)
    write(f"dataset-phantomtraining/rawdata/{name}")(tree)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        lock_tree(tree, release="lab")

    texts = [str(warning.message) for warning in told]
    assert [label for label in labels if f": {label}. " not in texts[0]] == []
    assert len(texts) == bool(labels)
    if labels:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="for example to sub-lab001"):
                make_release("lab", tree, root=tmp_path / "home", check=False)
        assert not (tmp_path / "home").exists()


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
