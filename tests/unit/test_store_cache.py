"""The cache on this machine: list, verify, prune, size, in Python and on the command line."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from tests.support.left import leave_temporary
from tests.support.scans import make_scan
from verse_data.cli.main import app
from verse_data.errors import IntegrityError
from verse_data.files import canonical_json, claimed, discard, sha256_of_json
from verse_data.volumes import cache
from verse_data.volumes.build import build_stores
from verse_data.volumes.cache import cache_size, list_stores, prune, verify_stores
from verse_data.volumes.recipe import Recipe
from verse_data.volumes.store import ensure_store, files_below, load_manifest


@pytest.fixture
def stores(tmp_path):
    """Three stores of two scans, below a cache root."""
    root = tmp_path / "home/stores"
    one = make_scan(tmp_path / "1", scan_id="verse901", shape=(20, 20, 20)).source
    two = make_scan(tmp_path / "2", scan_id="verse902", shape=(20, 20, 20), with_mask=False).source
    ensure_store(one, Recipe(), root)
    ensure_store(one, Recipe(codec="none"), root)
    ensure_store(two, Recipe(), root)
    return root


def run(*arguments):
    """Run a command; return exit code, stdout and what was raised."""
    done = CliRunner().invoke(app, ["cache", *map(str, arguments)])
    return done.exit_code, done.stdout, done.exception


def test_list_and_size(stores):
    """Each store is listed with whose it is; sizes add up to what lies on the disk."""
    found = list_stores(stores)
    images = {s.scan_id: s.image for s in found}
    count, nbytes = cache_size(stores)

    assert sorted(s.scan_id for s in found) == ["verse901", "verse901", "verse902"]
    assert {s.image for s in found} == set(images.values())
    assert {s.recipe["codec"] for s in found} == {"lz4", "none"}
    assert (count, nbytes) == (3, sum(s.nbytes for s in found))
    blocks = {(p.stat().st_ino, p.stat().st_size) for p in stores.rglob("*") if p.is_file()}
    assert nbytes == sum(size for _, size in blocks)


def test_verify_and_repair(stores):
    """Damage is found by name; repair removes the damaged store alone."""
    store = list_stores(stores)[0].path
    shard = store / "image/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])

    damaged = verify_stores(stores)
    assert list(damaged) == [store]
    assert "image/c/0/0/0" in str(damaged[store][0])
    assert cache_size(stores)[0] == 3
    assert list(verify_stores(stores, repair=True)) == [store]
    assert cache_size(stores)[0] == 2
    assert verify_stores(stores) == {}


def test_stores_may_go_while_they_are_verified(stores):
    """Another process that prunes meanwhile is neither damage nor an error; nor is going twice."""

    @contextmanager
    def meanwhile(*_):
        yield lambda _: prune(stores, everything=True)

    assert verify_stores(stores, repair=True, progress=meanwhile) == {}
    assert cache_size(stores) == (0, 0)
    discard(stores / "00" / ("0" * 64))


def test_stores_may_go_while_they_are_listed(stores, monkeypatch):
    """One that another process prunes while it is read is left out, and called neither damaged nor an error."""
    names = [store.fingerprint for store in list_stores(stores)]

    def late(store):
        if store.name == names[1]:
            discard(store)
        return load_manifest(store)

    monkeypatch.setattr(cache, "load_manifest", late)

    assert [(s.fingerprint, s.state) for s in list_stores(stores)] == [
        (names[0], "sound"),
        (names[2], "sound"),
    ]


def test_files_may_go_while_they_are_counted(stores):
    """A walk through a store that another process removes meanwhile comes to its end."""
    store = list_stores(stores)[0].path
    walk = files_below(store)
    first = next(walk)

    discard(store)

    assert first.parent == store
    assert {path.parent for path in walk} <= {store}


def test_prune_takes_what_it_is_told(stores):
    """Nothing unless asked; then by release, age, what is kept; a dry run takes nothing."""
    names = [store.fingerprint for store in list_stores(stores)]
    assert prune(stores).stores == ()
    assert len(prune(stores, everything=True, dry_run=True).stores) == 3
    assert prune(stores, images=["SHA256E-s1--00.nii.gz"]).stores == ()
    assert prune(stores, older_than_days=1).stores == ()
    old = list_stores(stores)[2].path
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    assert prune(stores, older_than_days=2).stores == (old,)
    gone = prune(stores, keep=names[:1])
    assert [path.name for path in gone.stores] == names[1:2]
    assert gone.nbytes > 0
    (last,) = list_stores(stores)
    assert prune(stores, images=[last.image]).stores == (last.path,)
    assert cache_size(stores) == (0, 0)


def test_prune_sweeps_leftovers(stores):
    """Temporary folders of dead processes go; those of living ones, of other machines and of other programs stay."""
    folder = list_stores(stores)[0].path.parent
    dead = leave_temporary(folder)
    elsewhere, foreign = folder / ".tmp-00000000-00000000", folder / ".tmp-notes"
    for path in (elsewhere, foreign):
        path.mkdir()
    with claimed(folder / ".tmp-") as living:
        assert prune(stores).leftovers == (dead,)
        assert living.is_dir()
    assert elsewhere.is_dir()
    for path in (elsewhere, foreign):
        os.utime(path, (1.7e9, 1.7e9))
    assert prune(stores).leftovers == (elsewhere,)
    assert foreign.is_dir()


def test_commands(stores):
    """list, size, verify and prune print JSON and nothing else to stdout, and exit as they should."""
    root = ("--root", stores.parent)
    code, out, _ = run("list", *root, "--json")
    assert code == 0
    assert {entry["scan_id"] for entry in json.loads(out)} == {"verse901", "verse902"}
    code, out, _ = run("list", *root)
    assert "own grid, none" in out
    code, out, _ = run("size", *root, "--json")
    assert json.loads(out)["stores"] == 3
    code, out, _ = run("verify", *root, "--json")
    assert (code, json.loads(out)) == (0, {"damaged": [], "findings": []})

    (list_stores(stores)[0].path / "zarr.json").unlink()
    code, out, error = run("verify", *root, "--json")
    assert isinstance(error, IntegrityError)
    assert error.exit_code == 4
    assert "zarr.json" in json.loads(out)["findings"][0]
    code, _, _ = run("verify", *root, "--repair")
    assert code == 0
    code, out, _ = run("prune", "--all", *root, "--json")
    assert len(json.loads(out)["stores"]) == 2
    assert cache_size(stores)[0] == 0


def test_an_empty_cache(tmp_path):
    """Where nothing was built yet, every command says so and none fails."""
    root = ("--root", tmp_path / "nothing")
    assert [run(c, *root)[0] for c in ("list", "size", "verify", "prune")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "arguments", [("--spacing", "1,x,1"), ("--spacing", "1,1"), ("--codec", "gzip")]
)
def test_build_refuses_a_bad_recipe(arguments):
    """A recipe that means nothing is a usage error before any release is opened."""
    code, out, _ = run("build", "phantom", *arguments)
    assert (code, out) == (2, "")


def test_build_refuses_fewer_workers_than_one():
    """A number of processes below one is a usage error."""
    assert run("build", "phantom", "--workers", "-3")[0] == 2


def test_what_is_no_store_is_passed_over(stores):
    """Foreign files among the folders of stores, and beside stores, disturb no command."""
    taken = {path.name for path in stores.iterdir()}
    (stores / next(f"{n:02x}" for n in range(256) if f"{n:02x}" not in taken)).touch()
    folder = next(stores.glob("*/*")).parent
    (folder / (folder.name + "0" * 62)).touch()

    root = ("--root", stores.parent)
    assert [run(c, *root)[0] for c in ("list", "size", "verify", "prune")] == [0, 0, 0, 0]
    assert cache_size(stores)[0] == 3


def test_a_folder_in_place_of_the_manifest_is_damage(stores):
    """It is a finding of that store; the others are looked at, and repair removes it."""
    store = list_stores(stores)[1].path
    (store / "image/manifest.json").unlink()
    (store / "image/manifest.json").mkdir()

    assert [s.state for s in list_stores(stores)] == ["sound", "damaged", "sound"]
    assert list(verify_stores(stores)) == [store]
    assert prune(stores).stores == (store,)


def test_a_store_of_another_layout_is_left_alone(stores):
    """A newer version's store goes by --all only; one whose manifest is damaged goes at once."""
    newer = list_stores(stores)[0].path
    manifest = newer / "image/manifest.json"
    document = json.loads(manifest.read_bytes()) | {"store_format": 3, "extra": [1]}
    del document["root"]
    manifest.write_bytes(canonical_json(document | {"root": sha256_of_json(document)}))

    found = list_stores(stores)
    assert found[0].state == "later_format"
    assert verify_stores(stores, repair=True) == {}
    images = [store.image for store in found[1:]]
    assert newer not in (*prune(stores).stores, *prune(stores, images=images, dry_run=True).stores)
    assert newer.is_dir()

    manifest.write_bytes(manifest.read_bytes().replace(b'"extra":[1]', b'"extra":[3]'))
    assert list_stores(stores)[0].state == "damaged"
    assert prune(stores).stores == (newer,)


def test_stores_of_earlier_formats_go_alone_if_asked(stores):
    """Those that an earlier version wrote are named by list, and `prune --earlier-formats` takes no other."""
    old = list_stores(stores)[1].path
    manifest = old / "image/manifest.json"
    document = json.loads(manifest.read_bytes()) | {"store_format": 1, "subject_id": "verse901"}
    del document["root"]
    manifest.write_bytes(canonical_json(document | {"root": sha256_of_json(document)}))
    root = ("--root", stores.parent)

    assert "Remove it: verse-data cache prune --earlier-formats" in run("list", *root)[1]
    assert json.loads(run("prune", *root, "--json")[1])["stores"] == []
    gone = json.loads(run("prune", "--earlier-formats", *root, "--json")[1])
    assert gone["stores"] == [str(old)]
    assert [s.state for s in list_stores(stores)] == ["sound", "sound"]


def test_leftovers_are_counted_and_swept_by_the_next_build(stores, tmp_path):
    """Whatever folder they lie in; size and a dry run say how much they take."""
    leftover = leave_temporary(stores / "00")
    (leftover / "zarr.json").write_bytes(b"12345")

    found = json.loads(run("size", "--root", stores.parent, "--json")[1])
    assert (found["leftovers"], found["leftover_bytes"]) == (1, 5)
    assert prune(stores, dry_run=True).nbytes == 5
    assert leftover.is_dir()
    build_stores([make_scan(tmp_path / "3", shape=(8, 8, 8)).source], Recipe(), stores)
    assert not leftover.exists()
