"""Zips written by hand, so that they can be wrong in one place at a time."""

from __future__ import annotations

import stat
import struct
import zlib
from dataclasses import dataclass


@dataclass
class Entry:
    """One member; what is None is what a right zip would say."""

    name: str | bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    mode: int = stat.S_IFREG | 0o644
    size: int | None = None
    crc: int | None = None
    offset: int | None = None
    local_name: bytes | None = None
    local_crc: int | None = None
    streamed: bool = False
    zip64: bool = False
    packed: bytes | None = None

    @property
    def raw_name(self) -> bytes:
        """The name's bytes."""
        return self.name.encode() if isinstance(self.name, str) else self.name

    @property
    def body(self) -> bytes:
        """The packed bytes."""
        if self.packed is not None:
            return self.packed
        if self.method != 8:
            return self.content
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return squeezer.compress(self.content) + squeezer.flush()


def build(
    entries: list[Entry],
    *,
    before: bytes = b"",
    after: bytes = b"",
    zip64: bool = False,
    comment: bytes = b"",
    locator_offset: int = 0,
    count: int | None = None,
) -> bytes:
    """Return a zip of `entries`."""
    out, central = bytearray(before), bytearray()
    for entry in entries:
        offset = len(out)
        body, crc = entry.body, zlib.crc32(entry.content)
        size = len(entry.content) if entry.size is None else entry.size
        crc = crc if entry.crc is None else entry.crc
        flags = entry.flags | (8 if entry.streamed else 0) | 0x800
        name = entry.raw_name
        local = name if entry.local_name is None else entry.local_name
        told = (0, 0, 0) if entry.streamed else (crc, len(body), size)
        if entry.local_crc is not None:
            told = (entry.local_crc, *told[1:])
        out += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, flags, entry.method, 0, 0, *told, len(local), 0
        )
        out += local + body
        if entry.streamed:
            out += struct.pack("<4s3L", b"PK\7\10", crc, len(body), size)
        offset = offset if entry.offset is None else entry.offset
        extra, fields = b"", (len(body), size, offset)
        if entry.zip64:
            extra = struct.pack("<2H3Q", 1, 24, size, len(body), offset)
            fields = (0xFFFFFFFF,) * 3
        central += struct.pack(
            "<4s6H3L5H2L",
            b"PK\1\2",
            (3 << 8) | 20,
            20,
            flags,
            entry.method,
            0,
            0,
            crc,
            fields[0],
            fields[1],
            len(name),
            len(extra),
            0,
            0,
            0,
            entry.mode << 16,
            fields[2],
        )
        central += name + extra
    start, number = len(out), len(entries) if count is None else count
    out += central
    if zip64:
        record = len(out)
        out += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, number, number, len(central), start
        )
        out += struct.pack("<4sLQL", b"PK\6\7", 0, record + locator_offset, 1)
        number = start = 0xFFFF
    out += struct.pack(
        "<4s4H2LH",
        b"PK\5\6",
        0,
        0,
        number,
        number,
        0xFFFFFFFF if zip64 else len(central),
        0xFFFFFFFF if zip64 else start,
        len(comment),
    )
    return bytes(out) + comment + after
