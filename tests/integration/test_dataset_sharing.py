"""A release handed on: as a bundle, as an update, through a RIA store, in other hands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.calls import call
from support.trees import write_tree
from typer.testing import CliRunner

from verse_data.api import lock_tree as make_release
from verse_data.cli.main import app
from verse_data.errors import ContentMissing
from verse_data.export.prov import to_prov
from verse_data.records.lock import ReleaseLock
from verse_data.releases.repository import Repository
from verse_data.releases.fetch import FetchLog
from verse_data.releases.provenance import describe
from verse_data.releases.repository import status
from verse_data.releases.tree import lock_tree
from verse_data.releases.verify import verify_files


@pytest.fixture
def dataset(tmp_path: Path) -> Repository:
    """Build a small release with its contents."""
    tree = write_tree(tmp_path / "tree", subjects=2)
    dataset = Repository(tmp_path / "home" / "phantom")
    dataset.publish(lock_tree(tree, release="phantom"))
    dataset.adopt([tree])
    return dataset


def second_version(dataset: Repository) -> str:
    """Publish a version without the first file."""
    lock = dataset.lock()
    return dataset.publish(
        ReleaseLock(release=lock.release, source=lock.source, files=lock.files[1:])
    )


def test_a_bundle_is_cloned_and_updated_by_fast_forward(
    dataset: Repository, tmp_path: Path
) -> None:
    """A bundle holds all versions; the next one brings a clone from v1 to v2 without a merge commit."""
    refs = ("main", "git-annex", "--tags")
    call(dataset.path, "git", "bundle", "create", "-q", str(tmp_path / "1.bundle"), *refs)
    clone = tmp_path / "lab" / "phantom"
    call(tmp_path, "datalad", "clone", str(tmp_path / "1.bundle"), str(clone))
    copy = Repository(clone)
    assert (copy.versions(), copy.commit("v1")) == (("v1",), dataset.commit("v1"))

    assert second_version(dataset) == "v2"
    call(dataset.path, "git", "bundle", "create", "-q", str(tmp_path / "2.bundle"), *refs)
    call(clone, "git", "fetch", "-q", str(tmp_path / "2.bundle"), "main:refs/remotes/releases/main",
         "git-annex:refs/remotes/releases/git-annex", "--tags")  # fmt: skip
    call(clone, "git-annex", "merge", "--quiet")
    call(clone, "git", "merge", "-q", "--ff-only", "releases/main")

    assert copy.versions() == ("v1", "v2")
    assert call(clone, "git", "rev-parse", "HEAD").strip() == dataset.commit("v2")
    assert call(clone, "git", "status", "--porcelain") == ""


def test_a_clone_says_get_where_a_sibling_may_have_the_contents(
    dataset: Repository, tmp_path: Path
) -> None:
    """Cloned from a folder, get is the way; cloned from a bundle, which holds no contents, adopt is."""
    bundle = tmp_path / "1.bundle"
    refs = ("main", "git-annex", "--tags")
    call(dataset.path, "git", "bundle", "create", "-q", str(bundle), *refs)
    clones = []
    for name, source in (("desk", dataset.path), ("usb", bundle)):
        call(tmp_path, "datalad", "clone", str(source), str(tmp_path / name / "phantom"))
        clones.append(Repository(tmp_path / name / "phantom"))
    sibling, alone = clones

    assert [[found.name for found in clone.siblings()] for clone in clones] == [["origin"], []]
    assert status(sibling).to_adopt == ()
    assert len(status(alone).to_adopt) == 10
    (line,) = {found.command for found in verify_files(sibling, sibling.lock().files)}
    assert line.startswith("verse-data get phantom || verse-data adopt phantom PATH  # ")
    assert "origin may have it" in line
    (line,) = {found.command for found in verify_files(alone, alone.lock().files)}
    assert line.startswith("verse-data adopt phantom PATH")
    call(sibling.path, "git", "config", "remote.origin.annex-ignore", "true")
    assert sibling.siblings() == ()
    assert dataset.siblings() == (), "a release that was built here has none"


def test_two_files_of_one_content_fail_under_their_own_names(tmp_path: Path) -> None:
    """The error of each names its own path, and no other."""
    tree = write_tree(tmp_path / "tree", subjects=2)
    paths = sorted(tree.rglob("*_ct.json"))
    paths[1].write_bytes(paths[0].read_bytes())
    release = make_release("lab", tree, root=tmp_path / "home", check=False)
    lock = release.files.lock()
    empty = Repository(tmp_path / "empty" / "lab")
    empty.publish(lock)
    twins = [file for file in lock.files if file.path.endswith("_ct.json")]

    report = empty.fetch(twins)

    assert [r.file for r in sorted(report.to_adopt, key=lambda r: r.file.path)] == twins
    for result in report.to_adopt:
        assert str(result.error).startswith(f"{result.file.path}: ")
    with pytest.raises(ContentMissing) as caught:
        report.raise_for_failures(needed={file.path for file in twins})
    for file in twins:
        assert str(caught.value).count(file.path) == 1


def test_what_get_names_in_its_error_it_names_once(tmp_path: Path) -> None:
    """Files that were asked for by role and cannot come stand in the error, and not in a note as well."""
    tree = write_tree(tmp_path / "tree", subjects=2)
    made = make_release("lab", tree, root=tmp_path / "home", check=False)
    Repository(tmp_path / "empty" / "releases" / "lab").publish(made.files.lock())

    words = ["get", "lab", "--role", "ct", "--root", str(tmp_path / "empty")]
    answer = CliRunner().invoke(app, words)

    assert isinstance(answer.exception, ContentMissing)
    assert "2 of 2 files could not be fetched" in str(answer.exception)
    assert "to adopt" not in answer.stderr


def test_a_lab_shares_contents_through_a_ria_store(dataset: Repository, tmp_path: Path) -> None:
    """Pushed to a RIA store on disk, contents are got from there by a clone that has no network."""
    store = f"ria+file://{tmp_path / 'store'}"
    call(
        dataset.path,
        "datalad",
        "create-sibling-ria",
        "-s",
        "lab",
        "--new-store-ok",
        "--alias",
        "phantom",
        store,
    )
    call(dataset.path, "datalad", "push", "--to", "lab")
    (bare,) = (tmp_path / "store").glob("???/*-*")
    call(bare, "git", "symbolic-ref", "HEAD", "refs/heads/main")
    call(bare, "git", "fetch", "-q", str(dataset.path), "--tags")

    clone = tmp_path / "desk" / "phantom"
    call(tmp_path, "datalad", "clone", f"{store}#~phantom", str(clone))
    copy = Repository(clone)
    report = copy.fetch(copy.lock().files)

    assert report.failed == ()
    assert len(report.fetched) == 10
    assert all(copy.has(file) for file in copy.lock("v1").files)
    assert copy.commit("v1") == dataset.commit("v1")


def test_what_a_sibling_gave_is_not_said_to_come_from_the_web(
    dataset: Repository, tmp_path: Path
) -> None:
    """Log, report, provenance and PROV name the sibling; no address, and no bytes over the network."""
    ids = {"file_id": "5ffca086e80d370320a594cc", "file_version": 1, "node": "jtfa5"}
    lock = dataset.lock()
    files = tuple(file.model_copy(update=ids) for file in lock.files)
    dataset.publish(
        ReleaseLock(release=lock.release, source=lock.source, files=files)
    )  # now each has an address as well
    clone = tmp_path / "desk" / "phantom"
    call(tmp_path, "datalad", "clone", str(dataset.path), str(clone))
    copy = Repository(clone)
    wanted = tuple(file.model_copy(update=ids) for file in copy.lock().files)

    report = copy.fetch(wanted)

    assert report.failed == ()
    assert all(copy.addresses(file) for file in wanted)
    assert {(result.source, result.url) for result in report.fetched} == {("origin", None)}
    assert (report.bytes, report.sibling_bytes) == (0, sum(file.size for file in wanted))
    lines = FetchLog(clone).read()
    assert {(line["source"], line["url"], line["bytes"]) for line in lines} == {("origin", None, 0)}
    found = describe(copy)
    assert {file.fetched and file.fetched.source for file in found.files} == {"origin"}
    document = to_prov(found)
    origins = {fact["prov:usedEntity"] for fact in document["wasDerivedFrom"].values()}
    assert {document["entity"][origin]["prov:label"] for origin in origins} == {"sibling origin"}


def test_two_processes_that_publish_at_once_make_one_dataset(tmp_path: Path) -> None:
    """Whoever is first builds it; the other finds the same version, and nothing is left over."""
    tree = write_tree(tmp_path / "tree", subjects=2)
    lock = tmp_path / "lock.json"
    lock.write_bytes(lock_tree(tree, release="phantom").canonical())
    script = (
        "import sys; from pathlib import Path\n"
        "from verse_data.records.lock import ReleaseLock\n"
        "from verse_data.releases.repository import Repository\n"
        "print(Repository(Path(sys.argv[1])).publish(ReleaseLock.parse(Path(sys.argv[2]).read_bytes())))\n"
    )
    import sys

    command = [sys.executable, "-c", script, str(tmp_path / "home" / "phantom"), str(lock)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    assert [process.communicate()[0] for process in processes] == ["v1\n"] * 4
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["phantom"]
    assert Repository(tmp_path / "home" / "phantom").versions() == ("v1",)


def test_two_processes_that_extend_at_once_make_two_versions(
    dataset: Repository, tmp_path: Path
) -> None:
    """Two different new locks become v2 and v3, in either order; neither is lost."""
    import threading

    lock = dataset.lock()
    news = [
        ReleaseLock(release=lock.release, source=lock.source, files=files)
        for files in (lock.files[1:], lock.files[:-1])
    ]
    got: list[str] = []
    threads = [
        threading.Thread(
            target=lambda new=new: got.append(Repository(dataset.path).publish(new))
        )
        for new in news
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == ["v2", "v3"]
    fresh = Repository(dataset.path)
    assert {fresh.lock(version).digest for version in got} == {new.digest for new in news}
    parents = call(dataset.path, "git", "rev-list", "--first-parent", "v3").split()
    assert parents == [fresh.commit("v3"), fresh.commit("v2"), fresh.commit("v1")]
