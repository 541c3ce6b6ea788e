"""From a node on the stand-in to a lock, over either route."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin, Seen
from osf_standin.server import forbidden_sockets

from verse_data.config import Config
from verse_data.errors import (
    IntegrityError,
    LockTimeout,
    NetworkError,
    NotTheFile,
    Offline,
    PathRefused,
    RateLimited,
    ServerUnavailable,
    SourceChanged,
    UsageError,
    ValidationFailed,
)
from verse_data.locks import key_lock
from verse_data.releases.osf import Route
from verse_data.releases.osf_walk import walk_node

ROUTES: tuple[Route, ...] = ("waterbutler", "api")


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


@pytest.mark.parametrize("via", ROUTES)
def test_a_walk_locks_every_file_with_its_version_and_digests(
    osf: OsfStandin, config: Config, via: Route
):
    """Path, size, digests, id and version of every file are in the lock, and no address is."""
    node = osf.nodes["jtfa5"]
    node.upload("dataset-verse19test/rawdata/sub-verse004/sub-verse004_ct.nii.gz", b"newer")
    lock = walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())
    assert len(lock.files) == 130 + 12
    assert (lock.source.kind, lock.source.node) == ("osf", "jtfa5")
    assert all(file.urls == () and file.node == "jtfa5" and file.md5 for file in lock.files)
    ct = lock.by_path["dataset-verse19test/rawdata/sub-verse004/sub-verse004_ct.nii.gz"]
    assert (ct.size, ct.file_version) == (5, 2)
    assert ct.file_id == node.find(ct.path).id
    assert b"127.0.0.1" not in lock.canonical()


def test_both_routes_all_endpoints_and_both_forms_of_paging_give_one_lock(
    osf: OsfStandin, config: Config, home: Path
):
    """The lock is the same by WaterButler, by the API before and since 2.1, and by another mirror."""
    first = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    second = walk_node("jtfa5", config=config, release="lab", via="api", clock=FakeClock())
    osf.modern = True
    third = walk_node("jtfa5", config=config, release="lab", via="api", clock=FakeClock())
    with OsfStandin(*osf.nodes.values()) as mirror:
        elsewhere = replace(config, osf_api=mirror.hosts["api"], osf_site=mirror.hosts["site"])
        fourth = walk_node("jtfa5", config=elsewhere, release="lab", clock=FakeClock())
    assert first.digest == second.digest == third.digest == fourth.digest


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


@pytest.mark.parametrize("via", ROUTES)
@pytest.mark.parametrize("what", CHANGES)
def test_a_listing_that_changes_under_the_walk_is_not_published(
    osf: OsfStandin, config: Config, via: Route, what: str
):
    """A change after a third of the walk is noticed, and the next walk locks the new state."""
    change(CHANGES[what], osf, after=12)
    with pytest.raises(SourceChanged, match=r"No lock was made|listing changed"):
        walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())
    osf.before = None
    again = walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())
    fresh = replace(config, home=config.home / "other")
    assert again == walk_node("jtfa5", config=fresh, release="lab", via=via, clock=FakeClock())


@pytest.mark.parametrize("via", ROUTES)
def test_a_folder_that_goes_while_it_is_to_be_listed_does_not_block_the_next_walk(
    osf: OsfStandin, config: Config, via: Route
):
    """What was listed before the change is not gone on with: the next walk starts anew."""
    change(CHANGES["folder gone"], osf, after=2 if via == "api" else 3)
    with pytest.raises(SourceChanged, match="a folder is gone"):
        walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())
    osf.before = None
    again = walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())
    assert len(again.files) == 12


def test_an_interrupted_walk_goes_on_where_it_stopped(osf: OsfStandin, config: Config):
    """After a server fails for good, the next walk asks only for what is missing."""
    whole = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    needed = osf.count("storage")
    osf.seen.clear()
    osf.play("unavailable", host="storage", match=osf.nodes["jtfa5"].find("many").id)
    with pytest.raises(ServerUnavailable, match="Tried 10 times"):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    good = osf.count("storage") - 10
    osf.faults.clear()
    osf.seen.clear()
    assert walk_node("jtfa5", config=config, release="lab", clock=FakeClock()) == whole
    assert osf.count("storage") == needed - good  # nothing of round two had been asked
    assert not list((config.home / "walks").glob("*.jsonl"))


@pytest.mark.parametrize("via", ROUTES)
def test_a_walk_that_stopped_late_in_round_two_does_not_publish_what_has_changed_since(
    osf: OsfStandin, config: Config, via: Route
):
    """Folders that both rounds had read are asked once more: the old size is not locked."""
    node = osf.nodes["jtfa5"]
    walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())
    requests = len(osf.seen)
    osf.seen.clear()
    host = "api" if via == "api" else "storage"
    change(lambda _: osf.play("unavailable", host=host, match=""), osf, after=requests - 3)
    with pytest.raises(ServerUnavailable):
        walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())
    osf.before = None
    osf.faults.clear()
    node.upload("many/000.txt", b"changed while nobody walked")

    with pytest.raises(SourceChanged, match=r"000\.txt"):
        walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())

    again = walk_node("jtfa5", config=config, release="lab", via=via, clock=FakeClock())
    assert again.by_path["many/000.txt"].size == 27


def test_a_journal_cut_by_a_kill_or_of_another_endpoint_does_no_harm(
    osf: OsfStandin, config: Config
):
    """Half a line is listed again; a journal of another mirror is not used."""
    whole = walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    osf.play("unavailable", host="storage", match=osf.nodes["jtfa5"].find("many").id)
    with pytest.raises(ServerUnavailable):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    osf.faults.clear()
    (journal,) = (config.home / "walks").glob("*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-40])
    assert walk_node("jtfa5", config=config, release="lab", clock=FakeClock()) == whole
    header = {"schema": 2, "node": "jtfa5", "via": "waterbutler", "api": "https://api.osf.io/v2"}
    rows = [header, {"place": "jtfa5 ", "rows": []}]
    journal.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    assert walk_node("jtfa5", config=config, release="lab", clock=FakeClock()) == whole


@pytest.mark.parametrize("via", ROUTES)
def test_the_pace_of_anonymous_people_is_kept(osf: OsfStandin, config: Config, via: Route):
    """A server that enforces OSF's limits never has to throttle; the time is a fake clock's."""
    clock = FakeClock()
    osf.now = clock.monotonic
    osf.limit("api", "files/osfstorage", 75, 60.0)
    osf.limit("api", "files/osfstorage", 3, 1.0)
    osf.limit("api", "children", 100, 3600.0)
    osf.limit("storage", "", 3600, 3600.0)
    walk_node("jtfa5", config=config, release="lab", via=via, clock=clock)
    asked = 2 * (16 + 1) if via == "api" else 1
    assert sum("files/osfstorage" in seen.path for seen in osf.seen if seen.host == "api") == asked


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
    """A Retry-After beyond 15 minutes ends the walk, says when to come back, and keeps what is listed."""
    osf.play("throttle", host="storage", match=osf.nodes["jtfa5"].find("many").id, seconds=3000)
    with pytest.raises(RateLimited, match=r"come back in 3,000 s.*goes on from there"):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    assert list((config.home / "walks").glob("*.jsonl"))


def test_the_token_goes_to_the_api_alone(osf: OsfStandin, config: Config):
    """WaterButler never sees the token, and neither does a host that the API redirects to."""
    config = replace(config, osf_token="s3cret")
    walk_node("jtfa5", config=config, release="lab", clock=FakeClock())
    walk_node("jtfa5", config=config, release="lab", via="api", clock=FakeClock())
    tokens = {(seen.host, seen.token) for seen in osf.seen}
    assert tokens == {("api", "Bearer s3cret"), ("storage", None)}
    assert "s3cret" not in repr(config)


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
        (lambda node: node.upload("MANY/001.TXT", b"x"), ValidationFailed, "one name"),
        (lambda node: setattr(node, "public", False), SourceChanged, "public"),
    ],
)
def test_what_cannot_be_locked_is_refused_by_name(
    osf: OsfStandin, config: Config, prepare: Callable[[Node], object], error: type, text: str
):
    """A file without digest, a name that is no plain name, two names that are one, a private node."""
    prepare(osf.nodes["jtfa5"])
    with pytest.raises(error, match=text):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())


def test_an_unknown_node_is_named(osf: OsfStandin, config: Config):
    """A node that is not there, and a word that is no node's id."""
    with pytest.raises(SourceChanged, match="nqjyw cannot be listed"):
        walk_node("nqjyw", config=config, release="lab", clock=FakeClock())
    with pytest.raises(UsageError, match="not the id of an OSF node"):
        walk_node("https://osf.io/jtfa5", config=config, release="lab")
    with pytest.raises(UsageError, match="not a route"):
        walk_node("jtfa5", config=config, release="lab", via="osf")  # type: ignore[arg-type]


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


def test_two_walks_of_one_node_do_not_mix(osf: OsfStandin, config: Config):
    """A second process is told who walks already."""
    with (
        key_lock(config.home / "walks", "jtfa5-waterbutler.jsonl", timeout=0),
        pytest.raises(LockTimeout, match="process"),
    ):
        walk_node("jtfa5", config=config, release="lab", clock=FakeClock())


def test_offline_no_socket_is_opened(config: Config, monkeypatch: pytest.MonkeyPatch):
    """A walk that is told to stay offline says so and opens nothing."""
    with (
        forbidden_sockets(monkeypatch) as tried,
        pytest.raises(Offline, match="VERSE_DATA_OFFLINE"),
    ):
        walk_node("jtfa5", config=replace(config, offline=True), release="lab")
    assert tried == []
