"""Contents from siblings in folders: other clones, bare ones, RIA stores, file systems without links."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from osf_standin.server import forbidden_sockets
from support.calls import call
from support.trees import write_tree
from typer.testing import CliRunner

import verse_data as vd
from verse_data.api import lock_tree, open_release
from verse_data.cli.main import app
from verse_data.errors import IntegrityError, StorageError, UrlRefused, UsageError
from verse_data.records.lock import ReleaseLock
from verse_data.records.source_file import log_folder
from verse_data.releases.fetch import FetchLog
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
    call(root, "git", "clone", "-q", *options, f"file://{origin.path}", str(path))
    return Repository(path)


def right(dataset: Repository) -> bool:
    """Whether all contents are here, and are the locked ones."""
    return all(
        hashlib.sha256(dataset.source(file).read()).hexdigest() == file.sha256
        for file in dataset.lock().files
    )


def publish_smaller(dataset: Repository) -> None:
    """Add a version without the first file."""
    lock = dataset.lock()
    dataset.publish(ReleaseLock(release=lock.release, source=lock.source, files=lock.files[1:]))


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


@pytest.mark.parametrize("offline", [False, True])
def test_a_dry_run_counts_only_what_a_source_holds(
    origin: Repository, tmp_path: Path, *, offline: bool
) -> None:
    """What no sibling has is to adopt, and what only the network has does not come offline."""
    copy = clone(origin, tmp_path / "b")
    lost, *_ = files = origin.lock().files
    origin.store.remove(lost)
    ask = ["lab", "--root", str(tmp_path / "b"), "--offline" if offline else "--online"]
    plan = CliRunner().invoke(app, ["get", *ask, "--dry-run", "--json"])
    told = CliRunner().invoke(app, ["status", *ask[:3]])

    assert json.loads(plan.stdout)["missing"] == [file.path for file in files[1:]]
    assert json.loads(plan.stdout)["to_adopt"] == [lost.path]
    assert f"1 to adopt, as they have no address ({lost.path})" in told.stderr
    assert len(copy.fetch(files).fetched) == 14


def test_a_sibling_needs_no_network(
    origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, what lies in another folder comes all the same, and no socket is opened."""
    clone(origin, tmp_path / "b")
    with forbidden_sockets(monkeypatch) as opened:
        release = open_release("lab", root=tmp_path / "b", offline=True)
        assert len(release.fetch().fetched) == 15
    assert opened == []


@pytest.fixture
def store(origin: Repository, tmp_path: Path) -> str:
    """Push the release to a RIA store as a lab does, and return its address."""
    store = f"ria+file://{tmp_path / 'store'}"
    options = ("-s", "store", "--new-store-ok", "--alias", "lab")
    call(origin.path, "datalad", "create-sibling-ria", *options, store)
    call(origin.path, "datalad", "push", "--to", "store")
    call(origin.path, "git", "push", "-q", "store", "--tags")
    return f"{store}#~lab"


def test_a_release_is_made_from_a_folder(origin: Repository, tmp_path: Path) -> None:
    """Locked from a plain clone, it is the same release, and its contents come from there."""
    words = ["lab", "--root", str(tmp_path / "b")]
    done = CliRunner().invoke(app, ["lock", *words, "--from-sibling", str(origin.path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["commit"] == origin.commit()

    assert CliRunner().invoke(app, ["get", *words]).exit_code == 0
    copy = open_release("lab", root=tmp_path / "b", offline=True)
    assert right(copy.files)
    assert call(copy.files.path, "git", "status", "--porcelain") == ""
    assert copy.datalad.id == origin.datalad.id
    with pytest.raises(UsageError, match="datalad siblings add"):
        vd.lock_sibling("lab", str(origin.path), root=tmp_path / "b")


def test_a_release_is_made_from_a_ria_store(store: str, origin: Repository, tmp_path: Path) -> None:
    """A store in a folder, moved since it was pushed to, gives all versions, and contents as files."""
    publish_smaller(origin)
    call(origin.path, "git", "push", "-q", "store", "--tags", "main")
    (tmp_path / "store").rename(tmp_path / "moved")

    release = vd.lock_sibling("lab", store.replace("/store#", "/moved#"), root=tmp_path / "b")
    report = release.fetch()

    assert release.version == "v2"
    assert release.files.commit("v1") == origin.commit("v1")
    assert {result.source for result in report.fetched} == {"origin"}
    assert right(release.files)
    url = call(release.files.path, "git", "config", "remote.store-storage.ora-url").strip()
    assert url == f"ria+file://{tmp_path / 'moved'}"


def test_what_only_a_server_has_comes_by_git_annex(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The special remote of a RIA store behind HTTP gives contents; what is missing or wrong there does not count.

    Here git-annex's own check is switched off in the settings of the user, so that it takes both.
    """
    settings = tmp_path / "gitconfig"
    settings.write_text('[remote "store-storage"]\n\tannex-verify = false\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    (bare,) = (tmp_path / "store").glob("???/*-*")
    call(bare, "git", "update-server-info")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "store")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ria+http://127.0.0.1:{server.server_port}#~lab"
        release = vd.lock_sibling("lab", url, root=tmp_path / "b")
        lost, wrong = release.lock.files[:2]
        for file in (lost, wrong):
            (content,) = (tmp_path / "store").rglob(f"{file.annex_key}/{file.annex_key}")
            content.parent.chmod(0o755)
            content.unlink()
        content.write_bytes(b"x" * wrong.size)
        report = release.files.fetch(release.lock.files)
        server.shutdown()

    assert {result.source for result in report.fetched} == {"store-storage"}
    assert len(report.fetched) == 13
    assert {result.file for result in report.to_adopt} == {lost, wrong}
    assert not release.files.has(wrong)
    assert {line["source"] for line in FetchLog(release.files.path).read() if line["ok"]} == {
        "store-storage"
    }


def test_variables_of_a_git_hook_reach_no_call(
    store: str, origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What points git to another repository is not passed on, nor by DataLad and git-annex."""
    names = call(tmp_path, "git", "rev-parse", "--local-env-vars").split()
    for name in (*names, "GIT_TRACE", "GIT_SSH_COMMAND"):
        monkeypatch.setenv(name, "/dev/null")
    # With another PATH, git and git-annex are looked up and asked for their versions again.
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{tmp_path}")

    locked = lock_tree("lab", tmp_path / "tree", root=tmp_path / "b", check=False)
    cloned = vd.lock_sibling("lab", store, root=tmp_path / "c")

    assert locked.commit == cloned.commit == origin.commit()
    assert len(cloned.fetch().fetched) == 15
    for name in names:  # DataLad, which ran in this process, removed them
        monkeypatch.setenv(name, "/dev/null")
    assert cloned.datalad.repo.get_hexsha("v1") == origin.commit()


def test_other_special_remotes_stay_off(origin: Repository, tmp_path: Path) -> None:
    """A remote that its owner wants enabled, of any type but a RIA store's, is named and not started."""
    options = (
        "type=directory",
        "encryption=none",
        "autoenable=true",
        f"directory={tmp_path / 'dir'}",
    )
    (tmp_path / "dir").mkdir()
    call(origin.path, "git-annex", "initremote", "drawer", *options)

    with pytest.warns(UserWarning, match="'drawer' of type directory was not enabled"):
        release = vd.lock_sibling("lab", str(origin.path), root=tmp_path / "b")

    assert "drawer" not in call(release.files.path, "git", "config", "--list", "--local")


@pytest.mark.parametrize("change", ["tree", "parent"])
def test_a_sibling_that_is_not_what_its_lock_says_is_refused(
    origin: Repository, tmp_path: Path, change: str
) -> None:
    """The lock is right and named, and another file was put into the commit, or history before it."""
    lock = origin.lock()
    if change == "tree":
        (origin.path / "extra.sh").write_text("echo")
        call(origin.path, "git", "-c", "annex.largefiles=nothing", "add", "extra.sh")
    call(origin.path, "git", "commit", "-q", "--allow-empty", "-m", "more")
    call(origin.path, "git", "tag", "-f", "-a", "v1", "-m", f"Lock: sha256:{lock.digest}")

    with pytest.raises(IntegrityError, match="not in the lock"):
        vd.lock_sibling("lab", str(origin.path), root=tmp_path / "b")

    assert not list((tmp_path / "b").rglob("*.json"))


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("ext::sh -c touch% evil", UrlRefused),
        ("--upload-pack=touch evil", UrlRefused),
        ("ria+file:///nowhere#lab", UrlRefused),
        ("/nowhere", StorageError),
        ("http://127.0.0.1:9", StorageError),
    ],
)
def test_a_place_that_is_no_sibling_is_refused(
    tmp_path: Path, url: str, error: type[Exception]
) -> None:
    """What could start a program, names no dataset, or is not there makes nothing; a next step is named."""
    with pytest.raises(error, match=r"such as ria\+file|Name the dataset after|git ls-remote"):
        vd.lock_sibling("lab", url, root=tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.json"))


def test_a_sibling_without_versions_or_of_another_name_is_refused(
    origin: Repository, tmp_path: Path
) -> None:
    """Tags that were not pushed, and the name of another release, are told with what to type."""
    with pytest.raises(UsageError, match="verse-data lock lab --from-sibling"):
        vd.lock_sibling("other", str(origin.path), root=tmp_path / "b")
    call(origin.path, "git", "tag", "-d", "v1")
    with pytest.raises(IntegrityError, match="git push SIBLING --tags"):
        vd.lock_sibling("lab", str(origin.path), root=tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--no-tags"], ["lacks the tags", "fetch --tags"]),
        (["--no-tags", "--depth=1"], ["lacks the tags", "fetch --tags"]),
        (["--no-tags", "--origin=lab", "--no-checkout"], ["lacks the tags", "fetch --tags"]),
        (["--bare"], ["is a bare clone", "lab.git && verse-data lock lab --from-sibling"]),
        (["--mirror"], ["is a bare clone", "lab.git && verse-data lock lab --from-sibling"]),
    ],
)
def test_a_clone_that_is_not_whole_names_what_makes_it_so(
    origin: Repository, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    """Nothing is written to it, and the command that is named makes it the release."""
    copy = clone(origin, tmp_path / "b", *options)
    with pytest.raises(UsageError) as caught:
        lock_tree("lab", tmp_path / "tree", root=tmp_path / "b", check=False)
    with pytest.raises(UsageError, match=re.escape(str(caught.value))):
        open_release("lab", root=tmp_path / "b")
    assert all(word in str(caught.value) for word in words)

    if "lacks" in words[0]:
        call(tmp_path, *re.search("(git -C .*? fetch --tags)", str(caught.value))[1].split())
    else:
        copy.path.rename(copy.path.with_name("lab.git"))
        vd.lock_sibling("lab", str(copy.path.with_name("lab.git")), root=tmp_path / "b")
    assert open_release("lab", root=tmp_path / "b").commit == origin.commit()


def test_a_shallow_clone_of_a_later_version_says_how_the_others_come(
    origin: Repository, tmp_path: Path
) -> None:
    """It serves the version that it has; what is asked besides comes with its tag."""
    publish_smaller(origin)
    copy = clone(origin, tmp_path / "b", "--depth=1")
    assert copy.versions() == ("v2",)
    with pytest.raises(UsageError, match=r"it has v2.*fetch --tags"):
        copy.lock("v1")


def test_choosing_what_fetches_is_noticed_and_changes_nothing(
    origin: Repository, tmp_path: Path
) -> None:
    """There is one way now, and ``engine=`` warns."""
    clone(origin, tmp_path / "b")
    release = open_release("lab", root=tmp_path / "b")
    with pytest.warns(FutureWarning, match="engine='annex' has no effect"):
        release.fetch(["verse900"], engine="annex")
    with (
        pytest.warns(FutureWarning, match="engine='http' has no effect"),
        pytest.raises(vd.VerseDataError),  # what these files hold is no volume
    ):
        vd.load_split("training", release="lab", root=tmp_path / "b", engine="http")
