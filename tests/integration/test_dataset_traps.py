"""What a release must not be talked into: wrong bytes kept, bytes lost, another's repository written."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin
from osf_standin.server import Handler
from support.calls import call
from support.trees import write_tree

import verse_data as vd
from verse_data.config import Config, resolve
from verse_data.errors import SourceChanged, StorageError, UsageError, VerseDataError
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.releases import annex, import_lock
from verse_data.releases.adopt import copy_and_hash
from verse_data.releases.download import Servers
from verse_data.releases.git import failure
from verse_data.releases.http import Backoff
from verse_data.releases.osf import walk_node
from verse_data.releases.provenance import describe
from verse_data.releases.repository import Repository
from verse_data.releases.tree import lock_tree
from verse_data.releases.verify import drop_files

CT = b"\x1f\x8b" + bytes(range(256)) * 20


@dataclass
class Lab:
    """A stand-in with one node, and the release that is made of it."""

    osf: OsfStandin
    node: Node
    dataset: Repository

    def lock(self) -> ReleaseLock:
        """Walk the node."""
        return walk_node(self.node.id, config=self.dataset.config, release="lab", clock=FakeClock())


@pytest.fixture
def lab(home: Path) -> Iterator[Lab]:
    """Serve two files, and build the dataset."""
    node = Node("jtfa5")
    for number in (1, 2):
        node.upload(f"rawdata/sub-verse00{number}_ct.nii.gz", CT + bytes([number]))
    with OsfStandin(node) as osf:
        config = Config(
            home=home, offline=False, osf_api=osf.hosts["api"], osf_site=osf.hosts["site"]
        )
        lab = Lab(osf, node, Repository(home / "releases" / "lab", config=config))
        lab.dataset.publish(lab.lock())
        yield lab


def spoil(path: Path, damage: Callable[[Path], object]) -> None:
    """Damage a content in spite of its modes."""
    path.parent.chmod(0o755)
    path.chmod(0o644)
    damage(path)


def to_link(path: Path) -> None:
    """Replace a content by a link to nowhere."""
    path.unlink()
    path.symlink_to("nowhere")


def right(dataset: Repository, file: LockedFile) -> bool:
    """Whether the locked content is at its final name, and is a file of its own there."""
    path = dataset.object_path(file)
    return not path.is_symlink() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


@pytest.mark.parametrize("way", ["fetch", "adopt"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"cut"), to_link])
def test_a_content_that_cannot_be_right_is_replaced(
    lab: Lab, tmp_path: Path, way: str, damage: Callable[[Path], object]
) -> None:
    """What has another size than is locked, or is no file, does not stand in the way of the right one."""
    files = lab.dataset.lock().files
    assert lab.dataset.fetch(files).failed == ()
    spoil(lab.dataset.object_path(files[0]), damage)

    if way == "adopt":
        (tmp_path / "copy_ct.nii.gz").write_bytes(CT + b"\1")
        assert lab.dataset.adopt([tmp_path / "copy_ct.nii.gz"]).new == [files[0]]
    else:
        assert lab.dataset.fetch(files).failed == ()

    assert right(lab.dataset, files[0])
    assert "fail" not in call(lab.dataset.path, "git-annex", "fsck", "--quiet")


def test_a_log_in_page_of_unknown_length_is_no_other_copy(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that was made private gives nothing again, so that nothing of it is dropped.

    git-annex takes a page without a length for the file; plain ``git annex drop`` is the control.
    """

    def page(self: Handler, *_: object) -> Callable[[], None]:
        def say() -> None:
            self.close_connection = True
            self.begin(200, {"Content-Type": "text/html", "Transfer-Encoding": "chunked"})
            if self.command != "HEAD":
                self.write(b"b\r\n<html></ht>\r\n0\r\n\r\n")

        return say

    monkeypatch.setattr(Handler, "_accounts", page)
    files = lab.dataset.lock().files
    assert lab.dataset.fetch(files).failed == ()
    lab.node.public = False

    report = drop_files(lab.dataset, files)

    assert report.dropped == ()
    assert all("log-in page" in why for _, why in report.kept)
    assert all(right(lab.dataset, file) for file in files)
    near = ("-c", "annex.security.allowed-ip-addresses=127.0.0.1")
    call(lab.dataset.path, "git-annex", "drop", *near, f"--key={files[0].annex_key}")
    assert not lab.dataset.has(files[0])


def test_a_copy_at_a_sibling_is_enough_for_a_drop(lab: Lab, tmp_path: Path) -> None:
    """What the web has lost is dropped where another clone holds it, and comes back from there."""
    files = lab.dataset.lock().files
    assert lab.dataset.fetch(files).failed == ()
    call(tmp_path, "git", "clone", "-q", str(lab.dataset.path), "other")
    call(tmp_path / "other", "git-annex", "get", "--quiet", f"--key={files[0].annex_key}")
    call(lab.dataset.path, "git", "remote", "add", "other", str(tmp_path / "other"))
    call(lab.dataset.path, "git", "fetch", "-q", "other")
    for file in files:
        lab.node.delete(file.path)

    report = drop_files(lab.dataset, files)

    assert report.dropped == (files[0],)
    assert [file for file, _ in report.kept] == [files[1]]
    assert lab.dataset.fetch(files[:1]).fetched[0].source == "other"


def test_a_server_that_fails_for_a_moment_keeps_nothing_from_a_drop(lab: Lab) -> None:
    """A fault that passes, and a server that asks for a pause, are waited for as in a download."""
    files = lab.dataset.lock().files
    assert lab.dataset.fetch(files).failed == ()
    faults = [lab.osf.play("unavailable", times=1)]
    faults.append(lab.osf.play("throttle", times=1, seconds=0, host="site"))

    report = drop_files(lab.dataset, files)

    assert [fault.times for fault in faults] == [0, 0]
    assert (report.dropped, report.kept) == (files, ())


def test_a_server_that_stays_down_is_not_asked_file_after_file(lab: Lab) -> None:
    """After four files it is left alone, and other servers are still asked."""
    (url,) = lab.dataset.addresses(lab.dataset.lock().files[0])
    lab.osf.play("unavailable")
    lab.osf.seen.clear()
    reasons: list[str] = []

    def ask(address: str) -> None:
        with pytest.raises(VerseDataError) as caught:
            servers.size_offered(address)
        reasons.append(str(caught.value))

    servers = Servers(lab.dataset.config, clock=FakeClock(), backoff=Backoff(tries=3))
    with closing(servers):
        for _ in range(6):
            ask(url)
        ask(f"{lab.osf.hosts['api']}/gone")

    assert ["status 503" in reason for reason in reasons] == [True] * 4 + [False] * 3
    assert "not asked for" in reasons[5]
    assert "status 404" in reasons[6]
    assert lab.osf.count("bucket") == 4 * 3


def test_provenance_does_not_claim_an_earlier_fetch_for_what_was_adopted(
    lab: Lab, tmp_path: Path
) -> None:
    """Fetched, removed and brought from the disk again: no server gave what lies here now."""
    files = lab.dataset.lock().files
    assert lab.dataset.fetch(files).failed == ()
    assert [bool(file.fetched) for file in describe(lab.dataset).files] == [True, True]
    call(lab.dataset.path, "git-annex", "drop", "--force", f"--key={files[0].annex_key}")
    (tmp_path / "copy_ct.nii.gz").write_bytes(CT + b"\1")
    lab.dataset.adopt([tmp_path / "copy_ct.nii.gz"])
    assert [bool(file.fetched) for file in describe(lab.dataset).files] == [False, True]
    drop_files(lab.dataset, files[1:], unchecked=True)
    assert lab.dataset.fetch(files[1:]).failed == ()
    assert [bool(file.fetched) for file in describe(lab.dataset).files] == [False, True]


def test_a_folder_in_the_way_is_refused_and_no_repository_around_it_is_written(
    tmp_path: Path,
) -> None:
    """A cache root inside somebody's own repository never gets tags and branches of ours."""
    call(tmp_path, "git", "init", "-q")
    place = tmp_path / "cache" / "releases" / "phantom"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    lock = lock_tree(write_tree(tmp_path / "tree"), release="phantom")
    before = sorted(place.parent.iterdir())

    with pytest.raises(UsageError, match="holds no release"):
        Repository(place).publish(lock)
    (place / ".git").mkdir()
    (tmp_path / "phantom").symlink_to(place)
    for spelling in (place, tmp_path / "phantom"):
        with pytest.raises(UsageError, match="no version of phantom"):
            Repository(spelling).lock()

    assert call(tmp_path, "git", "for-each-ref") == ""
    assert sorted(place.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["y" * 100] * 4, r"path is too long: it has \d+ bytes"),
        (["é" * 50] * 5, r"path is too long: it has \d+ bytes"),  # counted in bytes
        (["y" * 300], r"too long.* \d+ bytes"),
        (["y" * 200] * 20, r"too long.* \d+ bytes"),
    ],
)
def test_a_place_with_a_long_path_is_refused_before_anything_is_written(
    parts: list[str], text: str, tmp_path: Path
) -> None:
    """git-annex opens no database there, or the system no file; the path's length is told."""
    tree = write_tree(tmp_path / "tree")
    with pytest.raises(VerseDataError, match=text):
        vd.lock_tree("lab", tree, root=tmp_path.joinpath(*parts), check=False)

    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_release_that_was_moved_to_a_long_path_is_read_and_not_written(tmp_path: Path) -> None:
    """Reading needs no git-annex; adopting is refused before a file is copied."""
    tree = write_tree(tmp_path / "tree")
    commit = vd.lock_tree("lab", tree, root=tmp_path / "a", check=False).commit
    deep = tmp_path.joinpath(*["y" * 100] * 5)
    deep.parent.mkdir(parents=True)
    (tmp_path / "a").rename(deep)
    moved = vd.open_release("lab", root=deep)

    assert moved.commit == commit
    assert moved.files.source(moved.lock.files[0]).read()
    with pytest.raises(StorageError, match=r"path is too long: it has \d+ bytes"):
        moved.files.adopt([tree])


def test_publishing_again_ends_what_a_kill_left_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that died between the tag and the work tree left a version; the next call moves the tree."""
    dataset = Repository(tmp_path / "phantom")
    lock = lock_tree(write_tree(tmp_path / "tree"), release="phantom")
    dataset.publish(lock)
    less = ReleaseLock(release=lock.release, source=lock.source, files=lock.files[1:])
    with monkeypatch.context() as patch:
        patch.setattr(import_lock, "_move_work_tree", lambda *_: None)
        assert dataset.publish(less) == "v2"
    assert call(dataset.path, "git", "rev-parse", "main").strip() == dataset.commit("v1")

    assert dataset.publish(less) == "v2"

    assert call(dataset.path, "git", "rev-parse", "main").strip() == dataset.commit("v2")
    assert call(dataset.path, "git", "status", "--porcelain") == ""


def test_a_storage_that_was_empty_in_the_first_round_is_asked_again(lab: Lab) -> None:
    """Files that come into an empty component under the walk are a change, not overlooked."""
    late = Node("ddddd", title="late")
    lab.node.components.append(late)

    def upload(_: object) -> None:
        if any("ddddd/children" in seen.path for seen in lab.osf.seen):
            lab.osf.before = None
            late.upload("new_ct.nii.gz", CT)

    lab.osf.before = upload
    with pytest.raises(SourceChanged, match="new_ct"):
        lab.lock()


def test_what_many_processes_bring_is_told_to_git_annex(lab: Lab) -> None:
    """Who tells git-annex does not forget what another is still about to move into place."""
    files, store = lab.dataset.lock().files, lab.dataset.store
    store._remember([files[0].annex_key])  # as a process does just before it moves a content
    lab.dataset.record_presence()
    assert lab.dataset.fetch(files[1:]).failed == ()
    with store.staging("copy") as staged:
        staged.write_bytes(CT + b"\1")
        store._move(staged, files[0])

    lab.dataset.record_presence()

    assert call(lab.dataset.path, "git-annex", "find", "--not", "--in", "here") == ""
    assert not list(store.incoming.parent.glob("pending*"))


def test_what_is_noted_while_another_tells_is_told_next_time(lab: Lab) -> None:
    """A list that another process takes away while it is being written loses nothing."""
    file, store = lab.dataset.lock().files[0], lab.dataset.store
    assert lab.dataset.fetch([file]).failed == ()

    def slowly() -> Iterator[str]:
        with store.unrecorded():
            yield file.annex_key

    store._remember(slowly())

    with store.unrecorded() as keys:
        assert keys == [file.annex_key]


def test_presence_is_told_by_many_at_once_without_an_error(lab: Lab) -> None:
    """The list of what came may be taken by another process at any moment."""
    store, errors = lab.dataset.store, []

    def tell() -> None:
        for number in range(200):
            store._remember([f"SHA256E-s1--{number:064}"])
            try:
                with store.unrecorded():
                    pass
            except OSError as error:
                errors.append(error)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_many_at_once_make_a_plain_clone_known(tmp_path: Path) -> None:
    """The first calls on a clone by plain git, at the same moment, set it up once, and all succeed."""
    origin = Repository(tmp_path / "phantom")
    origin.publish(lock_tree(write_tree(tmp_path / "tree"), release="phantom"))
    clone, together = tmp_path / "clone", threading.Barrier(6)
    call(tmp_path, "git", "clone", "-q", str(origin.path), str(clone))

    def first_call(_: int) -> None:
        together.wait()
        annex.merge(clone)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(first_call, range(6)))
    assert call(clone, "git", "config", "annex.uuid").strip()


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The error tells of the file that was to be adopted, and not of the place that it was to go to."""
    with pytest.raises(StorageError, match=r"gone_ct\.nii\.gz"):
        copy_and_hash(tmp_path / "gone_ct.nii.gz", tmp_path / "staged", lambda _: None)


def test_a_token_that_cannot_be_one_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line end around the token does no harm; blanks inside are an error that does not tell it."""
    monkeypatch.setenv("VERSE_DATA_OSF_TOKEN", " s3cret\n")
    assert resolve().osf_token == "s3cret"
    monkeypatch.setenv("VERSE_DATA_OSF_TOKEN", "s3cret\nX-Evil: 1")
    with pytest.raises(UsageError, match="VERSE_DATA_OSF_TOKEN") as caught:
        resolve()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "git-annex: not enough free space (use --force to override this check)",
            "not enough free space",
        ),
        ("Unable to lock.\n(Use --force to proceed.)\ninit: 1 failed\n", "Unable to lock."),
        ("fatal: refusing to merge\nhint: use --force\n", "fatal: refusing to merge"),
        ("git-annex: Old repository. Upgrade it: git annex upgrade", "git-annex: Old repository."),
    ],
)
def test_what_git_and_git_annex_advise_is_not_passed_on(
    printed: str, reason: str, tmp_path: Path
) -> None:
    """Their --force does other things than ours is for; the reason alone is told."""
    text = str(failure(tmp_path, "git-annex get", printed.encode()))
    assert text.endswith((f"failed: {reason}", f"failed: git-annex: {reason}"))
