"""Looks at a workbook from outside, before any parser sees it.

A workbook is a zip of XML. A file of 4.6 KB can claim a cell in the last corner of the sheet and
bring a reader down, one of 1.5 MB can inflate to gigabytes; so members, sizes, ratios, extents and
markup are checked here while streaming, in constant memory.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final

from verse_data.errors import SheetRefused, ValidationFailed
from verse_data.tables.workbook_xml import MAX_ELEMENTS, Marks, XmlScan

MAX_FILE: Final = 32 << 20
MAX_MEMBERS: Final = 200
MAX_MEMBER: Final = 64 << 20
MAX_TOTAL: Final = 128 << 20
MAX_RATIO: Final = 200
_SMALL: Final = 1 << 20
"""Below this inflated size, a member's ratio is not looked at: empty cells compress well."""
_BLOCK: Final = 1 << 18


def check_size(size: int, *, name: str) -> None:
    """Raise SheetRefused if a workbook of `size` bytes is too large to be read at all."""
    if size > MAX_FILE:
        raise SheetRefused(
            f"{name}: {size:,} bytes are over the limit of {MAX_FILE:,} for a workbook."
        )


def check_workbook(data: bytes, *, name: str) -> dict[str, Marks]:
    """Return what the XML members of a workbook hold beside cells, if a parser may have it.

    Returns
    -------
    dict
        By member: merged cells, and values that are written oddly.

    Raises
    ------
    SheetRefused
        If it breaks a limit; the text names member, limit and what was found.
    ValidationFailed
        If it is no workbook at all.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _check_members(archive, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise ValidationFailed(
            f"{name}: not a readable .xlsx workbook ({error}). Get it again from its source, "
            f"or export the sheet as CSV."
        ) from None


def _check_members(archive: zipfile.ZipFile, name: str) -> dict[str, Marks]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise SheetRefused(f"{name}: {len(members):,} members are over the limit of {MAX_MEMBERS}.")
    names = [member.filename.casefold() for member in members]
    if len(set(names)) < len(names):
        raise SheetRefused(f"{name}: a member's name occurs twice.")
    if "xl/workbook.xml" not in names:
        raise ValidationFailed(
            f"{name}: a zip, but not an .xlsx workbook: it has no xl/workbook.xml."
        )
    total, elements = 0, MAX_ELEMENTS
    marks: dict[str, Marks] = {}
    for member in members:
        if member.flag_bits & 0x1:
            raise SheetRefused(f"{name}: member {member.filename!r} is encrypted.")
        scan = None
        if member.filename.casefold().endswith((".xml", ".rels")):
            scan = XmlScan(f"{name}: member {member.filename!r}", elements=elements)
        total += _check_member(archive, member, name, scan)
        if total > MAX_TOTAL:
            raise SheetRefused(f"{name}: inflates to more than {MAX_TOTAL >> 20} MiB.")
        if scan:
            marks[member.filename] = scan.end()
            elements = scan.left
    return marks


def _check_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, scan: XmlScan | None
) -> int:
    """Stream one member, count what comes out, and look at XML on the way; return the size."""
    where = f"{name}: member {member.filename!r}"
    size = 0
    with archive.open(member) as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            if size > MAX_MEMBER:
                raise SheetRefused(f"{where} inflates to more than {MAX_MEMBER >> 20} MiB.")
            if size > _SMALL and size > MAX_RATIO * max(member.compress_size, 1):
                raise SheetRefused(f"{where} inflates more than {MAX_RATIO}-fold.")
            if scan:
                scan.feed(block)
    return size
