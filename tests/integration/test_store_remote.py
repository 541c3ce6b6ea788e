"""Stores behind a URL: an S3 server on loopback, a folder, and what can be wrong there."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.kills import is_true
from tests.support.s3 import nobody, s3_server
from tests.support.scans import make_scan
from verse_data.errors import (
    ChunkCorrupt,
    ChunkMissing,
    ContentMissing,
    Offline,
    ServerUnavailable,
    StorageError,
    StoreCorrupt,
    UsageError,
)
from verse_data.volumes import remote
from verse_data.volumes.build import build_stores
from verse_data.volumes.cache import verify_stores
from verse_data.volumes.recipe import Recipe, fingerprint
from verse_data.volumes.remote import RemoteStores
from verse_data.volumes.store import ensure_store, load_manifest

pytest.importorskip("obstore", reason="optional: pip install fsspec obstore")


@pytest.fixture
def scan(tmp_path):
    """A small scan."""
    return make_scan(tmp_path / "scan", shape=(40, 36, 34))


@pytest.fixture
def s3():
    """A server."""
    with s3_server() as server:
        yield server


def stores_at(server, cache):
    """Return the stores behind the server's URL, with local copies below `cache`."""
    options = {
        "endpoint": server.url,
        "access_key_id": "somebody",
        "secret_access_key": "very secret",
        "region": "us-east-1",
        "client_options": {"allow_http": True},
        "retry_config": {"max_retries": 0},
    }
    return RemoteStores("s3://lab/stores", cache, options)


def test_built_once_and_read_elsewhere(tmp_path, scan, s3):
    """One machine builds and uploads; another, without the scan's files, reads the same bytes."""
    here, there = stores_at(s3, tmp_path / "here"), stores_at(s3, tmp_path / "there")
    name = fingerprint(scan.source.keys, Recipe())
    assert not here.has(name)

    built = build_stores([scan.source], Recipe(), tmp_path, remote=here)["verse901"]
    shutil.rmtree(tmp_path / "scan")
    fetched = build_stores([scan.source], Recipe(), tmp_path, remote=there)["verse901"]

    assert is_true(fetched, scan)
    assert load_manifest(fetched).root == load_manifest(built).root
    assert fetched.is_relative_to(tmp_path / "there")


def test_the_manifest_is_written_last(tmp_path, scan, s3):
    """Until its manifest is there a store does not exist, and it is the last thing to come."""
    store = stores_at(s3, tmp_path / "here").ensure(scan.source, Recipe())

    written = [key for method, key in s3.log if method == "PUT"]
    name = fingerprint(scan.source.keys, Recipe())

    assert written[-1] == f"lab/stores/{name[:2]}/{name}/manifest.json"
    assert len(written) == len(load_manifest(store).keys) + 2, "it lies beside its files too"


def test_an_upload_that_stops_is_not_seen(tmp_path, scan, s3):
    """A refused write is a named error without the secret; the next try mends it."""
    here = stores_at(s3, tmp_path / "here")
    s3.refuse = "label/c/0/0/0"
    with pytest.raises(ServerUnavailable, match="s3://lab/stores could not be used") as raised:
        here.ensure(scan.source, Recipe())
    assert "very secret" not in str(raised.value) + repr(here)
    assert not here.has(fingerprint(scan.source.keys, Recipe()))

    s3.refuse = None
    here.ensure(scan.source, Recipe())
    assert here.has(fingerprint(scan.source.keys, Recipe()))


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": lambda sound: (
        sound[: len(sound) // 2]
        + bytes([sound[len(sound) // 2] ^ 4])
        + sound[len(sound) // 2 + 1 :]
    ),
    "cut": lambda sound: sound[:-1],
    "missing": lambda _: None,
}


@pytest.mark.parametrize(
    "damage",
    ["flipped", *(pytest.param(one, marks=pytest.mark.slow) for one in ("cut", "missing"))],
)
def test_damage_at_the_url_is_a_named_error(tmp_path, scan, s3, damage):
    """Damage of any object is found, and nothing of it is kept here."""
    stores_at(s3, tmp_path / "here").ensure(scan.source, Recipe())
    there, name = stores_at(s3, tmp_path / "there"), fingerprint(scan.source.keys, Recipe())
    for key, sound in list(s3.objects.items()):
        if "/labels/" in key or key.endswith("image/manifest.json"):
            continue  # further names of what is tried already; a copy for those who read without us
        if (damaged := DAMAGE[damage](sound)) is None:
            del s3.objects[key]
        else:
            s3.objects[key] = damaged
        expected = (ChunkCorrupt, ChunkMissing, StoreCorrupt, ContentMissing)
        with pytest.raises(expected, match="s3://lab/stores") as raised:
            there.fetch(name)
        assert "--repair" not in str(raised.value)
        assert [path for path in (tmp_path / "there").rglob("*") if path.is_file()] == []
        s3.objects[key] = sound
    assert is_true(there.fetch(name), scan)


def test_no_server_is_a_named_error(tmp_path, scan):
    """An address where nothing answers is an error that says what to check."""
    with nobody() as server, pytest.raises(ServerUnavailable, match="Check the address"):
        stores_at(server, tmp_path / "here").ensure(scan.source, Recipe())


def test_offline_asks_nobody(tmp_path, scan, s3):
    """With the network forbidden a copy that is here is served, another is an error, both silent."""
    online = stores_at(s3, tmp_path / "here")
    offline = replace(online, offline=True)
    online.ensure(scan.source, Recipe())
    s3.log.clear()
    shutil.rmtree(tmp_path / "scan")

    assert is_true(offline.ensure(scan.source, Recipe()), scan)
    with pytest.raises(Offline, match="s3://lab/stores"):
        replace(offline, cache=tmp_path / "there").ensure(scan.source, Recipe())
    for ask in (offline.has, replace(offline, cache=tmp_path / "there").fetch):
        with pytest.raises(Offline, match="--offline"):
            ask(fingerprint(scan.source.keys, Recipe()))
    assert s3.log == []


def test_offline_builds_what_it_has_the_files_of(tmp_path, scan, s3):
    """With the network forbidden and the scan's files here a store is built, and uploaded later."""
    online = stores_at(s3, tmp_path / "here")
    offline = replace(online, offline=True)

    for _ in range(2):
        assert is_true(offline.ensure(scan.source, Recipe()), scan)
    assert s3.log == []

    online.ensure(scan.source, Recipe())
    assert is_true(
        stores_at(s3, tmp_path / "there").fetch(fingerprint(scan.source.keys, Recipe())), scan
    )


@pytest.mark.parametrize("scheme", ["file://", "file://localhost", ""])
def test_a_folder_needs_no_network(tmp_path, scan, scheme):
    """A root that is a folder of this machine is filled and read with the network forbidden."""
    url = f"{scheme}{tmp_path}/shared"
    (tmp_path / "shared").mkdir()
    here, there = (RemoteStores(url, tmp_path / n, offline=True) for n in ("here", "there"))
    build_stores([scan.source], Recipe(), tmp_path, remote=here)
    shutil.rmtree(tmp_path / "scan")

    assert is_true(there.ensure(scan.source, Recipe()), scan)
    assert len(list((tmp_path / "shared").glob("??/*/manifest.json"))) == 1
    with pytest.raises(ContentMissing, match=f"{tmp_path}/shared holds no store"):
        there.fetch("00" * 32)


def test_a_folder_is_not_its_own_copy(tmp_path):
    """The folder of the local copies, named as the shared root too, is refused."""
    (tmp_path / "link").symlink_to(tmp_path / "s")
    for spelling in ("s/", "x/../s", "link"):
        with pytest.raises(UsageError, match="VERSE_DATA_STORES"):
            RemoteStores(f"file://{tmp_path}/{spelling}", tmp_path / "s")


def test_the_own_stores_of_another_machine_are_not_shared(tmp_path, scan):
    """A folder in which a machine keeps stores for itself is refused, and nothing is written there."""
    ensure_store(scan.source, Recipe(), tmp_path / "theirs")
    before = sorted((tmp_path / "theirs").rglob("*"))

    with pytest.raises(UsageError, match=r"one machine's own stores.*VERSE_DATA_STORES"):
        RemoteStores(str(tmp_path / "theirs"), tmp_path / "here")

    assert sorted((tmp_path / "theirs").rglob("*")) == before
    assert verify_stores(tmp_path / "theirs") == {}


def test_a_folder_that_is_not_there_is_not_made(tmp_path, scan):
    """A share that is not mounted is an error with what to type; copies that are here are served."""
    away = tmp_path / "not mounted"
    shared = RemoteStores(str(away), tmp_path / "here")

    with pytest.raises(StorageError, match=r"VERSE_DATA_STORES names .*mkdir -p '/.*not mounted'$"):
        build_stores([scan.source], Recipe(), tmp_path, remote=shared)
    ensure_store(scan.source, Recipe(), tmp_path / "here")
    assert is_true(shared.ensure(scan.source, Recipe()), scan)
    assert not away.exists()


@pytest.mark.parametrize("url", ["lab/stores", "./stores", "file://lab/stores", "file:/lab"])
def test_a_relative_folder_is_refused(tmp_path, monkeypatch, url):
    """It would be another folder wherever a process is started, so nothing is made below this one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"VERSE_DATA_STORES=.*not an absolute path.*/mnt/lab/stores"
    ):
        RemoteStores(url, tmp_path / "here")


def test_a_damaged_copy_is_not_uploaded(tmp_path, scan):
    """A byte that rotted here, under an unchanged size, stays here, and the error says how to mend it."""
    store = ensure_store(scan.source, Recipe(), tmp_path / "here")
    shard = store / "image/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    (tmp_path / "shared").mkdir()
    shared = RemoteStores(str(tmp_path / "shared"), tmp_path / "here")

    with pytest.raises(ChunkCorrupt, match="verse-data cache verify --repair"):
        shared.ensure(scan.source, Recipe())
    assert list((tmp_path / "shared").rglob("*")) == []

    verify_stores(tmp_path / "here", repair=True)
    shared.ensure(scan.source, Recipe())
    there = RemoteStores(str(tmp_path / "shared"), tmp_path / "there")
    assert is_true(there.fetch(store.name), scan)


def test_files_in_a_folder_are_replaced_whole(tmp_path, scan):
    """Whoever reads at a file:// URL while another machine uploads the same store reads it whole."""
    (tmp_path / "shared").mkdir()
    here = RemoteStores(f"file://{tmp_path}/shared", tmp_path / "here")
    store = here.ensure(scan.source, Recipe())
    shard = next((tmp_path / "shared").rglob("image/c/0/0/0"))
    with shard.open("rb") as reader:
        before = shard.stat().st_ino
        here.upload(store)
        assert shard.stat().st_ino != before
        assert reader.read() == shard.read_bytes() == (store / "image/c/0/0/0").read_bytes()
    assert list((tmp_path / "shared").rglob(".tmp-*")) == []


def test_a_copy_is_served_when_the_url_is_down(tmp_path, scan):
    """What is here and whole needs no server; nor does asking again need a round trip."""
    with s3_server() as server:
        here = stores_at(server, tmp_path / "here")
        here.ensure(scan.source, Recipe())
        server.log.clear()
        here.ensure(scan.source, Recipe())
        assert server.log == []
    assert is_true(here.ensure(scan.source, Recipe()), scan)


def test_a_copy_that_was_never_uploaded_is_served_without_a_server(tmp_path, scan):
    """A store built before the URL was set is served with the server down, and uploaded later."""
    ensure_store(scan.source, Recipe(), tmp_path / "here")
    with nobody() as server:
        here = stores_at(server, tmp_path / "here")
        assert is_true(here.ensure(scan.source, Recipe()), scan)
    with s3_server() as server:
        here = stores_at(server, tmp_path / "here")
        here.ensure(scan.source, Recipe())
        assert here.has(fingerprint(scan.source.keys, Recipe()))


def test_a_url_that_failed_is_not_tried_for_every_copy(tmp_path, s3):
    """What is here is served at once after one upload failed, and uploaded by a later call."""
    scans = [make_scan(tmp_path / str(n), seed=n, scan_id=f"verse90{n}") for n in range(3)]
    sources = [scan.source for scan in scans]
    build_stores(sources, Recipe(), tmp_path / "here")
    s3.refuse = "lab"

    first = stores_at(s3, tmp_path / "here")
    assert len(build_stores(sources, Recipe(), tmp_path, remote=first)) == 3

    assert len({key.split("/")[3] for method, key in s3.log if method == "PUT"}) == 1
    s3.refuse = None
    build_stores(sources, Recipe(), tmp_path, remote=stores_at(s3, tmp_path / "here"))
    assert all(first.has(fingerprint(source.keys, Recipe())) for source in sources)


def test_damage_at_the_url_is_mended_where_the_sources_are(tmp_path, scan, s3):
    """Whoever has the scan's files builds and uploads a damaged store again, its manifest last."""
    stores_at(s3, tmp_path / "here").ensure(scan.source, Recipe())
    name = fingerprint(scan.source.keys, Recipe())
    key = next(key for key in s3.objects if key.endswith("image/c/0/0/0"))
    s3.objects[key] = s3.objects[key][:-1]
    s3.log.clear()

    assert is_true(stores_at(s3, tmp_path / "there").ensure(scan.source, Recipe()), scan)

    assert [key for method, key in s3.log if method == "PUT"][-1].endswith(f"{name}/manifest.json")
    assert is_true(stores_at(s3, tmp_path / "third").fetch(name), scan)

    s3.objects[key] = s3.objects[key][:-1]
    shutil.rmtree(tmp_path / "scan")
    with pytest.raises(ChunkCorrupt, match=f"s3://lab/stores/{name[:2]}/{name}/.*built and upload"):
        stores_at(s3, tmp_path / "fourth").ensure(scan.source, Recipe())


def test_errors_of_others_are_cut_to_a_line(tmp_path, scan):
    """A file system's own debugging text, dozens of lines of it, is not shown."""
    with nobody() as server, pytest.raises(ServerUnavailable) as raised:
        stores_at(server, tmp_path / "here").ensure(scan.source, Recipe())
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_the_manifest_in_a_folder_is_replaced_whole(tmp_path, scan, monkeypatch):
    """At a file:// URL a writer that dies while it writes the manifest leaves the old one."""
    (tmp_path / "s").mkdir()
    here = RemoteStores(f"file://{tmp_path}/s", tmp_path / "here")
    store = here.ensure(scan.source, Recipe())
    pointer = tmp_path / "s" / store.name[:2] / store.name / "manifest.json"
    before, inode = pointer.read_bytes(), pointer.stat().st_ino

    def die(path):
        if pointer.parent in path.parents:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remote, "sync", die)
        with pytest.raises(KeyboardInterrupt):
            here.upload(store)
    assert (pointer.read_bytes(), pointer.stat().st_ino) == (before, inode)
    assert list(pointer.parent.glob(".tmp-*")) == []
    here.upload(store)
    assert pointer.read_bytes() == before
    assert pointer.stat().st_ino != inode


def test_a_folder_is_a_url_too(tmp_path, scan):
    """Any fsspec file system will do; what is uploaded is a Zarr group that others can open."""
    import zarr

    (tmp_path / "shared").mkdir()
    here = RemoteStores(f"file://{tmp_path}/shared", tmp_path / "here")
    store = here.ensure(scan.source, Recipe())

    root, name = load_manifest(store).root, store.name
    group = zarr.open_group(tmp_path / "shared" / name[:2] / name / root, mode="r")
    assert group["image"].shape == (36, 40, 34)
    other = RemoteStores(f"file://{tmp_path}/shared", tmp_path / "there")
    assert is_true(other.ensure(scan.source, Recipe()), scan)


def test_what_answers_with_other_bytes_is_refused(tmp_path, s3):
    """The manifest of another store, or objects that changed places, are never taken for this one."""
    made = [make_scan(tmp_path / n, seed=int(n), scan_id=f"verse90{n}") for n in "12"]
    names = [fingerprint(scan.source.keys, Recipe()) for scan in made]
    for scan in made:
        stores_at(s3, tmp_path / "here").ensure(scan.source, Recipe())
    sound, there = dict(s3.objects), stores_at(s3, tmp_path / "there")

    pointers = [f"lab/stores/{name[:2]}/{name}/manifest.json" for name in names]
    s3.objects[pointers[0]] = sound[pointers[1]]
    with pytest.raises(StoreCorrupt, match="the manifest of another store"):
        there.fetch(names[0])

    s3.objects |= sound
    image, label = (
        next(key for key in sound if names[0] in key and key.endswith(f"/{name}/c/0/0/0"))
        for name in ("image", "label")
    )
    s3.objects[image], s3.objects[label] = sound[label], sound[image]
    with pytest.raises(ChunkCorrupt, match="verse901"):
        there.fetch(names[0])
    assert [path for path in (tmp_path / "there").rglob("*") if path.is_file()] == []

    s3.objects |= sound
    assert is_true(there.fetch(names[0]), made[0])


def test_two_machines_build_at_once(tmp_path, scan):
    """Stores of one name whose bytes differ never mix: files lie under their manifest's digest."""
    (tmp_path / "s").mkdir()
    here, there = (RemoteStores(f"file://{tmp_path}/s", tmp_path / n) for n in ("here", "there"))
    name = fingerprint(scan.source.keys, Recipe())
    here.ensure(scan.source, Recipe())
    (tmp_path / "s" / name[:2] / name / "manifest.json").unlink()
    there.ensure(scan.source, Recipe())

    assert is_true(RemoteStores(f"file://{tmp_path}/s", tmp_path / "third").fetch(name), scan)


def test_it_may_be_pickled(tmp_path):
    """It travels to worker processes, with its options."""
    stores = RemoteStores("s3://lab/stores", tmp_path, {"region": "x"})
    assert pickle.loads(pickle.dumps(stores)) == stores  # noqa: TID251 - our own bytes


def test_secrets_in_urls_are_not_shown(tmp_path):
    """User name and password of a URL are left out of messages."""
    stores = RemoteStores("nosuch://me:secret@host/x", tmp_path)
    with pytest.raises(Exception, match="nosuch") as raised:
        stores.has("00")
    assert "secret" not in str(raised.value)
