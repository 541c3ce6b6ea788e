"""Keys, link targets and object paths, compared with git-annex itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from verse_data.records.source_file import (
    annex_key,
    key_extension,
    link_target,
    object_path,
    size_and_digest,
)
from verse_data.releases.environment import tool_environment

NAMES = (
    "a.nii.gz", "b.json", "c.xlsx", "d.PNG", "a.v1.2.gz", "x.nifti", ".hid", ".hid.gz", "a..gz", "a.b_c",
    "a.b-c.gz", "a.é", "a.éé", "a.", "a.tar.12345", "a.12345.gz", "abc", "a.b c.gz", "a.gz ", "a.~1", "a.日",
)  # fmt: skip
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture(scope="module")
def annex_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty git-annex repository."""
    folder = tmp_path_factory.mktemp("annex")
    for command in (["git", "init", "-q"], ["git-annex", "init", "-q"]):
        subprocess.run(command, cwd=folder, env=tool_environment(), check=True, capture_output=True)
    return folder


def ask(folder: Path, *arguments: str, lines: list[str]) -> list[str]:
    """Return the answers of a git-annex batch command."""
    done = subprocess.run(
        ["git-annex", *arguments], cwd=folder, env=tool_environment(), check=True, capture_output=True,
        input="".join(f"{line}\n" for line in lines).encode(),
    )  # fmt: skip
    return done.stdout.decode().splitlines()


def test_keys_are_those_of_git_annex(annex_repository: Path) -> None:
    """For names of every shape, the key is the one that git-annex computes."""
    for name in NAMES:
        (annex_repository / name).touch()

    keys = ask(annex_repository, "calckey", "--backend=SHA256E", "--batch", lines=list(NAMES))

    assert [annex_key(name, size=0, sha256=EMPTY) for name in NAMES] == keys


def test_object_paths_are_those_of_git_annex(annex_repository: Path) -> None:
    """The folder of a content, and of its logs, is computed as git-annex does."""
    keys = [annex_key(f"x{n}.nii.gz", size=n, sha256=f"{n:064x}") for n in range(200)]
    form = "${hashdirmixed}${key}/${key} ${hashdirlower}\\n"

    answers = ask(annex_repository, "examinekey", f"--format={form}", "--batch", lines=keys)

    assert [object_path(key).removeprefix(".git/annex/objects/") for key in keys] == [
        answer.split()[0] for answer in answers
    ]


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        (f"SHA256E-s12--{EMPTY}.nii.gz", (12, EMPTY)),
        (f"SHA256E-s0--{EMPTY}", (0, EMPTY)),
        (f"SHA256E--{EMPTY}.json", None),
        (f"SHA256-s12--{EMPTY}", None),
        ("URL-s12--http://x/y", None),
        ("VURL--http://x/y", None),
        (f"SHA256E-s12--{EMPTY[:-1]}", None),
    ],
)
def test_only_sized_digests_count_as_keys(key: str, facts: tuple[int, str] | None) -> None:
    """A key that does not pin size and SHA-256 is told apart."""
    assert size_and_digest(key) == facts


def test_link_targets_climb_to_the_root() -> None:
    """A link in a folder two deep points two folders up."""
    key = annex_key("a/b/c.json", size=1, sha256=EMPTY)

    assert link_target("a/b/c.json", key) == f"../../{object_path(key)}"
    assert key_extension("a.b/c") == ""
