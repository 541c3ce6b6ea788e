"""One member of a zip, inflated under a budget and checked to its last bit."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from verse_data.errors import ArchiveRefused
from verse_data.progress import Advance
from verse_data.publishing import storage_errors
from verse_data.releases.zip_directory import ENCRYPTED, STORED, Member
from verse_data.releases.zip_end import Source, refused

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_STREAMED: Final = 0x0008
_BLOCK: Final = 1 << 20
_FULL32: Final = 0xFFFFFFFF


def extract(source: Source, member: Member, target: Path, *, advance: Advance) -> str:
    """Write the content of `member` to `target` and return its SHA-256 (hex).

    Raises
    ------
    ArchiveRefused
        If the member is not what the directory says: header, length, CRC-32. What was written to
        `target` is the caller's to remove.
    """
    digest, crc, size = hashlib.sha256(), 0, 0
    with storage_errors(target), target.open("wb") as stream:
        for block in _inflated(source, member):
            size += len(block)
            if size > member.size:
                said = f"it inflates beyond the {member.size:,} bytes of its entry"
                raise refused(source, f"member {member.name!r}: {said}")
            crc = zlib.crc32(block, crc)
            digest.update(block)
            stream.write(block)
            advance(len(block))
    if size < member.size:
        said = f"it holds {size:,} bytes, and its entry says {member.size:,}"
        raise refused(source, f"member {member.name!r}: {said}")
    if crc != member.crc:
        raise refused(source, f"member {member.name!r}: its CRC-32 does not match; it is damaged")
    return digest.hexdigest()


def _inflated(source: Source, member: Member) -> Iterator[bytes]:
    packed = _packed(source, member)
    if member.method == STORED:
        yield from packed
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in packed:
            rest = piece
            while rest and not inflater.eof:
                block = inflater.decompress(rest, _BLOCK)
                rest = inflater.unconsumed_tail
                if block:
                    yield block
            if inflater.unused_data or (inflater.eof and rest):
                raise refused(source, f"member {member.name!r}: bytes follow its end")
        # What the last piece left inside the inflater.
        while not inflater.eof and (block := inflater.decompress(b"", _BLOCK)):
            yield block
    except zlib.error as error:
        raise refused(source, f"member {member.name!r}: it is damaged ({error})") from error
    if not inflater.eof:
        raise refused(source, f"member {member.name!r}: it was cut")


def _packed(source: Source, member: Member) -> Iterator[bytes]:
    """Yield the packed bytes of a member, out of one read from its header to its end."""
    held = b""
    left = None
    for piece in source.stream(member.start, member.end - member.start):
        if left is None:
            held += piece
            data = _data_start(source, member, held)
            if data is None:
                continue
            held, left = held[data:], member.packed
        else:
            held = piece
        if left:
            yield held[:left]
            left -= min(left, len(held))
        if not left:
            # A streamed member's own record of its sizes follows; the directory has said them.
            return
    raise refused(source, f"member {member.name!r}: it was cut")


def _data_start(source: Source, member: Member, head: bytes) -> int | None:
    """Check a member's own header against the directory; None if more of it is needed."""
    if len(head) < _LOCAL.size:
        return None
    fields = _LOCAL.unpack_from(head)
    start = _LOCAL.size + fields[9] + fields[10]
    name = head[_LOCAL.size : _LOCAL.size + fields[9]]
    if fields[0] == b"PK\x03\x04" and len(head) < _LOCAL.size + fields[9]:
        return None
    sizes_agree = fields[2] & _STREAMED or (
        fields[6] == member.crc
        and fields[7] in {member.packed, _FULL32}
        and fields[8] in {member.size, _FULL32}
    )
    if (
        fields[0] != b"PK\x03\x04"
        or name != member.raw_name
        or fields[2] & ENCRYPTED
        or fields[3] != member.method
        or not sizes_agree
    ):
        raise refused(source, f"member {member.name!r}: its own header says otherwise")
    if member.start + start + member.packed > member.end:
        raise refused(source, f"member {member.name!r}: it overlaps with what follows it")
    return start if len(head) >= start else None


def refuse_gzip_bomb(source: Source, member: Member) -> None:
    """Refuse a member that claims to be gzip and packs far better than gzip ever does.

    Raises
    ------
    ArchiveRefused
        If it inflates more than threefold beyond a mebibyte.
    """
    if member.name.endswith(".gz") and member.size > max(1 << 20, 3 * member.packed):
        raise ArchiveRefused(
            str(
                refused(
                    source, f"member {member.name!r}: it inflates more than 3 times, though gzip"
                )
            )
        )
