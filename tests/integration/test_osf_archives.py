"""Zips that people have, or that lie on a server: members taken by hash."""

from __future__ import annotations

import hashlib
import io
import os
import random
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from osf_standin import FakeClock, Node, OsfStandin
from osf_standin.server import forbidden_sockets
from osf_standin.zips import Entry, build
from support.clutter import CLUTTER

from verse_data.config import Config
from verse_data.errors import (
    ArchiveRefused,
    NotTheFile,
    Offline,
    ServerUnavailable,
    SourceChanged,
    UrlRefused,
)
from verse_data.progress import Advance
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.releases.adopt import adopt_sources
from verse_data.releases.annex import ObjectStore
from verse_data.releases.http import Backoff

NOISE = random.Random(20)
FILES = {
    "dataset-verse19training/rawdata/sub-verse004/sub-verse004_ct.nii.gz": NOISE.randbytes(400_000),
    "dataset-verse19training/rawdata/sub-verse401/sub-verse401_split-verse253_ct.nii.gz": b"\x1f\x8b"
    * 99,
    "dataset-verse19training/derivatives/sub-verse004/sub-verse004_seg-subreg_ctd.json": b"[1, 2]",
    "dataset-verse19training/derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz": bytes(
        3000
    ),
    "dataset-verse19training/empty.txt": b"",
}


def lock_of(files: dict[str, bytes]) -> ReleaseLock:
    """Return the lock of files that are given as bytes."""
    rows = (
        LockedFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in sorted(files.items())
    )
    return ReleaseLock(release="lab", source=LockSource(kind="tree"), files=tuple(rows))


def zip_of(files: dict[str, bytes]) -> bytes:
    """Return a zip as the standard library writes it, folders included."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            folder = path.rpartition("/")[0]
            if not any(name.startswith(folder) for name in archive.namelist()):
                archive.mkdir(folder)
            archive.writestr(path, content)
    return stream.getvalue()


@pytest.fixture
def config(home: Path) -> Config:
    """Settings that point nowhere."""
    return Config(
        home=home, offline=False, osf_api="https://api.osf.io/v2", osf_site="https://osf.io"
    )


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An empty object store."""
    return ObjectStore(tmp_path / "lab")


@pytest.fixture
def osf() -> Iterator[OsfStandin]:
    """A stand-in whose mirror serves the zip."""
    with OsfStandin() as standin:
        standin.mirror["/training.zip"] = zip_of(FILES)
        yield standin


def holds_all(store: ObjectStore, lock: ReleaseLock) -> bool:
    """Whether every content is in place with the locked digest."""
    paths = [(store.object_path(file), file) for file in lock.files]
    return all(hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256 for path, file in paths)


@pytest.mark.parametrize("prefix", ["", "dataset-verse19training/", "somewhere else/"])
def test_members_are_found_by_content_under_any_root(
    tmp_path: Path, config: Config, store: ObjectStore, prefix: str
):
    """Doubled, missing and foreign root folders make no difference; the zip stays as it was."""
    path = tmp_path / "training.zip"
    path.write_bytes(content := zip_of({f"{prefix}{name}": body for name, body in FILES.items()}))
    report = adopt_sources([path], lock_of(FILES), store, config=config)
    assert [file.path for file in report.new] == sorted(FILES)
    assert (report.known, report.different, report.unknown, report.missing) == ([], [], [], [])
    assert holds_all(store, lock_of(FILES))
    assert path.read_bytes() == content
    assert list(store.incoming.iterdir()) == []
    again = adopt_sources([path], lock_of(FILES), store, config=config)
    assert ([file.path for file in again.known], again.new) == (sorted(FILES), [])


def test_clutter_in_a_zip_is_passed_over(
    tmp_path: Path, config: Config, store: ObjectStore
) -> None:
    """What systems leave in folders is not listed as unknown; what is locked is taken, hidden or not."""
    locked = {"training/.hidden_ct.nii.gz": b"\x1f\x8b1", "training/a_ct.nii.gz": b"\x1f\x8b22"}
    path = tmp_path / "theirs.zip"
    path.write_bytes(zip_of({**locked, **{f"training/{name}": b"clutter" for name in CLUTTER}}))

    report = adopt_sources([path], lock_of(locked), store, config=config)

    assert (len(report.new), report.unknown, report.missing) == (2, [], [])


def test_what_cannot_be_adopted_from_a_folder_is_told(
    tmp_path: Path, config: Config, store: ObjectStore
) -> None:
    """Links to nowhere and pipes are listed and nobody waits for them; the rest is adopted."""
    folder = tmp_path / "mine"
    (folder / "@eaDir").mkdir(parents=True)
    (folder / "@eaDir" / "b_ct.nii.gz").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a_ct.nii.gz").write_bytes(b"\x1f\x8b1")
    (folder / "sub-a").symlink_to(tmp_path / "elsewhere")
    (folder / "b_ct.nii.gz").symlink_to(".git/annex/objects/b")
    os.mkfifo(tmp_path / "queue")
    lock = lock_of({"a_ct.nii.gz": b"\x1f\x8b1", "b_ct.nii.gz": b"", "queue": b""})

    report = adopt_sources([folder, tmp_path / "queue"], lock, store, config=config)

    assert [file.path for file in report.new] == ["a_ct.nii.gz"]
    assert report.unknown == [
        f"{folder / 'b_ct.nii.gz'}: a link to .git/annex/objects/b, where nothing is",
        f"{tmp_path / 'queue'}: a pipe, socket or device",
    ]


def test_what_differs_and_what_is_unknown_is_told(
    tmp_path: Path, config: Config, store: ObjectStore
):
    """A locked name with other bytes is reported with both digests; a foreign file by name."""
    changed = dict(FILES)
    name = "dataset-verse19training/derivatives/sub-verse004/sub-verse004_seg-subreg_ctd.json"
    changed[name] = b"[3, 4, 5]"
    changed["dataset-verse19training/notes.md"] = b"mine"
    path = tmp_path / "training.zip"
    path.write_bytes(zip_of(changed))
    report = adopt_sources([path], lock_of(FILES), store, config=config)
    (difference,) = report.different
    assert (difference.found, difference.file.path) == (name, name)
    assert difference.sha256 == hashlib.sha256(b"[3, 4, 5]").hexdigest() != difference.file.sha256
    assert report.unknown == ["dataset-verse19training/notes.md"]
    assert [file.path for file in report.missing] == [name]


@pytest.mark.parametrize("entry", [{"zip64": True}, {"streamed": True}, {"method": 0}])
@pytest.mark.parametrize("archive", [{"zip64": True}, {"comment": b"of the lab"}, {}])
def test_every_right_form_of_zip_is_read(
    tmp_path: Path, config: Config, store: ObjectStore, entry: dict, archive: dict
):
    """zip64 members and ends, streamed and stored members, a comment."""
    path = tmp_path / "training.zip"
    entries = [Entry(name, body, **entry) for name, body in FILES.items()]
    path.write_bytes(build(entries, **archive))
    report = adopt_sources([path], lock_of(FILES), store, config=config)
    assert len(report.new) == len(FILES)
    assert holds_all(store, lock_of(FILES))


def test_of_a_remote_zip_only_what_is_missing_is_read(
    osf: OsfStandin, config: Config, store: ObjectStore
):
    """A byte, the tail and one range a member before it; the second call reads no member."""
    files = {f"rawdata/sub-{n}_ct.nii.gz": NOISE.randbytes(300_000) for n in range(4)}
    osf.mirror["/training.zip"] = zip_of(files)
    url = f"{osf.hosts['mirror']}/training.zip"
    report = adopt_sources([url], lock_of(files), store, config=config)
    assert [file.path for file in report.new] == sorted(files)
    assert holds_all(store, lock_of(files))
    assert osf.count("mirror") == 2 + len(files)
    assert all("range" in seen.headers for seen in osf.seen)
    osf.seen.clear()
    again = adopt_sources([url], lock_of(files), store, config=config)
    assert [file.path for file in again.known] == sorted(files)
    assert osf.count("mirror") == 2


@pytest.mark.parametrize("mode", ["cut_length", "reset", "unavailable", "throttle", "stall"])
def test_a_remote_zip_survives_a_server_that_stumbles(
    osf: OsfStandin, config: Config, store: ObjectStore, mode: str
):
    """A member whose transfer breaks is taken up where it broke."""
    osf.play(mode, times=2, host="mirror", seconds=0)
    quick = Backoff(first=0.001, most=0.01)
    url = f"{osf.hosts['mirror']}/training.zip"
    adopt_sources([url], lock_of(FILES), store, config=config, clock=FakeClock(), backoff=quick)
    assert holds_all(store, lock_of(FILES))


def test_a_remote_zip_that_changes_while_it_is_read_is_named(
    osf: OsfStandin, config: Config, store: ObjectStore
):
    """Another archive under the same address, once the directory has been read: nothing of it is taken."""
    url = f"{osf.hosts['mirror']}/training.zip"

    @contextmanager
    def progress(*_: object) -> Iterator[Advance]:
        osf.mirror["/training.zip"] = zip_of({**FILES, "more.txt": b"more"})
        yield lambda _: None

    with pytest.raises(SourceChanged, match=r"training\.zip: it changed while it was read"):
        adopt_sources([url], lock_of(FILES), store, config=config, progress=progress)


def test_a_server_without_ranges_gives_the_whole(
    osf: OsfStandin, config: Config, store: ObjectStore
):
    """The archive is downloaded, its members are taken by digest, and it is removed again."""
    osf.play("ignore_range", host="mirror")
    report = adopt_sources(
        [f"{osf.hosts['mirror']}/training.zip"], lock_of(FILES), store, config=config
    )
    assert [file.path for file in report.new] == sorted(FILES)
    assert holds_all(store, lock_of(FILES))
    assert list(store.incoming.iterdir()) == []


def test_a_folder_zip_of_osf_serves_although_its_bytes_change(
    osf: OsfStandin, config: Config, store: ObjectStore
):
    """Streamed, without length or ranges, never the same twice: only its members count."""
    node = osf.nodes["jtfa5"] = Node("jtfa5")
    for path, content in FILES.items():
        node.upload(path, content)
    folder = node.find("dataset-verse19training").id
    url = f"{osf.hosts['storage']}/v1/resources/jtfa5/providers/osfstorage/{folder}/?zip="
    report = adopt_sources([url], lock_of(FILES), store, config=config)
    assert [file.path for file in report.new] == sorted(FILES)
    assert holds_all(store, lock_of(FILES))


def test_a_whole_archive_that_never_ends_is_cut_off(
    osf: OsfStandin, config: Config, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    """A download beyond what the release can need is refused, and nothing of it is kept."""
    monkeypatch.setattr("verse_data.releases.adopt._SLACK", -800_000)
    osf.play("ignore_range", host="mirror")
    with pytest.raises(ArchiveRefused, match="beyond what the release needs"):
        adopt_sources([f"{osf.hosts['mirror']}/training.zip"], lock_of(FILES), store, config=config)
    assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "error"),
    [("html", NotTheFile), ("cut_no_length", ArchiveRefused), ("unavailable", ServerUnavailable)],
)
def test_a_server_that_cannot_serve_a_remote_zip_is_named(
    osf: OsfStandin, config: Config, store: ObjectStore, mode: str, error: type
):
    """Another page, a whole that was cut, or down for good: a named error, nothing in the store."""
    if mode == "cut_no_length":
        osf.play("ignore_range", host="mirror", times=1)
    osf.play(mode, host="mirror")
    with pytest.raises(error, match=r"training\.zip"):
        adopt_sources(
            [f"{osf.hosts['mirror']}/training.zip"],
            lock_of(FILES),
            store,
            config=config,
            clock=FakeClock(),
            backoff=Backoff(first=0.001, most=0.01),
        )
    assert not list(store.path.rglob("SHA256E*"))


def test_a_flipped_byte_on_the_way_is_refused(osf: OsfStandin, config: Config, store: ObjectStore):
    """A remote member that arrives damaged is never taken."""
    osf.play("flip", host="mirror")
    with pytest.raises((ArchiveRefused, NotTheFile)):
        adopt_sources([f"{osf.hosts['mirror']}/training.zip"], lock_of(FILES), store, config=config)
    for path in store.path.rglob("SHA256E*"):
        assert path.is_dir() or hashlib.sha256(path.read_bytes()).hexdigest() in path.name


def test_only_addresses_that_may_be_opened_are_opened(config: Config, store: ObjectStore):
    """Plain http to a public host is refused, also where the user typed it."""
    with pytest.raises(UrlRefused, match="plain http"):
        adopt_sources(["http://8.8.8.8/x.zip"], lock_of(FILES), store, config=config)


def test_offline_a_zip_on_disk_is_adopted_and_one_on_a_server_is_not(
    tmp_path: Path, config: Config, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    """No socket is opened for either."""
    offline = replace(config, offline=True)
    path = tmp_path / "training.zip"
    path.write_bytes(zip_of(FILES))
    with forbidden_sockets(monkeypatch) as tried:
        adopt_sources([path], lock_of(FILES), store, config=offline)
        with pytest.raises(Offline):
            adopt_sources(["https://s3.example/x.zip"], lock_of(FILES), store, config=offline)
    assert tried == []
    assert holds_all(store, lock_of(FILES))
