"""Where the list of a zip's members is: its end record, with zip64 (APPNOTE.TXT 4.3.14 to 4.3.16)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from verse_data.errors import ArchiveRefused

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_FULL16: Final = 0xFFFF
_FULL32: Final = 0xFFFFFFFF
_MOST_MEMBERS: Final = 20_000
_MOST_DIRECTORY_BYTES: Final = 16 << 20


class Source(Protocol):
    """Bytes that can be read at any place: a file, or a server that gives ranges."""

    name: str
    size: int

    def read(self, first: int, length: int) -> bytes:
        """Return exactly `length` bytes from `first` on."""

    def stream(self, first: int, length: int) -> Iterator[bytes]:
        """Yield exactly `length` bytes from `first` on, piece by piece."""


@dataclass(frozen=True)
class Directory:
    """Offset and size of a central directory in bytes, and how many entries it has."""

    start: int
    size: int
    count: int


def find_directory(source: Source) -> Directory:
    """Return where the central directory of a zip is.

    Raises
    ------
    ArchiveRefused
        If it is no zip, was cut, or has bytes around it that no zip has.
    """
    length = min(source.size, _END.size + _FULL16)
    tail = source.read(source.size - length, length)
    at = _end_record(source, tail)
    _, disk, first_disk, here, count, size, start, _ = _END.unpack_from(tail, at)
    end = source.size - length + at
    if _FULL16 in {disk, first_disk, here, count} or _FULL32 in {size, start}:
        found = _zip64(source, end)
    else:
        found = Directory(start, size, count)
        if disk or first_disk or here != count or start + size != end:
            raise refused(source, "its directory is not where its end record says")
    if found.count > _MOST_MEMBERS or found.size > _MOST_DIRECTORY_BYTES:
        raise refused(
            source, f"{found.count:,} members are more than the limit of {_MOST_MEMBERS:,}"
        )
    return found


def _end_record(source: Source, tail: bytes) -> int:
    """Return where in the tail the last end record is whose comment reaches just to the end."""
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise refused(source, "it has no end record: it is no zip, or was cut")
    while at >= 0:
        after = at + _END.size
        if after <= len(tail) and after + int.from_bytes(tail[after - 2 : after], "little") == len(
            tail
        ):
            return at
        at = tail.rfind(b"PK\x05\x06", 0, at)
    raise refused(source, "bytes follow its end, or its end was cut")


def _zip64(source: Source, end: int) -> Directory:
    place = end - _LOCATOR.size
    if place < _END64.size:
        raise refused(source, "its zip64 locator is missing")
    mark, disk, record, disks = _LOCATOR.unpack(source.read(place, _LOCATOR.size))
    if mark != b"PK\x06\x07" or disk or disks > 1 or record > place - _END64.size:
        raise refused(source, "its zip64 locator is wrong")
    fields = _END64.unpack(source.read(record, _END64.size))
    mark, length, _, _, disk, first_disk, here, count, size, start = fields
    whole = mark == b"PK\x06\x06" and record + 12 + length == place and start + size == record
    if not whole or disk or first_disk or here != count:
        raise refused(source, "its zip64 record is wrong")
    return Directory(start, size, count)


def refused(source: Source, rule: str) -> ArchiveRefused:
    """Return the error that names the archive and the rule it breaks."""
    return ArchiveRefused(
        f"{source.name}: {rule}. The archive was refused and nothing was taken from it. If you trust "
        f"it, unpack it yourself and adopt the folder: verse-data adopt RELEASE FOLDER"
    )
