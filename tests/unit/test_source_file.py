"""Locked files: what is read of them was compared with size and digest first."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from tests.support.opened import opened_below
from verse_data.errors import (
    ContentCorrupt,
    ContentMissing,
    NiftiRefused,
    UsageError,
    ValidationFailed,
    VolumeCorrupt,
)
from verse_data.records.source_file import SourceFile

CONTENT = b'{"KVP": "120", "Manufacturer": "Philips"}'


@pytest.fixture
def file(tmp_path: Path) -> SourceFile:
    """A small file, as locked."""
    path = tmp_path / "content.json"
    path.write_bytes(CONTENT)
    return SourceFile(
        path,
        f"SHA256E-s{len(CONTENT)}--{hashlib.sha256(CONTENT).hexdigest()}.json",
        name="rawdata/sub-verse004/sub-verse004_ct.json",
        release="lab",
        scan_id="verse004",
        repair="verse-data drop lab --corrupt && verse-data get lab",
    )


def test_the_bytes_are_those_that_were_hashed(file: SourceFile) -> None:
    """A sound file gives its bytes, opened once."""
    with opened_below(file.path.parent) as opened:
        assert file.read() == CONTENT
    assert opened == [file.path.name]


def test_every_flipped_bit_is_an_error(file: SourceFile) -> None:
    """Each bit of the file, flipped alone, is refused by reading and by checking."""
    for bit in range(len(CONTENT) * 8):
        damaged = bytearray(CONTENT)
        damaged[bit // 8] ^= 1 << bit % 8
        file.path.write_bytes(damaged)
        with pytest.raises(ContentCorrupt):
            file.read()
        with pytest.raises(ContentCorrupt):
            file.check()


@pytest.mark.parametrize("damaged", [b"", CONTENT[:-1], CONTENT + b" ", CONTENT + b"x" * (3 << 20)])
def test_the_error_says_what_where_and_what_to_type(file: SourceFile, damaged: bytes) -> None:
    """Release, path, scan, both digests and the command are named, also for a file of another size."""
    file.path.write_bytes(damaged)
    found, locked = (hashlib.sha256(data).hexdigest()[:12] for data in (damaged, CONTENT))

    for call in (file.read, file.check):
        with pytest.raises(ContentCorrupt) as caught:
            call()
        for part in ("release lab", file.name, "scan verse004", found, locked, file.repair):
            assert part in str(caught.value)


def test_a_missing_file_is_named(file: SourceFile) -> None:
    """A file that is gone is ContentMissing, from each way to its bytes."""
    file.path.unlink()
    for call in (file.read, file.check, file.stat):
        with pytest.raises(ContentMissing, match="sub-verse004"):
            call()


@pytest.mark.parametrize("kind", [NiftiRefused, ValidationFailed, VolumeCorrupt])
def test_what_a_reader_says_of_damaged_bytes_is_the_damage(
    file: SourceFile, kind: type[Exception]
) -> None:
    """A reader's error becomes one about the digest if the bytes are wrong, and stays if not."""
    with pytest.raises(kind, match="as it was"), file.checked():
        raise kind("as it was")
    file.path.write_bytes(b"other")
    expected = VolumeCorrupt if kind is VolumeCorrupt else ContentCorrupt
    with pytest.raises(expected, match="is locked"), file.checked():
        raise kind("as it was")


def test_other_errors_are_left_alone(file: SourceFile) -> None:
    """A full disk is not the file's fault, and the file is not read for it."""
    file.path.write_bytes(b"other")
    with (
        opened_below(file.path.parent) as opened,
        pytest.raises(OSError, match="full"),
        file.checked(),
    ):
        raise OSError("full")
    assert opened == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_no_damage(file: SourceFile) -> None:
    """Permissions are this machine's trouble."""
    file.path.chmod(0)
    with pytest.raises(PermissionError):
        file.read()


@pytest.mark.parametrize(
    "key", ["MD5E-s1--00.json", "SHA256E-s1--ab.json", "SHA256-s1--" + "0" * 63]
)
def test_a_key_without_a_digest_is_refused(key: str) -> None:
    """Bytes must have something to be compared with."""
    with pytest.raises(UsageError, match="holds no SHA-256"):
        SourceFile(Path("x.json"), key)


def test_it_travels_to_other_processes(file: SourceFile) -> None:
    """Workers that convert get it whole."""
    assert pickle.loads(pickle.dumps(file)) == file  # noqa: TID251 - our own bytes
