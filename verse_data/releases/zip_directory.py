"""The list of a zip's members, read strictly: what is ambiguous or hostile is refused by name.

The standard library accepts overlapping members, names twice, junk before and after, and a wrong
zip64 record (CVE-2024-0450, CVE-2025-8291, by version); so nothing here rests on it. Format:
APPNOTE.TXT 6.3.10 of PKWARE, section 4.3 to 4.5.
"""

from __future__ import annotations

import re
import stat
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from verse_data.releases.zip_end import Directory, Source, find_directory, refused

STORED: Final = 0
DEFLATED: Final = 8
ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000
"""The three flags of encryption."""

_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_ZIP64: Final = 0x0001
_FULL32: Final = 0xFFFFFFFF

_MOST_NAME_BYTES: Final = 200
_MOST_RATIO: Final = 200
_RATIO_FLOOR: Final = 1 << 20
_UTF8: Final = 0x0800
_NESTED: Final = re.compile(r"\.(zip|7z|rar|tar|tgz|tbz2?|txz|tar\.\w+|jar|iso)$", re.IGNORECASE)
_LINKS: Final = {stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of a zip, as its central directory tells.

    Attributes
    ----------
    name : str
        With ``/``; for reports and for matching, never a path to write to.
    raw_name : bytes
        The name as it stands in the archive.
    size, packed : int
        Bytes inflated and in the archive.
    crc : int
        CRC-32 of the inflated bytes.
    method : int
        `STORED` or `DEFLATED`.
    start, end : int
        Between which offsets of the archive the member lies, its own header included.
    """

    name: str
    raw_name: bytes
    size: int
    packed: int
    crc: int
    method: int
    start: int
    end: int


def read_members(source: Source) -> tuple[Member, ...]:
    """Return the files of a zip, in the order in which they lie.

    Raises
    ------
    ArchiveRefused
        If the archive is damaged, ambiguous, or holds what is never unpacked; the text names the
        member and the rule.
    """
    where = find_directory(source)
    members = list(_entries(source, where))
    _check_names(source, members)
    if min((member.start for member in members), default=where.start):
        raise refused(source, "bytes stand before its first member")
    files = sorted((m for m in members if not m.name.endswith("/")), key=lambda m: m.start)
    return _bounded(source, files, where.start)


def _entries(source: Source, where: Directory) -> Iterator[Member]:
    data = source.read(where.start, where.size)
    at = 0
    for number in range(where.count):
        if at + _CENTRAL.size > len(data):
            raise refused(source, f"its directory ends in entry {number + 1} of {where.count}")
        fields = _CENTRAL.unpack_from(data, at)
        name_end = at + _CENTRAL.size + fields[10]
        extra_end = name_end + fields[11]
        after = extra_end + fields[12]
        if fields[0] != b"PK\x01\x02" or after > len(data):
            raise refused(source, f"entry {number + 1} of its directory is damaged")
        raw, extra = data[at + _CENTRAL.size : name_end], data[name_end:extra_end]
        yield _member(source, fields, raw, extra)
        at = after
    if at != len(data):
        raise refused(source, "its directory is longer than its members")


def _member(source: Source, fields: tuple[int, ...], raw: bytes, extra: bytes) -> Member:
    flags, method, crc, packed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
    disk, attributes, start = fields[13], fields[15], fields[16]
    name = _decode(source, raw, flags)
    size, packed, start = _widen(source, name, (size, packed, start), extra)
    rules = {
        "it is encrypted": flags & ENCRYPTED,
        f"its method {method} is neither stored nor deflated": method not in {STORED, DEFLATED},
        "it lies on another disk": disk not in {0, 0xFFFF},
        "it is a link or a device": stat.S_IFMT(attributes >> 16) in _LINKS,
        "it is an archive in an archive": _NESTED.search(name) is not None,
        f"its name is longer than {_MOST_NAME_BYTES} bytes": len(raw) > _MOST_NAME_BYTES,
        "its name is not a plain relative path": not _is_plain(name),
        "it is a folder with content": name.endswith("/") and (size or packed > 2),
        "its packed size is not its size, though it is stored": method == STORED and size != packed,
        f"it inflates more than {_MOST_RATIO} times": size
        > max(_RATIO_FLOOR, _MOST_RATIO * packed),
    }
    for rule, broken in rules.items():
        if broken:
            raise refused(source, f"member {name!r}: {rule}")
    return Member(
        name=name,
        raw_name=raw,
        size=size,
        packed=packed,
        crc=crc,
        method=method,
        start=start,
        end=start,
    )


def _decode(source: Source, raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise refused(source, f"member {raw[:40]!r}: its name is not UTF-8") from error


def _is_plain(name: str) -> bool:
    parts = name.removesuffix("/").split("/")
    return (
        not any(part in {"", ".", ".."} for part in parts)
        and "\\" not in name
        and re.match(r"[A-Za-z]:", name) is None
        and not any(unicodedata.category(letter) in {"Cc", "Cf", "Zl", "Zp"} for letter in name)
    )


def _widen(
    source: Source, name: str, narrow: tuple[int, int, int], extra: bytes
) -> tuple[int, int, int]:
    """Return size, packed size and offset, out of the zip64 field where the entry has no room."""
    wide = b""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    values = []
    for value in narrow:
        if value != _FULL32:
            values.append(value)
        elif len(wide) >= 8:
            values.append(int.from_bytes(wide[:8], "little"))
            wide = wide[8:]
        else:
            raise refused(source, f"member {name!r}: its zip64 field is too short")
    return values[0], values[1], values[2]


def _check_names(source: Source, members: list[Member]) -> None:
    seen: dict[str, str] = {}
    for member in members:
        folded = unicodedata.normalize("NFC", member.name.rstrip("/")).casefold()
        if folded in seen:
            names = f"members {seen[folded]!r} and {member.name!r}"
            raise refused(source, f"{names} are one name on some machines")
        seen[folded] = member.name
    files = {folded for folded, name in seen.items() if not name.endswith("/")}
    for folded, name in seen.items():
        above = folded
        while "/" in above:
            above = above.rpartition("/")[0]
            if above in files:
                raise refused(source, f"member {name!r} lies in {seen[above]!r}, which is a file")


def _bounded(source: Source, members: list[Member], limit: int) -> tuple[Member, ...]:
    """Return the members with the offset at which each must end: where the next one starts."""
    # One end too many where there is no member at all.
    ends = [*(member.start for member in members[1:]), limit]
    bounded = []
    for member, end in zip(members, ends, strict=False):
        if member.start + 30 + len(member.raw_name) + member.packed > end:
            raise refused(source, f"member {member.name!r}: it overlaps with what follows it")
        bounded.append(replace(member, end=end))
    return tuple(bounded)
