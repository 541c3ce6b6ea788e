"""From a node on the stand-in to a lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin, Seen
from support.clutter import CLUTTER

from verse_data.config import Config
from verse_data.errors import (
    IntegrityError,
    NetworkError,
    NotTheFile,
    PathRefused,
    RateLimited,
    SourceChanged,
    UsageError,
    ValidationFailed,
)
from verse_data.records.lock import ReleaseLock
from verse_data.releases.osf import walk_node


def small_node() -> Node:
    """Return a node with the layout of VerSe'19 and files enough for two pages in one folder."""
    node = Node("jtfa5", title="VerSe19 subject-based")
    for split in ("training", "test"):
        for subject in ("verse004", "verse401"):
            root = f"dataset-verse19{split}"
            node.upload(f"{root}/rawdata/sub-{subject}/sub-{subject}_ct.nii.gz", subject.encode())
            stem = f"{root}/derivatives/sub-{subject}/sub-{subject}"
            node.upload(f"{stem}_seg-vert_msk.nii.gz", f"{split}{subject}".encode())
            node.upload(f"{stem}_seg-subreg_ctd.json", f'["{subject}{split}"]'.encode())
    for number in range(130):
        node.upload(f"many/{number:03}.txt", str(number).encode())
    return node


@pytest.fixture
def osf() -> Iterator[OsfStandin]:
    """Run a stand-in with one small node."""
    with OsfStandin(small_node()) as standin:
        yield standin


@pytest.fixture
def config(osf: OsfStandin, home: Path) -> Config:
    """Point at the stand-in."""
    return Config(
        home=home,
        offline=False,
        osf_api=osf.hosts["api"],
        osf_site=osf.hosts["site"],
        osf_token=None,
    )


def test_a_walk_locks_every_file_with_its_version_and_digests(osf: OsfStandin, config: Config):
    """Path, size, digests, id and version of every file are in the lock, and no address is."""
    node = osf.nodes["jtfa5"]
    node.upload("dataset-verse19test/rawdata/sub-verse004/sub-verse004_ct.nii.gz", b"newer")
    lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    assert len(lock.files) == 130 + 12
    assert (lock.source.kind, lock.source.node) == ("osf", "jtfa5")
    assert all(file.urls == () and file.node == "jtfa5" and file.md5 for file in lock.files)
    ct = lock.by_path["dataset-verse19test/rawdata/sub-verse004/sub-verse004_ct.nii.gz"]
    assert (ct.size, ct.file_version) == (5, 2)
    assert ct.file_id == node.find(ct.path).id
    assert b"127.0.0.1" not in lock.canonical()


def test_clutter_on_osf_is_not_locked(osf: OsfStandin, config: Config):
    """Hidden files, and what systems leave in folders, are no part of a release on OSF either."""
    before = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    for name in CLUTTER:
        osf.nodes["jtfa5"].upload(f"dataset-verse19test/{name}", b"clutter")

    assert walk_node("jtfa5", config=config, release="lab", clock=FakeClock()) == before


def test_all_endpoints_and_both_forms_of_paging_give_one_lock(osf: OsfStandin, config: Config):
    """The lock is the same by the API before and since 2.1, and by another mirror."""
    first = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    osf.modern = True
    second = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    with OsfStandin(*osf.nodes.values()) as mirror:
        elsewhere = replace(config, osf_api=mirror.hosts["api"], osf_site=mirror.hosts["site"])
        third = walk_node("jtfa5", config=elsewhere, release="lab", clock=FakeClock())
    assert first.digest == second.digest == third.digest


def test_components_come_in_pages(osf: OsfStandin, config: Config):
    """More components than fit on a page are all walked; one that is linked twice is walked once."""
    node = osf.nodes["jtfa5"] = Node("jtfa5")
    for number in range(101):
        node.components.append(component := Node(f"aa{number:03}", title=f"Part {number:03}"))
        component.components += node.components[:1] if number else []
        component.upload("x.txt", str(number).encode())
    lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    assert [file.node for file in lock.files] == [child.id for child in node.components]

    def before(seen: Seen) -> None:
        if "page=2" in seen.path:
            node.components.pop(3)

    osf.before = before
    with pytest.raises(
        SourceChanged, match="changed while it was listed: a folder or page is gone"
    ):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    node.components += [Node("bbbbb"), Node("ccccc")]
    with pytest.raises(SourceChanged, match=r"changed while it was read \(101 of 102 entries\)"):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())


def test_the_host_of_the_storage_is_learnt_from_the_listing(osf: OsfStandin, config: Config):
    """One API request for the storage's address and one for components, per round; the rest is WaterButler."""
    walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    assert osf.count("api") == 3
    assert osf.count("storage") == 2 * (1 + 2 + 4 + 8 + 1)
    assert not any(osf.count(host) for host in ("site", "bucket", "accounts"))


def test_components_are_walked_into_folders_of_their_titles(osf: OsfStandin, config: Config):
    """A component's files go below its title; titles that look alike are told apart by id."""
    node = osf.nodes["jtfa5"]
    for identity, title in (("aaaaa", "Test data!"), ("bbbbb", "test/data"), ("ccccc", "Extra: 2")):
        component = Node(identity, title=title)
        component.upload("rawdata/readme.txt", identity.encode())
        node.components.append(component)
    node.components[2].components.append(deep := Node("ddddd", title="Deep"))
    deep.upload("x.txt", b"x")
    node.components.append(Node("eeeee", title="hidden", public=False))
    node.components.append(Node("fffff", title="empty"))
    lock = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    paths = {file.path: file.node for file in lock.files if file.node != "jtfa5"}
    assert paths == {
        "Test_data_aaaaa/rawdata/readme.txt": "aaaaa",
        "test_data_bbbbb/rawdata/readme.txt": "bbbbb",
        "Extra_2/rawdata/readme.txt": "ccccc",
        "Extra_2/Deep/x.txt": "ddddd",
    }


def test_the_catalogs_supplements_join_the_lock_of_their_release(osf: OsfStandin, config: Config):
    """The grading workbook, which OSF does not hold, is locked with the digest of the catalog."""
    lock = walk_node("jtfa5", config=config, release="verse19", clock=FakeClock())
    extra = lock.by_path["ryai190138_AppendixE1.xlsx"]
    assert (extra.file_id, extra.sha256[:8]) == (None, "4c2c4282")


def change(action: Callable[[Node], object], osf: OsfStandin, after: int) -> None:
    """Let something happen to the node once the storage has seen `after` requests."""
    state = {"done": False}

    def before(seen: Seen) -> None:
        if not state["done"] and osf.count("storage") + osf.count("api") > after:
            state["done"] = True
            action(osf.nodes["jtfa5"])

    osf.before = before


CHANGES: dict[str, Callable[[Node], object]] = {
    "new version": lambda node: node.upload("many/100.txt", b"other"),
    "new file": lambda node: node.upload("many/new.txt", b"new"),
    "deleted": lambda node: node.delete("many/007.txt"),
    "renamed": lambda node: node.rename("many/007.txt", "008b.txt"),
    "folder gone": lambda node: node.delete("many"),
    "folder renamed": lambda node: node.rename("many", "more"),
    "new component": lambda node: node.components.append(Node("aaaaa", title="New")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_listing_that_changes_under_the_walk_is_not_published(
    osf: OsfStandin, config: Config, what: str
):
    """Whenever a change comes, what is locked is the node before it or after it; else it is told."""

    def walk() -> ReleaseLock:
        osf.seen.clear()
        return walk_node("jtfa5", config=config, release="lab", clock=FakeClock())

    def small() -> Node:
        node = osf.nodes["jtfa5"] = Node("jtfa5")
        for number in (7, 100):
            node.upload(f"many/{number:03}.txt", str(number).encode())
        node.upload("other/x.txt", b"x")
        return node

    node, locked = small(), set()
    before, requests = walk().content(), len(osf.seen)
    CHANGES[what](node)
    after, told = walk().content(), 0
    for number in range(requests + 1):
        small()
        change(CHANGES[what], osf, after=number)
        try:
            locked.add(walk().content())
        except SourceChanged as error:
            assert "No lock was made" in str(error)  # noqa: PT017 - which of the two comes is open
            told += 1
        osf.before = None
    assert locked == {before, after}
    assert told >= requests // 2


def test_a_folder_that_goes_while_it_is_to_be_listed_is_named(osf: OsfStandin, config: Config):
    """What is gone between its listing above and its own is a change, and the next walk is whole."""
    change(CHANGES["folder gone"], osf, after=3)
    with pytest.raises(SourceChanged, match="a folder or page is gone"):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    osf.before = None
    again = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    assert len(again.files) == 12


def test_the_pace_of_anonymous_people_is_kept(osf: OsfStandin, config: Config):
    """A server that enforces OSF's limits never has to throttle; the time is a fake clock's."""
    clock = FakeClock()
    osf.now = clock.monotonic
    osf.limit("api", "files/osfstorage", 75, 60.0)
    osf.limit("api", "files/osfstorage", 3, 1.0)
    osf.limit("api", "children", 100, 3600.0)
    osf.limit("storage", "", 3600, 3600.0)
    for number in range(120):
        osf.nodes["jtfa5"].components.append(component := Node(f"aa{number:03}", title=str(number)))
        component.upload("x.txt", b"x")
    walk_node("jtfa5", config=config, release="lab", clock=clock)
    assert sum("files/osfstorage" in seen.path for seen in osf.seen if seen.host == "api") == 121


@pytest.mark.parametrize("mode", ["throttle", "throttle_date"])
@pytest.mark.parametrize("host", ["api", "storage"])
def test_a_throttled_walk_waits_as_long_as_it_is_told(
    osf: OsfStandin, config: Config, mode: str, host: str
):
    """After 429 with Retry-After, in seconds or as a date, the next request is not early."""
    clock = FakeClock()
    osf.now = clock.monotonic
    osf.play(mode, host=host, times=2, seconds=30)
    lock = walk_node("jtfa5", config=config, release="lab", clock=clock)
    assert len(lock.files) == 142
    times = [seen.at for seen in osf.seen if seen.host == host]
    assert times[1] - times[0] >= 30.0
    assert times[2] - times[1] >= 30.0


def test_a_server_that_asks_for_an_hour_is_not_asked_again(osf: OsfStandin, config: Config):
    """A Retry-After beyond 15 minutes ends the walk, and says when to come back."""
    osf.play("throttle", host="storage", match=osf.nodes["jtfa5"].find("many").id, seconds=3000)
    with pytest.raises(RateLimited, match=r"come back in 3,000 s\. Run the same command"):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    assert osf.seen[-1].path.endswith(f"{osf.nodes['jtfa5'].find('many').id}/")
    assert list(config.home.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("prepare", "error", "text"),
    [
        (
            lambda node: setattr(node.find("many/001.txt"), "hashed", False),
            IntegrityError,
            "many/001.txt",
        ),
        (lambda node: node.rename("many/001.txt", ".."), PathRefused, r"\.\."),
        (lambda node: node.rename("many/001.txt", "a\\b"), PathRefused, "backslash"),
        (lambda node: node.rename("many", ".git"), PathRefused, "git"),
        (lambda node: node.upload("MANY/001.TXT", b"x"), ValidationFailed, "the same name"),
        (lambda node: setattr(node, "public", False), SourceChanged, "public"),
        (lambda node: node.rename("many/001.txt", "a/b"), PathRefused, "has a slash"),
        (lambda node: node.upload(f"{'x/' * 32}x", b"x"), PathRefused, "more than 32 deep"),
        (
            lambda node: setattr(node.find("many/001.txt"), "id", node.find("many/002.txt").id),
            SourceChanged,
            "listed twice",
        ),
    ],
)
def test_what_cannot_be_locked_is_refused_by_name(
    osf: OsfStandin, config: Config, prepare: Callable[[Node], object], error: type, text: str
):
    """No digest, no plain name, two names or ids that are one, a private node, folders too deep."""
    prepare(osf.nodes["jtfa5"])
    with pytest.raises(error, match=text):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())


def test_an_unknown_node_is_named(osf: OsfStandin, config: Config):
    """A node that is not there, and a word that is no node's id."""
    with pytest.raises(SourceChanged, match="nqjyw cannot be listed"):
        walk_node("nqjyw", config=config, release="lab", clock=FakeClock())
    with pytest.raises(UsageError, match="not the id of an OSF node"):
        walk_node("https://osf.io/jtfa5", config=config, release="lab")


def test_an_empty_node_makes_an_empty_lock(osf: OsfStandin, config: Config):
    """The DOI's own node holds no files and no folder; that is a listing, not an error."""
    osf.nodes["nqjyw"] = Node("nqjyw")
    assert walk_node("nqjyw", config=config, release="lab", clock=FakeClock()).files == ()


@pytest.mark.parametrize("mode", ["html", "redirect_loop", "redirect_private", "cut_length"])
def test_an_api_that_answers_wrongly_is_a_named_error(osf: OsfStandin, config: Config, mode: str):
    """A web page, a loop, a redirect to a private address, an answer that breaks off."""
    osf.play(mode, host="api")
    with pytest.raises((NetworkError, ValueError), match=r"127\.0\.0\.1|169\.254"):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())


def test_a_listing_of_another_shape_is_refused(osf: OsfStandin, config: Config):
    """JSON that is no listing is named with the field that is wrong."""
    osf.nodes["jtfa5"].find("many").id = "not-an-id"
    with pytest.raises(NotTheFile, match="24 hex digits"):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
