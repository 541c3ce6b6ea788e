"""Drill 14: every key of a release pins size and SHA-256; anything else is found."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from support.calls import call
from support.trees import write_tree

from verse_data.records.keys import size_and_digest
from verse_data.releases.repository import Repository
from verse_data.releases.tree import lock_tree
from verse_data.releases.verify import audit

LOOSE = (
    "VURL--http&c%%example.org%ct.nii.gz",
    "URL-s12--http&c%%example.org%ct.nii.gz",
    "WORM-s12-m1600000000--ct.nii.gz",
    "MD5E-s12--d41d8cd98f00b204e9800998ecf8427e.nii.gz",
    f"SHA256E--{hashlib.sha256(b'').hexdigest()}.nii.gz",
)


@pytest.fixture
def dataset(tmp_path: Path) -> Repository:
    """Build a small release."""
    dataset = Repository(tmp_path / "phantom")
    dataset.publish(lock_tree(write_tree(tmp_path / "tree"), release="phantom"))
    return dataset


def move_tag(dataset: Repository) -> None:
    """Make the newest commit v1, as somebody does who wants it to pass for the locked one."""
    words = f"Lock: sha256:{dataset.lock().digest}"
    call(dataset.path, "git", "tag", "--force", "--annotate", "--message", words, "v1")


def test_every_key_of_a_release_pins_its_content(dataset: Repository) -> None:
    """All keys in the tree of the tag are SHA256E with size, and the ones that the lock says."""
    assert all(size_and_digest(key) for key in dataset.tree_keys("v1").values())
    assert audit(dataset, "v1") == ()


@pytest.mark.parametrize("key", LOOSE)
def test_a_key_that_accepts_other_content_is_found(dataset: Repository, key: str) -> None:
    """A tree with one loose key, as `addurl --fast` makes it, is one finding with path and key."""
    path = dataset.lock().files[0].path
    (dataset.path / path).unlink()
    (dataset.path / path).symlink_to(f"../../../.git/annex/objects/00/00/{key}/{key}")
    call(dataset.path, "git", "-c", "core.hooksPath=/dev/null", "commit", "-qam", "loose")
    move_tag(dataset)

    (finding,) = audit(Repository(dataset.path), "v1")

    assert (finding.rule, finding.path) == ("wrong-key", path)
    assert "does not pin size and SHA-256" in finding.message


def test_control_git_annex_itself_is_content_with_loose_keys(dataset: Repository) -> None:
    """git-annex accepts a key without digest, and stores whatever it is given under it."""
    (dataset.path / "page.html").write_text("<html>an error page</html>")
    key = "URL--http&c%%example.org%ct.nii.gz"

    call(dataset.path, "git-annex", "setkey", key, "page.html")

    stored = dataset.path / call(dataset.path, "git-annex", "contentlocation", key).strip()
    assert stored.read_text().startswith("<html>")


def test_a_file_that_the_lock_does_not_know_is_found(dataset: Repository) -> None:
    """A file smuggled into the tree of a tag is a finding."""
    key = dataset.lock().files[0].annex_key
    (dataset.path / "extra.nii.gz").symlink_to(f".git/annex/objects/00/00/{key}/{key}")
    call(dataset.path, "git", "add", "extra.nii.gz")
    call(dataset.path, "git", "-c", "core.hooksPath=/dev/null", "commit", "-qm", "extra")
    move_tag(dataset)

    (finding,) = audit(Repository(dataset.path), "v1")

    assert (finding.rule, finding.path) == ("not-in-lock", "extra.nii.gz")
