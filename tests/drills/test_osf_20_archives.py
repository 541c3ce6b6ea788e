"""Drill 20: hostile archives are refused by name or read harmlessly, and so are mutated ones."""

from __future__ import annotations

import bz2
import hashlib
import io
import random
import stat
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from osf_standin.zips import Entry, build

from verse_data.config import Config
from verse_data.errors import ArchiveRefused
from verse_data.progress import Advance
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock
from verse_data.releases.adopt import AdoptReport, adopt_sources
from verse_data.releases.annex import ObjectStore

NAME = "rawdata/sub-verse004/sub-verse004_ct.nii.gz"
BODY = random.Random(1).randbytes(20_000)
OTHER = "derivatives/sub-verse004/sub-verse004_ctd.json"
JSON = b'[{"label": 20, "X": 1.0, "Y": 2.0, "Z": 3.0}]' * 20
GOOD = [Entry(NAME, BODY), Entry(OTHER, JSON)]
NFC, NFD = (unicodedata.normalize(form, "é.json") for form in ("NFC", "NFD"))

HOSTILE: dict[str, bytes] = {
    "parent": build([*GOOD, Entry("../evil.json", b"x")]),
    "parent within": build([*GOOD, Entry("a/../../evil.json", b"x")]),
    "absolute": build([*GOOD, Entry("/tmp/evil.json", b"x")]),
    "backslash": build([*GOOD, Entry("..\\evil.json", b"x")]),
    "drive": build([*GOOD, Entry("C:evil.json", b"x")]),
    "nul": build([*GOOD, Entry("evil.json\0.txt", b"x")]),
    "newline": build([*GOOD, Entry("evil\nnew: 4.json", b"x")]),
    "right to left": build([*GOOD, Entry("a\u202egnp.json", b"x")]),
    "not utf-8": build([*GOOD, Entry(b"\xff\xfe.json", b"x")]),
    "long name": build([*GOOD, Entry("a" * 201, b"x")]),
    "symlink": build([*GOOD, Entry("l", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)]),
    "fifo": build([*GOOD, Entry("f", b"", mode=stat.S_IFIFO | 0o644)]),
    "device": build([*GOOD, Entry("d", b"", mode=stat.S_IFBLK | 0o644)]),
    "twice": build([*GOOD, Entry(NAME, b"other")]),
    "case": build([*GOOD, Entry(NAME.upper(), b"other")]),
    "unicode": build([Entry(NFC, b"1"), Entry(NFD, b"2")]),
    "file as folder": build([*GOOD, Entry(f"{OTHER}/x", b"x")]),
    "encrypted": build([*GOOD, Entry("secret", b"x", flags=1)]),
    "overlap": build([*GOOD, Entry("again", BODY, offset=0)]),
    "nested": build([*GOOD, Entry("inner.zip", b"PK")]),
    "bomb": build([*GOOD, Entry("zeros.bin", bytes(3_000_000))]),
    "gzip bomb": build([*GOOD, Entry("x.nii.gz", (b"\x1f\x8b" + bytes(100)) * 20_000)]),
    "lying size": build([Entry(NAME, BODY + BODY, size=len(BODY))]),
    "short": build([Entry(NAME, BODY[:-1], size=len(BODY))]),
    "wrong crc": build([Entry(NAME, BODY, crc=7)]),
    "crc of another": build([Entry(NAME, BODY, local_crc=7)]),
    "other name inside": build([Entry(NAME, BODY, local_name=NAME.encode()[::-1])]),
    "odd method": build([*GOOD, Entry("m", b"x", method=97)]),
    "before": build(GOOD, before=b"#!/bin/sh\n"),
    "after": build(GOOD, after=b"more"),
    "zip64 elsewhere": build(GOOD, zip64=True, locator_offset=-1),
    "one too many": build(GOOD, count=3),
    "one too few": build(GOOD, count=1),
    "cut": build(GOOD)[:-30],
    "no zip": b"<html>log in</html>" * 9,
    "empty": b"",
    "garbled data": build([Entry(NAME, BODY, packed=b"\xff" * 900)]),
    "encrypted and wanted": build([Entry(NAME, BODY, flags=1)]),
    "odd method and wanted": build([Entry(NAME, BODY, method=12, packed=bz2.compress(BODY))]),
    "long directory": build([Entry("n" * 60_000, b"") for _ in range(160)]),
    "cut data": build([Entry(NAME, BODY, packed=Entry(NAME, BODY).body[:-40])]),
}
REFUSED = {
    "not utf-8": "utf-8",
    "overlap": "'again'",
    "lying size": "CRC-32",
    "wrong crc": "CRC-32",
    "other name inside": "differ",
    "cut": "not a zip file",
    "no zip": "not a zip file",
    "empty": "not a zip file",
    "garbled data": "decompressing",
    "encrypted and wanted": "encrypted",
    "odd method and wanted": "neither stored nor deflated",
    "long directory": "longer than",
    "cut data": NAME,
}
"""What cannot be read without harm or doubt, and a word of why; the rest holds nothing that is wanted."""


def lock() -> ReleaseLock:
    """Return the lock that the archives' good members belong to."""
    rows = (
        LockedFile(path=path, size=len(body), sha256=hashlib.sha256(body).hexdigest())
        for path, body in ((OTHER, JSON), (NAME, BODY))
    )
    return ReleaseLock(release="lab", source=LockSource(kind="tree"), files=tuple(rows))


def settings(home: Path) -> Config:
    """Return settings that forbid sockets."""
    return Config(
        home=home, offline=True, osf_api="https://api.osf.io/v2", osf_site="https://osf.io"
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def objects(store: ObjectStore) -> list[Path]:
    """Return the contents in a store."""
    return [path for path in store.path.rglob("SHA256E*") if path.is_file()]


def adopt(archive: Path, store: ObjectStore, home: Path) -> AdoptReport:
    """Adopt a zip for the lock of the good members."""
    return adopt_sources([archive], lock(), store, config=settings(home))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_by_name_or_read_harmlessly(
    tmp_path: Path, home: Path, kind: str
):
    """A refusal names archive and reason; else only right contents are taken. Nothing lies elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = outside / "hostile.zip"
    archive.write_bytes(HOSTILE[kind])
    before = tree(outside)
    store = ObjectStore(tmp_path / "sandbox")
    if kind in REFUSED:
        with pytest.raises(ArchiveRefused, match=REFUSED[kind]) as caught:
            adopt(archive, store, home)
        assert caught.value.exit_code == 7
        assert str(archive) in str(caught.value)
        assert str(caught.value).isprintable()
    else:
        report = adopt(archive, store, home)
        assert all(name.isprintable() for name in report.unknown)
        assert all(file in lock().files for file in (*report.new, *report.missing))
        assert len(objects(store)) == len(report.new)
    assert right(store)
    assert [path for path in tmp_path.rglob("*") if "evil" in path.name] == []
    assert tree(outside) == before
    assert not store.incoming.exists() or list(store.incoming.iterdir()) == []


def right(store: ObjectStore) -> bool:
    """Whether each content in a store is a regular file with the digest that it is named after."""
    return all(
        not path.is_symlink() and hashlib.sha256(path.read_bytes()).hexdigest() in path.name
        for path in objects(store)
    )


@pytest.mark.parametrize("name", ["bomb.bin", NAME])
def test_of_a_bomb_no_more_is_inflated_than_the_release_can_need(
    tmp_path: Path, home: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    """A member of no locked size or name is not read; one with a locked name is beyond the budget."""
    monkeypatch.setattr("verse_data.releases.adopt._SLACK", 1 << 20)
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(build([Entry(name, bytes(3_000_000))]))
    read = []

    @contextmanager
    def progress(*_: object) -> Iterator[Advance]:
        yield read.append

    store = ObjectStore(tmp_path / "sandbox")
    with pytest.raises(ArchiveRefused, match="cannot need more") if name == NAME else nullcontext():
        adopt_sources([archive], lock(), store, config=settings(home), progress=progress)
    assert read == []


def test_an_archive_of_many_wanted_sizes_is_refused_before_it_is_inflated(
    tmp_path: Path, home: Path
):
    """Ten thousand members of a wanted size would inflate far beyond the release: a budget ends it."""
    big = bytes(200 << 10)
    wanted = LockedFile(path="a.bin", size=len(big), sha256="0" * 64)
    many = build([Entry(f"{number}.bin", big) for number in range(400)])
    archive = tmp_path / "many.zip"
    archive.write_bytes(many)
    release = ReleaseLock(release="lab", source=LockSource(kind="tree"), files=(wanted,))
    with pytest.raises(ArchiveRefused, match="cannot need more than"):
        adopt_sources([archive], release, ObjectStore(tmp_path / "sandbox"), config=settings(home))


def test_five_hundred_mutated_zips_do_no_harm(tmp_path: Path, home: Path):
    """Each is refused or gives only right contents; nothing else happens, and none takes long."""
    noise = random.Random(20)
    good = [
        build(GOOD),
        build(GOOD, zip64=True),
        build([Entry(NAME, BODY, streamed=True), GOOD[1]]),
    ]
    refused = accepted = 0
    longest = 0.0
    for number in range(500):
        spoilt = bytearray(noise.choice(good))
        structural = noise.random() < 0.7
        for _ in range(noise.randint(1, 4)):
            place = (
                noise.randrange(len(spoilt) - 400, len(spoilt))
                if structural
                else noise.randrange(len(spoilt))
            )
            spoilt[place] = noise.choice(
                [0, 0xFF, noise.randrange(256), spoilt[place] ^ (1 << noise.randrange(8))]
            )
        if noise.random() < 0.2:
            del spoilt[noise.randrange(len(spoilt)) :]
        archive = tmp_path / "mutated.zip"
        archive.write_bytes(spoilt)
        store = ObjectStore(tmp_path / f"sandbox{number % 10}" / str(number))
        began = time.process_time()
        try:
            report = adopt(archive, store, home)
        except ArchiveRefused:
            refused += 1
        else:
            accepted += 1
            assert all(file in lock().files for file in report.new)
        longest = max(longest, time.process_time() - began)
        assert right(store)
        assert not store.incoming.exists() or list(store.incoming.iterdir()) == []
    assert refused > 250
    assert accepted > 10
    assert longest < 5.0
    assert {path.name for path in tmp_path.iterdir()} <= {
        "mutated.zip",
        home.name,
        *(f"sandbox{number}" for number in range(10)),
    }


def test_control_extractall_takes_what_must_be_refused(tmp_path: Path):
    """The naive way unpacks collisions, bombs, junk around and double names without a word."""
    taken = []
    for kind in ("twice", "case", "unicode", "newline", "bomb", "before", "nested", "symlink"):
        target = tmp_path / kind.replace(" ", "_")
        try:
            zipfile.ZipFile(io.BytesIO(HOSTILE[kind])).extractall(target)
        except (zipfile.BadZipFile, OSError, ValueError):
            continue
        taken.append(kind)
    assert len(taken) >= 6
