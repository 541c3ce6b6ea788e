"""Contents from siblings in folders: other clones, bare ones, RIA stores, file systems without links."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from osf_standin.server import forbidden_sockets
from support.calls import call
from support.trees import write_tree
from typer.testing import CliRunner

import verse_data as vd
from verse_data.api import lock_tree, open_release
from verse_data.cli.main import app
from verse_data.records.keys import log_folder
from verse_data.releases.repository import Repository

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    """Build a release with its contents; none of its files has an address."""
    return lock_tree("lab", write_tree(tmp_path / "tree"), root=tmp_path / "a", check=False).files


def clone(origin: Repository, root: Path, *options: str) -> Repository:
    """Clone a release by plain git to where this package looks for it."""
    path = root / "releases" / "lab"
    path.parent.mkdir(parents=True)
    call(root, "git", "clone", "-q", *options, str(origin.path), str(path))
    return Repository(path)


def right(dataset: Repository) -> bool:
    """Whether all contents are here, and are the locked ones."""
    return all(
        hashlib.sha256(dataset.content(file).read_bytes()).hexdigest() == file.sha256
        for file in dataset.lock().files
    )


def mark_as_without_links(dataset: Repository) -> None:
    """Set what git and git-annex set on a file system without symbolic links."""
    for setting, value in (("annex.crippledfilesystem", "true"), ("core.symlinks", "false")):
        call(dataset.path, "git", "config", setting, value)
    call(dataset.path, "git-annex", "init", "--quiet", "b")


def test_get_ends_on_a_file_system_without_links(origin: Repository, tmp_path: Path) -> None:
    """What git-annex keeps in its other layout there is found, and what is missing comes."""
    copy = clone(origin, tmp_path / "b", "-c", "core.symlinks=false")
    mark_as_without_links(copy)
    first = copy.lock().files[0]
    call(copy.path, "git-annex", "get", "--quiet", f"--key={first.annex_key}")
    other_layout = copy.path / ".git" / "annex" / "objects" / log_folder(first.annex_key)
    assert copy.object_path(first).is_relative_to(other_layout)
    assert copy.has(first)

    words = ["get", "lab", "--root", str(tmp_path / "b")]
    done = subprocess.run(
        [sys.executable, "-m", "verse_data", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "14 fetched" in done.stdout
    assert "1 here before" in done.stdout
    assert right(copy)
    assert call(copy.path, "git-annex", "find", "--anything", "--not", "--in", "here") == ""
    assert CliRunner().invoke(app, ["drop", "lab", *words[2:]]).exit_code == 0
    assert not any(copy.has(file) for file in copy.lock().files)


def test_a_bare_sibling_gives_its_contents(origin: Repository, tmp_path: Path) -> None:
    """A bare clone keeps contents in git-annex's other layout, under the folder itself."""
    call(tmp_path, "git", "clone", "-q", "--bare", str(origin.path), "bare.git")
    call(tmp_path / "bare.git", "git-annex", "init", "--quiet", "bare")
    call(origin.path, "git", "remote", "add", "bare", str(tmp_path / "bare.git"))
    call(origin.path, "git-annex", "copy", "--quiet", "--to", "bare")
    copy = clone(Repository(tmp_path / "bare.git"), tmp_path / "b")

    report = copy.fetch(copy.lock().files)

    assert {result.source for result in report.fetched} == {"origin"}
    assert right(copy)


@pytest.mark.parametrize("damage", ["flip", "cut", "link"])
def test_a_wrong_content_at_a_sibling_is_not_taken(
    origin: Repository, tmp_path: Path, damage: str
) -> None:
    """Other bytes of the right size, other sizes and links are passed over, and said to be missing."""
    file = origin.lock().files[0]
    path = origin.object_path(file)
    path.parent.chmod(0o755)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[7] ^= 4
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
        path.symlink_to("/etc/hostname")
    copy = clone(origin, tmp_path / "b")

    report = copy.fetch(copy.lock().files)

    assert [result.file for result in report.to_adopt] == [file]
    assert len(report.fetched) == 14
    assert not copy.has(file)


def test_a_second_sibling_is_asked_where_the_first_is_no_use(
    origin: Repository, tmp_path: Path
) -> None:
    """What one sibling has damaged, or may not be read there, comes from the next."""
    good = clone(origin, tmp_path / "good")
    assert good.fetch(origin.lock().files).failed == ()
    files = origin.lock().files[:2]
    for file in files:
        path = origin.object_path(file)
        path.chmod(0o644)
        path.write_bytes(b"x" * file.size)
    copy = clone(origin, tmp_path / "b")
    call(copy.path, "git", "remote", "add", "second", f"file://{good.path}")

    report = copy.fetch(copy.lock().files)

    assert {r.source for r in report.fetched if r.file in files} == {"second"}
    assert right(copy)


def test_a_sibling_needs_no_network(
    origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, what lies in another folder comes all the same, and no socket is opened."""
    clone(origin, tmp_path / "b")
    with forbidden_sockets(monkeypatch) as opened:
        release = open_release("lab", root=tmp_path / "b", offline=True)
        assert len(release.fetch().fetched) == 15
    assert opened == []


def test_choosing_what_fetches_is_noticed_and_changes_nothing(
    origin: Repository, tmp_path: Path
) -> None:
    """There is one way now: ``engine=`` warns, and ``--engine`` leaves a note."""
    clone(origin, tmp_path / "b")
    release = open_release("lab", root=tmp_path / "b")
    with pytest.warns(FutureWarning, match="engine='annex' has no effect"):
        release.fetch(["verse900"], engine="annex")
    with (
        pytest.warns(FutureWarning, match="engine='http' has no effect"),
        pytest.raises(vd.VerseDataError),  # what these files hold is no volume
    ):
        vd.load_split("training", release="lab", root=tmp_path / "b", engine="http")

    words = ["get", "lab", "--engine", "http", "--root", str(tmp_path / "b")]
    done = CliRunner().invoke(app, words)

    assert (done.exit_code, "--engine http has no effect" in done.stderr) == (0, True)
    assert "--engine" not in CliRunner().invoke(app, ["get", "--help"]).stdout
