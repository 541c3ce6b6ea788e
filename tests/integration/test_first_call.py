"""One call on an empty machine: the release is made, what the call needs is fetched and converted, and no more."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from osf_standin import Node, OsfStandin
from osf_standin.server import forbidden_sockets
from support.command import platform_folders
from typer.testing import CliRunner, Result

import verse_data as vd
from verse_data import config
from verse_data.api import TrustOnFirstUse
from verse_data.cli.main import app
from verse_data.errors import (
    ContentCorrupt,
    ContentMissing,
    DiskFull,
    IncompleteTable,
    NetworkError,
    Offline,
    UsageError,
)
from verse_data.phantom import write as write_phantom
from verse_data.releases.repository import Repository
from verse_data.volumes.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small phantom under the folder names of VerSe'19, without its workbook."""
    tree = write_phantom(tmp_path_factory.mktemp("made") / "tree", n_subjects=4, shape=(32, 64, 24))
    for folder in list(tree.glob("dataset-phantom*")):
        folder.rename(tree / folder.name.replace("phantom", "verse19"))
    (tree / "phantom_grading.xlsx").unlink()
    return tree


@pytest.fixture
def osf(tree: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OsfStandin]:
    """Serve it where the catalog says that VerSe'19 lies; nothing of it is here."""
    del home  # only set by then
    node = Node("jtfa5")
    node.upload_tree(tree)
    with OsfStandin(node) as osf:
        for name, value in osf.environment.items():
            monkeypatch.setenv(name, value)
        yield osf


def verse_data(*words: str) -> Result:
    """Call the command line, as a test that warnings are no errors to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustOnFirstUse)
        return CliRunner().invoke(app, list(words))


def count(tree: Path, split: str, *ends: str) -> int:
    """Return how many files of a split have one of these endings."""
    files = (tree / f"dataset-verse19{split}").rglob("*")
    return sum(path.name.endswith(ends) for path in files)


def test_one_line_does_everything(osf: OsfStandin, tree: Path) -> None:
    """Without any other command: lock, fetch the split's volumes and centroids, convert, serve; once."""
    with pytest.warns(
        TrustOnFirstUse, match=r"digest sha256:[0-9a-f]{64}.*trust on first use"
    ) as seen:
        served = vd.load_split("training")

    assert len(seen) == 1
    assert len(served) == count(tree, "training", "_ct.nii.gz") > 0
    assert served[0]["image"].shape == served[0]["label"].shape
    # The files of one scan may have equal bytes; what this call does not need was not asked for.
    needed = count(tree, "training", "_ct.nii.gz", "_msk.nii.gz", "_ctd.json")
    assert osf.count("bucket") == needed
    osf.seen.clear()
    assert len(vd.load_split("training")) == len(served)
    assert osf.seen == []


OVERLAY = """
name = "mine"
title = "ours"
version = "1"
releases = ["verse19"]
source = "a test"
licence = "CC0-1.0"
[scans.verse901]
why = "each is the other"
relabel = { T12 = "L1", L1 = "T12" }
"""


def test_one_line_lays_an_overlay_over_it(osf: OsfStandin, tmp_path: Path) -> None:
    """Locked, fetched and corrected in one call; without the overlay the same stores are as published."""
    (tmp_path / "mine.toml").write_text(OVERLAY)
    overlays = [tmp_path / "mine.toml"]
    with pytest.warns(TrustOnFirstUse):
        served = vd.load_split("training", overlays=overlays)
    osf.seen.clear()
    plain = vd.load_split("training")

    (old, new) = (
        next(sample["label"] for sample in one if sample["scan_id"] == "verse901")
        for one in (plain, served)
    )
    assert osf.seen == []
    assert (old == 19).any()
    assert ((old == 19) == (new == 20)).all()
    assert served.provenance["stores"] == plain.provenance["stores"]
    assert served.fingerprint != plain.fingerprint
    release = vd.open_release(overlays=overlays)
    assert release.lock.digest == vd.open_release().lock.digest
    assert [line.partition(", by")[0] for line in release.diff("v1").lines()] == [
        "verse901: labels T12 -> L1, L1 -> T12"
    ]
    assert vd.open_release().diff("v1").lines() == []


@pytest.mark.usefixtures("osf")
def test_the_commands_do_the_same_in_steps(tree: Path) -> None:
    """``get`` alone locks, says so with the digest, and brings the split."""
    done = verse_data("get", "verse19", "--split", "training", "--role", "ct,mask")

    assert done.exit_code == 0, done.output
    fetched = count(tree, "training", "_ct.nii.gz", "_msk.nii.gz")
    assert f"{fetched} fetched" in done.stdout
    status = json.loads(verse_data("status", "verse19", "--json").stdout)
    assert (status["versions"], status["here"]) == (["v1"], fetched)


@pytest.mark.usefixtures("osf")
def test_a_pin_holds_also_at_the_first_call() -> None:
    """Whoever names a digest gets that version or none; another version is brought by its lock."""
    with pytest.raises(UsageError, match=r"OSF lists verse19 as .*--from-lock FILE"):
        vd.open_release("verse19", version=f"sha256:{'0' * 64}")
    with pytest.raises(UsageError, match=r"gives v1, not 'v2'.*--from-lock FILE"):
        vd.open_release("verse19", version="v2")
    assert {found.name: found.versions for found in vd.list_releases()}["verse19"] == ()

    with pytest.warns(TrustOnFirstUse) as warned:
        release = vd.open_release("verse19")
    assert Path(warned[0].filename) == Path(__file__)
    assert vd.open_release("verse19", version=f"sha256:{release.lock.digest}").version == "v1"


def test_without_the_network_what_is_missing_is_named(
    osf: OsfStandin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing here: the line that brings it. A lock here: files, bytes, and the line; no socket in either case."""
    with forbidden_sockets(monkeypatch) as opened:
        for call in (
            lambda: vd.load_split("training", offline=True),
            lambda: vd.open_release("verse19", offline=True),
            lambda: vd.VerSeDataset(split="training", download=False),
        ):
            with pytest.raises(Offline, match="comes with: verse-data get verse19"):
                call()
    assert opened == []
    with pytest.warns(TrustOnFirstUse):
        vd.open_release("verse19")
    osf.seen.clear()
    for call in (
        lambda: vd.load_split("training", offline=True),
        lambda: vd.VerSeDataset(split="training", download=False),
    ):
        with pytest.raises(
            Offline, match=r"\d+ files \([\d,]+ bytes\)(.|\n)*verse-data get verse19"
        ):
            call()
    assert osf.seen == []


def test_where_osf_cannot_be_reached_the_way_round_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody answers at the first call: files that somebody has already can be locked instead."""
    monkeypatch.setenv("VERSE_DATA_OSF_API", "https://osf.invalid/v2/")

    with pytest.raises(NetworkError, match="needs no network: verse-data lock verse19 --from-tree"):
        vd.load_split("training")


def test_a_class_that_may_download_does_the_same(osf: OsfStandin, tmp_path: Path) -> None:
    """``VerSeDataset(root, "training", download=True)`` locks, fetches, converts and serves."""
    with pytest.warns(TrustOnFirstUse):
        served = vd.VerSeDataset(tmp_path / "root", "training", download=True)

    assert len(served) > 0
    osf.seen.clear()
    assert len(vd.VerSeDataset(tmp_path / "root", "training", download=False)) == len(served)
    assert osf.seen == []


def test_what_only_looks_lists_nothing(osf: OsfStandin) -> None:
    """Status, drop, verify and provenance of a release that is not here say so, and ask nobody."""
    for words in (["status"], ["drop"], ["verify"], ["provenance"]):
        done = verse_data(*words, "verse19")
        assert isinstance(done.exception, UsageError), done.output
        assert "verse-data get verse19" in str(done.exception)
    assert osf.seen == []


@dataclass(frozen=True)
class Written:
    """What the first call for the phantom left in the platform's folders, and how it went."""

    data: Path
    cache: Path
    served: int
    sockets: list[object]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Serve the test split of the phantom where there is none, without a network; once, as it takes seconds."""
    folder = tmp_path_factory.mktemp("platform")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VERSE_DATA_")]:
            patch.delenv(name)
        if sys.platform == "linux":
            data, cache = platform_folders(folder, patch)
        else:  # other platforms name their folders otherwise
            data = cache = folder
            patch.setenv(config.HOME_VARIABLE, str(folder))
        patch.setenv("VERSE_DATA_PROGRESS", "off")
        patch.setattr(os, "cpu_count", lambda: 1)
        with forbidden_sockets(patch) as opened:
            served = len(vd.load_split("test", release="phantom", offline=True))
        return Written(data, cache, served, list(opened))


@pytest.fixture
def folders(
    written: Written, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """Give a test copies of these folders of its own."""
    del home  # only unset by then
    data, cache = platform_folders(tmp_path, monkeypatch)
    shutil.copytree(written.data, data, symlinks=True)
    shutil.copytree(written.cache, cache, symlinks=True)
    return data, cache


def test_the_phantom_is_written_on_the_spot(written: Written, home: Path) -> None:
    """Without a network and without any command before, by Python as by commands, the same."""
    assert written.served > 0
    assert written.sockets == []
    (first,) = (written.data / "releases").iterdir()

    done = verse_data("status", "phantom", "--json")

    commit = Repository(first).commit()
    assert json.loads(done.stdout)["commit"] == commit
    assert [path.name for path in (home / "releases").iterdir()] == ["phantom"]


@pytest.mark.usefixtures("folders")
def test_the_phantom_comes_back_where_its_files_are_gone() -> None:
    """Killed before its files were adopted, or dropped: no address has them, and they are written again."""
    release = vd.open_release("phantom")
    gone = release.locked(roles=["centroids"])[:2]
    for file in gone:
        path = release.files.object_path(file)
        path.parent.chmod(0o755)
        path.unlink()

    assert len(vd.open_release("phantom", offline=True).fetch().fetched) == 0
    assert all(release.files.has(file) for file in gone)
    assert vd.open_release("phantom").version == "v1"


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(
    osf: OsfStandin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and the stores made of them are counted together."""
    with pytest.warns(TrustOnFirstUse):
        release = vd.open_release("verse19")
    files = sum(
        file.size
        for scan in release.series.values()
        if scan.split == "training"
        for role, file in scan.files.items()
        if role in {"ct", "mask", "centroids"}
    )
    usage = shutil.disk_usage(config.resolve().home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(files * 1.5)))
    osf.seen.clear()

    with pytest.raises(DiskFull, match="for files and the stores made of them"):
        vd.load_split("training")

    assert osf.seen == []


def test_a_scan_dataset_reads_no_tables(osf: OsfStandin, tree: Path) -> None:
    """A broken workbook and a broken sidecar of the split stop nothing that does not ask them."""
    node = osf.nodes["jtfa5"]
    node.upload("ryai190138_AppendixE1.xlsx", b"PK no workbook at all")
    sidecar = next((tree / "dataset-verse19training").rglob("*_ct.json"))
    node.upload(sidecar.relative_to(tree).as_posix(), b"{")
    with pytest.warns(TrustOnFirstUse):
        vd.open_release("verse19").fetch()

    assert len(vd.load_split("training")) > 0
    assert len(vd.load_split("training", unit="patch", patch_size=16)) > 0
    with pytest.raises(vd.VerseDataError, match="ryai190138_AppendixE1"):
        vd.load_split("training", unit="vertebra")


@pytest.mark.parametrize(
    "options",
    [
        {"unit": "vertebra"},
        {"unit": "patch", "patch_size": 16, "sampling": "grade"},
        {"where": "grade >= 2"},
    ],
)
def test_grades_without_the_workbook_are_refused_before_the_first_byte(
    osf: OsfStandin, options: dict[str, Any]
) -> None:
    """OSF does not have it, so the refusal says what it is, where it lies and how it comes here."""
    with (
        pytest.warns(TrustOnFirstUse),
        pytest.raises(ContentMissing, match=r"supplement E1 of .*doi.*verse-data adopt verse19"),
    ):
        vd.load_split("training", **options)

    assert osf.count("bucket") == 0


@pytest.mark.usefixtures("osf")
def test_levels_need_no_workbook() -> None:
    """Masks and centroids say where a level is: such conditions are answered without the grades."""
    with pytest.warns(TrustOnFirstUse):
        served = vd.load_split("training", where="level == 'L1'")
    patches = vd.load_split("training", unit="patch", patch_size=16, sampling="level")

    assert 0 < len(served) == len(vd.load_split("training", where="level == 'L1'"))
    assert len(patches) > 0
    with pytest.warns(IncompleteTable):
        rows = vd.open_release("verse19").vertebrae.assign(grade=2)
    with pytest.raises(ContentMissing, match=r"supplement E1"):
        vd.open_release("verse19").dataset(rows)


@pytest.mark.usefixtures("osf")
def test_finished_stores_need_no_files() -> None:
    """Once converted, the volumes can be dropped: scans and patches are served from the stores alone."""
    with pytest.warns(TrustOnFirstUse):
        before = vd.load_split("training")
    assert verse_data("drop", "verse19", "--unchecked").exit_code == 0

    for call in (
        lambda: vd.load_split("training", offline=True),
        lambda: vd.open_release("verse19", offline=True).dataset([s.scan_id for s in before.scans]),
    ):
        again = call()
        assert len(again) == len(before)
        assert (again[0]["image"] == before[0]["image"]).all()
    release, scan_id = vd.open_release("verse19"), str(before.scans.scan_id[0])
    assert release.open_scan(scan_id).attrs["scan_id"] == scan_id
    assert release.build_cache([scan_id])[scan_id].is_dir()
    with pytest.raises(ContentMissing):
        release.build_cache([scan_id], recipe=Recipe(codec="zstd"))
    with pytest.raises(Offline):
        vd.load_split("validation", offline=True)


def fill(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Convert a split on a machine that shares its stores in a folder."""
    shared.mkdir()
    monkeypatch.setenv(config.STORES_VARIABLE, shared.as_uri())
    with pytest.warns(TrustOnFirstUse):
        return vd.load_split("training")


def move_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as another machine, which has the lock of VerSe'19 and nothing else."""
    lock = home.with_suffix(".json")
    lock.write_bytes(vd.open_release("verse19").lock.canonical())
    monkeypatch.setenv(config.HOME_VARIABLE, str(home))
    assert verse_data("lock", "verse19", "--from-lock", str(lock)).exit_code == 0


def flip(path: Path) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_second_machine_needs_a_lock_and_the_shared_stores(
    osf: OsfStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one machine converted, another serves without a download; without the shared root, the control, it cannot."""
    first = fill(tmp_path / "shared", monkeypatch)
    move_to(tmp_path / "second", monkeypatch)
    osf.seen.clear()

    with monkeypatch.context() as patch:
        patch.delenv(config.STORES_VARIABLE)
        with pytest.raises(Offline):
            vd.load_split("training", offline=True)
    second = vd.load_split("training", offline=True)

    assert osf.seen == []
    assert [scan.scan_id for scan in second.scans] == [scan.scan_id for scan in first.scans]
    for index in range(len(first)):
        assert (second[index]["image"] == first[index]["image"]).all()
        assert (second[index]["label"] == first[index]["label"]).all()
    assert not any(
        vd.open_release("verse19").files.has(file) for file in vd.open_release("verse19").lock.files
    )


@pytest.mark.usefixtures("osf")
def test_a_damaged_shared_store_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are fetched, and it is mended for all; where they cannot be had the error names it."""
    first = fill(tmp_path / "shared", monkeypatch)
    move_to(tmp_path / "second", monkeypatch)
    shard = next((tmp_path / "shared").rglob("image/c/0/0/0"))
    flip(shard)
    named = rf"1 shared store is damaged\. .*{shard.parents[4]}.*built and uploaded again"

    scan_id = next(scan.scan_id for scan in first.scans if scan.store.name == shard.parents[5].name)
    release = vd.open_release("verse19", offline=True)
    for call in (
        lambda: vd.load_split("training", offline=True),
        lambda: release.open_scan(scan_id),
    ):
        with (
            pytest.warns(UserWarning, match=named),
            pytest.raises((Offline, ContentMissing), match=rf"verse-data get(.|\n)*{named}"),
        ):
            call()
    with pytest.warns(UserWarning, match=named):
        second = vd.load_split("training")
    move_to(tmp_path / "third", monkeypatch)
    third = vd.load_split("training", offline=True)

    for index in range(len(first)):
        assert (second[index]["image"] == first[index]["image"]).all()
        assert (third[index]["image"] == first[index]["image"]).all()


@pytest.mark.usefixtures("osf")
def test_without_the_network_shared_stores_behind_it_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither files nor stores can be had: the error speaks of both."""
    with pytest.warns(TrustOnFirstUse):
        vd.open_release("verse19")
    monkeypatch.setenv(config.STORES_VARIABLE, "s3://lab/stores")

    with pytest.raises(
        Offline, match=r"verse-data get verse19(.|\n)*stores are at s3://lab/stores"
    ):
        vd.load_split("training", offline=True)


@pytest.mark.usefixtures("osf")
def test_a_finished_store_is_opened_whatever_became_of_its_files() -> None:
    """A damaged centroid file stops neither ``open_scan`` nor ``build_cache``; only what is unbuilt needs it."""
    with pytest.warns(TrustOnFirstUse):
        served = vd.load_split("training")
    release, scan_id = vd.open_release("verse19"), str(served.scans.scan_id[0])
    flip(release.files.object_path(release.series[scan_id].files["centroids"]))

    assert release.open_scan(scan_id).attrs["scan_id"] == scan_id
    assert release.build_cache([scan_id])[scan_id].is_dir()
    with pytest.raises(ContentCorrupt):
        release.build_cache([scan_id], recipe=Recipe(codec="zstd"))


CALL = "import verse_data as vd; print(len(vd.load_split('training')))"


@pytest.mark.slow
def test_two_first_calls_at_once_both_serve(osf: OsfStandin, tree: Path) -> None:
    """The second waits while the first lists OSF, and finds the release that it made."""
    osf.latency = 0.05
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", CALL], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]

    answers = [int(child.communicate()[0]) for child in both]

    assert answers == [count(tree, "training", "_ct.nii.gz")] * 2


def test_series_that_no_lock_lists_are_left_out_by_name(osf: OsfStandin) -> None:
    """What OSF has lost is in ``excluded`` and in the check of its split, and is no misspelt id."""
    with pytest.warns(TrustOnFirstUse):
        served = vd.load_split("training")
    release = vd.open_release("verse19")
    lost = served.excluded.set_index("reason").loc["not_in_lock", "scan_id"]

    expected = [series for series in release.catalog.expected if series.split == "training"]
    assert len(served) > 0
    assert list(lost) == [series.scan_id for series in expected]
    with pytest.raises(UsageError, match=r"was published in verse19.*findings verse19"):
        release.fetch([lost.iloc[0]])


def test_names_and_place_are_looked_at_before_osf(osf: OsfStandin, home: Path) -> None:
    """A misspelt release of a union, or a place that is taken, costs no listing."""
    with pytest.raises(UsageError, match=r"no release 'verse91'.*Did you mean 'verse19'"):
        vd.load_split("training", release=["verse19", "verse91"])
    (home / "releases" / "verse19").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds no release"):
        vd.load_split("training")

    assert osf.seen == []


@pytest.mark.parametrize(
    "stage", ["listing", pytest.param("download", marks=pytest.mark.slow), "conversion"]
)
def test_a_call_that_was_killed_goes_on(osf: OsfStandin, tree: Path, stage: str) -> None:
    """Killed while it lists, downloads or converts, the same line does the rest in another process."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}

    def reached() -> bool:
        stores = config.resolve().stores
        return {
            "listing": osf.count("storage") > 0,
            "download": osf.count("bucket") > 1,
            "conversion": stores.is_dir() and any(stores.rglob("*/image")),
        }[stage]

    osf.latency = 0.02
    with subprocess.Popen(
        [sys.executable, "-c", CALL], env=environment, start_new_session=True
    ) as child:
        until = time.monotonic() + 120
        while not reached() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        os.killpg(child.pid, signal.SIGKILL)
    osf.latency = 0.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustOnFirstUse)  # by then the killed one may have locked
        served = vd.load_split("training")

    assert len(served) == count(tree, "training", "_ct.nii.gz")


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms name their folders otherwise")
def test_releases_are_data_and_stores_are_cache(folders: tuple[Path, Path]) -> None:
    """Whoever clears the cache loses no download; one root puts both under it."""
    data, cache = folders
    assert [path.name for path in (data / "releases").iterdir()] == ["phantom"]
    assert not (cache / "releases").exists()
    assert any((cache / "stores").iterdir())
    shutil.rmtree(cache)
    assert len(vd.load_split("test", release="phantom", offline=True)) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms name their folders otherwise")
def test_a_release_that_lies_beside_the_stores_is_used_there(folders: tuple[Path, Path]) -> None:
    """Where version 0.1 kept releases, they are found, and the command that moves them is named."""
    data, cache = folders
    (cache / "releases").mkdir()
    (data / "releases" / "phantom").rename(cache / "releases" / "phantom")

    with pytest.warns(UserWarning, match="mv .*cache.*phantom .*data.*releases"):
        release = vd.open_release("phantom", offline=True)

    assert release.files.path == cache / "releases" / "phantom"
    assert "phantom" in {info.name for info in vd.list_releases() if info.versions}
